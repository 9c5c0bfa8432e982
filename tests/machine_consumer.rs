//! The consumer's machine against scripts: virtual time, no socket, one theme a test.
//!
//! What it writes is read back frame by frame and shown as text: `FLOW 10`, `ACK 1:0 1:1{5}` (in braces the words of
//! an `ack_set`), `ACK <=1:4` (cumulative), `ACK !0 1:2` (with a `validation_error`), `REDELIVER 1:3`,
//! `REDELIVER all epoch 1`; a request that waits for an answer is `ask` and its name.

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
use pulsar_native::id::{ConsumerId, MessageId};
use pulsar_native::machine::consumer::{
    Consumer, ConsumerConfig, Credits, Entry, KeySharedPolicy, LastMessageId, SeekTo, SubscriptionType, Taken,
};
use pulsar_native::machine::control::{PeerInfo, RequestError};
use pulsar_native::machine::outbox::{More, Op, OpKind, Outbox, Outcome};
use pulsar_native::machine::{EndpointId, Machine, Now, ReadyList, Reply, Wakes};
use pulsar_native::pb;
use pulsar_native::wire::entry::put_entry;
use pulsar_native::wire::{Command, Frame, MessageHead, NewMetadata, TxBuf, frames};

const EXCLUSIVE: SubscriptionType = SubscriptionType::Exclusive;
const SHARED: SubscriptionType = SubscriptionType::Shared;

/// A consumer, its clock, and what it has written.
struct Script {
    consumer: Consumer,
    now: Now,
    wakes: Wakes,
    inbox: Arc<ReadyList>,
    generation: Arc<AtomicU64>,
    subscribed: Reply<()>,
    asked: Vec<Op>,
}

impl Script {
    fn new(subscription_type: SubscriptionType, change: impl FnOnce(&mut ConsumerConfig)) -> Self {
        Self::on("persistent://public/default/t", subscription_type, change)
    }

    fn on(topic: &str, subscription_type: SubscriptionType, change: impl FnOnce(&mut ConsumerConfig)) -> Self {
        let mut config = ConsumerConfig::new("s");
        config.subscription_type = subscription_type;
        config.receiver_queue_size = 10;
        change(&mut config);
        config.validate().expect("the script's options fit each other");
        let now = Now { at: Instant::now(), wall_ms: 0 };
        let (inbox, generation) = (ReadyList::new(), Arc::new(AtomicU64::new(0)));
        let (reply, subscribed) = Reply::pair();
        let id = ConsumerId(7);
        let consumer =
            Consumer::new(id, topic.into(), -1, Arc::new(config), inbox.clone(), generation.clone(), reply, now);
        Self { consumer, now, wakes: Wakes::new(), inbox, generation, subscribed, asked: Vec::new() }
    }

    /// One that is attached and has got its permits.
    fn attached(subscription_type: SubscriptionType, change: impl FnOnce(&mut ConsumerConfig)) -> Self {
        let mut script = Self::new(subscription_type, change);
        script.attach();
        script.sent();
        script
    }

    fn attach(&mut self) {
        self.consumer.subscribe_request(self.now);
        assert_eq!(self.sent(), [""; 0], "nothing is written before SUBSCRIBE has succeeded");
        self.consumer.on_attached(&peer(), self.now, &mut self.wakes);
    }

    /// The link is lost: first the requests end, then the guests.
    fn lose_link(&mut self) {
        for op in std::mem::take(&mut self.asked) {
            self.answer_op(op, Err(RequestError::Disconnected));
        }
        self.detach();
    }

    fn detach(&mut self) {
        self.consumer.on_detached(self.now, &mut self.wakes);
    }

    /// Time passes, to the millisecond and with every deadline on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now.at + time;
        while let Some(deadline) = self.consumer.poll_deadline().filter(|deadline| deadline.at <= end) {
            self.now.at = self.now.at.max(deadline.at);
            self.consumer.handle_deadline(self.now, &mut self.wakes);
            if self.consumer.poll_deadline() == Some(deadline) {
                // Due, but for the next turn to write.
                break;
            }
        }
        self.now.at = end;
        self.consumer.handle_deadline(self.now, &mut self.wakes);
    }

    fn deliver(&mut self, entries: impl IntoIterator<Item = Entry>) {
        let mut run = entries.into_iter().collect();
        self.consumer.on_entries(&mut run, self.now, &mut self.wakes);
        assert!(run.is_empty());
    }

    fn take(&mut self) -> (Vec<Entry>, Taken) {
        let mut into = VecDeque::new();
        let taken = self.consumer.take(Credits::default(), &mut into);
        (into.into(), taken)
    }

    /// Takes all and is done with all.
    fn consume(&mut self) -> Vec<(u64, u64)> {
        let (entries, taken) = self.take();
        let count = entries.iter().map(|entry| entry.members).sum();
        self.consumer.credit(Credits { attempt: taken.attempt, count });
        entries.iter().map(|entry| (entry.ledger_id, entry.entry_id)).collect()
    }

    fn ack(&mut self, id: MessageId) {
        let now = self.now;
        self.consumer.ack(&id, || now).expect("the acknowledgement is taken");
    }

    fn ack_up_to(&mut self, id: MessageId) {
        let now = self.now;
        self.consumer.ack_cumulative(&id, || now).expect("the acknowledgement is taken");
    }

    fn confirm(&mut self, ids: &[MessageId], cumulative: bool) -> Reply<()> {
        let (to, reply) = Reply::pair();
        self.consumer.ack_confirmed(ids, cumulative, to, self.now, &mut self.wakes);
        reply
    }

    fn seek(&mut self, to: SeekTo) -> Reply<()> {
        let (reply_to, reply) = Reply::pair();
        self.consumer.seek(to, reply_to, self.now, &mut self.wakes);
        reply
    }

    fn close(&mut self) -> Reply<()> {
        let (to, reply) = Reply::pair();
        self.consumer.close(Some(to), self.now, &mut self.wakes);
        reply
    }

    /// Answers the oldest question.
    fn answer(&mut self, result: Outcome) -> OpKind {
        let op = self.asked.remove(0);
        self.answer_op(op, result);
        op.kind
    }

    fn answer_op(&mut self, op: Op, result: Outcome) {
        self.consumer.on_answer(op, result, self.now, &mut self.wakes);
    }

    /// What one turn writes.
    fn sent(&mut self) -> Vec<String> {
        let (mut tx, mut asks) = (TxBuf::new(), Vec::new());
        while self.consumer.poll_transmit(&mut Outbox::new(&mut tx, 64 * 1024, &mut asks), self.now) == More::Yes {}
        let mut sent: Vec<_> = frames(tx.take_all()).map(|frame| show(&frame.expect("whole frames"))).collect();
        for (op, command) in asks {
            sent.push(match &command {
                Command::Ack(_) => format!("ask {}", show_command(&command)),
                command => format!("ask {}", command.name()),
            });
            self.asked.push(op);
        }
        sent
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn is_in_inbox(&self) -> bool {
        let mut ids: Vec<EndpointId> = Vec::new();
        self.inbox.take(&mut ids, None);
        !ids.is_empty()
    }
}

