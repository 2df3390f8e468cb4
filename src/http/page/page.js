"use strict";
// The node's live page. It reads `v1/events`, one snapshot a second, and keeps a row per child: a snapshot writes only what differs from
// what is there. Names, reasons and errors come from users' kernels and are hostile input: they become text, never markup.

const $ = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Writes a text, a tooltip and a class, each only if it is another one than before. */
function write(node, text, { title = "", tone = "" } = {}) {
  const old = node.written;
  if (old && old.text === text && old.title === title && old.tone === tone) return false;
  if (!old || old.text !== text) node.textContent = text;
  if ((old ? old.title : "") !== title) title ? node.setAttribute("title", title) : node.removeAttribute("title");
  const before = old ? old.tone : "";
  if (before !== tone) {
    if (before) node.classList.remove(...before.split(" "));
    if (tone) node.classList.add(...tone.split(" "));
  }
  node.written = { text, title, tone };
  return Boolean(old) && old.text !== text;
}

/** Makes `nodes` the children of `parent`, and moves only those that are not in their place. */
function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const node of [...parent.children]) if (!wanted.has(node)) node.remove();
  let place = parent.firstChild;
  for (const node of nodes) {
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
}

/** Shows `items` in `parent`, with one lasting node for each key. */
function keyed(parent, items, keyOf, create, update) {
  const old = parent.nodes || new Map();
  const nodes = new Map();
  for (const item of items) {
    let key = keyOf(item);
    while (nodes.has(key)) key += "+";
    const node = old.get(key) || create(item);
    if (update) update(node, item);
    nodes.set(key, node);
  }
  parent.nodes = nodes;
  arrange(parent, [...nodes.values()]);
}

// Words and numbers.

const GOOD = ["serving", "up", "healthy", "closed", "disabled", "running"];
const WARN = ["starting", "restarting", "degraded", "draining", "stopping", "unknown", "half_open"];
const DASH = "\u2013";

const toneOf = (word) => (GOOD.includes(word) ? "good" : WARN.includes(word) ? "warn" : "bad");
const words = (word) => word.replaceAll("_", " ");
const known = (value) => value !== null && value !== undefined;
const zero = (value) => (value === 0 ? "zero" : "");

function digits(value) {
  return String(value < 100 ? Math.round(value * 10) / 10 : Math.round(value));
}

function scaled(value, units, step) {
  let at = 0;
  for (; value >= step && at < units.length - 1; at += 1) value /= step;
  return digits(value) + units[at];
}

const amount = (value) => (value < 10000 ? digits(value) : scaled(value, ["", "k", "M", "G", "T"], 1000));
const perSecond = (value) => (value > 0 && value < 10 ? value.toFixed(1) : amount(value));
const bytes = (value) => (value === 0 ? "0" : scaled(value, [" B", " KiB", " MiB", " GiB", " TiB"], 1024));

/** A span by its largest unit, which keeps most cells as they were from one second to the next. */
function span(seconds) {
  if (seconds === 0) return "0 s";
  if (seconds < 1e-3) return digits(seconds * 1e6) + " \u00b5s";
  if (seconds < 1) return digits(seconds * 1e3) + " ms";
  if (seconds < 60) return (seconds < 10 && seconds % 1 ? seconds.toFixed(1) : Math.floor(seconds)) + " s";
  if (seconds < 3600) return Math.floor(seconds / 60) + " min";
  return seconds < 172800 ? Math.floor(seconds / 3600) + " h" : Math.floor(seconds / 86400) + " d";
}

const age = (seconds) => span(seconds < 60 ? Math.floor(seconds) : seconds);

function exact(seconds) {
  if (seconds < 60) return span(seconds);
  const part = (size, unit, of) => `${Math.floor((of ? seconds % of : seconds) / size)} ${unit}`;
  if (seconds < 3600) return `${part(60, "min")} ${part(1, "s", 60)}`;
  if (seconds < 86400) return `${part(3600, "h")} ${part(60, "min", 3600)}`;
  return `${part(86400, "d")} ${part(3600, "h", 86400)}`;
}

