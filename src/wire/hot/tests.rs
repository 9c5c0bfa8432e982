//! The hand-written readers and writers against prost's `BaseCommand`, over random values.

use bytes::{Buf, Bytes};

use super::*;
use crate::fuzzing::ack_of_prost;
use crate::wire::frame::{Frame, frames};
use crate::wire::metadata::tests::{Random, rounds};

/// Biased towards the values where encodings change.
impl Random {
    fn value(&mut self) -> u64 {
        match self.next() % 8 {
            0 => 0,
            1 => u64::MAX,
            2 => i64::MAX as u64,
            _ => self.next() >> (self.next() % 64),
        }
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.next() % 2 == 0).then(|| make(self))
    }

    fn words(&mut self) -> Vec<i64> {
        (0..self.next() % 4).map(|_| self.value() as i64).collect()
    }

    fn id(&mut self) -> pb::MessageIdData {
        pb::MessageIdData {
            ledger_id: self.value(),
            entry_id: self.value(),
            partition: self.maybe(|r| r.value() as i32),
            batch_index: self.maybe(|r| r.value() as i32),
            ack_set: self.words(),
            batch_size: self.maybe(|r| r.value() as i32),
            first_chunk_message_id: None,
        }
    }
}

const ROUNDS: usize = 2_000;