fn peer() -> PeerInfo {
    PeerInfo {
        address: "127.0.0.1:6650".into(),
        server_version: "test".into(),
        protocol_version: 21,
        max_message_size: 5 * 1024 * 1024,
        supports_topic_watchers: false,
        supports_partitions_without_creation: false,
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
    MessageHead {
        consumer_id: 7,
        ledger_id: 1,
        entry_id,
        partition: -1,
        redelivery_count: 0,
        ack_set: Vec::new(),
        consumer_epoch: None,
    }
}

fn raw(members: Option<i32>) -> Bytes {
    let metadata = NewMetadata { producer_name: "p", num_messages_in_batch: members, ..NewMetadata::default() };
    let mut out = BytesMut::new();
    put_entry(&mut out, &metadata, &vec![0; 4 * members.unwrap_or(1).max(1) as usize]);
    out.freeze()
}

fn single(entry_id: u64) -> Entry {
    Entry::read(head(entry_id), raw(None))
}

fn batch(entry_id: u64, members: i32) -> Entry {
    Entry::read(head(entry_id), raw(Some(members)))
}

fn damaged(entry_id: u64, members: Option<i32>) -> Entry {
    let mut bytes = BytesMut::from(&raw(members)[..]);
    *bytes.last_mut().expect("a payload") ^= 1;
    Entry::read(head(entry_id), bytes.freeze())
}

fn id(entry_id: u64) -> MessageId {
    MessageId::new(1, entry_id)
}

fn member(entry_id: u64, batch_index: i32, batch_size: i32) -> MessageId {
    MessageId { batch_index, batch_size, ..id(entry_id) }
}

fn success() -> Outcome {
    Ok(Box::new(Command::Success(pb::CommandSuccess::default())))
}

fn refused() -> Outcome {
    Err(RequestError::Server(ServerError::new(1, "no")))
}

const MS: fn(u64) -> Duration = Duration::from_millis;
const NONE: [&str; 0] = [];

// ---- subscribing

#[test]
fn subscribe_says_what_the_options_say() {
    use pb::command_subscribe::SubType;
    for (kind, wire) in [
        (EXCLUSIVE, SubType::Exclusive),
        (SHARED, SubType::Shared),
        (SubscriptionType::Failover, SubType::Failover),
        (SubscriptionType::KeyShared, SubType::KeyShared),
    ] {
        let mut script = Script::new(kind, |config| config.properties.push(("k".into(), "v".into())));
        let request = script.consumer.subscribe_request(script.now);
        assert_eq!((request.sub_type(), request.consumer_id, request.subscription.as_str()), (wire, 7, "s"));
        assert_eq!(request.topic, "persistent://public/default/t");
        assert_eq!(request.metadata.len(), 1);
        assert_eq!(request.key_shared_meta.is_some(), kind == SubscriptionType::KeyShared);
        assert_eq!((request.consumer_epoch, request.durable, request.start_message_id), (Some(0), Some(true), None));
    }
    let mut sticky = Script::new(SubscriptionType::KeyShared, |config| {
        config.key_shared = KeySharedPolicy::Sticky(vec![0..=9, 20..=65535]);
    });
    let meta = sticky.consumer.subscribe_request(sticky.now).key_shared_meta.expect("ranges");
    assert_eq!(meta.key_shared_mode(), pb::KeySharedMode::Sticky);
    assert_eq!(meta.hash_ranges[1], pb::IntRange { start: 20, end: 65535 });
}

#[test]
fn the_first_attach_answers_and_permits_follow_it() {
    let mut script = Script::new(EXCLUSIVE, |_| {});
    assert!(poll(&mut script.subscribed).is_none());
    script.attach();
    assert_eq!(poll(&mut script.subscribed), Some(Ok(())));
    assert_eq!(script.sent(), ["FLOW 10"]);
    assert_eq!(script.sent(), NONE);
}

#[test]
fn who_is_not_subscribed_in_time_is_over() {
    let mut script = Script::new(EXCLUSIVE, |config| config.operation_timeout = MS(500));
    script.consumer.subscribe_request(script.now);
    script.pass(MS(499));
    assert!(poll(&mut script.subscribed).is_none());
    script.pass(MS(1));
    assert_eq!(kind(&mut script.subscribed), ErrorKind::TimedOut);
    assert!(script.consumer.is_finished() && !script.consumer.is_closed_at_broker());
    assert_eq!(script.take().1.ended.map(|error| error.kind()), Some(ErrorKind::TimedOut));
}

// ---- permits

#[test]
fn half_the_queue_consumed_is_granted_again() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    script.deliver((0..4).map(single));
    assert!(script.is_in_inbox());
    assert_eq!(script.consume().len(), 4);
    assert_eq!(script.sent(), NONE);
    script.deliver([single(4)]);
    script.consume();
    assert_eq!(script.sent(), ["FLOW 5"]);
}

#[test]
fn a_queue_of_one_is_refilled_by_each_message() {
    let mut script = Script::new(SHARED, |config| config.receiver_queue_size = 1);
    script.attach();
    assert_eq!(script.sent(), ["FLOW 1"]);
    for entry in 0..3 {
        script.deliver([single(entry)]);
        script.consume();
        assert_eq!(script.sent(), ["FLOW 1"]);
    }
}

#[test]
fn without_a_queue_each_waiting_receive_asks_for_one() {
    let mut script = Script::new(SHARED, |config| config.receiver_queue_size = 0);
    script.consumer.want_one();
    script.attach();
    assert_eq!(script.sent(), ["FLOW 1"]);
    script.consumer.want_one();
    assert_eq!(script.sent(), NONE, "the message that is out is for this one too");
    script.deliver([single(0)]);
    script.consume();
    assert_eq!(script.sent(), NONE);
    script.consumer.want_one();
    assert_eq!(script.sent(), ["FLOW 1"]);
    script.lose_link();
    script.attach();
    assert_eq!(script.sent(), ["FLOW 1"], "the receive still waits");
}

#[test]
fn more_messages_than_permits_are_no_error() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    script.deliver((0..10).map(|entry| batch(entry, 10)));
    assert_eq!(script.consumer.queued_messages(), 100);
    script.consume();
    assert_eq!(script.sent(), ["FLOW 100"]);
}

