// One frame: what it says, what it belongs to, and its bytes beside its fields.

import { chapterLink } from "./book.js";
import { h, tell } from "./dom.js";
import { server } from "./server.js";
import { view } from "./state.js";
import { GUIDE, clean, clock, family, plural, sentence, size, took } from "./words.js";

/** Bytes that are shown at first. */
const BYTES_SHOWN = 1024;

/** `go(n)` shows another observation. */
export async function frameView(panel, n, go) {
  const payload = panel.dataset.payload === String(n);
  const source = view.source;
  const [{ record, frame }, life] = await Promise.all([server.frame(source, n, payload), server.life(source, n)]);
  if (view.n !== n) return;
  panel.replaceChildren(
    head(record, frame),
    facts(record),
    relations(record, go),
    life.length > 1 ? lifeOf(life, n, go) : "",
    chapter(frame?.rule ?? record.chapter),
    ...(frame ? bytesAndFields(panel, record, frame, payload, () => frameView(panel, n, go)) : []),
  );
}

function head(record, frame) {
  const name = record.command ?? { violation: record.rule, opened: "Connection opened", closed: "Connection closed" }[record.event] ?? record.event;
  return h(
    "header.frame-head",
    { class: `frame-head of-${family(record)}` },
    h("h2", {}, name, " ", h("span.number", {}, `no. ${record.n}`)),
    frame?.phrase ? h("p.phrase", {}, `${frame.phrase[0].toUpperCase()}${frame.phrase.slice(1)}.`) : "",
    h("p.said-here", {}, sentence(record)),
    h("details.meaning", {}, h("summary", {}, "What is that?"), h("p", {}, GUIDE.find(([of]) => of === family(record))?.[2] ?? "")),
  );
}

function facts(record) {
  const ledger = record.ledger;
  const pairs = [
    ["way", record.event === "frame" ? (record.up ? "client → broker" : "broker → client") : null],
    ["connection", `#${record.connection}`],
    ["at", `${clock(record.at)} s`],
    ["size", record.size !== undefined ? size(record.size) : null],
    ["endpoint", record.endpoint],
    ["topic", record.topic],
    ["key", record.key],
    ["properties", record.properties?.map((pair) => pair.join("=")).join(", ")],
    ["took", record.answers ? took(record.answers.micros) : null],
    ["permits left", ledger?.permits],
    ["unacknowledged", ledger?.unacknowledged],
    ["pending sends", ledger?.pending],
  ].filter(([, value]) => value !== undefined && value !== null);
  return h("dl.facts", {}, pairs.map(([name, value]) => h("div", { class: ["topic", "properties"].includes(name) ? "wide" : null }, h("dt", {}, name), h("dd", {}, clean(value)))));
}

const BEFORE = { answers: "answers", acknowledges: "acknowledges", returns: "wants again", asked: "because of", again: "delivered before by" };

function relations(record, go) {
  const links = [];
  const link = (text, n) => links.push(h("button.jump", { type: "button", onclick: () => go(n), "data-n": n }, `${text} no. ${n}`));
  if (record.before) link(`← ${BEFORE[record.before.why]}`, record.before.n);
  if (record.after !== undefined) {
    const text = record.command === "SEND" ? "its receipt is" : record.command === "MESSAGE" ? "followed by" : record.command?.startsWith("REDELIVER") ? "delivered again by" : "answered by";
    link(`→ ${text}`, record.after);
  }
  return links.length ? h("p.relations", {}, links) : "";
}

const STEPS = { SEND: "sent", SEND_RECEIPT: "stored", MESSAGE: "delivered", ACK: "acknowledged", ACK_RESPONSE: "confirmed", REDELIVER_UNACKNOWLEDGED_MESSAGES: "asked for again" };

/** The life of a message: each step one click away. */
function lifeOf(steps, n, go) {
  const item = (step) => {
    const name = step.redelivered || step.before?.why === "asked" || step.before?.why === "again" ? "delivered again" : STEPS[step.command] ?? step.command;
    const current = step.n === n ? "step" : null;
    return h("li", { class: `of-${family(step)}` }, h("button", { type: "button", "aria-current": current, onclick: () => go(step.n) }, h("b", {}, name), ` ${step.command.split("_").slice(0, 2).join("_")} · ${clock(step.at)} s`));
  };
  const id = steps.find((step) => step.id)?.id ?? "";
  return h("section.life", { "aria-label": "Life of this message" }, h("h3", {}, `Life of message ${clean(id)}`), h("ol", {}, steps.map(item)));
}

/** `chapter 6: flow`, of `docs/protocol/06-flow.md#message`. */
function chapterName(path) {
  const [, number, name] = /(\d+)-([^/]+)\.md/.exec(path) ?? [];
  return name ? `chapter ${Number(number)}: ${name.replaceAll("-", " ")}` : "";
}

function chapter(path) {
  if (!path) return "";
  return h("p", {}, h("a.chapter", { href: chapterLink(path), target: "_blank" }, "Read about it in the book"), " ", h("small", {}, chapterName(path)));
}

