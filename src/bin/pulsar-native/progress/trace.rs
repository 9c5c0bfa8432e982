//! The events that the library tells by `tracing`, as plain lines: for `-vv`.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::output;

/// The crate whose events are shown.
const TARGET: &str = "pulsar_native";

/// Writes every event of the library down to DEBUG. Spans are left out: each event names what it is about.
struct Lines;

/// Installs it, for the rest of the process.
pub(crate) fn install() {
    // Nothing else here installs one.
    let _ = tracing::subscriber::set_global_default(Lines);
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::DEBUG && metadata.target().starts_with(TARGET)
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let target = metadata.target().trim_start_matches(TARGET).trim_start_matches("::");
        let mut line = Line { text: format!("{:>5} {target}:", metadata.level()), fields: String::new() };
        event.record(&mut line);
        output::note(format_args!("{}{}", line.text, line.fields));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Line {
    text: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.text, " {value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
