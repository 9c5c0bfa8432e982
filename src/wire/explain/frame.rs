//! The sizes of a frame and its command.

use std::ops::Range;

use bytes::Bytes;

use super::schema::MessageType;
use super::walk::{Step, Walk};
use super::{Explanation, Value, WireType, commands};
use crate::wire::{FRAME_PADDING_BYTES, MAX_MESSAGE_SIZE_DEFAULT};

/// The size of each of the two length fields.
const SIZE_BYTES: usize = 4;

/// What `total_size` may be by default.
const TOTAL_SIZE_MAX: u32 = MAX_MESSAGE_SIZE_DEFAULT + FRAME_PADDING_BYTES - SIZE_BYTES as u32;

/// Commands with an entry behind them.
const SEND: i32 = 6;
const MESSAGE: i32 = 9;

/// Why the end of a frame is not read.
const UNREAD: &str = "not read: what stands before it is broken";

/// See [`explain_frame`](super::explain_frame).
pub(super) fn explain(mut input: Bytes, offset: u64) -> Explanation {
    let end = match input.first_chunk().copied().map(u32::from_be_bytes) {
        Some(total @ SIZE_MIN..) => (total as usize).saturating_add(SIZE_BYTES).min(input.len()),
        _ => input.len(),
    };
    input.truncate(end);
    let mut walk = Walk::new(input.clone());
    let mut command = None;
    let _ = walk.frame(&mut command);
    let end = walk.lines.iter().rev().find(|line| line.content.is_none()).map_or(0, |line| line.bytes.end);
    walk.rest(end..input.len(), 0, UNREAD);
    Explanation { input, contents: walk.contents, offset, command, lines: walk.lines }
}

/// The smallest `total_size`: the other length field.
const SIZE_MIN: u32 = SIZE_BYTES as u32;

impl Walk {
    fn frame(&mut self, name: &mut Option<&'static str>) -> Step {
        let length = self.bytes.len();
        let total = self.total_size()?;
        let frame_end = SIZE_BYTES.saturating_add(total as usize);
        let Some(size) = self.u32_at(SIZE_BYTES, length) else {
            return self.broken_size(SIZE_BYTES..length, "command_size", "4 bytes: the size of the command");
        };
        if size > total - SIZE_MIN {
            let expected = format!("at most {}: the command is part of the frame", total - SIZE_MIN);
            let _ = self.broken::<()>(SIZE_BYTES..2 * SIZE_BYTES, 0, "command_size", SIZE_BYTES, expected);
            self.set_last(WireType::U32, Value::Uint32(size));
            return Err(super::walk::Broken);
        }
        self.push(SIZE_BYTES..2 * SIZE_BYTES, 0, "command_size", WireType::U32, Value::Uint32(size)).meaning =
            Some("bytes of the command, a BaseCommand".into());
        let (start, command_end) = (2 * SIZE_BYTES, 2 * SIZE_BYTES + size as usize);
        let kind = self.command(start, command_end, name)?;
        if matches!(kind, SEND | MESSAGE) {
            return self.entry(command_end, frame_end);
        }
        self.rest(command_end..length, 0, "skipped: nothing belongs behind this command");
        self.check_end(length, frame_end, 0, "rest", "the frame")
    }

    fn total_size(&mut self) -> Step<u32> {
        let length = self.bytes.len();
        let Some(total) = self.u32_at(0, length) else {
            return self.broken_size(0..length, "total_size", "4 bytes: the size of the frame");
        };
        let is_cut = total as usize > length - SIZE_BYTES;
        let expected = match total {
            ..SIZE_MIN => "at least 4: command_size is part of the frame".to_owned(),
            _ if is_cut && total > TOTAL_SIZE_MAX => self.expected_total_size(),
            _ => {
                let line = self.push(0..SIZE_BYTES, 0, "total_size", WireType::U32, Value::Uint32(total));
                line.meaning = Some("bytes of the frame behind this field".into());
                return Ok(total);
            }
        };
        let _ = self.broken::<()>(0..SIZE_BYTES, 0, "total_size", 0, expected);
        self.set_last(WireType::U32, Value::Uint32(total));
        Err(super::walk::Broken)
    }

