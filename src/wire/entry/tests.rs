//! Entries against frames of the official clients, and against damage of every kind.

use prost::Message;

use super::*;
use crate::pb;
use crate::wire::metadata::tests::{Random, rounds};
use crate::wire::metadata::{ChunkFields, Metadata, TxnBits};
use crate::wire::{Frame, Limits, cut, frames};

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// The entry of a whole SEND or MESSAGE frame.
fn entry_of(hex: &str) -> Bytes {
    match frames(unhex(hex).into()).next() {
        Some(Ok(Frame::Send { entry, .. } | Frame::Message { entry, .. })) => entry,
        other => panic!("{hex}: {other:?}"),
    }
}

fn head(sequence_id: u64) -> SendHead {
    SendHead::new(0, sequence_id)
}

fn metadata(sequence_id: u64) -> MetadataFields<'static> {
    MetadataFields {
        producer_name: "golden-producer",
        sequence_id,
        publish_time_ms: 1_700_000_000_000,
        ..Default::default()
    }
}

fn sealed(head: &SendHead, metadata: &MetadataFields<'_>, payload: &[u8]) -> Vec<u8> {
    let frame = seal(&mut BytesMut::new(), head, metadata, Bytes::copy_from_slice(payload));
    [&frame.head[..], &frame.payload[..]].concat()
}

const SEND_SINGLE: &str = "000000410000000808063204080010000e012d20d265000000260a0f676f6c64656e2d70726f6475636572\
                           10001880d095ffbc3122060a016112013132026b3168656c6c6f";
const SEND_WITHOUT_CHECKSUM: &str = "0000003b000000080806320408001000000000260a0f676f6c64656e2d70726f64756365721000\
                                     1880d095ffbc3122060a016112013132026b3168656c6c6f";
const SEND_TOMBSTONE: &str = "000000370000000808063204080010010e01a4a7c380000000210a0f676f6c64656e2d70726f6475636572\
                              10011880d095ffbc3132026b31c80101";
const SEND_BATCH: &str = "0000005d0000000c0806320808001003180230040e01d9382bb80000001f0a0f676f6c64656e2d70726f647563\
                          657210031880d095ffbc315802c001040000000c0a060a0178120179180340036f6e650000000a12026b6b1803\
                          3000400474776f";
const SEND_CHUNK: &str = "000000540000000a080632060800100538010e01e14b31c8000000370a0f676f6c64656e2d70726f6475636572\
                          10051880d095ffbc31d20111676f6c64656e2d70726f64756365722d35d80103e0010ce801013536373839";
const SEND_IN_TXN: &str = "0000003c0000000c0806320808001006200428010e010f35ea7e000000200a0f676f6c64656e2d70726f64756365\
                           7210061880d095ffbc31b00104b801017478";
const MESSAGE_WITH_BROKER_METADATA: &str = "0000004a0000000e08094a0a08001206080c102218000e020000000908f4d395ffbc3110\
                                            4d0e01257f43030000001a0a0f676f6c64656e2d70726f647563657210001880d095ffbc\
                                            3168656c6c6f";

#[test]
fn frames_are_sealed_as_by_the_official_clients() {
    let properties = [("a".to_owned(), "1".to_owned())];
    let single = MetadataFields { properties: &properties, partition_key: Some("k1"), ..metadata(0) };
    assert_eq!(sealed(&head(0), &single, b"hello"), unhex(SEND_SINGLE));

    let tombstone = MetadataFields { partition_key: Some("k1"), null_value: true, ..metadata(1) };
    assert_eq!(sealed(&head(1), &tombstone, b""), unhex(SEND_TOMBSTONE));

    let batch = MetadataFields { num_messages_in_batch: Some(2), highest_sequence_id: Some(4), ..metadata(3) };
    let batch_head = SendHead { num_messages: 2, highest_sequence_id: Some(4), ..head(3) };
    let records = unhex("0000000c0a060a0178120179180340036f6e650000000a12026b6b18033000400474776f");
    assert_eq!(sealed(&batch_head, &batch, &records), unhex(SEND_BATCH));

    let chunk = ChunkFields { uuid: "golden-producer-5", num_chunks: 3, total_bytes: 12, chunk_id: 1 };
    let chunk = MetadataFields { chunk: Some(chunk), ..metadata(5) };
    assert_eq!(sealed(&SendHead { is_chunk: true, ..head(5) }, &chunk, b"56789"), unhex(SEND_CHUNK));

    let txn = MetadataFields { txn: Some(TxnBits { least: 4, most: 1 }), ..metadata(6) };
    let txn_head = SendHead { txnid_least_bits: Some(4), txnid_most_bits: Some(1), ..head(6) };
    assert_eq!(sealed(&txn_head, &txn, b"tx"), unhex(SEND_IN_TXN));
}

