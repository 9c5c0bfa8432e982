// Time: how many frames, and what stood open between the two sides. All charts share the axis, and the span that is chosen.

import { h } from "./dom.js";
import { server } from "./server.js";
import { look, view } from "./state.js";
import { LEDGER_WORDS, clean, grouped, plural, shortTopic, took } from "./words.js";

/** The units of a chart. */
const [WIDTH, HEIGHT] = [240, 40];

/** The colours of the charts. */
const FAMILY = { permits: "flow", queue: "lookup", unacknowledged: "receive" };

/** The microseconds that the axis shows. */
let axis = 1;
let ledgers = null;

export async function loadLedgers(state) {
  const source = view.source;
  const loaded = await server.ledgers(source);
  if (source !== view.source) return false;
  ledgers = loaded;
  axis = Math.max(1, state.last);
  return true;
}

const x = (micros) => (WIDTH * micros) / axis;
const bucket = (index) => x(index * ledgers.width);

function chart(name, description, ...children) {
  const svg = h("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": description, "data-chart": name }, ...children);
  if (view.span) {
    const [from, until] = view.span;
    svg.append(h("rect.span", { x: x(from), y: 0, width: Math.max(1, x(until) - x(from)), height: HEIGHT }));
  }
  return svg;
}

function bars(counts, most, className) {
  const width = Math.max(0.6, bucket(1) - 0.15);
  return counts.map((count, index) => {
    if (!count) return null;
    const height = Math.max(2, (HEIGHT * count) / most);
    return h(`rect.${className}`, { x: Math.min(bucket(index), WIDTH - width), y: HEIGHT - height, width, height });
  });
}

/** The strip over the diagram. */
export function drawTimeline(section, at) {
  if (!ledgers) return;
  const { frames, errors } = ledgers;
  const most = Math.max(1, ...frames);
  const sum = frames.reduce((a, b) => a + b, 0);
  const failed = errors.reduce((a, b) => a + b, 0);
  const description = `${plural(sum, "observation")} in ${took(axis)}, ${plural(failed, "error")}. Drag to choose a span.`;
  const svg = chart("timeline", description, bars(frames, most, "bar"), bars(errors, most, "bad"), cursor(at));
  const [unit, name] = axis < 1e6 ? [1e3, "ms"] : [1e6, "s"];
  const ticks = (sum ? [0, 0.25, 0.5, 0.75, 1] : []).map((part) => h("span", {}, `${((axis * part) / unit).toFixed(axis < 20 * unit ? 1 : 0)} ${name}`));
  section.replaceChildren(svg, h("div.ticks", { "aria-hidden": "true" }, ticks));
}

/** The time of the selected row; beside the chart where there is none. */
const cursor = (at) => h("line.cursor", { x1: x(at ?? -axis), x2: x(at ?? -axis), y1: 0, y2: HEIGHT });

export function moveCursors(at) {
  for (const line of document.querySelectorAll("line.cursor")) {
    line.setAttribute("x1", x(at ?? -axis));
    line.setAttribute("x2", x(at ?? -axis));
  }
}

function line(of, at) {
  const known = of.most.map((most, index) => ({ index, most, least: of.least[index], last: of.last[index] })).filter((point) => point.most !== null);
  const most = Math.max(1, ...known.map((point) => point.most));
  const y = (value) => HEIGHT - 2 - ((HEIGHT - 4) * Math.max(0, value)) / most;
  let path = "";
  for (const point of known) {
    // A value stands until the next one.
    path += path ? `H${bucket(point.index).toFixed(2)}` : `M${bucket(point.index).toFixed(2)},${y(point.least).toFixed(2)}`;
    path += `V${y(point.least).toFixed(2)}V${y(point.most).toFixed(2)}V${y(point.last).toFixed(2)}`;
  }
  if (path) path += `H${WIDTH}`;
  const last = known.at(-1)?.last ?? 0;
  const text = (value) => (of.unit === "µs" ? took(value) : grouped(value));
  const figures = `last ${text(last)}, most ${text(most === 1 && !last ? Math.max(0, ...known.map((point) => point.most)) : most)}`;
  return h(
    "figure",
    { class: `chart of-${FAMILY[of.name] ?? "send"}` },
    h("figcaption", {}, h("b", {}, of.name), " ", h("span.figures", {}, figures), h("small", {}, LEDGER_WORDS[of.name])),
    chart(of.name, `${of.name}: ${figures}`, h("path.line", { d: path || "M0,0" }), cursor(at)),
  );
}

export function ledgersView(panel, at, filter) {
  if (!ledgers) return;
  const { endpoints } = ledgers;
  const card = (endpoint) => {
    const name = `${endpoint.endpoint} · #${endpoint.connection}`;
    const words = `#${endpoint.connection} ${endpoint.endpoint}`;
    return h(
      "section.ledger",
      { "aria-label": name },
      h("h3", {}, name, " ", h("button.jump", { type: "button", onclick: () => filter(words) }, "show its frames")),
      h("p.where", {}, endpoint.topic ? shortTopic(endpoint.topic) : ""),
      endpoint.lines.map((of) => line(of, at)),
    );
  };
  const note = h("p.note", {}, "What stands open between the two sides, over time. Drag over a chart to choose a span: the diagram shows its frames.");
  panel.replaceChildren(h("h2", {}, "Ledgers"), note, ...(endpoints.length ? endpoints.map(card) : [h("p", {}, "No producer or consumer yet.")]));
}

/** Dragging over a chart chooses a span; a click that does not move takes it back. */
export function chooseSpans(element) {
  let from = null;
  const micros = (event, svg) => {
    const box = svg.getBoundingClientRect();
    return Math.max(0, Math.min(axis, (axis * (event.clientX - box.left)) / box.width));
  };
  element.addEventListener("pointerdown", (event) => {
    const svg = event.target.closest("svg[data-chart]");
    if (!svg || event.button) return;
    from = { svg, at: micros(event, svg), x: event.clientX };
    event.preventDefault();
  });
  addEventListener("pointermove", (event) => {
    if (!from) return;
    const [a, b] = [from.at, micros(event, from.svg)].sort((a, b) => a - b);
    let mark = from.svg.querySelector(".choosing");
    if (!mark) from.svg.append((mark = h("rect.choosing", { y: 0, height: HEIGHT })));
    mark.setAttribute("x", x(a));
    mark.setAttribute("width", Math.max(0.5, x(b) - x(a)));
  });
  addEventListener("pointerup", (event) => {
    if (!from) return;
    const { svg, at, x: left } = from;
    from = null;
    svg.querySelector(".choosing")?.remove();
    const span = [at, micros(event, svg)].sort((a, b) => a - b);
    look({ span: Math.abs(event.clientX - left) < 4 ? null : span });
  });
}
