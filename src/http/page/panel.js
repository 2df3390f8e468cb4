// The panel below the tree: details of the selected row, failures, dead letters, health.

const TABS = ["details", "failures", "letters", "pipelines", "health"];

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
  counted("pipelines", shot.pipelines.filter(({ error }) => error).length, "bad");
  counted("health", health.components.filter(({ status }) => status !== "healthy").length, "bad");
  if (!$("details").hidden) renderDetails();
  if (!$("failures").hidden) {
    const some = failures.filter((failure) => holds(failure.offender, part) || holds(failure.supervisor, part));
    records("failures", some, failures.length, "Nothing has failed.", failureKey, failureRecord);
  }
  if (!$("letters").hidden) {
    const some = dead.letters.filter((letter) => holds(letter.kernel, part));
    records(
      "letters",
      some,
      dead.letters.length,
      dead.total ? `No dead letter is kept; there have been ${dead.total}.` : "No request was given up.",
      ({ letter, attempts, error }) => [today(), letter, attempts, error].join("\n"),
      letterRecord,
    );
  }
  if (!$("pipelines").hidden) {
    // A run is a heading and its stages, each with its share of the run's time.
    const lines = shot.pipelines.flatMap((run) => [{ run }, ...run.stages.map((stage) => ({ run, stage }))]);
    const some = lines.filter(({ run, stage }) => holds(run.name, part) || (stage && holds(stage.kernel, part)));
    records("pipelines", some, lines.length, "No pipeline has come to its end.", runKey, runRecord);
  }
  if (!$("health").hidden) {
    const some = health.components.filter(({ name }) => holds(name, part));
    records(
      "health",
      some,
      health.components.length,
      "There are no components.",
      ({ name, status, reason }) => `${name}\n${status}\n${reason}`,
      healthRecord,
    );
  }
}

function records(tab, items, all, none, keyOf, create) {
  const [list, empty] = $(tab).children;
  keyed(list, items, keyOf, create);
  empty.hidden = items.length > 0;
  write(empty, all ? "No name holds this text." : none);
}

// With the day, since what shows a time alone today needs its date tomorrow.
const today = () => new Date().toDateString();
const failureKey = ({ unix_millis: at, supervisor, offender, incarnation, context }) =>
  [today(), at, supervisor, offender, incarnation, context].join("\n");

function failureRecord(failure) {
  const { supervisor, offender, context, reason, incarnation, advice } = failure;
  return make(
    "li",
    {},
    moment(failure.unix_millis),
    make("div", {}, jump(offender, supervisor), make("small", {}, `life ${incarnation}, under ${supervisor}`)),
    make("div", {}, make("span", { class: "bad" }, failure.class), make("small", {}, words(context))),
    make("div", { class: "why" }, reason, make("small", {}, advice)),
  );
}

function letterRecord(letter) {
  const kept = known(letter.input_bytes);
  const replay = make("button", { type: "button", onclick: () => ask("replay", letter) }, "Replay");
  if (!kept) {
    replay.disabled = true;
    replay.title = "Its input was not kept.";
  }
  const input = kept ? `its input is kept: ${bytes(letter.input_bytes)}` : "its input was not kept";
  return make(
    "li",
    {},
    moment(letter.unix_millis),
    make("div", {}, jump(letter.kernel), make("small", {}, `letter ${letter.letter}, request ${letter.id}`)),
    make("div", {}, words(letter.phase), make("small", {}, `attempt ${letter.attempts} was the last`)),
    make("div", { class: "why" }, letter.error, make("small", {}, input)),
    make("div", { class: "actions" }, replay, make("button", { type: "button", onclick: () => ask("drop", letter) }, "Drop")),
  );
}

const runKey = ({ run, stage }) => [today(), run.name, run.unix_millis, stage ? stage.kernel : ""].join("\n");

function runRecord({ run, stage }) {
  if (!stage) {
    const how = make("span", { class: `mark ${run.error ? "bad" : "good"}` }, run.error ? "failed" : "done");
    return make("li", {}, moment(run.unix_millis), make("div", { class: "mono" }, run.name), how, make("div", { class: "why" }, run.error || ""));
  }
  const whole = run.stages.reduce((sum, { total_s }) => sum + total_s, 0);
  const share = make("progress", { max: "1", value: String(whole ? stage.total_s / whole : 0) });
  share.title = `${exact(stage.total_s)} of ${exact(whole)}`;
  const counts = [
    stage.calls === 1 ? "1 call" : `${stage.calls} calls, the slowest ${exact(stage.slowest_s)}`,
    stage.failures ? `${stage.failures} failed` : "",
    stage.reruns ? `${stage.reruns} run again` : "",
    stage.degraded ? `${stage.degraded} degraded` : "",
  ];
  const lost = run.deadline_lost_at === stage.kernel ? "the deadline was lost here" : "";
  return make(
    "li",
    {},
    make("div", {}, exact(stage.total_s)),
    make("div", {}, jump(stage.kernel), make("small", {}, counts.filter(Boolean).join(", "))),
    share,
    make("div", { class: "why bad" }, lost),
  );
}

