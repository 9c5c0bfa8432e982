use bytes::{Bytes, BytesMut};

use super::*;
use crate::pb;
use crate::wire::compress::{Compression, compress};
use crate::wire::proto::{put_bytes, put_uint};
use crate::wire::{Command, MetadataFields, SendHead, SingleFields, put_record, seal};

fn whole(frame: &crate::wire::SealedFrame) -> Vec<u8> {
    [&frame.head[..], &frame.payload[..]].concat()
}

fn records() -> Bytes {
    let mut records = BytesMut::new();
    for payload in ["one", "three"] {
        let single = SingleFields { payload_size: payload.len() as i32, ..SingleFields::default() };
        put_record(&mut records, &single, payload.as_bytes());
    }
    records.freeze()
}

fn batch() -> Vec<u8> {
    let metadata = MetadataFields { producer_name: "p-1", num_messages_in_batch: Some(2), ..MetadataFields::default() };
    whole(&seal(&mut BytesMut::new(), &SendHead::new(3, 9), &metadata, records()))
}

fn encoded(command: impl Into<Command>) -> Vec<u8> {
    let mut frame = BytesMut::new();
    command.into().encode_frame(&mut frame);
    frame.to_vec()
}

/// A frame around the bytes of a command.
fn framed(command: &[u8]) -> Vec<u8> {
    let size = command.len() as u32;
    [&(size + 4).to_be_bytes()[..], &size.to_be_bytes(), command].concat()
}

fn one(input: &[u8]) -> Explanation {
    let mut all = explain(input);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn line<'a>(explained: &'a Explanation, path: &str) -> &'a Line {
    explained.lines.iter().find(|line| line.path == path).unwrap_or_else(|| panic!("no {path} in\n{explained}"))
}

/// The one problem of a frame: path, byte, what was expected.
fn problem(input: &[u8]) -> (String, usize, String) {
    let explained = one(input);
    let all: Vec<_> = explained.problems().collect();
    let [(line, problem)] = all[..] else { panic!("{} problems in\n{explained}", all.len()) };
    (line.path.clone(), problem.at, problem.expected.to_string())
}

/// Each byte of the frame, and of each content, is in exactly one line.
fn assert_covered(explained: &Explanation) {
    let contents = (0..explained.contents().len()).map(Some);
    for content in std::iter::once(None).chain(contents) {
        let mut at = 0;
        for line in explained.lines.iter().filter(|line| line.content == content) {
            assert_eq!(line.bytes.start, at, "{line:?} of\n{explained}");
            at = line.bytes.end;
        }
        let whole = content.map_or(explained.input(), |index| &explained.contents()[index]);
        assert_eq!(at, whole.len(), "the end of\n{explained}");
    }
}

#[test]
fn a_send_is_named_to_its_last_byte() {
    let frame = batch();
    let explained = one(&frame);
    assert_covered(&explained);
    assert_eq!((explained.command, explained.problems().count()), (Some("SEND"), 0));
    for (path, value) in [
        ("BaseCommand.type", Value::Enum { number: 6, name: Some("SEND") }),
        ("CommandSend.producer_id", Value::Uint64(3)),
        ("CommandSend.sequence_id", Value::Uint64(9)),
        ("MessageMetadata.producer_name", Value::Text("p-1".to_owned())),
        ("MessageMetadata.num_messages_in_batch", Value::Int32(2)),
        ("records[1].metadata_size", Value::Uint32(2)),
        ("records[1].SingleMessageMetadata.payload_size", Value::Int32(5)),
        ("records[1].payload", Value::Bytes(Bytes::from_static(b"three"))),
    ] {
        assert_eq!(line(&explained, path).value, value, "{path}");
    }
    assert_eq!(line(&explained, "checksum").meaning.as_deref(), Some("CRC-32C of all that follows: right"));
    assert_eq!(line(&explained, "CommandSend.producer_id").rule, Some("docs/protocol/04-send.md#send"));
}

