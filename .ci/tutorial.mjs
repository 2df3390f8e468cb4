// What the tutorial promises on the page: tutorial.mjs URL TOKEN.
import { chromium } from "playwright-core";

const [url, token] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--headless", "--no-sandbox", "--disable-gpu"] });
const page = await browser.newPage({ viewport: { width: 1440, height: 860 } });
page.setDefaultTimeout(30_000);

const cell = (column) => page.locator("#rows tr", { hasText: "demo/double" }).locator(`.c-${column}`);
const reaches = (column, pattern) =>
  page.waitForFunction(
    ([column, pattern]) =>
      [...document.querySelectorAll("#rows tr")].some(
        (row) => row.textContent.includes("demo/double") && new RegExp(pattern).test(row.querySelector(`.c-${column}`).textContent),
      ),
    [column, pattern.source],
  );

try {
  await page.goto(url);
  await reaches("restarts", /^[1-9]/);
  await reaches("last", /panic.*ends in 3/);
  await reaches("state", /^serving$/);
  console.log(`ok: it came back from a panic by itself: ${await cell("last").textContent()}`);
  const before = Number(await cell("restarts").textContent());
  await page.locator("#rows tr", { hasText: "demo/double" }).click();
  await page.click("[data-action=restart]");
  await page.fill("#token", token);
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.getElementById("said").textContent.includes("demo/double is restarted"));
  await page.waitForFunction(
    (before) => [...document.querySelectorAll("#rows .c-restarts")].some((cell) => Number(cell.textContent) > before),
    before,
  );
  await reaches("state", /^serving$/);
  console.log("ok: a life was ended by hand");
} finally {
  await browser.close();
}
