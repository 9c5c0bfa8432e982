// The sequence diagram: rows that exist only while they are in sight, however many there are.

import { byId, h, oncePerFrame } from "./dom.js";
import { row } from "./row.js";
import { server } from "./server.js";
import { look, onView, view } from "./state.js";
import { clean, plural } from "./words.js";

/** Rows of one answer of the server, and answers that are kept. */
const PAGE = 100;
const PAGES_MAX = 30;

/** Browsers have no elements higher than some tens of millions of pixels: beyond this, one pixel of the scroll bar is more rows. */
const HEIGHT_MAX = 8e6;

/** How long the list rests before its place goes into the link, milliseconds. */
const REST = 200;

/** How far down a row its arrow is. */
const ARROW = 0.64;

/** Lanes that there is room for. Of more connections all clients share one, and of more brokers these too. */
const LANES_MAX = 9;
const LANES_MAX_OF_SEVERAL_BROKERS = 5;

const list = byId("list");
const rows = byId("rows");

/** Rows of the server, by page. */
let pages = new Map();
/** Which pages are on their way. */
let asked = new Set();
/** Rows of the server. */
let total = 0;
/** Unfolded runs, in order: the row's index, the run, and its frames by page. */
let unfolded = [];
/** Counts filters, so that an answer for an old one is not taken. */
let generation = 0;
let isFollowing = true;
let connections = [];
let hovered = null;
/** The rows that are drawn, by what they show. */
let elements = new Map();
/** Counts changes of the lanes. */
let layout = 0;
const followers = [];
let onSearch = () => {};

const isNarrow = () => matchMedia("(max-width: 760px)").matches;
const rowHeight = () => (isNarrow() ? 54 : 38);
const length = () => total + unfolded.reduce((sum, run) => sum + run.count, 0);

/** What is at a place of the list: a row of the server, or a frame of an unfolded run. */
function at(position) {
  let before = 0;
  for (const run of unfolded) {
    const first = run.index + before + 1;
    if (position < first) break;
    if (position < first + run.count) return { run, inner: position - first };
    before += run.count;
  }
  return { index: position - before };
}

const positionOf = (index) => index + unfolded.reduce((sum, run) => sum + (run.index < index ? run.count : 0), 0);

function recordAt(position) {
  const { index, run, inner } = at(position);
  const [from, offset] = run ? [run.pages, inner] : [pages, index];
  const page = Math.floor(offset / PAGE);
  if (!from.has(page)) fetchPage(from, page, run);
  return from.get(page)?.[offset % PAGE];
}

async function fetchPage(from, page, run) {
  const key = `${generation} ${run?.n ?? ""} ${page}`;
  if (asked.has(key)) return;
  asked.add(key);
  const mine = generation;
  try {
    const answer = await (run ? server.run(view, run, page * PAGE, PAGE) : server.rows(view, page * PAGE, PAGE));
    if (mine !== generation) return;
    from.set(page, answer.rows);
    if (from.size > PAGES_MAX) from.delete(from.keys().next().value);
    draw();
  } finally {
    asked.delete(key);
  }
}

/** How far down the list is, in rows. */
const scale = () => Math.max(1, (length() * rowHeight()) / HEIGHT_MAX);
const top = () => (list.scrollTop * scale()) / rowHeight();

const draw = oncePerFrame(() => {
  const height = rowHeight();
  const first = Math.max(0, Math.floor(top()) - 2);
  const count = Math.ceil(list.clientHeight / height) + 5;
  const last = Math.min(length(), first + count);
  rows.style.height = `${Math.min(HEIGHT_MAX, length() * height)}px`;
  const related = relatedNumbers();
  const before = elements;
  elements = new Map();
  const ys = new Map();
  for (let position = first; position < last; position += 1) {
    const element = elementAt(position, related, before);
    const y = scale() === 1 ? position * height : list.scrollTop + (position - top()) * height;
    if (!element.classList.contains("is-run")) ys.set(Number(element.dataset.n), y);
    element.style.transform = `translateY(${y}px)`;
    element.style.height = `${height}px`;
    element.setAttribute("aria-setsize", length());
  }
  const drawn = [...elements.values()];
  // What stays where it is, is left alone.
  const isSame = drawn.length === rows.children.length && drawn.every((element, index) => rows.children[index] === element);
  if (!isSame) rows.replaceChildren(...drawn);
  joinRelated(ys, height);
  const selected = rows.querySelector(".is-selected");
  if (selected) list.setAttribute("aria-activedescendant", selected.id);
  else list.removeAttribute("aria-activedescendant");
});

