#!/usr/bin/env python3
"""Checks that the committed PTX of the CUDA kernels is what their sources compile to.

    python3 .ci/cuda_kernels.py            compare; fails when a .ptx differs from its .cu
    python3 .ci/cuda_kernels.py --write    write every .ptx anew

Needs no GPU and no CUDA toolkit: NVRTC and ptxas come as two wheels, which pip fetches into target/cuda-wheels (under
CARGO_TARGET_DIR where that is set). What is there already is used again.

Decisions:
- The committed PTX says that it is of version 8.0, which drivers from CUDA 12.0 on take: a driver refuses PTX newer than itself.
  NVRTC 13.0 says 9.0, whatever is in it; ptxas checks that nothing in it needs more than 8.0.
- The committed PTX is for compute capability 7.5, the oldest that CUDA 13 knows, so that it runs on every newer device.
- No contraction to fused multiply-adds: the kernels round where the CPU does. A kernel that wants one says fmaf.
- NVRTC's banner is cut off, because it carries the compiler's build.
- Anything NVRTC says, and any warning of ptxas, is a failure.
- A machine without pip or the wheels skips the check. `--write` fails there.
"""

import ctypes
import difflib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "src/cuda/kernels"
WHEELS = Path(ROOT, os.environ.get("CARGO_TARGET_DIR", "target"), "cuda-wheels")
# What to fetch, and the files that are needed of it.
CONTENT = {
    "nvidia-cuda-nvrtc": ("nvidia/cu13/lib/libnvrtc-builtins.so.13.0", "nvidia/cu13/lib/libnvrtc.so.13"),
    "nvidia-cuda-nvcc": ("nvidia/cu13/bin/ptxas",),
}
RELEASE = "13.0"
PTX_VERSION = "8.0"
CAPABILITIES = (75, 80, 90)
FETCH_SECONDS = 300
DIFF_LINES = 20


class Skip(Exception):
    """Why there is nothing to check with."""


class Failure(Exception):
    """What is wrong with a kernel."""


class Nvrtc:
    """The run-time compiler, by the signatures of `nvrtc.h`."""

    def __init__(self):
        builtins, compiler = (WHEELS / name for name in CONTENT["nvidia-cuda-nvrtc"])
        try:
            # The compiler asks for its builtins by name; they are found because they are loaded already.
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
            self.library = ctypes.CDLL(str(compiler))
        except OSError as error:
            raise Skip(f"NVRTC does not load: {error}") from error
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def ptx(self, source, capability):
        """The PTX of a source file, without its banner."""
        program = ctypes.c_void_p()
        # The name is compiled into assertions: no folder.
        name = source.name.encode()
        self.call("nvrtcCreateProgram", ctypes.byref(program), source.read_bytes(), name, 0, None, None)
        try:
            options = [f"--gpu-architecture=compute_{capability}", "--fmad=false", "--no-cache"]
            texts = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            code = self.library.nvrtcCompileProgram(program, len(options), texts)
            log = self.text("ProgramLog", program)
            if code != 0 or log.strip():
                why = "NVRTC warns" if code == 0 else self.message(code)
                raise Failure(f"{source.name} for compute_{capability}: {why}\n{log}".rstrip())
            text = self.text("PTX", program)
        finally:
            self.call("nvrtcDestroyProgram", ctypes.byref(program))
        body = text[text.index(".version") :].rstrip()
        body, said = re.subn(r"\A\.version \d+\.\d+$", f".version {PTX_VERSION}", body, flags=re.MULTILINE)
        if said != 1:
            raise Failure(f"{source.name}: no .version")
        return f"// From {source.name}, by .ci/cuda_kernels.py --write.\n{body}\n"

    def text(self, what, program):
        size = ctypes.c_size_t()
        self.call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self.call(f"nvrtcGet{what}", program, buffer)
        return buffer.value.decode()

    def call(self, function, *arguments):
        code = getattr(self.library, function)(*arguments)
        if code != 0:
            raise Failure(f"{function}: {self.message(code)}")

    def message(self, code):
        return self.library.nvrtcGetErrorString(code).decode()


def fetch():
    """Brings the files of CONTENT into WHEELS."""
    for package, names in CONTENT.items():
        if all((WHEELS / name).is_file() for name in names):
            continue
        wheel = find_wheel(package) or download(package)
        try:
            unpack(wheel, names)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise Skip(f"{wheel.name}: {error}") from error


