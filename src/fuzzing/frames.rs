//! Streams of frames, commands, and the codec for `tokio_util`.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
#[cfg(feature = "client")]
use tokio_util::codec::{Decoder as _, Encoder};

use crate::pb;
#[cfg(feature = "client")]
use crate::wire::codec::PulsarCodec;
use crate::wire::command;
use crate::wire::frame::InboundFrame;
use crate::wire::{Command, DecodeError, Frame, Limits, cut, frames, missing};

/// Texts of errors are a line for a log, however the peer's bytes look.
pub(super) fn check_text(error: &impl std::fmt::Display) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains(['\n', '\r']) && text.chars().count() < 1000, "one line: {text:?}");
}

/// Small, so that a corpus of small files reaches the limit.
pub(super) const LIMITS: Limits = Limits { frame_bytes_max: 4096 };

/// A byte stream: split into frames, decoded, encoded again. The first byte says where the stream is
/// divided into two reads, which must not change the result.
pub fn frame(data: &[u8]) {
    let Some((&split, stream)) = data.split_first() else { return };
    let whole = read_stream(&[stream]);
    let (front, back) = stream.split_at(stream.len() * usize::from(split) / 256);
    assert_eq!(whole, read_stream(&[front, back]), "where a stream breaks changes nothing");
    if let Some(error) = &whole.1 {
        check_text(error);
    }
    for frame in &whole.0 {
        check_debug(frame);
        let mut out = BytesMut::new();
        frame.encode(&mut out);
        let again: Vec<_> = frames(out.freeze()).collect();
        assert_eq!(again, [Ok(frame.clone())], "what was read can be written and read");
    }
}

/// What a log shows of a frame: of an entry no more than its size.
fn check_debug(frame: &Frame) {
    let text = format!("{frame:?}");
    match frame {
        Frame::Send { entry, .. } => assert!(text.ends_with(&format!(", {})", entry.len())), "{text}"),
        Frame::Message { head, entry } => {
            assert!(
                text.ends_with(&format!(", {})", entry.len())) && text.len() < 400 + 30 * head.ack_set.len(),
                "{text}"
            );
        }
        Frame::Unknown { .. } => assert!(text.starts_with("Unknown("), "{text}"),
        Frame::Receipt(_) | Frame::Other(_) => assert!(!text.is_empty()),
    }
}

/// A byte stream through the codec for `tokio_util`: the same frames as by hand, however the stream is divided. The first two
/// bytes say where; 255 and 255 are a read for each byte.
#[cfg(feature = "client")]
pub fn codec(data: &[u8]) {
    let [first, second, stream @ ..] = data else { return };
    let at = |place: u8| stream.len() * usize::from(place) / 256;
    let pieces: Vec<&[u8]> = if [*first, *second] == [255, 255] {
        stream.chunks(1).collect()
    } else {
        let (front, back) = (at(*first.min(second)), at(*first.max(second)));
        vec![&stream[..front], &stream[front..back], &stream[back..]]
    };
    let (frames, error) = read_stream(&[stream]);
    let decoded = decode_pieces(&pieces);
    assert_eq!(decoded.0, frames, "the frames that are cut by hand");
    let is_cut = frames_len(&frames, stream) != Some(stream.len());
    match error {
        Some(error) => assert_eq!(decoded.1, Some(error.to_string())),
        None => assert!(decoded.1.is_none() || is_cut, "the rest of a frame is an error at the end of the stream"),
    }
    let mut codec = PulsarCodec::new(LIMITS);
    let mut out = BytesMut::new();
    for frame in &frames {
        let start = out.len();
        Encoder::<&Frame>::encode(&mut codec, frame, &mut out).expect("any frame");
        let mut again = BytesMut::new();
        Encoder::<Frame>::encode(&mut codec, frame.clone(), &mut again).expect("any frame");
        assert_eq!(again, out[start..]);
        if let Frame::Other(command) = frame {
            again.clear();
            Encoder::<&Command>::encode(&mut codec, command, &mut again).expect("any command");
            Encoder::<Command>::encode(&mut codec, command.clone(), &mut again).expect("any command");
            assert_eq!(again, out[start..].repeat(2));
        }
        assert_eq!(
            out[start..].first_chunk().map(|size| u32::from_be_bytes(*size) as usize + 4),
            Some(out.len() - start)
        );
    }
}

/// How much of the stream its frames take, by their own lengths.
#[cfg(feature = "client")]
fn frames_len(frames: &[Frame], stream: &[u8]) -> Option<usize> {
    frames.iter().try_fold(0, |at: usize, _| {
        let size = u32::from_be_bytes(*stream.get(at..)?.first_chunk()?);
        Some(at + 4 + size as usize)
    })
}