#[test]
fn members_acknowledged_before_were_never_charged() {
    let mut script = Script::attached(SHARED, |_| {});
    let part = Entry::read(MessageHead { ack_set: vec![0b1_1000_0011], ..head(0) }, raw(Some(8)));
    script.deliver([part]);
    let (entries, taken) = script.take();
    assert_eq!(entries[0].members, 3);
    script.consumer.credit(Credits { attempt: taken.attempt, count: 3 });
    assert_eq!(script.sent(), NONE);
    script.deliver([batch(1, 2)]);
    script.consume();
    assert_eq!(script.sent(), ["FLOW 5"]);
}

#[test]
fn damaged_entries_are_acknowledged_with_the_reason_and_their_permits_come_back() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver([damaged(0, Some(4)), single(1), damaged(2, None), Entry::read(head(3), Bytes::new())]);
    assert_eq!(script.consumer.queued_messages(), 1);
    assert_eq!(script.sent(), ["ACK !2 1:0 1:2 1:3", "FLOW 6"]);
}

#[test]
fn a_batch_found_damaged_when_opened_goes_the_same_way() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver([batch(0, 6)]);
    let (_, taken) = script.take();
    let error = damaged(0, None).body.expect_err("damaged");
    script.consumer.reject(1, 0, 6, &error, taken.attempt + 1, script.now);
    assert_eq!(script.sent(), NONE, "an entry of another attach comes again, or came again already");
    script.consumer.reject(1, 0, 6, &error, taken.attempt, script.now);
    assert_eq!(script.sent(), ["ACK !2 1:0", "FLOW 6"]);
}

#[test]
fn credits_of_an_earlier_attach_are_void() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver((0..10).map(single));
    let (_, old) = script.take();
    script.lose_link();
    script.attach();
    assert_eq!(script.sent(), ["FLOW 10"]);
    script.deliver((0..10).map(single));
    script.take();
    script.consumer.credit(Credits { attempt: old.attempt, count: 10 });
    assert_eq!(script.sent(), NONE);
}

#[test]
fn a_queue_full_beyond_all_permits_drops_and_asks_again() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver((0..300).map(single));
    assert_eq!(script.consumer.queued_messages(), 256);
    let (entries, _) = script.take();
    assert_eq!(entries.len(), 256);
    assert_eq!(script.sent()[0], "REDELIVER all");
}

// ---- acknowledgements

#[test]
fn acknowledgements_of_a_moment_share_a_frame() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver((0..3).map(single));
    script.consume();
    script.consumer.take_dirty();
    script.ack(id(0));
    assert!(script.consumer.take_dirty(), "whoever waits has a new deadline");
    script.pass(MS(60));
    script.ack(id(1));
    assert!(!script.consumer.take_dirty());
    assert_eq!(script.sent(), NONE);
    script.pass(MS(40));
    assert_eq!(script.sent(), ["ACK 1:0 1:1"]);
    assert_eq!(script.consumer.poll_deadline(), None);
}

#[test]
fn a_full_group_leaves_at_once_and_so_does_every_one_without_grouping() {
    let mut script = Script::attached(SHARED, |config| config.ack_group_max = 3);
    script.ack(id(0));
    script.ack(id(1));
    assert_eq!(script.sent(), NONE);
    script.ack(id(2));
    assert_eq!(script.sent(), ["ACK 1:0 1:1 1:2"]);

    let mut script = Script::attached(SHARED, |config| config.ack_group_time = Duration::ZERO);
    script.ack(id(0));
    assert!(script.consumer.take_dirty());
    assert_eq!(script.sent(), ["ACK 1:0"]);
}

#[test]
fn acknowledgements_made_while_detached_go_out_after_the_next_attach() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver((0..2).map(single));
    script.consume();
    script.ack(id(0));
    script.lose_link();
    script.ack(id(1));
    script.pass(MS(5000));
    assert_eq!(script.sent(), NONE);
    script.attach();
    assert_eq!(script.sent(), ["ACK 1:0 1:1", "FLOW 10"]);
}

#[test]
fn a_delivery_of_what_is_about_to_be_acknowledged_is_dropped() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver((0..2).map(single));
    script.consume();
    script.ack(id(1));
    script.deliver([single(1), single(0)]);
    assert_eq!(script.consume(), [(1, 0)]);
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK 1:1"]);
    script.deliver([single(1)]);
    assert_eq!(script.consume(), [(1, 1)], "once it is written it is the broker's word that counts");
    assert_eq!(script.sent(), ["FLOW 5"]);
}

#[test]
fn without_index_acks_an_entry_goes_out_with_its_last_member() {
    let mut script = Script::attached(SHARED, |config| config.batch_index_ack = false);
    script.deliver([batch(0, 3), batch(1, 2)]);
    script.consume();
    for (entry, index, size) in [(0, 2, 3), (1, 0, 2), (0, 0, 3)] {
        script.ack(member(entry, index, size));
    }
    script.pass(MS(1000));
    assert_eq!(script.sent(), ["FLOW 5"]);
    script.ack(member(0, 1, 3));
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK 1:0"]);
}

#[test]
fn with_index_acks_the_rest_of_the_batch_goes_out_and_a_finished_one_as_its_plain_id() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver([batch(0, 3)]);
    script.consume();
    script.ack(member(0, 1, 3));
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK 1:0{5}"]);
    script.ack(member(0, 0, 3));
    script.ack(member(0, 2, 3));
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK 1:0"]);
}

#[test]
fn acknowledged_members_are_not_handed_out_again() {
    for index_acks in [false, true] {
        let mut script = Script::attached(SHARED, |config| config.batch_index_ack = index_acks);
        script.deliver([batch(0, 4)]);
        script.consume();
        script.ack(member(0, 0, 4));
        script.ack(member(0, 3, 4));
        script.lose_link();
        script.attach();
        let expected: &[&str] = if index_acks { &["ACK 1:0{6}", "FLOW 10"] } else { &["FLOW 10"] };
        assert_eq!(script.sent(), expected);
        script.deliver([batch(0, 4)]);
        let (entries, taken) = script.take();
        assert_eq!((entries[0].ack_set.as_slice(), entries[0].members), (&[0b0110][..], 2));
        // Two of the four permits are home already.
        script.consumer.credit(Credits { attempt: taken.attempt, count: 2 });
        script.deliver([single(1)]);
        script.consume();
        assert_eq!(script.sent(), ["FLOW 5"]);
    }
}

