//! The proxy between the network and the brokers of a cluster: every frame passes through it, whole and decoded.
//!
//! It simulates two brokers over one (ownership of topics, redirects, requests to the wrong broker), applies the faults on
//! frames, and keeps the [`Records`] that checkers need.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::faults::{Fault, FaultCounts};
use super::network::PairId;
use super::rng::Rng;
use super::violations::ViolationLog;
use crate::error::ServerCode;
use crate::id::{ConsumerId, ProducerId};
use crate::machine::EndpointId;
use crate::machine::consumer::ReceivedEntry;
use crate::pb;
use crate::pb::command_lookup_topic_response::LookupType;
use crate::wire::command::Command;
use crate::wire::frame::Frame;
use crate::wire::hot::{MessageHead, SendHead};

mod commands;
mod records;

use commands::{endpoint_of, is_close, is_refusable, lookup_response, opened_by, read_request, refusal, refusal_code};
pub(super) use records::Records;

/// Faults that may wait for a frame at once; further ones are dropped.
const ARMED_MAX: usize = 64;

/// How many brokers a cluster has.
pub(super) const BROKERS: usize = 2;

/// The brokers' addresses, by cluster.
pub(super) const ADDRESSES: [[&str; BROKERS]; 2] =
    [["pulsar://broker-0:6650", "pulsar://broker-1:6650"], ["pulsar://broker-2:6650", "pulsar://broker-3:6650"]];

/// The connection that a frame is on, and its two ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) pair: PairId,
    /// A fault of the network was injected into the connection.
    pub(super) is_faulted: bool,
    pub(super) client: usize,
    pub(super) cluster: usize,
    /// Its number in the cluster.
    pub(super) broker: usize,
}

/// A request without a response yet.
#[derive(Debug, Clone)]
struct Request {
    /// Its producer or consumer, if it has one.
    endpoint: Option<EndpointId>,
    is_lookup: bool,
    topic: Option<String>,
}

/// What is opened with PRODUCER or SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenedKind {
    Producer,
    Consumer,
}

/// Each PRODUCER, or each SUBSCRIBE, for a topic is refused for a time.
#[derive(Debug)]
struct RefusedOpens {
    kind: OpenedKind,
    topic: String,
    code: ServerCode,
    until: Instant,
}

/// A producer or consumer on one connection.
#[derive(Debug, Clone)]
struct ProxiedEndpoint {
    topic: String,
    subscription: Option<String>,
    /// Permits granted and not used yet.
    permits: i64,
}

/// One connection.
#[derive(Debug, Default)]
struct ProxiedConnection {
    requests: BTreeMap<u64, Request>,
    endpoints: BTreeMap<EndpointId, ProxiedEndpoint>,
    /// Producers whose SENDs are dropped until they are opened again.
    fenced: BTreeSet<EndpointId>,
    held: VecDeque<HeldFrame>,
}

