//! Frames: split off a read buffer as a run, then decoded one by one.
//!
//! [`cut`] looks at lengths only and freezes all complete frames at once; [`frames`] decodes them. Only
//! SEND and MESSAGE keep a slice of the run: their entry.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::command::{self, Command};
use super::error::{DecodeError, DecodeErrorKind};
use super::hot::{self, MessageHead, Receipt, SendHead};
use super::proto::{int32, put_uint, uint_len};
use super::{FRAME_PADDING_BYTES, MAX_MESSAGE_SIZE_DEFAULT};

/// Bytes of each of the two length fields of a frame.
const SIZE_FIELD_BYTES: usize = 4;

/// Limits on what a peer can make this side buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest frame, with its `total_size` field, in bytes.
    pub frame_bytes_max: usize,
}

impl Limits {
    /// The limits for a `CommandConnected.max_message_size`: commands and metadata have
    /// [`FRAME_PADDING_BYTES`] in addition.
    #[must_use]
    pub const fn for_message_size(max_message_size: u32) -> Self {
        Self { frame_bytes_max: max_message_size.saturating_add(FRAME_PADDING_BYTES) as usize }
    }

    /// The largest value of a `total_size` field, which does not include itself.
    fn total_size_max(&self) -> usize {
        self.frame_bytes_max.saturating_sub(SIZE_FIELD_BYTES)
    }
}

impl Default for Limits {
    /// The limits for [`MAX_MESSAGE_SIZE_DEFAULT`], which apply until CONNECTED names another size.
    fn default() -> Self {
        Self::for_message_size(MAX_MESSAGE_SIZE_DEFAULT)
    }
}

/// Splits the run of complete frames off the front of `rx` and freezes it once. `None`: no complete frame.
///
/// # Errors
/// A `total_size` below 4 or above the limit, as soon as that field has arrived. After valid frames in
/// `rx` the next call reports it.
pub fn cut(rx: &mut BytesMut, limits: &Limits) -> Result<Option<Bytes>, DecodeError> {
    let mut run = 0;
    loop {
        match first_frame(&rx[run..], limits) {
            Ok(Some(frame)) if frame <= rx.len() - run + usize::from(parser_mutation!(FrameOneByteShort)) => {
                run += frame
            }
            Err(error) if run == 0 => return Err(error),
            _ => break,
        }
    }
    Ok((run > 0).then(|| rx.split_to(run).freeze()))
}

/// How many bytes to reserve for the rest of the first frame of `rx`; 0 if that is unknown or the frame is
/// complete. Never more than have arrived, so that a length field alone does not reserve much.
#[must_use]
pub fn missing(rx: &[u8], limits: &Limits) -> usize {
    match first_frame(rx, limits) {
        Ok(Some(frame)) => frame.saturating_sub(rx.len()).min(rx.len()),
        _ => 0,
    }
}

/// The size of the frame that starts `rx`, with its length field; not all of it need have arrived.
fn first_frame(rx: &[u8], limits: &Limits) -> Result<Option<usize>, DecodeError> {
    let Some(total) = decode_size(rx) else { return Ok(None) };
    let max = limits.total_size_max();
    let error = |kind| Err(DecodeError::new(kind, "total_size", 0));
    if total < SIZE_FIELD_BYTES {
        return error(DecodeErrorKind::TooSmall { size: total as u64, min: SIZE_FIELD_BYTES as u64 });
    }
    if total > max && !parser_mutation!(FrameWithoutLimit) {
        return error(DecodeErrorKind::TooLarge { size: total as u64, max: max as u64 });
    }
    Ok(Some(SIZE_FIELD_BYTES + total))
}

fn decode_size(bytes: &[u8]) -> Option<usize> {
    let size = u32::from_be_bytes(*bytes.first_chunk()?);
    // Where usize is smaller, such a frame is above every limit.
    Some(usize::try_from(size).unwrap_or(usize::MAX))
}