function clock(millis) {
  const at = new Date(millis);
  const today = at.toDateString() === new Date().toDateString();
  const time = at.toLocaleTimeString("en-GB");
  return today ? time : `${at.getFullYear()}-${String(at.getMonth() + 1).padStart(2, "0")}-${String(at.getDate()).padStart(2, "0")} ${time}`;
}

const moment = (millis) => make("time", { datetime: new Date(millis).toISOString(), title: new Date(millis).toISOString() }, clock(millis));

// What is shown.

let shot = null;
const rows = new Map();
const collapsed = new Set();
let turn = 0;
let roots = [];
let sorting = { column: null, down: false };
let current = null;
let selected = null;

const needle = () => $("search").value.trim().toLowerCase();
const holds = (text, part) => !part || text.toLowerCase().includes(part);
const left = ({ child }) => (known(child.max_restarts) && known(child.restarts_in_window) ? Math.max(0, child.max_restarts - child.restarts_in_window) : null);
const breakerTone = (word) => (word === "closed" || word === "disabled" ? "zero" : toneOf(word));

/** Whether somebody should look at it: it does not serve, refuses requests, or cannot save its progress. */
function isTroubled({ child }) {
  const kernel = child.kernel;
  return toneOf(child.state) !== "good" || Boolean(kernel && (toneOf(kernel.breaker) !== "good" || kernel.checkpoint_trouble));
}

const kernel = (field, format, tone) => ({ child }) => {
  const value = child.kernel ? child.kernel[field] : null;
  return known(value) ? { text: format(value), tone: tone ? tone(value) : zero(value) } : { text: "" };
};
const rate = (field, tone) => ({ rates }) => (rates ? { text: perSecond(rates[field]), tone: rates[field] ? tone : "zero" } : { text: "" });
const latency = (field) => ({ child }) => {
  const seen = child.kernel && child.kernel.latency;
  return seen && seen.count ? { text: span(seen[field]), title: `of ${seen.count} answers` } : { text: "" };
};
const byKernel = (field) => ({ child }) => (child.kernel ? child.kernel[field] : null);
const SEVERITY = { bad: 0, warn: 1, good: 2 };

