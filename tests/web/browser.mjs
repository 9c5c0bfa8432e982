// Chromium by its DevTools protocol, over a pipe: no library, no port.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const WAIT_MS = 10_000;

/** Ends with an error that says what was waited for. */
export async function until(what, check, wait = WAIT_MS) {
  const end = Date.now() + wait;
  let last;
  while (Date.now() < end) {
    try {
      last = await check();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`waited ${wait} ms for ${what}; last: ${last instanceof Error ? last.message : JSON.stringify(last)}`);
}

export class Browser {
  #pending = new Map();
  #listeners = new Map();
  #next = 1;

  static start(program) {
    const browser = new Browser();
    browser.folder = mkdtempSync(join(tmpdir(), "web-test-"));
    const options = ["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
      "--no-first-run", "--disable-extensions", "--disable-background-networking", `--user-data-dir=${browser.folder}`, "about:blank"];
    browser.child = spawn(program, options, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    let rest = "";
    browser.child.stdio[4].setEncoding("utf8").on("data", (text) => {
      const messages = (rest + text).split("\0");
      rest = messages.pop();
      messages.forEach((message) => browser.#take(JSON.parse(message)));
    });
    return browser;
  }

  #take(message) {
    if (message.id) {
      const { resolve, reject } = this.#pending.get(message.id);
      this.#pending.delete(message.id);
      if (message.error) reject(new Error(message.error.message));
      else resolve(message.result);
      return;
    }
    this.#listeners.get(`${message.sessionId} ${message.method}`)?.forEach((listener) => listener(message.params));
  }

  send(method, params = {}, sessionId) {
    const id = this.#next++;
    this.child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.#pending.set(id, { resolve, reject }));
  }

  on(sessionId, method, listener) {
    const key = `${sessionId} ${method}`;
    this.#listeners.set(key, [...(this.#listeners.get(key) ?? []), listener]);
  }

  async page() {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(this, sessionId, targetId);
    await Promise.all(["Page", "Runtime", "Log", "Network"].map((domain) => page.send(`${domain}.enable`)));
    this.on(sessionId, "Runtime.exceptionThrown", ({ exceptionDetails }) => page.problems.push(exceptionDetails.exception?.description ?? exceptionDetails.text));
    this.on(sessionId, "Log.entryAdded", ({ entry }) => entry.level === "error" && page.problems.push(`${entry.text} ${entry.url ?? ""}`));
    return page;
  }

  async stop() {
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    await Promise.race([this.send("Browser.close"), new Promise((resolve) => setTimeout(resolve, 2000))]);
    this.child.kill("SIGKILL");
    await ended;
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 200 });
  }
}

/** Keys that have a code besides their character. */
const KEY_CODES = { Enter: 13, Escape: 27, PageUp: 33, PageDown: 34, End: 35, Home: 36, ArrowUp: 38, ArrowDown: 40, Tab: 9 };

export class Page {
  /** What the console and the policies complained of. */
  problems = [];

  constructor(browser, sessionId, targetId) {
    this.browser = browser;
    this.sessionId = sessionId;
    this.targetId = targetId;
  }

  /** A page behind another one draws nothing. */
  front() {
    return this.send("Page.bringToFront");
  }

  close() {
    return this.browser.send("Target.closeTarget", { targetId: this.targetId });
  }

  send(method, params) {
    return this.browser.send(method, params, this.sessionId);
  }

  async open(url) {
    const loaded = new Promise((resolve) => this.browser.on(this.sessionId, "Page.loadEventFired", resolve));
    await this.send("Page.navigate", { url });
    await loaded;
  }

  /** Runs a function in the page; its arguments and its result go as JSON. */
  async run(work, ...values) {
    const expression = `(${work})(...${JSON.stringify(values)})`;
    const answer = await this.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true, userGesture: true });
    if (answer.exceptionDetails) throw new Error(answer.exceptionDetails.exception?.description ?? answer.exceptionDetails.text);
    return answer.result.value;
  }

  until(what, work, ...values) {
    return until(what, () => this.run(work, ...values));
  }

  text(selector) {
    return this.run((selector) => document.querySelector(selector)?.textContent ?? null, selector);
  }

  async place(selector) {
    const find = (selector) => {
      const box = document.querySelector(selector)?.getBoundingClientRect();
      return box && { x: box.x + box.width / 2, y: box.y + box.height / 2, left: box.left, width: box.width };
    };
    return until(`an element ${selector}`, () => this.run(find, selector));
  }

  async click(selector) {
    const { x, y } = await this.place(selector);
    for (const type of ["mousePressed", "mouseReleased"]) {
      await this.send("Input.dispatchMouseEvent", { type, x, y, button: "left", clickCount: 1 });
    }
  }

  async hover(selector) {
    const { x, y } = await this.place(selector);
    await this.send("Input.dispatchMouseEvent", { type: "mouseMoved", x, y });
  }

  async drag(selector, from, until) {
    const { left, width, y } = await this.place(selector);
    const at = (type, part) => this.send("Input.dispatchMouseEvent", { type, x: left + width * part, y, button: "left", clickCount: 1 });
    await at("mousePressed", from);
    await at("mouseMoved", (from + until) / 2);
    await at("mouseMoved", until);
    await at("mouseReleased", until);
  }

  async press(key) {
    const text = key.length === 1 ? key : undefined;
    const windowsVirtualKeyCode = KEY_CODES[key];
    await this.send("Input.dispatchKeyEvent", { type: "keyDown", key, text, windowsVirtualKeyCode });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", key, windowsVirtualKeyCode });
  }

  async type(text) {
    for (const key of text) await this.press(key);
  }

  async look({ width, height = 800, dark = false, still = false }) {
    await this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
    const features = [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }, { name: "prefers-reduced-motion", value: still ? "reduce" : "" }];
    await this.send("Emulation.setEmulatedMedia", { features });
  }

  async picture() {
    const { data } = await this.send("Page.captureScreenshot", { format: "png" });
    return Buffer.from(data, "base64");
  }
}