/** The row at a position: the one that was drawn before, if nothing about it has changed. */
function elementAt(position, related, before) {
  const record = recordAt(position);
  const item = record && itemOf(record, position, at(position).run, related);
  const key = item
    ? [generation, item.key, position, layout, record.after, record.count, item.isSelected, item.isRelated, item.isUnfolded].join()
    : `waiting ${position}`;
  const waiting = () => h("div.row.is-waiting", { role: "option", "aria-selected": "false", "aria-label": "loading", "data-index": position }, "…");
  const element = before.get(key) ?? (item ? row(item, places) : waiting());
  elements.set(key, element);
  return element;
}

function itemOf(record, position, run, related) {
  const isRun = record.event === "run";
  return {
    record,
    position,
    key: run ? `${run.n}-${record.n}` : isRun ? `run-${record.n}` : record.n,
    isSelected: record.n === view.n && (isRun || run || !unfolded.some((run) => run.n === record.n)),
    isRelated: related.has(record.n),
    isInner: Boolean(run),
    isUnfolded: isRun && unfolded.some((known) => known.n === record.n),
  };
}

/** A bracket at the client's lane from a row to what belongs to it, as far as both are drawn; `ys` has where rows are, by number. */
function joinRelated(ys, height) {
  const record = find(hovered) ?? find(view.n);
  const from = ys.get(record?.n);
  const lanes = rows.querySelector(".arrows");
  const ends = from === undefined || !lanes.offsetWidth ? [] : [record.before?.n, record.after].map((n) => ys.get(n));
  const brackets = ends.filter((to) => to !== undefined).map((to) => {
    const bracket = h("span.join");
    bracket.style.top = `${Math.min(from, to) + height * ARROW}px`;
    bracket.style.height = `${Math.abs(to - from)}px`;
    bracket.style.left = `${lanes.offsetLeft + (lanes.offsetWidth * places(record.connection)[0]) / 100}px`;
    return bracket;
  });
  byId("joins").replaceChildren(...brackets);
}

/** What belongs to the selected row, or to the one under the pointer. */
function relatedNumbers() {
  const record = find(hovered) ?? find(view.n);
  return new Set(record ? [record.before?.n, record.after] : []);
}

/** A record that was loaded. */
function find(n) {
  if (n === null) return null;
  for (const source of [pages, ...unfolded.map((run) => run.pages)]) {
    for (const page of source.values()) {
      const found = page.find((record) => record.n === n && record.event !== "run");
      if (found) return found;
    }
  }
  return null;
}

/** Where the lanes of a connection are, per cent: clients at the left, brokers at the right. */
let places = () => [12, 88];

function layOut() {
  layout += 1;
  const brokers = [...new Set(connections.map((connection) => connection.broker))];
  const isShared = connections.length + brokers.length > (brokers.length > 1 ? LANES_MAX_OF_SEVERAL_BROKERS : LANES_MAX);
  const ofClients = isShared ? 1 : connections.length;
  const ofBrokers = isShared && brokers.length > LANES_MAX / 2 ? 1 : brokers.length;
  const count = ofClients + ofBrokers;
  const place = (index) => (count < 2 ? 50 : 12 + (76 * index) / (count - 1));
  const client = (index) => place(isShared ? 0 : index);
  const broker = (name) => place(ofClients + (ofBrokers === 1 ? 0 : brokers.indexOf(name)));
  const ofConnection = new Map(connections.map((connection, index) => [connection.connection, [client(index), broker(connection.broker)]]));
  places = (connection) => ofConnection.get(connection) ?? [12, 88];
  places.isShared = isShared;
  drawLanes(Array.from({ length: count }, (_, index) => place(index)));
  const named = (connection, index) =>
    count > 4 ? lane(place(index), `#${connection.connection}`) : lane(place(index), "client", `#${connection.connection} ${port(connection.client)}`, connection.client);
  byId("lanes").replaceChildren(
    ...(isShared ? [lane(12, "clients", plural(connections.length, "connection"))] : connections.map(named)),
    ...(ofBrokers < brokers.length ? [lane(88, "brokers", `${brokers.length} of them`)] : brokers.map((name) => lane(broker(name), "broker", port(name), name))),
  );
  draw();
}