/** `show` gives a cell's text, tooltip and tone; `order` what siblings are sorted by, the least first. */
const COLUMNS = [
  { id: "name", label: "Name", show: ({ child }) => ({ text: child.name, title: child.name }), order: ({ child }) => child.name },
  { id: "kind", label: "Kind", show: ({ child }) => ({ text: child.kind, tone: "quiet" }), order: ({ child }) => child.kind },
  {
    id: "state", label: "State", show: ({ child }) => ({ text: words(child.state), tone: `mark ${toneOf(child.state)}` }),
    order: ({ child }) => SEVERITY[toneOf(child.state)] + child.state,
  },
  {
    id: "since", label: "Since", number: true, hint: "For how long it has been in this state",
    show: ({ child }) => (known(child.since_s) ? { text: age(child.since_s) } : { text: "" }), order: ({ child }) => child.since_s,
  },
  {
    id: "rule", label: "Rule", hint: "A supervisor's strategy; another child's restart rule",
    show: ({ child }) => ({ text: words(child.supervisor ? child.supervisor.strategy : child.restart || ""), tone: "quiet" }),
    order: ({ child }) => (child.supervisor ? child.supervisor.strategy : child.restart),
  },
  {
    id: "window", label: "In window", number: true, hint: "Restarts that count against the budget now, of how many, and in which time",
    show: ({ child }) => ({ text: windowOf(child), tone: zero(child.restarts_in_window) }), order: ({ child }) => child.restarts_in_window,
  },
  {
    id: "left", label: "Left", number: true, hint: "Restarts that are left in the budget",
    show: (row) => {
      const rest = left(row);
      return known(rest) ? { text: String(rest), tone: rest === 0 && row.child.max_restarts ? "bad" : rest * 4 <= row.child.max_restarts ? "warn" : "" } : { text: "" };
    },
    order: left,
  },
  {
    id: "restarts", label: "Restarts", number: true, hint: "Restarts since the node has been there",
    show: ({ child }) => (child.kind === "task" ? { text: "" } : { text: amount(child.restarts), tone: zero(child.restarts) }), order: ({ child }) => child.restarts,
  },
  {
    id: "last", label: "Last failure",
    show: ({ child: { last_failure: last } }) => (last ? { text: `${last.class}: ${last.message}`, title: `${last.class}: ${last.message}\n${last.advice}` } : { text: "" }),
    order: ({ child }) => child.last_failure && child.last_failure.class,
  },
  { id: "waiting", label: "Waiting", number: true, hint: "Requests that wait", show: kernel("waiting", amount), order: byKernel("waiting") },
  { id: "bytes", label: "Bytes", number: true, hint: "Bytes of all requests that are not answered", show: kernel("waiting_bytes", bytes), order: byKernel("waiting_bytes") },
  { id: "answered", label: "OK/s", number: true, hint: "Requests answered with a value, each second", show: rate("answered", ""), order: ({ rates }) => rates && rates.answered },
  { id: "failed", label: "Err/s", number: true, hint: "Requests answered with an error, each second", show: rate("failed", "bad"), order: ({ rates }) => rates && rates.failed },
  { id: "p50", label: "p50", number: true, hint: "Half of the answers took at most this", show: latency("p50_s"), order: ({ child }) => child.kernel && child.kernel.latency && child.kernel.latency.p50_s },
  { id: "p99", label: "p99", number: true, hint: "99 of 100 answers took at most this", show: latency("p99_s"), order: ({ child }) => child.kernel && child.kernel.latency && child.kernel.latency.p99_s },
  { id: "device", label: "Device", show: kernel("device", String, () => ""), order: byKernel("device") },
  { id: "breaker", label: "Breaker", show: kernel("breaker", words, breakerTone), order: byKernel("breaker") },
];

function windowOf(child) {
  if (!known(child.restarts_in_window)) return "";
  const most = known(child.max_restarts) ? child.max_restarts : "no limit";
  const period = child.supervisor ? ` in ${span(child.supervisor.period_s)}` : "";
  return `${child.restarts_in_window}/${most}${period}`;
}

function heads() {
  for (const column of COLUMNS) {
    const button = make("button", { type: "button", tabindex: 0, onclick: () => sortBy(column) }, column.label);
    if (column.hint) button.title = column.hint;
    column.head = make("th", { scope: "col", class: `c-${column.id}${column.number ? " number" : ""}`, "aria-sort": "none" }, button);
    $("columns").append(column.head);
  }
}

/** Ascending, descending, then in start order again. */
function sortBy(column) {
  if (sorting.column !== column) sorting = { column, down: Boolean(column.number) };
  else if (sorting.down === Boolean(column.number)) sorting = { column, down: !sorting.down };
  else sorting = { column: null, down: false };
  for (const { head } of COLUMNS) head.setAttribute("aria-sort", "none");
  if (sorting.column) column.head.setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
  render();
}

function inOrder(children) {
  const { column, down } = sorting;
  if (!column) return children;
  const sign = down ? -1 : 1;
  return [...children].sort((a, b) => {
    const [x, y] = [column.order(a), column.order(b)];
    if (!known(x) || !known(y)) return known(y) - known(x);
    return sign * (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y);
  });
}

