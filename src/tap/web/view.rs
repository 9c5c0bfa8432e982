//! What a filter shows: rows, of which one may stand for a run of frames.

use std::collections::BTreeMap;
use std::io;

use serde_json::{Value, json};

use super::bits::Bits;
use super::entries::{Entry, TICK_MICROS, Ticks};
use super::record;
use super::records::BLOCK;
use super::store::Store;

/// Ordinary frames of the data path in a row that are folded into one.
const RUN_MIN: u32 = 24;

/// The most frames of one run.
const RUN_MAX: u32 = 5_000;

/// The longest time between two frames of a run: a second.
const RUN_PAUSE: Ticks = (1_000_000 / TICK_MICROS) as Ticks;

/// Filters that are kept, at two bits for each observation; the one that was not asked for longest is forgotten.
const VIEWS_MAX: usize = 4;

/// Observations that one answer looks at: of more, the page is told how far it is, and asks again.
const LOOKED_MAX: u32 = 500_000;

/// Runs of a view whose summaries are kept: those of a few pages.
const RUNS_KEPT: usize = 1_000;

/// Rows, or frames of a run, in one answer.
const PAGE_MAX: u32 = 500;

/// What a page is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// Words that each have to be in the command, the endpoint, the topic, the connection (`#3`) or what the record is found by: ids of
    /// messages, texts, keys and properties. With `-` before it, it must not.
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

/// A word of a filter.
#[derive(Debug)]
struct Word {
    is_wanted: bool,
    text: String,
    /// What a record's words have: an id of a message is found whole.
    needle: String,
}

impl Word {
    fn read(word: &str) -> Option<Self> {
        let (is_wanted, text) = word.strip_prefix('-').map_or((true, word), |word| (false, word));
        let text = text.to_lowercase();
        // `7:12`, and what clients print of it: `7:12:-1`, `7:12:-1:0`.
        let numbers: Option<Vec<i64>> = text.split(':').map(|number| number.parse().ok()).collect();
        let needle = match numbers.as_deref() {
            Some([ledger, entry, ..]) => format!(" {ledger}:{entry} "),
            _ => text.clone(),
        };
        Some(Self { is_wanted, text, needle }).filter(|word| !word.text.is_empty())
    }

    fn is_connection(&self) -> bool {
        self.text.starts_with('#')
    }
}

#[derive(Debug)]
struct View {
    page: Page,
    words: Vec<Word>,
    /// Whether each word is in the text of a subject, and of a kind; what is behind their end is not known yet.
    in_subjects: Vec<Vec<bool>>,
    in_kinds: Vec<Vec<bool>>,
    /// Observations that were looked at.
    looked: u32,
    /// Those that are shown, and of these the first of each row.
    shown: Bits,
    rows: Bits,
    /// The rows at the end that may become a run, or the run that may grow.
    open: u32,
    last_at: Ticks,
    /// Runs that were summed up, by the first observation of each.
    runs: BTreeMap<u32, (Row, Value)>,
}

/// The views that were asked for last.
#[derive(Debug, Default)]
pub(super) struct Views(Vec<View>);

impl Views {
    /// `rows`, of `total` among the first `looked` of all `observations`; `from` is the first one's number.
    pub(super) fn page(&mut self, store: &mut Store, page: &Page) -> io::Result<Value> {
        let known = self.0.iter().position(|view| view.page.is_same_view(page));
        let mut view = match known {
            Some(index) => self.0.remove(index),
            None => View::new(page),
        };
        let looked = view.look(store);
        let answer = looked.and_then(|()| match page.run {
            Some((first, last)) => view.run(store, page, first, last),
            None => view.page(store, page),
        });
        self.0.push(view);
        if self.0.len() > VIEWS_MAX {
            self.0.remove(0);
        }
        answer
    }
}

impl View {
    fn new(page: &Page) -> Self {
        Self {
            page: page.clone(),
            words: page.words.split_whitespace().filter_map(Word::read).collect(),
            in_subjects: Vec::new(),
            in_kinds: Vec::new(),
            looked: 0,
            shown: Bits::default(),
            rows: Bits::default(),
            open: 0,
            last_at: 0,
            runs: BTreeMap::new(),
        }
    }

