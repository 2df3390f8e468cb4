#!/usr/bin/env python3
"""Computes the PageRank that the tests compare with, by two programs that share no code with this project.

Needs networkx, scipy and numpy (any virtual environment outside the repository):

    python3 scripts/reference_pagerank.py data

- networkx: `networkx.pagerank`, a power iteration. Its `tol` counts per node (it stops at an L1 change below N * tol),
  so TOLERANCE / N is passed in.
- scipy: no iteration of ranks at all. With a uniform teleport and dangling mass spread uniformly, PageRank is
  proportional to the solution of (I - damping * P^T) y = 1, which BiCGSTAB with iterative refinement solves.

The file that is written holds networkx's ranks and the largest difference between the two.
"""

import gzip
import json
import sys
from pathlib import Path

import networkx
import numpy
import scipy
import scipy.sparse.linalg

DAMPING = 0.85
TOLERANCE = 1e-12
TOP = 100
REFINEMENTS = 4


def read_edges(path):
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    lines = data.decode("ascii").splitlines()
    return [tuple(map(int, line.split()[:2])) for line in lines if line.strip() and line[0] not in "#%"]


def by_networkx(edges):
    graph = networkx.DiGraph()
    graph.add_nodes_from(sorted({node for edge in edges for node in edge}))
    graph.add_edges_from(edges)
    ranks = networkx.pagerank(graph, alpha=DAMPING, tol=TOLERANCE / len(graph), max_iter=1000)
    return graph, ranks


def by_scipy(edges):
    ids = numpy.array(sorted({node for edge in edges for node in edge}))
    pairs = numpy.searchsorted(ids, numpy.array(sorted(set(edges))))
    n = len(ids)
    degree = numpy.bincount(pairs[:, 0], minlength=n)
    weight = 1.0 / degree[pairs[:, 0]]
    transposed = scipy.sparse.csr_array((weight, (pairs[:, 1], pairs[:, 0])), shape=(n, n))
    system = scipy.sparse.eye_array(n, format="csr") - DAMPING * transposed
    solution = numpy.zeros(n)
    for _ in range(REFINEMENTS):
        correction, _ = scipy.sparse.linalg.bicgstab(system, 1.0 - system @ solution, rtol=1e-12, maxiter=10_000)
        solution += correction
    residual = numpy.abs(1.0 - system @ solution).sum() / solution.sum()
    if residual > TOLERANCE:
        sys.exit(f"BiCGSTAB did not converge: relative residual {residual}")
    return dict(zip(ids.tolist(), (solution / solution.sum()).tolist()))


def reference(name, path):
    edges = read_edges(path)
    graph, ranks = by_networkx(edges)
    other = by_scipy(edges)
    order = sorted(ranks, key=lambda node: (-ranks[node], node))
    return {
        "graph": name,
        "damping": DAMPING,
        "tolerance": TOLERANCE,
        "versions": {"networkx": networkx.__version__, "scipy": scipy.__version__, "numpy": numpy.__version__},
        "nodes": graph.number_of_nodes(),
        "edges": graph.number_of_edges(),
        "dangling": sum(1 for _, degree in graph.out_degree() if degree == 0),
        "rank_sum": sum(ranks.values()),
        "rank_square_sum": sum(rank * rank for rank in ranks.values()),
        "networkx_scipy_l1": sum(abs(ranks[node] - other[node]) for node in ranks),
        "networkx_scipy_max": max(abs(ranks[node] - other[node]) for node in ranks),
        "top": [{"id": node, "rank": ranks[node]} for node in order[:TOP]],
    }


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "data")
    for name, source in (("debian", "debian-depends.txt.gz"), ("karate", "karate.txt")):
        result = reference(name, folder / source)
        text = json.dumps(result, indent=1)
        (folder / f"{name}-pagerank.reference.json").write_text(text + "\n", encoding="ascii")
        print({key: value for key, value in result.items() if key != "top"})


if __name__ == "__main__":
    main()