const port = (address) => clean(address).replace(/^.*:/, ":");

/** The vertical lines, behind the arrows of each row. */
function drawLanes(lanes) {
  const line = "linear-gradient(var(--lane), var(--lane))";
  list.style.setProperty("--lanes", lanes.map((left) => `${line} ${left}% 0 / 1px 100% no-repeat`).join(", ") || "none");
}

function lane(left, name, more = "", title = "") {
  const element = h("span.lane", { title: clean(title) }, h("b", {}, name), h("small", {}, more));
  element.style.left = `${left}%`;
  return element;
}

async function refresh() {
  const mine = generation;
  const page = Math.max(0, Math.ceil(total / PAGE) - 1);
  const answer = await server.rows(view, page * PAGE, PAGE);
  if (mine !== generation) return;
  // A filter looks at a part of millions at a time.
  const isSearching = answer.looked < answer.observations;
  onSearch(isSearching ? answer.looked / answer.observations : null);
  if (isSearching) setTimeout(() => mine === generation && refresh());
  const grown = Math.floor(answer.total / PAGE);
  // The end may have been folded anew, and pages behind it are not known.
  for (const known of [...pages.keys()]) if (known >= page) pages.delete(known);
  if (answer.rows.length) pages.set(page, answer.rows);
  total = answer.total;
  for (let next = page + 1; next <= grown; next += 1) pages.delete(next);
  byId("empty").hidden = length() > 0;
  if (isFollowing) list.scrollTop = list.scrollHeight + HEIGHT_MAX;
  draw();
  if (isFollowing) requestAnimationFrame(() => (list.scrollTop = list.scrollHeight));
}

function forget() {
  generation += 1;
  pages = new Map();
  asked = new Set();
  unfolded = [];
  total = 0;
}

/** Scrolls so that a row is the first one in sight. */
function scrollTo(position) {
  rows.style.height = `${Math.min(HEIGHT_MAX, length() * rowHeight())}px`;
  list.scrollTop = (position * rowHeight()) / scale();
}

/** Scrolls so that a row is in sight. */
function reveal(position) {
  const height = rowHeight();
  const inSight = list.clientHeight / height;
  if (position >= Math.ceil(top()) && position + 1 <= top() + inSight) return;
  scrollTo(Math.max(0, position - inSight / 2));
}

/** The observation at the top, for the link: the end that is followed is none. */
let resting;
function notePlace() {
  clearTimeout(resting);
  resting = setTimeout(() => {
    const first = isFollowing || !length() ? null : recordAt(Math.round(top()));
    if (first !== undefined) look({ top: first?.n ?? null });
  }, REST);
}

/** The position of observation `n`, or of the next one that is shown; the run that it is in may be unfolded for it. */
async function locate(n, isUnfolding) {
  const mine = generation;
  const answer = await server.rowsAround(view, n, 1);
  if (mine !== generation || !answer.total) return null;
  total = answer.total;
  const index = Math.min(answer.at, total - 1);
  const page = Math.floor(index / PAGE);
  if (!pages.has(page)) pages.set(page, (await server.rows(view, page * PAGE, PAGE)).rows);
  const record = pages.get(page)?.[index % PAGE];
  if (record?.event !== "run" || n < record.n || n > record.last) return positionOf(index);
  const known = () => unfolded.find((run) => run.n === record.n);
  if (isUnfolding && !known()) toggleRun(positionOf(index));
  return positionOf(index) + (known() ? 1 + (await innerOffset(known(), n)) : 0);
}

/** Goes back to the row that is chosen, and to the one that was at the top. */
async function restore() {
  if (view.n !== null) {
    const position = await locate(view.n, true);
    if (position !== null) reveal(position);
  }
  if (view.top !== null) {
    const position = await locate(view.top, false);
    if (position !== null) scrollTo(position);
  }
  draw();
}

function setFollowing(is) {
  if (is === isFollowing) return;
  isFollowing = is;
  followers.forEach((follower) => follower(is));
  notePlace();
  if (is) refresh();
}