function healthRecord({ name, status, reason, needed }) {
  const who = named(name) ? jump(name) : make("span", { class: "mono" }, name);
  return make(
    "li",
    {},
    make("div", {}, who),
    make("span", { class: `mark ${toneOf(status)}` }, words(status)),
    make("div", { class: "why" }, reason || "", make("small", {}, needed ? "The node is ready only while this is not unhealthy." : "")),
  );
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
    makeCurrent(row, true);
  };
  return make("button", { type: "button", class: "go mono", onclick: go }, name);
}

const UNITS = [
  ["_s", exact],
  ["_bytes", bytes],
];
const LABELS = {
  restarts_in_window: "in window",
  running_s: "running for",
  blocked_s: "blocking for",
  waiting_bytes: "bytes not answered",
  checkpoint_bytes: "checkpoint size",
  checkpoint_age_s: "checkpoint age",
};

/** Any field, also one that this page does not know yet: its unit is the end of its name. */
function fact(name, value) {
  const [end, format] = UNITS.find(([end]) => name.endsWith(end)) || ["", null];
  const label = LABELS[name] || words(end === "_s" ? name.slice(0, -2) : name);
  const text = !known(value)
    ? DASH
    : typeof value !== "number"
      ? words(String(value))
      : format
        ? format(value)
        : value.toLocaleString("en");
  return [label, text];
}

function factsOf(row) {
  const { child } = row;
  const { supervisor, kernel } = child;
  const general = [
    ["kind", child.kind],
    ["state", words(child.state)],
    known(child.since_s) ? ["for", exact(child.since_s)] : null,
    child.restart ? ["restart rule", child.restart] : null,
    ["life", String(child.life)],
  ];
  const rest = left(row);
  const budget = [];
  if (supervisor) budget.push(["strategy", words(supervisor.strategy)], ["period", exact(supervisor.period_s)]);
  if (child.kind !== "task") {
    budget.push(["restarts", child.restarts.toLocaleString("en")], fact("restarts_in_window", child.restarts_in_window));
    budget.push(
      [supervisor ? "intensity" : "most", known(child.max_restarts) ? String(child.max_restarts) : "no limit"],
      ["left in budget", known(rest) ? String(rest) : DASH],
    );
  }
  if (supervisor) budget.push(["children", String(row.children.length)]);
  const groups = [
    ["Life", general],
    ["Restarts", budget],
  ];
  if (kernel) {
    const { latency: seen, failed_kinds, refused_kinds, ...own } = kernel;
    const of = (...names) =>
      names
        .filter((name) => name in own)
        .map((name) => [name, own[name]])
        .map(([name, value]) => {
          delete own[name];
          return fact(name, value);
        });
    general.push(...of("device", "incarnation", "standbys"));
    const requests = of("accepted", "answered", "failed", "reruns", "discarded", "rejected", "waiting", "waiting_bytes");
    const each = (title, kinds) => Object.entries(kinds).map(([kind, count]) => [`${title}: ${words(kind)}`, count.toLocaleString("en")]);
    requests.push(...each("failed", failed_kinds), ...each("not accepted", refused_kinds));
    const work = of("running_s", "blocked_s");
    if (seen)
      work.push(
        ["answers timed", seen.count.toLocaleString("en")],
        ...["p50_s", "p90_s", "p99_s"].map((name) => fact(name, seen.count ? seen[name] : null)),
      );
    const guard = of("breaker", "breaker_failures", "checkpoint", "checkpoint_bytes", "checkpoint_age_s", "checkpoint_trouble");
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
  keyed(
    $("last"),
    last ? [last] : [],
    ({ class: kind, message }) => `${kind}\n${message}`,
    ({ class: kind, message, advice }) =>
      make("p", {}, make("span", { class: "bad" }, `Last failure, ${kind}: `), message, make("small", {}, ` ${DASH} ${advice}`)),
  );
  keyed(
    $("facts"),
    row ? factsOf(row) : [],
    ([title]) => `${row.key}\n${title}`,
    ([title]) => make("section", {}, make("h3", {}, title), make("dl")),
    (node, [, list]) => {
      const pairs = list.flatMap(([label, text]) => [
        ["dt", label, label],
        ["dd", label, text],
      ]);
      keyed(
        node.lastChild,
        pairs,
        ([tag, label]) => tag + label,
        ([tag]) => make(tag),
        (item, [, , text]) => write(item, text),
      );
    },
  );
  const own = row
    ? shot.failures.filter(
        ({ offender, supervisor }) => offender === row.child.name && (!row.parent || supervisor === row.parent.child.name),
      )
    : [];
  $("history-title").hidden = own.length === 0;
  keyed($("history"), own, failureKey, failureRecord);
}
