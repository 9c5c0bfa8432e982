//! Messages of the schema made of arbitrary bytes: what a fuzzer needs to get behind required fields, lengths and types. And
//! the dictionary of the fuzzer, from the same tables.

#[cfg(test)]
use std::collections::BTreeSet;
#[cfg(test)]
use std::fmt::Write as _;

use super::schema::{FieldType, Kind, MessageType, all};
#[cfg(test)]
use crate::wire::{MAGIC_BROKER_ENTRY_METADATA, MAGIC_CRC32C};

/// How deep messages nest in each other: those that nest themselves end there.
const DEPTH_MAX: usize = 4;

/// The bytes that a fuzzer gives, as decisions. Behind their end every byte is 0, which decides for the smallest.
#[derive(Debug)]
pub(crate) struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// One of so many.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        let wide = usize::from(self.byte()) << 8 | usize::from(if count > 256 { self.byte() } else { 0 });
        if count > 256 { wide % count } else { (wide >> 8) % count.max(1) }
    }

    /// A number of any size; small ones take few bytes.
    pub(crate) fn number(&mut self) -> u64 {
        let size = usize::from(self.byte() % 9);
        (0..size).fold(0, |value, _| value << 8 | u64::from(self.byte()))
    }

    /// At most so many bytes.
    pub(crate) fn bytes(&mut self, max: usize) -> &'a [u8] {
        let wanted = self.below(max + 1).min(self.0.len());
        let (front, rest) = self.0.split_at(wanted);
        self.0 = rest;
        front
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(feature = "capture")]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// Fields of the outermost message that are not left to the source: their number, or `None` to leave them out.
pub(crate) type Fixed<'a> = &'a [(&'static str, Option<u64>)];

/// A message of that name with all its required fields, and such others as the source decides for.
pub(crate) fn message(name: &str, source: &mut Source<'_>, fixed: Fixed<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    put_message(MessageType::named(name), source, fixed, 0, &mut out);
    out
}

/// The number of a command of the schema, and a whole `BaseCommand` of it.
pub(crate) fn base_command(source: &mut Source<'_>) -> (i32, Vec<u8>) {
    // Its first field is the type; each other has the number of its type.
    let fields = MessageType::named("BaseCommand").fields;
    let field = &fields[1 + source.below(fields.len() - 1)];
    let mut body = Vec::new();
    put_message(field.kind.message().expect("the body of a command"), source, &[], 0, &mut body);
    (field.number as i32, enveloped(field.number, &body))
}

/// A `BaseCommand` whose body has all it has to have but one field; `None` if it has to have none.
pub(crate) fn base_command_lacking(source: &mut Source<'_>) -> Option<Vec<u8>> {
    let fields = MessageType::named("BaseCommand").fields;
    let field = &fields[1 + source.below(fields.len() - 1)];
    let kind = field.kind.message().expect("the body of a command");
    let required: Vec<_> = kind.fields.iter().filter(|field| field.is_required).collect();
    let left_out = required.get(source.below(required.len()))?.name;
    let mut body = Vec::new();
    put_message(kind, source, &[(left_out, None)], 0, &mut body);
    Some(enveloped(field.number, &body))
}

fn enveloped(number: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_key(&mut out, 1, 0);
    put_varint(&mut out, number.into());
    put_key(&mut out, number, 2);
    put_sized(&mut out, body);
    out
}

fn put_message(message: &MessageType, source: &mut Source<'_>, fixed: Fixed<'_>, depth: usize, out: &mut Vec<u8>) {
    for field in message.fields {
        if let Some((_, value)) = fixed.iter().find(|(name, _)| *name == field.name) {
            if let Some(value) = value {
                put_key(out, field.number, 0);
                put_varint(out, *value);
            }
            continue;
        }
        let count = match (field.is_required, field.is_repeated) {
            (true, _) => 1,
            _ if depth == DEPTH_MAX => 0,
            (_, true) => [0, 0, 1, 2][source.below(4)],
            (_, false) => usize::from(source.below(3) == 1),
        };
        (0..count).for_each(|_| put_field(field, source, depth, out));
    }
}

fn put_field(field: &FieldType, source: &mut Source<'_>, depth: usize, out: &mut Vec<u8>) {
    put_key(out, field.number, field.kind.wire_type());
    match field.kind {
        Kind::Bool => put_varint(out, source.byte() as u64 & 1),
        // A negative number has ten bytes.
        Kind::Int32 => put_varint(out, source.number() as i32 as i64 as u64),
        Kind::Uint32 => put_varint(out, source.number() & u64::from(u32::MAX)),
        Kind::Int64 | Kind::Uint64 => {
            let number = source.number();
            put_varint(out, number);
        }
        Kind::Double => out.extend(source.number().to_le_bytes()),
        Kind::Enum(index) => {
            let values = all().1[index];
            put_varint(out, values[source.below(values.len())].0 as i64 as u64);
        }
        Kind::Bytes => put_sized(out, source.bytes(40)),
        Kind::String => {
            let text: String = source.bytes(40).iter().map(|byte| char::from(*byte)).collect();
            put_sized(out, text.as_bytes());
        }
        Kind::Message(index) => {
            let mut body = Vec::new();
            put_message(&all().0[index], source, &[], depth + 1, &mut body);
            put_sized(out, &body);
        }
    }
}

fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn put_key(out: &mut Vec<u8>, number: u32, wire_type: u8) {
    put_varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What the schema and the formats around it have as fixed bytes, in the form of libFuzzer: the keys of all fields, the starts
/// of all commands, names of enum values as the REST interface writes them, magic numbers.
#[cfg(test)]
pub(crate) fn dictionary() -> String {
    let mut entries = BTreeSet::new();
    for field in all().0.iter().flat_map(|message| message.fields) {
        let mut key = Vec::new();
        put_key(&mut key, field.number, field.kind.wire_type());
        entries.insert(key);
    }
    for field in &MessageType::named("BaseCommand").fields[1..] {
        let mut start = vec![1 << 3, field.number as u8];
        put_key(&mut start, field.number, 2);
        entries.insert(start);
    }
    let magic = [MAGIC_CRC32C, MAGIC_BROKER_ENTRY_METADATA].map(|magic| magic.to_be_bytes().to_vec());
    entries.extend(magic);
    // Ten bytes of a varint: -1, and one that is too large.
    entries.insert([vec![0xff; 9], vec![1]].concat());
    entries.insert([vec![0xff; 9], vec![2]].concat());
    // Starts of zstd, zlib, pcap of both orders and both units, pcapng.
    entries.insert(vec![0x28, 0xb5, 0x2f, 0xfd]);
    entries.insert(vec![0x78, 0x9c]);
    for magic in [0xa1b2_c3d4_u32, 0xa1b2_3c4d, 0x0a0d_0d0a, 0x1a2b_3c4d] {
        entries.extend([magic.to_le_bytes().to_vec(), magic.to_be_bytes().to_vec()]);
    }
    let texts = ["persistent://", "non-persistent://", "-partition-", "pulsar+ssl://", "public/default", "/admin/v2/"];
    entries.extend(texts.map(|text| text.as_bytes().to_vec()));
    let mut out =
        String::from("# Made from PulsarApi.proto by a test: FUZZ_DICTIONARY=write cargo test --lib dictionary\n");
    for entry in entries {
        let bytes = entry.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "\\x{byte:02x}");
            text
        });
        let _ = writeln!(out, "\"{bytes}\"");
    }
    out
}
