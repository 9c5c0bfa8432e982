//! What stands between the network and the broker: every frame passes here, whole and read.
//!
//! It plays the second broker (who owns which topic, redirects, requests at the wrong address), applies the faults
//! that concern frames, and keeps the records that the invariants need.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hasher;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::faults::{Fault, FaultCounts};
use super::invariants::ViolationLog;
use super::network::PairId;
use super::rng::Rng;
use crate::error::ServerCode;
use crate::id::{ConsumerId, MessageId, ProducerId};
use crate::machine::EndpointId;
use crate::machine::consumer::ReceivedEntry;
use crate::pb;
use crate::pb::command_lookup_topic_response::LookupType;
use crate::wire::command::Command;
use crate::wire::frame::Frame;
use crate::wire::hot::{MessageHead, SendHead};

/// Faults that wait for their frame.
const ARMED_MAX: usize = 64;

/// The brokers' addresses.
pub(super) const BROKERS: [&str; 2] = ["pulsar://broker-0:6650", "pulsar://broker-1:6650"];

/// Where a frame comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) pair: PairId,
    pub(super) client: usize,
    pub(super) broker: usize,
}

#[derive(Debug, Clone)]
struct Request {
    endpoint: Option<EndpointId>,
    is_lookup: bool,
    topic: Option<String>,
}

/// What is known of a producer or consumer on one connection.
#[derive(Debug, Clone)]
struct ProxiedEndpoint {
    topic: String,
    subscription: Option<String>,
    /// Permits granted and not used, as the wire shows them.
    permits: i64,
}

#[derive(Debug, Default)]
struct ProxiedConnection {
    requests: BTreeMap<u64, Request>,
    endpoints: BTreeMap<EndpointId, ProxiedEndpoint>,
    /// Producers whose messages are dropped until they are opened again.
    fenced: BTreeSet<EndpointId>,
    /// Frames for the client that are held back, with who they concern.
    held: VecDeque<(Instant, Option<EndpointId>, Bytes)>,
}

/// Topic, subscription, ledger, entry.
type SubscribedEntry = (String, String, u64, u64);

/// Why a message may be missing or come again, and what the wire showed of it.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Sum of each SEND: (client, producer, sequence id).
    sent: BTreeMap<(usize, u64, u64), u64>,
    /// When each entry was delivered, and with which members: (topic, subscription, ledger, entry).
    delivered: BTreeMap<SubscribedEntry, Vec<(Instant, Vec<i64>)>>,
    /// Damaged on the way: (topic, subscription, ledger, entry).
    pub(super) corrupted: BTreeSet<SubscribedEntry>,
    /// The first FLOW of a consumer: its queue size.
    queue_sizes: BTreeMap<(usize, u64), i64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Proxy {
    connections: BTreeMap<PairId, ProxiedConnection>,
    armed: VecDeque<Fault>,
    owners: BTreeMap<String, usize>,
    /// Who the broker last knew under a name: (topic, name) -> (client, producer).
    names: BTreeMap<(String, String), (usize, u64)>,
    /// Names whose producers the judge takes for one another.
    pub(super) mistaken: BTreeSet<String>,
    pub(super) redirects_until: Option<Instant>,
    pub(super) counts: FaultCounts,
    pub(super) records: Records,
    rng: Rng,
    /// Connections that lost a receipt: without a send timeout a client waits for it as long as they last.
    pub(super) lossy: BTreeSet<PairId>,
    /// Frames to be released later; collected by the world.
    pub(super) releases: Vec<(Instant, PairId)>,
}

/// What becomes of a frame for the broker.
#[allow(clippy::large_enum_variant, reason = "it is looked at once, where it lies")]
pub(super) enum Upstream {
    Forward(Frame),
    /// It does not reach the broker; these go to the client instead.
    Answer(Vec<Command>),
}

