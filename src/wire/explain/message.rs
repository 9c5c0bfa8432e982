//! The fields of one protobuf message.

use std::collections::HashMap;
use std::ops::Range;

use super::schema::{FieldType, Kind, MessageType, enum_value};
use super::walk::{Step, VarintBreak, Walk};
use super::{DEPTH_MAX, Value, WireType, commands, meaning};

/// Where a field is: the message around it, its tag and its value.
struct Place<'a> {
    message: &'static MessageType,
    /// The path of the message.
    prefix: &'a str,
    depth: usize,
    /// The tag.
    start: usize,
    /// The value, behind the tag.
    value_at: usize,
    /// Where the bytes of the message end that are there.
    end: usize,
    /// Where the message ends by its length.
    declared_end: usize,
}

impl Walk {
    /// The fields of a message in `range`, of which by its length more may follow, up to `declared_end`.
    pub(super) fn message(
        &mut self,
        range: Range<usize>,
        declared_end: usize,
        message: &'static MessageType,
        prefix: &str,
        depth: usize,
    ) -> Step {
        let end = range.end;
        let mut start = range.start;
        let mut counts: HashMap<u32, usize> = HashMap::new();
        while start < end {
            if self.is_full() {
                self.rest(start..end, depth, "not described: too many fields");
                return Ok(());
            }
            let (tag, value_at) = self.tag(start, end, prefix, depth)?;
            let number = (tag >> 3) as u32;
            let count = counts.entry(number).or_default();
            let index = *count;
            *count += 1;
            let place = Place { message, prefix, depth, start, value_at, end, declared_end };
            start = match message.field(number) {
                Some(field) => {
                    let path = match field.is_repeated {
                        true => format!("{prefix}.{}[{index}]", field.name),
                        false => format!("{prefix}.{}", field.name),
                    };
                    let (next, values) = self.field(&place, field, &path, tag & 7, index)?;
                    *counts.entry(number).or_default() += values.saturating_sub(1);
                    next
                }
                None => self.unknown_field(&place, number, tag & 7)?,
            };
        }
        self.check_end(end, declared_end, depth, prefix, message.name)?;
        match message.fields.iter().find(|field| field.is_required && !counts.contains_key(&field.number)) {
            // What names the command is asked for by the caller.
            Some(field) if message.name != "BaseCommand" => {
                let expected = format!("the required field {}", field.name);
                self.broken(end..end, depth, format!("{prefix}.{}", field.name), end, expected)
            }
            _ => Ok(()),
        }
    }

    fn tag(&mut self, start: usize, end: usize, prefix: &str, depth: usize) -> Step<(u64, usize)> {
        let path = format!("{prefix}.?");
        match self.varint(start, end) {
            Ok((tag, next)) if u32::try_from(tag).is_ok_and(|tag| tag >> 3 != 0) => Ok((tag, next)),
            Ok((_, next)) => {
                self.broken(start..next, depth, path, start, "a field: a number from 1 to 536870911 and a wire type")
            }
            Err(reason) => self.broken_varint(start..end, depth, path, &reason, "the tag of a field"),
        }
    }

    fn broken_varint<T>(
        &mut self,
        bytes: Range<usize>,
        depth: usize,
        path: String,
        reason: &VarintBreak,
        what: &str,
    ) -> Step<T> {
        match *reason {
            VarintBreak::End => {
                let at = bytes.end;
                self.broken(bytes, depth, path, at, format!("more bytes: {what} ends within a varint"))
            }
            VarintBreak::TooLong(at) => {
                let expected = format!("the end of a varint: {what} has 64 bits");
                self.broken(bytes.start..at + 1, depth, path, at, expected)
            }
        }
    }

