//! What stands between the network and the broker: every frame passes here, whole and read.
//!
//! It plays the second broker (who owns which topic, redirects, requests at the wrong address), applies the faults
//! that concern frames, and keeps the books that the invariants need.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hasher;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::faults::{Fault, FaultCounts};
use super::invariants::Violations;
use super::net::NetId;
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
pub(super) struct Place {
    pub(super) net: NetId,
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
struct Guest {
    topic: String,
    subscription: Option<String>,
    /// Permits granted and not used, as the wire shows them.
    permits: i64,
}

#[derive(Debug, Default)]
struct Passage {
    requests: BTreeMap<u64, Request>,
    guests: BTreeMap<EndpointId, Guest>,
    /// Producers whose messages are dropped until they are opened again.
    shut: BTreeSet<EndpointId>,
    /// Frames for the client that are held back, with who they concern.
    held: VecDeque<(Instant, Option<EndpointId>, Bytes)>,
}

/// Topic, subscription, ledger, entry.
type SubscribedEntry = (String, String, u64, u64);

/// Why a message may be missing or come again, and what the wire showed of it.
#[derive(Debug, Default)]
pub(super) struct Books {
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
pub(super) struct Gate {
    passages: BTreeMap<NetId, Passage>,
    armed: VecDeque<Fault>,
    owners: BTreeMap<String, usize>,
    /// Who the broker last knew under a name: (topic, name) -> (client, producer).
    names: BTreeMap<(String, String), (usize, u64)>,
    /// Names whose producers the judge takes for one another.
    pub(super) mistaken: BTreeSet<String>,
    pub(super) redirects_until: Option<Instant>,
    pub(super) counts: FaultCounts,
    pub(super) books: Books,
    rng: Rng,
    /// Connections that lost a receipt: without a send timeout a client waits for it as long as they last.
    pub(super) lossy: BTreeSet<NetId>,
    /// Frames to be released later; collected by the world.
    pub(super) releases: Vec<(Instant, NetId)>,
}

/// What becomes of a frame for the broker.
#[allow(clippy::large_enum_variant, reason = "it is looked at once, where it lies")]
pub(super) enum Up {
    Forward(Frame),
    /// It does not reach the broker; these go to the client instead.
    Instead(Vec<Command>),
}

impl Gate {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            passages: BTreeMap::new(),
            armed: VecDeque::new(),
            owners: BTreeMap::new(),
            names: BTreeMap::new(),
            mistaken: BTreeSet::new(),
            redirects_until: None,
            counts: FaultCounts::default(),
            books: Books::default(),
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
    pub(super) fn calm(&mut self) {
        self.armed.clear();
        self.redirects_until = None;
    }

