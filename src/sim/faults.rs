//! The faults that a simulation can inject.

use std::collections::BTreeMap;
use std::time::Duration;

use super::network::Direction;
use super::rng::Rng;
use crate::error::ServerCode;

/// One fault.
///
/// Where it needs a connection, a topic or an endpoint, the simulation's seed picks one of those that exist; where none
/// exists it has no effect. A fault on "the next" frame waits for a frame that fits, at most 64 at once: further ones are
/// dropped. [`Simulation::clear_faults`](super::Simulation::clear_faults) removes those that still wait.
///
/// The names are those of [`FaultEffect`](crate::broker::FaultEffect) where the faults are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A connection breaks, for both ends.
    Disconnect,
    /// A connection no longer carries anything in one direction, and neither end is notified.
    Blackhole {
        /// The direction.
        direction: Direction,
    },
    /// A connection breaks after some further bytes, which may be in the middle of a frame.
    DisconnectAfter {
        /// The direction whose bytes count.
        direction: Direction,
        /// How many bytes still arrive.
        bytes: u64,
    },
    /// One end of a connection stops reading for a time, then reads again.
    StallReads {
        /// The direction whose receiver does not read.
        direction: Direction,
        /// For how long.
        duration: Duration,
    },
    /// A connection becomes slow in one direction.
    Slow {
        /// The direction.
        direction: Direction,
        /// The latency.
        latency: Duration,
        /// The further time that each byte takes.
        per_byte: Duration,
    },
    /// Every dial is refused for a time.
    RefuseDials {
        /// For how long.
        duration: Duration,
    },
    /// The next dial takes long.
    DelayDial {
        /// How long it takes.
        by: Duration,
    },
    /// A broker loses all connections and refuses dials for a time; the other one serves its topics from then on.
    Restart {
        /// For how long dials are refused.
        down_for: Duration,
    },
    /// A topic moves to the other broker; clients have to look it up.
    Unload,
    /// A topic moves to the other broker; CLOSE_PRODUCER and CLOSE_CONSUMER name that broker.
    Transfer,
    /// A broker closes one producer (CLOSE_PRODUCER).
    CloseProducer,
    /// A broker closes one consumer (CLOSE_CONSUMER).
    CloseConsumer,
    /// The next PRODUCER, SUBSCRIBE, LOOKUP, PARTITIONED_METADATA, ACK or GET_LAST_MESSAGE_ID is refused.
    RefuseRequest {
        /// The code of the error.
        code: ServerCode,
    },
    /// The next SEND is refused (SEND_ERROR) and not stored, nor is any later one until the producer is opened again.
    ///
    /// [`ServerCode::NOT_ALLOWED_ERROR`] is not injected, because it refuses one message and lets later ones pass: where
    /// it is lost with the connection, a client cannot know which messages were stored.
    RefuseSend {
        /// The code of the error.
        code: ServerCode,
    },
    /// The next request, CLOSE_PRODUCER and CLOSE_CONSUMER excepted, does not reach the broker.
    DropRequest,
    /// The next response does not reach the client.
    DropResponse,
    /// The next response is delayed, and so are the frames behind it for the same producer or consumer.
    DelayResponse {
        /// By how much.
        by: Duration,
    },
    /// The next SEND_RECEIPT does not reach the client.
    DropReceipt,
    /// The next SEND_RECEIPT arrives twice.
    DuplicateReceipt,
    /// Each broker redirects lookups to the other one for a time.
    RedirectLoop {
        /// For how long.
        duration: Duration,
    },
    /// A bit of the next delivered entry is flipped; the stored entry stays intact.
    CorruptDelivery,
    /// All tokens expire now; the brokers ask for fresh ones (AUTH_CHALLENGE).
    ExpireTokens,
}

/// Creates a fault of one kind with random parameters.
type RandomFault = fn(&mut Rng, Direction) -> Fault;

/// The kinds of [`Fault::random`]. A seed depends on their order.
const RANDOM_FAULTS: [RandomFault; 21] = [
    |_, _| Fault::Disconnect,
    |_, direction| Fault::Blackhole { direction },
    |rng, direction| Fault::DisconnectAfter { direction, bytes: rng.range_inclusive(0, 3000) },
    |rng, direction| Fault::StallReads { direction, duration: millis(rng, 100, 90_000) },
    |rng, direction| {
        let latency = millis(rng, 1, 2000);
        Fault::Slow { direction, latency, per_byte: Duration::from_micros(rng.range_inclusive(0, 60)) }
    },
    |rng, _| Fault::RefuseDials { duration: millis(rng, 10, 20_000) },
    |rng, _| Fault::DelayDial { by: millis(rng, 100, 15_000) },
    |rng, _| Fault::Restart { down_for: millis(rng, 10, 20_000) },
    |_, _| Fault::Transfer,
    |_, _| Fault::Unload,
    |_, _| Fault::CloseProducer,
    |_, _| Fault::CloseConsumer,
    |rng, _| Fault::RefuseRequest { code: ServerCode(rng.below(27) as i32) },
    |rng, _| Fault::RefuseSend { code: ServerCode(rng.below(27) as i32) },
    |_, _| Fault::DropRequest,
    |_, _| Fault::DropResponse,
    |rng, _| Fault::DelayResponse { by: millis(rng, 1, 45_000) },
    |_, _| Fault::DropReceipt,
    |_, _| Fault::DuplicateReceipt,
    |rng, _| Fault::RedirectLoop { duration: millis(rng, 10, 10_000) },
    |_, _| Fault::CorruptDelivery,
];

fn millis(rng: &mut Rng, from: u64, to: u64) -> Duration {
    rng.duration(Duration::from_millis(from), Duration::from_millis(to))
}

impl Fault {
    /// The name of its kind, for counting.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::Blackhole { .. } => "blackhole",
            Self::DisconnectAfter { .. } => "disconnect after n bytes",
            Self::StallReads { .. } => "stall reads",
            Self::Slow { .. } => "slow",
            Self::RefuseDials { .. } => "refuse dials",
            Self::DelayDial { .. } => "delay dial",
            Self::Restart { .. } => "restart",
            Self::Unload => "unload",
            Self::Transfer => "transfer",
            Self::CloseProducer => "CLOSE_PRODUCER",
            Self::CloseConsumer => "CLOSE_CONSUMER",
            Self::RefuseRequest { .. } => "refuse request",
            Self::RefuseSend { .. } => "SEND_ERROR",
            Self::DropRequest => "drop request",
            Self::DropResponse => "drop response",
            Self::DelayResponse { .. } => "delay response",
            Self::DropReceipt => "drop receipt",
            Self::DuplicateReceipt => "duplicate receipt",
            Self::RedirectLoop { .. } => "redirect loop",
            Self::CorruptDelivery => "corrupt delivery",
            Self::ExpireTokens => "expire tokens",
        }
    }

    /// A random fault, each kind with the same probability; [`Self::ExpireTokens`] only where `tokens` are in use.
    #[must_use]
    pub fn random(rng: &mut Rng, tokens: bool) -> Self {
        let direction = if rng.chance_per_mille(500) { Direction::ToBroker } else { Direction::ToClient };
        let kind = rng.below(RANDOM_FAULTS.len() as u64 + u64::from(tokens)) as usize;
        RANDOM_FAULTS.get(kind).map_or(Self::ExpireTokens, |create| create(rng, direction))
    }
}

/// How many faults of each kind took effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FaultCounts(pub BTreeMap<&'static str, u64>);

impl FaultCounts {
    pub(super) fn count(&mut self, fault: &Fault) {
        *self.0.entry(fault.name()).or_default() += 1;
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }
}
