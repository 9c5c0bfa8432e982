//! The embedded broker's machine before clients that keep to nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::frames::{entry, put_any_command};
use super::{Choices, clock};
use crate::broker::BrokerConfig;
use crate::broker::machine::{Broker, ConnId};
use crate::broker::{FaultEffect, FaultEvent, ScriptedFault};
use crate::error::ServerCode;
use crate::machine::Now;
use crate::pb::{self, MessageIdData};
use crate::wire::command::Command;
use crate::wire::frame::{Frame, frames};
use crate::wire::hot::{SendHead, put_flow, put_send_head};
use crate::wire::tx::TxBuf;

const TOPICS: [&str; 4] = [
    "persistent://public/default/t",
    "persistent://public/default/p",
    "persistent://public/default/p-partition-0",
    "non-persistent://public/default/n",
];

/// Connections at a time.
const CONNECTIONS_MAX: usize = 4;

/// Steps of one script.
const STEPS_MAX: usize = 400;

/// Connections that are ready and deadlines that are due at one moment, before that counts as an endless loop.
const ROUNDS_MAX: usize = 10_000;

/// What the broker may keep, bytes.
const STORED_BYTES_MAX: usize = 64 * 1024;

/// Violations that it keeps.
const VIOLATIONS_MAX: usize = 1_000;

/// A script of up to four clients, administrators and the clock. The first bytes say how the broker is set up.
pub fn hostile_client(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut clients = Clients::new(&mut choices);
    for _ in 0..STEPS_MAX {
        if choices.is_over() {
            break;
        }
        clients.step(&mut choices);
        clients.settle();
        clients.check();
    }
    clients.leave();
}

/// What one connection has sent, and is to get at most.
#[derive(Default)]
struct Client {
    rx: BytesMut,
    /// Takes nothing of what is written for it.
    is_stalled: bool,
    /// Requests without an answer, by `request_id`.
    requests: BTreeMap<u64, u64>,
    /// SENDs without a receipt or an error, by `producer_id`.
    sends: BTreeMap<u64, u64>,
    /// Permits, by `consumer_id`.
    permits: BTreeMap<u64, u64>,
}

struct Clients {
    broker: Broker,
    now: Now,
    start: Instant,
    connections: BTreeMap<ConnId, Client>,
    /// Ids of messages that came.
    seen: Vec<(u64, u64)>,
    /// Faults are armed: answers may come twice.
    has_faults: bool,
}

impl Clients {
    fn new(choices: &mut Choices<'_>) -> Self {
        let mut config = BrokerConfig::default();
        config.acknowledgment_at_batch_index_level_enabled = choices.flag();
        config.broker_deduplication_enabled = choices.flag();
        config.exposing_broker_entry_metadata_to_client_enabled = choices.flag();
        config.allow_auto_topic_creation = choices.below(4) < 3;
        config.max_unacked_messages_per_consumer = *choices.pick(&[50_000, 1, 20]);
        config.pulsar_channel_write_buffer_high_water_mark = *choices.pick(&[1 << 22, 1, 300]);
        config.max_stored_bytes = STORED_BYTES_MAX;
        config.partitioned_topics.insert(TOPICS[1].to_owned(), 2);
        config.token_secret_key = (choices.below(8) == 7).then(|| b"a secret of the simulation, long enough".to_vec());
        let now = clock::start();
        let broker = Broker::new(config, "pulsar://broker:6650", now);
        Self { broker, now, start: now.at, connections: BTreeMap::new(), seen: Vec::new(), has_faults: false }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() {
            0..=15 => self.connect(choices),
            16..=19 => self.disconnect(choices),
            20..=24 => self.stall(choices),
            25..=39 => self.advance(choices.time()),
            40..=49 => self.administrate(choices),
            50..=89 => self.send_bytes(choices, put_any_command),
            90..=96 => self.send_bytes(choices, |choices, out| out.extend_from_slice(choices.bytes())),
            97..=140 => self.send_bytes(choices, put_entry_of_producer),
            141..=170 => self.send_bytes(choices, |choices, out| {
                put_flow(out, choices.below(4) as u64, choices.number() as u32);
            }),
            _ => {
                let id = self.some_id(choices);
                self.send_bytes(choices, |choices, out| any_request(choices, id).encode_frame(out));
            }
        }
    }

