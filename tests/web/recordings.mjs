// A recording that is read while the page is used: how long it takes, what memory it needs, and how soon a key shows.

import { readFileSync, statSync } from "node:fs";
import assert from "node:assert/strict";

import { until } from "./browser.mjs";

const INPUT_TO_PAINT_MS = 100;

/** What the tap may need, whatever it reads, and for each byte of a recording: of a GiB less than 300 MiB. */
const [MEMORY_KB, MEMORY_EACH] = [40 * 1024, 0.25];

/** What the page may have of JavaScript. */
const HEAP_BYTES_MAX = 64 << 20;

/** How long a recording may take, for each MiB of it. */
const READ_MS_MIN = 60_000;
const READ_MS_EACH = 500;

/** What is pressed while it is read, and afterwards. */
const KEYS = ["Home", "ArrowDown", "PageDown", "End", "PageUp", "3", "ArrowUp", "1", "Enter", "Home", "PageDown", "Enter", "End", "ArrowUp"];

const PAUSE_MS = 60;
const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
const seconds = (since) => `${((Date.now() - since) / 1000).toFixed(1)} s`;
const mebibytes = (kilobytes) => `${Math.round(kilobytes / 1024)} MiB`;

/** From here on the page notes how long each key takes to show. */
export function watchKeys(page) {
  return page.run(() => {
    window.slow = [];
    window.pressed = 0;
    addEventListener("keydown", () => (window.pressed += 1), true);
    const note = (entry) => entry.name === "keydown" && window.slow.push(Math.round(entry.duration));
    new PerformanceObserver((list) => list.getEntries().forEach(note)).observe({ type: "event", durationThreshold: 16 });
  });
}

/** From a key to the picture that it makes, as the browser measures it. Of a machine that is busy with other things a few say nothing about the page. */
export async function checkKeys(page, what, least) {
  const { slow, pressed } = await page.run(() => ({ slow: window.slow.splice(0).sort((a, b) => b - a), pressed: window.pressed }));
  await page.run(() => (window.pressed = 0));
  const usual = slow[Math.floor(pressed / 10)] ?? 16;
  console.log(`     ${what}: ${usual} ms or less for 9 of 10 keys, ${slow[0] ?? 16} ms at most, of ${pressed} keys`);
  assert.ok(pressed > least && usual < INPUT_TO_PAINT_MS, String(slow.slice(0, 8)));
}

const memory = (pid, name) => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]);

/** Presses the next key, and waits until what it shows is there. */
async function pressNext(page, index) {
  await page.press(KEYS[index % KEYS.length]);
  await pause();
  await page.until("rows", () => document.querySelector(".row") && !document.querySelector(".row.is-waiting"));
}

/** The page of a tap that reads `path`, by its command line since `began`, or as it is dropped now. */
export async function checkReading({ page, browser, pid, path, isDropped, began }) {
  const { size } = statSync(path);
  await watchKeys(page);
  await page.run(() => {
    window.isReadingSaid = false;
    const status = document.querySelector("#status");
    new MutationObserver(() => (window.isReadingSaid ||= /reading, \d+ %/.test(status.textContent))).observe(status, { childList: true });
  });
  if (isDropped) {
    const { root } = await page.send("DOM.getDocument");
    const { nodeId } = await page.send("DOM.querySelector", { nodeId: root.nodeId, selector: "#file" });
    began = Date.now();
    await page.send("DOM.setFileInputFiles", { nodeId, files: [path] });
  }
  await page.until("the first frames", () => document.querySelector(".row:not(.is-waiting)"));
  console.log(`     ${isDropped ? "dropped" : "command line"}, ${mebibytes(size / 1024)}: the first frames after ${seconds(began)}`);
  await page.click("#list");
  let index = 0;
  await until("all to be read", async () => {
    await pressNext(page, index++);
    return !/^Reading|reading,/.test(await page.text("#status"));
  }, READ_MS_MIN + (READ_MS_EACH * size) / (1 << 20));
  console.log(`     all of it after ${seconds(began)}: ${await page.text("#status")}`);
  if (isDropped) assert.ok(await page.run(() => window.isReadingSaid), "it says how much is read");
  const isLong = index > 30;
  if (isLong) await checkKeys(page, "input to paint while it is read", 30);
  for (index = 0; index < KEYS.length; index += 1) await pressNext(page, index);
  await checkKeys(page, "input to paint", 10);
  await page.send("Performance.enable");
  const { metrics } = await page.send("Performance.getMetrics");
  const heap = metrics.find((metric) => metric.name === "JSHeapUsedSize").value;
  const { processInfo } = await browser.send("SystemInfo.getProcessInfo");
  const processes = processInfo.filter((process) => process.type === "renderer").map((process) => memory(process.id, "VmRSS"));
  const most = memory(pid, "VmHWM");
  console.log(`     memory: of the tap ${mebibytes(most)} at most, of the page ${mebibytes(heap / 1024)} of JavaScript in a process of ${mebibytes(Math.max(...processes))}`);
  assert.ok(most < MEMORY_KB + (MEMORY_EACH * size) / 1024, `${most} KiB`);
  assert.ok(heap < HEAP_BYTES_MAX, `${heap} bytes`);
}
