#!/usr/bin/env bash
# Follows the book's tutorial in an empty folder: the project is made by its commands, its program runs as it stands there, and its kernel is
# seen to survive panics, by the commands and in a browser. The path of the checkout is put in, and its locked versions and target folder,
# because everything else here is built with them.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
page=docs/guide/first-kernel.md
export CARGO_TARGET_DIR=$repository/target
# To read a program's symbols for its first backtrace takes a busy machine longer than the tutorial's deadline.
unset RUST_BACKTRACE

# The Nth block of a language.
block() {
    awk -v start="^\`\`\`$1" -v wanted="$2" '
        inside && /^```$/ { inside = 0 }
        inside && count == wanted { print }
        !inside && $0 ~ start { inside = 1; count += 1 }
    ' "$page" | sed "s,\.\./rustkernel,$repository,g"
}

folder=$(mktemp -d)
service=
cleanup() {
    [ -z "$service" ] || kill -KILL "$service" 2>/dev/null || true
    rm -rf "$folder"
}
trap cleanup EXIT
. .ci/browser.sh

{
    cd "$folder"
    eval "$(cd "$repository" && block sh 1)"
    # The versions that everything else here is built with.
    cp "$repository/Cargo.lock" Cargo.lock
    (cd "$repository" && block rust 1) >src/main.rs
    cargo build --quiet
    [ "$(cd "$repository" && block sh 2)" = "cargo run" ]
    "$CARGO_TARGET_DIR/debug/first-kernel" >"$folder/said" &
    service=$!
    said() {
        for _ in $(seq 300); do
            grep -q "$1" "$folder/said" && return
            kill -0 "$service" || exit 1
            sleep 0.1
        done
        echo "it has not said: $1"
        cat "$folder/said"
        exit 1
    }
    said "^open http://127.0.0.1:9470$"
    if [ -n "$browser" ]; then
        cp "$repository/.ci/tutorial.mjs" "$repository/$work/tutorial.mjs"
        node "$repository/$work/tutorial.mjs" http://127.0.0.1:9470 a-token-for-a-first-try
    else
        echo "not looked at in a browser: $why"
        [ -z "${CI:-}" ] || exit 1
    fi
    said "^3: demo/double: the kernel "
    said "^4 doubled: 8$"
    # The tree is not well, which is 3, for a fifth of a second after each panic.
    eval "$(cd "$repository" && block sh 3 | sed '1s/$/ || [ $? = 3 ]/')"
    kill -INT "$service"
    wait "$service"
    service=
    head -6 "$folder/said"
}
