//! The commands of the hot path, decoded and encoded by hand: SEND, SEND_RECEIPT and MESSAGE in both
//! directions; ACK, FLOW, PING and PONG are only encoded.
//!
//! Whatever these decoders accept, a protobuf decoder of `PulsarApi.proto` accepts with equal values. They
//! are stricter in two places: a message id that is split into pieces must be complete in each piece that
//! nests another one, and the length of an `ack_set` is limited.

use bytes::{BufMut, BytesMut};
use prost::Message as _;

use super::ack_set::AckWords;
use super::error::{DecodeError, DecodeErrorKind};
use super::proto::{Reader, Value, bytes_len, int32, put_uint, put_varint, uint_len, varint_len};
use super::required;
use crate::pb;

mod receipt;

pub use receipt::{Receipt, put_receipt};

/// The most words of 64 bits in one `CommandMessage.ack_set`: a batch of four million messages.
pub const ACK_SET_WORDS_MAX: usize = 1 << 16;

/// The largest batch that is made and that is opened, messages: what an `ack_set` of the largest size can name.
pub const BATCH_MEMBERS_MAX: u32 = 64 * ACK_SET_WORDS_MAX as u32;

/// The `BaseCommand.Type` of the commands in this file.
pub(crate) const SEND: i32 = 6;
pub(crate) const SEND_RECEIPT: i32 = 7;
pub(crate) const MESSAGE: i32 = 9;
const ACK: i32 = 10;
const FLOW: i32 = 11;

/// `PING` and `PONG` with their lengths: an empty sub-message, which must be present.
const PING_FRAME: [u8; 13] = [0, 0, 0, 9, 0, 0, 0, 5, 0x08, 0x12, 0x92, 0x01, 0x00];
const PONG_FRAME: [u8; 13] = [0, 0, 0, 9, 0, 0, 0, 5, 0x08, 0x13, 0x9a, 0x01, 0x00];

/// The command of `MESSAGE`; the entry follows it in the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageHead {
    /// `CommandMessage.consumer_id`.
    pub consumer_id: u64,
    /// `MessageIdData.ledgerId`.
    pub ledger_id: u64,
    /// `MessageIdData.entryId`.
    pub entry_id: u64,
    /// `MessageIdData.partition`, -1 when absent.
    pub partition: i32,
    /// `CommandMessage.redelivery_count`, 0 when absent.
    pub redelivery_count: u32,
    /// `CommandMessage.ack_set`: words of the set of messages still to be delivered, empty for all.
    pub ack_set: AckWords,
    /// `CommandMessage.consumer_epoch`.
    pub consumer_epoch: Option<u64>,
}

/// The command of `SEND`; the entry follows it in the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendHead {
    /// `CommandSend.producer_id`.
    pub producer_id: u64,
    /// `CommandSend.sequence_id`: that of the first message of the entry.
    pub sequence_id: u64,
    /// `CommandSend.num_messages`, 1 when absent. Not checked against the entry.
    pub num_messages: i32,
    /// `CommandSend.highest_sequence_id`: that of the last message of the entry.
    pub highest_sequence_id: Option<u64>,
    /// `CommandSend.is_chunk`, false when absent.
    pub is_chunk: bool,
    /// `CommandSend.marker`, false when absent.
    pub marker: bool,
    /// `CommandSend.txnid_least_bits`.
    pub txnid_least_bits: Option<u64>,
    /// `CommandSend.txnid_most_bits`.
    pub txnid_most_bits: Option<u64>,
    /// `CommandSend.message_id`: ledger and entry. Brokers refuse it on ordinary topics.
    pub message_id: Option<(u64, u64)>,
}

/// The fields of an ACK, for [`put_ack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckFrame<'a> {
    /// `CommandAck.consumer_id`.
    pub consumer_id: u64,
    /// `CommandAck.ack_type`: `Cumulative` (which takes exactly one id) or `Individual`.
    pub cumulative: bool,
    /// `CommandAck.message_id`.
    pub ids: &'a [AckId],
    /// `CommandAck.validation_error`: why the entry cannot be decoded.
    pub validation_error: Option<i32>,
    /// `CommandAck.request_id`: requests an `ACK_RESPONSE`.
    pub request_id: Option<u64>,
}

