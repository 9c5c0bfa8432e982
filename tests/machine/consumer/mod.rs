//! The consumer's machine against scripts: virtual time, no socket, one theme a file.
//!
//! What it writes is read back frame by frame and shown as text: `FLOW 10`, `ACK 1:0 1:1{5}` (in braces the words of
//! an `ack_set`), `ACK <=1:4` (cumulative), `ACK !0 1:2` (with a `validation_error`), `REDELIVER 1:3`,
//! `REDELIVER all epoch 1`; a request is `request` and its name.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use pulsar_native::ErrorKind;
use pulsar_native::error::{Error, ServerError};
use pulsar_native::id::{ConsumerId, MessagePosition};
use pulsar_native::machine::connection::error::RequestError;
use pulsar_native::machine::consumer::{
    Consumer, ConsumerConfig, KeySharedPolicy, LastMessageId, QueueSignals, ReceivedEntry, RedeliveryBackoff,
    ReturnedPermits, SeekTo, SubscriptionType, Taken,
};
use pulsar_native::machine::endpoint::outbox::{More, Op, OpKind, Outbox, Response};
use pulsar_native::machine::{Deferred, Dirty, EndpointId, EndpointMachine as _, Now, ReadyList, Reply};
use pulsar_native::pb;
use pulsar_native::schema::{SchemaInfo, SchemaType};
use pulsar_native::wire::entry::put_entry;
use pulsar_native::wire::{Command, Frame, MessageHead, MetadataFields, TxBuf, frames};

mod acks;
mod attaching;
mod closing;
mod confirmed;
mod permit_model;
mod permits;
mod redelivery;
mod requests;
mod seeks;

const EXCLUSIVE: SubscriptionType = SubscriptionType::Exclusive;
const SHARED: SubscriptionType = SubscriptionType::Shared;

/// A consumer, its clock, and what it has written.
struct ConsumerHarness {
    consumer: Consumer,
    now: Now,
    deferred: Deferred,
    inbox: Arc<ReadyList>,
    queue_epoch: Arc<AtomicU64>,
    subscribed: Reply<()>,
    /// Requests that have no answer yet.
    requested: Vec<Op>,
}

impl ConsumerHarness {
    fn new(subscription_type: SubscriptionType, change: impl FnOnce(&mut ConsumerConfig)) -> Self {
        Self::on("persistent://public/default/t", subscription_type, change)
    }

    fn on(topic: &str, subscription_type: SubscriptionType, change: impl FnOnce(&mut ConsumerConfig)) -> Self {
        let mut config = ConsumerConfig::new("s");
        config.subscription_type = subscription_type;
        config.receiver_queue_size = 10;
        change(&mut config);
        config.validate().expect("the harness's options fit each other");
        let now = Now { at: Instant::now(), wall_ms: 0 };
        let (inbox, queue_epoch) = (ReadyList::new(), Arc::new(AtomicU64::new(0)));
        let (reply, subscribed) = Reply::pair();
        let id = ConsumerId(7);
        let signals = QueueSignals { inbox: inbox.clone(), epoch: queue_epoch.clone(), observer: None };
        let consumer = Consumer::new(id, topic.into(), -1, Arc::new(config), signals, reply, now);
        Self { consumer, now, deferred: Deferred::new(), inbox, queue_epoch, subscribed, requested: Vec::new() }
    }

    /// One that is attached and has granted its permits.
    fn attached(subscription_type: SubscriptionType, change: impl FnOnce(&mut ConsumerConfig)) -> Self {
        let mut harness = Self::new(subscription_type, change);
        harness.attach();
        harness.sent();
        harness
    }

    fn attach(&mut self) {
        self.consumer.subscribe_request(self.now);
        assert_eq!(self.sent(), [""; 0], "nothing is written before SUBSCRIBE has succeeded");
        self.consumer.on_attached(&mut self.deferred);
    }

    /// The connection is lost: first its requests end, then its endpoints are detached.
    fn lose_connection(&mut self) {
        for op in std::mem::take(&mut self.requested) {
            self.answer_op(op, Err(RequestError::Disconnected));
        }
        self.detach();
    }

    fn detach(&mut self) {
        self.consumer.on_detached(&mut self.deferred);
    }