function select(position) {
  const record = recordAt(position);
  reveal(position);
  draw();
  if (record) look({ n: record.n, tab: "frame" });
}

function toggleRun(position) {
  const { index, run } = at(position);
  const record = recordAt(position);
  if (run || record?.event !== "run") return;
  const known = unfolded.findIndex((known) => known.n === record.n);
  if (known >= 0) unfolded.splice(known, 1);
  else {
    unfolded.push({ n: record.n, last: record.last, count: record.count, index, pages: new Map() });
    unfolded.sort((a, b) => a.index - b.index);
  }
  setFollowing(false);
  draw();
}

/** The place of the selected row, if it is loaded. */
function selectedPosition() {
  const drawn = rows.querySelector(".is-selected");
  if (drawn) return Number(drawn.dataset.index);
  for (const [page, records] of pages) {
    const offset = records.findIndex((record) => record.n <= view.n && view.n <= (record.last ?? record.n));
    if (view.n !== null && offset >= 0) return positionOf(page * PAGE + offset);
  }
  return null;
}

export const diagram = {
  onFollow: (follower) => followers.push(follower),
  isFollowing: () => isFollowing,
  follow: setFollowing,
  find,
  draw,
  /** There is news from the server. */
  news(state) {
    if (JSON.stringify(state.connections) !== JSON.stringify(connections)) {
      connections = state.connections;
      layOut();
    }
    if (isFollowing || total < 2 * PAGE) return refresh();
    return null;
  },
  /** `listener(part)` hears how far a filter has looked, and `null` at its end. */
  onSearch: (listener) => (onSearch = listener),
  restore,
  /** Selects the observation `n` and shows it; unfolds the run that it is in. */
  async go(n, tab = "frame") {
    setFollowing(false);
    const position = await locate(n, true);
    if (position === null) return;
    look({ n, tab });
    reveal(position);
    draw();
  },
  /** Moves the selection by rows. */
  move(by) {
    setFollowing(false);
    const from = selectedPosition();
    const next = from === null ? (by > 0 ? Math.floor(top()) : length() - 1) : Math.max(0, Math.min(length() - 1, from + by));
    if (length()) select(next);
  },
  page: (by) => diagram.move(by * Math.max(1, Math.floor(list.clientHeight / rowHeight()) - 1)),
  edge(isEnd) {
    if (isEnd) list.scrollTop = list.scrollHeight;
    if (length()) select(isEnd ? length() - 1 : 0);
  },
  enter() {
    const position = selectedPosition();
    if (position !== null) toggleRun(position);
  },
};

/** How many frames of a run are before `n`: by halves, since other frames may be between them. */
async function innerOffset(run, n) {
  let [low, high] = [0, run.count - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    const page = Math.floor(middle / PAGE);
    if (!run.pages.has(page)) run.pages.set(page, (await server.run(view, run, page * PAGE, PAGE)).rows);
    const record = run.pages.get(page)[middle % PAGE];
    if (!record || record.n >= n) high = middle;
    else low = middle + 1;
  }
  return low;
}

list.addEventListener("scroll", () => {
  draw();
  notePlace();
});
// A person who scrolls up wants to stay there.
list.addEventListener("wheel", (event) => event.deltaY < 0 && setFollowing(false), { passive: true });
list.addEventListener("touchmove", () => setFollowing(false), { passive: true });
list.addEventListener("pointerdown", (event) => event.offsetX > list.clientWidth && setFollowing(false));
list.addEventListener("click", (event) => {
  const position = Number(event.target.closest(".row")?.dataset.index ?? NaN);
  if (Number.isNaN(position)) return;
  setFollowing(false);
  select(position);
  toggleRun(position);
});
list.addEventListener("pointermove", (event) => {
  const n = event.target.closest(".row")?.dataset.n;
  const next = n === undefined ? null : Number(n);
  if (next === hovered) return;
  hovered = next;
  draw();
});
list.addEventListener("pointerleave", () => {
  hovered = null;
  draw();
});
new ResizeObserver(() => (isFollowing ? refresh() : draw())).observe(list);
onView((changed) => {
  if (["source", "words", "errors", "fold", "span"].some((name) => changed.has(name))) {
    forget();
    refresh().then(() => isFollowing || restore());
  } else draw();
});
