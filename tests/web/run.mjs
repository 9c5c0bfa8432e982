// The page of `pulsar-native tap --web` in Chromium: `scripts/web-test` runs it.
//
//   node tests/web/run.mjs BINARY QUICKSTART CHROMIUM [FILTER]

import { spawn } from "node:child_process";
import { createServer, get } from "node:http";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import assert from "node:assert/strict";

import { Browser, until } from "./browser.mjs";
import { writeCapture } from "./capture.mjs";
import { checkKeys, checkReading, watchKeys } from "./recordings.mjs";

const [binary, quickstart, chromium, filter = ""] = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), "web-test-"));
const started = [];

/** Half of the frames of the large capture: SENDs. */
const SENDS = 500_000;
/** Of the recording of small messages, unless WEB_TEST_RECORDING names one. */
const [SMALL_SENDS, SMALL_BYTES] = [25_000, 100];
const MEMORY_KB_MAX = 300 * 1024;
const MARKUP = "<img src=x onerror=document.title='run'>";

/** Starts a program, and waits until it has said what `pattern` finds. */
async function start(args, pattern, name, program = binary) {
  const child = spawn(program, args);
  started.push(child);
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (said = (said + text).slice(-100_000)));
  const found = await until(`${name} to say ${pattern}`, () => pattern.exec(said));
  return { child, found, said: () => said };
}

function ended(program, args, env = {}) {
  return new Promise((resolve) => {
    const child = spawn(program, args, { env: { ...process.env, ...env } });
    let said = "";
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (said += text));
    child.on("exit", (code) => resolve({ code, said }));
  });
}

const broker = await start(["broker", "--listen", "127.0.0.1:0"], /pulsar:\/\/\S+/, "the broker");
const tap = await start(["tap", "--listen", "127.0.0.1:0", "--to", broker.found[0], "--web", "127.0.0.1:0"], /clients go to (pulsar:\S+)[\s\S]*?(http:\S+token=\S+)/, "the tap");
const [, tapped, url] = tap.found;
const site = new URL(url);
const produced = (args) => ended(binary, ["produce", tapped, ...args]);

const browser = Browser.start(chromium);
const page = await browser.page();
await page.look({ width: 1280 });

