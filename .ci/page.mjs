// Drives the live page of a node: page.mjs ADDRESS TOKEN --node PID --program FILE [--screenshots FOLDER]. It ends the node to see the page
// notice, and starts another one with the program.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [address, token, ...options] = process.argv.slice(2);
const option = (name) => (options.includes(name) ? options[options.indexOf(name) + 1] : null);
const pid = Number(option("--node"));
const program = option("--program");
const screenshots = option("--screenshots");

const KERNELS = ["graph/load", "graph/pagerank", "graph/top_k"];
const KERNEL = "graph/top_k";

const folder = await mkdtemp(join(tmpdir(), "page-"));
const browser = await chromium.launchPersistentContext(folder, {
  executablePath: "/usr/bin/chromium",
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
  viewport: { width: 1440, height: 860 },
});
const page = browser.pages()[0] || (await browser.newPage());
page.setDefaultTimeout(20_000);

// What the page must never say. A refused action and the end of the node are asked for below, and the browser reports both.
const troubles = [];
let expected = [];
const note = (text) => expected.some((part) => text.includes(part)) || troubles.push(text);
browser.on("weberror", (failed) => note(`error: ${failed.error().message}`));
browser.on("console", (message) => ["error", "warning"].includes(message.type()) && note(`console: ${message.text()}`));
await browser.addInitScript(() => {
  window.violations = [];
  document.addEventListener("securitypolicyviolation", (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
});

/** The rows as people read them: `{ name: { column: text } }`, in the order shown. */
const table = () =>
  page.evaluate(() => {
    const columns = [...document.querySelectorAll("#columns th")].map((head) => head.className.split(" ")[0].slice(2));
    return Object.fromEntries(
      [...document.querySelectorAll("#rows tr")].map((row) => {
        const cells = [...row.children].map((cell) => cell.textContent);
        return [cells[0], Object.fromEntries(columns.map((column, at) => [column, cells[at]]))];
      }),
    );
  });

const names = () => page.$$eval("#rows tr td:first-child", (cells) => cells.map((cell) => cell.textContent));
const shows = (wanted) =>
  page.waitForFunction(
    (wanted) =>
      JSON.stringify([...document.querySelectorAll("#rows tr td:first-child")].map((cell) => cell.textContent)) === JSON.stringify(wanted),
    wanted,
  );
const serves = (name) =>
  page.waitForFunction(
    (name) =>
      [...document.querySelectorAll("#rows tr")].some(
        (row) => row.cells[0].textContent === name && row.querySelector(".c-state").textContent === "serving",
      ),
    name,
  );
const row = (name) => page.locator("#rows tr", { has: page.locator(`.c-name .mono:text-is("${name}")`) });
const focused = () => page.evaluate(() => document.activeElement.querySelector("td")?.textContent);
const subject = (name) => page.waitForFunction((name) => document.getElementById("subject").textContent === name, name);
const said = (text) => page.waitForFunction((text) => document.getElementById("said").textContent.includes(text), text);
const fact = (label) =>
  page.evaluate((label) => {
    const term = [...document.querySelectorAll("#facts dt")].find((term) => term.textContent === label);
    return term?.nextSibling.textContent;
  }, label);

const steps = {
  async "the page loads under its policy"() {
    const answer = await page.goto(`http://${address}/`);
    assert.equal(answer.status(), 200);
    assert.match(answer.headers()["content-security-policy"], /^default-src 'none';/);
    await page.waitForFunction(() => document.getElementById("connection").dataset.state === "live");
    // A mark that a reload would wipe out.
    await page.evaluate(() => {
      window.sameDocument = true;
    });
  },

  async "the root and the three kernels are there and serve"() {
    for (const name of KERNELS) await serves(name);
    await shows(["root", ...KERNELS]);
    const rows = await table();
    assert.equal(rows.root.state, "up");
    assert.equal(rows.root.kind, "supervisor");
    assert.equal(rows.root.rule, "one for one");
    for (const name of KERNELS) assert.equal(rows[name].rule, "permanent");
    assert.match(await page.textContent("#counts"), /kernels3serving3restarting0isolated0/);
  },

  async "a search keeps what it finds and the way to it"() {
    await page.keyboard.press("/");
    await page.keyboard.type("pagerank");
    await shows(["root", "graph/pagerank"]);
    await page.keyboard.press("Escape");
    await shows(["root", ...KERNELS]);
    await page.fill("#search", "no such name");
    await shows([]);
    assert.equal(await page.isVisible("#no-rows"), true);
    await page.fill("#search", "");
    await shows(["root", ...KERNELS]);
  },

  async "those in trouble are none"() {
    await page.check("#troubled");
    await shows([]);
    assert.match(await page.textContent("#no-rows"), /trouble/);
    await page.uncheck("#troubled");
    await shows(["root", ...KERNELS]);
  },

  async "siblings are sorted by a column, by key too"() {
    const head = page.locator("#columns .c-name button");
    await head.focus();
    await page.keyboard.press("Enter");
    await page.keyboard.press("Enter");
    await shows(["root", ...KERNELS.toReversed()]);
    assert.equal(await page.getAttribute("#columns .c-name", "aria-sort"), "descending");
    await head.click();
    await shows(["root", ...KERNELS]);
  },

  async "the keyboard walks through the tree and opens a row's details"() {
    await page.focus("#search");
    await page.keyboard.press("ArrowDown");
    assert.equal(await focused(), "root");
    await page.keyboard.press("ArrowLeft");
    await shows(["root"]);
    await page.keyboard.press("ArrowRight");
    await shows(["root", ...KERNELS]);
    await page.keyboard.press("ArrowRight");
    assert.equal(await focused(), KERNELS[0]);
    await page.keyboard.press("End");
    assert.equal(await focused(), KERNEL);
    await page.keyboard.press("ArrowLeft");
    assert.equal(await focused(), "root");
    assert.equal(await page.isDisabled("[data-action=restart]"), true);
    await page.focus("#tab-details");
    await page.keyboard.press("ArrowLeft");
    assert.equal(await page.isVisible("#health-list"), true);
    await row(KERNEL).focus();
    await page.keyboard.press("Enter");
    await subject(KERNEL);
    assert.equal(await page.isVisible("#subject"), true);
    assert.equal(await fact("incarnation"), "1");
    assert.equal(await page.isDisabled("[data-action=restart]"), false);
  },

  async "a wrong token is told and changes nothing"() {
    expected = ["401"];
    await page.click("[data-action=restart]");
    await page.fill("#token", "not-the-token-of-this-node");
    await page.keyboard.press("Enter");
    await said("the token is wrong");
    const before = await page.textContent("#counts");
    assert.match(before, /serving3/);
    assert.equal((await table())[KERNEL].restarts, "0");
    expected = [];
  },

  async "a restart with the token takes, and the kernel is back without a reload"() {
    await page.click("[data-action=restart]");
    await page.fill("#token", token);
    await page.keyboard.press("Enter");
    await said(`${KERNEL} is restarted`);
    await page.waitForFunction(
      (name) =>
        [...document.querySelectorAll("#rows tr")].some(
          (row) => row.cells[0].textContent === name && row.querySelector(".c-restarts").textContent === "1",
        ),
      KERNEL,
    );
    await serves(KERNEL);
    await page.waitForFunction(() =>
      [...document.querySelectorAll("#facts dt")].some(
        (term) => term.textContent === "incarnation" && term.nextSibling.textContent === "2",
      ),
    );
    assert.equal(await page.evaluate(() => window.sameDocument), true);
  },

  async "the token is asked for once, and is nowhere but in memory"() {
    await page.click("[data-action=isolate]");
    assert.equal(await page.isVisible("#token"), false);
    await page.click("#ask-yes");
    await said("held open");
    await page.check("#troubled");
    await shows(["root", KERNEL]);
    await page.uncheck("#troubled");
    await page.click("[data-action=resume]");
    await page.click("#ask-yes");
    await page.waitForFunction(
      (name) =>
        [...document.querySelectorAll("#rows tr")].some(
          (row) => row.cells[0].textContent === name && row.querySelector(".c-breaker").textContent === "closed",
        ),
      KERNEL,
    );
    const kept = await page.evaluate(() => [
      location.href,
      localStorage.length,
      sessionStorage.length,
      document.cookie,
      document.documentElement.outerHTML,
    ]);
    assert.equal(kept[0], `http://${address}/`);
    assert.deepEqual(kept.slice(1, 4), [0, 0, ""]);
    assert.equal(kept[4].includes(token), false);
  },

  async "the failure is in the history, with the four fields of a report"() {
    await page.click("#tab-failures");
    const first = page.locator("#failure-list li").first();
    await first.waitFor();
    const text = await first.innerText();
    for (const part of [KERNEL, "under root", "kill", "child terminated", "life 1"]) assert.ok(text.includes(part), `${part} in ${text}`);
    await page.fill("#search", "pagerank");
    await page.waitForFunction(() => document.querySelectorAll("#failure-list li").length === 0);
    await page.fill("#search", "");
    await first.locator(".go").click();
    await subject(KERNEL);
    await page.click("#tab-health");
    assert.match(await page.textContent("#health-list"), /runtime.*healthy/);
    await page.click("#tab-details");
  },

  async "the job's run is shown stage by stage, with each one's share of its time"() {
    await page.click("#tab-pipelines");
    await page.waitForFunction((count) => document.querySelectorAll("#pipeline-list progress").length === count, KERNELS.length);
    const text = await page.innerText("#pipeline-list");
    for (const part of ["debian-pagerank", "done", "the slowest", ...KERNELS]) assert.ok(text.includes(part), `${part} in ${text}`);
    const shares = await page.$$eval("#pipeline-list progress", (bars) => bars.map(({ value }) => value));
    const sum = shares.reduce((all, share) => all + share, 0);
    assert.ok(Math.abs(sum - 1) < 1e-6, `${shares}`);
    await page.click("#tab-details");
  },

  async "a kernel's row says where it runs and how long its answers take"() {
    const { "graph/pagerank": pagerank, root } = await table();
    assert.equal(pagerank.device, "cpu:0");
    for (const column of ["p50", "p99"]) assert.match(pagerank[column], /^[0-9.]+ (us|ms|s)$/, column);
    assert.match(await row("graph/pagerank").locator(".c-p50").getAttribute("title"), /^of \d+ answers$/);
    assert.deepEqual([root.device, root.p50, root.waiting], ["", "", ""]);
    assert.match(pagerank.waiting, /^0$/);
    assert.match(pagerank.left, /^\d+$/);
  },

  async "a deadline that is lost is shown at the stage that lost it"() {
    const node = spawn(program, ["run", "--serve", "127.0.0.1:0", "--deadline", "1ms"], { stdio: ["ignore", "ignore", "pipe"] });
    const gone = new Promise((done) => node.on("exit", done));
    const told = new Promise((found, failed) => {
      let text = "";
      node.stderr.on("data", (more) => {
        text += more;
        const serving = /serving on http:\/\/(\S+)\n/.exec(text);
        if (serving) found(serving[1]);
      });
      node.on("error", failed);
      gone.then(() => failed(new Error(`it does not serve: ${text}`)));
    });
    told.catch(() => {});
    process.on("exit", () => node.kill("SIGKILL"));
    const other = await browser.newPage();
    await other.goto(`http://${await told}/`);
    await other.click("#tab-pipelines");
    await other.waitForFunction(() => document.getElementById("pipeline-list").textContent.includes("the deadline was lost here"));
    const text = await other.innerText("#pipeline-list");
    assert.match(text, /debian-pagerank[^]*failed[^]*deadline/);
    const lines = await other.$$eval("#pipeline-list li", (lines) => lines.map((line) => line.textContent));
    const lost = lines.filter((line) => line.includes("the deadline was lost here"));
    assert.equal(lost.length, 1, lines.join("\n"));
    assert.ok(lost[0].includes("graph/load"), lost[0]);
    assert.equal(await other.textContent("#tab-pipelines .count, #tab-pipelines :last-child"), "1");
    await other.close();
    node.kill("SIGTERM");
    await gone;
  },

  async "a device that is lost is told by its name and its reason"() {
    const shot = await (await fetch(`http://${address}/v1/snapshot`)).json();
    const reason = "Xid 79: the GPU has fallen off the bus; reset it";
    shot.health.components.push(
      { name: "device/cuda:0", status: "unhealthy", reason, needed: true, takes: false },
      { name: "device/cuda:1", status: "degraded", reason: "throttled by heat", needed: false, takes: true },
    );
    shot.tree.children[1].kernel = { ...shot.tree.children[1].kernel, device: "cuda:0", breaker: "open", refused_by: "device" };
    const other = await browser.newPage();
    await other.route("**/v1/events", (route) => {
      return route.fulfill({ contentType: "text/event-stream", body: `data: ${JSON.stringify(shot)}\n\n` });
    });
    await other.goto(`http://${address}/`);
    await other.click("#tab-health");
    await other.waitForFunction(() => document.getElementById("health-list").textContent.includes("device/cuda:0"));
    const lines = await other.$$eval("#health-list li", (lines) => lines.map((line) => line.textContent));
    const lost = lines.find((line) => line.includes("device/cuda:0"));
    assert.ok(lost.includes("unhealthy") && lost.includes(reason) && lost.includes("ready only while"), lost);
    assert.ok(lines.some((line) => line.includes("device/cuda:1") && line.includes("degraded")));
    await other.waitForFunction(() => document.querySelector("#rows .c-device") && document.getElementById("rows").textContent.includes("cuda:0"));
    await other.close();
  },

  async "it is dark where the reader's system is, and light where it is not"() {
    const shades = async (colorScheme) => {
      await page.emulateMedia({ colorScheme });
      return page.evaluate(() => {
        const brightness = (color) => color.match(/[0-9.]+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0);
        const style = getComputedStyle(document.body);
        return [brightness(style.backgroundColor), brightness(style.color)];
      });
    };
    const [darkPaper, darkInk] = await shades("dark");
    const [lightPaper, lightInk] = await shades("light");
    assert.ok(darkPaper < 200 && darkInk > 400, `dark: ${darkInk} on ${darkPaper}`);
    assert.ok(lightPaper > 600 && lightInk < 250, `light: ${lightInk} on ${lightPaper}`);
  },

  async "an update writes nothing that is as before"() {
    const writes = await page.evaluate(async () => {
      let count = 0;
      const watch = new MutationObserver((records) => {
        count += records.length;
      });
      const turn = () =>
        new Promise((done) => {
          const stop = new MutationObserver(() => {
            stop.disconnect();
            done();
          });
          stop.observe(document.getElementById("counts"), { subtree: true, childList: true, characterData: true });
        });
      await turn();
      watch.observe(document.getElementById("rows"), { subtree: true, childList: true, characterData: true, attributes: true });
      await turn();
      watch.disconnect();
      return count;
    });
    // The spans since each kernel's last change, and no other cell.
    assert.ok(writes <= 2 * KERNELS.length, `${writes} writes`);
  },

  async "nobody who looks, no stream: paused or hidden"() {
    const isStream = (request) => request.url().endsWith("/v1/events");
    const closes = async (act) => {
      const closed = page.waitForEvent("requestfailed", isStream);
      await act();
      await closed;
    };
    const opens = async (act) => {
      const opened = page.waitForEvent("request", isStream);
      await act();
      await opened;
      await page.waitForFunction(() => document.getElementById("connection").dataset.state === "live");
    };
    await closes(() => page.click("#pause"));
    assert.match(await page.textContent("#connection"), /^paused, seen /);
    await opens(() => page.click("#pause"));
    // A browser without a screen hides nothing by itself.
    const hide = (hidden) => page.evaluate((hidden) => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
    await closes(() => hide(true));
    assert.equal(await page.evaluate(() => source), null);
    await opens(() => hide(false));
  },

  async "a tree of thousands is drawn where it is looked at, and its end is one key away"() {
    const shot = await (await fetch(`http://${address}/v1/snapshot`)).json();
    const one = shot.tree.children[0];
    shot.tree.children = Array.from({ length: 3000 }, (_, number) => ({ ...one, name: `many/${number}` }));
    const other = await browser.newPage();
    await other.route("**/v1/events", (route) => {
      return route.fulfill({ contentType: "text/event-stream", body: `data: ${JSON.stringify(shot)}\n\n` });
    });
    await other.goto(`http://${address}/`);
    const drawn = () => other.$$eval("#rows tr .c-name .mono, #rows tr td:first-child .mono", (names) => [...new Set(names.map((name) => name.textContent))]);
    await other.waitForFunction(() => document.querySelectorAll("#rows tr").length > 20);
    const first = await drawn();
    assert.ok(first.includes("root") && first.length < 200, `${first.length} rows for 3,001`);
    assert.equal(await other.getAttribute("#tree", "aria-rowcount"), "3002");
    await other.focus("#rows tr[tabindex='0']");
    await other.keyboard.press("End");
    await other.waitForFunction(() => document.activeElement.textContent.includes("many/2999"));
    assert.equal(await other.evaluate(() => document.activeElement.ariaRowIndex), "3002");
    await other.keyboard.press("Home");
    await other.waitForFunction(() => document.activeElement.textContent.includes("root"));
    await other.evaluate(() => (document.querySelector(".tree").scrollTop = 28 * 1500));
    await other.waitForFunction(() => document.getElementById("rows").textContent.includes("many/1500"));
    await other.fill("#search", "many/2345");
    await other.waitForFunction(() => document.querySelectorAll("#rows tr").length === 2);
    assert.deepEqual(await drawn(), ["root", "many/2345"]);
    await other.close();
  },

  async "names are text whatever they hold, letters are replayed, and a stream that ends is opened again"() {
    const hostile = '<img src=x onerror="window.hurt = true">';
    const shot = await (await fetch(`http://${address}/v1/snapshot`)).json();
    const child = (name) => ({ ...shot.tree.children[0], name });
    const letter = { letter: 7, id: 1, kernel: hostile, attempts: 3, phase: "queued", error: hostile, unix_millis: 0, input_bytes: 1536 };
    shot.dead_letters = { total: 1, letters: [letter] };
    shot.failures = [{ ...shot.failures[0], offender: hostile, reason: hostile }];
    let streams = 0;
    const other = await browser.newPage();
    await other.route("**/v1/events", (route) => {
      streams += 1;
      // One snapshot in a stream: its end is a lost connection.
      shot.tree.children = [child(hostile), child(`life ${streams}`)];
      shot.uptime_s += 1;
      return route.fulfill({ contentType: "text/event-stream", body: `data: ${JSON.stringify(shot)}\n\n` });
    });
    expected = ["409"];
    let sent = null;
    await other.route("**/v1/actions", (route) => {
      sent = [route.request().postDataJSON(), route.request().headers().authorization];
      return route.fulfill({ status: 409, json: { done: false, message: hostile } });
    });
    await other.goto(`http://${address}/`);
    await other.waitForFunction(() => document.getElementById("rows").textContent.includes("life 2"));
    await other.click("#tab-letters");
    await other.locator("#letter-list button", { hasText: "Replay" }).click();
    await other.fill("#token", token);
    await other.keyboard.press("Enter");
    await other.waitForFunction((text) => document.getElementById("said").textContent === text, hostile);
    assert.deepEqual(sent, [{ action: "replay", letter: 7 }, `Bearer ${token}`]);
    await other.click("#tab-failures");
    await other.locator("#failure-list .go").click();
    await other.waitForFunction((text) => document.getElementById("subject").textContent === text, hostile);
    assert.deepEqual(await other.evaluate(() => [document.images.length, window.hurt, window.violations.length]), [0, undefined, 0]);
    await other.close();
    expected = [];
  },

  async "it fits a narrow screen"() {
    await page.setViewportSize({ width: 400, height: 860 });
    const [wide, there] = await page.evaluate(() => [document.documentElement.scrollWidth, document.querySelectorAll("#rows tr").length]);
    assert.ok(wide <= 400, `${wide} pixels`);
    assert.equal(there, 1 + KERNELS.length);
    await page.setViewportSize({ width: 1440, height: 860 });
  },

  async screenshots() {
    if (!screenshots) return;
    const take = async (name, colorScheme, width, height) => {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await page.setViewportSize({ width, height });
      await page.screenshot({ path: join(screenshots, name) });
    };
    await row(KERNEL).click();
    await page.mouse.move(0, 0);
    await take("page-light.png", "light", 1440, 700);
    await take("page-dark.png", "dark", 1440, 700);
    await take("page-narrow.png", "light", 400, 860);
    await page.setViewportSize({ width: 1440, height: 860 });
  },

  async "a node that is gone is told"() {
    expected = ["ERR_", "Failed to load"];
    process.kill(pid, "SIGKILL");
    await page.waitForFunction(() => document.getElementById("connection").dataset.state === "lost");
    assert.match(await page.textContent("#connection"), /^disconnected, seen /);
    assert.deepEqual(await names(), ["root", ...KERNELS]);
  },

  async "nothing was wrong in the console, and the policy was kept"() {
    assert.deepEqual(troubles, []);
    assert.deepEqual(await page.evaluate(() => window.violations), []);
  },
};

try {
  for (const [name, step] of Object.entries(steps)) {
    try {
      await step();
    } catch (error) {
      error.message = `${name}: ${error.message}`;
      throw error;
    }
    console.log(`ok: ${name}`);
  }
} finally {
  await browser.close();
  await rm(folder, { recursive: true, force: true });
}
