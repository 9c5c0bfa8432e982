//! Captured connections: both directions of all of them, in the order of time.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use pulsar_native::capture::{
    CaptureError, Direction, FramePiece, FramePieceKind, FrameReader, PacketCounts, Segment, SegmentEvent,
    SegmentReader, Traffic,
};
use pulsar_native::wire::explain::{date, explain_frame};

use super::View;
use crate::{CliResult, output};

/// A connection that is shown.
struct Connection {
    /// By direction: to the broker, to the client.
    frames: [FrameReader; 2],
    last: SystemTime,
    is_closed: [bool; 2],
    /// That it speaks another protocol has been said.
    is_told: bool,
}

#[derive(Default)]
struct Summary {
    connections: u64,
    frames: u64,
    /// Of which the capture lacks a part.
    cut: u64,
    broken: u64,
    gaps: u64,
    missing: u64,
    skipped: u64,
}

pub(super) fn of_file(view: &View, reader: &mut SegmentReader<impl Read>) -> CliResult {
    let mut shown = Shown::new(view);
    let result = shown.all(reader.by_ref());
    shown.end(reader.counts())?;
    result
}

pub(super) fn of_segments(view: &View, segments: Vec<Segment>) -> CliResult {
    let mut shown = Shown::new(view);
    shown.all(segments.into_iter().map(Ok))?;
    shown.end(PacketCounts::default())
}

struct Shown<'a> {
    view: &'a View,
    connections: BTreeMap<u64, Connection>,
    summary: Summary,
}

impl<'a> Shown<'a> {
    fn new(view: &'a View) -> Self {
        Self { view, connections: BTreeMap::new(), summary: Summary::default() }
    }

    fn all(&mut self, segments: impl Iterator<Item = Result<Segment, CaptureError>>) -> CliResult {
        for segment in segments {
            let segment = segment?;
            if self.view.connection.is_none_or(|only| only == segment.connection) {
                self.segment(segment)?;
            }
        }
        Ok(())
    }

    fn segment(&mut self, segment: Segment) -> CliResult {
        let Segment { connection: number, at, event } = segment;
        match event {
            SegmentEvent::Opened { client, broker, is_partial } => {
                self.summary.connections += 1;
                let frames = [FrameReader::new(is_partial), FrameReader::new(is_partial)];
                self.connections.insert(number, Connection { frames, last: at, is_closed: [false; 2], is_told: false });
                let partial = if is_partial { ", of which the capture lacks the beginning" } else { "" };
                let text = format!("client {client}, broker {broker}{partial}");
                let members = format!("\"client\":\"{client}\",\"broker\":\"{broker}\",\"is_partial\":{is_partial}");
                self.note(number, at, None, "opened", &text, &members)
            }
            SegmentEvent::Bytes { direction, bytes } => {
                let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
                connection.last = at;
                connection.frames[side(direction)].push(&bytes);
                self.pieces(number, at, direction)
            }
            SegmentEvent::Missing { direction, count } => {
                self.pieces(number, at, direction)?;
                self.summary.gaps += 1;
                self.summary.missing += count;
                let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
                let cut = connection.frames[side(direction)].missing(count);
                if let Some(piece) = cut {
                    self.piece(number, at, direction, piece)?;
                }
                let text = format!("the capture lacks {count} bytes");
                self.note(number, at, Some(direction), "missing", &text, &format!("\"count\":{count}"))
            }
            SegmentEvent::Closed { direction, is_reset } => {
                let sides = if is_reset { vec![direction.reversed(), direction] } else { vec![direction] };
                for direction in sides {
                    if let Some(connection) = self.connections.get_mut(&number) {
                        connection.frames[side(direction)].end();
                        connection.is_closed[side(direction)] = true;
                    }
                    self.pieces(number, at, direction)?;
                }
                if self.connections.get(&number).is_some_and(|connection| connection.is_closed == [true; 2]) {
                    self.connections.remove(&number);
                }
                let text = if is_reset { "reset" } else { "closed" };
                self.note(number, at, Some(direction), "closed", text, &format!("\"is_reset\":{is_reset}"))
            }
            _ => Ok(()),
        }
    }

    fn pieces(&mut self, number: u64, at: SystemTime, direction: Direction) -> CliResult {
        while let Some(connection) = self.connections.get_mut(&number) {
            let Some(piece) = connection.frames[side(direction)].next_piece() else { break };
            self.piece(number, at, direction, piece)?;
        }
        Ok(())
    }