    fn connect(&mut self, choices: &mut Choices<'_>) {
        if self.connections.len() >= CONNECTIONS_MAX {
            return;
        }
        let conn = self.broker.connect(self.now);
        self.connections.insert(conn, Client::default());
        if choices.below(8) < 7 {
            let connect = pb::CommandConnect {
                client_version: "fuzz".to_owned(),
                protocol_version: Some(*choices.pick(&[21, 12, 0, 19, i32::MAX])),
                feature_flags: Some(pb::FeatureFlags { supports_topic_watchers: Some(true), ..Default::default() }),
                ..Default::default()
            };
            let mut out = BytesMut::new();
            Command::from(connect).encode_frame(&mut out);
            self.receive(conn, &out);
        }
    }

    fn some_connection(&self, choices: &mut Choices<'_>) -> Option<ConnId> {
        let at = choices.below(CONNECTIONS_MAX);
        self.connections.keys().nth(at.min(self.connections.len().saturating_sub(1))).copied()
    }

    fn some_id(&self, choices: &mut Choices<'_>) -> MessageIdData {
        let at = usize::from(choices.byte());
        let (ledger_id, entry_id) = match self.seen.len() {
            count if at < 200 && count > 0 => self.seen[count - 1 - at % count],
            _ => (choices.number(), choices.number()),
        };
        let mut id = MessageIdData { ledger_id, entry_id, ..Default::default() };
        match choices.below(6) {
            0 => id.ack_set = vec![choices.wide() as i64; choices.below(4)],
            1 => (id.batch_index, id.batch_size) = (Some(choices.number() as i32), Some(choices.number() as i32)),
            2 => id.partition = Some(choices.number() as i32),
            _ => {}
        }
        id
    }

    fn disconnect(&mut self, choices: &mut Choices<'_>) {
        if let Some(conn) = self.some_connection(choices) {
            self.broker.disconnect(conn);
            self.connections.remove(&conn);
        }
    }

    fn stall(&mut self, choices: &mut Choices<'_>) {
        let Some(conn) = self.some_connection(choices) else { return };
        let Some(client) = self.connections.get_mut(&conn) else { return };
        client.is_stalled = !client.is_stalled;
        if !client.is_stalled {
            self.transmit(conn);
        }
    }

