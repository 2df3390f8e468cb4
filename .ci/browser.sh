# To be sourced in the repository: makes a headless browser ready in target/page-test and says so by $browser, which is empty where there
# can be none; $why then says why.
work=target/page-test
mkdir -p "$work"
browser=
why=
if [ ! -x /usr/bin/chromium ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } >"$work/apt.log" 2>&1 || true
fi
if [ ! -x /usr/bin/chromium ]; then
    why="/usr/bin/chromium is missing and cannot be installed, see $work/apt.log"
elif ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    why="node or npm is missing"
elif [ ! -d "$work/node_modules/playwright-core" ] &&
    ! npm install --prefix "$work" --no-audit --no-fund --no-save playwright-core@1 >"$work/npm.log" 2>&1; then
    why="playwright-core cannot be fetched, see $work/npm.log"
else
    browser=/usr/bin/chromium
fi