impl Proxy {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            connections: BTreeMap::new(),
            armed: VecDeque::new(),
            owners: BTreeMap::new(),
            names: BTreeMap::new(),
            mistaken: BTreeSet::new(),
            redirects_until: None,
            counts: FaultCounts::default(),
            records: Records::default(),
            rng,
            lossy: BTreeSet::new(),
            releases: Vec::new(),
        }
    }

    pub(super) fn arm(&mut self, fault: Fault) {
        if self.armed.len() < ARMED_MAX {
            self.armed.push_back(fault);
        }
    }

    /// No fault waits any more.
    pub(super) fn heal(&mut self) {
        self.armed.clear();
        self.redirects_until = None;
    }

    pub(super) fn forget(&mut self, pair: PairId) {
        self.connections.remove(&pair);
    }

    pub(super) fn owner(&mut self, topic: &str) -> usize {
        if let Some(owner) = self.owners.get(topic) {
            return *owner;
        }
        let owner = self.rng.below(BROKERS.len() as u64) as usize;
        self.owners.insert(topic.to_owned(), owner);
        owner
    }

    pub(super) fn move_topic(&mut self, topic: &str, to: usize) {
        self.owners.insert(topic.to_owned(), to);
    }

    pub(super) fn topics_of(&self, broker: usize) -> Vec<String> {
        self.owners.iter().filter(|(_, owner)| **owner == broker).map(|(topic, _)| topic.clone()).collect()
    }

    fn take_armed(&mut self, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let at = self.armed.iter().position(wanted)?;
        let fault = self.armed.remove(at)?;
        self.counts.count(&fault);
        Some(fault)
    }

    /// A frame of a client, on its way to the broker.
    pub(super) fn up(&mut self, origin: Origin, frame: Frame, now: Instant, violations: &mut ViolationLog) -> Upstream {
        match frame {
            Frame::Send { head, entry } => self.send(origin, head, entry, violations),
            Frame::Other(command) => self.command(origin, command, now),
            other => Upstream::Forward(other),
        }
    }

    fn send(&mut self, origin: Origin, head: SendHead, entry: Bytes, violations: &mut ViolationLog) -> Upstream {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write(&entry);
        hasher.write_i32(head.num_messages);
        hasher.write_u64(head.highest_sequence_id.unwrap_or(0));
        let sum = hasher.finish();
        let key = (origin.client, head.producer_id, head.sequence_id);
        let before = *self.records.sent.entry(key).or_insert(sum);
        if before != sum {
            violations.report("resend is byte-identical", || {
                format!("client {} producer {} sequence {}", key.0, key.1, key.2)
            });
        }
        let producer = EndpointId::Producer(ProducerId(head.producer_id));
        let connection = self.connections.entry(origin.pair).or_default();
        if connection.fenced.contains(&producer) {
            return Upstream::Answer(Vec::new());
        }
        // NotAllowedError refuses one message and takes those behind it. Where that refusal is lost, no client can tell
        // the message from one without a receipt, and what it sends again lands behind them.
        let fits = |fault: &Fault| matches!(fault, Fault::RefuseSend(code) if *code != ServerCode::NOT_ALLOWED_ERROR);
        if let Some(Fault::RefuseSend(code)) = self.take_armed(fits) {
            // The topic is fenced, or the producer is gone: nothing behind it is stored either.
            self.connections.entry(origin.pair).or_default().fenced.insert(producer);
            let error = pb::CommandSendError {
                producer_id: head.producer_id,
                sequence_id: head.sequence_id,
                error: code.0,
                message: "simulated".to_owned(),
            };
            return Upstream::Answer(vec![error.into()]);
        }
        Upstream::Forward(Frame::Send { head, entry })
    }

    fn command(&mut self, origin: Origin, command: Command, now: Instant) -> Upstream {
        let request = read_request(&command);
        if let Some(id) = command.request_id() {
            let connection = self.connections.entry(origin.pair).or_default();
            connection.requests.insert(id, request.clone());
            if !is_close(&command) && self.take_armed(|fault| *fault == Fault::LoseRequest).is_some() {
                return Upstream::Answer(Vec::new());
            }
            if is_refusable(&command) {
                if let Some(Fault::RefuseRequest(code)) =
                    self.take_armed(|fault| matches!(fault, Fault::RefuseRequest(_)))
                {
                    return Upstream::Answer(vec![refusal(&command, id, code, "simulated")]);
                }
            }
        }
        match &command {
            Command::Lookup(lookup) if self.redirects_until.is_some_and(|until| until > now) => {
                let other = (origin.broker + 1) % BROKERS.len();
                return Upstream::Answer(vec![looked_up(lookup.request_id, LookupType::Redirect, other, false)]);
            }
            Command::Producer(_) | Command::Subscribe(_) => {
                let topic = request.topic.unwrap_or_default();
                if self.owner(&topic) != origin.broker {
                    let id = command.request_id().unwrap_or(0);
                    let text = "Namespace bundle not served by this instance";
                    return Upstream::Answer(vec![refusal(&command, id, ServerCode::SERVICE_NOT_READY, text)]);
                }
                if let Some(endpoint) = request.endpoint {
                    let subscription = match &command {
                        Command::Subscribe(subscribe) => Some(subscribe.subscription.clone()),
                        _ => None,
                    };
                    if let Command::Producer(producer) = &command {
                        self.note_name(origin, producer);
                    }
                    let connection = self.connections.entry(origin.pair).or_default();
                    connection.fenced.remove(&endpoint);
                    connection.endpoints.insert(endpoint, ProxiedEndpoint { topic, subscription, permits: 0 });
                }
            }
            Command::Flow(flow) => self.flow(origin, flow),
            _ => {}
        }
        Upstream::Forward(Frame::Other(command))
    }

    /// A producer that the broker never heard of starts again, under a name that another one had: to the judge it is
    /// still that one.
    fn note_name(&mut self, origin: Origin, producer: &pb::CommandProducer) {
        let Some(name) = &producer.producer_name else { return };
        let who = (origin.client, producer.producer_id);
        let before = self.names.insert((producer.topic.clone(), name.clone()), who);
        if producer.epoch() > 0 && before != Some(who) {
            self.mistaken.insert(name.clone());
        }
    }

    fn flow(&mut self, origin: Origin, flow: &pb::CommandFlow) {
        let permits = i64::from(flow.message_permits);
        self.records.queue_sizes.entry((origin.client, flow.consumer_id)).or_insert(permits);
        let connection = self.connections.entry(origin.pair).or_default();
        if let Some(endpoint) = connection.endpoints.get_mut(&EndpointId::Consumer(ConsumerId(flow.consumer_id))) {
            endpoint.permits += permits;
        }
    }

    /// Whether a consumer has granted more than its queue holds.
    pub(super) fn check_permits(&self, origin: Origin, violations: &mut ViolationLog) {
        let Some(connection) = self.connections.get(&origin.pair) else { return };
        for (id, endpoint) in &connection.endpoints {
            let EndpointId::Consumer(consumer) = id else { continue };
            let Some(size) = self.records.queue_sizes.get(&(origin.client, consumer.0)) else { continue };
            if endpoint.permits > *size {
                violations.report("permits within the queue", || {
                    format!("client {} {id}: {} granted, queue {size}", origin.client, endpoint.permits)
                });
            }
        }
    }

    /// A frame of the broker, on its way to a client: what is to be written now.
    pub(super) fn down(&mut self, origin: Origin, frame: &Frame, raw: Bytes, now: Instant, out: &mut BytesMut) {
        let answered = match frame {
            Frame::Other(command) => command.request_id().and_then(|id| {
                self.connections.get_mut(&origin.pair).and_then(|connection| connection.requests.remove(&id))
            }),
            _ => None,
        };
        let endpoint = answered.as_ref().and_then(|request| request.endpoint).or_else(|| concerns(frame));
        let mut raw = raw;
        let mut hold = None;
        match (frame, &answered) {
            (_, Some(request)) => {
                if self.take_armed(|fault| *fault == Fault::LoseAnswer).is_some() {
                    return;
                }
                if request.is_lookup {
                    raw = self.answer_lookup(origin, frame, request, raw);
                }
                if let Some(Fault::DelayAnswer(by)) = self.take_armed(|fault| matches!(fault, Fault::DelayAnswer(_))) {
                    hold = Some(now + by);
                }
            }
            (Frame::Receipt(_), None) => {
                if self.take_armed(|fault| *fault == Fault::LoseReceipt).is_some() {
                    self.lossy.insert(origin.pair);
                    return;
                }
                if self.take_armed(|fault| *fault == Fault::RepeatReceipt).is_some() {
                    // At once, or when others are on their way.
                    let until = now + self.rng.duration(Duration::ZERO, Duration::from_millis(300));
                    let connection = self.connections.entry(origin.pair).or_default();
                    connection.held.push_back((until, None, raw.clone()));
                    self.releases.push((until, origin.pair));
                }
            }
            (Frame::Message { head, entry }, None) => raw = self.message(origin, head, entry, raw, now),
            _ => {}
        }
        let connection = self.connections.entry(origin.pair).or_default();
        let behind = endpoint.is_some() && connection.held.iter().any(|(_, held, _)| *held == endpoint);
        match hold.or(behind.then_some(now)) {
            Some(until) => {
                connection.held.push_back((until, endpoint, raw));
                self.releases.push((until, origin.pair));
            }
            None => out.extend_from_slice(&raw),
        }
    }

    /// What was held back and is due.
    pub(super) fn release(&mut self, pair: PairId, now: Instant, out: &mut BytesMut) {
        let Some(connection) = self.connections.get_mut(&pair) else { return };
        let mut blocked: Vec<Option<EndpointId>> = Vec::new();
        let mut kept = VecDeque::new();
        for (until, endpoint, raw) in connection.held.drain(..) {
            if until > now || (endpoint.is_some() && blocked.contains(&endpoint)) {
                blocked.push(endpoint);
                kept.push_back((until, endpoint, raw));
            } else {
                out.extend_from_slice(&raw);
            }
        }
        connection.held = kept;
    }

    fn answer_lookup(&mut self, origin: Origin, frame: &Frame, request: &Request, raw: Bytes) -> Bytes {
        let Frame::Other(Command::LookupResponse(answer)) = frame else { return raw };
        if answer.response != Some(LookupType::Connect.into()) {
            return raw;
        }
        let owner = self.owner(request.topic.as_deref().unwrap_or_default());
        // A broker that does not own the topic names the owner, or sends the client to ask there.
        let kind =
            if owner == origin.broker || self.rng.chance(500) { LookupType::Connect } else { LookupType::Redirect };
        let mut out = BytesMut::new();
        looked_up(answer.request_id, kind, owner, true).encode_frame(&mut out);
        out.freeze()
    }

    fn message(&mut self, origin: Origin, head: &MessageHead, entry: &Bytes, raw: Bytes, now: Instant) -> Bytes {
        let consumer = EndpointId::Consumer(ConsumerId(head.consumer_id));
        let charged = ReceivedEntry::read(head.clone(), entry.clone()).members;
        let connection = self.connections.entry(origin.pair).or_default();
        let Some(endpoint) = connection.endpoints.get_mut(&consumer) else { return raw };
        endpoint.permits -= i64::from(charged);
        let Some(subscription) = endpoint.subscription.clone() else { return raw };
        let key = (endpoint.topic.clone(), subscription, head.ledger_id, head.entry_id);
        self.records.delivered.entry(key.clone()).or_default().push((now, head.ack_set.clone()));
        if entry.is_empty() || self.take_armed(|fault| *fault == Fault::CorruptEntry).is_none() {
            return raw;
        }
        self.records.corrupted.insert(key);
        let mut bytes = raw.to_vec();
        if let Some(last) = bytes.last_mut() {
            *last ^= 0x10;
        }
        bytes.into()
    }

    /// When this message was sent to the subscription's consumers, as one that is not acknowledged.
    pub(super) fn deliveries(&self, topic: &str, subscription: &str, id: &MessageId) -> Vec<Instant> {
        let id = id.position();
        let key = (topic.to_owned(), subscription.to_owned(), id.ledger_id, id.entry_id);
        let all = self.records.delivered.get(&key).map_or(&[][..], Vec::as_slice);
        let holds = |words: &[i64]| match usize::try_from(id.batch_index) {
            Ok(index) if !words.is_empty() => words.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1),
            _ => true,
        };
        all.iter().filter(|(_, words)| holds(words)).map(|(at, _)| *at).collect()
    }
}