    fn send_bytes(&mut self, choices: &mut Choices<'_>, put: impl FnOnce(&mut Choices<'_>, &mut BytesMut)) {
        let Some(conn) = self.some_connection(choices) else { return };
        let mut out = BytesMut::new();
        put(choices, &mut out);
        self.receive(conn, &out);
    }

    /// Counts what is asked, as far as the broker can read it.
    fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(client) = self.connections.get_mut(&conn) else { return };
        client.rx.extend_from_slice(bytes);
        let mut run = client.rx.clone();
        let limits = self.broker.limits();
        if let Ok(Some(run)) = crate::wire::frame::cut(&mut run, &limits) {
            frames(run).map_while(Result::ok).for_each(|frame| client.count(&frame));
        }
        self.broker.receive(conn, &mut client.rx, self.now);
    }

    /// Moves the clock from deadline to deadline.
    fn advance(&mut self, by: Duration) {
        let end = self.now.at + by;
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "deadlines without end");
            let due = self.broker.poll_deadline().map(|deadline| deadline.at).filter(|at| *at <= end);
            let at = due.unwrap_or(end).max(self.now.at);
            self.now = clock::moment(self.start, at);
            self.broker.handle_deadline(self.now);
            self.settle();
            if due.is_none() {
                break;
            }
        }
        let next = self.broker.poll_deadline();
        assert!(next.is_none_or(|deadline| deadline.at > self.now.at), "{next:?} was handled and is still due");
    }

    fn administrate(&mut self, choices: &mut Choices<'_>) {
        let topic = *choices.pick(&TOPICS);
        match choices.below(13) {
            0 => self.broker.unload(topic),
            1 => self.broker.terminate(topic),
            2 => self.broker.delete_topic(topic),
            3 => drop(self.broker.compact(topic)),
            4 => drop(self.broker.create_partitioned_topic(topic, choices.below(5) as u32)),
            5 => self.broker.advance(choices.time()),
            6 => self.broker.challenge_all(),
            7 => self.broker.close_producers_of(topic, None),
            8 => self.broker.close_consumers_of(topic, Some("pulsar://other:6650")),
            9 => self.broker.drop_topic_list_watchers(),
            10 => drop(self.broker.corrupt_stored_entry(topic, choices.below(8) as u64)),
            11 => drop(self.broker.corrupt_stored_payload(topic, choices.below(8) as u64)),
            _ => {
                self.has_faults = true;
                self.broker.arm_fault(any_fault(choices));
            }
        }
    }

    /// Writes to connections and ends them until the broker has nothing to do.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "connections are ready without end");
            let ready = self.broker.take_ready();
            if ready.is_empty() {
                break;
            }
            for conn in ready {
                self.transmit(conn);
            }
        }
    }

    fn transmit(&mut self, conn: ConnId) {
        let Some(client) = self.connections.get_mut(&conn) else { return };
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "output without end");
            if client.is_stalled && !self.broker.closing(conn) {
                return;
            }
            let mut out = TxBuf::new();
            self.broker.poll_transmit(conn, &mut out);
            if out.is_empty() {
                break;
            }
            for frame in frames(out.take_all()) {
                let frame = match frame {
                    Ok(frame) => frame,
                    // Bytes of a fault.
                    Err(_) if self.has_faults => break,
                    Err(error) => panic!("the broker writes sound frames: {error}"),
                };
                if let Frame::Message { head, .. } = &frame {
                    self.seen.push((head.ledger_id, head.entry_id));
                }
                if !self.has_faults {
                    client.check(&frame);
                }
            }
        }
        if self.broker.closing(conn) {
            self.broker.disconnect(conn);
            self.connections.remove(&conn);
        }
    }

    fn check(&self) {
        let mut stored = 0;
        for topic in self.broker.topics() {
            let Some(stats) = self.broker.stats(&topic) else { continue };
            stored += stats.storage_size;
            for (name, sub) in &stats.subscriptions {
                let of_consumers: u64 = sub.consumers.iter().map(|consumer| consumer.unacked_messages).sum();
                assert_eq!(of_consumers, sub.unacked_messages, "{topic} {name}");
                assert!(sub.unacked_messages <= sub.msg_backlog, "{topic} {name}: {sub:?}");
            }
        }
        assert!(stored <= STORED_BYTES_MAX as u64, "{stored} bytes are stored");
        assert!(self.broker.violations().len() <= VIOLATIONS_MAX);
    }

    /// All clients go, and time passes: nothing of them is left.
    fn leave(mut self) {
        for conn in std::mem::take(&mut self.connections).into_keys() {
            self.broker.disconnect(conn);
        }
        self.advance(Duration::from_secs(300));
        self.check();
        assert_eq!((self.broker.connections(), self.broker.topic_list_watchers()), (0, 0));
        for topic in self.broker.topics() {
            let stats = self.broker.stats(&topic).unwrap_or_default();
            assert!(stats.publishers.is_empty(), "{topic}: {stats:?}");
            assert!(
                stats.subscriptions.values().all(|sub| sub.consumers.is_empty() && sub.durable),
                "{topic}: {stats:?}"
            );
        }
    }
}

