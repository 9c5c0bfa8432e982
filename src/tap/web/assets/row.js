// One row of the diagram.

import { h } from "./dom.js";
import { aside, clean, clock, family, grouped, plural, sentence, took } from "./words.js";

/** An arrow that is shorter has no room for its text, per cent of the width. */
const SHORT = 45;

/** Where the lanes of a connection are, per cent of the width; `places(connection)` gives those of client and broker. */
function arrow(record, places, label) {
  const [client, broker] = places(record.connection);
  const line = h(`span.arrow${record.up === broker >= client ? ".right" : ".left"}`, {}, h("span.label", {}, label));
  return put(line, client, broker);
}

/** From lane to lane. Between near ones a text goes on over the lanes at the left. */
function put(element, client, broker) {
  const [left, right] = [Math.min(client, broker), Math.max(client, broker)];
  element.style.left = `${left}%`;
  element.style.width = `${right - left}%`;
  element.classList.toggle("is-short", right - left < SHORT);
  element.style.setProperty("--from-right", `${100 - right}%`);
  element.style.setProperty("--reach", `${(100 * right) / (right - left)}%`);
  return element;
}

function lanesOf(record, places) {
  if (record.event === "frame") return arrow(record, places, record.command);
  if (record.event === "run") {
    const parts = record.parts.slice(0, 3).map((part) => `${part.up ? "→" : "←"} ${part.command} ×${grouped(part.count)}`);
    const more = record.parts.length > 3 ? ` +${record.parts.length - 3}` : "";
    return h("span.fold", {}, parts.join("  ") + more);
  }
  const label = { opened: "connected", closed: record.reset ? "reset" : "closed", violation: `✖ ${record.rule}` }[record.event] ?? record.event;
  return put(h("span.band", {}, label), ...places(record.connection));
}

/** What a screen reader says of it. */
function spoken(record) {
  const head = record.event === "frame" ? `${record.command} ${record.up ? "to the broker" : "to the client"}, connection ${record.connection}` : [record.event, record.rule].filter(Boolean).join(" ");
  const ends = record.answers ? `, after ${took(record.answers.micros)}` : "";
  const more = aside(record);
  return `${head}: ${sentence(record)}${more ? `, ${more}` : ""}${ends}`;
}

/** `item` has the record, whether it is `isSelected`, `isInner` (in an unfolded run), `isUnfolded`, and its `position`. */
export function row(item, places) {
  const { record } = item;
  const parts = record.parts?.map((part) => `${part.command} ×${part.count}`).join(", ");
  const isOne = record.event === "frame" || record.event === "violation";
  const where = [places.isShared && isOne ? `#${record.connection}` : "", aside(record)].filter(Boolean).join(" · ");
  const mark = record.event === "run" ? (item.isUnfolded ? "▾ " : "▸ ") : "";
  const compact = record.event === "frame" ? `${record.up ? "→" : "←"} ${record.command}` : record.event === "run" ? parts : (record.rule ?? record.event);
  const element = h(
    "div.row",
    {
      id: `row-${item.key}`,
      role: "option",
      "aria-selected": String(item.isSelected),
      "aria-posinset": item.position + 1,
      "aria-label": parts ? `${plural(record.count, "frame")}, folded: ${parts}` : spoken(record),
      "data-n": record.n,
      "data-index": item.position,
      title: [sentence(record), where, record.topic && clean(record.topic)].filter(Boolean).join("\n"),
    },
    h("span.time", {}, clock(record.at), h("span.number", {}, `${record.n}`)),
    h("span.arrows", {}, lanesOf(record, places)),
    h("span.what", {}, h("span.compact", {}, compact), h(`span.sentence${where ? "" : ".long"}`, {}, mark + sentence(record)), where && h("span.where", {}, where)),
    h("span.took", {}, record.answers ? took(record.answers.micros) : ""),
  );
  element.classList.add(`is-${record.event}`, `of-${family(record)}`);
  element.classList.toggle("is-selected", item.isSelected);
  element.classList.toggle("is-related", item.isRelated);
  element.classList.toggle("is-inner", item.isInner);
  return element;
}