def find_wheel(package):
    found = sorted(WHEELS.glob(f"{package.replace('-', '_')}-{RELEASE}.*.whl"))
    return found[-1] if found else None


def download(package):
    if importlib.util.find_spec("pip") is None:
        raise Skip("python3 has no pip")
    # Wheels only: a source package would run its own code.
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--retries", "1"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", WHEELS, f"{package}=={RELEASE}.*"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise Skip(f"pip did not fetch {package} in {FETCH_SECONDS} seconds") from error
    wheel = find_wheel(package)
    if ended.returncode != 0 or wheel is None:
        said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        raise Skip(f"pip cannot fetch {package}=={RELEASE}.*: {said[-1]}")
    return wheel


def unpack(wheel, names):
    # By way of another folder: a file that is in its place is complete.
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory(dir=WHEELS) as partial:
        for name in names:
            file = Path(archive.extract(name, partial))
            file.chmod(0o755)
            (WHEELS / name).parent.mkdir(parents=True, exist_ok=True)
            file.replace(WHEELS / name)


def assemble(name, ptx, capability):
    """What ptxas says of PTX on a device of this capability."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, name)
        file.write_text(ptx)
        ptxas = WHEELS / CONTENT["nvidia-cuda-nvcc"][0]
        options = ["-v", "--warning-as-error", f"--gpu-name=sm_{capability}", "-o", "cubin"]
        try:
            ended = subprocess.run(
                [ptxas, *options, name], cwd=folder, capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise Skip(f"ptxas does not run: {error}") from error
    said = ended.stdout + ended.stderr
    if ended.returncode != 0:
        raise Failure(f"{name} for sm_{capability}: ptxas ended with {ended.returncode}\n{said}".rstrip())
    return said


def usage(said):
    """The most registers of a kernel, and the bytes that all functions together spill."""
    registers = max(map(int, re.findall(r"Used (\d+) registers", said)), default=0)
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill stores", said)))
    return f"{registers} registers, {spilled} bytes spilled"


def compare(committed, ptx):
    if not committed.is_file():
        raise Failure(f"{committed.name} is missing: run .ci/cuda_kernels.sh --write")
    lines = [text.splitlines() for text in (committed.read_text(), ptx)]
    if lines[0] != lines[1]:
        changes = list(difflib.unified_diff(*lines, "committed", "compiled", n=1, lineterm=""))
        shown = "\n".join(changes[:DIFF_LINES])
        raise Failure(f"{committed.name} is not what its source compiles to: run .ci/cuda_kernels.sh --write\n{shown}")


def check(nvrtc, source, write):
    """One kernel file; returns its line of the report."""
    committed = source.with_suffix(".ptx")
    compiled = {capability: nvrtc.ptx(source, capability) for capability in CAPABILITIES}
    oldest = compiled[CAPABILITIES[0]]
    used = {}
    for capability, ptx in compiled.items():
        for device in CAPABILITIES:
            if device >= capability:
                said = assemble(committed.name, ptx, device)
                # The report is about the PTX that is committed.
                used.setdefault(device, usage(said))
    if write:
        committed.write_text(oldest)
    else:
        compare(committed, oldest)
    return f"{source.name}: " + "; ".join(f"sm_{device} {text}" for device, text in used.items())


def sources():
    """Every kernel file."""
    found = sorted(KERNELS.glob("*.cu"))
    compiled = {source.with_suffix(".ptx") for source in found}
    orphans = [file.name for file in sorted(KERNELS.glob("*.ptx")) if file not in compiled]
    if orphans:
        raise Failure(f"PTX without a source: {', '.join(orphans)}")
    if not found:
        raise Failure("no kernels")
    return found


def main(arguments):
    if arguments not in ([], ["--write"]):
        print(__doc__)
        return 2
    write = bool(arguments)
    failures = 0
    try:
        WHEELS.mkdir(parents=True, exist_ok=True)
        fetch()
        nvrtc = Nvrtc()
        for source in sources():
            try:
                print(check(nvrtc, source, write))
            except Failure as failure:
                failures += 1
                print(failure)
    except Skip as skip:
        print(f"skipped: {skip}")
        return 1 if write or failures else 0
    except Failure as failure:
        failures += 1
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