#[test]
fn what_is_known_of_a_batch_is_told_again_on_a_new_connection_until_it_is_of_no_use() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    script.deliver([batch(0, 2), batch(1, 2), batch(2, 2)]);
    for entry in [0, 2] {
        script.ack(member(entry, 0, 2));
    }
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK 1:0{2} 1:2{2}"]);
    script.lose_link();
    script.attach();
    assert_eq!(script.sent(), ["ACK 1:0{2} 1:2{2}", "FLOW 10"], "the last connection may have lost it");
    script.ack_up_to(id(1));
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK <=1:1"]);
    script.lose_link();
    script.attach();
    assert_eq!(script.sent(), ["ACK 1:2{2}", "FLOW 10"]);
}

#[test]
fn members_that_the_broker_knows_as_acknowledged_need_no_second_one() {
    let mut script = Script::attached(SHARED, |config| config.batch_index_ack = false);
    script.deliver([Entry::read(MessageHead { ack_set: vec![0b010], ..head(0) }, raw(Some(3)))]);
    script.consume();
    script.ack(member(0, 1, 3));
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK 1:0"]);
}

#[test]
fn an_entry_with_nothing_left_is_finished_at_once() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver([Entry::read(MessageHead { ack_set: vec![0, 0], ..head(0) }, raw(Some(3)))]);
    assert_eq!(script.consumer.queued_messages(), 0);
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK 1:0"]);
}

#[test]
fn cumulative_covers_what_lies_below() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    script.deliver((0..5).map(single));
    script.consume();
    script.ack(id(1));
    script.ack(id(4));
    script.ack_up_to(id(3));
    script.ack_up_to(id(2));
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK <=1:3", "ACK 1:4", "FLOW 5"]);
}

#[test]
fn cumulative_inside_a_batch() {
    let mut on = Script::attached(EXCLUSIVE, |_| {});
    on.deliver([batch(5, 3)]);
    on.ack_up_to(member(5, 1, 3));
    on.pass(MS(100));
    assert_eq!(on.sent(), ["ACK <=1:5{4}"]);
    on.ack_up_to(member(5, 2, 3));
    on.pass(MS(100));
    assert_eq!(on.sent(), ["ACK <=1:5"]);

    let mut off = Script::attached(EXCLUSIVE, |config| config.batch_index_ack = false);
    off.deliver([batch(0, 3)]);
    for index in [0, 1] {
        off.ack_up_to(member(0, index, 3));
        off.pass(MS(100));
        // Entry -1: nothing of this ledger. Said once.
        assert_eq!(off.sent(), if index == 0 { vec!["ACK <=1:-1"] } else { vec![] });
    }
    off.ack_up_to(member(0, 2, 3));
    off.pass(MS(100));
    assert_eq!(off.sent(), ["ACK <=1:0"]);
}

#[test]
fn cumulative_on_shared_is_refused_here() {
    for kind in [SHARED, SubscriptionType::KeyShared] {
        let mut script = Script::attached(kind, |_| {});
        let now = script.now;
        let error = script.consumer.ack_cumulative(&id(0), || now).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::NotAllowed);
        let mut reply = script.confirm(&[id(0)], true);
        assert_eq!(poll(&mut reply).expect("answered").expect_err("refused").kind(), ErrorKind::NotAllowed);
        script.pass(MS(1000));
        assert_eq!(script.sent(), NONE);
    }
}

#[test]
fn an_id_without_the_size_of_its_batch_needs_a_known_batch() {
    let mut script = Script::attached(SHARED, |_| {});
    let (bare, now) = (member(0, 1, 0), script.now);
    assert_eq!(script.consumer.ack(&bare, || now).expect_err("unknown").kind(), ErrorKind::InvalidArgument);
    assert!(script.consumer.ack(&member(0, 3, 3), || now).is_err());
    script.ack(member(0, 0, 2));
    script.ack(bare);
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK 1:0"]);
}

#[test]
fn many_acknowledgements_take_several_frames_of_bounded_size() {
    let mut script = Script::attached(SHARED, |config| config.ack_group_max = 20_000);
    (0..20_000).for_each(|entry| script.ack(id(entry)));
    let sent = script.sent();
    assert!(sent.len() > 5, "{}", sent.len());
    let ids: usize = sent.iter().map(|frame| frame.split(' ').count() - 1).sum();
    assert_eq!(ids, 20_000);
}

#[test]
fn acknowledgements_without_a_connection_are_bounded() {
    let mut script = Script::new(SHARED, |_| {});
    let now = script.now;
    let refused = (0..1_000_000).find_map(|entry| script.consumer.ack(&id(entry), || now).err());
    assert_eq!(refused.expect("a bound").kind(), ErrorKind::QueueFull);
}

#[test]
fn acknowledgements_mean_nothing_on_a_non_persistent_topic() {
    let mut script = Script::on("non-persistent://public/default/t", SHARED, |_| {});
    script.attach();
    script.sent();
    script.ack(id(0));
    assert_eq!(poll(&mut script.confirm(&[id(1)], false)), Some(Ok(())));
    script.pass(MS(1000));
    assert_eq!(script.sent(), NONE);
}

// ---- confirmed acknowledgements

#[test]
fn a_confirmed_acknowledgement_waits_for_the_brokers_word() {
    let mut script = Script::attached(SHARED, |_| {});
    let mut done = script.confirm(&[id(0), member(1, 0, 2), member(1, 1, 2), member(2, 0, 2)], false);
    let mut bad = script.confirm(&[id(9)], false);
    assert_eq!(script.sent(), ["ask ACK 1:0 1:1 1:2{2}", "ask ACK 1:9"]);
    assert!(poll(&mut done).is_none());
    script.answer(Ok(Box::new(Command::AckResponse(pb::CommandAckResponse::default()))));
    assert_eq!(poll(&mut done), Some(Ok(())));
    script.answer(refused());
    assert_eq!(kind(&mut bad), ErrorKind::Server);
}

#[test]
fn a_confirmation_lost_with_its_link_is_asked_again_until_its_deadline() {
    let mut script = Script::attached(SHARED, |config| config.operation_timeout = MS(1000));
    let mut done = script.confirm(&[id(0)], false);
    assert_eq!(script.sent(), ["ask ACK 1:0"]);
    script.lose_link();
    script.pass(MS(500));
    script.attach();
    assert_eq!(script.sent(), ["FLOW 10", "ask ACK 1:0"]);
    // Closed by the broker on a sound link: no answer comes for a consumer it does not know.
    script.detach();
    script.attach();
    assert_eq!(script.sent(), ["FLOW 10", "ask ACK 1:0"]);
    assert!(poll(&mut done).is_none());
    script.pass(MS(500));
    assert_eq!(kind(&mut done), ErrorKind::TimedOut);
    script.answer(success());
}