#[test]
fn a_frame_has_this_text() {
    let text = one(&encoded(pb::CommandFlow { consumer_id: 7, message_permits: 1000 })).to_string();
    assert_eq!(
        text,
        "\
FLOW, 17 bytes: the client lets the broker send more messages to a consumer [docs/protocol/06-flow.md#flow]
     0  00 00 00 0d                             total_size = 13  (bytes of the frame behind this field)
     4  00 00 00 09                             command_size = 9  (bytes of the command, a BaseCommand)
     8  08 0b                                     type = 11 FLOW
    10  5a 05                                     flow: CommandFlow, 5 bytes
    12  08 07                                       consumer_id = 7  (chosen by the client)
    14  10 e8 07                                    messagePermits = 1000  (how many messages more may come)
"
    );
}

#[test]
fn a_frame_has_this_json() {
    let json = one(&encoded(pb::CommandFlow { consumer_id: 7, message_permits: 1000 })).to_json();
    let parsed: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&parsed["command"], &parsed["size"]), (&"FLOW".into(), &17.into()));
    let last = parsed["lines"].as_array().and_then(|lines| lines.last()).expect("lines");
    let expected = serde_json::json!({
        "offset": 14, "size": 3, "hex": "10e807", "depth": 2, "path": "CommandFlow.messagePermits", "wire_type": "varint",
        "value": 1000, "meaning": "how many messages more may come", "rule": "docs/protocol/06-flow.md#flow",
        "problem": null, "content": null,
    });
    assert_eq!(*last, expected);
}

#[test]
fn a_compressed_payload_is_opened_or_says_why_not() {
    for codec in Compression::ALL.into_iter().filter(|codec| *codec != Compression::None) {
        let payload = compress(codec, None, &records()).unwrap_or_else(|_| Bytes::from_static(b"?"));
        let metadata = MetadataFields {
            producer_name: "p-1",
            compression: codec.to_pb(),
            uncompressed_size: records().len() as u32,
            num_messages_in_batch: Some(2),
            ..MetadataFields::default()
        };
        let explained = one(&whole(&seal(&mut BytesMut::new(), &SendHead::new(3, 9), &metadata, payload)));
        assert_covered(&explained);
        if codec.is_built_in() {
            assert_eq!(explained.contents(), [records()]);
            let three = line(&explained, "records[1].payload");
            assert_eq!((three.content, explained.bytes_of(three)), (Some(0), &b"three"[..]));
        } else {
            let meaning = line(&explained, "payload").meaning.as_deref().unwrap_or_default();
            assert!(meaning.contains("needs the crate feature"), "{meaning}");
        }
    }
}

#[test]
fn credentials_stay_secret() {
    let auth = |data: &'static [u8]| pb::AuthData {
        auth_method_name: Some("m".to_owned()),
        auth_data: Some(Bytes::from_static(data)),
    };
    let connect = pb::CommandConnect {
        client_version: "c".to_owned(),
        auth_method_name: Some("token".to_owned()),
        auth_data: Some(Bytes::from_static(b"hunter-prey")),
        original_auth_data: Some("hunter-prey".to_owned()),
        ..Default::default()
    };
    let lookup = pb::CommandLookupTopic {
        topic: "t".to_owned(),
        original_auth_data: Some("hunter-prey".to_owned()),
        ..Default::default()
    };
    let response = pb::CommandAuthResponse { response: Some(auth(b"hunter-prey")), ..Default::default() };
    for frame in [encoded(connect), encoded(lookup), encoded(response)] {
        let shown = one(&frame).to_string();
        assert!(shown.contains("auth_data = <1"), "{shown}");
        // Nor where the frame breaks off, in no form.
        for end in 0..=frame.len() {
            for explained in explain(&frame[..end]) {
                let forms = [
                    explained.to_string(),
                    explained.text().all_bytes(true).to_string(),
                    explained.to_json(),
                    format!("{explained:?}"),
                ];
                for text in forms {
                    let is_hidden =
                        !text.contains("hunt") && !text.contains("68 75 6e 74") && !text.contains("68756e74");
                    assert!(is_hidden, "{text}");
                }
            }
        }
    }
}

#[test]
fn every_cut_and_every_flipped_byte_ends_well() {
    let frame = batch();
    for end in 0..frame.len() {
        let mut damaged = frame.clone();
        damaged[end] ^= 0xff;
        for input in [&frame[..end], &damaged] {
            for explained in explain(input) {
                assert_covered(&explained);
                let _ = (explained.to_string(), explained.to_json());
            }
        }
        if end > 0 {
            assert!(one(&frame[..end]).problems().count() > 0, "a frame of {end} bytes is cut");
        }
    }
}