/// What the codec gives for these reads and then the end of the stream.
#[cfg(feature = "client")]
fn decode_pieces(pieces: &[&[u8]]) -> (Vec<Frame>, Option<String>) {
    let (mut codec, mut rx, mut frames) = (PulsarCodec::new(LIMITS), BytesMut::new(), Vec::new());
    for piece in pieces {
        rx.extend_from_slice(piece);
        loop {
            match codec.decode(&mut rx) {
                Ok(Some(frame)) => frames.push(comparable(frame)),
                Ok(None) => break,
                Err(error) => return (frames, Some(error.to_string())),
            }
        }
    }
    let ended = codec.decode_eof(&mut rx);
    if let Err(error) = &ended {
        check_text(error);
        assert!(std::error::Error::source(error).is_some());
    }
    assert!(!matches!(ended, Ok(Some(_))), "all whole frames have been given");
    (frames, ended.err().map(|error| error.to_string()))
}

/// The valid frames of a stream that arrives in pieces, and the error that ends it.
pub(super) fn read_stream(pieces: &[&[u8]]) -> (Vec<Frame>, Option<DecodeError>) {
    let (mut rx, mut all) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        rx.extend_from_slice(piece);
        loop {
            let before = rx.len();
            assert!(missing(&rx, &LIMITS) <= before, "at most doubles");
            let run = match cut(&mut rx, &LIMITS) {
                Ok(None) => {
                    let total = rx.first_chunk().map_or(4, |size| u32::from_be_bytes(*size));
                    assert!((4..=LIMITS.frame_bytes_max as u32 - 4).contains(&total), "nothing waits for such a frame");
                    break;
                }
                Ok(Some(run)) => run,
                Err(error) => return (all, Some(error)),
            };
            assert_eq!(run.len() + rx.len(), before, "no byte is lost");
            check_inbound(run.clone());
            for frame in frames(run) {
                match frame {
                    Ok(frame) => all.push(comparable(frame)),
                    Err(error) => return (all, Some(error)),
                }
            }
        }
    }
    (all, None)
}

/// The form for a client is the same frames, whichever way they are taken.
fn check_inbound(run: Bytes) {
    let (mut all, mut inbound) = (frames(run.clone()), frames(run));
    loop {
        while let Some(receipt) = inbound.next_receipt() {
            assert!(matches!(all.next(), Some(Ok(Frame::Receipt(plain))) if plain == receipt), "{receipt:?}");
        }
        let (plain, inbound) = (all.next(), inbound.next_inbound());
        match (plain, inbound) {
            (None, None) => return,
            (Some(Err(plain)), Some(Err(inbound))) => assert_eq!(plain, inbound),
            (Some(Ok(Frame::Receipt(plain))), Some(Ok(InboundFrame::Receipt(receipt)))) => assert_eq!(plain, receipt),
            (Some(Ok(Frame::Message { head, entry })), Some(Ok(InboundFrame::Message(other, rest)))) => {
                assert_eq!((head, entry), (other, rest));
            }
            (Some(Ok(Frame::Other(plain))), Some(Ok(InboundFrame::Control(command)))) => {
                assert_eq!(comparable(Frame::Other(plain)), comparable(Frame::Other(*command)));
            }
            (Some(Ok(Frame::Send { .. })), Some(Ok(InboundFrame::Send)))
            | (Some(Ok(Frame::Unknown { .. })), Some(Ok(InboundFrame::Unknown))) => {}
            (plain, inbound) => panic!("{plain:?}, but {inbound:?}"),
        }
    }
}

/// Removes NaN, which is not equal to itself, from the only fields that can hold it.
fn comparable(frame: Frame) -> Frame {
    match frame {
        Frame::Other(Command::ConsumerStatsResponse(mut body)) => {
            let rates = [
                &mut body.msg_rate_out,
                &mut body.msg_throughput_out,
                &mut body.msg_rate_redeliver,
                &mut body.msg_rate_expired,
                &mut body.message_ack_rate,
            ];
            for rate in rates {
                *rate = rate.filter(|rate| !rate.is_nan());
            }
            Frame::Other(body.into())
        }
        other => other,
    }
}

