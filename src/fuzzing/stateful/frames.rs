//! Frames out of decisions: of every command, with fields that fit and fields that do not.

use bytes::{BufMut as _, BytesMut};

use super::Choices;
use crate::wire::batch::put_record;
use crate::wire::entry::put_entry;
use crate::wire::metadata::{ChunkFields, MetadataFields, SingleFields};
use crate::wire::proto::{put_bytes, put_varint};

/// Names of topics, subscriptions and producers that a command may have, and what is none of them.
const TEXTS: [&str; 12] = [
    "persistent://public/default/t",
    "persistent://public/default/p",
    "persistent://public/default/p-partition-0",
    "non-persistent://public/default/n",
    "public/default",
    "s",
    "p",
    "pulsar://broker:6650",
    "pulsar://other:6650",
    "pulsar+ssl://other:6651",
    ".*",
    "",
];

/// The highest number in `BaseCommand.Type`, and some beyond.
const TYPES_MAX: usize = 80;

/// Fields of a command at most, its required ones included.
const FIELDS_MAX: usize = 12;

/// A frame of any command, field by field: numbers, texts and nested messages where the input puts them.
pub(super) fn put_any_command(choices: &mut Choices<'_>, out: &mut BytesMut) {
    let kind = choices.below(TYPES_MAX) as u32;
    let mut body = Vec::new();
    put_fields(choices, &mut body, 2);
    let mut command = vec![0x08, kind as u8];
    put_bytes(&mut command, kind.max(1), &body);
    let behind = if choices.byte() > 240 { choices.bytes() } else { &[] };
    put_sized(out, &command, behind);
}

fn put_fields(choices: &mut Choices<'_>, out: &mut Vec<u8>, depth: u32) {
    for _ in 0..choices.below(FIELDS_MAX) {
        let number = 1 + choices.below(16) as u32;
        match choices.below(8) {
            0..=3 => {
                put_varint(out, u64::from(number) << 3);
                put_varint(out, choices.number());
            }
            4 => put_bytes(out, number, choices.pick(&TEXTS).as_bytes()),
            5 => put_bytes(out, number, choices.bytes()),
            _ if depth > 0 => {
                let mut inner = Vec::new();
                put_fields(choices, &mut inner, depth - 1);
                put_bytes(out, number, &inner);
            }
            _ => {}
        }
    }
}

/// `total_size`, `command_size`, the command, and what is behind it.
pub(super) fn put_sized(out: &mut BytesMut, command: &[u8], behind: &[u8]) {
    out.put_u32((4 + command.len() + behind.len()) as u32);
    out.put_u32(command.len() as u32);
    out.put_slice(command);
    out.put_slice(behind);
}

/// The content of a SEND or MESSAGE: one message, a batch, a chunk, or what cannot be read.
pub(super) fn entry(choices: &mut Choices<'_>) -> BytesMut {
    let mut out = BytesMut::new();
    let sequence_id = choices.number();
    let mut fields = MetadataFields {
        producer_name: "p",
        sequence_id,
        publish_time_ms: 1_700_000_000_000,
        ..MetadataFields::default()
    };
    let uuid = ["a", "b"][choices.below(2)];
    match choices.below(8) {
        0 => out.put_slice(choices.bytes()),
        1 | 2 => put_batch(choices, fields, &mut out),
        3 => {
            fields.chunk = Some(ChunkFields {
                uuid,
                num_chunks: choices.number() as i32,
                chunk_id: choices.number() as i32,
                total_bytes: choices.number() as i32,
            });
            put_entry(&mut out, &fields, choices.bytes());
        }
        4 => {
            fields.compression = choices.number() as i32;
            fields.uncompressed_size = choices.number() as u32;
            put_entry(&mut out, &fields, choices.bytes());
        }
        _ => put_entry(&mut out, &fields, choices.bytes()),
    }
    if choices.byte() > 230 && !out.is_empty() {
        let at = choices.below(256) % out.len();
        out[at] ^= 1 << choices.below(8);
    }
    out
}

/// A batch whose metadata may count more or fewer than there are.
fn put_batch(choices: &mut Choices<'_>, mut fields: MetadataFields<'_>, out: &mut BytesMut) {
    let mut payload = BytesMut::new();
    let count = choices.below(9);
    for member in 0..count {
        let sequence_id = Some(fields.sequence_id.wrapping_add(member as u64));
        let single = SingleFields { sequence_id, payload_size: 6, ..SingleFields::default() };
        put_record(&mut payload, &single, b"member");
    }
    let told = if choices.byte() > 220 { choices.number() as i32 } else { count as i32 };
    fields.num_messages_in_batch = Some(told);
    put_entry(out, &fields, &payload);
}