impl Client {
    fn count(&mut self, frame: &Frame) {
        match frame {
            Frame::Send { head, .. } => *self.sends.entry(head.producer_id).or_default() += 1,
            Frame::Other(Command::Flow(flow)) => {
                *self.permits.entry(flow.consumer_id).or_default() += u64::from(flow.message_permits);
            }
            Frame::Other(command) => {
                if let Some(id) = command.request_id() {
                    *self.requests.entry(id).or_default() += 1;
                }
            }
            _ => {}
        }
    }

    /// Nothing comes that was not asked for.
    fn check(&mut self, frame: &Frame) {
        let of = |counts: &mut BTreeMap<u64, u64>, id: u64| {
            let count = counts.entry(id).or_default();
            assert!(*count > 0, "not asked for: {frame:?}");
            *count -= 1;
        };
        match frame {
            Frame::Message { head, .. } => of(&mut self.permits, head.consumer_id),
            Frame::Receipt(receipt) => of(&mut self.sends, receipt.producer_id),
            Frame::Other(Command::SendError(error)) => of(&mut self.sends, error.producer_id),
            // It waits for exclusive access; another one follows.
            Frame::Other(Command::ProducerSuccess(success)) if success.producer_ready == Some(false) => {}
            Frame::Other(Command::Error(error)) if error.request_id == u64::MAX => {}
            // The broker's own.
            Frame::Other(Command::CloseProducer(_) | Command::CloseConsumer(_)) => {}
            Frame::Other(command) => {
                if let Some(id) = command.request_id() {
                    of(&mut self.requests, id);
                }
            }
            _ => {}
        }
    }
}

fn put_entry_of_producer(choices: &mut Choices<'_>, out: &mut BytesMut) {
    let mut head = SendHead::new(choices.below(3) as u64, choices.number());
    match choices.below(8) {
        0 => head.num_messages = choices.number() as i32,
        1 => head.highest_sequence_id = Some(choices.number()),
        2 => head.is_chunk = true,
        3 => head.message_id = Some((choices.number(), choices.number())),
        _ => {}
    }
    let entry = entry(choices);
    put_send_head(out, &head, entry.len());
    out.extend_from_slice(&entry);
}

/// A request of the right form, about few topics and ids.
fn any_request(choices: &mut Choices<'_>, id: MessageIdData) -> Command {
    let topic = (*choices.pick(&TOPICS)).to_owned();
    let request_id = choices.below(16) as u64;
    let producer_id = choices.below(3) as u64;
    let consumer_id = choices.below(4) as u64;
    match choices.below(20) {
        0 => pb::CommandLookupTopic { topic, request_id, ..Default::default() }.into(),
        1 => pb::CommandPartitionedTopicMetadata { topic, request_id, ..Default::default() }.into(),
        2 | 3 => pb::CommandProducer {
            topic,
            producer_id,
            request_id,
            producer_name: choices.flag().then(|| "p".to_owned()),
            epoch: Some(choices.number()),
            user_provided_producer_name: Some(choices.flag()),
            producer_access_mode: Some(choices.below(5) as i32),
            topic_epoch: (choices.below(4) == 3).then(|| choices.number()),
            initial_subscription_name: (choices.below(4) == 3).then(|| "s".to_owned()),
            ..Default::default()
        }
        .into(),
        4..=6 => any_subscribe(choices, topic, consumer_id, request_id, id),
        7..=9 => pb::CommandAck {
            consumer_id,
            ack_type: choices.below(3) as i32,
            message_id: vec![id; choices.below(3)],
            request_id: choices.flag().then_some(request_id),
            validation_error: (choices.below(8) == 7).then(|| choices.below(6) as i32),
            ..Default::default()
        }
        .into(),
        10 => pb::CommandRedeliverUnacknowledgedMessages {
            consumer_id,
            message_ids: vec![id; choices.below(3)],
            consumer_epoch: choices.flag().then(|| choices.number()),
        }
        .into(),
        11 => pb::CommandSeek {
            consumer_id,
            request_id,
            message_publish_time: (choices.below(3) == 2).then(|| choices.wide()),
            message_id: choices.flag().then_some(id),
        }
        .into(),
        12 => pb::CommandCloseConsumer { consumer_id, request_id, ..Default::default() }.into(),
        13 => pb::CommandCloseProducer { producer_id, request_id, ..Default::default() }.into(),
        14 => pb::CommandUnsubscribe { consumer_id, request_id, force: choices.flag().then_some(true) }.into(),
        15 => pb::CommandGetLastMessageId { consumer_id, request_id }.into(),
        16 => pb::CommandConsumerStats { consumer_id, request_id }.into(),
        17 => pb::CommandGetTopicsOfNamespace {
            request_id,
            namespace: "public/default".to_owned(),
            topics_pattern: choices.flag().then(|| String::from_utf8_lossy(choices.bytes()).into_owned()),
            ..Default::default()
        }
        .into(),
        18 => pb::CommandWatchTopicList {
            request_id,
            watcher_id: choices.below(3) as u64,
            namespace: "public/default".to_owned(),
            topics_pattern: String::from_utf8_lossy(choices.bytes()).into_owned(),
            ..Default::default()
        }
        .into(),
        _ => {
            let schema_data = choices.bytes().to_vec().into();
            let schema = pb::Schema {
                name: "s".to_owned(),
                r#type: choices.below(24) as i32,
                schema_data,
                ..Default::default()
            };
            pb::CommandGetOrCreateSchema { topic, request_id, schema }.into()
        }
    }
}