/// One id of an [`AckFrame`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AckId {
    /// `MessageIdData.ledgerId`.
    pub ledger_id: u64,
    /// `MessageIdData.entryId`.
    pub entry_id: u64,
    /// `MessageIdData.ack_set`: words of the set of messages still unacknowledged, empty when the
    /// whole entry is acknowledged.
    pub ack_set: AckWords,
}

impl MessageHead {
    /// A MESSAGE of a topic that is not partitioned, delivered completely and for the first time.
    #[must_use]
    pub fn new(consumer_id: u64, ledger_id: u64, entry_id: u64) -> Self {
        Self {
            consumer_id,
            ledger_id,
            entry_id,
            partition: -1,
            redelivery_count: 0,
            ack_set: AckWords::NONE,
            consumer_epoch: None,
        }
    }

    /// Decodes the body of `BaseCommand.message`. Offsets in errors start at `base`.
    ///
    /// # Errors
    /// Bytes that are not protobuf, a field of another wire type, a missing required field, or an `ack_set`
    /// longer than [`ACK_SET_WORDS_MAX`].
    #[inline]
    pub fn decode(body: &[u8], base: usize) -> Result<Self, DecodeError> {
        match Self::decode_fast(body) {
            Some(head) => Ok(head),
            None => Self::decode_slow(body, base),
        }
    }

    /// Decodes a body in the usual layout: the fields that every MESSAGE has, in order, and at most a redelivery count
    /// after them. `None` for any other body, valid or not.
    #[inline]
    fn decode_fast(body: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(body, 0);
        let consumer_id = tagged(&mut reader, 0x08)?;
        let id_bytes = usize::try_from(tagged(&mut reader, 0x12)?).ok()?;
        let id_end = reader.offset().checked_add(id_bytes)?;
        let mut head = Self::new(consumer_id, tagged(&mut reader, 0x08)?, tagged(&mut reader, 0x10)?);
        if reader.offset() < id_end {
            head.partition = tagged(&mut reader, 0x18)? as i32;
        }
        if reader.offset() != id_end {
            return None;
        }
        if id_end < body.len() {
            head.redelivery_count = tagged(&mut reader, 0x18)? as u32;
        }
        (reader.offset() == body.len()).then_some(head)
    }

    #[inline(never)]
    fn decode_slow(body: &[u8], base: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, base);
        let (mut consumer_id, mut redelivery_count, mut consumer_epoch) = (None, 0, None);
        let mut id = IdDecoder::default();
        let mut ack_set = Vec::new();
        while let Some((number, value, at)) = reader.next_at("CommandMessage")? {
            match number {
                1 => consumer_id = Some(value.uint("CommandMessage.consumer_id", at)?),
                2 => id.decode(body, value, "CommandMessage.message_id", at, base)?,
                // Protobuf truncates a uint32 to its low bits.
                3 => redelivery_count = value.uint("CommandMessage.redelivery_count", at)? as u32,
                4 => decode_words(&mut ack_set, body, value, "CommandMessage.ack_set", at, base)?,
                5 => consumer_epoch = Some(value.uint("CommandMessage.consumer_epoch", at)?),
                _ => {}
            }
        }
        let partition = id.partition.unwrap_or(-1);
        let (ledger_id, entry_id) = present(id.finish(base)?, "CommandMessage.message_id", base)?;
        Ok(Self {
            consumer_id: present(consumer_id, "CommandMessage.consumer_id", base)?,
            ledger_id,
            entry_id,
            partition,
            redelivery_count,
            ack_set: ack_set.into(),
            consumer_epoch,
        })
    }

    fn id_len(&self) -> usize {
        uint_len(1, self.ledger_id) + uint_len(2, self.entry_id) + uint_len(3, int32(self.partition))
    }

    fn body_len(&self) -> usize {
        let redelivery = if self.redelivery_count == 0 { 0 } else { uint_len(3, self.redelivery_count.into()) };
        uint_len(1, self.consumer_id)
            + bytes_len(2, self.id_len())
            + redelivery
            + words_len(4, &self.ack_set)
            + self.consumer_epoch.map_or(0, |epoch| uint_len(5, epoch))
    }
}

impl SendHead {
    /// A SEND of one message without optional fields.
    #[must_use]
    pub fn new(producer_id: u64, sequence_id: u64) -> Self {
        Self {
            producer_id,
            sequence_id,
            num_messages: 1,
            highest_sequence_id: None,
            is_chunk: false,
            marker: false,
            txnid_least_bits: None,
            txnid_most_bits: None,
            message_id: None,
        }
    }

