// Elements from JavaScript. Text only ever becomes text: nothing here, and nothing in this page, parses markup.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "rect", "line", "text", "g"]);

/** An element: `h("p.note", { id: "x" }, "text", child)`. Properties that start with `on` are listeners; null ones are left out. */
export function h(what, properties = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const element = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag || "div");
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Runs `work` once in the next frame, however often it is asked for before that. */
export function oncePerFrame(work) {
  let isAsked = false;
  return () => {
    if (isAsked) return;
    isAsked = true;
    requestAnimationFrame(() => {
      isAsked = false;
      work();
    });
  };
}

/** Tells the person, and a screen reader, in one line that goes away. */
let telling;
export function tell(text) {
  const said = byId("said");
  said.textContent = text;
  said.classList.add("shown");
  clearTimeout(telling);
  telling = setTimeout(() => said.classList.remove("shown"), 2500);
}
