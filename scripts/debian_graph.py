#!/usr/bin/env python3
"""Writes Debian's package dependency graph as an edge list in SNAP's format.

Run on a Debian system, after `apt-get update`:

    python3 scripts/debian_graph.py data

Writes into the given folder

    debian-depends.txt.gz   edges `from<TAB>to`: package `from` depends on package `to`
    debian-names.txt.gz     `id<TAB>name` for every package

Decisions:
- One release, one component: the index of `main` that carries the release's version. Security and update indexes and
  third-party sources are left out, so that everybody with the same point release writes the same bytes.
- A package's id is its place, from 1, among all package names in byte order.
- Edges come from Depends and Pre-Depends, every alternative of `a | b` counts, versions and architectures are dropped,
  and an edge that occurs twice is written once. A package that depends on itself keeps its loop.
- A dependency on a name that no package of this index has (a virtual package) is left out and counted in the header.
- The gzip header carries no name and no time.
"""

import email.utils
import gzip
import re
import subprocess
import sys
from pathlib import Path

TARGETS = ["apt-get", "indextargets", "--format", "$(FILENAME)\t$(CODENAME)\t$(VERSION)\t$(ARCHITECTURE)",
           "Created-By: Packages", "Origin: Debian", "Label: Debian", "Component: main"]
NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")


def main_index():
    """The index file of the release itself, and what it is called."""
    lines = subprocess.run(TARGETS, check=True, capture_output=True, text=True).stdout.splitlines()
    found = [line.split("\t") for line in lines]
    found = [target for target in found if not target[1].endswith(("-updates", "-security", "-backports"))]
    if len(found) != 1:
        sys.exit(f"expected one index of Debian main, found {len(found)}; run apt-get update first")
    return found[0]


def release_date(index):
    """The date in the InRelease file that lies beside the index."""
    release = re.sub(r"_main_binary-[^_]+_Packages.*$", "_InRelease", index)
    for line in Path(release).read_text(encoding="utf-8").splitlines():
        if line.startswith("Date: "):
            return email.utils.parsedate_to_datetime(line[6:]).date().isoformat()
    sys.exit("the InRelease file has no Date")


def dependencies(index):
    """Package name -> set of names it depends on; several versions of a package are united."""
    text = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", index], check=True, capture_output=True).stdout
    packages = {}
    for stanza in text.decode("utf-8").split("\n\n"):
        fields = dict(re.findall(r"^(Package|Depends|Pre-Depends): (.*)$", stanza, re.MULTILINE))
        if "Package" not in fields:
            continue
        needs = packages.setdefault(fields["Package"], set())
        for field in ("Depends", "Pre-Depends"):
            for alternative in re.split(r"[,|]", fields.get(field, "")):
                name = NAME.match(alternative.strip())
                if name:
                    needs.add(name.group())
    return packages


def write(path, text):
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text.encode("ascii"))


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "data")
    index, codename, version, architecture = main_index()
    packages = dependencies(index)
    ids = {name: number for number, name in enumerate(sorted(packages), 1)}
    edges, virtual = [], set()
    for name in sorted(packages):
        edges += sorted((ids[name], ids[need]) for need in packages[name] if need in ids)
        virtual |= {need for need in packages[name] if need not in ids}
    nodes = len({node for edge in edges for node in edge})
    origin = f"Debian {version} ({codename}), main, {architecture}; index of {release_date(index)}"
    header = [
        "# Directed graph: debian-depends.txt.gz",
        "# Package dependencies (Depends and Pre-Depends, all alternatives): FromNodeId depends on ToNodeId",
        f"# Source: {origin}",
        "# Command: apt-get update && python3 scripts/debian_graph.py data",
        f"# Packages: {len(packages)} Virtual names left out: {len(virtual)}",
        f"# Nodes: {nodes} Edges: {len(edges)}",
        "# FromNodeId\tToNodeId",
    ]
    write(folder / "debian-depends.txt.gz", "\n".join(header + [f"{a}\t{b}" for a, b in edges]) + "\n")
    names = ["# Package names: debian-names.txt.gz", f"# Source: {origin}", "# NodeId\tName"]
    write(folder / "debian-names.txt.gz", "\n".join(names + [f"{ids[n]}\t{n}" for n in sorted(ids)]) + "\n")
    print("\n".join(header))


if __name__ == "__main__":
    main()