    /// Decodes the body of `BaseCommand.send`. Offsets in errors start at `base`.
    ///
    /// # Errors
    /// Bytes that are not protobuf, a field of another wire type, or a missing required field.
    pub fn decode(body: &[u8], base: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, base);
        let (mut producer_id, mut sequence_id) = (None, None);
        let mut head = Self::new(0, 0);
        let mut id = IdDecoder::default();
        while let Some((number, value, at)) = reader.next_at("CommandSend")? {
            match number {
                1 => producer_id = Some(value.uint("CommandSend.producer_id", at)?),
                2 => sequence_id = Some(value.uint("CommandSend.sequence_id", at)?),
                // Protobuf truncates an int32 to its low bits.
                3 => head.num_messages = value.uint("CommandSend.num_messages", at)? as i32,
                4 => head.txnid_least_bits = Some(value.uint("CommandSend.txnid_least_bits", at)?),
                5 => head.txnid_most_bits = Some(value.uint("CommandSend.txnid_most_bits", at)?),
                6 => head.highest_sequence_id = Some(value.uint("CommandSend.highest_sequence_id", at)?),
                7 => head.is_chunk = value.uint("CommandSend.is_chunk", at)? != 0,
                8 => head.marker = value.uint("CommandSend.marker", at)? != 0,
                9 => id.decode(body, value, "CommandSend.message_id", at, base)?,
                _ => {}
            }
        }
        head.message_id = id.finish(base)?;
        head.producer_id = present(producer_id, "CommandSend.producer_id", base)?;
        head.sequence_id = present(sequence_id, "CommandSend.sequence_id", base)?;
        Ok(head)
    }

    fn body_len(&self) -> usize {
        let optional = |number, value: Option<u64>| value.map_or(0, |value| uint_len(number, value));
        let id = self.message_id.map_or(0, |(ledger, entry)| bytes_len(9, uint_len(1, ledger) + uint_len(2, entry)));
        uint_len(1, self.producer_id)
            + uint_len(2, self.sequence_id)
            + if self.num_messages == 1 { 0 } else { uint_len(3, int32(self.num_messages)) }
            + optional(4, self.txnid_least_bits)
            + optional(5, self.txnid_most_bits)
            + optional(6, self.highest_sequence_id)
            + if self.is_chunk { uint_len(7, 1) } else { 0 }
            + if self.marker { uint_len(8, 1) } else { 0 }
            + id
    }
}

/// Encodes a whole MESSAGE frame. The partition is always present, as in a broker's frames.
pub fn put_message(out: &mut BytesMut, head: &MessageHead, entry: &[u8]) {
    put_envelope(out, MESSAGE, head.body_len(), entry.len());
    put_uint(out, 1, head.consumer_id);
    put_length(out, 2, head.id_len());
    put_uint(out, 1, head.ledger_id);
    put_uint(out, 2, head.entry_id);
    put_uint(out, 3, int32(head.partition));
    if head.redelivery_count != 0 {
        put_uint(out, 3, head.redelivery_count.into());
    }
    put_words(out, 4, &head.ack_set);
    if let Some(epoch) = head.consumer_epoch {
        put_uint(out, 5, epoch);
    }
    out.put_slice(entry);
}

/// Encodes a whole ACK frame.
pub fn put_ack(out: &mut BytesMut, ack: &AckFrame<'_>) {
    let validation_error = ack.validation_error.map(int32);
    let optional = |number, value: Option<u64>| value.map_or(0, |value| uint_len(number, value));
    let body_len = uint_len(1, ack.consumer_id)
        + uint_len(2, ack.cumulative.into())
        + ack.ids.iter().map(|id| bytes_len(3, id.body_len())).sum::<usize>()
        + optional(4, validation_error)
        + optional(8, ack.request_id);
    put_envelope(out, ACK, body_len, 0);
    put_uint(out, 1, ack.consumer_id);
    put_uint(out, 2, ack.cumulative.into());
    for id in ack.ids {
        if id.ack_set.is_empty() {
            put_whole_id(out, id.ledger_id, id.entry_id);
            continue;
        }
        put_length(out, 3, id.body_len());
        put_uint(out, 1, id.ledger_id);
        put_uint(out, 2, id.entry_id);
        put_words(out, 5, &id.ack_set);
    }
    if let Some(error) = validation_error {
        put_uint(out, 4, error);
    }
    if let Some(request_id) = ack.request_id {
        put_uint(out, 8, request_id);
    }
}