function bytesAndFields(panel, record, frame, payload, again) {
  const lines = frame.lines;
  const isSecret = lines.some((line) => line.value?.secret_size !== undefined);
  const hidden = lines.some((line) => line.value?.hidden > 0);
  const show = () => {
    panel.dataset.payload = payload ? "" : String(record.n);
    again();
  };
  const hex = async () => {
    const whole = payload ? frame : (await server.frame(view.source, record.n, true)).frame;
    return whole.lines.filter((line) => line.content === null).map((line) => line.hex).join("");
  };
  const copy = (what, make) => async () => {
    if (isSecret && what !== "JSON") return tell("This frame holds a credential: its bytes are not given.");
    await navigator.clipboard.writeText(await make()).then(() => tell(`Copied ${what}.`), () => tell("The browser did not allow to copy."));
  };
  const tools = h(
    "p.tools",
    { role: "group", "aria-label": "Copy" },
    h("button", { type: "button", "data-copy": "hex", onclick: copy("hex", hex) }, "Copy hex"),
    h("button", { type: "button", "data-copy": "json", onclick: copy("JSON", async () => JSON.stringify({ record, frame }, null, 1)) }, "Copy JSON"),
    h("button", { type: "button", "data-copy": "command", onclick: copy("command", async () => `pulsar-native explain ${await hex()}`) }, "Copy explain command"),
    hidden || payload ? h("button", { type: "button", "data-copy": "payload", "aria-pressed": String(payload), onclick: show }, payload ? "Hide payload" : "Show payload") : "",
  );
  const fields = h("ol.fields", { "aria-label": "Fields" }, lines.map((line, index) => field(line, index)));
  const bytes = bytesOf(lines);
  const both = h("div.both", {}, h("section", { "aria-label": "Bytes" }, h("h3", {}, "Bytes"), bytes), h("section", {}, h("h3", {}, "Fields"), fields));
  pair(both);
  return [tools, both, frame.left_out ? h("p", {}, `${plural(frame.left_out, "field")} more`) : ""];
}

function value(line) {
  const of = line.value;
  if (of === null) return "";
  if (typeof of !== "object") return typeof of === "string" && line.wire_type === "length" ? JSON.stringify(of) : String(of);
  if (of.secret_size !== undefined) return `•••• (${size(of.secret_size)}, a credential: never shown)`;
  if (of.hidden !== undefined) return `•••• (${size(of.hidden)}, hidden)`;
  if (of.name !== undefined) return `${of.name ?? "unknown"} (${of.number})`;
  if (of.message !== undefined) return `${of.message}, ${size(of.size)}`;
  if (of.packed_size !== undefined) return `packed, ${size(of.packed_size)}`;
  return bytesAsText(of.hex);
}

function bytesAsText(hex) {
  const bytes = Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
  try {
    return JSON.stringify(new TextDecoder("utf-8", { fatal: true }).decode(bytes.slice(0, 400))) + (bytes.length > 400 ? "…" : "");
  } catch {
    return size(bytes.length);
  }
}

function field(line, index) {
  const name = line.path.split(".").pop();
  const item = h(
    "li.field",
    { "data-line": index, tabindex: index ? -1 : 0, title: line.path },
    h("b", {}, clean(name)),
    h("span.value", {}, clean(value(line))),
    line.rule ? h("a.rule", { href: chapterLink(line.rule), target: "_blank", tabindex: -1, "aria-label": `the book on ${name}` }, "§") : "",
    line.meaning ? h("small", {}, clean(line.meaning)) : "",
    line.problem ? h("strong", {}, `broken here: expected ${clean(line.problem.expected)}`) : "",
  );
  item.style.paddingInlineStart = `${10 + 14 * line.depth}px`;
  return item;
}

/** Bytes in groups of the line that they belong to. Hidden ones are dots. */
function bytesOf(lines) {
  const out = h("div.bytes", { role: "img", "aria-label": "The bytes of the frame in hexadecimal; the fields say what they mean" });
  let left = BYTES_SHOWN;
  let content = null;
  for (const [index, line] of lines.entries()) {
    if (line.content !== content) {
      content = line.content;
      out.append(h("p", {}, "in the opened payload:"));
    }
    const pairs = line.hex === null ? Array.from({ length: Math.min(line.size, 32) }, () => "··") : line.hex.match(/../g) ?? [];
    if (!pairs.length) continue;
    out.append(h("span", { "data-line": index }, pairs.slice(0, left).join(" ")), " ");
    left -= pairs.length;
    if (left <= 0) {
      out.append(h("p", {}, `the first ${BYTES_SHOWN} bytes; all of them are in “Copy hex”`));
      break;
    }
  }
  return out;
}

/** Hover or focus one, see the other. */
function pair(both) {
  const mark = (line, isFromBytes) => {
    for (const element of both.querySelectorAll(".is-marked")) element.classList.remove("is-marked");
    if (line === undefined) return;
    for (const element of both.querySelectorAll(`[data-line="${line}"]`)) {
      element.classList.add("is-marked");
      if (isFromBytes && element.matches(".field")) element.scrollIntoView({ block: "nearest" });
    }
  };
  const line = (event) => event.target.closest?.("[data-line]")?.dataset.line;
  both.addEventListener("pointerover", (event) => mark(line(event), Boolean(event.target.closest(".bytes"))));
  both.addEventListener("pointerleave", () => mark(undefined));
  both.addEventListener("focusin", (event) => mark(line(event), false));
  both.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const fields = [...both.querySelectorAll(".field")];
    const at = fields.indexOf(event.target);
    if (!by || at < 0) return;
    event.preventDefault();
    event.stopPropagation();
    const next = fields[Math.max(0, Math.min(fields.length - 1, at + by))];
    fields[at].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}
