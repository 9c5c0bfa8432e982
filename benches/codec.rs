//! What bytes cost: runs of receipts and messages read, heads written, the hand-written walk against
//! prost; payloads by each codec that is built in. `cargo bench --bench codec --features all-codecs`.

use bytes::{Buf, Bytes, BytesMut};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use prost::Message as _;
use pulsar_native::pb;
use pulsar_native::wire::{
    Command, Limits, MessageHead, Receipt, SendHead, cut, frames, put_message, put_receipt, put_send_head,
};

#[path = "codec/compression.rs"]
mod compression;

/// Frames in one run.
const FRAMES: usize = 1000;

fn main() {
    divan::main();
}

fn receipts() -> Bytes {
    let mut out = BytesMut::new();
    for sequence_id in 0..FRAMES as u64 {
        let receipt = Receipt {
            producer_id: 3,
            sequence_id,
            highest_sequence_id: u64::MAX,
            ledger_id: 70_000,
            entry_id: sequence_id,
        };
        put_receipt(&mut out, &receipt);
    }
    out.freeze()
}

fn head(entry_id: u64) -> MessageHead {
    MessageHead::new(3, 70_000, entry_id)
}

fn messages() -> Bytes {
    let mut out = BytesMut::new();
    for entry_id in 0..FRAMES as u64 {
        put_message(&mut out, &head(entry_id), &[7; 100]);
    }
    out.freeze()
}

/// Reads a run as a connection does; the copy into the read buffer is not timed.
fn read_run(bencher: Bencher<'_, '_>, run: &Bytes) {
    bencher.counter(ItemsCount::new(FRAMES)).with_inputs(|| BytesMut::from(&run[..])).bench_local_refs(|rx| {
        let run = cut(rx, &Limits::default()).expect("good frames").expect("a run");
        for frame in frames(run) {
            let _ = black_box(frame).expect("a good frame");
        }
    });
}

#[divan::bench]
fn read_1000_receipts(bencher: Bencher<'_, '_>) {
    read_run(bencher, &receipts());
}

#[divan::bench]
fn read_1000_messages_of_100_bytes(bencher: Bencher<'_, '_>) {
    read_run(bencher, &messages());
}

/// The same runs through `BaseCommand`, as a client without a reader of its own does it.
fn read_run_by_prost(bencher: Bencher<'_, '_>, run: &Bytes) {
    bencher.counter(ItemsCount::new(FRAMES)).with_inputs(|| run.clone()).bench_local_refs(|rx| {
        while !rx.is_empty() {
            let total = rx.get_u32() as usize;
            let mut frame = rx.split_to(total);
            let size = frame.get_u32() as usize;
            let command = frame.split_to(size);
            black_box((pb::BaseCommand::decode(command).expect("a good command"), frame));
        }
    });
}

#[divan::bench]
fn prost_read_1000_receipts(bencher: Bencher<'_, '_>) {
    read_run_by_prost(bencher, &receipts());
}

#[divan::bench]
fn prost_read_1000_messages_of_100_bytes(bencher: Bencher<'_, '_>) {
    read_run_by_prost(bencher, &messages());
}

#[divan::bench]
fn cut_1000_receipts(bencher: Bencher<'_, '_>) {
    let run = receipts();
    bencher
        .counter(ItemsCount::new(FRAMES))
        .with_inputs(|| BytesMut::from(&run[..]))
        .bench_local_refs(|rx| cut(rx, &Limits::default()));
}

#[divan::bench]
fn decode_receipt_body(bencher: Bencher<'_, '_>) {
    let body = receipt_body().encode_to_vec();
    bencher.bench_local(|| Receipt::decode(black_box(&body), 0));
}

#[divan::bench]
fn prost_decode_receipt_body(bencher: Bencher<'_, '_>) {
    let body = receipt_body().encode_to_vec();
    bencher.bench_local(|| pb::CommandSendReceipt::decode(black_box(&body[..])));
}

fn receipt_body() -> pb::CommandSendReceipt {
    pb::CommandSendReceipt {
        producer_id: 3,
        sequence_id: 1 << 20,
        message_id: Some(pb::MessageIdData { ledger_id: 70_000, entry_id: 99, ..Default::default() }),
        highest_sequence_id: Some(u64::MAX),
    }
}

#[divan::bench]
fn put_1000_send_heads(bencher: Bencher<'_, '_>) {
    let mut out = BytesMut::with_capacity(64 * FRAMES);
    bencher.counter(ItemsCount::new(FRAMES)).bench_local(|| {
        out.clear();
        for sequence_id in 0..FRAMES as u64 {
            put_send_head(&mut out, black_box(&SendHead::new(3, sequence_id)), 100);
        }
        out.len()
    });
}

#[divan::bench]
fn prost_put_1000_send_heads(bencher: Bencher<'_, '_>) {
    let mut out = BytesMut::with_capacity(64 * FRAMES);
    bencher.counter(ItemsCount::new(FRAMES)).bench_local(|| {
        out.clear();
        for sequence_id in 0..FRAMES as u64 {
            let body = pb::CommandSend { producer_id: 3, sequence_id, ..Default::default() };
            black_box(Command::Send(body)).encode_frame(&mut out);
        }
        out.len()
    });
}