    /// Looks at what is new, or at a part of it.
    fn look(&mut self, store: &mut Store) -> io::Result<()> {
        self.look_at_names(store);
        let until = store.len().min(self.looked.saturating_add(LOOKED_MAX));
        while self.looked < until {
            let first = self.looked as usize % BLOCK;
            let count = (BLOCK - first).min((until - self.looked) as usize);
            let found = self.found(store, self.looked as usize / BLOCK)?;
            let entries: Vec<_> = store.entries.from(self.looked)?.iter().take(count).copied().collect();
            if entries.is_empty() {
                break;
            }
            for (offset, entry) in entries.into_iter().enumerate() {
                if self.shows(entry, &found, first + offset) {
                    self.put(entry);
                } else {
                    self.shown.push(false);
                    self.rows.push(false);
                }
                self.looked += 1;
            }
        }
        Ok(())
    }

    fn look_at_names(&mut self, store: &Store) {
        for subject in store.subjects.iter().skip(self.in_subjects.len()) {
            let endpoint = subject.endpoint.map(|endpoint| endpoint.to_string()).unwrap_or_default();
            let topic = subject.topic.as_deref().unwrap_or_default();
            let connection = format!("#{}", subject.connection);
            let text = format!("{connection} {endpoint} {topic}").to_lowercase();
            let has =
                |word: &Word| if word.is_connection() { word.text == connection } else { text.contains(&word.text) };
            self.in_subjects.push(self.words.iter().map(has).collect());
        }
        for kind in store.kinds.iter().skip(self.in_kinds.len()) {
            let text = kind.to_lowercase();
            self.in_kinds.push(self.words.iter().map(|word| text.contains(&word.text)).collect());
        }
    }

    /// For each word the records of a block that are found by it, as bits.
    fn found(&self, store: &mut Store, block: usize) -> io::Result<Vec<u128>> {
        if self.words.iter().all(Word::is_connection) {
            return Ok(vec![0; self.words.len()]);
        }
        let text = store.records.words(block)?;
        let of = |word: &Word| {
            if word.is_connection() || !text.contains(&word.needle) {
                return 0;
            }
            let lines = text.lines().enumerate().filter(|(_, line)| line.contains(&word.needle));
            lines.fold(0, |found, (index, _)| found | 1 << index)
        };
        Ok(self.words.iter().map(of).collect())
    }

    fn shows(&self, entry: Entry, found: &[u128], offset: usize) -> bool {
        if self.page.errors && !entry.is_error() {
            return false;
        }
        let at = u64::from(entry.at) * TICK_MICROS;
        if self.page.span.is_some_and(|(from, until)| at < from || at > until) {
            return false;
        }
        let subject = self.in_subjects.get(entry.subject as usize);
        let kind = self.in_kinds.get(usize::from(entry.kind));
        self.words.iter().zip(found).enumerate().all(|(index, (word, found))| {
            let has = |found: Option<&Vec<bool>>| found.and_then(|found| found.get(index)).copied().unwrap_or(false);
            (has(subject) || has(kind) || found >> offset & 1 == 1) == word.is_wanted
        })
    }

    /// Adds a row, or folds it with those before.
    fn put(&mut self, entry: Entry) {
        self.shown.push(true);
        let is_near = entry.at.saturating_sub(self.last_at) <= RUN_PAUSE;
        self.last_at = entry.at;
        let is_plain = self.page.fold && entry.is_plain();
        if !is_plain || !is_near || self.open >= RUN_MAX {
            self.open = 0;
        }
        self.open += u32::from(is_plain);
        self.rows.push(self.open < RUN_MIN);
        if self.open == RUN_MIN {
            // The rows before it become one: the first of them stays.
            for _ in 0..RUN_MIN - 2 {
                let last = self.rows.count() - 1;
                self.rows.nth(last).into_iter().for_each(|row| self.rows.remove(row));
            }
        }
    }