function rowElement(row) {
  const element = make("tr", { role: "row", tabindex: -1 });
  row.cells = COLUMNS.map((column, at) => {
    const cell = make("td", { role: "gridcell", class: `c-${column.id}${column.number ? " number" : ""}` });
    element.append(cell);
    if (at > 0) return cell;
    const name = make("span", { class: "mono" });
    cell.append(make("span", { class: "twist", onclick: (event) => { event.stopPropagation(); toggle(row); } }), name);
    return name;
  });
  row.state = row.cells[COLUMNS.findIndex(({ id }) => id === "state")];
  row.state.addEventListener("animationend", () => row.state.classList.remove("changed"));
  element.row = row;
  return element;
}

/** Takes the tree over into `rows`. Names are unique below a supervisor only, so that a row's key is its path. */
function take(child, parent, level) {
  const key = parent ? `${parent.key}\n${child.name}` : child.name;
  let row = rows.get(key);
  if (!row) {
    row = { key, children: [] };
    rows.set(key, row);
  }
  Object.assign(row, { parent, level, turn, rates: ratesOf(row, child), child });
  row.children = child.children.map((below) => take(below, row, level + 1));
  return row;
}

/** Counters only grow; one that is less than before belongs to another life of the node. */
function ratesOf(row, child) {
  const counters = child.kernel;
  if (!counters) return null;
  const now = shot.uptime_s;
  const old = row.counted;
  row.counted = { at: now, answered: counters.answered, failed: counters.failed };
  if (!old || now <= old.at || counters.answered < old.answered || counters.failed < old.failed) return row.rates || null;
  const per = (field) => (counters[field] - old[field]) / (now - old.at);
  return { answered: per("answered"), failed: per("failed") };
}

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

/** Appends `row` and what is below it as far as they pass the filters; a row stays for what is below it. */
function collect(row, part, troubled, list) {
  const at = list.length;
  list.push(row);
  let stays = holds(row.child.name, part) && (!troubled || isTroubled(row));
  if (stays) list.hits += 1;
  if (part || troubled || !collapsed.has(row.key)) {
    for (const child of inOrder(row.children)) stays = collect(child, part, troubled, list) || stays;
  }
  if (!stays) list.length = at;
  return stays;
}

let shown = [];

function renderTree() {
  const part = needle();
  const troubled = $("troubled").checked;
  const filtered = Boolean(part || troubled);
  const list = [];
  list.hits = 0;
  for (const root of roots) collect(root, part, troubled, list);
  const timed = list.some(({ child }) => child.kernel && child.kernel.latency);
  $("tree").classList.toggle("timed", timed);
  for (const row of list) renderRow(row, filtered);
  const focused = document.activeElement;
  arrange($("rows"), list.map((row) => row.element));
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
  shown = list;
  if (!shown.includes(current)) makeCurrent(shown[0] || null);
  write($("matches"), filtered ? `${list.hits} of ${rows.size}` : "");
  const nothing = roots.length ? (troubled ? "Nothing is in trouble here." : "No name holds this text.") : shot ? "The supervisor at the root is gone." : "Waiting for the node.";
  write($("no-rows"), nothing);
  $("no-rows").hidden = list.length > 0;
}

