//! What a message costs the consumer's machine: entries in, taken, acknowledged, permits returned; no socket, no runtime.
//! `cargo bench --bench machine_consumer`. Each item is one message; a sample is a million of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use divan::Bencher;
use divan::counter::ItemsCount;
use pulsar_native::id::{ConsumerId, MessagePosition};
use pulsar_native::machine::consumer::{
    Consumer, ConsumerConfig, QueueSignals, ReceivedEntry, ReturnedPermits, SubscriptionType,
};
use pulsar_native::machine::endpoint::outbox::Outbox;
use pulsar_native::machine::{Deferred, Endpoint, EndpointId, Now, ReadyList, Reply};
use pulsar_native::wire::entry::put_entry;
use pulsar_native::wire::{MessageHead, MetadataFields, TxBuf};

/// Messages in a sample.
const MESSAGES: usize = 1_000_000;

/// Entries that a session hands over under one lock.
const RUN: usize = 64;

/// Payload of a message, bytes.
const PAYLOAD_BYTES: usize = 100;

fn main() {
    divan::main();
}

struct Bench {
    endpoint: Arc<Endpoint<Consumer>>,
    owner: Arc<ReadyList>,
    now: Now,
    tx: TxBuf,
    next_entry: u64,
    run: Vec<ReceivedEntry>,
    taken: VecDeque<ReceivedEntry>,
    permits: ReturnedPermits,
}

impl Bench {
    fn new(index_acks: bool) -> Self {
        let now = Now { at: Instant::now(), wall_ms: 0 };
        let mut config = ConsumerConfig::new("s");
        config.subscription_type = SubscriptionType::Shared;
        config.batch_index_acknowledgment = index_acks;
        let (to, _reply) = Reply::pair();
        let (inbox, owner) = (ReadyList::new(), ReadyList::new());
        let id = ConsumerId(1);
        let topic = "persistent://public/default/bench".into();
        let signals = QueueSignals { inbox, epoch: Arc::new(AtomicU64::new(0)), observer: None };
        let mut consumer = Consumer::new(id, topic, -1, Arc::new(config), signals, to, now);
        consumer.subscribe_request(now);
        consumer.on_attached(&mut Deferred::new());
        let endpoint = Endpoint::new(EndpointId::Consumer(id), consumer, owner.clone());
        Self {
            endpoint,
            owner,
            now,
            tx: TxBuf::new(),
            next_entry: 0,
            run: Vec::with_capacity(RUN),
            taken: VecDeque::new(),
            permits: ReturnedPermits::default(),
        }
    }

    /// One round: a run of entries in, all taken, each message acknowledged, what is due written.
    fn round(&mut self, raw: &Bytes, members: usize) {
        for _ in 0..RUN {
            let head = MessageHead::new(1, 70_000, self.next_entry);
            self.next_entry += 1;
            self.run.push(ReceivedEntry::read(head, raw.clone()));
        }
        let mut deferred = Deferred::new();
        let (now, run) = (self.now, &mut self.run);
        self.endpoint.with_deferred(&mut deferred, |consumer, deferred| consumer.on_entries(run, now, deferred));
        let (permits, into) = (self.permits, &mut self.taken);
        let taken = self.endpoint.with_deferred(&mut deferred, |consumer, _| consumer.take(permits, into));
        self.permits = ReturnedPermits { attach_number: taken.attach_number, count: 0 };
        while let Some(entry) = self.taken.pop_front() {
            self.permits.count += entry.permits;
            for index in 0..members {
                let id = MessagePosition {
                    batch_index: if members == 1 { -1 } else { index as i32 },
                    batch_size: members as i32,
                    ..MessagePosition::new(entry.ledger_id, entry.entry_id)
                };
                let acked = self.endpoint.with_deferred(&mut deferred, |consumer, _| consumer.ack(&id, || now));
                acked.expect("taken");
            }
        }
        let mut requests = Vec::new();
        let tx = &mut self.tx;
        self.endpoint.serve(&self.owner, |consumer| {
            consumer.handle_deadline(now, &mut Deferred::new());
            consumer.poll_transmit(&mut Outbox::new(tx, 64 * 1024, &mut requests), now)
        });
        let written = self.tx.len();
        self.tx.advance(written);
    }
}

fn raw(members: usize) -> Bytes {
    let count = (members > 1).then_some(members as i32);
    let metadata = MetadataFields {
        producer_name: "standalone-0-1",
        publish_time_ms: 1_700_000_000_000,
        num_messages_in_batch: count,
        ..MetadataFields::default()
    };
    let mut out = BytesMut::new();
    put_entry(&mut out, &metadata, &vec![0x61; PAYLOAD_BYTES * members]);
    out.freeze()
}

fn million(bencher: Bencher, members: usize, index_acks: bool) {
    let raw = raw(members);
    bencher.counter(ItemsCount::new(MESSAGES)).with_inputs(|| Bench::new(index_acks)).bench_local_values(
        |mut bench| {
            for _ in 0..MESSAGES / (RUN * members) {
                bench.round(&raw, members);
            }
            bench
        },
    );
}

/// Entries of one message, read (checksum included), taken and acknowledged one by one.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn single(bencher: Bencher) {
    million(bencher, 1, true);
}

/// Batches of a hundred, every member acknowledged.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn batches_of_100(bencher: Bencher) {
    million(bencher, 100, true);
}

/// The same without batch index acknowledgement.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn batches_of_100_whole(bencher: Bencher) {
    million(bencher, 100, false);
}

/// Only [`ReceivedEntry::read`], to be subtracted from the above.
#[divan::bench(sample_count = 20, sample_size = 1, args = [1, 100])]
fn read_only(bencher: Bencher, members: usize) {
    let raw = raw(members);
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        for entry_id in 0..(MESSAGES / members) as u64 {
            let head = MessageHead::new(1, 70_000, entry_id);
            divan::black_box(ReceivedEntry::read(head, raw.clone()));
        }
    });
}