#[test]
fn a_confirmation_times_out_without_a_connection_too() {
    let mut script = Script::attached(SHARED, |_| {});
    script.lose_link();
    let mut done = script.confirm(&[id(0)], false);
    script.pass(Duration::from_secs(30));
    assert_eq!(kind(&mut done), ErrorKind::TimedOut);
}

#[test]
fn part_of_a_batch_without_index_acks_is_confirmed_at_once() {
    let mut script = Script::attached(SHARED, |config| config.batch_index_ack = false);
    assert_eq!(poll(&mut script.confirm(&[member(0, 0, 2)], false)), Some(Ok(())));
    let mut last = script.confirm(&[member(0, 1, 2)], false);
    assert_eq!(script.sent(), ["ask ACK 1:0"]);
    script.answer(success());
    assert_eq!(poll(&mut last), Some(Ok(())));
}

#[test]
fn confirmed_cumulative_takes_one_id() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    assert_eq!(kind(&mut script.confirm(&[id(0), id(1)], true)), ErrorKind::InvalidArgument);
    let mut done = script.confirm(&[id(4)], true);
    assert_eq!(script.sent(), ["ask ACK <=1:4"]);
    script.answer(success());
    assert_eq!(poll(&mut done), Some(Ok(())));
}

#[test]
fn operations_are_bounded() {
    let mut script = Script::attached(SHARED, |_| {});
    let replies: Vec<_> = (0..1001).map(|entry| script.confirm(&[id(entry)], false)).collect();
    let mut last = replies.into_iter().next_back().expect("the last");
    assert_eq!(kind(&mut last), ErrorKind::QueueFull);
}

// ---- redelivery

#[test]
fn a_nacked_entry_is_asked_for_after_its_delay() {
    let mut script = Script::attached(SHARED, |config| config.nack_redelivery_delay = MS(1000));
    script.deliver([single(0), batch(1, 3), single(2)]);
    script.consume();
    script.sent();
    for nacked in [member(1, 0, 3), member(1, 2, 3), id(2)] {
        script.consumer.nack(&nacked, script.now);
    }
    script.pass(MS(999));
    assert_eq!(script.sent(), NONE);
    script.pass(MS(251));
    assert_eq!(script.sent(), ["REDELIVER 1:1 1:2"]);
    script.pass(Duration::from_secs(10));
    assert_eq!(script.sent(), NONE);
}

#[test]
fn queued_copies_of_what_comes_again_are_dropped_with_their_permits() {
    let mut script = Script::attached(SHARED, |config| config.nack_redelivery_delay = MS(100));
    script.deliver([single(0)]);
    script.consume();
    script.consumer.nack(&id(0), script.now);
    script.deliver([single(0), batch(1, 4)]);
    script.pass(MS(200));
    assert_eq!(script.consume(), [(1, 1)]);
    assert_eq!(script.sent(), ["REDELIVER 1:0", "FLOW 6"]);
}

#[test]
fn an_acknowledgement_ends_a_nack_and_a_member_does_not() {
    let mut script = Script::attached(SHARED, |config| config.nack_redelivery_delay = MS(100));
    for entry in [0, 1] {
        script.consumer.nack(&id(entry), script.now);
    }
    script.ack(id(0));
    script.ack(member(1, 0, 2));
    script.pass(MS(200));
    assert_eq!(script.sent(), ["ACK 1:0 1:1{2}", "REDELIVER 1:1"]);
}

#[test]
fn a_thousand_ids_at_a_time() {
    let mut script = Script::attached(SHARED, |config| config.nack_redelivery_delay = MS(100));
    (0..2500).for_each(|entry| script.consumer.nack(&id(entry), script.now));
    script.pass(MS(200));
    let ids: Vec<_> = script.sent().iter().map(|frame| frame.split(' ').count() - 1).collect();
    assert_eq!(ids, [1000, 1000, 500]);
}

#[test]
fn too_many_nacks_become_one_request_for_everything() {
    let mut script = Script::attached(SHARED, |_| {});
    (0..100_001).for_each(|entry| script.consumer.nack(&id(entry), script.now));
    assert_eq!(script.sent(), ["REDELIVER all"]);
    script.pass(Duration::from_secs(120));
    assert_eq!(script.sent(), NONE);
}

#[test]
fn in_order_a_nack_rewinds_everything() {
    let mut script = Script::attached(EXCLUSIVE, |config| config.nack_redelivery_delay = MS(100));
    script.deliver((0..8).map(single));
    script.consume();
    assert_eq!(script.sent(), ["FLOW 8"]);
    script.deliver((8..12).map(single));
    script.ack_up_to(id(3));
    let generation = script.generation();
    script.consumer.nack(&id(5), script.now);
    script.consumer.nack(&id(7), script.now);
    script.pass(MS(125));
    assert_eq!(script.sent(), ["ACK <=1:3", "REDELIVER all epoch 1"]);
    assert_eq!(script.generation(), generation + 1);
    assert_eq!(script.consumer.queued_messages(), 0);
    // Sent before the broker heard of it: of no use, and their permits come home with those of the queue.
    script.deliver([Entry::read(MessageHead { consumer_epoch: Some(0), ..head(12) }, raw(None))]);
    assert_eq!(script.consumer.queued_messages(), 0);
    assert_eq!(script.sent(), ["FLOW 5"]);
    script.deliver([Entry::read(MessageHead { consumer_epoch: Some(1), ..head(4) }, raw(None)), single(5)]);
    assert_eq!(script.consume(), [(1, 4), (1, 5)]);
    script.lose_link();
    assert_eq!(script.consumer.subscribe_request(script.now).consumer_epoch, Some(1));
}

#[test]
fn acknowledgements_go_before_the_request_that_would_bring_them_back() {
    let mut script = Script::attached(SHARED, |config| config.ack_group_time = Duration::from_secs(10));
    script.deliver((0..2).map(single));
    script.consume();
    script.ack(id(0));
    script.consumer.redeliver_unacknowledged(script.now);
    assert_eq!(script.sent(), ["ACK 1:0", "REDELIVER all"]);
}

#[test]
fn on_shared_everything_comes_again_without_an_epoch() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver((0..6).map(single));
    script.consumer.redeliver_unacknowledged(script.now);
    assert_eq!(script.sent(), ["REDELIVER all", "FLOW 6"]);
    assert_eq!(script.consumer.queued_messages(), 0);
}

#[test]
fn a_new_attach_delivers_again_so_nothing_nacked_is_asked_for_twice() {
    let mut script = Script::attached(SHARED, |config| config.nack_redelivery_delay = MS(100));
    script.consumer.nack(&id(0), script.now);
    script.lose_link();
    script.consumer.nack(&id(1), script.now);
    script.attach();
    script.pass(MS(1000));
    assert_eq!(script.sent(), ["FLOW 10"]);
}

