// What is looked at. It is in the URL's fragment, so that a link restores it, and Back undoes it.

const DEFAULTS = { source: null, words: "", errors: false, fold: true, span: null, n: null, top: null, tab: "guide" };

export const view = { ...DEFAULTS };
const listeners = [];

/** How long a change waits to be in the link, but for steps that Back undoes, milliseconds. Browsers refuse more than one or two
 * hundred changes in half a minute, and a key that is held down would make more. */
const NOTE_PAUSE = 300;
let noting = null;

/** `listener(changed)` is called with the names of what has changed. */
export const onView = (listener) => listeners.push(listener);

/** Changes the view, and the fragment with it. */
export function look(changes) {
  const changed = new Set(Object.keys(changes).filter((name) => !isSame(view[name], changes[name])));
  if (!changed.size) return;
  const isStep = changed.has("words") || changed.has("errors") || changed.has("span") || changed.has("source");
  if (isStep && noting) note();
  Object.assign(view, changes);
  if (isStep) history.pushState(null, "", `/${fragment()}`);
  else noting ??= setTimeout(note, NOTE_PAUSE);
  listeners.forEach((listener) => listener(changed));
}

function note() {
  clearTimeout(noting);
  noting = null;
  history.replaceState(null, "", `/${fragment()}`);
}

const isSame = (a, b) => JSON.stringify(a) === JSON.stringify(b);

function fragment() {
  const out = new URLSearchParams();
  if (view.source) out.set("source", view.source);
  if (view.words) out.set("words", view.words);
  if (view.errors) out.set("errors", "1");
  if (!view.fold) out.set("fold", "0");
  if (view.span) out.set("span", view.span.map(Math.round).join("-"));
  if (view.n !== null) out.set("n", view.n);
  if (view.top !== null) out.set("top", view.top);
  if (view.tab !== DEFAULTS.tab) out.set("tab", view.tab);
  const text = out.toString();
  return text ? `#${text}` : "";
}

function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  const span = /^(\d+)-(\d+)$/.exec(given.get("span") ?? "");
  const tab = given.get("tab");
  const number = (name) => (/^\d+$/.test(given.get(name) ?? "") ? Number(given.get(name)) : null);
  return {
    source: given.get("source") === "dropped" ? "dropped" : null,
    words: given.get("words") ?? "",
    errors: given.get("errors") === "1",
    fold: given.get("fold") !== "0",
    span: span ? [Number(span[1]), Number(span[2])] : null,
    n: number("n"),
    top: number("top"),
    tab: ["guide", "frame", "ledgers"].includes(tab) ? tab : DEFAULTS.tab,
  };
}

/** Takes what the fragment says, and the token out of the address: it is in a cookie now. */
export function start() {
  Object.assign(view, read());
  history.replaceState(null, "", `/${fragment()}`);
  addEventListener("popstate", () => {
    clearTimeout(noting);
    noting = null;
    const before = { ...view };
    Object.assign(view, read());
    const changed = new Set(Object.keys(view).filter((name) => !isSame(before[name], view[name])));
    listeners.forEach((listener) => listener(changed));
  });
}
