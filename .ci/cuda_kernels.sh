#!/usr/bin/env bash
# Compares the committed PTX of the CUDA kernels with their sources; `--write` rewrites it. Skips where there is no python3.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v python3 >/dev/null; then
    echo "skipped: no python3"
    exit 0
fi
exec python3 .ci/cuda_kernels.py "$@"
