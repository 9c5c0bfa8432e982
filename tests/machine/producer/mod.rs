//! The producer's machine under a virtual clock, against a broker of a few lines.
#![allow(clippy::let_underscore_future, reason = "a send goes its way whether or not its outcome is looked at")]

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use pulsar_native::error::{ErrorKind, Result, SendError, ServerCode, ServerError};
use pulsar_native::id::{MessageId, ProducerId};
use pulsar_native::machine::connection::error::RequestError;
use pulsar_native::machine::connection::peer::PeerInfo;
use pulsar_native::machine::endpoint::machine::AfterNotification;
use pulsar_native::machine::endpoint::outbox::{More, Op, OpKind, Outbox};
use pulsar_native::machine::producer::{
    AccessMode, CapacityWaiter, Message, PendingSend, Producer, ProducerConfig, ProducerCreated, PushError, SealJob,
};
use pulsar_native::machine::{Deferred, Endpoint, EndpointId, Now, ReadyList, Reply};
use pulsar_native::pb;
use pulsar_native::schema::{SchemaInfo, SchemaType};
use pulsar_native::wire::batch::BatchCursor;
use pulsar_native::wire::entry::EntryParts;
use pulsar_native::wire::frame::{Frame, Limits, cut, frames};
use pulsar_native::wire::hot::{Receipt, SendHead};
use pulsar_native::wire::metadata::Metadata;
use pulsar_native::wire::tx::TxBuf;
use pulsar_native::wire::{Command, MAX_MESSAGE_SIZE_DEFAULT};

use crate::Count;

mod batching;
mod chunks;
mod deadlines;
#[cfg(feature = "encryption")]
mod encryption;
mod ending;
mod key_batches;
mod memory;
mod opening;
mod random;
mod receipts;

const SECOND: Duration = Duration::from_secs(1);

/// One SEND as the broker sees it.
#[derive(Debug, Clone)]
struct Sent {
    head: SendHead,
    raw: Bytes,
    metadata: Metadata,
    schema_version: Option<Bytes>,
    /// Payloads of its messages, in order, and their sequence ids.
    payloads: Vec<Bytes>,
    ids: Vec<u64>,
}

struct ProducerHarness {
    producer: Producer,
    created: Reply<ProducerCreated>,
    now: Now,
    peer: PeerInfo,
    asked: Vec<(Op, Command)>,
    next_entry: u64,
}

fn config(change: impl FnOnce(&mut ProducerConfig)) -> ProducerConfig {
    let mut config = ProducerConfig::default();
    change(&mut config);
    config.validate().expect("a valid configuration");
    config
}

impl ProducerHarness {
    fn new(config: ProducerConfig) -> Self {
        let (to, created) = Reply::pair();
        let now = Now { at: Instant::now(), wall_ms: 1_700_000_000_000 };
        let producer = Producer::new(ProducerId(7), "persistent://a/b/t".into(), 2, Arc::new(config), to, now);
        let peer = PeerInfo {
            address: "localhost:6650".into(),
            server_version: "4.0.8".into(),
            protocol_version: 21,
            max_message_size: MAX_MESSAGE_SIZE_DEFAULT,
            supports_topic_watchers: true,
            supports_partitions_without_creation: true,
        };
        Self { producer, created, now, peer, asked: Vec::new(), next_entry: 0 }
    }

    fn attached(config: ProducerConfig) -> Self {
        let mut harness = Self::new(config);
        harness.attach(-1);
        harness
    }

    fn attach(&mut self, last_sequence_id: i64) -> pb::CommandProducer {
        let request = self.producer.open_request(self.now);
        self.opened(last_sequence_id);
        request
    }

    fn opened(&mut self, last_sequence_id: i64) {
        let opened = pb::CommandProducerSuccess {
            producer_name: "standalone-0-1".into(),
            last_sequence_id: Some(last_sequence_id),
            schema_version: Some(Bytes::new()),
            ..Default::default()
        };
        self.producer.on_attached(&opened, &self.peer, self.now, &mut Deferred::new());
    }

