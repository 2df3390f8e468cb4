#!/usr/bin/env bash
# Makes the book in target/book, with an mdbook of its own, without what only its preview needs.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.5.4
if [ "$(target/tools/bin/mdbook --version 2>/dev/null)" != "mdbook v$version" ]; then
    cargo install --quiet --locked --debug --no-default-features --root target/tools --target-dir target/tools/build "mdbook@$version"
fi
target/tools/bin/mdbook build docs 2>&1 | tee target/book.log
if grep -E "WARN|ERROR" target/book.log; then exit 1; fi
for page in $(sed -n 's/.*(\(.*\)\.md)/\1/p' docs/SUMMARY.md); do
    [ -s "target/book/$page.html" ] || { [ "$(basename "$page")" = README ] && [ -s "target/book/$(dirname "$page")/index.html" ]; } || { echo "no page for $page.md"; exit 1; }
done