/** Rows in sight: what a screen reader says of them. */
const rows = (of = page) => of.run(() => [...document.querySelectorAll(".row")].map((row) => row.getAttribute("aria-label")));
/** The row that a screen reader says so; it is scrolled to. */
const row = (pattern, of = page) =>
  until(`a row ${pattern}`, async () => {
    const found = await of.run(async (source) => {
      await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
      const row = [...document.querySelectorAll(".row")].find((row) => new RegExp(source).test(row.getAttribute("aria-label")));
      const list = document.querySelector("#list");
      if (row) row.scrollIntoView({ block: "center" });
      else list.scrollTop = list.scrollTop + list.clientHeight >= list.scrollHeight - 2 ? 0 : list.scrollTop + list.clientHeight / 2;
      return row?.id;
    }, pattern.source);
    // It is drawn anew where it was scrolled to.
    if (found) await of.run(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
    return found && `#${found}`;
  });
/** Takes the filter back, and waits until the list is where it was. */
async function clearFilter() {
  await page.press("Escape");
  await page.press("Escape");
  await page.until("all of them", () => !/words=/.test(location.hash) && Number(document.querySelector(".row")?.getAttribute("aria-setsize")) > 30);
  await new Promise((resolve) => setTimeout(resolve, 300));
}
const panel = (pattern) => until(`details with ${pattern}`, async () => pattern.exec(await page.text("#panel")));

/** Text and what is behind it, where they are closer than 4.5 to 1. */
function lowContrasts() {
  const channels = (text) => {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    return { rgb: [r, g, b], a };
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((channel) => channel / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const { rgb, a } = channels(getComputedStyle(at).backgroundColor);
      if (a > 0.9) return rgb;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const box = element.getBoundingClientRect();
    if (!text || !box.width || !box.height || !element.checkVisibility({ opacityProperty: true })) continue;
    if (getComputedStyle(element).fill !== "rgb(0, 0, 0)" && element instanceof SVGElement) continue;
    const [a, b] = [luminance(channels(getComputedStyle(element).color).rgb), luminance(ground(element))].sort((a, b) => b - a);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push(`${element.tagName}.${element.className} ${JSON.stringify(element.textContent.slice(0, 30))} ${ratio.toFixed(2)}`);
  }
  return found;
}

const tests = {
  async "live traffic of the quickstart is told in plain words"() {
    await page.open(url);
    assert.equal(await page.run(() => location.search), "", "the token leaves the address");
    await until("the empty page to say what to do", async () => /Point a client at the tap/.test(await page.text("#empty")));
    const client = await ended(quickstart, [], { PULSAR_URL: tapped });
    assert.equal(client.code, 0, client.said);
    await until("all to be shown", async () => (await rows()).some((text) => /closed: the client ends connection/.test(text)));
    assert.match(await page.text("#status"), /no errors/);
    await page.click("#list");
    await page.press("Home");
    await row(/^CONNECT to the broker, connection 1/);
    assert.match(await page.text("#tab-guide"), /Guide/);
    await page.press("1");
    await panel(/A permit is the right to send one message to a consumer/);
    await row(/^FLOW to the broker.*permits for 1000 more messages/);
  },

  async "who has never seen the protocol finds the answers on the page"() {
    let texts = [];
    const readAll = async () => {
      texts = [];
      await page.press("Home");
      await until("the end of the list", readPart);
    };
    const readPart = async () => {
      const [seen, isEnd] = await page.run(async () => {
        await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
        const list = document.querySelector("#list");
        const seen = [...document.querySelectorAll(".row:not(.is-waiting)")].map((row) => ({
          n: Number(row.dataset.n),
          name: row.querySelector(".label, .band").textContent,
          text: row.querySelector(".sentence").textContent,
          aside: row.querySelector(".where")?.textContent ?? "",
          isCut: row.querySelector(".sentence").scrollWidth > row.querySelector(".sentence").clientWidth,
        }));
        list.scrollTop += list.clientHeight / 2;
        return [seen, list.scrollTop + list.clientHeight >= list.scrollHeight - 2];
      });
      seen.forEach((row) => (texts[row.n] = row));
      return isEnd && texts.some((row) => /ends connection/.test(row.text));
    };
    const named = (name) => texts.filter((row) => row.name === name);
    for (const width of [360, 1280]) {
      await page.look({ width });
      await readAll();
      const cut = ["SEND", "SEND_RECEIPT", "FLOW", "MESSAGE", "ACK", "REDELIVER_UNACKNOWLEDGED_MESSAGES"].flatMap(named).filter((row) => row.isCut);
      assert.deepEqual(cut, [], `no text of these is cut off at ${width} px`);
    }

    // What is a permit? The row says how many, and behind it is what one is.
    const [flow] = named("FLOW");
    assert.match(flow.text, /^permits for 1000 more messages$/);
    await page.click(await row(/^FLOW/));
    await page.until("its details", () => document.querySelector("h2")?.textContent.startsWith("FLOW"));
    await page.click(".meaning summary");
    await page.until("the meaning", () => document.querySelector(".meaning[open]")?.textContent.includes("A permit is the right to send one message to a consumer"));

    // Which receipt belongs to which send? Each names the other one.
    const sends = named("SEND");
    assert.equal(sends.length, 2);
    for (const send of sends) {
      const receipt = texts[Number(/its receipt is no\. (\d+)/.exec(send.text)[1])];
      assert.match(receipt.text, new RegExp(`^receipt for no\\. ${send.n}: stored as \\d+:\\d+$`));
      assert.equal(/sequence id \d+/.exec(send.aside)[0], /sequence id \d+/.exec(receipt.aside)[0]);
    }

    // Why did the second message come twice? Its second delivery names the row that is the reason.
    const messages = named("MESSAGE");
    assert.equal(messages.length, 3);
    const [, id, reason] = /^(\d+:\d+) again: no\. (\d+) asked for it$/.exec(messages[2].text);
    assert.equal(messages[1].text, `delivers ${id}`);
    assert.equal(texts[Number(reason)].text, `not done with ${id}: send it again`);
    await page.press("1");
    await panel(/Why a message comes twice.*the client has said that it is not done with it and wants it again/);
  },

  async "a receipt is tied to its send, and says where it is stored"() {
    const receipt = await row(/^SEND_RECEIPT.*sequence id 1/);
    await page.click(receipt);
    await panel(/The broker has stored an entry/i);
    const send = Number(/receipt for no\. (\d+)/.exec((await page.run((id) => document.querySelector(id).getAttribute("aria-label"), receipt)))[1]);
    assert.equal(await page.run((n) => document.querySelector(`.row[data-n="${n}"]`).classList.contains("is-related"), send), true);
    await page.press("r");
    await until("the SEND to be chosen", () => page.run((n) => document.querySelector(`.row[data-n="${n}"]`)?.getAttribute("aria-selected") === "true", send));
    await panel(/its receipt is no\. \d+/);
  },

  async "the life of the second message says why it came twice"() {
    await page.click(await row(/^MESSAGE.*again: no\. \d+ asked for it/));
    await panel(/because of no\. \d+/);
    const steps = await page.until("its life", () => {
      const steps = [...document.querySelectorAll(".life b")].map((step) => step.textContent);
      return steps.length > 4 && steps;
    });
    assert.deepEqual(steps, ["sent", "stored", "delivered", "asked for again", "delivered again", "acknowledged"]);
    await page.click(".life li:nth-child(4) button");
    await panel(/The client wants messages again that it has not acknowledged/);
  },

  async "bytes and fields show each other"() {
    await page.click(await row(/^FLOW/));
    await page.until("its fields", () => document.querySelector("h2")?.textContent.startsWith("FLOW") && document.querySelectorAll(".field").length > 3);
    const line = await page.run(() => [...document.querySelectorAll(".field")].find((field) => /messagePermits/.test(field.textContent)).dataset.line);
    await page.run((line) => document.querySelector(`.field[data-line="${line}"]`).scrollIntoView(), line);
    await page.hover(`.field[data-line="${line}"]`);
    assert.equal(await page.until("its bytes", () => document.querySelector(".bytes .is-marked")?.textContent), "10 e8 07");
    await page.run(() => document.querySelector(".bytes").scrollIntoView());
    await page.hover(".bytes [data-line='0']");
    assert.match(await page.until("its field", () => document.querySelector(".field.is-marked")?.textContent), /total_size/);
    const chapter = await page.run(() => document.querySelector(".panel a.chapter").href);
    const book = await browser.page();
    await book.look({ width: 1280 });
    await book.open(chapter);
    await book.until("the chapter at its place", () => document.querySelector("#flow.is-asked") && document.querySelectorAll("main pre").length > 5);
    assert.match(await book.text("main"), /The broker counts down with each message it sends, and stops at zero/);
    assert.equal(await book.run(() => document.querySelector("nav [aria-current]").textContent), "6. Flow");
    for (const width of [360, 1280]) {
      await book.look({ width });
      assert.equal(await book.run(() => document.documentElement.scrollWidth), width, "nothing is wider than the page");
      assert.deepEqual(await book.run(lowContrasts), []);
    }
    assert.deepEqual(book.problems, []);
    await book.close();
    await page.front();
  },

  async "ids, keys, properties and texts are found"() {
    const found = async (words) => {
      await page.press("/");
      await page.run(() => (document.querySelector("#words").value = ""));
      await page.type(words);
      await page.until(`a search for ${words}`, (words) => new URLSearchParams(location.hash.slice(1)).get("words") === words, words);
      return until(`what is found by ${words}`, async () => {
        const seen = await rows();
        return seen.length > 0 && !seen.includes("loading") && seen.map((text) => text.split(" ")[0]);
      });
    };
    const id = /stored as (\d+:\d+)/.exec(await page.run((id) => document.querySelector(id).getAttribute("aria-label"), await row(/^SEND_RECEIPT.*sequence id 1/)))[1];
    const life = ["SEND_RECEIPT", "MESSAGE", "REDELIVER_UNACKNOWLEDGED_MESSAGES", "MESSAGE", "ACK"];
    await until(`the life of ${id}`, async () => JSON.stringify(await found(id)) === JSON.stringify(life));
    await until("a property", async () => JSON.stringify(await found("rust order-7")) === JSON.stringify(["SEND", "MESSAGE"]));
    await clearFilter();
  },

  async "payloads are hidden until asked for, and can be copied"() {
    await browser.send("Browser.grantPermissions", { origin: site.origin, permissions: ["clipboardReadWrite", "clipboardSanitizedWrite"] });
    await page.click(await row(/^SEND to the broker.*sequence id 0/));
    await page.until("the payload to be hidden", () => document.querySelector("h2")?.textContent.startsWith("SEND ") && /hidden\)/.test(document.querySelector(".fields").textContent));
    await page.press("p");
    await page.until("the payload", () => document.querySelector(".fields").textContent.includes('"hello"'));
    await page.press("x");
    const copied = await page.until("the command", async () => {
      const text = await navigator.clipboard.readText();
      return text.startsWith("pulsar-native explain ") && text;
    });
    const explained = await ended(binary, copied.split(" ").slice(1));
    assert.match(explained.said, /SEND, \d+ bytes[\s\S]*payload = "hello"/);
  },

  async "markup of peers stays text"() {
    const made = await produced(["--topic", `persistent://public/default/${MARKUP}`, "--key", MARKUP, "--property", `${MARKUP}=${MARKUP}`, MARKUP]);
    const refused = await produced(["--topic", `persistent://nowhere/ns/${MARKUP}`, "x"]);
    assert.notEqual(refused.code, 0, made.said);
    await page.press(" ");
    await until("the topic in sight", async () => (await page.text("#rows")).includes("<img src=x"));
    await page.press("]");
    await page.press("e");
    await until("errors only", async () => (await rows()).length > 0 && (await rows()).every((text) => /refused|broke/.test(text)));
    await page.press("e");
    for (const command of ["SEND", "PRODUCER"]) {
      await page.press("/");
      await page.run(() => (document.querySelector("#words").value = ""));
      await page.type(`${command.toLowerCase()} img`);
      await page.press("Escape");
      await page.until("the filter", () => /words=/.test(location.hash) && Number(document.querySelector(".row")?.getAttribute("aria-setsize")) < 10);
      await page.click(await row(new RegExp(`^${command} `)));
      await page.until("its fields", (command) => document.querySelector("h2")?.textContent.startsWith(command) && document.querySelectorAll(".field").length > 5, command);
      await page.press("p");
    }
    await page.press("3");
    await panel(/<img src=x/);
    assert.equal(await page.run(() => document.querySelectorAll("img[src=x], #rows img, #panel img, script:not([src])").length), 0);
    assert.equal(await page.run(() => document.title), "Pulsar tap");
    await page.press("Escape");
    await page.press("Escape");
  },

  async "filters and spans show what they say, and a link restores them"() {
    await page.press("Home");
    await page.click("#words");
    await page.type("receipt -img");
    await until("receipts alone", async () => (await rows()).length > 1 && (await rows()).every((text) => /^SEND_RECEIPT/.test(text)));
    const link = await page.run(() => location.href);
    const other = await browser.page();
    await other.look({ width: 1280 });
    await other.open(link);
    await until("the same in another tab", async () => (await rows(other)).length > 1 && (await rows(other)).every((text) => /^SEND_RECEIPT/.test(text)));
    assert.deepEqual(other.problems, []);
    await page.front();
    await clearFilter();
    // The place in the list and the row that is chosen, too.
    await page.press("End");
    await page.run(() => (document.querySelector("#list").scrollTop = 333));
    const placed = await page.until("the place in the link", () => /n=\d+&top=9\b/.test(location.hash) && [location.href, document.querySelector("#list").scrollTop]);
    await other.front();
    await other.open("about:blank");
    await other.open(placed[0]);
    const top = () => [document.querySelector("#list").scrollTop, document.querySelector("#follow").textContent, document.querySelector("h2")?.textContent];
    await until("the same place", async () => {
      const [at, follows, head] = await other.run(top);
      return Math.abs(at - placed[1]) < 38 && follows === "Paused" && head === (await page.text("h2"));
    });
    await other.close();
    await page.front();
    const all = await page.until("all of them", () => {
      const count = Number(document.querySelector(".row")?.getAttribute("aria-setsize"));
      return count > 30 && count;
    });
    await page.drag("#timeline svg", 0.0, 0.02);
    await page.until("a span", () => /span=0-\d+/.test(location.hash) && !document.querySelector("#span").hidden);
    await row(/^opened: connection #1/);
    await page.until("fewer", (all) => Number(document.querySelector(".row").getAttribute("aria-setsize")) < all, all);
    await page.press("-");
    await page.until("all again", () => !/span/.test(location.hash));
  },

  async "everything has a name, and no text is too faint"() {
    await page.press("]");
    for (const width of [360, 1280]) {
      for (const dark of [false, true]) {
        await page.look({ width, dark, still: true });
        for (const tab of ["1", "2", "3"]) {
          await page.press(tab);
          await new Promise((resolve) => setTimeout(resolve, 150));
          assert.deepEqual(await page.run(lowContrasts), [], `${width} px${dark ? ", dark" : ""}, tab ${tab}`);
        }
        assert.equal(await page.run(() => document.documentElement.scrollWidth), width, "nothing is wider than the page");
        const moving = () => document.getAnimations().length;
        assert.equal(await page.run(moving), 0);
      }
    }
    const { nodes } = await page.send("Accessibility.getFullAXTree");
    assert.ok((await rows()).length > 5);
    const nameless = nodes.filter((node) => !node.ignored && ["button", "option", "tab", "link", "searchbox", "listbox", "img", "tabpanel", "dialog"].includes(node.role?.value) && !node.name?.value);
    assert.deepEqual(nameless.map((node) => node.role.value), []);
    const roles = new Set(nodes.map((node) => node.role?.value));
    for (const role of ["listbox", "option", "tab", "tabpanel", "searchbox", "status"]) assert.ok(roles.has(role), role);
    for (const width of [360, 1280]) {
      await page.look({ width });
      await page.press("?");
      await page.until("the help", () => document.querySelector("#help-dialog").open && /acknowledge|follow/i.test(document.querySelector("#help-dialog").textContent));
      assert.equal(await page.run(() => document.querySelector("#help-dialog").scrollTop), 0, `the help opens at its beginning at ${width} px`);
      await page.press("Escape");
    }
  },

  async "other sites and foreign hosts get nothing"() {
    const ask = (headers) =>
      new Promise((resolve) => get({ host: site.hostname, port: site.port, path: `/${site.search}`, headers }, (answer) => resolve(answer.statusCode)));
    assert.equal(await ask({}), 200);
    assert.equal(await ask({ host: `evil.example:${site.port}` }), 421);
    assert.equal(await ask({ origin: "http://evil.example" }), 403);
    // Another port of the same host: the browser sends it the cookie, and it is not let in all the same.
    const evil = createServer((_, answer) => answer.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>evil</title>"));
    await new Promise((resolve) => evil.listen(0, "127.0.0.1", resolve));
    const other = await browser.page();
    const statuses = [];
    browser.on(other.sessionId, "Network.responseReceived", ({ response }) => response.url.startsWith(site.origin) && statuses.push(response.status));
    for (const host of ["127.0.0.1", "localhost"]) {
      await other.open(`http://${host}:${evil.address().port}/`);
      const got = await other.run(async (origin) => {
        const plain = await fetch(`${origin}/api/rows`, { credentials: "include" }).then((answer) => answer.text(), () => "refused");
        await fetch(`${origin}/api/rows`, { credentials: "include", mode: "no-cors" }).catch(() => {});
        await fetch(`${origin}/api/open`, { credentials: "include", mode: "no-cors", method: "POST", body: "x" }).catch(() => {});
        await new Promise((resolve) => {
          const script = document.createElement("script");
          script.src = `${origin}/main.js`;
          script.onload = script.onerror = resolve;
          document.head.append(script);
        });
        return plain;
      }, site.origin);
      assert.equal(got, "refused");
    }
    assert.ok(statuses.every((status) => status === 403), String(statuses));
    evil.close();
    await other.close();
    await page.front();
    const elsewhere = await start(["tap", "--listen", "127.0.0.1:0", "--to", broker.found[0], "--web", "127.0.0.2:0"], /(http:\/\/127\.0\.0\.2:\S+token=\S+)/, "a tap at another address of loopback");
    assert.equal((await fetch(elsewhere.found[1])).status, 200);
  },

  async "on a full disk the page stays, and says what is missing"() {
    // As on a full disk: files may have so many blocks of 1,024 bytes.
    const path = join(folder, "full.pcap");
    writeCapture(path, 50_000);
    const command = `trap "" XFSZ; ulimit -f 2000; exec "$0" tap --replay "$1" --web 127.0.0.1:0`;
    const limited = await start(["-c", command, binary, path], /(http:\S+token=\S+)/, "the tap", "bash");
    const other = await browser.page();
    await other.look({ width: 1280 });
    await other.open(limited.found[1]);
    await other.until("it to say so", () => /[1-9][\d,]* observations.* more not kept: the temporary file cannot be written: File too large/.test(document.querySelector("#status").textContent));
    await row(/frames, folded: SEND/, other);
    assert.deepEqual(other.problems, []);
    await other.close();
    await page.front();
  },

  async "a million frames stay responsive"() {
    const path = join(folder, "many.pcap");
    writeCapture(path, SENDS);
    const { root } = await page.send("DOM.getDocument");
    const { nodeId } = await page.send("DOM.querySelector", { nodeId: root.nodeId, selector: "#file" });
    await watchKeys(page);
    const began = Date.now();
    await page.send("DOM.setFileInputFiles", { nodeId, files: [path] });
    // It is read while the page is used.
    await until("the first frames", async () => /[1-9]\d*,\d{3} observations/.test(await page.text("#status")));
    await page.click("#list");
    for (const key of ["Home", "ArrowDown", "ArrowDown", "3", "1", "PageDown"]) await page.press(key);
    await until("all to be read", async () => /^1,000,0\d\d observations/.test(await page.text("#status")) && !/reading/.test(await page.text("#status")), 80_000);
    console.log(`     read in ${((Date.now() - began) / 1000).toFixed(1)} s`);
    assert.match(await page.text("#status"), /2 errors/);
    await page.press("u");
    for (const key of ["End", "Home", "PageDown", "PageDown", "ArrowDown", "r", "End", "ArrowUp", "r", "[", "3", "2", "u", "End", "ArrowUp", "Enter", "PageDown", "e", "e"]) {
      await page.press(key);
      await new Promise((resolve) => setTimeout(resolve, 60));
    }
    await page.press("/");
    await page.type("receipt many");
    await until("a million filtered", async () => {
      const seen = await rows();
      const other = seen.find((text) => !/SEND_RECEIPT/.test(text));
      if (other) throw new Error(other);
      return seen.length > 0;
    });
    await page.press("Escape");
    await page.press("Escape");
    await page.press("]");
    await checkKeys(page, "input to paint", 30);
    const memory = Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${tap.child.pid}/status`, "utf8"))[1]);
    console.log(`     memory of the tap: ${Math.round(memory / 1024)} MiB at most`);
    assert.ok(memory < MEMORY_KB_MAX);
    assert.equal(await page.run(() => document.title), "Pulsar tap");
  },

  async "a recording is read within bounds, from the command line and dropped"() {
    const path = process.env.WEB_TEST_RECORDING ?? join(folder, "small.pcap");
    if (!process.env.WEB_TEST_RECORDING) writeCapture(path, SMALL_SENDS, SMALL_BYTES);
    for (const isDropped of [false, true]) {
      const source = isDropped ? ["--listen", "127.0.0.1:0", "--to", broker.found[0]] : ["--replay", path];
      const began = Date.now();
      const opened = await start(["tap", ...source, "--web", "127.0.0.1:0"], /(http:\S+token=\S+)/, "the tap");
      const other = await browser.page();
      await other.look({ width: 1280 });
      await other.open(opened.found[1]);
      await checkReading({ page: other, browser, pid: opened.child.pid, path, isDropped, began });
      assert.deepEqual(other.problems, []);
      opened.child.kill();
      await other.close();
    }
    await page.front();
  },

  async "a recording is shown from the command line"() {
    const path = join(folder, "few.pcap");
    writeCapture(path, 3);
    const replay = await start(["tap", "--replay", path, "--web", "127.0.0.1:0"], /(http:\S+token=\S+)/, "the replay");
    const other = await browser.page();
    await other.look({ width: 360 });
    await other.open(replay.found[1]);
    await row(/^violation ReceiptWithoutSend: the broker broke a rule/, other);
    assert.match(await other.text("#title"), /few\.pcap/);
    // One that is damaged: what is whole of it, and where it ends.
    const cut = join(folder, "cut.pcap");
    writeFileSync(cut, readFileSync(path).subarray(0, -10));
    const damaged = await start(["tap", "--replay", cut, "--web", "127.0.0.1:0"], /(http:\S+token=\S+)/, "the replay");
    await other.open(damaged.found[1]);
    await other.until("it to say so", () => /^1\d observations.* the capture ends within a packet/.test(document.querySelector("#status").textContent));
    assert.doesNotMatch(await other.text("#status"), /reading/);
    assert.deepEqual(other.problems, []);
    await other.close();
  },
};

/** Complaints of the browser that a test means to make. */
const isMeant = (problem) => /403|421/.test(problem);

let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  if (!name.includes(filter) && name !== Object.keys(tests)[0]) continue;
  const began = Date.now();
  try {
    page.problems.length = 0;
    await test();
    assert.deepEqual(page.problems.filter((problem) => !isMeant(problem)), []);
    console.log(`ok   ${name} (${Date.now() - began} ms)`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${name}: ${error.stack}`);
    const picture = join(tmpdir(), `web-test-failed-${failed}.png`);
    writeFileSync(picture, await page.picture());
    console.log(`     ${picture}; problems: ${JSON.stringify(page.problems)}; rows: ${JSON.stringify((await rows().catch(() => [])).slice(0, 12), null, 1)}`);
  }
}
await browser.stop();
started.forEach((child) => child.kill());
rmSync(folder, { recursive: true, force: true });
process.exitCode = failed ? 1 : 0;