/// One decoded frame.
#[derive(Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "it is used once and not moved; boxing gains nothing")]
pub enum Frame {
    /// SEND_RECEIPT.
    Receipt(Receipt),
    /// MESSAGE.
    Message {
        /// The command.
        head: MessageHead,
        /// Everything after the command: a slice of the run, not decoded.
        entry: Bytes,
    },
    /// SEND.
    Send {
        /// The command.
        head: SendHead,
        /// Everything after the command: a slice of the run, not decoded.
        entry: Bytes,
    },
    /// Any other command. Bytes after it in the frame are skipped.
    Other(Command),
    /// A command of an unknown type. A client skips it, a broker closes the connection.
    Unknown {
        /// The value of `BaseCommand.type`.
        command_type: i64,
    },
}

/// One decoded frame in the form for a client. The rare commands are boxed, so that receipts and messages are not moved
/// at the size of the largest command.
#[derive(Clone, PartialEq)]
pub enum InboundFrame {
    /// SEND_RECEIPT.
    Receipt(Receipt),
    /// MESSAGE: the command, and everything after it.
    Message(MessageHead, Bytes),
    /// Any other command but SEND. Bytes after it in the frame are skipped.
    Control(Box<Command>),
    /// SEND, which only clients send.
    Send,
    /// A command of an unknown type: a client skips it.
    Unknown,
}

impl fmt::Debug for Frame {
    /// Shows only the length of an entry: it holds the application's data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receipt(receipt) => receipt.fmt(f),
            Self::Message { head, entry } => f.debug_tuple("Message").field(head).field(&entry.len()).finish(),
            Self::Send { head, entry } => f.debug_tuple("Send").field(head).field(&entry.len()).finish(),
            Self::Other(command) => command.fmt(f),
            Self::Unknown { command_type } => write!(f, "Unknown({command_type})"),
        }
    }
}

impl fmt::Debug for InboundFrame {
    /// As that of [`Frame`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receipt(receipt) => receipt.fmt(f),
            Self::Message(head, entry) => f.debug_tuple("Message").field(head).field(&entry.len()).finish(),
            Self::Control(command) => command.fmt(f),
            Self::Send => f.write_str("Send"),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}

/// Decodes the frames of a run that [`cut`] returned, in order.
#[must_use]
pub fn frames(run: Bytes) -> Frames {
    Frames { run, position: 0 }
}

/// The iterator of [`frames`]. It ends after the first error: the connection cannot be used after a frame
/// that cannot be decoded.
///
/// Errors are: a `command_size` beyond the frame, bytes that are not protobuf, an absent required field, a
/// type whose body is absent. Their offsets count from the `total_size` field of the frame.
#[derive(Clone)]
pub struct Frames {
    run: Bytes,
    /// Where the next frame starts; the end of the run after an error.
    position: usize,
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frames(at {} of {} bytes)", self.position, self.run.len())
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let start = self.position;
        if start >= self.run.len() {
            return None;
        }
        // An error is the last item.
        self.position = self.run.len();
        let item = bounds(&self.run[start..]).and_then(|(command_end, frame_end)| {
            decode(&self.run, start, command_end, frame_end).inspect(|_| self.position = start + frame_end)
        });
        Some(item)
    }
}

impl FusedIterator for Frames {}