fn base(command_type: i32) -> pb::BaseCommand {
    pb::BaseCommand { r#type: command_type, ..Default::default() }
}

/// What `frames` makes of prost's encoding, with `entry` behind it.
fn read(command: &pb::BaseCommand, entry: &[u8]) -> Frame {
    let command = command.encode_to_vec();
    let mut out = BytesMut::new();
    out.put_u32((4 + command.len() + entry.len()) as u32);
    out.put_u32(command.len() as u32);
    out.put_slice(&command);
    out.put_slice(entry);
    only(out.freeze())
}

fn only(run: Bytes) -> Frame {
    let mut all = frames(run);
    let frame = all.next().expect("a frame").expect("a good frame");
    assert!(all.next().is_none());
    frame
}

/// What prost makes of one frame of ours, and what lies behind the command.
fn read_by_prost(mut frame: Bytes) -> (pb::BaseCommand, Bytes) {
    assert_eq!(frame.get_u32() as usize, frame.len());
    let command_size = frame.get_u32() as usize;
    let command = frame.split_to(command_size);
    (pb::BaseCommand::decode(command).expect("what we write is protobuf"), frame)
}

fn encoded(frame: &Frame) -> Bytes {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out.freeze()
}

#[test]
fn receipts_in_the_usual_layout_agree_with_prost() {
    let mut r = Random::new(1);
    for _ in rounds(ROUNDS) {
        let id = pb::MessageIdData { ledger_id: r.value(), entry_id: r.value(), ..Default::default() };
        let receipt = Receipt {
            producer_id: r.value(),
            sequence_id: r.value(),
            highest_sequence_id: r.value(),
            ledger_id: id.ledger_id,
            entry_id: id.entry_id,
        };
        let body = pb::CommandSendReceipt {
            producer_id: receipt.producer_id,
            sequence_id: receipt.sequence_id,
            message_id: Some(id),
            highest_sequence_id: Some(receipt.highest_sequence_id),
        };
        let mut bytes = body.encode_to_vec();
        assert_eq!(Receipt::decode(&bytes, 0), Ok(receipt));
        let last = bytes.pop().expect("not empty");
        assert!(Receipt::decode(&bytes, 0).is_err(), "cut in the midst of its last field");
        // A field that no known version has.
        bytes.extend([last, 0x78, 1]);
        assert_eq!(Receipt::decode(&bytes, 0), Ok(receipt));
    }
}

#[test]
fn receipts_agree_with_prost() {
    let mut r = Random::new(1);
    for _ in rounds(ROUNDS) {
        let body = pb::CommandSendReceipt {
            producer_id: r.value(),
            sequence_id: r.value(),
            message_id: r.maybe(Random::id),
            highest_sequence_id: r.maybe(Random::value),
        };
        let frame = read(&pb::BaseCommand { send_receipt: Some(body.clone()), ..base(7) }, b"skipped");
        let id = body.message_id.as_ref();
        let receipt = Receipt {
            producer_id: body.producer_id,
            sequence_id: body.sequence_id,
            highest_sequence_id: body.highest_sequence_id(),
            ledger_id: id.map_or(u64::MAX, |id| id.ledger_id),
            entry_id: id.map_or(u64::MAX, |id| id.entry_id),
        };
        assert_eq!(frame, Frame::Receipt(receipt));
        let ours = read_by_prost(encoded(&frame)).0.send_receipt.expect("send_receipt");
        assert_eq!((ours.producer_id, ours.sequence_id), (receipt.producer_id, receipt.sequence_id));
        assert_eq!(ours.highest_sequence_id, Some(receipt.highest_sequence_id));
        let id = ours.message_id.expect("message_id");
        assert_eq!((id.ledger_id, id.entry_id), (receipt.ledger_id, receipt.entry_id));
    }
}

#[test]
fn messages_agree_with_prost() {
    let mut r = Random::new(2);
    for _ in rounds(ROUNDS) {
        let body = pb::CommandMessage {
            consumer_id: r.value(),
            message_id: r.id(),
            redelivery_count: r.maybe(|r| r.value() as u32),
            ack_set: r.words(),
            consumer_epoch: r.maybe(Random::value),
        };
        let frame = read(&pb::BaseCommand { message: Some(body.clone()), ..base(9) }, b"entry");
        let head = MessageHead {
            consumer_id: body.consumer_id,
            ledger_id: body.message_id.ledger_id,
            entry_id: body.message_id.entry_id,
            partition: body.message_id.partition(),
            redelivery_count: body.redelivery_count(),
            ack_set: body.ack_set.into(),
            consumer_epoch: body.consumer_epoch,
        };
        assert_eq!(frame, Frame::Message { head: head.clone(), entry: Bytes::from_static(b"entry") });
        let (ours, entry) = read_by_prost(encoded(&frame));
        let ours = ours.message.expect("message");
        assert_eq!(entry, "entry");
        assert_eq!(ours.message_id.partition, Some(head.partition));
        assert_eq!((ours.message_id.ledger_id, ours.message_id.entry_id), (head.ledger_id, head.entry_id));
        assert_eq!((ours.consumer_id, ours.redelivery_count()), (head.consumer_id, head.redelivery_count));
        assert_eq!((AckWords::from(ours.ack_set), ours.consumer_epoch), (head.ack_set, head.consumer_epoch));
    }
}

#[test]
fn the_fast_and_the_slow_path_read_the_same_message() {
    let mut random = Random::new(12);
    let mut usual = 0;
    for _ in rounds(ROUNDS) {
        let id = pb::MessageIdData { batch_index: None, ack_set: Vec::new(), batch_size: None, ..random.id() };
        let message = pb::CommandMessage {
            consumer_id: random.value(),
            message_id: id,
            redelivery_count: random.maybe(|r| r.value() as u32),
            ack_set: if random.below(8) == 0 { random.words() } else { Vec::new() },
            consumer_epoch: None,
        };
        let mut body = message.encode_to_vec();
        usual += usize::from(MessageHead::decode_fast(&body).is_some());
        for end in 0..=body.len() {
            assert_eq!(MessageHead::decode(&body[..end], 7), MessageHead::decode_slow(&body[..end], 7), "{body:02x?}");
        }
        let at = random.below(body.len());
        body[at] = random.next() as u8;
        assert_eq!(MessageHead::decode(&body, 7), MessageHead::decode_slow(&body, 7), "{body:02x?}");
    }
    assert!(usual > rounds(ROUNDS).len() / 2, "{usual}");
}

#[test]
fn sends_agree_with_prost() {
    let mut r = Random::new(3);
    for _ in rounds(ROUNDS) {
        let body = pb::CommandSend {
            producer_id: r.value(),
            sequence_id: r.value(),
            num_messages: r.maybe(|r| r.value() as i32),
            txnid_least_bits: r.maybe(Random::value),
            txnid_most_bits: r.maybe(Random::value),
            highest_sequence_id: r.maybe(Random::value),
            is_chunk: r.maybe(|r| r.next() % 2 == 0),
            marker: r.maybe(|r| r.next() % 2 == 0),
            message_id: r.maybe(Random::id),
        };
        let frame = read(&pb::BaseCommand { send: Some(body.clone()), ..base(6) }, b"entry");
        let head = SendHead {
            producer_id: body.producer_id,
            sequence_id: body.sequence_id,
            num_messages: body.num_messages(),
            highest_sequence_id: body.highest_sequence_id,
            is_chunk: body.is_chunk(),
            marker: body.marker(),
            txnid_least_bits: body.txnid_least_bits,
            txnid_most_bits: body.txnid_most_bits,
            message_id: body.message_id.as_ref().map(|id| (id.ledger_id, id.entry_id)),
        };
        assert_eq!(frame, Frame::Send { head: head.clone(), entry: Bytes::from_static(b"entry") });
        let (ours, entry) = read_by_prost(encoded(&frame));
        let ours = ours.send.expect("send");
        assert_eq!(entry, "entry");
        assert_eq!((ours.producer_id, ours.sequence_id), (head.producer_id, head.sequence_id));
        assert_eq!(ours.num_messages(), head.num_messages);
        assert_eq!((ours.is_chunk(), ours.marker()), (head.is_chunk, head.marker));
        assert_eq!((ours.txnid_least_bits, ours.txnid_most_bits), (head.txnid_least_bits, head.txnid_most_bits));
        assert_eq!(ours.highest_sequence_id, head.highest_sequence_id);
        assert_eq!(ours.message_id.map(|id| (id.ledger_id, id.entry_id)), head.message_id);
    }
}

#[test]
fn acks_and_flows_are_written_as_prost_writes_them() {
    let mut r = Random::new(4);
    for _ in rounds(ROUNDS) {
        let ids: Vec<AckId> = (0..r.next() % 4)
            .map(|_| AckId { ledger_id: r.value(), entry_id: r.value(), ack_set: r.words().into() })
            .collect();
        let ack = AckFrame {
            consumer_id: r.value(),
            cumulative: r.next() % 2 == 0,
            ids: &ids,
            validation_error: r.maybe(|r| (r.next() % 5) as i32),
            request_id: r.maybe(Random::value),
        };
        let expected = ack_of_prost(&ack);
        let flow = pb::CommandFlow { consumer_id: r.value(), message_permits: r.value() as u32 };
        let mut ours = BytesMut::new();
        put_ack(&mut ours, &ack);
        put_flow(&mut ours, flow.consumer_id, flow.message_permits);
        put_ping(&mut ours);
        put_pong(&mut ours);
        let commands = [expected.into(), flow.into(), pb::CommandPing {}.into(), pb::CommandPong {}.into()];
        let mut theirs = BytesMut::new();
        for command in &commands {
            crate::wire::Command::encode_frame(command, &mut theirs);
        }
        assert_eq!(ours, theirs);
        let read: Vec<Frame> = frames(ours.freeze()).collect::<Result<_, _>>().expect("good frames");
        assert_eq!(read, commands.map(Frame::Other));
    }
}

#[test]
fn required_fields_must_be_present_and_say_which() {
    type Fields = &'static [(u32, &'static [u8])];
    fn body(fields: Fields, without: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, (number, value)) in fields.iter().enumerate() {
            match value {
                _ if index == without => {}
                [single] => put_uint(&mut out, *number, u64::from(*single)),
                bytes => crate::wire::proto::put_bytes(&mut out, *number, bytes),
            }
        }
        out
    }
    const ID: &[u8] = &[0x08, 1, 0x10, 2];
    let missing = |field| DecodeError::new(DecodeErrorKind::Missing, field, 100);
    let receipt: Fields = &[(1, &[1]), (2, &[2])];
    let message: Fields = &[(1, &[1]), (2, ID)];
    for without in [0, 1] {
        let names = [
            ["CommandSendReceipt.producer_id", "CommandSendReceipt.sequence_id"],
            ["CommandSend.producer_id", "CommandSend.sequence_id"],
        ];
        let bytes = body(receipt, without);
        assert_eq!(Receipt::decode(&bytes, 100), Err(missing(names[0][without])));
        assert_eq!(SendHead::decode(&bytes, 100), Err(missing(names[1][without])));
        let name = ["CommandMessage.consumer_id", "CommandMessage.message_id"][without];
        assert_eq!(MessageHead::decode(&body(message, without), 100), Err(missing(name)));
    }
    assert!(MessageHead::decode(&body(message, 9), 0).is_ok());
    let no_entry = [0x08, 1, 0x12, 2, 0x08, 1];
    assert_eq!(MessageHead::decode(&no_entry, 100), Err(missing("MessageIdData.entryId")));
}