    /// A field of the schema; gives where it ends and how many values it had.
    fn field(
        &mut self,
        place: &Place<'_>,
        field: &'static FieldType,
        path: &str,
        wire: u64,
        index: usize,
    ) -> Step<(usize, usize)> {
        let expected = field.kind.wire_type();
        if wire == 2 && expected != 2 && field.is_repeated {
            return self.packed(place, field, path, index);
        }
        if wire != u64::from(expected) {
            let text = format!("{}, not {}", wire_name(expected.into()), wire_name(wire));
            let end = place.value_at;
            return self.broken(place.start..end, place.depth, path, place.start, text);
        }
        let end = match field.kind {
            Kind::Double => self.double(place, path)?,
            Kind::String | Kind::Bytes | Kind::Message(_) => self.delimited(place, field, path)?,
            kind => {
                let (number, end) = self.number(place, path)?;
                let value = number_value(kind, number);
                self.value(place.start..end, place, field, path, WireType::Varint, value);
                end
            }
        };
        Ok((end, 1))
    }

    fn value(
        &mut self,
        bytes: Range<usize>,
        place: &Place<'_>,
        field: &FieldType,
        path: &str,
        wire_type: WireType,
        value: Value,
    ) {
        let meaning = meaning::of_field(place.message.name, field.name, &value);
        self.push(bytes, place.depth, path, wire_type, value).meaning = meaning;
    }

    fn number(&mut self, place: &Place<'_>, path: &str) -> Step<(u64, usize)> {
        match self.varint(place.value_at, place.end) {
            Ok(read) => Ok(read),
            Err(reason) => {
                self.broken_varint(place.start..place.end, place.depth, path.to_owned(), &reason, "the value")
            }
        }
    }

    fn double(&mut self, place: &Place<'_>, path: &str) -> Step<usize> {
        let bytes = self.fixed::<8>(place, path)?;
        let value = Value::Double(f64::from_le_bytes(bytes));
        let end = place.value_at + bytes.len();
        self.push(place.start..end, place.depth, path, WireType::Fixed64, value);
        Ok(end)
    }

    fn fixed<const N: usize>(&mut self, place: &Place<'_>, path: &str) -> Step<[u8; N]> {
        match self.bytes.get(place.value_at..place.end).and_then(|rest| rest.first_chunk()) {
            Some(bytes) => Ok(*bytes),
            None => self.broken(place.start..place.end, place.depth, path, place.end, format!("{N} bytes of a value")),
        }
    }

    /// The length of what is delimited: where it starts, and where it ends by its length.
    fn length(&mut self, place: &Place<'_>, path: &str) -> Step<Range<usize>> {
        let (length, start) = self.number(place, path)?;
        let most = place.declared_end - start;
        match usize::try_from(length) {
            Ok(length) if length <= most => Ok(start..start + length),
            _ => {
                let expected = format!("a length of at most {most}: {} ends there", place.message.name);
                self.broken(place.start..start, place.depth, path, place.value_at, expected)
            }
        }
    }

    fn delimited(&mut self, place: &Place<'_>, field: &'static FieldType, path: &str) -> Step<usize> {
        let inside = self.length(place, path)?;
        let is_secret = commands::is_secret(place.message.name, field.name);
        if let Some(nested) = field.kind.message().filter(|_| place.depth < DEPTH_MAX) {
            let value = Value::Message { name: nested.name, size: inside.len() };
            let meaning = meaning::of_field(place.message.name, field.name, &value);
            let depth = place.depth;
            self.push(place.start..inside.start, depth, path, WireType::Length, value).meaning = meaning;
            let is_body = place.message.name == "BaseCommand";
            let prefix = if is_body { nested.name } else { path };
            self.message(inside.start..inside.end.min(place.end), inside.end, nested, prefix, depth + 1)?;
            return Ok(inside.end);
        }
        if inside.end > place.end {
            let missing = inside.end - place.end;
            let was_guarded = self.is_guarded;
            self.is_guarded |= is_secret;
            let expected = format!("{missing} more bytes of {}: the input ends here", field.name);
            let broken = self.broken(place.start..place.end, place.depth, path, place.end, expected);
            self.is_guarded = was_guarded;
            return broken;
        }
        let bytes = self.bytes.slice(inside.clone());
        let all = place.start..inside.end;
        let value = match field.kind {
            _ if is_secret => Value::Secret { size: bytes.len() },
            Kind::String => match std::str::from_utf8(&bytes) {
                Ok(text) => Value::Text(text.to_owned()),
                Err(error) => {
                    let at = inside.start + error.valid_up_to();
                    return self.broken(place.start..at + 1, place.depth, path, at, "UTF-8");
                }
            },
            _ => Value::Bytes(bytes),
        };
        self.value(all, place, field, path, WireType::Length, value);
        Ok(inside.end)
    }

