//! What a filter shows: rows, of which one may stand for a run of frames.

use std::io;

use serde_json::{Value, json};

use super::record;
use super::store::{Entry, Store, TICK_MICROS, Ticks};

/// Ordinary frames of the data path in a row that are folded into one.
const RUN_MIN: u32 = 24;

/// The most frames of one run.
const RUN_MAX: u32 = 5_000;

/// The longest time between two frames of a run: a second.
const RUN_PAUSE: Ticks = (1_000_000 / TICK_MICROS) as Ticks;

/// Filters whose rows are kept; the one that was not asked for longest is forgotten.
const VIEWS_MAX: usize = 4;

/// Rows of all views that are kept, 12 bytes each, unless one has more.
const ROWS_KEPT: usize = 3_000_000;

/// Rows, or frames of a run, in one answer.
const PAGE_MAX: u32 = 500;

/// What a page is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// Words that each have to be in the command, the endpoint, the topic or the connection (`#3`); with `-` before it, must not.
    pub(super) words: String,
    /// Only violations and refusals.
    pub(super) errors: bool,
    /// Only this time: from, until, microseconds.
    pub(super) span: Option<(u64, u64)>,
    /// Whether runs are folded.
    pub(super) fold: bool,
    /// The first row.
    pub(super) from: u32,
    /// Rows.
    pub(super) count: u32,
    /// The frames of the run between these numbers, instead of rows.
    pub(super) run: Option<(u32, u32)>,
    /// Counts rows from the one with this observation, instead of from the first.
    pub(super) at: Option<u32>,
}

impl Page {
    fn is_same_view(&self, other: &Self) -> bool {
        (&self.words, self.errors, self.span, self.fold) == (&other.words, other.errors, other.span, other.fold)
    }
}

/// A frame, or a run of `count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    first: u32,
    last: u32,
    count: u32,
}

#[derive(Debug)]
struct View {
    page: Page,
    words: Vec<(bool, String)>,
    /// Whether each word is in the text of a subject, and of a kind; what is behind their end is not known yet.
    in_subjects: Vec<Vec<bool>>,
    in_kinds: Vec<Vec<bool>>,
    /// Observations that were looked at.
    looked: u32,
    rows: Vec<Row>,
    /// The rows at the end that may become a run, or the run that may grow.
    open: u32,
    last_at: Ticks,
}

/// The views that were asked for last.
#[derive(Debug, Default)]
pub(super) struct Views(Vec<View>);

impl Views {
    /// `rows`, of `total`; `from` is the first one's number.
    pub(super) fn page(&mut self, store: &mut Store, page: &Page) -> io::Result<Value> {
        let known = self.0.iter().position(|view| view.page.is_same_view(page));
        let mut view = match known {
            Some(index) => self.0.remove(index),
            None => View::new(page),
        };
        view.catch_up(store);
        let answer = match page.run {
            Some((first, last)) => view.run(store, page, first, last),
            None => view.rows(store, page),
        };
        self.0.push(view);
        while self.0.len() > VIEWS_MAX || self.0.len() > 1 && self.rows() > ROWS_KEPT {
            self.0.remove(0);
        }
        answer
    }

    fn rows(&self) -> usize {
        self.0.iter().map(|view| view.rows.len()).sum()
    }
}

impl View {
    fn new(page: &Page) -> Self {
        let word = |word: &str| match word.strip_prefix('-') {
            Some(word) => (false, word.to_lowercase()),
            None => (true, word.to_lowercase()),
        };
        let words = page.words.split_whitespace().map(word).filter(|(_, word)| !word.is_empty()).collect();
        Self {
            page: page.clone(),
            words,
            in_subjects: Vec::new(),
            in_kinds: Vec::new(),
            looked: 0,
            rows: Vec::new(),
            open: 0,
            last_at: 0,
        }
    }

    fn catch_up(&mut self, store: &Store) {
        for subject in store.subjects.iter().skip(self.in_subjects.len()) {
            let endpoint = subject.endpoint.map(|endpoint| endpoint.to_string()).unwrap_or_default();
            let topic = subject.topic.as_deref().unwrap_or_default();
            let text = format!("#{} {endpoint} {topic}", subject.connection).to_lowercase();
            let connection = format!("#{}", subject.connection);
            let has = |(_, word): &(bool, String)| {
                if word.starts_with('#') { *word == connection } else { text.contains(word) }
            };
            self.in_subjects.push(self.words.iter().map(has).collect());
        }
        for kind in store.kinds.iter().skip(self.in_kinds.len()) {
            let text = kind.to_lowercase();
            self.in_kinds.push(self.words.iter().map(|(_, word)| text.contains(word)).collect());
        }
        while let Some(entry) = store.entry(self.looked) {
            if self.shows(entry) {
                self.put(self.looked, entry);
            }
            self.looked += 1;
        }
    }

