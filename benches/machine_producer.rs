//! What a message costs from push to receipt, without a socket: one million of 100 bytes, pushed, sealed, written to
//! a transmit buffer and settled by receipts. `cargo bench --bench machine_producer`.
//!
//! Time per message = time per iteration / one million.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use pulsar_native::id::ProducerId;
use pulsar_native::machine::connection::peer::PeerInfo;
use pulsar_native::machine::endpoint::outbox::Outbox;
use pulsar_native::machine::producer::{Message, PendingSend, Producer, ProducerConfig};
use pulsar_native::machine::{Deferred, Endpoint, EndpointId, Now, ReadyList, Reply};
use pulsar_native::pb;
use pulsar_native::wire::{MAX_MESSAGE_SIZE_DEFAULT, Receipt, TxBuf};

const MESSAGES: u64 = 1_000_000;

/// Messages pushed between two turns of the driver.
const TURN: u64 = 1000;

fn main() {
    divan::main();
}

/// The clocks, as a driver reads them.
fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    Now { at: Instant::now(), wall_ms: wall.as_millis() as u64 }
}

fn attached(change: impl FnOnce(&mut ProducerConfig)) -> Producer {
    let mut config = ProducerConfig::default();
    change(&mut config);
    let (to, _created) = Reply::pair();
    let mut producer =
        Producer::new(ProducerId(1), "persistent://public/default/bench".into(), -1, Arc::new(config), to, now());
    let peer = PeerInfo {
        address: "localhost:6650".into(),
        server_version: String::new(),
        protocol_version: 21,
        max_message_size: MAX_MESSAGE_SIZE_DEFAULT,
        supports_topic_watchers: true,
        supports_partitions_without_creation: true,
    };
    let opened = pb::CommandProducerSuccess { producer_name: "standalone-0-1".into(), ..Default::default() };
    producer.open_request(now());
    producer.on_attached(&opened, &peer, now(), &mut Deferred::new());
    producer
}

/// One turn of the driver, and the broker's answers to it: one for every `step` messages.
fn turn(producer: &mut Producer, tx: &mut TxBuf, from: u64, step: u64, receipts: &mut Vec<Receipt>) {
    let now = now();
    let mut deferred = Deferred::new();
    while let Some(job) = producer.take_job(now) {
        producer.put_job(job.run(), now, &mut deferred);
    }
    let mut asks = Vec::new();
    let _ = producer.poll_transmit(&mut Outbox::new(tx, usize::MAX, &mut asks), now);
    let written = tx.len();
    tx.advance(black_box(written));
    receipts.clear();
    receipts.extend((from..from + TURN).step_by(step as usize).map(|sequence_id| Receipt {
        producer_id: 1,
        sequence_id,
        highest_sequence_id: u64::MAX,
        ledger_id: 7,
        entry_id: sequence_id,
    }));
    producer.on_receipts(receipts, now, &mut deferred).expect("good receipts");
}

fn run(bencher: Bencher<'_, '_>, step: u64, change: fn(&mut ProducerConfig)) {
    let payload = Bytes::from(vec![7; 100]);
    bencher.counter(ItemsCount::new(MESSAGES)).with_inputs(|| attached(change)).bench_local_values(|mut producer| {
        let (mut tx, mut receipts) = (TxBuf::new(), Vec::new());
        for from in (0..MESSAGES).step_by(TURN as usize) {
            for _ in 0..TURN {
                let pending = producer.push(Message::new(payload.clone()), None, now).expect("room");
                black_box(&pending);
            }
            turn(&mut producer, &mut tx, from, step, &mut receipts);
        }
        assert_eq!(producer.stats().pending_messages, 0);
    });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn batched(bencher: Bencher<'_, '_>) {
    run(bencher, 1000, |_| {});
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn batched_by_ten(bencher: Bencher<'_, '_>) {
    run(bencher, 10, |config| config.batching_max_messages = 10);
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn unbatched(bencher: Bencher<'_, '_>) {
    run(bencher, 1, |config| config.batching = false);
}

/// As a user's task does it: through the endpoint's lock, each result kept until it is there.
#[divan::bench(sample_count = 10, sample_size = 1, args = [true, false])]
fn through_the_endpoint(bencher: Bencher<'_, '_>, batching: bool) {
    let payload = Bytes::from(vec![7; 100]);
    let step = if batching { TURN } else { 1 };
    let inputs = || {
        let producer = attached(|config| config.batching = batching);
        Endpoint::new(EndpointId::Producer(ProducerId(1)), producer, ReadyList::new())
    };
    bencher.counter(ItemsCount::new(MESSAGES)).with_inputs(inputs).bench_local_values(|endpoint| {
        let (mut tx, mut receipts) = (TxBuf::new(), Vec::new());
        let mut pending: Vec<PendingSend> = Vec::new();
        let mut deferred = Deferred::new();
        for from in (0..MESSAGES).step_by(TURN as usize) {
            for _ in 0..TURN {
                let message = Message::new(payload.clone());
                let pushed = endpoint.with_deferred(&mut deferred, |producer, _| producer.push(message, None, now));
                pending.push(pushed.expect("room"));
            }
            endpoint.with_deferred(&mut deferred, |producer, _| turn(producer, &mut tx, from, step, &mut receipts));
            for send in pending.drain(..) {
                let _ = black_box(send.try_result()).expect("settled").expect("stored");
            }
        }
    });
}
