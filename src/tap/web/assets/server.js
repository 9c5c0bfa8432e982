// Questions to the server. Everything is asked for by number, so that nothing is ever sent that is not looked at.

async function ask(path, query, signal) {
  const text = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== null && value !== undefined));
  const response = await fetch(`/api/${path}?${text}`, { credentials: "same-origin", signal });
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

/** What a filter means to the server. */
function filterOf(view) {
  return {
    source: view.source,
    words: view.words || null,
    errors: view.errors ? 1 : null,
    unfolded: view.fold ? null : 1,
    since: view.span ? Math.round(view.span[0]) : null,
    until: view.span ? Math.round(view.span[1]) : null,
  };
}

export const server = {
  /** Answers when there is more than `since`, or after twenty seconds. */
  news: (source, since, signal) => ask("state", { source, since }, signal),
  rows: (view, from, count) => ask("rows", { ...filterOf(view), from, count }),
  /** Rows around the observation `at`; `at` of the answer is its row. Waits until the filter has looked as far. */
  async rowsAround(view, at, count) {
    for (;;) {
      const answer = await ask("rows", { ...filterOf(view), at, count });
      if (answer.looked > at || answer.looked >= answer.observations) return answer;
    }
  },
  /** Frames of a run. */
  run: (view, run, from, count) => ask("rows", { ...filterOf(view), first: run.n, last: run.last, from, count }),
  frame: (source, n, payload) => ask("frame", { source, n, payload: payload ? 1 : null }),
  life: (source, n) => ask("life", { source, n }),
  ledgers: (source) => ask("ledgers", { source }),
  /** Sends a recording; answers when it is read. */
  async open(file) {
    const response = await fetch("/api/open", { method: "POST", body: file, credentials: "same-origin" });
    if (!response.ok) throw new Error(await response.text());
  },
};