    fn shows(&self, entry: Entry) -> bool {
        if self.page.errors && !entry.is_error() {
            return false;
        }
        let at = u64::from(entry.at) * TICK_MICROS;
        if self.page.span.is_some_and(|(from, until)| at < from || at > until) {
            return false;
        }
        let subject = self.in_subjects.get(entry.subject as usize);
        let kind = self.in_kinds.get(usize::from(entry.kind));
        self.words.iter().enumerate().all(|(index, (is_wanted, _))| {
            let has = |found: Option<&Vec<bool>>| found.and_then(|found| found.get(index)).copied().unwrap_or(false);
            (has(subject) || has(kind)) == *is_wanted
        })
    }

    /// Adds a row, or folds it with those before.
    fn put(&mut self, n: u32, entry: Entry) {
        let is_near = entry.at.saturating_sub(self.last_at) <= RUN_PAUSE;
        self.last_at = entry.at;
        if !(self.page.fold && entry.is_plain()) {
            self.open = 0;
            return self.rows.push(Row { first: n, last: n, count: 1 });
        }
        if !is_near || self.open >= RUN_MAX {
            self.open = 0;
        }
        self.open += 1;
        match self.rows.last_mut() {
            Some(run) if self.open > RUN_MIN => (run.last, run.count) = (n, self.open),
            _ if self.open == RUN_MIN => {
                self.rows.truncate(self.rows.len() - (RUN_MIN - 2) as usize);
                if let Some(run) = self.rows.last_mut() {
                    (run.last, run.count) = (n, RUN_MIN);
                }
            }
            _ => self.rows.push(Row { first: n, last: n, count: 1 }),
        }
    }

    fn rows(&self, store: &mut Store, page: &Page) -> io::Result<Value> {
        let of = |n| self.rows.partition_point(|row| row.last < n) as u32;
        let from = page.at.map_or(page.from, |n| of(n).saturating_sub(page.count / 2));
        let rows = self.rows.iter().skip(from as usize).take(page.count.min(PAGE_MAX) as usize);
        let rows: io::Result<Vec<_>> = rows.map(|row| self.row(store, *row)).collect();
        Ok(json!({
            "total": self.rows.len(),
            "observations": store.len(),
            "from": from,
            "at": page.at.map(of),
            "rows": rows?,
        }))
    }

    fn row(&self, store: &mut Store, row: Row) -> io::Result<Value> {
        if row.count == 1 {
            return Ok(store.record(row.first)?.unwrap_or_else(|| json!({ "n": row.first, "event": "gone" })));
        }
        let at = |n| store.entry(n).map_or(0, |entry| u64::from(entry.at) * TICK_MICROS);
        // By subject, kind and direction, in the order of the first of each.
        let mut counts: Vec<(Entry, u32)> = Vec::new();
        for entry in (row.first..=row.last).filter_map(|n| store.entry(n)).filter(|entry| self.shows(*entry)) {
            let is_like = |other: &&mut (Entry, u32)| (other.0.subject, other.0.kind) == (entry.subject, entry.kind);
            match counts.iter_mut().find(is_like) {
                Some((_, count)) => *count += 1,
                None => counts.push((entry, 1)),
            }
        }
        counts.truncate(16);
        let parts = counts.iter().map(|(entry, count)| {
            let subject = store.subjects.get(entry.subject as usize);
            json!({
                "command": store.kinds.get(usize::from(entry.kind)),
                "up": entry.is_up(),
                "count": count,
                "connection": subject.map(|subject| subject.connection),
                "endpoint": subject.and_then(|subject| subject.endpoint).map(|endpoint| endpoint.to_string()),
                "topic": subject.and_then(|subject| subject.topic.as_deref()).map(record::cut),
            })
        });
        let parts: Vec<_> = parts.collect();
        Ok(json!({
            "n": row.first, "last": row.last, "event": "run", "count": row.count, "at": at(row.first),
            "until": at(row.last), "parts": parts,
        }))
    }

    /// Frames of a run, from the one numbered `from` among them on.
    fn run(&self, store: &mut Store, page: &Page, first: u32, last: u32) -> io::Result<Value> {
        // A browser may ask for any range: it ends with what there is.
        let there = (first..=last).map_while(|n| store.entry(n).map(|entry| (n, entry)));
        let numbers = there.filter(|(_, entry)| self.shows(*entry)).map(|(n, _)| n);
        let numbers: Vec<_> = numbers.skip(page.from as usize).take(page.count.min(PAGE_MAX) as usize).collect();
        let rows: io::Result<Vec<_>> = numbers.into_iter().filter_map(|n| store.record(n).transpose()).collect();
        Ok(json!({ "from": page.from, "rows": rows? }))
    }
}