function renderRow(row, filtered) {
  if (!row.element) row.element = rowElement(row);
  const open = filtered || !collapsed.has(row.key);
  // The tooltips and states that people with a screen reader hear; written once in most turns.
  const marks = `${row.level} ${row.children.length > 0} ${open} ${row === selected}`;
  if (row.marks !== marks) {
    row.marks = marks;
    row.element.setAttribute("aria-level", row.level);
    row.element.setAttribute("aria-selected", row === selected);
    if (row.children.length) row.element.setAttribute("aria-expanded", open);
    else row.element.removeAttribute("aria-expanded");
    row.element.firstChild.style.setProperty("--level", row.level - 1);
  }
  COLUMNS.forEach((column, at) => {
    const cell = column.show(row);
    const differs = write(row.cells[at], cell.text, cell);
    if (differs && column.id === "state") row.state.classList.add("changed");
  });
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
  const state = [[words(shot.state), toneOf(shot.state)], yes(health.ready, "ready"), yes(health.live, "live"), yes(health.started, "started")];
  keyed($("node-state"), state.entries(), ([at]) => String(at), () => make("li"), (node, [, [text, tone]]) => write(node, text, { tone: `mark ${tone}` }));
  const counts = [["kernels", kernels.length], ["serving", count("serving"), "good"], ["restarting", count("restarting"), "warn"], ["isolated", count("isolated", "out_of_threads"), "bad"], ["dead letters", shot.dead_letters.total, "bad"]];
  if (shot.abandoned_threads) counts.push(["threads left behind", shot.abandoned_threads, "bad"]);
  counts.push(["up", exact(Math.floor(shot.uptime_s)), ""]);
  keyed($("counts"), counts, ([label]) => label, ([label]) => make("div", {}, make("dt", {}, label), make("dd")), (node, [, value, tone]) => {
    write(node.lastChild, typeof value === "number" ? amount(value) : value, { tone: value === 0 ? "zero" : tone || "" });
  });
  const troubled = [...rows.values()].filter(isTroubled).length;
  document.title = troubled ? `(${troubled}) rustkernel` : "rustkernel";
}

// Moving about in the tree, as the pattern of a treegrid has it.

function makeCurrent(row, focus) {
  if (current && current.element) current.element.tabIndex = -1;
  current = row;
  if (!row) return;
  row.element.tabIndex = 0;
  if (focus) row.element.focus();
}

function toggle(row, open = collapsed.has(row.key)) {
  if (!row.children.length) return;
  if (open) collapsed.delete(row.key);
  else collapsed.add(row.key);
  render();
}

function select(row) {
  selected = row;
  if (row) makeCurrent(row);
  render();
  $("details").scrollTop = 0;
}

function onTreeKey(event) {
  const row = event.target.row;
  if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
  const at = shown.indexOf(row);
  const go = (to) => to && makeCurrent(to, true);
  const open = row.element.getAttribute("aria-expanded");
  const moves = {
    ArrowDown: () => go(shown[at + 1]),
    ArrowUp: () => go(shown[at - 1]),
    Home: () => go(shown[0]),
    End: () => go(shown[shown.length - 1]),
    PageDown: () => go(shown[Math.min(at + 15, shown.length - 1)]),
    PageUp: () => go(shown[Math.max(at - 15, 0)]),
    ArrowRight: () => (open === "false" ? toggle(row, true) : open === "true" && go(shown[at + 1])),
    ArrowLeft: () => (open === "true" && collapsed.has(row.key) === false && row.children.length && !needle() ? toggle(row, false) : go(row.parent)),
    Enter: () => { select(row); openTab("details"); },
    " ": () => select(row),
  };
  if (!moves[event.key]) return;
  event.preventDefault();
  moves[event.key]();
}

// The panel below the tree.

const TABS = ["details", "failures", "letters", "health"];

function openTab(id, focus) {
  for (const tab of TABS) {
    const button = $(`tab-${tab}`);
    button.setAttribute("aria-selected", tab === id);
    button.tabIndex = tab === id ? 0 : -1;
    $(tab).hidden = tab !== id;
    if (tab === id && focus) button.focus();
  }
  render();
}

function onTabKey(event) {
  const at = TABS.findIndex((tab) => event.target.id === `tab-${tab}`);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: TABS.length - 1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  openTab(TABS[(to + TABS.length) % TABS.length], true);
}

