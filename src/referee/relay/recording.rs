//! What passed between the client under test and the broker, and what the referee did meanwhile: for conditions of scenarios, and
//! for the output when one fails.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;

use crate::referee::protocol::shown;
use crate::wire::{Command, Frame};

/// Most events that are kept of a scenario.
const EVENTS_MAX: usize = 20_000;

/// Most bytes of frames that are kept of a scenario.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// Events that the story shows: so many of the first ones, and so many of the last.
const SHOWN_FIRST: usize = 30;
const SHOWN_LAST: usize = 60;

/// Most characters of a line of the story.
const LINE_CHARS_MAX: usize = 220;

/// A side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::referee) enum By {
    Client,
    Broker,
}

/// Something that happened.
#[derive(Debug)]
pub(in crate::referee) struct Event {
    /// Since the scenario began.
    pub(in crate::referee) at: Duration,
    /// Numbered from 1 in order of arrival; 0 for what the referee does.
    pub(in crate::referee) connection: u64,
    pub(in crate::referee) what: What,
}

#[derive(Debug)]
pub(in crate::referee) enum What {
    /// The client connected to the broker of this number.
    Opened { broker: usize },
    /// A whole frame, and its bytes.
    Frame { by: By, frame: Box<Frame>, bytes: Bytes },
    /// A frame that cannot be read, or bytes that are none.
    Unreadable { by: By, bytes: usize, why: String },
    /// A side ended the connection.
    Closed { by: By },
    /// What the referee did, or a line between it and the glue.
    Note(String),
}

/// The events of a scenario in order.
#[derive(Debug, Default)]
pub(in crate::referee) struct Recording {
    events: Vec<Event>,
    bytes: usize,
    /// Events that came when there were too many.
    lost: u64,
}

impl Recording {
    pub(super) fn push(&mut self, event: Event) {
        let bytes = match &event.what {
            What::Frame { bytes, .. } => bytes.len(),
            _ => 0,
        };
        if self.events.len() >= EVENTS_MAX || self.bytes + bytes > BYTES_MAX {
            self.lost += 1;
            return;
        }
        self.bytes += bytes;
        self.events.push(event);
    }

    pub(in crate::referee) fn events(&self) -> &[Event] {
        &self.events
    }

    /// Frames of one side from the event of this number on, with the connection and the bytes.
    pub(in crate::referee) fn frames(&self, by: By, since: usize) -> impl Iterator<Item = (u64, &Frame, &Bytes)> {
        self.events.iter().skip(since).filter_map(move |event| match &event.what {
            What::Frame { by: sender, frame, bytes } if *sender == by => Some((event.connection, &**frame, bytes)),
            _ => None,
        })
    }

    /// Commands of the client from the event of this number on.
    pub(in crate::referee) fn commands(&self, since: usize) -> impl Iterator<Item = (u64, &Command)> {
        self.frames(By::Client, since).filter_map(|(connection, frame, _)| match frame {
            Frame::Other(command) => Some((connection, command)),
            _ => None,
        })
    }

    /// How many frames of this name the client sent, from the event of this number on.
    pub(in crate::referee) fn count(&self, name: &str, since: usize) -> usize {
        self.frames(By::Client, since).filter(|(_, frame, _)| frame.name() == name).count()
    }

    /// How many connections the client opened, from the event of this number on.
    pub(in crate::referee) fn opened(&self, since: usize) -> usize {
        self.events.iter().skip(since).filter(|event| matches!(event.what, What::Opened { .. })).count()
    }

    /// Connections that no side has ended yet.
    pub(in crate::referee) fn open(&self) -> usize {
        let closed = self.events.iter().filter(|event| matches!(event.what, What::Closed { .. })).count();
        self.opened(0).saturating_sub(closed)
    }

    /// The first and the last events, a line each.
    pub(in crate::referee) fn story(&self) -> String {
        let mut story = String::new();
        let left_out = self.events.len().saturating_sub(SHOWN_FIRST + SHOWN_LAST);
        for (number, event) in self.events.iter().enumerate() {
            if left_out > 0 && number == SHOWN_FIRST {
                let _ = writeln!(story, "           … {left_out} more …");
            }
            if number < SHOWN_FIRST || number >= SHOWN_FIRST + left_out {
                let _ = writeln!(story, "{}", line(event));
            }
        }
        if self.lost > 0 {
            let _ = writeln!(story, "           … {} more, which were not kept", self.lost);
        }
        story
    }
}

fn line(event: &Event) -> String {
    let mut line = format!("{:>9.3} s ", event.at.as_secs_f64());
    let arrow = |by| match by {
        By::Client => "->",
        By::Broker => "<-",
    };
    let number = event.connection;
    let _ = match &event.what {
        What::Opened { broker } => write!(line, "#{number} opened, to broker {broker}"),
        What::Frame { by, frame, bytes } => {
            let body = format!("{frame:?}");
            write!(line, "#{number} {} {} ({} bytes) {body}", arrow(*by), frame.name(), bytes.len())
        }
        What::Unreadable { by, bytes, why } => {
            write!(line, "#{number} {} {bytes} bytes that are no frame: {why}", arrow(*by))
        }
        What::Closed { by: By::Client } => write!(line, "#{number} closed by the client"),
        What::Closed { by: By::Broker } => write!(line, "#{number} closed by the broker"),
        What::Note(note) => write!(line, "   {note}"),
    };
    shown(&line, LINE_CHARS_MAX)
}
