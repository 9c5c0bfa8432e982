// One row of the diagram.

import { h } from "./dom.js";
import { clean, clock, family, plural, sentence, shortTopic, took } from "./words.js";

/** Names that are longer than an arrow. */
const SHORT = { REDELIVER_UNACKNOWLEDGED_MESSAGES: "REDELIVER_UNACK…", PARTITIONED_METADATA_RESPONSE: "PARTITIONED_METADATA_RE…" };

/** Where the lanes of a connection are, per cent of the width; `places(connection)` gives those of client and broker. */
function arrow(record, places, label) {
  const [client, broker] = places(record.connection);
  const left = Math.min(client, broker);
  const line = h(`span.arrow${(record.up ? broker >= client : client > broker) ? ".right" : ".left"}`, {}, h("span.label", {}, label));
  line.style.left = `${left}%`;
  line.style.width = `${Math.abs(broker - client)}%`;
  return line;
}

function lanesOf(record, places) {
  if (record.event === "frame") return arrow(record, places, SHORT[record.command] ?? record.command);
  if (record.event === "run") {
    const parts = record.parts.slice(0, 3).map((part) => `${part.up ? "→" : "←"} ${part.command} ×${part.count.toLocaleString("en")}`);
    const more = record.parts.length > 3 ? ` +${record.parts.length - 3}` : "";
    return h("span.fold", {}, parts.join("  ") + more);
  }
  const label = { opened: "connected", closed: record.reset ? "reset" : "closed", violation: `✖ ${record.rule}` }[record.event] ?? record.event;
  const band = h("span.band", {}, label);
  const [client, broker] = places(record.connection);
  band.style.left = `${Math.min(client, broker)}%`;
  band.style.width = `${Math.abs(broker - client)}%`;
  return band;
}

/** What a screen reader says of it. */
function spoken(record) {
  const head = record.event === "frame" ? `${record.command} ${record.up ? "to the broker" : "to the client"}, connection ${record.connection}` : record.event;
  const ends = record.answers ? `, after ${took(record.answers.micros)}` : "";
  return `${head}: ${sentence(record)}${ends}`;
}

/** `item` has the record, whether it is `isSelected`, `isInner` (in an unfolded run), `isUnfolded`, and its `position`. */
export function row(item, places) {
  const { record } = item;
  const parts = record.parts?.map((part) => `${part.command} ×${part.count}`).join(", ");
  const where = [record.endpoint, record.topic && shortTopic(record.topic)].filter(Boolean).join(" · ");
  const mark = record.event === "run" ? (item.isUnfolded ? "▾ " : "▸ ") : "";
  const compact = record.event === "frame" ? `${record.up ? "→" : "←"} ${record.command}` : record.event === "run" ? parts : record.event;
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
      title: record.topic ? clean(record.topic) : null,
    },
    h("span.time", {}, clock(record.at), h("span.number", {}, `${record.n}`)),
    h("span.arrows", {}, lanesOf(record, places)),
    h("span.what", {}, h("span.compact", {}, compact), h("span.sentence", {}, mark + sentence(record)), where && h("span.where", {}, where)),
    h("span.took", {}, record.answers ? took(record.answers.micros) : ""),
  );
  element.classList.add(`is-${record.event}`, `of-${family(record)}`);
  element.classList.toggle("is-selected", item.isSelected);
  element.classList.toggle("is-related", item.isRelated);
  element.classList.toggle("is-inner", item.isInner);
  return element;
}
