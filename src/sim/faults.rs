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
    /// A broker is silent from now on: its connections carry nothing, and dials of it are not answered. The other one serves
    /// its topics. It happens once, and [`Simulation::clear_faults`](super::Simulation::clear_faults) does not end it.
    LoseBroker,
    /// A whole cluster is gone for a time: its connections break, and its brokers take no dials.
    LoseCluster {
        /// Its number: see [`Simulation::cluster`](super::Simulation::cluster).
        cluster: usize,
        /// For how long dials are refused.
        down_for: Duration,
    },
    /// The first cluster migrates to the second one, for good: TOPIC_MIGRATED sends producers there at once, and consumers
    /// once all is acknowledged that their subscription has in the first one. Only in a simulation of two clusters.
    Migrate,
    /// What [`Handle::named_cluster`](super::Handle::named_cluster) asks names another cluster, or has no usable answer, from
    /// now on. Before the first of these, it names the first cluster.
    NameCluster {
        /// Its number: see [`Simulation::cluster`](super::Simulation::cluster). `None`: no answer.
        cluster: Option<usize>,
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
    /// A broker closes one producer, and refuses each PRODUCER for its topic for a time.
    RefuseProducers {
        /// The code of the error.
        code: ServerCode,
        /// For how long.
        duration: Duration,
    },
    /// A broker closes one consumer, and refuses each SUBSCRIBE for its topic for a time.
    RefuseConsumers {
        /// The code of the error.
        code: ServerCode,
        /// For how long.
        duration: Duration,
    },
    /// Another producer takes a name that the brokers have generated, and keeps it: the producer that had it is closed, and
    /// refused (ProducerBusy) until it asks for another name. [`Simulation::clear_faults`](super::Simulation::clear_faults)
    /// does not change that.
    TakeName,
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
    /// Each SEND_RECEIPT is delayed for a time, and so are the frames behind it for the same producer.
    SlowReceipts {
        /// By how much.
        by: Duration,
        /// For how long.
        duration: Duration,
    },
    /// The next SEND_RECEIPT arrives twice.
    DuplicateReceipt,
    /// Each broker redirects lookups to the other one for a time.
    RedirectLoop {
        /// For how long.
        duration: Duration,
    },
    /// A bit of the next delivered entry is flipped; the stored entry stays intact.
    CorruptDelivery,
    /// Brokers forget every watch of a topic list, without notice: no change is announced any more.
    ForgetWatches,
    /// All tokens expire now; the brokers ask for fresh ones (AUTH_CHALLENGE).
    ExpireTokens,
    /// The source of tokens of each client gives none for a time.
    BreakTokens {
        /// What it does instead.
        how: TokenFault,
        /// For how long.
        duration: Duration,
    },
}

/// What a source of tokens does instead of giving one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenFault {
    /// It returns an error that is worth another attempt.
    Fail,
    /// It panics, without the panic hook.
    Panic,
    /// Its future never ends.
    Hang,
    /// The brokers refuse what it gives, when a connection is made and when they ask for fresh credentials.
    Wrong,
}

/// Codes that do more than delay what was attached: they fail what is pending, take a name away, or are final.
const CODES_WITH_EFFECT: [ServerCode; 5] = [
    ServerCode::PRODUCER_BLOCKED_QUOTA_EXCEEDED_ERROR,
    ServerCode::PRODUCER_BLOCKED_QUOTA_EXCEEDED_EXCEPTION,
    ServerCode::PRODUCER_BUSY,
    ServerCode::TOPIC_NOT_FOUND,
    ServerCode::TOPIC_TERMINATED_ERROR,
];

/// Any code, mostly one of [`CODES_WITH_EFFECT`].
fn any_code(rng: &mut Rng) -> ServerCode {
    if rng.chance_per_mille(800) { *rng.pick(&CODES_WITH_EFFECT) } else { ServerCode(rng.below(27) as i32) }
}

/// Creates a fault of one kind with random parameters.
type RandomFault = fn(&mut Rng, Direction) -> Fault;