fn any_subscribe(
    choices: &mut Choices<'_>,
    topic: String,
    consumer_id: u64,
    request_id: u64,
    id: MessageIdData,
) -> Command {
    let ranges = |choices: &mut Choices<'_>| {
        let range =
            |choices: &mut Choices<'_>| pb::IntRange { start: choices.number() as i32, end: choices.number() as i32 };
        (0..choices.below(3)).map(|_| range(choices)).collect()
    };
    pb::CommandSubscribe {
        topic,
        subscription: choices.pick(&["s", "s2"]).to_string(),
        sub_type: choices.below(5) as i32,
        consumer_id,
        request_id,
        priority_level: Some(choices.below(3) as i32),
        durable: Some(choices.below(4) < 3),
        start_message_id: (choices.below(3) == 2).then_some(id),
        read_compacted: Some(choices.below(4) == 3),
        initial_position: Some(choices.below(3) as i32),
        consumer_epoch: choices.flag().then(|| choices.number()),
        key_shared_meta: choices.flag().then(|| pb::KeySharedMeta {
            key_shared_mode: choices.below(3) as i32,
            hash_ranges: ranges(choices),
            allow_out_of_order_delivery: Some(choices.flag()),
        }),
        ..Default::default()
    }
    .into()
}

/// Any of the faults that a test can script.
fn any_fault(choices: &mut Choices<'_>) -> ScriptedFault {
    let event = *choices.pick(&FaultEvent::ALL);
    let effect = match choices.below(10) {
        0 => FaultEffect::RefuseRequest { code: ServerCode(choices.number() as i32) },
        1 => FaultEffect::Redirect { url: "pulsar://other:6650".to_owned(), authoritative: choices.flag() },
        2 => FaultEffect::DropRequest,
        3 => FaultEffect::RespondWith { bytes: choices.bytes().to_vec().into() },
        4 => FaultEffect::DropResponse,
        5 => FaultEffect::DelayResponse { by: choices.time() },
        6 => FaultEffect::DuplicateResponse,
        7 => FaultEffect::ReverseResponses { count: 2 + choices.below(3) },
        8 => FaultEffect::Close { url: None },
        _ => FaultEffect::Disconnect,
    };
    ScriptedFault::new(event, effect).after(choices.below(4) as u64).times(1 + choices.below(4) as u64)
}