/// A frame for the client that is held back.
#[derive(Debug)]
struct HeldFrame {
    until: Instant,
    /// Frames of one endpoint keep their order; those of none are sent at their time.
    endpoint: Option<EndpointId>,
    raw: Bytes,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Proxy {
    addresses: [&'static str; BROKERS],
    connections: BTreeMap<PairId, ProxiedConnection>,
    armed: VecDeque<Fault>,
    owners: BTreeMap<String, usize>,
    /// The broker that answers nothing any more.
    lost: Option<usize>,
    /// Until when each broker redirects lookups to the other one.
    pub(super) redirects_until: Option<Instant>,
    /// By how much receipts are delayed, and until when.
    pub(super) slow_receipts: Option<(Duration, Instant)>,
    refused_opens: Vec<RefusedOpens>,
    /// Names that a producer outside the simulation has, with their topics.
    taken_names: BTreeSet<(String, String)>,
    pub(super) counts: FaultCounts,
    pub(super) records: Records,
    rng: Rng,
    /// Connections that lost a receipt: without a send timeout a client waits for it until they end.
    pub(super) lost_receipts: BTreeSet<PairId>,
    /// When held frames are due; to be scheduled by the world.
    pub(super) releases: Vec<(Instant, PairId)>,
}

/// What happens to a frame for the broker.
#[allow(clippy::large_enum_variant, reason = "it is matched at once, where it was made")]
pub(super) enum Upstream {
    Forward(Frame),
    /// It does not reach the broker; the client gets these responses.
    Respond(Vec<Command>),
}

impl Proxy {
    /// In front of the brokers at these addresses.
    pub(super) fn new(addresses: [&'static str; BROKERS], rng: Rng) -> Self {
        Self {
            addresses,
            connections: BTreeMap::new(),
            armed: VecDeque::new(),
            owners: BTreeMap::new(),
            lost: None,
            redirects_until: None,
            slow_receipts: None,
            refused_opens: Vec::new(),
            taken_names: BTreeSet::new(),
            counts: FaultCounts::default(),
            records: Records::default(),
            rng,
            lost_receipts: BTreeSet::new(),
            releases: Vec::new(),
        }
    }

    pub(super) fn arm(&mut self, fault: Fault) {
        if self.armed.len() < ARMED_MAX {
            self.armed.push_back(fault);
        }
    }

    /// Removes the faults that wait for a frame.
    pub(super) fn clear_faults(&mut self) {
        self.armed.clear();
        self.redirects_until = None;
        self.slow_receipts = None;
        self.refused_opens.clear();
    }

    pub(super) fn refuse_opens(&mut self, kind: OpenedKind, topic: &str, code: ServerCode, until: Instant) {
        self.refused_opens.push(RefusedOpens { kind, topic: topic.to_owned(), code, until });
    }

    pub(super) fn take_name(&mut self, topic: &str, name: &str) {
        self.taken_names.insert((topic.to_owned(), name.to_owned()));
    }

    /// Why a PRODUCER or SUBSCRIBE is refused, if it is.
    fn refusal_of_open(&self, command: &Command, now: Instant) -> Option<(ServerCode, &'static str)> {
        let (kind, topic) = match command {
            Command::Producer(it) => {
                let name = it.producer_name.clone().unwrap_or_default();
                if self.taken_names.contains(&(it.topic.clone(), name)) {
                    return Some((ServerCode::PRODUCER_BUSY, "simulated: another producer has this name"));
                }
                (OpenedKind::Producer, &it.topic)
            }
            Command::Subscribe(it) => (OpenedKind::Consumer, &it.topic),
            _ => return None,
        };
        let fits = |refused: &&RefusedOpens| refused.kind == kind && refused.topic == *topic && refused.until > now;
        self.refused_opens.iter().find(fits).map(|refused| (refused.code, "simulated"))
    }

    pub(super) fn forget(&mut self, pair: PairId) {
        self.connections.remove(&pair);
    }

    pub(super) fn owner(&mut self, topic: &str) -> usize {
        if let Some(owner) = self.owners.get(topic) {
            return *owner;
        }
        let any = self.rng.below(BROKERS as u64) as usize;
        let owner = if self.is_lost(any) { self.successor(any) } else { any };
        self.owners.insert(topic.to_owned(), owner);
        owner
    }

    /// Loses a broker, unless one is lost already; whether it did.
    pub(super) fn lose(&mut self, broker: usize) -> bool {
        if self.lost.is_some() {
            return false;
        }
        self.lost = Some(broker);
        true
    }

    pub(super) fn is_lost(&self, broker: usize) -> bool {
        self.lost == Some(broker)
    }

    /// The broker that gets a topic of this one: the other one, unless that is lost.
    pub(super) fn successor(&self, broker: usize) -> usize {
        let other = (broker + 1) % BROKERS;
        if self.is_lost(other) { broker } else { other }
    }

    /// The address of a broker.
    pub(super) fn address(&self, broker: usize) -> &'static str {
        self.addresses[broker]
    }

    pub(super) fn move_topic(&mut self, topic: &str, to: usize) {
        self.owners.insert(topic.to_owned(), to);
    }

    pub(super) fn topics_of(&self, broker: usize) -> Vec<String> {
        self.owners.iter().filter(|(_, owner)| **owner == broker).map(|(topic, _)| topic.clone()).collect()
    }

    /// Takes the first armed fault that is `wanted`, and counts it: it takes effect now.
    fn take_armed(&mut self, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let at = self.armed.iter().position(wanted)?;
        let fault = self.armed.remove(at)?;
        self.counts.count(&fault);
        Some(fault)
    }

    /// A frame of a client, on its way to the broker.
    pub(super) fn up(&mut self, origin: Origin, frame: Frame, now: Instant, violations: &mut ViolationLog) -> Upstream {
        match frame {
            Frame::Send { head, entry } => self.send(origin, head, entry, now, violations),
            Frame::Other(command) => {
                if let Command::Producer(producer) = &command {
                    self.records.check_name(origin, producer, now, violations);
                }
                if let Some(endpoint) = opened_by(&command) {
                    self.records.check_open(origin, endpoint, violations);
                }
                self.command(origin, command, now)
            }
            other => Upstream::Forward(other),
        }
    }

    fn send(
        &mut self,
        origin: Origin,
        head: SendHead,
        entry: Bytes,
        now: Instant,
        violations: &mut ViolationLog,
    ) -> Upstream {
        self.records.check_send(origin, &head, &entry, violations);
        let producer = EndpointId::Producer(ProducerId(head.producer_id));
        let connection = self.connections.entry(origin.pair).or_default();
        if connection.fenced.contains(&producer) {
            return Upstream::Respond(Vec::new());
        }
        // NotAllowedError refuses one message and lets later ones pass. Where that refusal is lost with the connection, a
        // client cannot tell the message from one whose receipt was lost, and its re-send is stored behind the later ones.
        let fits =
            |fault: &Fault| matches!(fault, Fault::RefuseSend { code } if *code != ServerCode::NOT_ALLOWED_ERROR);
        if let Some(Fault::RefuseSend { code }) = self.take_armed(fits) {
            // As where the topic is fenced or the producer closed: no later SEND is stored either.
            self.connections.entry(origin.pair).or_default().fenced.insert(producer);
            self.record_refusal(origin, Some(producer), None, code, now);
            let error = pb::CommandSendError {
                producer_id: head.producer_id,
                sequence_id: head.sequence_id,
                error: code.0,
                message: "simulated".to_owned(),
            };
            return Upstream::Respond(vec![error.into()]);
        }
        Upstream::Forward(Frame::Send { head, entry })
    }

    /// Records that a client is refused. The topic is that of the endpoint unless `topic` names it.
    fn record_refusal(
        &mut self,
        origin: Origin,
        endpoint: Option<EndpointId>,
        topic: Option<&str>,
        code: ServerCode,
        now: Instant,
    ) {
        let endpoints = self.connections.get(&origin.pair).map(|connection| &connection.endpoints);
        let known = endpoint.and_then(|id| endpoints?.get(&id)).map(|found| found.topic.as_str());
        let topic = topic.or(known).unwrap_or_default();
        self.records.record_refusal(origin, endpoint, topic, code, now);
    }

    /// In this order: a request is dropped; it is refused; a lookup is redirected; an open is refused by a broker that does
    /// not own the topic.
    fn command(&mut self, origin: Origin, command: Command, now: Instant) -> Upstream {
        let request = read_request(&command);
        if let Some(id) = command.request_id() {
            let connection = self.connections.entry(origin.pair).or_default();
            connection.requests.insert(id, request.clone());
            if !is_close(&command) && self.take_armed(|fault| *fault == Fault::DropRequest).is_some() {
                return Upstream::Respond(Vec::new());
            }
            if is_refusable(&command) {
                let is_producer = matches!(command, Command::Producer(_));
                let refuses = |fault: &Fault| match fault {
                    // Of a name, which nothing else has.
                    Fault::RefuseRequest { code: ServerCode::PRODUCER_BUSY } => is_producer,
                    Fault::RefuseRequest { .. } => true,
                    _ => false,
                };
                if let Some(Fault::RefuseRequest { code }) = self.take_armed(refuses) {
                    return self.refuse(origin, &command, &request, code, "simulated", now);
                }
            }
        }
        if let Some((code, text)) = self.refusal_of_open(&command, now) {
            return self.refuse(origin, &command, &request, code, text, now);
        }
        match &command {
            Command::Lookup(lookup) if self.redirects_until.is_some_and(|until| until > now) => {
                let other = (origin.broker + 1) % BROKERS;
                let other = self.addresses[other];
                Upstream::Respond(vec![lookup_response(lookup.request_id, LookupType::Redirect, other, false)])
            }
            Command::Producer(_) | Command::Subscribe(_) => self.open(origin, command, request),
            Command::Flow(flow) => {
                let (consumer_id, permits) = (flow.consumer_id, i64::from(flow.message_permits));
                self.records.record_flow(origin, consumer_id, permits);
                if let Some(consumer) = self.consumer(origin, consumer_id) {
                    consumer.permits += permits;
                }
                Upstream::Forward(Frame::Other(command))
            }
            _ => Upstream::Forward(Frame::Other(command)),
        }
    }

    fn refuse(
        &mut self,
        origin: Origin,
        command: &Command,
        request: &Request,
        code: ServerCode,
        text: &str,
        now: Instant,
    ) -> Upstream {
        let id = command.request_id().unwrap_or(0);
        self.record_refusal(origin, request.endpoint, request.topic.as_deref(), code, now);
        if let Some(endpoint) = opened_by(command) {
            self.records.record_refused_open(origin, endpoint, code);
        }
        // Two refusals of one kind can be told apart.
        let text = format!("{text}, request {id}");
        Upstream::Respond(vec![refusal(command, id, code, &text)])
    }

    /// A PRODUCER or SUBSCRIBE.
    fn open(&mut self, origin: Origin, command: Command, request: Request) -> Upstream {
        let topic = request.topic.unwrap_or_default();
        if self.owner(&topic) != origin.broker {
            let id = command.request_id().unwrap_or(0);
            let text = "Namespace bundle not served by this instance";
            return Upstream::Respond(vec![refusal(&command, id, ServerCode::SERVICE_NOT_READY, text)]);
        }
        let subscription = match &command {
            Command::Subscribe(subscribe) => Some(subscribe.subscription.clone()),
            _ => None,
        };
        if let Command::Producer(producer) = &command {
            self.records.record_name(origin, producer);
        }
        if let Some(endpoint) = request.endpoint {
            self.records.record_forwarded_open(origin, endpoint);
            let connection = self.connections.entry(origin.pair).or_default();
            connection.fenced.remove(&endpoint);
            connection.endpoints.insert(endpoint, ProxiedEndpoint { topic, subscription, permits: 0 });
        }
        Upstream::Forward(Frame::Other(command))
    }

    fn consumer(&mut self, origin: Origin, consumer_id: u64) -> Option<&mut ProxiedEndpoint> {
        let connection = self.connections.get_mut(&origin.pair)?;
        connection.endpoints.get_mut(&EndpointId::Consumer(ConsumerId(consumer_id)))
    }

    /// Checks that no consumer has granted more permits than its queue holds.
    pub(super) fn check_permits(&self, origin: Origin, violations: &mut ViolationLog) {
        let Some(connection) = self.connections.get(&origin.pair) else { return };
        for (id, endpoint) in &connection.endpoints {
            let EndpointId::Consumer(consumer) = id else { continue };
            let Some(size) = self.records.queue_size(origin, consumer.0) else { continue };
            if endpoint.permits > size {
                violations.report("permits within the queue", || {
                    format!("client {} {id}: {} granted, queue {size}", origin.client, endpoint.permits)
                });
            }
        }
    }

    /// A frame of the broker, on its way to a client. Frames to be written now go to `out`:
    /// - a response is dropped or delayed; that of a lookup names the owner of the topic;
    /// - a receipt is dropped, delayed, or sent a second time later;
    /// - a message is recorded, and may be damaged.
    ///
    /// A frame for an endpoint stays behind the frames of the same endpoint that are held back.
    pub(super) fn down(&mut self, origin: Origin, frame: &Frame, mut raw: Bytes, now: Instant, out: &mut BytesMut) {
        let request = match frame {
            Frame::Other(command) => command.request_id().and_then(|id| {
                self.connections.get_mut(&origin.pair).and_then(|connection| connection.requests.remove(&id))
            }),
            _ => None,
        };
        let endpoint = request.as_ref().and_then(|request| request.endpoint).or_else(|| endpoint_of(frame));
        if let Some(code) = refusal_code(frame) {
            let topic = request.as_ref().and_then(|request| request.topic.as_deref());
            self.record_refusal(origin, endpoint, topic, code, now);
        }
        let mut hold_until = None;
        match (frame, &request) {
            (_, Some(request)) => {
                if self.take_armed(|fault| *fault == Fault::DropResponse).is_some() {
                    return;
                }
                if request.is_lookup {
                    raw = self.lookup_response_for(origin, frame, request, raw);
                }
                if let Some(Fault::DelayResponse { by }) =
                    self.take_armed(|fault| matches!(fault, Fault::DelayResponse { .. }))
                {
                    hold_until = Some(now + by);
                }
            }
            (Frame::Receipt(_), None) => {
                if self.take_armed(|fault| *fault == Fault::DropReceipt).is_some() {
                    self.lost_receipts.insert(origin.pair);
                    return;
                }
                hold_until = self.slow_receipts.filter(|(_, until)| *until > now).map(|(by, _)| now + by);
                if self.take_armed(|fault| *fault == Fault::DuplicateReceipt).is_some() {
                    // Directly behind the first one, or behind later receipts.
                    let until = now + self.rng.duration(Duration::ZERO, Duration::from_millis(300));
                    self.hold_back(origin, HeldFrame { until, endpoint: None, raw: raw.clone() });
                }
            }
            (Frame::Message { head, entry }, None) => raw = self.pass_message(origin, head, entry, raw, now),
            _ => {}
        }
        let connection = self.connections.entry(origin.pair).or_default();
        let is_behind = endpoint.is_some() && connection.held.iter().any(|held| held.endpoint == endpoint);
        match hold_until.or(is_behind.then_some(now)) {
            Some(until) => self.hold_back(origin, HeldFrame { until, endpoint, raw }),
            None => out.extend_from_slice(&raw),
        }
    }

    fn hold_back(&mut self, origin: Origin, frame: HeldFrame) {
        self.releases.push((frame.until, origin.pair));
        self.connections.entry(origin.pair).or_default().held.push_back(frame);
    }

    /// Writes the held frames that are due, in order. One that is not due keeps later ones of its endpoint back.
    pub(super) fn release(&mut self, pair: PairId, now: Instant, out: &mut BytesMut) {
        let Some(connection) = self.connections.get_mut(&pair) else { return };
        let mut blocked = BTreeSet::new();
        connection.held.retain(|frame| {
            let is_kept = frame.until > now || frame.endpoint.is_some_and(|endpoint| blocked.contains(&endpoint));
            if is_kept {
                blocked.extend(frame.endpoint);
            } else {
                out.extend_from_slice(&frame.raw);
            }
            is_kept
        });
    }

    fn lookup_response_for(&mut self, origin: Origin, frame: &Frame, request: &Request, raw: Bytes) -> Bytes {
        let Frame::Other(Command::LookupResponse(response)) = frame else { return raw };
        if response.response != Some(LookupType::Connect.into()) {
            return raw;
        }
        let owner = self.owner(request.topic.as_deref().unwrap_or_default());
        // A broker that does not own the topic names the owner, or redirects the lookup to it.
        let kind = if owner == origin.broker || self.rng.chance_per_mille(500) {
            LookupType::Connect
        } else {
            LookupType::Redirect
        };
        let mut out = BytesMut::new();
        lookup_response(response.request_id, kind, self.addresses[owner], true).encode_frame(&mut out);
        out.freeze()
    }

    fn pass_message(&mut self, origin: Origin, head: &MessageHead, entry: &Bytes, raw: Bytes, now: Instant) -> Bytes {
        let charged = ReceivedEntry::read(head.clone(), entry.clone()).permits;
        let Some(consumer) = self.consumer(origin, head.consumer_id) else { return raw };
        consumer.permits -= i64::from(charged);
        let Some(subscription) = consumer.subscription.clone() else { return raw };
        let key = (consumer.topic.clone(), subscription, head.ledger_id, head.entry_id);
        self.records.record_delivery(key.clone(), now, head.ack_set.to_vec());
        if entry.is_empty() || self.take_armed(|fault| *fault == Fault::CorruptDelivery).is_none() {
            return raw;
        }
        self.records.corrupted.insert(key);
        let mut bytes = raw.to_vec();
        if let Some(last) = bytes.last_mut() {
            *last ^= 0x10;
        }
        bytes.into()
    }
}
