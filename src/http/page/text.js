"use strict";
// Writing to the page: only what differs from what is there. Names, reasons and errors come from users' kernels and are hostile input: they
// become text, never markup.

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
    const next = place && place.nextSibling;
    if (node === place) place = next;
    else if (node !== next) parent.insertBefore(node, place);
    else {
      // Only `place` has gone elsewhere: its own turn comes, and those after it need not move.
      place.remove();
      place = node.nextSibling;
    }
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
  const time = at.toLocaleTimeString("en-GB");
  return at.toDateString() === today() ? time : `${at.toLocaleDateString("sv-SE")} ${time}`;
}

const moment = (millis) => make("time", { datetime: new Date(millis).toISOString(), title: new Date(millis).toISOString() }, clock(millis));