// ---- reconnecting

#[test]
fn a_new_attach_starts_queue_and_permits_anew() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver((0..4).map(single));
    let generation = script.generation();
    script.lose_link();
    assert_eq!(script.consumer.queued_messages(), 4, "until then they may still be taken");
    script.attach();
    assert_eq!(script.consumer.queued_messages(), 0);
    assert_eq!(script.generation(), generation + 1);
    assert_eq!(script.sent(), ["FLOW 10"]);
    script.deliver((0..4).map(single));
    assert!(script.is_in_inbox());
    assert_eq!(script.consume().len(), 4);
}

#[test]
fn nothing_is_written_while_detached() {
    let mut script = Script::attached(SHARED, |_| {});
    script.detach();
    script.consumer.redeliver_unacknowledged(script.now);
    script.ack(id(0));
    let _last = {
        let (to, reply) = Reply::pair();
        script.consumer.last_message_id(to, script.now, &mut script.wakes);
        reply
    };
    assert_eq!(script.sent(), NONE);
    script.deliver([single(0)]);
    assert_eq!(script.consumer.queued_messages(), 0, "of the consumer the broker has closed");
}

#[test]
fn an_error_that_ends_it_reaches_everybody() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver([single(0)]);
    script.take();
    script.is_in_inbox();
    let mut confirmed = script.confirm(&[id(0)], false);
    let error = RequestError::Server(ServerError::new(11, "gone")).into_error("to subscribe");
    script.consumer.fail(error, &mut script.wakes);
    assert_eq!(kind(&mut confirmed), ErrorKind::TopicNotFound);
    assert!(script.consumer.is_finished() && script.is_in_inbox());
    let ended = script.take().1.ended.expect("over");
    assert_eq!((ended.kind(), ended.topic()), (ErrorKind::TopicNotFound, Some("persistent://public/default/t")));
    let now = script.now;
    assert_eq!(script.consumer.ack(&id(0), || now).expect_err("over").kind(), ErrorKind::TopicNotFound);
    assert_eq!(kind(&mut script.confirm(&[id(1)], false)), ErrorKind::TopicNotFound);
    assert_eq!(poll(&mut script.close()), Some(Ok(())));
}

// ---- closing

#[test]
fn close_sends_acknowledgements_first_and_never_unsubscribes() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver((0..9).map(single));
    script.take();
    script.ack(id(0));
    let (mut first, mut second) = (script.close(), script.close());
    assert_eq!(script.sent(), ["ACK 1:0", "ask CLOSE_CONSUMER"]);
    assert_eq!(script.take().1.ended.map(|error| error.kind()), Some(ErrorKind::Closed));
    assert!(poll(&mut first).is_none());
    assert_eq!(script.answer(success()), OpKind::Close);
    assert_eq!((poll(&mut first), poll(&mut second)), (Some(Ok(())), Some(Ok(()))));
    assert!(script.consumer.is_finished() && script.consumer.is_closed_at_broker());
    assert_eq!(script.consumer.poll_deadline(), None);
}

#[test]
fn close_waits_for_what_is_being_confirmed() {
    let mut script = Script::attached(SHARED, |_| {});
    let mut confirmed = script.confirm(&[id(0)], false);
    let mut closed = script.close();
    assert_eq!(script.sent(), ["ask ACK 1:0"]);
    script.answer(success());
    assert_eq!(poll(&mut confirmed), Some(Ok(())));
    assert_eq!(script.sent(), ["ask CLOSE_CONSUMER"]);
    script.answer(success());
    assert_eq!(poll(&mut closed), Some(Ok(())));
}

#[test]
fn close_while_detached_is_done_unless_something_is_to_be_sent() {
    let mut script = Script::attached(SHARED, |_| {});
    script.lose_link();
    assert_eq!(poll(&mut script.close()), Some(Ok(())));
    assert!(script.consumer.is_finished());

    let mut script = Script::attached(SHARED, |_| {});
    script.lose_link();
    script.ack(id(0));
    let mut closed = script.close();
    assert!(poll(&mut closed).is_none());
    script.attach();
    assert_eq!(script.sent(), ["ACK 1:0", "ask CLOSE_CONSUMER"]);
    script.lose_link();
    assert_eq!(poll(&mut closed), Some(Ok(())), "the broker forgets a consumer with its connection");
}

#[test]
fn close_has_a_deadline_in_every_state() {
    let mut script = Script::attached(SHARED, |_| {});
    script.lose_link();
    script.ack(id(0));
    let mut closed = script.close();
    script.pass(Duration::from_secs(30));
    assert_eq!(kind(&mut closed), ErrorKind::TimedOut);
    assert!(script.consumer.is_finished());

    let mut script = Script::attached(SHARED, |_| {});
    let mut closed = script.close();
    script.sent();
    script.pass(Duration::from_secs(30));
    assert_eq!(kind(&mut closed), ErrorKind::TimedOut);
}

#[test]
fn close_while_subscribing_waits_for_the_answer() {
    let mut script = Script::new(SHARED, |_| {});
    script.consumer.subscribe_request(script.now);
    let mut closed = script.close();
    assert_eq!(kind(&mut script.subscribed), ErrorKind::Closed);
    assert!(poll(&mut closed).is_none() && !script.consumer.is_finished());
    script.consumer.on_attached(&peer(), script.now, &mut script.wakes);
    assert_eq!(script.sent(), ["ask CLOSE_CONSUMER"], "and no permits for a consumer that goes");
    script.answer(success());
    assert_eq!(poll(&mut closed), Some(Ok(())));

    let mut script = Script::new(SHARED, |_| {});
    script.consumer.subscribe_request(script.now);
    let mut closed = script.close();
    script.detach();
    assert_eq!(poll(&mut closed), Some(Ok(())), "refused: there is nothing to close");
}

#[test]
fn unsubscribe_ends_the_consumer_without_a_close() {
    let mut script = Script::attached(SHARED, |_| {});
    script.ack(id(0));
    let (to, mut reply) = Reply::pair();
    script.consumer.unsubscribe(false, to, script.now, &mut script.wakes);
    assert_eq!(script.sent(), ["ACK 1:0", "ask UNSUBSCRIBE"]);
    script.answer(refused());
    assert_eq!(kind(&mut reply), ErrorKind::Server);
    assert!(!script.consumer.is_finished());

    let (to, mut reply) = Reply::pair();
    script.consumer.unsubscribe(true, to, script.now, &mut script.wakes);
    assert_eq!(script.sent(), ["ask UNSUBSCRIBE"]);
    script.answer(success());
    assert_eq!(poll(&mut reply), Some(Ok(())));
    assert!(script.consumer.is_finished() && script.consumer.is_closed_at_broker());
    assert_eq!(script.sent(), NONE);
    assert_eq!(poll(&mut script.close()), Some(Ok(())));
}