/// Encodes one `CommandAck.message_id` without a set, with one copy into `out`.
fn put_whole_id(out: &mut BytesMut, ledger_id: u64, entry_id: u64) {
    // Tag and length, then two fields of a tag and a varint of at most ten bytes.
    let mut bytes = [0; 2 + 2 * (1 + 10)];
    let mut at = 2;
    for (tag, value) in [(0x08, ledger_id), (0x10, entry_id)] {
        bytes[at] = tag;
        at += 1;
        let mut rest = value;
        while rest >= 0x80 {
            bytes[at] = rest as u8 | 0x80;
            rest >>= 7;
            at += 1;
        }
        bytes[at] = rest as u8;
        at += 1;
    }
    (bytes[0], bytes[1]) = (0x1a, at as u8 - 2);
    out.put_slice(&bytes[..at]);
}

impl AckId {
    fn body_len(&self) -> usize {
        uint_len(1, self.ledger_id) + uint_len(2, self.entry_id) + words_len(5, &self.ack_set)
    }
}

/// Encodes a whole FLOW frame. A broker closes the connection for 0 permits and for 2^31 and more.
pub fn put_flow(out: &mut BytesMut, consumer_id: u64, permits: u32) {
    put_envelope(out, FLOW, uint_len(1, consumer_id) + uint_len(2, permits.into()), 0);
    put_uint(out, 1, consumer_id);
    put_uint(out, 2, permits.into());
}

/// Encodes a whole PING frame.
pub fn put_ping(out: &mut BytesMut) {
    out.put_slice(&PING_FRAME);
}

/// Encodes a whole PONG frame.
pub fn put_pong(out: &mut BytesMut) {
    out.put_slice(&PONG_FRAME);
}

/// Encodes the part of a SEND frame before the entry: `total_size` (which includes the `entry_bytes` that
/// follow), `command_size`, command.
pub fn put_send_head(out: &mut BytesMut, head: &SendHead, entry_bytes: usize) {
    put_envelope(out, SEND, head.body_len(), entry_bytes);
    put_uint(out, 1, head.producer_id);
    put_uint(out, 2, head.sequence_id);
    if head.num_messages != 1 {
        put_uint(out, 3, int32(head.num_messages));
    }
    for (number, value) in [(4, head.txnid_least_bits), (5, head.txnid_most_bits), (6, head.highest_sequence_id)] {
        if let Some(value) = value {
            put_uint(out, number, value);
        }
    }
    if head.is_chunk {
        put_uint(out, 7, 1);
    }
    if head.marker {
        put_uint(out, 8, 1);
    }
    if let Some((ledger_id, entry_id)) = head.message_id {
        put_length(out, 9, uint_len(1, ledger_id) + uint_len(2, entry_id));
        put_uint(out, 1, ledger_id);
        put_uint(out, 2, entry_id);
    }
}

/// Encodes the two length fields, the type, and the tag and length of a body of `body_len` bytes, whose
/// field number is the type. `entry_bytes` follow the command in the frame.
pub(crate) fn put_envelope(out: &mut BytesMut, command_type: i32, body_len: usize, entry_bytes: usize) {
    let number = command_type.unsigned_abs();
    let command_len = envelope_len(command_type) + varint_len(body_len as u64) + body_len;
    out.reserve(8 + command_len + entry_bytes.min(command_len));
    out.put_u32(size_field(4 + command_len + entry_bytes));
    out.put_u32(size_field(command_len));
    put_uint(out, 1, int32(command_type));
    put_length(out, number, body_len);
}

/// The size of the type field and of the tag of the body.
pub(crate) fn envelope_len(command_type: i32) -> usize {
    uint_len(1, int32(command_type)) + varint_len(u64::from(command_type.unsigned_abs()) << 3)
}

/// A length in the form of a frame's length fields.
fn size_field(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("an encoded frame is below the frame limit, which is below 4 GiB")
}

/// Encodes the tag and length of a length-delimited field whose bytes are written next.
#[inline]
fn put_length(out: &mut BytesMut, number: u32, length: usize) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, length as u64);
}

fn put_words(out: &mut BytesMut, number: u32, words: &[i64]) {
    for &word in words {
        put_uint(out, number, word as u64);
    }
}

