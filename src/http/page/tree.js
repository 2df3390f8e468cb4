// The supervision tree: a lasting row for each child, filtered and sorted, and moved about in as the pattern of a treegrid has it.

function heads() {
  for (const column of COLUMNS) {
    const button = make("button", { type: "button", onclick: () => sortBy(column) }, column.label);
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
    const twist = make("span", { class: "twist", onclick: (event) => (event.stopPropagation(), toggle(row)) });
    cell.append(twist, name);
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

/** Appends `row` and what is below it as far as they pass the filters; a row stays for what is below it. */
function collect(row, part, troubled, list) {
  const at = list.length;
  list.push(row);
  let stays = holds(row.child.name, part) && (!troubled || row.child.troubled);
  if (stays) list.hits += 1;
  if (part || troubled || !collapsed.has(row.key)) {
    for (const child of inOrder(row.children)) stays = collect(child, part, troubled, list) || stays;
  }
  if (!stays) list.length = at;
  return stays;
}

let shown = [];

/** Rows beyond those in view, above and below; a tree that is no longer than that is drawn whole. */
const MARGIN = 100;
const scroller = () => $("tree").parentNode;
let rowHeight = 28;

/** The first and the last of `count` rows that are drawn: those in view, with a margin. A page of thousands would be busy with nothing else. */
function inView(count) {
  if (count <= 2 * MARGIN) return [0, count];
  const { scrollTop, clientHeight } = scroller();
  const first = Math.max(0, Math.floor(scrollTop / rowHeight) - MARGIN / 4);
  return [first, Math.min(count, first + Math.ceil(clientHeight / rowHeight) + MARGIN / 2)];
}

/** What stands for the rows that are not drawn. */
function gap(id, count) {
  if (!count) return [];
  const element = $(id) || make("tr", { id, "aria-hidden": "true" }, make("td", { colspan: COLUMNS.length, class: "gap" }));
  element.firstChild.style.setProperty("height", `${count * rowHeight}px`);
  return [element];
}

/** Brings a row into view, and so into the page. */
function reveal(row) {
  const at = shown.indexOf(row);
  const top = at * rowHeight;
  const { scrollTop, clientHeight } = scroller();
  if (at >= 0 && (top < scrollTop || top + 3 * rowHeight > scrollTop + clientHeight)) {
    scroller().scrollTop = Math.max(0, top - clientHeight / 2);
  }
  if (!row.element || !row.element.isConnected) renderTree();
}

function renderTree() {
  const part = needle();
  const troubled = $("troubled").checked;
  const filtered = isFiltered();
  const list = [];
  list.hits = 0;
  for (const root of roots) collect(root, part, troubled, list);
  $("tree").classList.toggle("timed", [...rows.values()].some(timed));
  const [first, last] = inView(list.length);
  const drawn = list.slice(first, last);
  for (const row of drawn) renderRow(row, filtered);
  const focused = document.activeElement;
  arrange($("rows"), [...gap("above", first), ...drawn.map((row) => row.element), ...gap("below", list.length - last)]);
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
  // Whoever listens hears of all of them.
  if ($("tree").ariaRowCount !== String(list.length + 1)) $("tree").ariaRowCount = list.length + 1;
  drawn.forEach((row, at) => {
    const index = String(first + at + 2);
    if (row.element.ariaRowIndex !== index) row.element.ariaRowIndex = index;
  });
  if (drawn.length) rowHeight = drawn[0].element.offsetHeight || rowHeight;
  shown = list;
  if (!drawn.includes(current)) makeCurrent(drawn[0] || null);
  write($("matches"), filtered ? `${list.hits} of ${rows.size}` : "");
  const nothing = troubled ? "Nothing is in trouble here." : "No name holds this text.";
  const why = roots.length ? nothing : shot ? "The supervisor at the root is gone." : "Waiting for the node.";
  write($("no-rows"), why);
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

function makeCurrent(row, focus) {
  if (current && current.element) current.element.tabIndex = -1;
  current = row;
  if (!row) return;
  if (focus || !row.element) reveal(row);
  if (current !== row || !row.element) return;
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
    ArrowLeft: () => (open === "true" && !isFiltered() ? toggle(row, false) : go(row.parent)),
    Enter: () => {
      select(row);
      openTab("details");
    },
    " ": () => select(row),
  };
  if (!moves[event.key]) return;
  event.preventDefault();
  moves[event.key]();
}