#[test]
fn frames_are_told_apart_and_counted_through() {
    let (first, second) = (encoded(pb::CommandPing {}), batch());
    let all = explain(&[&first[..], &second, &first[..3]].concat());
    assert_eq!(all.iter().map(|frame| frame.command).collect::<Vec<_>>(), [Some("PING"), Some("SEND"), None]);
    assert_eq!(all[1].offset, first.len() as u64);
    assert!(all[1].to_string().contains(" at 13: "), "{}", all[1]);
    all.iter().for_each(assert_covered);
}

#[test]
fn what_breaks_a_frame_is_named_with_what_was_expected() {
    let broken = |command: &[u8]| problem(&framed(command));
    let expect = |found: (String, usize, String), path: &str, at: usize, expected: &str| {
        assert_eq!((found.0.as_str(), found.1), (path, at), "{found:?}");
        assert!(found.2.contains(expected), "{found:?}");
    };
    expect(problem(&[0, 0, 0]), "total_size", 3, "4 bytes");
    expect(problem(&[0, 0, 0, 3, 0, 0, 0]), "total_size", 0, "at least 4");
    expect(problem(&[0, 0, 0, 6, 0, 0, 0, 0x64, 8, 0x12]), "command_size", 4, "at most 2");
    expect(problem(b"\x16\x03\x01\x02\x00\x01"), "total_size", 0, "a record of TLS");
    expect(problem(b"GET /lookup/v2"), "total_size", 0, "a request of HTTP");
    expect(broken(&[]), "BaseCommand.type", 8, "the required field type");
    expect(broken(&[8, 0x80]), "BaseCommand.type", 10, "more bytes");
    expect(broken(&[8, 11]), "BaseCommand.flow", 10, "the field flow");
    expect(broken(&[8, 11, 0x5a, 2, 8, 0]), "CommandFlow.messagePermits", 14, "the required field messagePermits");
    expect(broken(&[8, 11, 0x5a, 9, 8, 0]), "BaseCommand.flow", 11, "at most 2");
    expect(broken(&[8, 11, 0x5a, 2, 10, 0]), "CommandFlow.consumer_id", 12, "a varint (wire type 0), not a length");
    expect(
        broken(&[8, 11, 0x5b]),
        "BaseCommand.flow",
        10,
        "a length and bytes (wire type 2), not the start of a group",
    );
    expect(broken(&[8, 11, 0]), "BaseCommand.?", 10, "a number from 1");
    expect(broken(&[8, 14, 0x72, 7, 8, 0, 16, 0, 26, 1, 0xff]), "CommandError.message", 18, "UTF-8");
    expect(broken(&[8, 6, 0x32, 4, 8, 0, 16, 0]), "metadata_size", 16, "an entry");
    let mut frame = batch();
    let end = frame.len() - 1;
    frame[end] ^= 1;
    expect(problem(&frame), "checksum", 24 - 6, "changed on the way");
    expect(problem(&batch()[..end]), "records[1].payload", end - 4, "5 bytes, as payload_size says; 4 are left");
}

#[test]
fn a_repeated_number_is_read_packed_and_unpacked() {
    let mut id = vec![];
    put_uint(&mut id, 1, 1);
    put_uint(&mut id, 2, 2);
    put_bytes(&mut id, 5, &[1, 2]);
    put_uint(&mut id, 5, 3);
    let mut ack = vec![];
    put_uint(&mut ack, 1, 0);
    put_uint(&mut ack, 2, 0);
    put_bytes(&mut ack, 3, &id);
    let mut command = vec![8, 10];
    put_bytes(&mut command, 10, &ack);
    let explained = one(&framed(&command));
    assert_covered(&explained);
    for (index, word) in [1, 2, 3].into_iter().enumerate() {
        let path = format!("CommandAck.message_id[0].ack_set[{index}]");
        assert_eq!(line(&explained, &path).value, Value::Int64(word));
    }
}

#[test]
fn a_frame_of_many_fields_has_a_limit() {
    let command = [&[8, 18, 0x92, 1, 0][..], &[0xf8, 7, 0].repeat(2 * LINES_MAX)].concat();
    let explained = one(&framed(&command));
    assert_covered(&explained);
    assert!(explained.lines.len() <= LINES_MAX + 2, "{}", explained.lines.len());
}
