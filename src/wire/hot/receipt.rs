//! SEND_RECEIPT.

use bytes::BytesMut;

use super::{IdDecoder, SEND_RECEIPT, bytes_len, present, put_envelope, put_length, put_uint, tagged, uint_len};
use crate::wire::error::DecodeError;
use crate::wire::proto::Reader;

/// `SEND_RECEIPT`: an entry was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// `CommandSendReceipt.producer_id`.
    pub producer_id: u64,
    /// `CommandSendReceipt.sequence_id`: that of the SEND.
    pub sequence_id: u64,
    /// `CommandSendReceipt.highest_sequence_id`, 0 when absent. For a SEND of one message a broker sends 0
    /// or 2^64-1, so it cannot be compared with `sequence_id` directly.
    pub highest_sequence_id: u64,
    /// `MessageIdData.ledgerId`; `u64::MAX` without a message id and for a duplicate.
    pub ledger_id: u64,
    /// `MessageIdData.entryId`; `u64::MAX` without a message id and for a duplicate.
    pub entry_id: u64,
}

impl Receipt {
    /// Decodes the body of `BaseCommand.send_receipt`. Offsets in errors start at `base`.
    ///
    /// # Errors
    /// Bytes that are not protobuf, a field of another wire type, or a missing required field.
    #[inline]
    pub fn decode(body: &[u8], base: usize) -> Result<Self, DecodeError> {
        match Self::decode_fast(body) {
            Some(receipt) => Ok(receipt),
            None => Self::decode_slow(body, base),
        }
    }

    /// Decodes a body in the usual layout: all fields in order, of the message id no more than ledger and entry. `None` for
    /// any other body, valid or not. Always inlined: otherwise the receipt would be moved once more, through memory.
    #[inline(always)]
    pub(in crate::wire) fn decode_fast(body: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(body, 0);
        let producer_id = tagged(&mut reader, 0x08)?;
        let sequence_id = tagged(&mut reader, 0x10)?;
        let id_bytes = usize::try_from(tagged(&mut reader, 0x1a)?).ok()?;
        let id_end = reader.offset().checked_add(id_bytes)?;
        let (ledger_id, entry_id) = (tagged(&mut reader, 0x08)?, tagged(&mut reader, 0x10)?);
        if reader.offset() != id_end {
            return None;
        }
        let highest_sequence_id = tagged(&mut reader, 0x20)?;
        let receipt = Self { producer_id, sequence_id, highest_sequence_id, ledger_id, entry_id };
        (reader.offset() == body.len()).then_some(receipt)
    }

    #[inline(never)]
    fn decode_slow(body: &[u8], base: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, base);
        let (mut producer_id, mut sequence_id, mut highest_sequence_id) = (None, None, 0);
        let mut id = IdDecoder::default();
        while let Some((number, value, at)) = reader.next_at("CommandSendReceipt")? {
            match number {
                1 => producer_id = Some(value.uint("CommandSendReceipt.producer_id", at)?),
                2 => sequence_id = Some(value.uint("CommandSendReceipt.sequence_id", at)?),
                3 => id.decode(body, value, "CommandSendReceipt.message_id", at, base)?,
                4 => highest_sequence_id = value.uint("CommandSendReceipt.highest_sequence_id", at)?,
                _ => {}
            }
        }
        let (ledger_id, entry_id) = id.finish(base)?.unwrap_or((u64::MAX, u64::MAX));
        Ok(Self {
            producer_id: present(producer_id, "CommandSendReceipt.producer_id", base)?,
            sequence_id: present(sequence_id, "CommandSendReceipt.sequence_id", base)?,
            highest_sequence_id,
            ledger_id,
            entry_id,
        })
    }
}

/// Encodes a whole SEND_RECEIPT frame, with message id and highest_sequence_id always present.
pub fn put_receipt(out: &mut BytesMut, r: &Receipt) {
    let id_len = uint_len(1, r.ledger_id) + uint_len(2, r.entry_id);
    let body_len = uint_len(1, r.producer_id)
        + uint_len(2, r.sequence_id)
        + bytes_len(3, id_len)
        + uint_len(4, r.highest_sequence_id);
    put_envelope(out, SEND_RECEIPT, body_len, 0);
    put_uint(out, 1, r.producer_id);
    put_uint(out, 2, r.sequence_id);
    put_length(out, 3, id_len);
    put_uint(out, 1, r.ledger_id);
    put_uint(out, 2, r.entry_id);
    put_uint(out, 4, r.highest_sequence_id);
}