/// The kinds of [`Fault::random`]. A seed depends on their order.
const RANDOM_FAULTS: [RandomFault; 26] = [
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
    |rng, _| Fault::RefuseRequest { code: any_code(rng) },
    |rng, _| Fault::RefuseSend { code: ServerCode(rng.below(27) as i32) },
    |_, _| Fault::DropRequest,
    |_, _| Fault::DropResponse,
    |rng, _| Fault::DelayResponse { by: millis(rng, 1, 45_000) },
    |_, _| Fault::DropReceipt,
    |_, _| Fault::DuplicateReceipt,
    |rng, _| Fault::RedirectLoop { duration: millis(rng, 10, 10_000) },
    |_, _| Fault::CorruptDelivery,
    REFUSALS[0],
    REFUSALS[1],
    REFUSALS[2],
    |_, _| Fault::LoseBroker,
    |rng, _| Fault::SlowReceipts { by: millis(rng, 1, 10_000), duration: millis(rng, 10, 20_000) },
];

/// Those that refuse what was attached.
const REFUSALS: [RandomFault; 3] = [
    |rng, _| Fault::RefuseProducers { code: any_code(rng), duration: millis(rng, 10, 15_000) },
    |rng, _| Fault::RefuseConsumers { code: any_code(rng), duration: millis(rng, 10, 15_000) },
    |_, _| Fault::TakeName,
];

/// Those where tokens are in use.
const RANDOM_TOKEN_FAULTS: [RandomFault; 2] = [|_, _| Fault::ExpireTokens, |rng, _| Fault::random_of_tokens(rng)];

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
            Self::LoseCluster { .. } => "lose cluster",
            Self::Migrate => "migrate",
            Self::NameCluster { .. } => "name cluster",
            Self::LoseBroker => "lose broker",
            Self::Unload => "unload",
            Self::Transfer => "transfer",
            Self::CloseProducer => "CLOSE_PRODUCER",
            Self::CloseConsumer => "CLOSE_CONSUMER",
            Self::RefuseRequest { .. } => "refuse request",
            Self::RefuseProducers { .. } => "refuse producers",
            Self::RefuseConsumers { .. } => "refuse consumers",
            Self::TakeName => "take name",
            Self::RefuseSend { .. } => "SEND_ERROR",
            Self::DropRequest => "drop request",
            Self::DropResponse => "drop response",
            Self::DelayResponse { .. } => "delay response",
            Self::DropReceipt => "drop receipt",
            Self::SlowReceipts { .. } => "slow receipts",
            Self::DuplicateReceipt => "duplicate receipt",
            Self::RedirectLoop { .. } => "redirect loop",
            Self::CorruptDelivery => "corrupt delivery",
            Self::ForgetWatches => "forget watches",
            Self::ExpireTokens => "expire tokens",
            Self::BreakTokens { .. } => "break tokens",
        }
    }

    /// A random fault, each kind with the same probability; [`Self::ExpireTokens`] and [`Self::BreakTokens`] only where
    /// `tokens` are in use.
    #[must_use]
    pub fn random(rng: &mut Rng, tokens: bool) -> Self {
        let direction = if rng.chance_per_mille(500) { Direction::ToBroker } else { Direction::ToClient };
        let kinds = RANDOM_FAULTS.len() + if tokens { RANDOM_TOKEN_FAULTS.len() } else { 0 };
        let kind = rng.below(kinds as u64) as usize;
        let mut all = RANDOM_FAULTS.iter().chain(&RANDOM_TOKEN_FAULTS);
        all.nth(kind).map_or(Self::Disconnect, |create| create(rng, direction))
    }
}

impl Fault {
    /// A random fault among those that refuse what was attached.
    #[must_use]
    pub fn random_refusal(rng: &mut Rng) -> Self {
        rng.pick(&REFUSALS)(rng, Direction::ToBroker)
    }

    /// A random [`Self::BreakTokens`].
    #[must_use]
    pub fn random_of_tokens(rng: &mut Rng) -> Self {
        let how = *rng.pick(&[TokenFault::Fail, TokenFault::Panic, TokenFault::Hang, TokenFault::Wrong]);
        Self::BreakTokens { how, duration: millis(rng, 10, 20_000) }
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