#[test]
fn a_large_payload_is_chained_and_a_small_one_copied() {
    let mut scratch = BytesMut::new();
    for (size, chained) in [(CHAIN_MIN_BYTES - 1, false), (CHAIN_MIN_BYTES, true), (CHAIN_MIN_BYTES * 3, true)] {
        let payload = Bytes::from(vec![7; size]);
        let frame = seal(&mut scratch, &head(9), &metadata(9), payload.clone());
        assert!(scratch.is_empty());
        assert_eq!(frame.payload.as_ptr() == payload.as_ptr(), chained);
        assert_eq!(frame.payload.is_empty(), !chained);

        let mut rx = BytesMut::from(&[&frame.head[..], &frame.payload[..]].concat()[..]);
        let run = cut(&mut rx, &Limits::default()).unwrap().unwrap();
        let Some(Ok(Frame::Send { head: read, entry })) = frames(run).next() else { panic!("not a SEND frame") };
        assert!(rx.is_empty());
        assert_eq!(read, head(9));
        let mut expected = BytesMut::new();
        put_entry(&mut expected, &metadata(9), &payload);
        assert_eq!(entry, expected);
        assert_eq!(entry.len(), entry_len(&metadata(9), &payload));
        EntryParts::split(&entry).unwrap().verify(&entry).unwrap();
    }
}

#[test]
fn small_frames_share_the_scratch_space() {
    let mut scratch = BytesMut::with_capacity(4096);
    let at = scratch.as_ptr();
    let first = seal(&mut scratch, &head(0), &metadata(0), Bytes::from_static(b"one"));
    let second = seal(&mut scratch, &head(1), &metadata(1), Bytes::from_static(b"two"));
    assert_eq!(first.head.as_ptr(), at);
    assert_eq!(second.head.as_ptr(), at.wrapping_add(first.head.len()));
}

#[test]
fn the_longest_send_head_fits_what_is_reserved_for_it() {
    let longest = SendHead {
        producer_id: u64::MAX,
        sequence_id: u64::MAX,
        num_messages: -1,
        highest_sequence_id: Some(u64::MAX),
        is_chunk: true,
        marker: true,
        txnid_least_bits: Some(u64::MAX),
        txnid_most_bits: Some(u64::MAX),
        message_id: Some((u64::MAX, u64::MAX)),
    };
    let mut out = BytesMut::new();
    put_send_head(&mut out, &longest, 5);
    assert!(out.len() <= SEND_HEAD_BYTES_MAX, "{}", out.len());
}

#[test]
fn entries_of_the_official_clients_are_split() {
    for hex in [SEND_SINGLE, SEND_WITHOUT_CHECKSUM, SEND_TOMBSTONE, SEND_BATCH, SEND_CHUNK, SEND_IN_TXN] {
        let entry = entry_of(hex);
        let parts = EntryParts::split(&entry).unwrap();
        parts.verify(&entry).unwrap();
        assert_eq!(parts.checksum.is_some(), hex != SEND_WITHOUT_CHECKSUM);
        assert_eq!(parts.broker_metadata, None);
        assert_eq!(parts.payload.end, entry.len());
        let raw = &entry[parts.metadata];
        let theirs = pb::MessageMetadata::decode(raw).unwrap();
        let ours = Metadata::decode(raw).unwrap();
        assert_eq!((ours.sequence_id, ours.publish_time_ms), (theirs.sequence_id, 1_700_000_000_000));
    }
}

#[test]
fn broker_entry_metadata_comes_first_and_is_not_summed() {
    let entry = entry_of(MESSAGE_WITH_BROKER_METADATA);
    let parts = EntryParts::split(&entry).unwrap();
    parts.verify(&entry).unwrap();
    let raw = &entry[parts.broker_metadata.clone().unwrap()];
    let read = BrokerEntryMetadata::decode(raw).unwrap();
    assert_eq!(read, BrokerEntryMetadata { broker_timestamp: Some(1_700_000_000_500), index: Some(77) });
    let theirs = pb::BrokerEntryMetadata::decode(raw).unwrap();
    assert_eq!((read.broker_timestamp, read.index), (theirs.broker_timestamp, theirs.index));
    assert_eq!(entry[parts.payload.clone()], *b"hello");

    let mut again = BytesMut::new();
    put_broker_entry_metadata(&mut again, 1_700_000_000_500, 77);
    put_entry(&mut again, &metadata(0), b"hello");
    assert_eq!(again, entry);
}