    fn detach(&mut self) {
        self.producer.on_detached(self.now, &mut Deferred::new());
    }

    /// Lets time pass up to each deadline on the way.
    fn pass(&mut self, time: Duration) {
        let until = self.now.at + time;
        while let Some(deadline) = self.producer.poll_deadline().filter(|deadline| deadline.at <= until) {
            self.set_clock(deadline.at.max(self.now.at));
            self.producer.handle_deadline(self.now, &mut Deferred::new());
            assert!(
                self.producer.poll_deadline().is_none_or(|next| next.at > self.now.at || next != deadline),
                "{deadline:?} was handled and is still due"
            );
        }
        self.set_clock(until);
    }

    fn set_clock(&mut self, at: Instant) {
        self.now.wall_ms += (at - self.now.at).as_millis() as u64;
        self.now.at = at;
    }

    fn push(&mut self, message: impl Into<Message>) -> PendingSend {
        let now = self.now;
        self.producer.push(message.into(), None, || now).expect("there is room")
    }

    /// Seals and writes all that is due, as the owner does.
    fn transmit(&mut self) -> Vec<Sent> {
        let mut tx = TxBuf::new();
        for _ in 0..10_000 {
            while let Some(job) = self.producer.take_job(self.now) {
                self.put(job);
            }
            let mut out = Outbox::new(&mut tx, 1, &mut self.asked);
            if self.producer.poll_transmit(&mut out, self.now) == More::No {
                return read(&tx.take_all());
            }
        }
        panic!("the producer always wants to be served again");
    }

    fn put(&mut self, job: SealJob) {
        self.producer.put_job(job.run(), self.now, &mut Deferred::new());
    }

    fn receipt(&mut self, sequence_id: u64) -> Receipt {
        self.next_entry += 1;
        Receipt {
            producer_id: 7,
            sequence_id,
            highest_sequence_id: u64::MAX,
            ledger_id: 3,
            entry_id: self.next_entry - 1,
        }
    }

    fn confirm(&mut self, sequence_id: u64) {
        let receipt = self.receipt(sequence_id);
        self.producer.on_receipts(&[receipt], self.now, &mut Deferred::new()).expect("a good receipt");
    }

    fn send_error(&mut self, sequence_id: u64, code: ServerCode) -> AfterNotification {
        self.producer.on_send_error(sequence_id, ServerError::new(code.0, "no"), self.now, &mut Deferred::new())
    }

    fn flush(&mut self) -> Reply<()> {
        let (to, reply) = Reply::pair();
        self.producer.flush(to, &mut Deferred::new());
        reply
    }

    fn close(&mut self) -> Reply<()> {
        let (to, reply) = Reply::pair();
        self.producer.close(Some(to), self.now, &mut Deferred::new());
        reply
    }

    fn answer_close(&mut self, result: Result<Box<Command>, RequestError>) {
        let (op, _) = self.asked.pop().expect("a close was asked");
        self.producer.on_response(op, result, self.now, &mut Deferred::new());
    }

    fn assert_empty(&self) {
        let stats = self.producer.stats();
        assert_eq!((stats.pending_messages, stats.pending_bytes), (0, 0), "all room came back");
    }
}

fn success() -> Result<Box<Command>, RequestError> {
    Ok(Box::new(Command::Success(pb::CommandSuccess::default())))
}

fn read(bytes: &[u8]) -> Vec<Sent> {
    let mut rx = BytesMut::from(bytes);
    let Some(run) = cut(&mut rx, &Limits::default()).expect("frames within the limit") else { return Vec::new() };
    assert!(rx.is_empty(), "only whole frames are written");
    let mut at = 0;
    let mut sent = Vec::new();
    for frame in frames(run) {
        let Ok(Frame::Send { head, entry }) = frame else { panic!("not a SEND: {frame:?}") };
        let size = u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize + 4;
        let raw = Bytes::copy_from_slice(&bytes[at..at + size]);
        at += size;
        sent.push(read_entry(head, &entry, raw));
    }
    sent
}

