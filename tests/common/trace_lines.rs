//! A subscriber of `tracing` that keeps each event as a line, and counts the spans that are open.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) level: Level,
    /// Behind `pulsar_native::`.
    pub(crate) target: String,
    pub(crate) message: String,
    pub(crate) fields: BTreeMap<&'static str, String>,
    /// The span that it lies in, if any.
    pub(crate) span: Option<&'static str>,
}

impl Line {
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// Level and message, with these fields.
    pub(crate) fn with(&self, fields: &[&str]) -> String {
        let mut text = format!("{} {}", self.level, self.message);
        for name in fields.iter().filter(|name| self.fields.contains_key(**name)) {
            let _ = write!(text, " {name}={}", self.field(name));
        }
        text
    }
}

/// What was told since it was made. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines {
    state: Arc<Mutex<State>>,
    next_span: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    /// All texts, of spans too.
    texts: Vec<String>,
    /// Open spans: their name, and how many hold them.
    spans: HashMap<u64, (&'static str, u32)>,
}

impl Lines {
    /// Listens to this thread until the guard is dropped.
    pub(crate) fn listen() -> (Self, tracing::subscriber::DefaultGuard) {
        let lines = Self::default();
        let guard = tracing::subscriber::set_default(lines.clone());
        (lines, guard)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All events of `tracing`'s level `least` and above.
    pub(crate) fn at_least(&self, least: Level) -> Vec<Line> {
        self.state().lines.iter().filter(|line| line.level <= least).cloned().collect()
    }

    /// Everything that was told, in the order of telling: fields of spans and events.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.state().texts.clone()
    }

    /// How many spans of each name are open.
    pub(crate) fn open_spans(&self) -> BTreeMap<&'static str, usize> {
        let mut open = BTreeMap::new();
        self.state().spans.values().for_each(|(name, _)| *open.entry(*name).or_default() += 1);
        open
    }
}

/// The values of an event or span.
#[derive(Default)]
struct Values {
    message: String,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Values {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            name => drop(self.fields.insert(name, text)),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

impl Values {
    fn text(&self) -> String {
        format!("{} {:?}", self.message, self.fields)
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("pulsar_native")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let id = self.next_span.fetch_add(1, Ordering::Relaxed) + 1;
        let mut values = Values::default();
        attributes.record(&mut values);
        let mut state = self.state();
        let name = attributes.metadata().name();
        state.texts.push(format!("{name} {}", values.text()));
        state.spans.insert(id, (name, 1));
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut text = Values::default();
        values.record(&mut text);
        self.state().texts.push(text.text());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut values = Values::default();
        event.record(&mut values);
        let mut state = self.state();
        let span = event.parent().and_then(|id| state.spans.get(&id.into_u64())).map(|(name, _)| *name);
        state.texts.push(values.text());
        let metadata = event.metadata();
        let target = metadata.target().trim_start_matches("pulsar_native::").to_owned();
        let Values { message, fields } = values;
        state.lines.push(Line { level: *metadata.level(), target, message, fields, span });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}

    fn clone_span(&self, id: &Id) -> Id {
        if let Some((_, held)) = self.state().spans.get_mut(&id.into_u64()) {
            *held += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let mut state = self.state();
        let Some((_, held)) = state.spans.get_mut(&id.into_u64()) else { return false };
        *held -= 1;
        let is_closed = *held == 0;
        if is_closed {
            state.spans.remove(&id.into_u64());
        }
        is_closed
    }
}
