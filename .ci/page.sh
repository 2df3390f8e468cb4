#!/usr/bin/env bash
# The live page in a real browser: page.sh [PROGRAM [SCREENSHOT_FOLDER]]. Skipped where a browser or its driver cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."
program=${1:-target/debug/rustkernel}
screenshots=${2:-}
screenshots=${2:-}
. .ci/browser.sh
if [ -z "$browser" ]; then
    echo "skipped: $why"
    # Whoever relies on a green run relies on this, too.
    [ -z "${CI:-}" ] || exit 1
    exit 0
fi

token=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')
# Emptied here: the node opens it a moment later, and until then it would tell the last node's address.
: >"$work/stderr.log"
RUSTKERNEL_TOKEN=$token "$program" run --serve 127.0.0.1:0 >"$work/stdout.log" 2>"$work/stderr.log" &
node=$!
# It is killed in the end, by the test or here, which the shell need not report.
disown "$node"
trap 'kill -KILL "$node" 2>/dev/null || true' EXIT

address=
for _ in $(seq 100); do
    address=$(sed -n 's,^serving .*on http://,,p' "$work/stderr.log")
    [ -z "$address" ] || break
    kill -0 "$node" 2>/dev/null || break
    sleep 0.1
done
if [ -z "$address" ]; then
    echo "the node does not serve:"
    cat "$work/stderr.log"
    exit 1
fi

# The driver is looked for from where the script lies.
cp .ci/page.mjs "$work/page.mjs"
node "$work/page.mjs" "$address" "$token" --node "$node" --program "$program" ${screenshots:+--screenshots "$screenshots"}