function renderPanel() {
  const part = needle();
  const { failures, dead_letters: dead, health } = shot;
  const counted = (tab, value, tone) => write($(`tab-${tab}`).lastChild, value ? String(value) : "", { tone });
  counted("failures", failures.length, "");
  counted("letters", dead.letters.length, "bad");
  counted("health", health.components.filter(({ status }) => status !== "healthy").length, "bad");
  if (!$("details").hidden) renderDetails();
  if (!$("failures").hidden) {
    const some = failures.filter((failure) => holds(failure.offender, part) || holds(failure.supervisor, part));
    records("failures", some, failures.length, "Nothing has failed.", failureKey, failureRecord);
  }
  if (!$("letters").hidden) {
    const some = dead.letters.filter((letter) => holds(letter.kernel, part));
    records("letters", some, dead.letters.length, dead.total ? `No dead letter is kept; there have been ${dead.total}.` : "No request was given up.", (letter) => `${letter.letter} ${letter.attempts} ${letter.error}`, letterRecord);
  }
  if (!$("health").hidden) {
    const some = health.components.filter(({ name }) => holds(name, part));
    records("health", some, health.components.length, "There are no components.", ({ name, status, reason }) => `${name}\n${status}\n${reason}`, healthRecord);
  }
}

function records(tab, items, all, none, keyOf, create) {
  const [list, empty] = $(tab).children;
  keyed(list, items, keyOf, create);
  empty.hidden = items.length > 0;
  write(empty, all ? "No name holds this text." : none);
}

const failureKey = ({ unix_millis: at, supervisor, offender, incarnation, context }) => [at, supervisor, offender, incarnation, context].join("\n");

function failureRecord(failure) {
  const { supervisor, offender, context, reason, incarnation, advice } = failure;
  return make("li", {}, moment(failure.unix_millis),
    make("div", {}, jump(offender, supervisor), make("small", {}, `life ${incarnation}, under ${supervisor}`)),
    make("div", {}, make("span", { class: "bad" }, failure.class), make("small", {}, words(context))),
    make("div", { class: "why" }, reason, make("small", {}, advice)));
}

function letterRecord(letter) {
  const kept = known(letter.input_bytes);
  const replay = make("button", { type: "button", onclick: () => ask("replay", letter) }, "Replay");
  if (!kept) {
    replay.disabled = true;
    replay.title = "Its input was not kept.";
  }
  const input = kept ? `its input is kept: ${bytes(letter.input_bytes)}` : "its input was not kept";
  return make("li", {}, moment(letter.unix_millis),
    make("div", {}, jump(letter.kernel), make("small", {}, `letter ${letter.letter}, request ${letter.id}`)),
    make("div", {}, words(letter.phase), make("small", {}, `attempt ${letter.attempts} was the last`)),
    make("div", { class: "why" }, letter.error, make("small", {}, input)),
    make("div", { class: "actions" }, replay, make("button", { type: "button", onclick: () => ask("drop", letter) }, "Drop")));
}

function healthRecord({ name, status, reason }) {
  return make("li", {}, make("span"), rows.has(name) || named(name) ? jump(name) : make("span", { class: "mono" }, name),
    make("span", { class: `mark ${toneOf(status)}` }, words(status)), make("div", { class: "why" }, reason || ""));
}

const named = (name, supervisor) => {
  const all = [...rows.values()].filter(({ child }) => child.name === name);
  return all.find(({ parent }) => parent && parent.child.name === supervisor) || all[0];
};

/** A name that leads to its row. */
function jump(name, supervisor) {
  const go = () => {
    const row = named(name, supervisor);
    if (!row) return say(`${name} is not there any more.`, "warn");
    for (let above = row.parent; above; above = above.parent) collapsed.delete(above.key);
    if (needle() && !holds(name, needle())) $("search").value = "";
    $("troubled").checked = false;
    select(row);
    openTab("details");
    row.element.focus();
    row.element.scrollIntoView({ block: "nearest" });
  };
  return make("button", { type: "button", class: "go mono", onclick: go }, name);
}

const UNITS = [["_s", exact], ["_bytes", bytes]];
const LABELS = {
  restarts_in_window: "in window", running_s: "running for", blocked_s: "blocking for", waiting_bytes: "bytes not answered",
  checkpoint_bytes: "checkpoint size",
};

