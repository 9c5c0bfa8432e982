// Everything by the keyboard, and what tells of it.

import { byId, h } from "./dom.js";

export const KEYS = [
  ["↑ ↓  or  k j", "the row before, the next one"],
  ["Page Up, Page Down, Home, End", "by a page, to the first row, to the last one"],
  ["Enter", "unfold or fold a run; else to the fields of the frame, where ↑ ↓ go from one to the next"],
  ["r", "to what belongs to it: its answer, its receipt, its cause"],
  ["[  ]", "the error before, the next error"],
  ["/", "filter: words of commands, topics, endpoints and errors, ids such as 7:0, keys, properties, #2 for a connection, - before what is not wanted"],
  ["e", "errors only"],
  ["u", "fold runs, or not"],
  ["Space", "follow the live end, or pause"],
  ["+  −", "choose the quarter of the time around the row; all of it"],
  ["1 2 3", "guide, frame, ledgers"],
  ["c  y  x", "copy hex, JSON, the explain command"],
  ["p", "show the payload of this frame"],
  ["b", "the chapter of the book about it"],
  ["o", "open a recording: or drop the file on the page"],
  ["Esc", "back: from the fields, the filter, the details"],
  ["?", "this help"],
];

export function helpDialog() {
  const dialog = byId("help-dialog");
  dialog.replaceChildren(
    h("div.top", {}, h("h2", { id: "help-title" }, "Keyboard"), h("button", { type: "button", onclick: () => dialog.close() }, "Close")),
    h("dl.keys", {}, KEYS.map(([keys, what]) => h("div", {}, h("dt", {}, h("kbd", {}, keys)), h("dd", {}, what)))),
  );
  dialog.showModal();
}

/** `actions` by key. Those of a text field stay its own, but for Escape. */
export function listen(actions) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help-dialog").open) return;
    const isTyping = event.target.matches("input");
    const isButton = event.target.matches("button, a");
    if (isTyping && event.key !== "Escape") return;
    if (isButton && ["Enter", " "].includes(event.key)) return;
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action(event);
  });
}