#[test]
fn a_flipped_bit_fails_the_checksum_or_the_split() {
    for hex in [SEND_SINGLE, SEND_BATCH, MESSAGE_WITH_BROKER_METADATA] {
        let entry = entry_of(hex);
        let parts = EntryParts::split(&entry).unwrap();
        // The magic is left alone: without it the same bytes are another entry.
        for at in parts.checksummed_from - 4..entry.len() {
            for bit in 0..8 {
                let mut damaged = entry.to_vec();
                damaged[at] ^= 1 << bit;
                let error = EntryParts::split(&damaged).and_then(|parts| parts.verify(&damaged)).unwrap_err();
                assert_eq!(error.validation_error(), ValidationError::ChecksumMismatch);
            }
        }
    }
}

#[test]
fn a_cut_entry_is_an_error_or_fails_its_checksum() {
    for hex in [SEND_SINGLE, SEND_BATCH, MESSAGE_WITH_BROKER_METADATA] {
        let entry = entry_of(hex);
        for end in 0..entry.len() {
            let cut = &entry[..end];
            assert!(EntryParts::split(cut).and_then(|parts| parts.verify(cut)).is_err(), "{hex} {end}");
        }
    }
}

#[test]
fn sizes_beyond_the_entry_are_refused() {
    let error = |hex: &str| match EntryParts::split(&unhex(hex)).unwrap_err() {
        EntryError::TooShort { field, needed, left } => (field, needed, left),
        other => panic!("{other:?}"),
    };
    assert_eq!(error(""), ("metadata_size", 4, 0));
    assert_eq!(error("0e"), ("metadata_size", 4, 1));
    assert_eq!(error("7fffffff78"), ("MessageMetadata", 0x7fff_ffff, 1));
    assert_eq!(error("0e01aabbcc"), ("checksum", 4, 3));
    assert_eq!(error("0e01aabbccdd0000"), ("metadata_size", 4, 2));
    assert_eq!(error("0e02ffffffff00"), ("BrokerEntryMetadata", 0xffff_ffff, 1));
    assert_eq!(error("0e0200"), ("size of BrokerEntryMetadata", 4, 1));
    // A second block of the broker is no block: its magic is the metadata's size.
    assert_eq!(error("0e02000000000e0200000000"), ("MessageMetadata", 0x0e02_0000, 2));
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Random::new(11);
    for _ in rounds(20_000) {
        let mut entry = random.bytes(40).to_vec();
        for magic in [MAGIC_CRC32C, MAGIC_BROKER_ENTRY_METADATA] {
            if entry.len() >= 2 && random.below(3) == 0 {
                entry.splice(..2, magic.to_be_bytes());
            }
        }
        if let Ok(parts) = EntryParts::split(&entry) {
            assert!(parts.metadata.end <= parts.payload.start && parts.payload.end == entry.len());
            let _ = parts.verify(&entry);
            let _ = Metadata::decode(&entry[parts.metadata]);
            let _ = parts.broker_metadata.map(|range| BrokerEntryMetadata::decode(&entry[range]));
        }
    }
}

#[test]
fn parts_of_another_entry_do_not_panic() {
    let entry = entry_of(SEND_SINGLE);
    let parts = EntryParts::split(&entry).unwrap();
    assert!(parts.verify(b"").is_err());
}

#[test]
fn every_error_has_its_code_for_the_broker() {
    let decode = DecodeError::new(DecodeErrorKind::Truncated, "x", 0);
    for (error, code) in [
        (EntryError::ChecksumMismatch { expected: 1, actual: 2 }, ValidationError::ChecksumMismatch),
        (EntryError::Metadata(decode.clone()), ValidationError::ChecksumMismatch),
        (EntryError::Batch(decode), ValidationError::BatchDeSerializeError),
        (CompressError::TooLarge { size: 2, max: 1 }.into(), ValidationError::UncompressedSizeCorruption),
        (CompressError::UnknownCodec(9).into(), ValidationError::DecompressionError),
    ] {
        assert_eq!(error.validation_error(), code, "{error}");
    }
}