    /// A size that is cut; no part of a credential is in it.
    fn broken_size<T>(&mut self, bytes: Range<usize>, path: &str, expected: &'static str) -> Step<T> {
        let end = bytes.end;
        let broken = self.broken(bytes, 0, path, end, expected);
        self.set_last(WireType::Raw, Value::None);
        broken
    }

    /// What a frame that is too long starts with instead.
    fn expected_total_size(&self) -> String {
        let seen = match &self.bytes[..] {
            [0x14..=0x17, 3, 0..=4, ..] => "; these bytes are a record of TLS",
            [b'G', b'E', b'T', b' ', ..] | [b'P', b'O', b'S', b'T', ..] | [b'P', b'U', b'T', b' ', ..] => {
                "; these bytes are a request of HTTP"
            }
            [b'H', b'T', b'T', b'P', ..] => "; these bytes are a response of HTTP",
            _ => "",
        };
        format!("at most {TOTAL_SIZE_MAX}, unless CONNECTED has named a larger max_message_size{seen}")
    }

    /// The BaseCommand; gives its type.
    fn command(&mut self, start: usize, end: usize, name: &mut Option<&'static str>) -> Step<i32> {
        let base = MessageType::named("BaseCommand");
        let available = end.min(self.bytes.len());
        let found = self.command_type(start, available);
        if let Some(kind) = found {
            let known = commands::of_type(kind);
            *name = Some(known.map_or("UNKNOWN", |known| known.name));
            self.is_guarded = known.is_none_or(|known| known.is_guarded);
            self.chapter = known.map(|known| known.chapter);
        }
        self.message(start..available, end, base, "BaseCommand", 1)?;
        let Some(kind) = found else {
            return self.broken(end..end, 1, "BaseCommand.type", end, "the required field type");
        };
        let body = u32::try_from(kind).ok().and_then(|number| base.field(number)).filter(|field| field.number > 1);
        match body {
            Some(body) if !self.has(&format!("BaseCommand.{}", body.name)) => {
                let expected = format!("the field {}, which the type names", body.name);
                self.broken(end..end, 1, format!("BaseCommand.{}", body.name), end, expected)
            }
            _ => Ok(kind),
        }
    }

    fn has(&self, path: &str) -> bool {
        self.lines.iter().any(|line| line.path == path)
    }

    /// The last type in a BaseCommand, which counts, as far as it can be read.
    fn command_type(&self, mut at: usize, end: usize) -> Option<i32> {
        let mut found = None;
        while at < end {
            let Ok((tag, value_at)) = self.varint(at, end) else { break };
            let Ok((value, value_end)) = self.varint(value_at, end) else { break };
            at = match tag & 7 {
                0 => value_end,
                1 => value_at + 8,
                2 => value_end.saturating_add(usize::try_from(value).unwrap_or(usize::MAX)),
                5 => value_at + 4,
                _ => break,
            };
            if tag == 1 << 3 {
                found = Some(value as i32);
            }
        }
        found
    }

    /// A line for what is missing where a part ends before `end`.
    pub(super) fn check_end(&mut self, at: usize, end: usize, depth: usize, path: &str, part: &str) -> Step {
        let missing = end.saturating_sub(at);
        if missing == 0 {
            return Ok(());
        }
        let plural = if missing == 1 { "" } else { "s" };
        self.broken(at..at, depth, path, at, format!("{missing} more byte{plural} of {part}: the input ends here"))
    }

    /// Gives the last line a value that could be read, though it breaks the protocol.
    pub(super) fn set_last(&mut self, wire_type: WireType, value: Value) {
        if let Some(line) = self.lines.last_mut() {
            (line.wire_type, line.value) = (wire_type, value);
        }
    }
}