/** Any field, also one that this page does not know yet: its unit is the end of its name. */
function fact(name, value) {
  const [end, format] = UNITS.find(([end]) => name.endsWith(end)) || ["", null];
  const label = LABELS[name] || words(end === "_s" ? name.slice(0, -2) : name);
  const text = !known(value) ? DASH : typeof value !== "number" ? words(String(value)) : format ? format(value) : value.toLocaleString("en");
  return [label, text];
}

function factsOf(row) {
  const { child } = row;
  const { supervisor, kernel } = child;
  const general = [["kind", child.kind], ["state", words(child.state)], known(child.since_s) ? ["for", exact(child.since_s)] : null, child.restart ? ["restart rule", child.restart] : null, ["life", String(child.life)]];
  const rest = left(row);
  const budget = [];
  if (supervisor) budget.push(["strategy", words(supervisor.strategy)], ["period", exact(supervisor.period_s)]);
  if (child.kind !== "task") {
    budget.push(["restarts", child.restarts.toLocaleString("en")], fact("restarts_in_window", child.restarts_in_window));
    budget.push([supervisor ? "intensity" : "most", known(child.max_restarts) ? String(child.max_restarts) : "no limit"], ["left in budget", known(rest) ? String(rest) : DASH]);
  }
  if (supervisor) budget.push(["children", String(row.children.length)]);
  const groups = [["Life", general], ["Restarts", budget]];
  if (kernel) {
    const { latency: seen, ...own } = kernel;
    const of = (...names) => names.filter((name) => name in own).map((name) => [name, own[name]]).map(([name, value]) => { delete own[name]; return fact(name, value); });
    general.push(...of("device", "incarnation", "standbys"));
    const requests = of("accepted", "answered", "failed", "reruns", "discarded", "rejected", "waiting", "waiting_bytes");
    const work = of("running_s", "blocked_s");
    if (seen) work.push(["answers timed", seen.count.toLocaleString("en")], ...["p50_s", "p90_s", "p99_s"].map((name) => fact(name, seen.count ? seen[name] : null)));
    const guard = of("breaker", "breaker_failures", "checkpoint", "checkpoint_bytes", "checkpoint_trouble");
    groups.push(["Requests", requests], ["Work", work], ["Breaker and checkpoints", guard.concat(of(...Object.keys(own)))]);
  }
  return groups.map(([title, list]) => [title, list.filter(Boolean)]).filter(([, list]) => list.length);
}

function renderDetails() {
  if (selected && rows.get(selected.key) !== selected) selected = rows.get(selected.key) || null;
  const row = selected;
  for (const button of document.querySelectorAll("[data-action]")) {
    button.disabled = !(row && row.child.kernel);
    button.title = row && !row.child.kernel ? "Only a kernel can be told to." : "";
  }
  $("hint").hidden = Boolean(row);
  write($("subject"), row ? row.child.name : "Nothing selected", { tone: row ? "mono" : "" });
  const last = row && row.child.last_failure;
  keyed($("last"), last ? [last] : [], ({ class: kind, message }) => `${kind}\n${message}`, ({ class: kind, message, advice }) => make("p", {}, make("span", { class: "bad" }, `Last failure, ${kind}: `), message, make("small", {}, ` ${DASH} ${advice}`)));
  keyed($("facts"), row ? factsOf(row) : [], ([title]) => `${row.key}\n${title}`, ([title]) => make("section", {}, make("h3", {}, title), make("dl")), (node, [, list]) => {
    const pairs = list.flatMap(([label, text]) => [["dt", label, label], ["dd", label, text]]);
    keyed(node.lastChild, pairs, ([tag, label]) => tag + label, ([tag]) => make(tag), (item, [, , text]) => write(item, text));
  });
  const own = row ? shot.failures.filter(({ offender, supervisor }) => (offender === row.child.name && (!row.parent || supervisor === row.parent.child.name))) : [];
  $("history-title").hidden = own.length === 0;
  keyed($("history"), own, failureKey, failureRecord);
}

// Actions. The token is in this variable alone: no storage, no address.

let token = null;
let asked = null;

