//! Which observation belongs to which: answers to requests, receipts to sends, acknowledgements and repeats to deliveries.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};

use crate::pb;
use crate::pb::command_ack::AckType;
use crate::tap::{Endpoint, FrameObservation};
use crate::wire::command::Command;
use crate::wire::frame::{Frame, frames};

/// Entries of each table; beyond it the lowest keys are forgotten, and what belongs to them has no link.
const LINKS_MAX: usize = 100_000;

/// Ids of one frame that are looked at.
const IDS_MAX: usize = 1_000;

/// What an observation has to do with an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    /// The number of the earlier one.
    pub(super) to: u32,
    pub(super) why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It answers that request, or is the receipt of that SEND.
    Answers,
    /// It acknowledges what was delivered there.
    Acknowledges,
    /// It asks for what was delivered there again.
    Returns,
    /// It is a message that was asked for again there.
    Asked,
    /// It is a message that was delivered there before, and nobody asked for it again: its consumer went away.
    Again,
}

impl Why {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::Acknowledges => "acknowledges",
            Self::Returns => "returns",
            Self::Asked => "asked",
            Self::Again => "again",
        }
    }
}

type Position = (u64, u64);

/// The hash of a topic and a subscription: their names may be long.
type Subscription = u64;

/// An entry of a subscription.
type Delivery = (Subscription, Position);

/// See the [module](self). All of it is bounded.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// By connection and `request_id`.
    requests: BTreeMap<(u64, u64), u32>,
    /// By connection, producer and sequence id.
    sends: BTreeMap<(u64, u64, u64), u32>,
    /// PING by connection, and whether it went to the broker.
    pings: BTreeMap<(u64, bool), u32>,
    /// That of a connection's consumer.
    subscriptions: BTreeMap<(u64, u64), Subscription>,
    hasher: RandomState,
    /// The last delivery of an entry.
    deliveries: BTreeMap<Delivery, Delivered>,
    /// Entries that were asked for again.
    returned: BTreeMap<Delivery, u32>,
    /// All that a consumer has, asked for again.
    returned_all: BTreeMap<(u64, u64), u32>,
}

#[derive(Debug, Clone, Copy)]
struct Delivered {
    n: u32,
    connection: u64,
    consumer: u64,
    is_acknowledged: bool,
}

/// What a frame has to do with earlier ones.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) link: Option<Link>,
    /// Other observations that it follows: of an ACK all deliveries but the first.
    pub(super) others: Vec<u32>,
    /// All the ids that it names, where those may be several.
    pub(super) ids: Vec<Position>,
}

impl From<Option<Link>> for Taken {
    fn from(link: Option<Link>) -> Self {
        Self { link, ..Self::default() }
    }
}

fn put<K: Ord, V>(table: &mut BTreeMap<K, V>, key: K, value: V) {
    if table.len() >= LINKS_MAX {
        table.pop_first();
    }
    table.insert(key, value);
}

impl Links {
    /// Takes the frame with the number `n`.
    pub(super) fn take(&mut self, n: u32, connection: u64, frame: &FrameObservation) -> Taken {
        let is_up = super::record::is_up(frame.direction);
        let answer = |to: Option<u32>| to.map(|to| Link { to, why: Why::Answers });
        match (frame.command, frame.endpoint) {
            ("SEND", Some(Endpoint::Producer(producer))) => {
                put(&mut self.sends, (connection, producer, frame.sequence_id.unwrap_or_default()), n);
            }
            ("SEND_RECEIPT" | "SEND_ERROR", Some(Endpoint::Producer(producer))) => {
                let sequence = frame.sequence_id.unwrap_or_default();
                return answer(self.sends.remove(&(connection, producer, sequence))).into();
            }
            ("MESSAGE", Some(Endpoint::Consumer(consumer))) => {
                return self.message(n, connection, consumer, frame).into();
            }
            ("PING", _) => put(&mut self.pings, (connection, is_up), n),
            ("PONG", _) => return answer(self.pings.remove(&(connection, !is_up))).into(),
            _ if is_up => return self.ask(n, connection, frame),
            _ => {
                let asked = frame.request_id.filter(|_| frame.answers.is_some());
                return answer(asked.and_then(|id| self.requests.remove(&(connection, id)))).into();
            }
        }
        Taken::default()
    }

