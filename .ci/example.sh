#!/usr/bin/env bash
# Runs one example and compares its stdout with the output in its header.
set -euo pipefail
cd "$(dirname "$0")/.."
expected=$(sed -n '/^\/\/! ```text$/,/^\/\/! ```$/p' "examples/$1.rs" | sed '1d;$d' | sed 's,^//! \{0\,1\},,')
actual=$(cargo run --locked --quiet --example "$1" 2>/dev/null)
if [ "$expected" != "$actual" ]; then
    echo "example $1 prints something else than its header says:"
    diff <(echo "$expected") <(echo "$actual") || true
    exit 1
fi
echo "$actual"