    fn piece(&mut self, number: u64, at: SystemTime, direction: Direction, piece: FramePiece) -> CliResult {
        let (kind, bytes) = match piece.kind {
            FramePieceKind::Frame(bytes) => ("frame", bytes),
            FramePieceKind::Cut(bytes) => ("cut", bytes),
            FramePieceKind::NoFrame(bytes) => ("no_frame", bytes),
            FramePieceKind::Skipped(count) => {
                self.summary.skipped += count;
                let text = format!("{count} bytes are skipped: no frame that can be told starts there");
                return self.note(number, at, Some(direction), "skipped", &text, &format!("\"count\":{count}"));
            }
            FramePieceKind::Other(traffic) => return self.other(number, at, direction, traffic),
            _ => return Ok(()),
        };
        let explained = explain_frame(bytes, 0);
        let is_broken = explained.problems().next().is_some();
        self.summary.frames += 1;
        let of_capture = if kind == "cut" { &mut self.summary.cut } else { &mut self.summary.broken };
        *of_capture += u64::from(is_broken);
        if !self.view.shows(&explained) {
            return Ok(());
        }
        if self.view.is_json {
            let members = format!("\"stream_offset\":{},\"frame\":{}", piece.offset, explained.to_json());
            return self.note(number, at, Some(direction), kind, "", &members);
        }
        let text = match kind {
            "cut" => format!("at {} of the stream, the start of a frame:", piece.offset),
            _ => format!("at {} of the stream:", piece.offset),
        };
        self.note(number, at, Some(direction), kind, &text, "")?;
        self.view.frame(&explained)
    }

    /// Says once for both directions what else is spoken.
    fn other(&mut self, number: u64, at: SystemTime, direction: Direction, traffic: Traffic) -> CliResult {
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        if std::mem::replace(&mut connection.is_told, true) {
            return Ok(());
        }
        let text = match traffic {
            Traffic::Tls => "TLS, which cannot be read from a capture; `pulsar-native tap` shows what is inside",
            Traffic::Http => "HTTP, as lookups over the REST interface of a broker are: not explained",
            _ => "another protocol",
        };
        self.note(number, at, Some(direction), "other", text, &format!("\"protocol\":\"{traffic}\""))
    }

    /// What happens on a connection, as a line of text or as an object of JSON with more members.
    fn note(
        &self,
        number: u64,
        at: SystemTime,
        direction: Option<Direction>,
        event: &str,
        text: impl Display,
        members: &str,
    ) -> CliResult {
        if !self.view.commands.is_empty() && !matches!(event, "frame" | "cut" | "no_frame") {
            return Ok(());
        }
        let time = time(at);
        if self.view.is_json {
            let direction = match direction {
                Some(Direction::ToBroker) => "\"to_broker\"",
                Some(Direction::ToClient) => "\"to_client\"",
                None => "null",
            };
            let head = format!("\"time\":\"{time}\",\"connection\":{number},\"direction\":{direction}");
            output::print(format_args!("{{{head},\"event\":\"{event}\",{members}}}"))?;
            return Ok(());
        }
        let arrow = match direction {
            Some(Direction::ToBroker) => ", client to broker",
            Some(Direction::ToClient) => ", broker to client",
            None => "",
        };
        output::print(format_args!("{time}  connection {number}{arrow}: {text}"))?;
        Ok(())
    }

    /// What is left, and what there was.
    fn end(mut self, counts: PacketCounts) -> CliResult {
        let numbers: Vec<_> = self.connections.iter().map(|(number, connection)| (*number, connection.last)).collect();
        for (number, last) in numbers {
            for direction in [Direction::ToBroker, Direction::ToClient] {
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.frames[side(direction)].end();
                }
                self.pieces(number, last, direction)?;
            }
        }
        let Summary { connections, frames, cut, broken, gaps, missing, skipped } = self.summary;
        let PacketCounts { packets, tcp, fragments, unknown_link, .. } = counts;
        // Of each the name in JSON and in the text, which leaves out what there is none of.
        let counts = [
            ("connections", "connections", connections),
            ("frames", "frames", frames),
            ("broken", "broken frames", broken),
            ("cut", "frames cut by the capture", cut),
            ("missing", "missing bytes", missing),
            ("gaps", "gaps", gaps),
            ("skipped", "skipped bytes", skipped),
            ("packets", "packets", packets),
            ("tcp", "packets of TCP", tcp),
            ("fragments", "IP fragments, left out", fragments),
            ("unknown_link", "packets of unknown networks, left out", unknown_link),
        ];
        if self.view.is_json {
            let members: String = counts.iter().map(|(name, _, count)| format!(",\"{name}\":{count}")).collect();
            output::print(format_args!("{{\"event\":\"summary\"{members}}}"))?;
            return Ok(());
        }
        let shown = counts.iter().filter(|(_, _, count)| *count > 0).map(|(_, name, count)| format!("{name}: {count}"));
        output::print(shown.collect::<Vec<_>>().join("; "))?;
        Ok(())
    }
}

fn side(direction: Direction) -> usize {
    match direction {
        Direction::ToBroker => 0,
        Direction::ToClient => 1,
    }
}

/// UTC, with microseconds. A dump has no date, and some have no time: then `-`.
fn time(at: SystemTime) -> String {
    const DATE_CHARS: usize = "1970-01-01T".len();
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = date(since.as_millis() as u64).unwrap_or_default();
    let text = format!("{}{:03}Z", text.trim_end_matches('Z'), since.subsec_micros() % 1000);
    match since.as_secs() {
        _ if since.is_zero() => "-".to_owned(),
        ..86_400 => text[DATE_CHARS..].trim_end_matches('Z').to_owned(),
        _ => text,
    }
}