/// A `BaseCommand`: what this crate accepts, prost accepts, and with equal fields.
pub fn command(data: &[u8]) {
    let by_table = Command::decode_base(data);
    let by_frame = frames(framed(data)).next().expect("a frame");
    let Ok(envelope) = command::split_envelope(data, 0) else {
        assert!(by_table.is_err() && by_frame.is_err());
        return;
    };
    let Some(body) = envelope.body.filter(|_| Command::is_known(envelope.command_type)) else {
        assert!(!matches!(by_table, Ok(Some(_))));
        assert!(matches!(by_frame, Ok(Frame::Unknown { .. }) | Err(_)));
        return;
    };
    // Bodies of other types are ignored, so prost gets only the relevant one.
    let mut alone = Vec::new();
    prost::encoding::int32::encode(1, &envelope.command_type, &mut alone);
    prost::encoding::bytes::encode(envelope.command_type.unsigned_abs(), &body.into_owned(), &mut alone);
    let theirs = pb::BaseCommand::decode(&alone[..]);
    if let Err(error) = &by_table {
        check_text(error);
    }
    if let Ok(ours) = by_table {
        check_table(ours.clone().expect("a known type"));
        let theirs = theirs.as_ref().expect("what the table reads, prost reads");
        let mut out = BytesMut::new();
        ours.expect("a known type").encode_frame(&mut out);
        assert_eq!(out[8..], theirs.encode_to_vec(), "equal fields");
    }
    match by_frame {
        Err(_) | Ok(Frame::Other(_)) => {}
        Ok(frame) => compare_hot(&frame, &theirs.expect("what is read by hand, prost reads")),
    }
}

/// What the table of commands says of one.
fn check_table(mut command: Command) {
    let mut out = BytesMut::new();
    command.encode_frame(&mut out);
    assert_eq!(out.len(), command.encoded_len());
    assert!(Command::ALL.contains(&(command.command_type(), command.name())));
    #[cfg(feature = "capture")]
    assert_eq!(Command::sender_of(command.command_type()), Some(command.sender()));
    if let Some(refusal) = command.refusal() {
        assert!(command.response_type().is_none() && refusal.message.len() <= out.len(), "{refusal:?}");
    }
    let had_id = command.request_id().is_some();
    command.set_request_id(7);
    assert!(matches!(command.request_id(), Some(7)) || !had_id && command.request_id().is_none());
    // A request is refused by what answers it, or by ERROR.
    let refusal = crate::wire::command::Refusal { code: 9, message: "refused".to_owned() };
    match command.refused(&refusal) {
        Some(refused) => {
            assert_eq!((refused.request_id(), refused.refusal().map(|refusal| refusal.code)), (Some(7), Some(9)));
            let answers = Some(refused.command_type()) == command.response_type().map(|kind| kind as i32);
            assert!(answers || matches!(refused, Command::Error(_)), "{refused:?}");
        }
        None => assert!(command.response_type().is_none() || command.request_id().is_none()),
    }
}

pub(super) fn framed(command: &[u8]) -> Bytes {
    let size = command.len() as u32;
    [&(size + 4).to_be_bytes()[..], &size.to_be_bytes(), command].concat().into()
}

fn compare_hot(frame: &Frame, theirs: &pb::BaseCommand) {
    match frame {
        Frame::Receipt(ours) => {
            let theirs = theirs.send_receipt.as_ref().expect("send_receipt");
            let id = theirs.message_id.as_ref().map_or((u64::MAX, u64::MAX), |id| (id.ledger_id, id.entry_id));
            assert_eq!((ours.producer_id, ours.sequence_id), (theirs.producer_id, theirs.sequence_id));
            assert_eq!(ours.highest_sequence_id, theirs.highest_sequence_id());
            assert_eq!((ours.ledger_id, ours.entry_id), id);
        }
        Frame::Message { head: ours, .. } => {
            let theirs = theirs.message.as_ref().expect("message");
            let id = &theirs.message_id;
            assert_eq!((ours.ledger_id, ours.entry_id, ours.partition), (id.ledger_id, id.entry_id, id.partition()));
            assert_eq!((ours.consumer_id, ours.consumer_epoch), (theirs.consumer_id, theirs.consumer_epoch));
            assert_eq!((ours.redelivery_count, &ours.ack_set[..]), (theirs.redelivery_count(), &theirs.ack_set[..]));
        }
        Frame::Send { head: ours, .. } => {
            let theirs = theirs.send.as_ref().expect("send");
            assert_eq!((ours.producer_id, ours.sequence_id), (theirs.producer_id, theirs.sequence_id));
            assert_eq!(ours.num_messages, theirs.num_messages());
            assert_eq!((ours.is_chunk, ours.marker), (theirs.is_chunk(), theirs.marker()));
            assert_eq!(ours.highest_sequence_id, theirs.highest_sequence_id);
            assert_eq!(
                (ours.txnid_least_bits, ours.txnid_most_bits),
                (theirs.txnid_least_bits, theirs.txnid_most_bits)
            );
            assert_eq!(ours.message_id, theirs.message_id.as_ref().map(|id| (id.ledger_id, id.entry_id)));
        }
        Frame::Other(_) | Frame::Unknown { .. } => unreachable!("not hot"),
    }
}