const ACTIONS = {
  restart: { text: "Its present life ends and the next one begins. What it has in hand and what waits stays.", body: (row) => ({ name: row.child.name }) },
  resume: { text: "It gets a new life and a full restart budget; an isolated breaker is closed.", body: (row) => ({ name: row.child.name }) },
  isolate: { text: "Its breaker is held open, and refuses every request, until it is resumed.", body: (row) => ({ name: row.child.name }) },
  replay: { text: "The request is tried again. If it is answered, the dead letter is gone.", body: ({ letter }) => ({ letter }) },
  drop: { text: "The dead letter and its input are forgotten.", body: ({ letter }) => ({ letter }) },
};

function ask(action, subject) {
  const name = subject.child ? subject.child.name : `dead letter ${subject.letter} of ${subject.kernel}`;
  const verb = action[0].toUpperCase() + action.slice(1);
  asked = { action, body: { action, ...ACTIONS[action].body(subject) } };
  write($("ask-title"), `${verb} ${name}?`);
  write($("ask-text"), ACTIONS[action].text);
  write($("ask-yes"), verb);
  $("ask-token").hidden = token !== null;
  $("token").value = "";
  $("ask").showModal();
  (token === null ? $("token") : $("ask-yes")).focus();
}

async function act() {
  const { body } = asked;
  const sent = token || $("token").value.trim();
  $("token").value = "";
  $("ask").close();
  // A header takes nothing else, and no token has anything else.
  if (!/^[\x21-\x7e]+$/.test(sent)) return say("An action needs a token: printable characters without spaces.", "bad");
  say("...", "quiet");
  try {
    const headers = { "content-type": "application/json", authorization: `Bearer ${sent}` };
    const answer = await fetch("v1/actions", { method: "POST", headers, body: JSON.stringify(body), credentials: "omit" });
    const { done, message } = await answer.json();
    // Right or wrong, what is not refused for its token had the right one.
    if (answer.status === 401) token = null;
    else if (answer.status !== 403 && answer.status !== 429) token = sent;
    say(message, done ? "good" : "bad");
  } catch (error) {
    say(`The node did not answer: ${error.message}`, "bad");
  }
}

function say(text, tone) {
  write($("said"), text, { tone });
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
  const [state, text, tone] = paused ? ["paused", `paused, ${ago}`, "warn"] : lost ? ["lost", `disconnected, ${ago}, trying again`, "bad"] : seen ? ["live", "live", "good"] : ["connecting", "connecting", "warn"];
  if ($("connection").dataset.state !== state) $("connection").dataset.state = state;
  write($("connection"), text, { tone: `mark ${tone}` });
}

// Beginning.

function listen() {
  $("search").addEventListener("input", render);
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" && current) { event.preventDefault(); current.element.focus(); }
    if (event.key === "Escape") { $("search").value = ""; render(); }
  });
  $("troubled").addEventListener("change", render);
  $("rows").addEventListener("keydown", onTreeKey);
  $("rows").addEventListener("focusin", (event) => event.target.row && makeCurrent(event.target.row));
  $("rows").addEventListener("click", (event) => {
    const element = event.target.closest("tr");
    if (element) { select(element.row); openTab("details"); }
  });
  $("tabs").addEventListener("click", (event) => {
    const button = event.target.closest("[role=tab]");
    if (button) openTab(button.id.slice(4));
  });
  $("tabs").addEventListener("keydown", onTabKey);
  for (const button of document.querySelectorAll("[data-action]")) {
    button.addEventListener("click", () => selected && ask(button.dataset.action, selected));
  }
  $("ask-form").addEventListener("submit", (event) => { event.preventDefault(); act(); });
  $("ask-no").addEventListener("click", () => $("ask").close());
  $("pause").addEventListener("click", () => {
    paused = !paused;
    $("pause").setAttribute("aria-pressed", paused);
    write($("pause"), paused ? "Resume" : "Pause");
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