    /// What a client asks for, or says about messages.
    fn ask(&mut self, n: u32, connection: u64, frame: &FrameObservation) -> Taken {
        if let Some(id) = frame.request_id {
            put(&mut self.requests, (connection, id), n);
        }
        let Some(Endpoint::Consumer(consumer)) = frame.endpoint else { return Taken::default() };
        let command = frame.bytes.clone().and_then(|bytes| match frames(bytes).next() {
            Some(Ok(Frame::Other(command))) => Some(command),
            _ => None,
        });
        match command {
            Some(Command::Subscribe(subscribe)) => {
                let subscription = self.hasher.hash_one((&subscribe.topic, &subscribe.subscription));
                put(&mut self.subscriptions, (connection, consumer), subscription);
                Taken::default()
            }
            Some(Command::Ack(ack)) => {
                let ids = positions(&ack.message_id);
                let subscription = self.subscription(connection, consumer);
                let done = match ack.ack_type() {
                    AckType::Cumulative => self.acknowledged_up_to(subscription, &ids),
                    AckType::Individual => self.acknowledged(subscription, &ids),
                };
                let link = done.first().map(|to| Link { to: *to, why: Why::Acknowledges });
                Taken { link, others: done.get(1..).unwrap_or_default().to_vec(), ids }
            }
            Some(Command::RedeliverUnacknowledgedMessages(redeliver)) => {
                let ids = positions(&redeliver.message_ids);
                if ids.is_empty() {
                    put(&mut self.returned_all, (connection, consumer), n);
                }
                let subscription = self.subscription(connection, consumer);
                for id in &ids {
                    put(&mut self.returned, (subscription, *id), n);
                }
                let returned = ids.first().and_then(|id| self.deliveries.get(&(subscription, *id)));
                let link = returned.map(|delivered| Link { to: delivered.n, why: Why::Returns });
                Taken { link, others: Vec::new(), ids }
            }
            _ => Taken::default(),
        }
    }

    /// The deliveries of `ids`.
    fn acknowledged(&mut self, subscription: Subscription, ids: &[Position]) -> Vec<u32> {
        let mut done = Vec::new();
        for id in ids {
            if let Some(delivered) = self.deliveries.get_mut(&(subscription, *id)) {
                delivered.is_acknowledged = true;
                done.push(delivered.n);
            }
        }
        done
    }

    /// The deliveries up to the first of `ids`, latest first, of which none was acknowledged before.
    fn acknowledged_up_to(&mut self, subscription: Subscription, ids: &[Position]) -> Vec<u32> {
        let Some(id) = ids.first() else { return Vec::new() };
        let before = self.deliveries.range_mut((subscription, (0, 0))..=(subscription, *id));
        let open = before.rev().map(|(_, delivered)| delivered).take_while(|delivered| !delivered.is_acknowledged);
        let mark = |delivered: &mut Delivered| {
            delivered.is_acknowledged = true;
            delivered.n
        };
        open.take(IDS_MAX).map(mark).collect()
    }

    /// Of a consumer whose SUBSCRIBE was not seen, one of its own.
    fn subscription(&self, connection: u64, consumer: u64) -> Subscription {
        let known = self.subscriptions.get(&(connection, consumer)).copied();
        known.unwrap_or_else(|| self.hasher.hash_one((connection, consumer)))
    }

    fn message(&mut self, n: u32, connection: u64, consumer: u64, frame: &FrameObservation) -> Option<Link> {
        let key = (self.subscription(connection, consumer), frame.message_id?);
        let before = self.deliveries.get(&key).copied();
        let named = self.returned.remove(&key);
        put(&mut self.deliveries, key, Delivered { n, connection, consumer, is_acknowledged: false });
        let before = before?;
        let all = self.returned_all.get(&(before.connection, before.consumer)).copied();
        match named.or(all.filter(|asked| *asked > before.n)) {
            Some(to) => Some(Link { to, why: Why::Asked }),
            None => Some(Link { to: before.n, why: Why::Again }),
        }
    }
}

/// The ids of an ACK or REDELIVER_UNACKNOWLEDGED_MESSAGES.
fn positions(ids: &[pb::MessageIdData]) -> Vec<Position> {
    ids.iter().take(IDS_MAX).map(|id| (id.ledger_id, id.entry_id)).collect()
}
