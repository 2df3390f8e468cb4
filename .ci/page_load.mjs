// What the live page of a node costs while it is open: page_load.mjs BENCH [HUNDREDS] [SECONDS]. BENCH is the benchmark's program, which
// serves so many hundreds of kernels, each called once a second. Prints shares of one core: of the node without and with the page, of
// the page's own thread, and of the whole browser, which draws in software here.
import { spawn } from "node:child_process";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [program, hundreds = "10", length = "20"] = process.argv.slice(2);
const seconds = Number(length);
const wait = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

const node = spawn(program, ["--node", hundreds], { stdio: ["pipe", "pipe", "inherit"] });
const [line] = await new Promise((read) => createInterface(node.stdout).once("line", (line) => read([line])));
const [pid, address] = line.split(" ");

const stat = async (pid) => {
  const fields = (await readFile(`/proc/${pid}/stat`, "utf8")).replace(/.*\) /, "").split(" ");
  return { parent: Number(fields[1]), ticks: Number(fields[11]) + Number(fields[12]) };
};
const TICKS = 100;
/** Seconds of a processor that a process and all below it have used. */
const used = async (root) => {
  const all = new Map();
  for (const name of await readdir("/proc")) if (/^\d+$/.test(name)) all.set(Number(name), await stat(name).catch(() => null));
  const below = (pid) => pid === Number(root) || (all.get(pid) && all.get(pid).parent > 1 && below(all.get(pid).parent));
  let ticks = 0;
  for (const [pid, found] of all) if (found && below(pid)) ticks += found.ticks;
  return ticks / TICKS;
};
const over = async (count) => {
  const before = await count();
  const began = performance.now();
  await wait(seconds);
  return (await count() - before) / ((performance.now() - began) / 1000);
};
const percent = (share) => `${(100 * share).toFixed(1)} %`;

console.log(`node, nobody looks: ${percent(await over(() => used(pid)))}`);
const folder = await mkdtemp(join(tmpdir(), "page-"));
const browser = await chromium.launchPersistentContext(folder, {
  executablePath: "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  viewport: { width: 1440, height: 860 },
});
const page = browser.pages()[0] || (await browser.newPage());
await page.goto(`http://${address}/`);
await page.waitForSelector("#rows tr:nth-child(20)");
const session = await browser.newCDPSession(page);
await session.send("Performance.enable");
const thread = async () => {
  const { metrics } = await session.send("Performance.getMetrics");
  return metrics.find((metric) => metric.name === "TaskDuration").value;
};
await wait(3);
const [whole, own, tree] = await Promise.all([over(() => used(pid)), over(thread), over(() => used(process.pid))]);
console.log(`node, page open: ${percent(whole)}`);
console.log(`the page's own thread: ${percent(own)}`);
console.log(`the whole browser: ${percent(tree - whole)}`);
const rows = await page.$$eval("#rows tr", (rows) => rows.length);
console.log(`rows drawn: ${rows}`);
await browser.close();
await rm(folder, { recursive: true });
node.stdin.end();
