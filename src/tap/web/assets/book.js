// A chapter of the book, from the Markdown that the binary has in it. Of Markdown it reads what the book uses; markup is text.

import { byId, h } from "./dom.js";

const FIRST = "README.md";

/** Where in the book a path within the repository leads, such as `docs/protocol/06-flow.md#flow`. */
export function chapterLink(path) {
  const [file, anchor] = path.replace(/^docs\/protocol\//, "").split("#");
  return `/book.html?page=${encodeURIComponent(file)}${anchor ? `#${anchor}` : ""}`;
}

/** What a heading is linked by. */
const slug = (heading) => heading.trim().toLowerCase().replace(/ /g, "-").replace(/[^\p{L}\p{N}_-]/gu, "");

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*]+)\*|\[((?:[^\]`]|`[^`]*`)+)\]\(([^)\s]+)\)/;

/** Text with code, emphasis and links; `link(target)` gives where a link leads. */
function inline(text, link) {
  const found = INLINE.exec(text);
  if (!found) return [text];
  const [all, code, strong, emphasis, label, target] = found;
  const inner = () => {
    if (code) return h("code", {}, code);
    if (strong) return h("strong", {}, ...inline(strong, link));
    if (emphasis) return h("em", {}, ...inline(emphasis, link));
    return h("a", { ...link(target) }, ...inline(label, link));
  };
  return [text.slice(0, found.index), inner(), ...inline(text.slice(found.index + all.length), link)];
}

function table(lines, link) {
  const cells = (line, tag) => line.slice(1, line.lastIndexOf("|")).split(/(?<!\\)\|/).map((cell) => h(tag, {}, ...inline(cell.trim().replace(/\\\|/g, "|"), link)));
  const [head, , ...body] = lines;
  return h("div.wide", {}, h("table", {}, h("thead", {}, h("tr", {}, cells(head, "th"))), h("tbody", {}, body.map((line) => h("tr", {}, cells(line, "td"))))));
}

const ITEM = /^(- |\d+\. )/;

function list(lines, link) {
  const items = [];
  for (const line of lines) {
    if (ITEM.test(line)) items.push(line.replace(ITEM, ""));
    else items.push(`${items.pop()} ${line.trim()}`);
  }
  return h(lines[0].startsWith("-") ? "ul" : "ol", {}, items.map((item) => h("li", {}, ...inline(item, link))));
}

/** The elements of a page. */
export function elements(markdown, link) {
  const lines = markdown.split("\n");
  const out = [];
  const take = (is) => {
    const from = at;
    while (at < lines.length && is(lines[at])) at += 1;
    return lines.slice(from, at);
  };
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const heading = /^(#{1,4}) (.*)$/.exec(line);
    const anchor = /^<a id="([^"]+)"><\/a>$/.exec(line);
    if (line.startsWith("```")) {
      at += 1;
      out.push(h("pre", { tabindex: 0 }, take((line) => !line.startsWith("```")).join("\n")));
      at += 1;
    } else if (heading) {
      out.push(h(`h${heading[1].length}`, { id: slug(heading[2]) }, ...inline(heading[2], link)));
      at += 1;
    } else if (anchor) {
      out.push(h("span", { id: anchor[1] }));
      at += 1;
    } else if (!line.trim() || line.startsWith("<!--")) at += 1;
    else if (line.startsWith("|")) out.push(table(take((line) => line.startsWith("|")), link));
    else if (ITEM.test(line)) out.push(list(take((line) => ITEM.test(line) || line.startsWith("  ")), link));
    else {
      const first = at;
      const text = take((line) => line.trim() && (at === first || !/^(#|```|\||- |<!--)/.test(line)));
      out.push(h("p", {}, ...inline(text.join(" "), link)));
    }
  }
  return out;
}

async function show() {
  const page = new URLSearchParams(location.search).get("page") || FIRST;
  const get = (path) => fetch(path, { credentials: "same-origin" });
  const [chapter, contents, state] = await Promise.all([get(`/book/${encodeURIComponent(page)}`), get("/book/SUMMARY.md"), get("/api/state")]);
  const { repository } = await state.json();
  // Other chapters are here, what else is in the repository is there.
  const link = (target) => {
    if (/^(#|[\w-]+\.md)/.test(target)) return { href: target.startsWith("#") ? target : chapterLink(target) };
    const there = new URL(target, `${repository}docs/protocol/`);
    return { href: there.href, target: "_blank", rel: "noreferrer" };
  };
  byId("chapters").replaceChildren(...elements(await contents.text(), link).slice(1));
  for (const known of byId("chapters").querySelectorAll("a")) {
    if (known.getAttribute("href") === chapterLink(page)) known.setAttribute("aria-current", "page");
  }
  byId("chapter").replaceChildren(...(chapter.ok ? elements(await chapter.text(), link) : [h("p", {}, await chapter.text())]));
  document.title = `${byId("chapter").querySelector("h1")?.textContent ?? page} · Pulsar tap`;
  const place = location.hash ? byId(decodeURIComponent(location.hash.slice(1))) : null;
  place?.scrollIntoView();
  place?.classList.add("is-asked");
}

if (byId("chapter")) show();