impl Frames {
    /// Same as [`next`](Iterator::next), in the form for a client.
    ///
    /// # Errors
    /// See [`Frames`].
    #[inline]
    pub fn next_inbound(&mut self) -> Option<Result<InboundFrame, DecodeError>> {
        let start = self.position;
        if start < self.run.len() {
            if let Ok((command_end, frame_end)) = bounds(&self.run[start..]) {
                let base = 2 * SIZE_FIELD_BYTES;
                let command = &self.run[start + base..start + command_end];
                let at = |body: &[u8]| base + command.len() - body.len();
                let decoded = match command::split_envelope_fast(command) {
                    Some((hot::SEND_RECEIPT, body)) => Some(Receipt::decode(body, at(body)).map(InboundFrame::Receipt)),
                    Some((hot::MESSAGE, body)) => Some(MessageHead::decode(body, at(body)).map(|head| {
                        InboundFrame::Message(head, self.run.slice(start + command_end..start + frame_end))
                    })),
                    _ => None,
                };
                if let Some(decoded) = decoded {
                    // An error is the last item.
                    self.position = if decoded.is_ok() { start + frame_end } else { self.run.len() };
                    return Some(decoded);
                }
            }
        }
        Some(self.next()?.map(|frame| match frame {
            Frame::Receipt(receipt) => InboundFrame::Receipt(receipt),
            Frame::Message { head, entry } => InboundFrame::Message(head, entry),
            Frame::Other(command) => InboundFrame::Control(Box::new(command)),
            Frame::Send { .. } => InboundFrame::Send,
            Frame::Unknown { .. } => InboundFrame::Unknown,
        }))
    }

    /// The next frame, if it is a SEND_RECEIPT in the usual layout. Otherwise [`next_inbound`](Self::next_inbound) is to be called.
    #[inline(always)]
    pub fn next_receipt(&mut self) -> Option<Receipt> {
        let bytes = self.run.get(self.position..)?;
        let (command_end, frame_end) = bounds(bytes).ok()?;
        let receipt = match command::split_envelope_fast(&bytes[2 * SIZE_FIELD_BYTES..command_end])? {
            (hot::SEND_RECEIPT, body) => Receipt::decode_fast(body)?,
            _ => return None,
        };
        self.position += frame_end;
        Some(receipt)
    }
}

/// Decodes the frame at `start`; the ends count from there.
fn decode(run: &Bytes, start: usize, command_end: usize, frame_end: usize) -> Result<Frame, DecodeError> {
    let base = 2 * SIZE_FIELD_BYTES;
    let command = &run[start + base..start + command_end];
    let entry = start + command_end..start + frame_end;
    if let Some((kind, body)) = command::split_envelope_fast(command) {
        return decode_body(kind, body, base + command.len() - body.len(), run, entry);
    }
    let envelope = command::split_envelope(command, base)?;
    match (envelope.command_type, &envelope.body) {
        (kind, Some(body)) => decode_body(kind, body, envelope.body_at, run, entry),
        (kind, None) if Command::is_known(kind) => Err(command::missing_body(kind, base)),
        (kind, None) => Ok(Frame::Unknown { command_type: kind.into() }),
    }
}

#[inline]
fn decode_body(kind: i32, body: &[u8], base: usize, run: &Bytes, entry: Range<usize>) -> Result<Frame, DecodeError> {
    Ok(match kind {
        hot::SEND_RECEIPT => Frame::Receipt(Receipt::decode(body, base)?),
        hot::MESSAGE => Frame::Message { head: MessageHead::decode(body, base)?, entry: run.slice(entry) },
        hot::SEND => Frame::Send { head: SendHead::decode(body, base)?, entry: run.slice(entry) },
        _ => match Command::decode(kind, body, base)? {
            Some(command) => Frame::Other(command),
            None => Frame::Unknown { command_type: kind.into() },
        },
    })
}

/// Where the command and the frame end, counted from the start of the frame.
#[inline]
fn bounds(bytes: &[u8]) -> Result<(usize, usize), DecodeError> {
    let error = |kind, field, offset| Err(DecodeError::new(kind, field, offset));
    let total = decode_size(bytes).unwrap_or(usize::MAX);
    if total > bytes.len().saturating_sub(SIZE_FIELD_BYTES) {
        return error(DecodeErrorKind::Truncated, "total_size", 0);
    }
    let Some(command_max) = total.checked_sub(SIZE_FIELD_BYTES) else {
        let kind = DecodeErrorKind::TooSmall { size: total as u64, min: SIZE_FIELD_BYTES as u64 };
        return error(kind, "total_size", 0);
    };
    let command = decode_size(&bytes[SIZE_FIELD_BYTES..]).unwrap_or(usize::MAX);
    if command > command_max && !parser_mutation!(CommandBeyondFrame) {
        let kind = DecodeErrorKind::TooLarge { size: command as u64, max: command_max as u64 };
        return error(kind, "command_size", SIZE_FIELD_BYTES);
    }
    Ok((2 * SIZE_FIELD_BYTES + command, SIZE_FIELD_BYTES + total))
}