    fn row(&self, index: u32) -> Option<Row> {
        let first = self.rows.nth(index)?;
        let before = self.shown.below(first);
        let until = self.rows.nth(index + 1).map_or(self.shown.count(), |next| self.shown.below(next));
        Some(Row { first, last: self.shown.nth(until - 1)?, count: until - before })
    }

    /// The row with observation `n`, or the next one.
    fn row_of(&self, n: u32) -> u32 {
        let index = self.rows.below(n.saturating_add(1)).saturating_sub(1);
        index + u32::from(self.row(index).is_some_and(|row| row.last < n))
    }

    fn page(&mut self, store: &mut Store, page: &Page) -> io::Result<Value> {
        let from = page.at.map_or(page.from, |n| self.row_of(n).saturating_sub(page.count / 2));
        let rows = (from..).take(page.count.min(PAGE_MAX) as usize).map_while(|index| self.row(index));
        let rows: Vec<_> = rows.collect();
        let rows: io::Result<Vec<_>> = rows.into_iter().map(|row| self.json(store, row)).collect();
        Ok(json!({
            "total": self.rows.count(),
            "looked": self.looked,
            "observations": store.len(),
            "from": from,
            "at": page.at.map(|n| self.row_of(n)),
            "rows": rows?,
        }))
    }

    /// The observations of a row from the one numbered `from` among them on.
    fn numbers(&self, row: Row, from: u32) -> impl Iterator<Item = u32> {
        let first = self.shown.below(row.first).saturating_add(from);
        (first..self.shown.count()).map_while(|index| self.shown.nth(index)).take_while(move |n| *n <= row.last)
    }

    fn json(&mut self, store: &mut Store, row: Row) -> io::Result<Value> {
        if row.count == 1 {
            return Ok(store.record(row.first)?.unwrap_or_else(|| json!({ "n": row.first, "event": "gone" })));
        }
        if let Some((_, known)) = self.runs.get(&row.first).filter(|(known, _)| *known == row) {
            return Ok(known.clone());
        }
        let run = self.sum_up(store, row)?;
        if self.runs.len() >= RUNS_KEPT {
            self.runs.clear();
        }
        self.runs.insert(row.first, (row, run.clone()));
        Ok(run)
    }

    fn sum_up(&self, store: &mut Store, row: Row) -> io::Result<Value> {
        // By subject, kind and direction, in the order of the first of each.
        let mut counts: Vec<(Entry, u32)> = Vec::new();
        let (mut at, mut until) = (None, 0);
        let mut n = row.first;
        while n <= row.last {
            let entries = store.entries.from(n)?;
            if entries.is_empty() {
                break;
            }
            for entry in (n..=row.last).zip(entries).filter(|(n, _)| self.shown.has(*n)).map(|(_, entry)| entry) {
                until = entry.at;
                at = at.or(Some(until));
                let is_like =
                    |other: &&mut (Entry, u32)| (other.0.subject, other.0.kind) == (entry.subject, entry.kind);
                match counts.iter_mut().find(is_like) {
                    Some((_, count)) => *count += 1,
                    None => counts.push((*entry, 1)),
                }
            }
            n += entries.len() as u32;
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
            "n": row.first, "last": row.last, "event": "run", "count": row.count,
            "at": u64::from(at.unwrap_or_default()) * TICK_MICROS, "until": u64::from(until) * TICK_MICROS, "parts": parts,
        }))
    }

    /// Frames of a run, from the one numbered `from` among them on. A browser may ask for any range: it ends with what there is.
    fn run(&self, store: &mut Store, page: &Page, first: u32, last: u32) -> io::Result<Value> {
        let numbers = self.numbers(Row { first, last, count: 0 }, page.from);
        let numbers = numbers.take(page.count.min(PAGE_MAX) as usize);
        let rows: io::Result<Vec<_>> = numbers.filter_map(|n| store.record(n).transpose()).collect();
        Ok(json!({ "from": page.from, "rows": rows? }))
    }
}