fn read_entry(head: SendHead, entry: &Bytes, raw: Bytes) -> Sent {
    let parts = EntryParts::split(entry).expect("an entry");
    parts.verify(entry).expect("its checksum");
    let metadata = Metadata::decode(&entry[parts.metadata.clone()]).expect("its metadata");
    let payload = entry.slice(parts.payload.clone());
    assert_eq!(head.sequence_id, metadata.sequence_id);
    let (mut payloads, mut ids) = (Vec::new(), Vec::new());
    match metadata.num_messages_in_batch {
        None => {
            assert_eq!((head.num_messages, head.highest_sequence_id), (1, None));
            payloads.push(payload);
            ids.push(metadata.sequence_id);
        }
        Some(count) => {
            assert!(count > 1 && head.num_messages == count, "a batch of one is a plain message");
            let mut cursor = BatchCursor::new(count, payload.len()).expect("a batch");
            while let Some(record) = cursor.next(&payload) {
                let record = record.expect("a record");
                payloads.push(payload.slice(record.payload));
                ids.push(record.metadata.sequence_id.expect("its sequence id"));
            }
            match head.highest_sequence_id {
                Some(highest) => assert_eq!((ids[0], ids.last()), (head.sequence_id, Some(&highest))),
                // The batch of one key.
                None => assert_eq!(ids.last(), Some(&head.sequence_id)),
            }
        }
    }
    let serialized = entry.slice(parts.metadata);
    let bytes = |range: Range<u32>| serialized.slice(range.start as usize..range.end as usize);
    let schema_version = metadata.schema_version.clone().map(bytes);
    Sent { head, raw, metadata, schema_version, payloads, ids }
}

fn sizes(sent: &[Sent]) -> Vec<usize> {
    sent.iter().map(|sent| sent.ids.len()).collect()
}

fn ids(sent: &[Sent]) -> Vec<u64> {
    sent.iter().flat_map(|sent| sent.ids.iter().copied()).collect()
}

fn poll_reply<T>(reply: &mut Reply<T>) -> Option<Result<T>> {
    match Pin::new(reply).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

fn failure(send: &PendingSend) -> (ErrorKind, bool) {
    let error = send.try_result().expect("it has ended").expect_err("it has failed");
    (error.error().kind(), error.may_be_stored())
}

fn id_of(send: &PendingSend) -> MessageId {
    send.try_result().expect("it has ended").expect("it is stored")
}

fn is_pending(send: &PendingSend) -> bool {
    send.try_result().is_none()
}

fn unbatched() -> ProducerConfig {
    config(|config| config.batching = false)
}

/// A task that waits for room.
struct Waiter {
    ticket: CapacityWaiter,
    message: Option<Message>,
    count: Arc<Count>,
}

impl Waiter {
    fn new(text: &str) -> Self {
        Self { ticket: CapacityWaiter::new(), message: Some(text.into()), count: Arc::default() }
    }

    fn poll(&mut self, harness: &mut ProducerHarness) -> Poll<Result<PendingSend, SendError>> {
        let (now, waker) = (harness.now, Waker::from(self.count.clone()));
        let mut callback = None;
        let mut deferred = Deferred::new();
        harness.producer.poll_push(&mut self.ticket, &mut self.message, &mut callback, &waker, || now, &mut deferred)
    }

    fn woken(&self) -> usize {
        self.count.0.load(Ordering::Relaxed)
    }

    fn give_up(&mut self, harness: &mut ProducerHarness) {
        harness.producer.stop_waiting(&mut self.ticket, &mut Deferred::new());
    }
}

fn room_for(messages: usize) -> ProducerConfig {
    config(|config| {
        config.batching = false;
        config.max_pending_messages = messages;
    })
}