impl Frame {
    /// The name in `BaseCommand.Type`; `UNKNOWN` for an unknown type.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Receipt(_) => "SEND_RECEIPT",
            Self::Message { .. } => "MESSAGE",
            Self::Send { .. } => "SEND",
            Self::Other(command) => command.name(),
            Self::Unknown { .. } => "UNKNOWN",
        }
    }

    /// Encodes the whole frame. For an unknown command that is only its type.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Receipt(receipt) => hot::put_receipt(out, receipt),
            Self::Message { head, entry } => hot::put_message(out, head, entry),
            Self::Send { head, entry } => {
                hot::put_send_head(out, head, entry.len());
                out.put_slice(entry);
            }
            Self::Other(command) => command.encode_frame(out),
            Self::Unknown { command_type } => {
                // A type is an int32 on the wire, so a decoded one fits.
                let value = int32(*command_type as i32);
                let command_len = uint_len(1, value) as u32;
                out.put_u32(4 + command_len);
                out.put_u32(command_len);
                put_uint(out, 1, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;

    const PING: &[u8] = &[0, 0, 0, 9, 0, 0, 0, 5, 0x08, 0x12, 0x92, 0x01, 0x00];

    fn all(bytes: &[u8]) -> Vec<Result<Frame, DecodeError>> {
        frames(Bytes::copy_from_slice(bytes)).collect()
    }

    /// A frame around a literal command.
    fn framed(command: &[u8], behind: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u32((4 + command.len() + behind.len()) as u32);
        out.put_u32(command.len() as u32);
        out.put_slice(command);
        out.put_slice(behind);
        out
    }

    #[test]
    fn a_run_is_cut_wherever_the_bytes_break() {
        let whole = PING.repeat(3);
        for arrived in 0..=whole.len() {
            let mut rx = BytesMut::from(&whole[..arrived]);
            let run = cut(&mut rx, &Limits::default()).expect("good frames");
            let expected = arrived / PING.len();
            assert_eq!(run.map_or(0, |run| all(&run).len()), expected);
            assert_eq!(rx.len(), arrived - expected * PING.len());
        }
    }

    #[test]
    fn a_bad_length_waits_for_the_good_frames_before_it() {
        let mut rx = BytesMut::from(PING);
        rx.put_u32(3);
        let run = cut(&mut rx, &Limits::default()).expect("one good frame").expect("a run");
        assert_eq!(run, PING);
        let error = cut(&mut rx, &Limits::default()).expect_err("too small");
        assert_eq!(error, DecodeError::new(DecodeErrorKind::TooSmall { size: 3, min: 4 }, "total_size", 0));
    }

    #[test]
    fn the_limit_counts_the_length_field_and_needs_no_byte_behind_it() {
        let limits = Limits::default();
        let header = |total: u32| BytesMut::from(&total.to_be_bytes()[..]);
        assert_eq!(cut(&mut header(5_253_116), &limits), Ok(None));
        let error = cut(&mut header(5_253_117), &limits).expect_err("too large");
        assert_eq!(error.kind, DecodeErrorKind::TooLarge { size: 5_253_117, max: 5_253_116 });
        assert!(cut(&mut header(u32::MAX), &Limits::for_message_size(u32::MAX)).is_err());
    }

    #[test]
    fn room_is_made_for_what_is_missing_but_at_most_doubles() {
        let limits = Limits::default();
        let mut rx = vec![0, 0x10, 0, 0];
        assert_eq!(missing(&rx[..3], &limits), 0);
        assert_eq!(missing(&rx, &limits), 4);
        rx.resize(0x10_0000, 0);
        assert_eq!(missing(&rx, &limits), 4);
        assert_eq!(missing(PING, &limits), 0);
        assert_eq!(missing(&[0xff; 4], &limits), 0);
    }

    #[test]
    fn an_error_is_the_last_item() {
        let bytes = [PING, &framed(&[0x08, 0x0b], b""), PING].concat();
        let read = all(&bytes);
        assert_eq!(read.len(), 2);
        assert_eq!(read[0], Ok(Frame::Other(pb::CommandPing {}.into())));
        assert_eq!(read[1], Err(DecodeError::new(DecodeErrorKind::Missing, "BaseCommand.flow", 8)));
    }

    #[test]
    fn lengths_that_disagree_are_errors() {
        let kinds = [
            (&[0, 0, 0][..], "total_size"),
            (&[0, 0, 0, 9, 0], "total_size"),
            (&[0, 0, 0, 3, 0, 0, 0], "total_size"),
            (&[0, 0, 0, 4, 0, 0, 0, 1], "command_size"),
            (&[0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff], "command_size"),
            (&[0, 0, 0, 4, 0, 0, 0, 0], "BaseCommand.type"),
        ];
        for (bytes, field) in kinds {
            let error = all(bytes).pop().expect("an item").expect_err("bad lengths");
            assert_eq!(error.field, field, "{bytes:?}");
        }
    }

    #[test]
    fn unknown_types_and_bytes_behind_a_command_are_skipped() {
        let unknown = framed(&[0x08, 0x47, 0xba, 0x04, 1, 0], b"behind");
        let bodiless = framed(&[0x08, 0x47], b"");
        let ping = framed(&PING[8..], b"behind");
        let read: Result<Vec<_>, _> = frames([unknown, bodiless, ping].concat().into()).collect();
        let skipped = Frame::Unknown { command_type: 0x47 };
        assert_eq!(read, Ok(vec![skipped.clone(), skipped, Frame::Other(pb::CommandPing {}.into())]));
    }

    #[test]
    fn the_envelope_is_read_in_any_order_and_with_other_bodies_in_it() {
        // FLOW { consumer_id: 1, messagePermits: 2 } behind, around and between other things.
        let variants: [&[u8]; 4] = [
            &[0x5a, 4, 0x08, 1, 0x10, 2, 0x08, 0x0b],
            &[0x08, 0x0b, 0x92, 0x01, 0x00, 0x5a, 4, 0x08, 1, 0x10, 2],
            &[0x08, 0x0b, 0x5a, 2, 0x08, 1, 0x5a, 2, 0x10, 2],
            &[0x08, 0x12, 0x5a, 4, 0x08, 1, 0x10, 2, 0x08, 0x0b, 0xf8, 0x07, 5],
        ];
        let flow = Frame::Other(pb::CommandFlow { consumer_id: 1, message_permits: 2 }.into());
        for command in variants {
            assert_eq!(all(&framed(command, b"")), [Ok(flow.clone())], "{command:?}");
        }
    }

    #[test]
    fn entries_are_slices_of_the_run() {
        let send = framed(&[0x08, 6, 0x32, 4, 0x08, 0, 0x10, 7], b"entry");
        let run = Bytes::from(send);
        let Some(Ok(Frame::Send { head, entry })) = frames(run.clone()).next() else { panic!("a SEND") };
        assert_eq!(head, SendHead::new(0, 7));
        assert_eq!(entry.as_ptr(), run[16..].as_ptr());
        assert_eq!(format!("{:?}", Frame::Send { head, entry }).matches("entry").count(), 0);
    }
}
