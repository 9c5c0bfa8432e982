//! Mutations between the clients and the simulation: see [`crate::mutation`].
//!
//! Most of them change frames between a client and the proxy: for the proxy, the brokers and the checkers, the client has
//! written or read the changed frames.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::executor::TaskKind;
use super::network::PairId;
use super::proxy::Origin;
use super::world::World;
use crate::client::ClientBuilder;
use crate::id::{ConsumerId, ProducerId};
use crate::machine::EndpointId;
use crate::pb;
use crate::pb::command_lookup_topic_response::LookupType;
use crate::wire::command::Command;
use crate::wire::frame::{Frame, frames};
use crate::wire::hot::Receipt;

/// With a mutation that loses wake-ups, one in this many is lost.
const LOST_WAKE_UPS: u64 = 50;

/// By how much a timer is late with [`Mutation::LateTimer`](crate::mutation::Mutation).
const LATE_BY: Duration = Duration::from_millis(300);

/// A client and one of its endpoints.
type ClientEndpoint = (usize, EndpointId);

/// The state of connections and endpoints that the mutations depend on.
#[derive(Debug, Default)]
pub(super) struct Mutator {
    topics: BTreeMap<ClientEndpoint, String>,
    /// How often each endpoint was attached, and its FLOWs since.
    attaches: BTreeMap<ClientEndpoint, (u64, u64)>,
    /// The attach in which a sequence id was first sent.
    first_sent: BTreeMap<(usize, u64, u64), u64>,
    /// Sequence ids that have no receipt, by client and producer.
    unsettled: BTreeMap<(usize, u64), VecDeque<u64>>,
    /// The topic of each LOOKUP.
    lookups: BTreeMap<(PairId, u64), String>,
    /// The broker that was last assigned to a topic.
    assigned: BTreeMap<(usize, String), String>,
}

impl World {
    /// The frames that the proxy gets instead of those that a client has written.
    pub(super) fn mutate_up(&mut self, origin: Origin, frames: Vec<Frame>) -> Vec<Frame> {
        let mut responses = BytesMut::new();
        let frames = self.mutator.up(origin, frames, &mut responses);
        self.send_down(origin.pair, &responses);
        frames
    }
}

impl Mutator {
    fn up(&mut self, origin: Origin, frames: Vec<Frame>, responses: &mut BytesMut) -> Vec<Frame> {
        let mut kept: Vec<(Frame, bool)> = Vec::new();
        for frame in frames {
            match frame {
                Frame::Send { mut head, entry } => {
                    let is_resend = self.is_resend(origin.client, head.producer_id, head.sequence_id);
                    if is_resend && mutation!(NoResend) {
                        continue;
                    }
                    if is_resend && mutation!(RenumberOnResend) {
                        head.sequence_id += 1000;
                    }
                    kept.push((Frame::Send { head, entry }, is_resend));
                }
                Frame::Other(command) => {
                    self.observe(origin, &command);
                    let command = self.command(origin, command, responses);
                    kept.extend(command.map(|command| (Frame::Other(command), false)));
                }
                other => kept.push((other, false)),
            }
        }
        if mutation!(ReorderOnResend) {
            swap_resends(&mut kept);
        }
        if mutation!(ForgetAcksAtClose) {
            forget_acks_at_close(&mut kept);
        }
        kept.into_iter().map(|(frame, _)| frame).collect()
    }

    fn observe(&mut self, origin: Origin, command: &Command) {
        let (id, topic) = match command {
            Command::Producer(it) => (EndpointId::Producer(ProducerId(it.producer_id)), &it.topic),
            Command::Subscribe(it) => (EndpointId::Consumer(ConsumerId(it.consumer_id)), &it.topic),
            Command::Lookup(it) => {
                self.lookups.insert((origin.pair, it.request_id), it.topic.clone());
                return;
            }
            _ => return,
        };
        let key = (origin.client, id);
        self.topics.insert(key, topic.clone());
        let (attaches, flows) = self.attaches.entry(key).or_default();
        (*attaches, *flows) = (*attaches + 1, 0);
    }

    fn is_resend(&mut self, client: usize, producer_id: u64, sequence_id: u64) -> bool {
        let key = (client, EndpointId::Producer(ProducerId(producer_id)));
        let attach = self.attaches.get(&key).map_or(0, |(attaches, _)| *attaches);
        let first = *self.first_sent.entry((client, producer_id, sequence_id)).or_insert_with(|| {
            self.unsettled.entry((client, producer_id)).or_default().push_back(sequence_id);
            attach
        });
        first < attach
    }

    fn command(&mut self, origin: Origin, command: Command, responses: &mut BytesMut) -> Option<Command> {
        match command {
            Command::Flow(mut flow) => {
                let key = (origin.client, EndpointId::Consumer(ConsumerId(flow.consumer_id)));
                let (attaches, flows) = self.attaches.entry(key).or_default();
                let is_first = *flows == 0;
                *flows += 1;
                if mutation!(SkipPermit) {
                    flow.message_permits -= 1;
                }
                if mutation!(PermitTwice) && !is_first {
                    flow.message_permits *= 2;
                }
                let is_lost = mutation!(NoFlowAfterReattach) && is_first && *attaches > 1;
                (!is_lost && flow.message_permits > 0).then_some(Command::Flow(flow))
            }
            Command::Ack(mut ack) => {
                if mutation!(AckBatchEarly) {
                    ack.message_id.iter_mut().for_each(|id| id.ack_set.clear());
                }
                if mutation!(ConfirmUnasked) && ack.request_id.is_some() {
                    let (consumer_id, request_id) = (ack.consumer_id, ack.request_id);
                    let confirmed = pb::CommandAckResponse { consumer_id, request_id, ..Default::default() };
                    Command::AckResponse(confirmed).encode_frame(responses);
                    return None;
                }
                Some(Command::Ack(ack))
            }
            other => Some(other),
        }
    }