/// A close that never arrives leaves a ghost as long as its connection lasts, and no client can help it.
fn is_close(command: &Command) -> bool {
    matches!(command, Command::CloseProducer(_) | Command::CloseConsumer(_))
}

fn is_refusable(command: &Command) -> bool {
    matches!(
        command,
        Command::Producer(_)
            | Command::Subscribe(_)
            | Command::Lookup(_)
            | Command::PartitionedMetadata(_)
            | Command::Ack(_)
            | Command::GetLastMessageId(_)
    )
}

fn read_request(command: &Command) -> Request {
    let producer = |id| Some(EndpointId::Producer(ProducerId(id)));
    let consumer = |id| Some(EndpointId::Consumer(ConsumerId(id)));
    let (endpoint, topic) = match command {
        Command::Producer(it) => (producer(it.producer_id), Some(it.topic.clone())),
        Command::CloseProducer(it) => (producer(it.producer_id), None),
        Command::Subscribe(it) => (consumer(it.consumer_id), Some(it.topic.clone())),
        Command::CloseConsumer(it) => (consumer(it.consumer_id), None),
        Command::Ack(it) => (consumer(it.consumer_id), None),
        Command::Lookup(it) => (None, Some(it.topic.clone())),
        _ => (None, None),
    };
    Request { endpoint, is_lookup: matches!(command, Command::Lookup(_)), topic }
}

