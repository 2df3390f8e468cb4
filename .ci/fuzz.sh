#!/usr/bin/env bash
# Builds the fuzz targets with libFuzzer's coverage in everything, and runs each for a while from its seeds: seconds, the first argument.
# What one finds is left in target/fuzz/found.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-5}
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
# Named, so that build scripts are not instrumented.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="$flags" CARGO_TARGET_DIR=target/fuzz cargo build --locked --release --target "$host" --manifest-path tests/fuzz/Cargo.toml
for target in tests/fuzz/targets/*.rs; do
    name=$(basename "$target" .rs)
    mkdir -p "target/fuzz/corpus/$name" target/fuzz/found
    echo "-- $name"
    if ! "target/fuzz/$host/release/$name" "target/fuzz/corpus/$name" "tests/fuzz/seeds/$name" \
        -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="target/fuzz/found/$name-" -print_final_stats=1 >"target/fuzz/$name.log" 2>&1; then
        cat "target/fuzz/$name.log"
        exit 1
    fi
    grep -E '^stat::(number_of_executed_units|peak_rss_mb)' "target/fuzz/$name.log"
done