// ---- questions

#[test]
fn the_last_message_id_is_read_as_the_broker_writes_it() {
    let mut script = Script::attached(SHARED, |_| {});
    let (to, mut reply) = Reply::pair();
    script.consumer.last_message_id(to, script.now, &mut script.wakes);
    assert_eq!(script.sent(), ["ask GET_LAST_MESSAGE_ID"]);
    let data = |entry_id, batch_index| pb::MessageIdData {
        ledger_id: 4,
        entry_id,
        partition: Some(-1),
        batch_index: Some(batch_index),
        ..Default::default()
    };
    script.answer(Ok(Box::new(Command::GetLastMessageIdResponse(pb::CommandGetLastMessageIdResponse {
        last_message_id: data(9, 2),
        request_id: 0,
        consumer_mark_delete_position: Some(data(u64::MAX, -1)),
    }))));
    let LastMessageId { id, mark_delete } = poll(&mut reply).expect("answered").expect("an id");
    assert_eq!((id.to_string(), mark_delete.map(|id| id.to_string())), ("4:9:-1:2".into(), Some("4:-1:-1".into())));
}

#[test]
fn statistics_come_as_the_broker_gives_them() {
    let mut script = Script::attached(SHARED, |_| {});
    let (to, mut reply) = Reply::pair();
    script.consumer.stats(to, script.now, &mut script.wakes);
    assert_eq!(script.sent(), ["ask CONSUMER_STATS"]);
    let response = pb::CommandConsumerStatsResponse { msg_backlog: Some(3), ..Default::default() };
    script.answer(Ok(Box::new(Command::ConsumerStatsResponse(response.clone()))));
    assert_eq!(poll(&mut reply), Some(Ok(response)));
}

#[test]
fn notices_are_kept_for_whoever_asks() {
    let mut script = Script::attached(SubscriptionType::Failover, |_| {});
    assert_eq!(script.consumer.is_active(), None);
    script.consumer.on_active_change(true);
    script.consumer.on_end_of_topic();
    assert_eq!((script.consumer.is_active(), script.consumer.has_reached_end_of_topic()), (Some(true), true));
}

// ---- seeking

#[test]
fn a_seek_ends_with_the_attach_that_follows_it() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    script.deliver((0..3).map(single));
    script.ack_up_to(id(0));
    let generation = script.generation();
    let mut done = script.seek(SeekTo::Earliest);
    assert!(script.generation() > generation && script.consumer.queued_messages() == 0);
    assert_eq!(script.sent(), ["ACK <=1:0", "ask SEEK"]);
    assert_eq!(kind(&mut script.seek(SeekTo::Latest)), ErrorKind::Busy);
    script.deliver([single(3)]);
    script.ack_up_to(id(2));
    assert_eq!(script.consumer.queued_messages(), 0, "of before the seek");
    script.detach();
    script.answer(success());
    assert!(poll(&mut done).is_none());
    script.attach();
    assert_eq!(poll(&mut done), Some(Ok(())));
    assert_eq!(script.sent(), ["FLOW 10"]);
    script.deliver([single(0)]);
    assert_eq!(script.consume(), [(1, 0)]);
}

#[test]
fn after_a_seek_members_acknowledged_before_it_come_again() {
    let mut script = Script::attached(EXCLUSIVE, |config| config.batch_index_ack = false);
    script.deliver([batch(0, 3)]);
    script.consume();
    script.ack(member(0, 0, 3));
    let mut done = script.seek(SeekTo::Earliest);
    script.sent();
    script.detach();
    script.answer(success());
    script.attach();
    assert_eq!(poll(&mut done), Some(Ok(())));
    script.deliver([batch(0, 3)]);
    assert_eq!(script.take().0[0].members, 3);
}

#[test]
fn a_seek_lost_with_its_link_is_asked_again() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    let mut done = script.seek(SeekTo::PublishTime(5));
    assert_eq!(script.sent(), ["ask SEEK"]);
    script.lose_link();
    script.attach();
    assert_eq!(script.sent(), ["FLOW 10", "ask SEEK"]);
    script.detach();
    script.answer(success());
    script.attach();
    assert_eq!(poll(&mut done), Some(Ok(())));
    assert_eq!(script.sent(), ["FLOW 10"]);
}

#[test]
fn a_refused_seek_brings_back_what_was_dropped_for_it() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    script.deliver((0..6).map(single));
    let mut done = script.seek(SeekTo::Latest);
    assert_eq!(script.sent(), ["FLOW 6", "ask SEEK"]);
    script.answer(refused());
    assert_eq!(kind(&mut done), ErrorKind::Server);
    assert_eq!(script.sent(), ["REDELIVER all epoch 1"]);
    script.deliver([single(0)]);
    assert_eq!(script.consume(), [(1, 0)]);
}

#[test]
fn a_seek_without_an_answer_ends_by_its_deadline() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    let mut done = script.seek(SeekTo::Latest);
    script.sent();
    script.pass(Duration::from_secs(30));
    assert_eq!(kind(&mut done), ErrorKind::TimedOut);
    script.deliver([single(0)]);
    assert_eq!(script.consume(), [(1, 0)]);
}

#[test]
fn a_seek_to_a_message_leaves_out_what_lies_before_it() {
    for (to, inclusive, first) in [
        (id(5), true, Some(vec![])),
        (id(5), false, None),
        (member(5, 1, 4), true, Some(vec![0b1110])),
        (member(5, 1, 4), false, Some(vec![0b1100])),
        (member(5, 3, 4), false, None),
        (member(5, 0, 4), true, Some(vec![])),
    ] {
        let mut script = Script::attached(EXCLUSIVE, |_| {});
        let mut done = script.seek(SeekTo::Message { id: to, inclusive });
        script.sent();
        script.detach();
        script.answer(success());
        script.attach();
        assert_eq!(poll(&mut done), Some(Ok(())));
        script.sent();
        // A broker without batch index acknowledgement delivers the batch whole.
        script.deliver([batch(5, 4), single(6)]);
        let (entries, _) = script.take();
        let got = entries.iter().find(|entry| entry.entry_id == 5);
        assert_eq!(got.is_some(), first.is_some(), "{to} {inclusive}");
        if let (Some(got), Some(first)) = (got, first) {
            let all = got.ack_set.is_empty() || got.ack_set == [0b1111];
            assert!(got.ack_set == first || (first.is_empty() && all), "{to} {inclusive}: {:?}", got.ack_set);
        }
        assert_eq!(entries.last().map(|entry| entry.entry_id), Some(6));
    }
}

