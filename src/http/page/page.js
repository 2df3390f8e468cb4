// What the parts of the page share, and the stream that feeds them: `v1/events`, one snapshot a second.

let shot = null;
const rows = new Map();
const collapsed = new Set();
let turn = 0;
let roots = [];
let sorting = { column: null, down: false };
let current = null;
let selected = null;

const needle = () => $("search").value.trim().toLowerCase();
const isFiltered = () => Boolean(needle() || $("troubled").checked);
const holds = (text, part) => !part || text.toLowerCase().includes(part);

function update(next) {
  if (shot && (next.uptime_s < shot.uptime_s || next.version !== shot.version)) {
    for (const row of rows.values()) row.counted = row.rates = null;
    if (next.version !== shot.version) say(`The node is version ${next.version} now: reload this page.`, "warn");
  }
  shot = next;
  turn += 1;
  roots = next.tree ? [take(next.tree, null, 1)] : [];
  for (const [key, row] of rows) if (row.turn !== turn) rows.delete(key);
  render();
}

function render() {
  if (!shot) return;
  renderHeader();
  renderTree();
  renderPanel();
}

function renderHeader() {
  const { health } = shot;
  write($("version"), shot.version);
  const kernels = [...rows.values()].filter(({ child }) => child.kernel);
  const count = (...states) => kernels.filter(({ child }) => states.includes(child.state)).length;
  const yes = (holds, word) => [holds ? word : `not ${word}`, holds ? "good" : "bad"];
  const state = [
    [words(shot.state), toneOf(shot.state)],
    yes(health.ready, "ready"),
    yes(health.live, "live"),
    yes(health.started, "started"),
  ];
  keyed(
    $("node-state"),
    state.entries(),
    ([at]) => String(at),
    () => make("li"),
    (node, [, [text, tone]]) => write(node, text, { tone: `mark ${tone}` }),
  );
  const counts = [
    ["kernels", kernels.length],
    ["serving", count("serving"), "good"],
    ["restarting", count("restarting"), "warn"],
    ["isolated", count("isolated", "out_of_threads"), "bad"],
    ["dead letters", shot.dead_letters.total, "bad"],
  ];
  if (shot.abandoned_threads) counts.push(["threads left behind", shot.abandoned_threads, "bad"]);
  counts.push(["up", exact(Math.floor(shot.uptime_s)), ""]);
  keyed(
    $("counts"),
    counts,
    ([label]) => label,
    ([label]) => make("div", {}, make("dt", {}, label), make("dd")),
    (node, [, value, tone]) => {
      write(node.lastChild, typeof value === "number" ? amount(value) : value, { tone: value === 0 ? "zero" : tone || "" });
    },
  );
  const troubled = [...rows.values()].filter((row) => row.child.troubled).length;
  document.title = troubled ? `(${troubled}) rustkernel` : "rustkernel";
}

// The stream. It is closed while nobody looks: a node's snapshots cost it nothing then.

let source = null;
let seen = 0;
let paused = false;
let lost = false;
let retry = 0;
let wait = 1000;
const SILENT_MS = 6000;
const LONGEST_WAIT_MS = 10000;

function connect() {
  clearTimeout(retry);
  if (source) source.close();
  source = null;
  if (paused || document.hidden) return tick();
  const mine = new EventSource("v1/events");
  const opened = Date.now();
  source = mine;
  mine.started = opened;
  mine.onmessage = ({ data }) => {
    if (source !== mine) return;
    seen = Date.now();
    lost = false;
    wait = 1000;
    update(JSON.parse(data));
    tick();
  };
  mine.onerror = () => {
    if (source !== mine) return;
    lost = true;
    // The browser tries again by itself unless it was refused: then it is up to us.
    mine.close();
    source = null;
    retry = setTimeout(connect, wait);
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    tick();
  };
  tick();
}

/** Tells how the connection is, and gives one up that says nothing: its node may be gone without a word. */
function tick() {
  if (source && !document.hidden && Date.now() - Math.max(seen, source.started) > SILENT_MS) {
    lost = true;
    connect();
    return;
  }
  const ago = seen ? `seen ${age(Math.floor((Date.now() - seen) / 1000))} ago` : "never seen";
  const [state, text, tone] = paused
    ? ["paused", `paused, ${ago}`, "warn"]
    : lost
      ? ["lost", `disconnected, ${ago}, trying again`, "bad"]
      : seen
        ? ["live", "live", "good"]
        : ["connecting", "connecting", "warn"];
  if ($("connection").dataset.state !== state) $("connection").dataset.state = state;
  write($("connection"), text, { tone: `mark ${tone}` });
}

// Beginning.

function listen() {
  $("search").addEventListener("input", render);
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" && current) {
      event.preventDefault();
      current.element.focus();
    }
    if (event.key === "Escape") {
      $("search").value = "";
      render();
    }
  });
  $("troubled").addEventListener("change", render);
  $("rows").addEventListener("keydown", onTreeKey);
  let drawing = 0;
  scroller().addEventListener("scroll", () => {
    drawing ||= requestAnimationFrame(() => {
      drawing = 0;
      if (shot) renderTree();
    });
  });
  $("rows").addEventListener("focusin", (event) => event.target.row && makeCurrent(event.target.row));
  $("rows").addEventListener("click", (event) => {
    const element = event.target.closest("tr");
    if (element && element.row) {
      select(element.row);
      openTab("details");
    }
  });
  $("tabs").addEventListener("click", (event) => {
    const button = event.target.closest("[role=tab]");
    if (button) openTab(button.id.slice(4));
  });
  $("tabs").addEventListener("keydown", onTabKey);
  for (const button of document.querySelectorAll("[data-action]")) {
    button.addEventListener("click", () => selected && ask(button.dataset.action, selected));
  }
  $("ask-form").addEventListener("submit", (event) => {
    event.preventDefault();
    act();
  });
  $("ask-no").addEventListener("click", () => $("ask").close());
  $("pause").addEventListener("click", () => {
    paused = !paused;
    $("pause").setAttribute("aria-pressed", paused);
    write($("pause"), paused ? "Continue" : "Pause");
    connect();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input") || $("ask").open) return;
    event.preventDefault();
    $("search").focus();
  });
  document.addEventListener("visibilitychange", connect);
  setInterval(() => document.hidden || tick(), 1000);
}

heads();
listen();
connect();
