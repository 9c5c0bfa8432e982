//! Send, batching, chunking, encryption.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::{Bytes, BytesMut};
use pulsar_native::pb::{self, ProducerAccessMode};
use pulsar_native::wire::metadata::{ChunkFields, EncryptionFields, put_encryption_key};
use pulsar_native::wire::{MetadataFields, SendHead};

use super::metadata;
use crate::book::frames::{Blocks, Exchange, frame, send_frame};
use crate::support::{TOPIC, producer_command};

pub(super) fn blocks(blocks: &mut Blocks) {
    send(blocks);
    waiting(blocks);
    blocks.vector("receipt-duplicate", "broker", "broker408_send_receipt_duplicate");
    blocks.vector("batch", "client", "send_batch_of_two");
    blocks.vector("batch-receipt", "broker", "broker408_send_receipt_batch_highest");
    blocks.vector("batch-zlib", "client", "send_batch_zlib");
    chunks(blocks);
    encrypted(blocks);
}

fn send(blocks: &mut Blocks) {
    let mut exchange = Exchange::new(blocks);
    let conn = exchange.conn;
    exchange.harness.look_up(conn, TOPIC);
    let open = pb::CommandProducer { epoch: Some(0), ..producer_command(4, 1, TOPIC) };
    exchange.client("producer", &frame(open));
    exchange.broker(["producer-success"]);
    exchange.client("send", &send_frame(&SendHead::new(1, 0), &metadata(0), b"hello"));
    exchange.broker(["receipt"]);

    let mut damaged = BytesMut::from(&send_frame(&SendHead::new(1, 1), &metadata(1), b"hello")[..]);
    *damaged.last_mut().expect("a payload") ^= 1;
    exchange.harness.send_bytes(conn, &damaged);
    exchange.broker(["send-error"]);

    exchange.client(
        "close-producer",
        &frame(pb::CommandCloseProducer { producer_id: 1, request_id: 5, ..Default::default() }),
    );
    exchange.broker(["close-producer"]);
}

/// Another client has the topic for itself, and closes its producer.
fn waiting(blocks: &mut Blocks) {
    let mut exchange = Exchange::new(blocks);
    let other = exchange.harness.connect();
    exchange.harness.look_up(other, TOPIC);
    let open = |request_id, name: &str, mode: ProducerAccessMode| pb::CommandProducer {
        producer_name: Some(name.to_owned()),
        producer_access_mode: Some(mode.into()),
        ..producer_command(request_id, 1, TOPIC)
    };
    exchange.harness.ask(other, open(1, "holder", ProducerAccessMode::Exclusive));
    exchange.client("waiting", &frame(open(8, "p", ProducerAccessMode::WaitForExclusive)));
    exchange.broker(["waiting"]);
    exchange.harness.ask(other, pb::CommandCloseProducer { producer_id: 1, request_id: 2, ..Default::default() });
    exchange.broker(["waiting"]);
}

/// The twelve bytes `abcdefghijkl` in three chunks.
fn chunks(blocks: &mut Blocks) {
    let mut exchange = Exchange::new(blocks);
    let conn = exchange.conn;
    exchange.harness.producer(conn, 1);
    for (chunk_id, part) in [(0, "abcde"), (1, "fghij"), (2, "kl")] {
        let chunk = ChunkFields { uuid: "p-7", chunk_id, num_chunks: 3, total_bytes: 12 };
        let head = SendHead { is_chunk: true, ..SendHead::new(1, 7) };
        let bytes = send_frame(&head, &MetadataFields { chunk: Some(chunk), ..metadata(7) }, part.as_bytes());
        match chunk_id {
            1 => exchange.harness.send_bytes(conn, &bytes),
            _ => exchange.client("chunks", &bytes),
        }
    }
    exchange.broker(["chunk-receipts", "chunk-receipts", "chunk-receipts"]);
    let id = |entry_id| pb::MessageIdData { ledger_id: 1, entry_id, ..Default::default() };
    let ack = pb::CommandAck {
        consumer_id: 1,
        ack_type: pb::command_ack::AckType::Individual.into(),
        message_id: (0..3).map(id).collect(),
        ..Default::default()
    };
    exchange.blocks.add("chunk-ack", "client", &frame(ack));
}

/// `hello`, encrypted with a data key and a vector that are known. The wrapped data key is a stand-in of the length that a
/// key of 2048 bits gives.
fn encrypted(blocks: &mut Blocks) {
    let data_key: Vec<u8> = (0..32).collect();
    let vector = *b"book-vector!";
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &data_key).expect("32 bytes"));
    let mut payload = b"hello".to_vec();
    let nonce = Nonce::assume_unique_for_key(vector);
    key.seal_in_place_append_tag(nonce, Aad::empty(), &mut payload).expect("sealed");
    let mut keys = BytesMut::new();
    put_encryption_key(&mut keys, "orders-key", &[0xa5; 256], &[]);
    let encryption = Some(EncryptionFields { keys: &keys, param: &vector });
    let fields = MetadataFields { encryption, uncompressed_size: 5, ..metadata(0) };
    blocks.add("encrypted", "client", &send_frame(&SendHead::new(1, 0), &fields, &Bytes::from(payload)));
}