#[test]
fn on_a_non_persistent_topic_the_consumer_stays_through_a_seek() {
    let mut script = Script::on("non-persistent://public/default/t", EXCLUSIVE, |_| {});
    script.attach();
    let mut done = script.seek(SeekTo::Latest);
    assert_eq!(script.sent(), ["FLOW 10", "ask SEEK"]);
    script.answer(success());
    assert_eq!(poll(&mut done), Some(Ok(())));
    script.deliver([single(0)]);
    assert_eq!(script.consume(), [(1, 0)]);
}

// ---- the ledger of permits under anything that can happen

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

const BATCH_MAX: u64 = 7;

/// A broker that counts permits as a real one does, and a user who holds what was taken.
struct World {
    script: Script,
    random: Random,
    size: i64,
    /// What the broker may still send.
    permits: i64,
    next_entry: u64,
    held: Vec<Entry>,
    attempt: u64,
    generation: u64,
    /// The deadline that whoever serves it has set a timer for.
    timer: Option<Instant>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let kind = if random.below(2) == 0 { SHARED } else { EXCLUSIVE };
        let size = 1 + random.below(20) as u32;
        let index_acks = random.below(2) == 0;
        let mut script = Script::new(kind, |config| {
            config.receiver_queue_size = size;
            config.nack_redelivery_delay = MS(100);
            config.batch_index_ack = index_acks;
        });
        script.attach();
        let attempt = script.take().1.attempt;
        let generation = script.generation();
        let size = i64::from(size);
        Self { script, random, size, permits: 0, next_entry: 0, held: Vec::new(), attempt, generation, timer: None }
    }

    fn charged(&self) -> i64 {
        let held: u32 = self.held.iter().map(|entry| entry.members).sum();
        self.script.consumer.queued_messages() as i64 + i64::from(held)
    }

    /// The broker reads what was written.
    fn serve(&mut self) {
        let is_marked = self.script.consumer.take_dirty();
        let is_due = self.timer.is_some_and(|at| at <= self.script.now.at);
        let deadline = self.script.consumer.poll_deadline().map(|deadline| deadline.at);
        let earlier = deadline.is_some_and(|at| self.timer.is_none_or(|timer| at < timer));
        assert!(is_marked || is_due || !earlier, "nobody was told of an earlier deadline");
        let sent = self.script.sent();
        assert!(is_marked || is_due || sent.is_empty(), "nobody was told to write {sent:?}");
        self.timer = self.script.consumer.poll_deadline().map(|deadline| deadline.at);
        for frame in sent {
            if let Some(permits) = frame.strip_prefix("FLOW ") {
                let permits: i64 = permits.parse().expect("a number");
                assert!(permits > 0, "a broker closes the connection for FLOW 0");
                self.permits += permits;
            }
        }
        // granted = queued + taken + outstanding, but for what waits to make half a queue.
        let missing = self.size - self.permits - self.charged();
        assert!((0..(self.size / 2).max(1)).contains(&missing), "{missing} permits are missing");
        assert!(self.charged() < self.size + BATCH_MAX as i64, "queued and taken: {}", self.charged());
    }

    /// Sends while there are permits, an entry at a time, never part of one.
    fn send(&mut self) {
        let mut run = Vec::new();
        for _ in 0..=self.random.below(6) {
            if self.permits <= 0 {
                break;
            }
            let members = (self.random.below(3) > 0).then(|| 1 + self.random.below(BATCH_MAX) as i32);
            let again = self.next_entry > 0 && self.random.below(5) == 0;
            let entry_id = if again { self.random.below(self.next_entry) } else { self.next_entry };
            self.next_entry += u64::from(!again);
            let (mut head, size) = (head(entry_id), sized(entry_id, members));
            if let (Some(size), 0) = (size, self.random.below(4)) {
                head.ack_set = vec![(self.random.next() & ((1 << size) - 1)) as i64];
            }
            let entry = match self.random.below(10) {
                0 => damaged(entry_id, size),
                1 => Entry::read(MessageHead { consumer_epoch: Some(0), ..head }, raw(size)),
                _ => Entry::read(head, raw(size)),
            };
            self.permits -= i64::from(entry.members);
            run.push(entry);
        }
        self.script.deliver(run);
    }

    /// The handle takes the queue; what it held of an earlier generation it throws away.
    fn take(&mut self) {
        let (entries, taken) = self.script.take();
        let stale = self.generation != taken.generation;
        if stale {
            self.credit(self.held.len());
        }
        (self.attempt, self.generation) = (taken.attempt, taken.generation);
        self.held.extend(entries);
    }

    fn credit(&mut self, entries: usize) {
        let count = self.held.drain(..entries).map(|entry| entry.members).sum();
        self.script.consumer.credit(Credits { attempt: self.attempt, count });
    }

    fn step(&mut self) {
        match self.random.below(12) {
            0..=3 => self.send(),
            4..=5 => self.take(),
            6..=7 => {
                let some = self.random.below(self.held.len() as u64 + 1) as usize;
                let ids: Vec<_> = self.held[..some].iter().flat_map(members).collect();
                for id in ids {
                    match self.random.below(4) {
                        0 => self.script.consumer.nack(&id, self.script.now),
                        _ => self.script.ack(id),
                    }
                }
                self.credit(some);
            }
            8 => self.script.consumer.redeliver_unacknowledged(self.script.now),
            9 if self.random.below(4) == 0 => {
                self.script.lose_link();
                self.script.attach();
                // A broker knows nothing of permits given on another connection, and neither does the ledger.
                self.permits = 0;
                self.held.clear();
                let taken = self.script.take().1;
                (self.attempt, self.generation) = (taken.attempt, taken.generation);
            }
            _ => self.script.pass(MS(40)),
        }
    }
}

/// The size of a batch belongs to its entry, however often it is delivered.
fn sized(entry_id: u64, members: Option<i32>) -> Option<i32> {
    let fixed = Random(entry_id).below(BATCH_MAX + 1) as i32;
    members.and((fixed > 0).then_some(fixed))
}

fn members(entry: &Entry) -> Vec<MessageId> {
    match entry.batch_size() {
        None => vec![id(entry.entry_id)],
        Some(size) => (0..size as i32).map(|index| member(entry.entry_id, index, size as i32)).collect(),
    }
}

#[test]
fn no_permit_is_lost_or_invented() {
    for seed in 0..400 {
        let mut world = World::new(seed);
        for _ in 0..200 {
            world.step();
            world.serve();
        }
        // Whatever happened, once everything is consumed the broker may send.
        world.take();
        world.credit(world.held.len());
        world.serve();
        assert!(world.permits > 0, "seed {seed}: delivery has starved");
    }
}