fn words_len(number: u32, words: &[i64]) -> usize {
    words.iter().map(|&word| uint_len(number, word as u64)).sum()
}

/// Appends the words of one occurrence of a repeated int64 field, packed or not.
fn decode_words(
    words: &mut Vec<i64>,
    body: &[u8],
    value: Value,
    field: &'static str,
    at: usize,
    base: usize,
) -> Result<(), DecodeError> {
    each_word(body, value, field, at, base, |word| {
        if words.len() == ACK_SET_WORDS_MAX {
            let (size, max) = (words.len() as u64 + 1, ACK_SET_WORDS_MAX as u64);
            return Err(DecodeError::new(DecodeErrorKind::TooLarge { size, max }, field, at));
        }
        words.push(word as i64);
        Ok(())
    })
}

fn each_word(
    body: &[u8],
    value: Value,
    field: &'static str,
    at: usize,
    base: usize,
    mut each: impl FnMut(u64) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let range = match value {
        Value::Varint(word) => return each(word),
        value => value.range(field, at)?,
    };
    let mut packed = Reader::new(&body[range.clone()], base + range.start);
    while let Some(word) = packed.next_packed(field)? {
        each(word)?;
    }
    Ok(())
}

/// The number after this tag, if the tag comes next.
#[inline(always)]
fn tagged(reader: &mut Reader<'_>, tag: u64) -> Option<u64> {
    match reader.next_packed("tag") {
        Ok(Some(found)) if found == tag => reader.next_packed("number").ok()?,
        _ => None,
    }
}

#[inline(always)]
fn present<T>(value: Option<T>, field: &'static str, base: usize) -> Result<T, DecodeError> {
    match value {
        Some(value) => Ok(value),
        None => Err(absent(field, base)),
    }
}

#[cold]
fn absent(field: &'static str, base: usize) -> DecodeError {
    DecodeError::new(DecodeErrorKind::Missing, field, base)
}

/// Collects the fields of a `MessageIdData` that the hot path needs. Several occurrences of the field are
/// merged, as protobuf defines it.
#[derive(Default)]
struct IdDecoder {
    seen: bool,
    ledger_id: Option<u64>,
    entry_id: Option<u64>,
    partition: Option<i32>,
}

impl IdDecoder {
    fn decode(
        &mut self,
        body: &[u8],
        value: Value,
        field: &'static str,
        at: usize,
        base: usize,
    ) -> Result<(), DecodeError> {
        let range = value.range(field, at)?;
        let base = base + range.start;
        let bytes = &body[range];
        self.seen = true;
        let mut reader = Reader::new(bytes, base);
        while let Some((number, value, at)) = reader.next_at("MessageIdData")? {
            match number {
                1 => self.ledger_id = Some(value.uint("MessageIdData.ledgerId", at)?),
                2 => self.entry_id = Some(value.uint("MessageIdData.entryId", at)?),
                3 => self.partition = Some(value.uint("MessageIdData.partition", at)? as i32),
                4 => drop(value.uint("MessageIdData.batch_index", at)?),
                5 => each_word(bytes, value, "MessageIdData.ack_set", at, base, |_| Ok(()))?,
                6 => drop(value.uint("MessageIdData.batch_size", at)?),
                7 => check_first_chunk(bytes, value, at, base)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn finish(self, base: usize) -> Result<Option<(u64, u64)>, DecodeError> {
        if !self.seen {
            return Ok(None);
        }
        let ledger_id = present(self.ledger_id, "MessageIdData.ledgerId", base)?;
        let entry_id = present(self.entry_id, "MessageIdData.entryId", base)?;
        Ok(Some((ledger_id, entry_id)))
    }
}

/// Checks a nested id. No known broker puts one into a hot command, but it is valid.
#[cold]
fn check_first_chunk(bytes: &[u8], value: Value, at: usize, base: usize) -> Result<(), DecodeError> {
    const FIELD: &str = "MessageIdData.first_chunk_message_id";
    let range = value.range(FIELD, at)?;
    let (base, bytes) = (base + range.start, &bytes[range]);
    required::check(&required::MESSAGE_ID_DATA, bytes, base)?;
    pb::MessageIdData::decode(bytes)
        .map(drop)
        .map_err(|error| DecodeError::new(DecodeErrorKind::Protobuf(error.to_string()), FIELD, base))
}

#[cfg(test)]
mod tests;