/// Whom a frame of the broker is about.
fn concerns(frame: &Frame) -> Option<EndpointId> {
    let producer = |id| Some(EndpointId::Producer(ProducerId(id)));
    let consumer = |id| Some(EndpointId::Consumer(ConsumerId(id)));
    match frame {
        Frame::Receipt(receipt) => producer(receipt.producer_id),
        Frame::Message { head, .. } => consumer(head.consumer_id),
        Frame::Other(Command::SendError(it)) => producer(it.producer_id),
        Frame::Other(Command::CloseProducer(it)) => producer(it.producer_id),
        Frame::Other(Command::CloseConsumer(it)) => consumer(it.consumer_id),
        Frame::Other(Command::ActiveConsumerChange(it)) => consumer(it.consumer_id),
        Frame::Other(Command::ReachedEndOfTopic(it)) => consumer(it.consumer_id),
        _ => None,
    }
}

fn looked_up(request_id: u64, kind: LookupType, broker: usize, authoritative: bool) -> Command {
    let answer = pb::CommandLookupTopicResponse {
        broker_service_url: BROKERS.get(broker).map(|url| (*url).to_owned()),
        response: Some(kind.into()),
        request_id,
        authoritative: Some(authoritative),
        ..Default::default()
    };
    answer.into()
}

fn refusal(command: &Command, request_id: u64, code: ServerCode, text: &str) -> Command {
    let message = text.to_owned();
    match command {
        Command::Lookup(_) => pb::CommandLookupTopicResponse {
            response: Some(LookupType::Failed.into()),
            request_id,
            error: Some(code.0),
            message: Some(message),
            ..Default::default()
        }
        .into(),
        Command::PartitionedMetadata(_) => pb::CommandPartitionedTopicMetadataResponse {
            request_id,
            response: Some(pb::command_partitioned_topic_metadata_response::LookupType::Failed.into()),
            error: Some(code.0),
            message: Some(message),
            ..Default::default()
        }
        .into(),
        Command::Ack(ack) => pb::CommandAckResponse {
            consumer_id: ack.consumer_id,
            error: Some(code.0),
            message: Some(message),
            request_id: Some(request_id),
            ..Default::default()
        }
        .into(),
        _ => pb::CommandError { request_id, error: code.0, message }.into(),
    }
}