#[test]
fn packed_ack_sets_are_read_and_absurd_ones_refused() {
    let mut body = vec![0x08, 1, 0x12, 4, 0x08, 1, 0x10, 2, 0x20, 7, 0x22, 2, 8, 9];
    assert_eq!(MessageHead::decode(&body, 0).expect("good").ack_set[..], [7, 8, 9]);
    body.extend([0x20, 1].repeat(ACK_SET_WORDS_MAX - 3));
    assert_eq!(MessageHead::decode(&body, 0).expect("good").ack_set.len(), ACK_SET_WORDS_MAX);
    body.extend([0x20, 1]);
    let error = MessageHead::decode(&body, 0).expect_err("too long");
    assert!(matches!(error.kind, DecodeErrorKind::TooLarge { .. }), "{error}");
    assert_eq!((error.field, error.offset), ("CommandMessage.ack_set", body.len() - 2));
}

#[test]
fn ids_nested_too_deep_are_refused() {
    let mut id = vec![0x08, 1, 0x10, 2];
    for depth in 0..200 {
        let mut body = vec![0x08, 1];
        crate::wire::proto::put_bytes(&mut body, 2, &id);
        // Both ways of reading agree, far from where the stack would end.
        let ok = depth < 60;
        if !(60..=66).contains(&depth) {
            assert_eq!(MessageHead::decode(&body, 0).is_ok(), ok, "depth {depth}");
            assert_eq!(crate::wire::Command::decode(MESSAGE, &body, 0).is_ok(), ok, "depth {depth}");
        }
        let mut outer = vec![0x08, 1, 0x10, 2];
        crate::wire::proto::put_bytes(&mut outer, 7, &id);
        id = outer;
    }
}

#[test]
fn a_field_of_another_wire_type_is_an_error_with_its_place() {
    let bytes = [0x08, 1, 0x12, 0];
    let error = Receipt::decode(&bytes, 10).expect_err("sequence_id is no bytes");
    assert_eq!(error, DecodeError::new(DecodeErrorKind::BadWireType, "CommandSendReceipt.sequence_id", 12));
}