    pub(super) fn forget(&mut self, net: NetId) {
        self.passages.remove(&net);
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

    fn fire(&mut self, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let at = self.armed.iter().position(wanted)?;
        let fault = self.armed.remove(at)?;
        self.counts.count(&fault);
        Some(fault)
    }

    /// A frame of a client, on its way to the broker.
    pub(super) fn up(&mut self, place: Place, frame: Frame, now: Instant, violations: &mut Violations) -> Up {
        match frame {
            Frame::Send { head, entry } => self.send(place, head, entry, violations),
            Frame::Other(command) => self.command(place, command, now),
            other => Up::Forward(other),
        }
    }

    fn send(&mut self, place: Place, head: SendHead, entry: Bytes, violations: &mut Violations) -> Up {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write(&entry);
        hasher.write_i32(head.num_messages);
        hasher.write_u64(head.highest_sequence_id.unwrap_or(0));
        let sum = hasher.finish();
        let key = (place.client, head.producer_id, head.sequence_id);
        let before = *self.books.sent.entry(key).or_insert(sum);
        if before != sum {
            violations
                .note("resend is byte-identical", || format!("client {} producer {} sequence {}", key.0, key.1, key.2));
        }
        let producer = EndpointId::Producer(ProducerId(head.producer_id));
        let passage = self.passages.entry(place.net).or_default();
        if passage.shut.contains(&producer) {
            return Up::Instead(Vec::new());
        }
        // NotAllowedError refuses one message and takes those behind it. Where that refusal is lost, no client can tell
        // the message from one without a receipt, and what it sends again lands behind them.
        let fits = |fault: &Fault| matches!(fault, Fault::RefuseSend(code) if *code != ServerCode::NOT_ALLOWED_ERROR);
        if let Some(Fault::RefuseSend(code)) = self.fire(fits) {
            // The topic is fenced, or the producer is gone: nothing behind it is stored either.
            self.passages.entry(place.net).or_default().shut.insert(producer);
            let error = pb::CommandSendError {
                producer_id: head.producer_id,
                sequence_id: head.sequence_id,
                error: code.0,
                message: "simulated".to_owned(),
            };
            return Up::Instead(vec![error.into()]);
        }
        Up::Forward(Frame::Send { head, entry })
    }

    fn command(&mut self, place: Place, command: Command, now: Instant) -> Up {
        let request = read_request(&command);
        if let Some(id) = command.request_id() {
            let passage = self.passages.entry(place.net).or_default();
            passage.requests.insert(id, request.clone());
            if !is_close(&command) && self.fire(|fault| *fault == Fault::LoseRequest).is_some() {
                return Up::Instead(Vec::new());
            }
            if is_refusable(&command) {
                if let Some(Fault::RefuseRequest(code)) = self.fire(|fault| matches!(fault, Fault::RefuseRequest(_))) {
                    return Up::Instead(vec![refusal(&command, id, code, "simulated")]);
                }
            }
        }
        match &command {
            Command::Lookup(lookup) if self.redirects_until.is_some_and(|until| until > now) => {
                let other = (place.broker + 1) % BROKERS.len();
                return Up::Instead(vec![looked_up(lookup.request_id, LookupType::Redirect, other, false)]);
            }
            Command::Producer(_) | Command::Subscribe(_) => {
                let topic = request.topic.unwrap_or_default();
                if self.owner(&topic) != place.broker {
                    let id = command.request_id().unwrap_or(0);
                    let text = "Namespace bundle not served by this instance";
                    return Up::Instead(vec![refusal(&command, id, ServerCode::SERVICE_NOT_READY, text)]);
                }
                if let Some(endpoint) = request.endpoint {
                    let subscription = match &command {
                        Command::Subscribe(subscribe) => Some(subscribe.subscription.clone()),
                        _ => None,
                    };
                    if let Command::Producer(producer) = &command {
                        self.note_name(place, producer);
                    }
                    let passage = self.passages.entry(place.net).or_default();
                    passage.shut.remove(&endpoint);
                    passage.guests.insert(endpoint, Guest { topic, subscription, permits: 0 });
                }
            }
            Command::Flow(flow) => self.flow(place, flow),
            _ => {}
        }
        Up::Forward(Frame::Other(command))
    }

    /// A producer that the broker never heard of starts again, under a name that another one had: to the judge it is
    /// still that one.
    fn note_name(&mut self, place: Place, producer: &pb::CommandProducer) {
        let Some(name) = &producer.producer_name else { return };
        let who = (place.client, producer.producer_id);
        let before = self.names.insert((producer.topic.clone(), name.clone()), who);
        if producer.epoch() > 0 && before != Some(who) {
            self.mistaken.insert(name.clone());
        }
    }

    fn flow(&mut self, place: Place, flow: &pb::CommandFlow) {
        let permits = i64::from(flow.message_permits);
        self.books.queue_sizes.entry((place.client, flow.consumer_id)).or_insert(permits);
        let passage = self.passages.entry(place.net).or_default();
        if let Some(guest) = passage.guests.get_mut(&EndpointId::Consumer(ConsumerId(flow.consumer_id))) {
            guest.permits += permits;
        }
    }

    /// Whether a consumer has granted more than its queue holds.
    pub(super) fn check_permits(&self, place: Place, violations: &mut Violations) {
        let Some(passage) = self.passages.get(&place.net) else { return };
        for (id, guest) in &passage.guests {
            let EndpointId::Consumer(consumer) = id else { continue };
            let Some(size) = self.books.queue_sizes.get(&(place.client, consumer.0)) else { continue };
            if guest.permits > *size {
                violations.note("permits within the queue", || {
                    format!("client {} {id}: {} granted, queue {size}", place.client, guest.permits)
                });
            }
        }
    }

    /// A frame of the broker, on its way to a client: what is to be written now.
    pub(super) fn down(&mut self, place: Place, frame: &Frame, raw: Bytes, now: Instant, out: &mut BytesMut) {
        let answered = match frame {
            Frame::Other(command) => command
                .request_id()
                .and_then(|id| self.passages.get_mut(&place.net).and_then(|passage| passage.requests.remove(&id))),
            _ => None,
        };
        let endpoint = answered.as_ref().and_then(|request| request.endpoint).or_else(|| concerns(frame));
        let mut raw = raw;
        let mut hold = None;
        match (frame, &answered) {
            (_, Some(request)) => {
                if self.fire(|fault| *fault == Fault::LoseAnswer).is_some() {
                    return;
                }
                if request.is_lookup {
                    raw = self.answer_lookup(place, frame, request, raw);
                }
                if let Some(Fault::DelayAnswer(by)) = self.fire(|fault| matches!(fault, Fault::DelayAnswer(_))) {
                    hold = Some(now + by);
                }
            }
            (Frame::Receipt(_), None) => {
                if self.fire(|fault| *fault == Fault::LoseReceipt).is_some() {
                    self.lossy.insert(place.net);
                    return;
                }
                if self.fire(|fault| *fault == Fault::RepeatReceipt).is_some() {
                    // At once, or when others are on their way.
                    let until = now + self.rng.duration(Duration::ZERO, Duration::from_millis(300));
                    let passage = self.passages.entry(place.net).or_default();
                    passage.held.push_back((until, None, raw.clone()));
                    self.releases.push((until, place.net));
                }
            }
            (Frame::Message { head, entry }, None) => raw = self.message(place, head, entry, raw, now),
            _ => {}
        }
        let passage = self.passages.entry(place.net).or_default();
        let behind = endpoint.is_some() && passage.held.iter().any(|(_, held, _)| *held == endpoint);
        match hold.or(behind.then_some(now)) {
            Some(until) => {
                passage.held.push_back((until, endpoint, raw));
                self.releases.push((until, place.net));
            }
            None => out.extend_from_slice(&raw),
        }
    }

    /// What was held back and is due.
    pub(super) fn release(&mut self, net: NetId, now: Instant, out: &mut BytesMut) {
        let Some(passage) = self.passages.get_mut(&net) else { return };
        let mut blocked: Vec<Option<EndpointId>> = Vec::new();
        let mut kept = VecDeque::new();
        for (until, endpoint, raw) in passage.held.drain(..) {
            if until > now || (endpoint.is_some() && blocked.contains(&endpoint)) {
                blocked.push(endpoint);
                kept.push_back((until, endpoint, raw));
            } else {
                out.extend_from_slice(&raw);
            }
        }
        passage.held = kept;
    }

    fn answer_lookup(&mut self, place: Place, frame: &Frame, request: &Request, raw: Bytes) -> Bytes {
        let Frame::Other(Command::LookupResponse(answer)) = frame else { return raw };
        if answer.response != Some(LookupType::Connect.into()) {
            return raw;
        }
        let owner = self.owner(request.topic.as_deref().unwrap_or_default());
        // A broker that does not own the topic names the owner, or sends the client to ask there.
        let kind =
            if owner == place.broker || self.rng.chance(500) { LookupType::Connect } else { LookupType::Redirect };
        let mut out = BytesMut::new();
        looked_up(answer.request_id, kind, owner, true).encode_frame(&mut out);
        out.freeze()
    }

    fn message(&mut self, place: Place, head: &MessageHead, entry: &Bytes, raw: Bytes, now: Instant) -> Bytes {
        let consumer = EndpointId::Consumer(ConsumerId(head.consumer_id));
        let charged = ReceivedEntry::read(head.clone(), entry.clone()).members;
        let passage = self.passages.entry(place.net).or_default();
        let Some(guest) = passage.guests.get_mut(&consumer) else { return raw };
        guest.permits -= i64::from(charged);
        let Some(subscription) = guest.subscription.clone() else { return raw };
        let key = (guest.topic.clone(), subscription, head.ledger_id, head.entry_id);
        self.books.delivered.entry(key.clone()).or_default().push((now, head.ack_set.clone()));
        if entry.is_empty() || self.fire(|fault| *fault == Fault::CorruptEntry).is_none() {
            return raw;
        }
        self.books.corrupted.insert(key);
        let mut bytes = raw.to_vec();
        if let Some(last) = bytes.last_mut() {
            *last ^= 0x10;
        }
        bytes.into()
    }

    /// When this message was sent to the subscription's consumers, as one that is not acknowledged.
    pub(super) fn deliveries(&self, topic: &str, subscription: &str, id: &MessageId) -> Vec<Instant> {
        let key = (topic.to_owned(), subscription.to_owned(), id.ledger_id, id.entry_id);
        let all = self.books.delivered.get(&key).map_or(&[][..], Vec::as_slice);
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
