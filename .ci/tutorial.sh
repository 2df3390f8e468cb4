#!/usr/bin/env bash
# Follows the book's tutorial, word for word, in an empty folder: the project is made, its program runs, and its kernel is seen to survive
# panics, by the commands and in a browser. Only the path of the checkout is put in.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
page=docs/guide/first-kernel.md
export CARGO_TARGET_DIR=$repository/target

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
    for _ in $(seq 100); do
        grep -q "^open http://127.0.0.1:9470$" "$folder/said" && break
        kill -0 "$service" || exit 1
        sleep 0.1
    done
    if [ -n "$browser" ]; then
        cp "$repository/.ci/tutorial.mjs" "$repository/$work/tutorial.mjs"
        node "$repository/$work/tutorial.mjs" http://127.0.0.1:9470 a-token-for-a-first-try
    else
        echo "not looked at in a browser: $why"
        until grep -q "^13: " "$folder/said" && grep -q "^14 doubled: 28$" "$folder/said"; do sleep 0.2; done
    fi
    eval "$(cd "$repository" && block sh 3)"
    kill -INT "$service"
    wait "$service"
    service=
    grep -E "^(3: |4 doubled)" "$folder/said"
}
