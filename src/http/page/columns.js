// What a row of the tree shows, and what siblings are sorted by.

const left = ({ child }) =>
  known(child.max_restarts) && known(child.restarts_in_window) ? Math.max(0, child.max_restarts - child.restarts_in_window) : null;
const breakerTone = (word) => (word === "closed" || word === "disabled" ? "zero" : toneOf(word));

const kernel = (field, format, toneOf = zero) => {
  return ({ child }) => {
    const value = child.kernel ? child.kernel[field] : null;
    return known(value) ? { text: format(value), tone: toneOf(value) } : { text: "" };
  };
};
const rate = (field, tone) => {
  return ({ rates }) => (rates ? { text: perSecond(rates[field]), tone: rates[field] ? tone : "zero" } : { text: "" });
};
const timed = ({ child }) => child.kernel && child.kernel.latency;
const latency = (field) => {
  return (row) => (timed(row)?.count ? { text: span(timed(row)[field]), title: `of ${timed(row).count} answers` } : { text: "" });
};
const byKernel = (field) => {
  return ({ child }) => (child.kernel ? child.kernel[field] : null);
};
const SEVERITY = { bad: 0, warn: 1, good: 2 };

/** `show` gives a cell's text, tooltip and tone; `order` what siblings are sorted by, the least first. */
const COLUMNS = [
  { id: "name", label: "Name", show: ({ child }) => ({ text: child.name, title: child.name }), order: ({ child }) => child.name },
  { id: "kind", label: "Kind", show: ({ child }) => ({ text: child.kind, tone: "quiet" }), order: ({ child }) => child.kind },
  {
    id: "state",
    label: "State",
    show: ({ child }) => ({ text: words(child.state), tone: `mark ${toneOf(child.state)}` }),
    order: ({ child }) => SEVERITY[toneOf(child.state)] + child.state,
  },
  {
    id: "since",
    label: "Since",
    number: true,
    hint: "For how long it has been in this state",
    show: ({ child }) => (known(child.since_s) ? { text: age(child.since_s) } : { text: "" }),
    order: ({ child }) => child.since_s,
  },
  {
    id: "rule",
    label: "Rule",
    hint: "A supervisor's strategy; another child's restart rule",
    show: ({ child }) => ({ text: words(child.supervisor ? child.supervisor.strategy : child.restart || ""), tone: "quiet" }),
    order: ({ child }) => (child.supervisor ? child.supervisor.strategy : child.restart),
  },
  {
    id: "window",
    label: "In window",
    number: true,
    hint: "Restarts that count against the budget now, of how many, and in which time",
    show: ({ child }) => ({ text: windowOf(child), tone: zero(child.restarts_in_window) }),
    order: ({ child }) => child.restarts_in_window,
  },
  {
    id: "left",
    label: "Left",
    number: true,
    hint: "Restarts that are left in the budget",
    show: (row) => {
      const rest = left(row);
      if (!known(rest)) return { text: "" };
      return { text: String(rest), tone: rest === 0 ? "bad" : rest * 4 <= row.child.max_restarts ? "warn" : "" };
    },
    order: left,
  },
  {
    id: "restarts",
    label: "Restarts",
    number: true,
    hint: "Restarts since the node has been there",
    show: ({ child }) => (child.kind === "task" ? { text: "" } : { text: amount(child.restarts), tone: zero(child.restarts) }),
    order: ({ child }) => child.restarts,
  },
  {
    id: "last",
    label: "Last failure",
    show: ({ child: { last_failure: last } }) =>
      last ? { text: `${last.class}: ${last.message}`, title: `${last.class}: ${last.message}\n${last.advice}` } : { text: "" },
    order: ({ child }) => child.last_failure && child.last_failure.class,
  },
  {
    id: "waiting",
    label: "Waiting",
    number: true,
    hint: "Requests that wait",
    show: kernel("waiting", amount),
    order: byKernel("waiting"),
  },
  {
    id: "bytes",
    label: "Bytes",
    number: true,
    hint: "Bytes of all requests that are not answered",
    show: kernel("waiting_bytes", bytes),
    order: byKernel("waiting_bytes"),
  },
  {
    id: "answered",
    label: "OK/s",
    number: true,
    hint: "Requests answered with a value, each second",
    show: rate("answered", ""),
    order: ({ rates }) => rates && rates.answered,
  },
  {
    id: "failed",
    label: "Err/s",
    number: true,
    hint: "Requests answered with an error, each second",
    show: rate("failed", "bad"),
    order: ({ rates }) => rates && rates.failed,
  },
  {
    id: "p50",
    label: "p50",
    number: true,
    hint: "Half of the answers took at most this",
    show: latency("p50_s"),
    order: (row) => timed(row)?.p50_s,
  },
  {
    id: "p99",
    label: "p99",
    number: true,
    hint: "99 of 100 answers took at most this",
    show: latency("p99_s"),
    order: (row) => timed(row)?.p99_s,
  },
  { id: "device", label: "Device", show: kernel("device", String, () => ""), order: byKernel("device") },
  { id: "breaker", label: "Breaker", show: kernel("breaker", words, breakerTone), order: byKernel("breaker") },
];

function windowOf(child) {
  if (!known(child.restarts_in_window)) return "";
  if (!known(child.max_restarts)) return `${child.restarts_in_window}, no limit`;
  const period = child.supervisor ? ` in ${span(child.supervisor.period_s)}` : "";
  return `${child.restarts_in_window}/${child.max_restarts}${period}`;
}