    /// Repeated numbers in one field; the tag and the length have a line, and each number.
    fn packed(
        &mut self,
        place: &Place<'_>,
        field: &'static FieldType,
        path: &str,
        index: usize,
    ) -> Step<(usize, usize)> {
        let inside = self.length(place, path)?;
        let list = path.rsplit_once('[').map_or(path, |(list, _)| list);
        let value = Value::PackedList { size: inside.len() };
        self.push(place.start..inside.start, place.depth, list, WireType::Length, value);
        let (mut at, mut count, end) = (inside.start, 0, inside.end.min(place.end));
        while at < end {
            if self.is_full() {
                self.rest(at..end, place.depth, "not described: too many fields");
                return Ok((end, count));
            }
            let path = format!("{list}[{}]", index + count);
            let element = Place { start: at, value_at: at, end, depth: place.depth + 1, ..*place };
            let (number, next) = self.number(&element, &path)?;
            self.value(at..next, &element, field, &path, WireType::Packed, number_value(field.kind, number));
            (at, count) = (next, count + 1);
        }
        self.check_end(end, inside.end, place.depth + 1, list, field.name)?;
        Ok((end, count))
    }

    /// A field that the schema does not have: peers skip it.
    fn unknown_field(&mut self, place: &Place<'_>, number: u32, wire: u64) -> Step<usize> {
        const SKIPPED: &str = "unknown here: skipped";
        let path = format!("{}.{number}", place.prefix);
        let (end, wire_type, value) = match wire {
            0 => {
                let (value, end) = self.number(place, &path)?;
                (end, WireType::Varint, Value::Uint64(value))
            }
            1 => {
                let bytes = self.fixed::<8>(place, &path)?;
                (place.value_at + 8, WireType::Fixed64, Value::Uint64(u64::from_le_bytes(bytes)))
            }
            5 => {
                let bytes = self.fixed::<4>(place, &path)?;
                (place.value_at + 4, WireType::Fixed32, Value::Uint32(u32::from_le_bytes(bytes)))
            }
            2 => {
                let inside = self.length(place, &path)?;
                if inside.end > place.end {
                    let expected = format!("{} more bytes of field {number}", inside.end - place.end);
                    return self.broken(place.start..place.end, place.depth, path, place.end, expected);
                }
                let value = match self.is_guarded {
                    true => Value::Secret { size: inside.len() },
                    false => Value::Bytes(self.bytes.slice(inside.clone())),
                };
                (inside.end, WireType::Length, value)
            }
            _ => {
                let text = format!("a wire type of 0, 1, 2 or 5, not {}", wire_name(wire));
                return self.broken(place.start..place.value_at, place.depth, path, place.start, text);
            }
        };
        self.push(place.start..end, place.depth, path, wire_type, value).meaning = Some(SKIPPED.into());
        Ok(end)
    }
}

/// A varint as the declared type has it; of a smaller type the low bits.
fn number_value(kind: Kind, number: u64) -> Value {
    match kind {
        Kind::Bool => Value::Bool(number != 0),
        Kind::Int32 => Value::Int32(number as i32),
        Kind::Int64 => Value::Int64(number as i64),
        Kind::Uint32 => Value::Uint32(number as u32),
        Kind::Enum(index) => Value::Enum { number: number as i32, name: enum_value(index, number as i32) },
        _ => Value::Uint64(number),
    }
}

fn wire_name(wire: u64) -> &'static str {
    match wire {
        0 => "a varint (wire type 0)",
        1 => "8 bytes (wire type 1)",
        2 => "a length and bytes (wire type 2)",
        3 => "the start of a group (wire type 3)",
        4 => "the end of a group (wire type 4)",
        5 => "4 bytes (wire type 5)",
        6 => "wire type 6",
        _ => "wire type 7",
    }
}