    /// Time passes, to the millisecond and with every deadline on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now.at + time;
        while let Some(deadline) = self.consumer.poll_deadline().filter(|deadline| deadline.at <= end) {
            self.now.at = self.now.at.max(deadline.at);
            self.consumer.handle_deadline(self.now, &mut self.deferred);
            if self.consumer.poll_deadline() == Some(deadline) {
                // Due, but to be written when it is next served.
                break;
            }
        }
        self.now.at = end;
        self.consumer.handle_deadline(self.now, &mut self.deferred);
    }

    fn deliver(&mut self, entries: impl IntoIterator<Item = ReceivedEntry>) {
        let mut run = entries.into_iter().collect();
        self.consumer.on_entries(&mut run, self.now, &mut self.deferred);
        assert!(run.is_empty());
    }

    fn take(&mut self) -> (Vec<ReceivedEntry>, Taken) {
        let mut into = VecDeque::new();
        let taken = self.consumer.take(ReturnedPermits::default(), &mut into);
        (into.into(), taken)
    }

    /// Takes everything, and returns the permits of all of it.
    fn consume(&mut self) -> Vec<(u64, u64)> {
        let (entries, taken) = self.take();
        let count = entries.iter().map(|entry| entry.permits).sum();
        self.consumer.return_permits(ReturnedPermits { attach_number: taken.attach_number, count });
        entries.iter().map(|entry| (entry.ledger_id, entry.entry_id)).collect()
    }

    fn ack(&mut self, id: MessagePosition) {
        let now = self.now;
        self.consumer.ack(&id, || now).expect("the acknowledgement is taken");
    }

    fn ack_up_to(&mut self, id: MessagePosition) {
        let now = self.now;
        self.consumer.ack_cumulative(&id, || now).expect("the acknowledgement is taken");
    }

    fn confirm(&mut self, ids: &[MessagePosition], cumulative: bool) -> Reply<()> {
        let (to, reply) = Reply::pair();
        self.consumer.ack_confirmed(ids, cumulative, to, self.now, &mut self.deferred);
        reply
    }

    fn seek(&mut self, to: SeekTo) -> Reply<()> {
        let (reply_to, reply) = Reply::pair();
        self.consumer.seek(to, reply_to, self.now, &mut self.deferred);
        reply
    }

    fn close(&mut self) -> Reply<()> {
        let (to, reply) = Reply::pair();
        self.consumer.close(Some(to), self.now, &mut self.deferred);
        reply
    }

    /// Answers the oldest request.
    fn answer(&mut self, result: Response) -> OpKind {
        let op = self.requested.remove(0);
        self.answer_op(op, result);
        op.kind
    }

    fn answer_op(&mut self, op: Op, result: Response) {
        self.consumer.on_response(op, result, &mut self.deferred);
    }

    /// What it writes when it is served.
    fn sent(&mut self) -> Vec<String> {
        let (mut tx, mut requests) = (TxBuf::new(), Vec::new());
        while self.consumer.poll_transmit(&mut Outbox::new(&mut tx, 64 * 1024, &mut requests), self.now) == More::Yes {}
        let mut sent: Vec<_> = frames(tx.take_all()).map(|frame| show(&frame.expect("whole frames"))).collect();
        for (op, command) in requests {
            sent.push(match &command {
                Command::Ack(_) => format!("request {}", show_command(&command)),
                command => format!("request {}", command.name()),
            });
            self.requested.push(op);
        }
        sent
    }

    fn queue_epoch(&self) -> u64 {
        self.queue_epoch.load(Ordering::Relaxed)
    }

    fn is_in_inbox(&self) -> bool {
        let mut ids: Vec<EndpointId> = Vec::new();
        self.inbox.take(&mut ids, None);
        !ids.is_empty()
    }
}

fn show(frame: &Frame) -> String {
    match frame {
        Frame::Other(command) => show_command(command),
        other => panic!("a consumer writes no {other:?}"),
    }
}

fn show_command(command: &Command) -> String {
    match command {
        Command::Flow(flow) => format!("FLOW {}", flow.message_permits),
        Command::Ack(ack) => {
            let error = ack.validation_error.map(|code| format!(" !{code}")).unwrap_or_default();
            let up_to = if ack.ack_type == 1 { "<=" } else { "" };
            let ids: String = ack.message_id.iter().map(|id| format!(" {up_to}{}", show_id(id))).collect();
            format!("ACK{error}{ids}")
        }
        Command::RedeliverUnacknowledgedMessages(redeliver) => {
            let all = if redeliver.message_ids.is_empty() { " all" } else { "" };
            let ids: String = redeliver.message_ids.iter().map(|id| format!(" {}", show_id(id))).collect();
            let epoch = redeliver.consumer_epoch.map(|epoch| format!(" epoch {epoch}")).unwrap_or_default();
            format!("REDELIVER{all}{ids}{epoch}")
        }
        other => other.name().to_owned(),
    }
}

fn show_id(id: &pb::MessageIdData) -> String {
    let set = if id.ack_set.is_empty() { String::new() } else { format!("{:?}", id.ack_set).replace(['[', ']'], "|") };
    let set = set.strip_prefix('|').and_then(|set| set.strip_suffix('|')).map(|set| format!("{{{set}}}"));
    format!("{}:{}{}", id.ledger_id as i64, id.entry_id as i64, set.unwrap_or_default())
}

fn poll<T>(reply: &mut Reply<T>) -> Option<Result<T, Error>> {
    match Pin::new(reply).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

fn kind<T: std::fmt::Debug>(reply: &mut Reply<T>) -> ErrorKind {
    poll(reply).expect("answered").expect_err("with an error").kind()
}

fn head(entry_id: u64) -> MessageHead {
    MessageHead::new(7, 1, entry_id)
}

fn raw(members: Option<i32>) -> Bytes {
    let metadata = MetadataFields { producer_name: "p", num_messages_in_batch: members, ..MetadataFields::default() };
    let mut out = BytesMut::new();
    put_entry(&mut out, &metadata, &vec![0; 4 * members.unwrap_or(1).max(1) as usize]);
    out.freeze()
}

fn single(entry_id: u64) -> ReceivedEntry {
    ReceivedEntry::read(head(entry_id), raw(None))
}

fn batch(entry_id: u64, members: i32) -> ReceivedEntry {
    ReceivedEntry::read(head(entry_id), raw(Some(members)))
}

fn damaged(entry_id: u64, members: Option<i32>) -> ReceivedEntry {
    let mut bytes = BytesMut::from(&raw(members)[..]);
    *bytes.last_mut().expect("a payload") ^= 1;
    ReceivedEntry::read(head(entry_id), bytes.freeze())
}

fn id(entry_id: u64) -> MessagePosition {
    MessagePosition::new(1, entry_id)
}

fn member(entry_id: u64, batch_index: i32, batch_size: i32) -> MessagePosition {
    MessagePosition { batch_index, batch_size, ..id(entry_id) }
}

fn success() -> Response {
    Ok(Box::new(Command::Success(pb::CommandSuccess::default())))
}

fn refused() -> Response {
    Err(RequestError::Server(ServerError::new(1, "no")))
}

const MS: fn(u64) -> Duration = Duration::from_millis;
const NONE: [&str; 0] = [];