    /// The frames that a client gets instead of those in `bytes`, which are whole.
    pub(super) fn down(&mut self, origin: Origin, bytes: BytesMut) -> BytesMut {
        let mut bytes = bytes.freeze();
        let mut out = BytesMut::new();
        while let Some(size) = bytes.first_chunk().map(|size| u32::from_be_bytes(*size) as usize + 4) {
            let raw = bytes.split_to(size.min(bytes.len()));
            match frames(raw.clone()).next() {
                Some(Ok(frame)) => self.frame_down(origin, frame, &raw, &mut out),
                _ => out.extend_from_slice(&raw),
            }
        }
        out
    }

    fn frame_down(&mut self, origin: Origin, frame: Frame, raw: &Bytes, out: &mut BytesMut) {
        match frame {
            Frame::Message { head, .. } if mutation!(DropEntry) && head.entry_id % 7 == 3 => {}
            Frame::Other(Command::CloseProducer(_)) if mutation!(IgnoreCloseProducer) => {}
            Frame::Receipt(receipt) => {
                out.extend_from_slice(raw);
                if let Some(stale) = self.settle(origin.client, receipt) {
                    Frame::Receipt(stale).encode(out);
                }
            }
            Frame::Other(command) if mutation!(AssignedUrlForever) => {
                self.remember_assigned(origin, command).encode_frame(out);
            }
            _ => out.extend_from_slice(raw),
        }
    }

    /// Settles the send that a receipt is for. With [`StaleReceiptIsCurrent`](crate::mutation::Mutation), returns the
    /// receipt as a client with that bug takes a second one: for the oldest send that waits.
    fn settle(&mut self, client: usize, receipt: Receipt) -> Option<Receipt> {
        let unsettled = self.unsettled.entry((client, receipt.producer_id)).or_default();
        unsettled.retain(|id| *id != receipt.sequence_id);
        let sequence_id = if mutation!(StaleReceiptIsCurrent) { unsettled.pop_front() } else { None };
        sequence_id.map(|sequence_id| Receipt { sequence_id, highest_sequence_id: 0, ..receipt })
    }

    fn remember_assigned(&mut self, origin: Origin, command: Command) -> Command {
        let closed = match &command {
            Command::CloseProducer(it) => {
                Some((EndpointId::Producer(ProducerId(it.producer_id)), &it.assigned_broker_service_url))
            }
            Command::CloseConsumer(it) => {
                Some((EndpointId::Consumer(ConsumerId(it.consumer_id)), &it.assigned_broker_service_url))
            }
            _ => None,
        };
        if let Some((id, Some(url))) = closed {
            if let Some(topic) = self.topics.get(&(origin.client, id)) {
                self.assigned.insert((origin.client, topic.clone()), url.clone());
            }
        }
        let Command::LookupResponse(mut response) = command else { return command };
        let topic = self.lookups.get(&(origin.pair, response.request_id)).cloned().unwrap_or_default();
        if let Some(url) = self.assigned.get(&(origin.client, topic)) {
            response.response = Some(LookupType::Connect.into());
            response.broker_service_url = Some(url.clone());
        }
        Command::LookupResponse(response)
    }
}

fn producer_of(frame: &Frame) -> Option<u64> {
    match frame {
        Frame::Send { head, .. } => Some(head.producer_id),
        _ => None,
    }
}

/// Swaps the first two SENDs in a row that one producer sends again.
fn swap_resends(frames: &mut [(Frame, bool)]) {
    let pair = frames.windows(2).position(|pair| {
        pair.iter().all(|(_, is_resend)| *is_resend) && producer_of(&pair[0].0) == producer_of(&pair[1].0)
    });
    if let Some(at) = pair {
        frames.swap(at, at + 1);
    }
}

/// Drops the ACKs directly before a CLOSE_CONSUMER.
fn forget_acks_at_close(frames: &mut Vec<(Frame, bool)>) {
    let close = |frame: &Frame| match frame {
        Frame::Other(Command::CloseConsumer(close)) => Some(close.consumer_id),
        _ => None,
    };
    let is_forgotten = |frame: &Frame, consumer: u64| matches!(frame, Frame::Other(Command::Ack(ack)) if ack.consumer_id == consumer && ack.request_id.is_none());
    let mut closing = None;
    let mut kept = Vec::new();
    for (frame, is_resend) in frames.drain(..).rev() {
        closing = close(&frame).or(closing.filter(|consumer| is_forgotten(&frame, *consumer)));
        if close(&frame).is_some() || closing.is_none() {
            kept.push((frame, is_resend));
        }
    }
    frames.extend(kept.into_iter().rev());
}

/// Applies the mutations that are options of a client.
pub(super) fn configure(builder: ClientBuilder) -> ClientBuilder {
    if mutation!(NeverTimeOut) { builder.operation_timeout(Duration::from_secs(u32::MAX.into())) } else { builder }
}

/// Whether the `number`th wake-up, of a task of this kind, is lost.
pub(super) fn loses_wake_up(kind: TaskKind, number: u64) -> bool {
    let is_broken = if kind == TaskKind::User { mutation!(LoseWakeUp) } else { mutation!(LoseDriverWakeUp) };
    is_broken && number % LOST_WAKE_UPS == 0
}

/// When a timer that is set to `at` fires.
pub(super) fn timer_at(at: Instant) -> Instant {
    if mutation!(LateTimer) { at + LATE_BY } else { at }
}
