// The page: what is where, and what a click does.

import { byId, h, tell } from "./dom.js";
import { diagram } from "./diagram.js";
import { frameView } from "./frame.js";
import { helpDialog, listen } from "./keys.js";
import { chooseSpans, drawTimeline, ledgersView, loadLedgers, moveCursors } from "./ledgers.js";
import { server } from "./server.js";
import { look, onView, start, view } from "./state.js";
import { GUIDE, clock, plural } from "./words.js";

/** The time between two pictures of the ledgers while frames come, milliseconds. */
const LEDGERS_PAUSE = 1000;

/** How long a person who types a filter pauses before it is used, milliseconds. */
const TYPING_PAUSE = 150;

const panel = byId("panel");
let state = { total: 0, connections: [], last: 0, errors: 0, read: 100 };
let ledgersAt = 0;
let laterTime;
let drawnTab = "";
/** How much of the observations a filter has looked at, while it does. */
let searched = null;

/** Asks for news for ever; a server that has gone is asked again. What is asked for another source is taken back. */
let asking = new AbortController();
async function watch() {
  let since = null;
  for (;;) {
    const { signal } = asking;
    try {
      const news = await server.news(view.source, since, signal);
      since = news.news;
      document.body.classList.remove("is-lost");
      await take(news);
    } catch (error) {
      since = null;
      if (signal.aborted) continue;
      document.body.classList.add("is-lost");
      byId("status").textContent = error instanceof TypeError ? "The tap has ended: this is what was loaded." : error.message;
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

async function take(news) {
  const isMore = news.total !== state.total || news.last !== state.last;
  state = news;
  showStatus();
  await diagram.news(state);
  if (isMore || !ledgersAt) await showTime();
}

function showStatus() {
  const parts = [plural(state.total, "observation"), plural(state.connections.length, "connection")];
  if (state.read < 100) parts.push(`reading, ${state.read} %`);
  if (searched !== null) parts.push(`searching, ${Math.floor(searched * 100)} %`);
  if (state.full) parts.push(`${plural(state.left_out, "more", "more")} not kept: ${state.full}`);
  if (state.ended) parts.push(state.ended);
  const errors = h("b", { class: state.errors ? "bad" : "good" }, state.errors ? plural(state.errors, "error") : "no errors");
  byId("status").replaceChildren(`${parts.join(" · ")} · `, errors);
  byId("title").textContent = view.source === "dropped" ? "a recording from this page" : state.title ?? "";
  byId("empty").textContent = emptyText();
}

/** What stands where there are no rows. */
function emptyText() {
  if (view.words || view.errors || view.span) return searched === null ? "Nothing fits the filter. Esc takes it back." : "Searching…";
  if (state.read < 100) return "Reading…";
  if (state.ended) return state.ended;
  const [, url] = /^(pulsar\S*) to /.exec(state.title ?? "") ?? [];
  return `Nothing yet. Point a client at the tap${url ? `: its service URL is ${url}` : ""}. Or drop a recording (pcap, pcapng) here.`;
}

async function showTime() {
  const wait = ledgersAt + LEDGERS_PAUSE - performance.now();
  clearTimeout(laterTime);
  if (wait > 0 && state.total > 2000) {
    laterTime = setTimeout(showTime, wait);
    return;
  }
  ledgersAt = performance.now();
  if (await loadLedgers(state)) drawTime();
}

function drawTime() {
  const at = diagram.find(view.n)?.at;
  drawTimeline(byId("timeline"), at);
  if (view.tab === "ledgers") ledgersView(panel, at, (words) => look({ words }));
}

function guide() {
  const entry = ([family, name, text]) => h("section", { class: `entry of-${family}` }, h("h3", {}, name), h("p", {}, text));
  return [
    h("h2", {}, "How to read this"),
    h("p", {}, "A client at the left and a broker at the right send each other frames: each row is one, with its number, and what it means. Time goes down. Choose a row: what belongs to it is marked, and Frame shows all that is in it."),
    ...GUIDE.map(entry),
    h("p.note", {}, "Credentials are never shown, payloads only where you ask for it. Press ? for the keyboard."),
  ];
}

async function showPanel() {
  for (const tab of ["guide", "frame", "ledgers"]) byId(`tab-${tab}`).setAttribute("aria-selected", String(view.tab === tab));
  panel.setAttribute("aria-labelledby", `tab-${view.tab}`);
  document.body.classList.toggle("has-details", view.tab !== "guide" || drawnTab !== "");
  const key = `${view.tab} ${view.tab === "frame" ? view.n : ""}`;
  if (key === drawnTab) return;
  drawnTab = key;
  if (view.tab !== "frame") panel.scrollTop = 0;
  if (view.tab === "guide") panel.replaceChildren(...guide());
  else if (view.tab === "ledgers") drawTime();
  else if (view.n === null) panel.replaceChildren(h("p", {}, "Choose a row."));
  else await frameView(panel, view.n, (n) => diagram.go(n)).catch((error) => panel.replaceChildren(h("p", {}, error.message)));
}

function showFilter() {
  const words = byId("words");
  if (words.value !== view.words && document.activeElement !== words) words.value = view.words;
  byId("errors").setAttribute("aria-pressed", String(view.errors));
  byId("fold").setAttribute("aria-pressed", String(view.fold));
  const span = byId("span");
  span.hidden = !view.span;
  if (view.span) span.textContent = `${clock(view.span[0])} to ${clock(view.span[1])} s ✕`;
}

/** The next observation that is an error, or the one before. */
async function goToError(by) {
  const from = view.n ?? (by > 0 ? -1 : state.total);
  const errors = { ...view, errors: true, fold: false };
  const answer = await server.rowsAround(errors, Math.max(0, from), 40);
  const found = by > 0 ? answer.rows.find((row) => row.n > from) : answer.rows.filter((row) => row.n < from).pop();
  if (found) diagram.go(found.n);
  else tell("No more errors this way.");
}

/** Half a quarter of the time on each side of the row. */
function zoom(isIn) {
  if (!isIn) return look({ span: null });
  const at = diagram.find(view.n)?.at;
  if (at === undefined) return tell("Choose a row first.");
  const width = view.span ? view.span[1] - view.span[0] : state.last;
  look({ span: [Math.max(0, at - width / 8), Math.min(state.last, at + width / 8)] });
}

function goToRelated() {
  const record = diagram.find(view.n);
  const next = record?.after ?? record?.before?.n;
  if (next === undefined) tell("Nothing belongs to this one.");
  else diagram.go(next);
}

async function open(file) {
  if (!file) return;
  byId("status").textContent = `Reading ${file.name}…`;
  const opening = server.open(file);
  look({ source: null });
  // The server has begun to read when it is asked next.
  await new Promise((resolve) => setTimeout(resolve, 100));
  look({ source: "dropped", words: "", errors: false, span: null, n: null, top: null, tab: "guide" });
  await opening.catch((error) => tell(error.message));
}

const press = (selector) => () => panel.querySelector(selector)?.click();
const toggleFollow = () => diagram.follow(!diagram.isFollowing());

/** Takes the filter as it is typed by now. */
let typing;
function useWords() {
  clearTimeout(typing);
  look({ words: byId("words").value });
}

function escape() {
  if (document.activeElement === byId("words")) useWords();
  if (panel.contains(document.activeElement) || document.activeElement.matches("input")) byId("list").focus();
  else if (view.words || view.errors || view.span) look({ words: "", errors: false, span: null });
  else closePanel();
}

function closePanel() {
  drawnTab = "";
  look({ n: null, tab: "guide" });
  showPanel();
  document.body.classList.remove("has-details");
  byId("list").focus();
}

/** On a phone details hide the rows: the keyboard moves on without them, and Enter opens them. */
const browse = (move) => () => {
  const isOpen = document.body.classList.contains("has-details");
  move();
  document.body.classList.toggle("has-details", isOpen);
};

function enter() {
  if (byId("list").querySelector(".is-selected.is-run")) return diagram.enter();
  document.body.classList.add("has-details");
  panel.querySelector(".field")?.focus();
}

listen({
  ArrowDown: browse(() => diagram.move(1)),
  ArrowUp: browse(() => diagram.move(-1)),
  j: browse(() => diagram.move(1)),
  k: browse(() => diagram.move(-1)),
  PageDown: browse(() => diagram.page(1)),
  PageUp: browse(() => diagram.page(-1)),
  Home: browse(() => diagram.edge(false)),
  End: browse(() => diagram.edge(true)),
  Enter: enter,
  r: goToRelated,
  "[": () => goToError(-1),
  "]": () => goToError(1),
  "/": () => byId("words").select(),
  e: () => look({ errors: !view.errors }),
  u: () => look({ fold: !view.fold }),
  " ": toggleFollow,
  "+": () => zoom(true),
  "-": () => zoom(false),
  1: () => look({ tab: "guide" }),
  2: () => look({ tab: "frame" }),
  3: () => look({ tab: "ledgers" }),
  c: press("[data-copy=hex]"),
  y: press("[data-copy=json]"),
  x: press("[data-copy=command]"),
  p: press("[data-copy=payload]"),
  b: press(".chapter"),
  o: () => byId("file").click(),
  "?": helpDialog,
  Escape: escape,
});

start();
byId("words").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(useWords, TYPING_PAUSE);
});
byId("words").addEventListener("change", useWords);
byId("words").form.addEventListener("submit", (event) => event.preventDefault());
byId("errors").addEventListener("click", () => look({ errors: !view.errors }));
byId("fold").addEventListener("click", () => look({ fold: !view.fold }));
byId("span").addEventListener("click", () => look({ span: null }));
byId("follow").addEventListener("click", toggleFollow);
byId("help").addEventListener("click", helpDialog);
byId("open").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", (event) => open(event.target.files[0]));
byId("close").addEventListener("click", closePanel);
byId("details").addEventListener("click", () => document.body.classList.add("has-details"));
for (const tab of ["guide", "frame", "ledgers"]) byId(`tab-${tab}`).addEventListener("click", () => look({ tab }));
diagram.onSearch((part) => {
  if (part === searched) return;
  searched = part;
  showStatus();
});
diagram.onFollow((is) => {
  byId("follow").setAttribute("aria-pressed", String(is));
  byId("follow").textContent = is ? "Following" : "Paused";
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  open(event.dataTransfer.files[0]);
});
chooseSpans(byId("timeline"));
chooseSpans(panel);
onView((changed) => {
  if (changed.has("source")) {
    ledgersAt = 0;
    asking.abort();
    asking = new AbortController();
  }
  showFilter();
  showStatus();
  if (changed.has("tab") || changed.has("n")) showPanel();
  if (changed.has("span")) drawTime();
  else if (changed.has("n")) moveCursors(diagram.find(view.n)?.at);
});
showFilter();
showPanel();
document.body.classList.remove("has-details");
watch();
if (view.n !== null || view.top !== null) {
  diagram.follow(false);
  diagram.restore();
  document.body.classList.toggle("has-details", view.n !== null);
}
