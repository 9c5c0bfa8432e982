//! The faults that a simulation can inject.

use std::collections::BTreeMap;
use std::time::Duration;

use super::network::Direction;
use super::rng::Rng;
use crate::error::ServerCode;

/// One fault. Where it needs a connection, a topic or a producer, the simulation's seed picks one of those that exist; a
/// fault of frames waits for the next frame it fits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A connection breaks, for both ends.
    Drop,
    /// A connection carries nothing any more in one direction, and neither end learns of it.
    HalfOpen(Direction),
    /// A connection breaks after this many further bytes, which may be in the middle of a frame.
    CutAfter(Direction, u64),
    /// One end of a connection stops reading for a time.
    Freeze(Direction, Duration),
    /// A connection becomes slow: this latency, and so many microseconds for each byte.
    Slow(Direction, Duration, u64),
    /// Every dial is refused for a time.
    RefuseDials(Duration),
    /// The next dial takes this long.
    DelayDial(Duration),
    /// A broker loses all connections and refuses dials for a time; the other one serves its topics from then on.
    Restart(Duration),
    /// A topic moves to the other broker; with `true` CLOSE_PRODUCER and CLOSE_CONSUMER name it.
    Unload(bool),
    /// A broker closes one producer (CLOSE_PRODUCER).
    CloseProducer,
    /// A broker closes one consumer (CLOSE_CONSUMER).
    CloseConsumer,
    /// The next request gets this error.
    RefuseRequest(ServerCode),
    /// The next SEND gets this error (SEND_ERROR) and is not stored.
    RefuseSend(ServerCode),
    /// The next request does not reach the broker.
    LoseRequest,
    /// The next answer does not reach the client.
    LoseAnswer,
    /// The next answer comes this much later, and so do the frames behind it for the same producer or consumer.
    DelayAnswer(Duration),
    /// The next receipt does not reach the client.
    LoseReceipt,
    /// The next receipt comes twice.
    RepeatReceipt,
    /// For a time each broker sends lookups to the other one.
    RedirectLoop(Duration),
    /// A bit of the next message that is delivered is flipped.
    CorruptEntry,
    /// All tokens expire now; the brokers ask for fresh ones (AUTH_CHALLENGE).
    ExpireTokens,
}

impl Fault {
    /// Its name, for counting.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::HalfOpen(_) => "half open",
            Self::CutAfter(..) => "cut after n bytes",
            Self::Freeze(..) => "stops reading",
            Self::Slow(..) => "slow",
            Self::RefuseDials(_) => "refuses dials",
            Self::DelayDial(_) => "slow dial",
            Self::Restart(_) => "restart",
            Self::Unload(true) => "unload, assigned",
            Self::Unload(false) => "unload",
            Self::CloseProducer => "CLOSE_PRODUCER",
            Self::CloseConsumer => "CLOSE_CONSUMER",
            Self::RefuseRequest(_) => "request refused",
            Self::RefuseSend(_) => "SEND_ERROR",
            Self::LoseRequest => "request lost",
            Self::LoseAnswer => "answer lost",
            Self::DelayAnswer(_) => "answer late",
            Self::LoseReceipt => "receipt lost",
            Self::RepeatReceipt => "receipt twice",
            Self::RedirectLoop(_) => "redirect loop",
            Self::CorruptEntry => "corrupt entry",
            Self::ExpireTokens => "token expires",
        }
    }

    /// Whether the fault waits for a frame.
    pub(super) fn is_about_frames(&self) -> bool {
        matches!(
            self,
            Self::RefuseRequest(_)
                | Self::RefuseSend(_)
                | Self::LoseRequest
                | Self::LoseAnswer
                | Self::DelayAnswer(_)
                | Self::LoseReceipt
                | Self::RepeatReceipt
                | Self::CorruptEntry
        )
    }

    /// A random fault, each kind with the same probability. [`Self::ExpireTokens`] only with `tokens`.
    #[must_use]
    pub fn any(rng: &mut Rng, tokens: bool) -> Self {
        let ms = |rng: &mut Rng, from, to| rng.duration(Duration::from_millis(from), Duration::from_millis(to));
        let way = if rng.chance(500) { Direction::Up } else { Direction::Down };
        match rng.below(if tokens { 22 } else { 21 }) {
            0 => Self::Drop,
            1 => Self::HalfOpen(way),
            2 => Self::CutAfter(way, rng.range(0, 3000)),
            3 => Self::Freeze(way, ms(rng, 100, 90_000)),
            4 => Self::Slow(way, ms(rng, 1, 2000), rng.range(0, 60)),
            5 => Self::RefuseDials(ms(rng, 10, 20_000)),
            6 => Self::DelayDial(ms(rng, 100, 15_000)),
            7 => Self::Restart(ms(rng, 10, 20_000)),
            8 => Self::Unload(true),
            9 => Self::Unload(false),
            10 => Self::CloseProducer,
            11 => Self::CloseConsumer,
            12 => Self::RefuseRequest(ServerCode(rng.below(27) as i32)),
            13 => Self::RefuseSend(ServerCode(rng.below(27) as i32)),
            14 => Self::LoseRequest,
            15 => Self::LoseAnswer,
            16 => Self::DelayAnswer(ms(rng, 1, 45_000)),
            17 => Self::LoseReceipt,
            18 => Self::RepeatReceipt,
            19 => Self::RedirectLoop(ms(rng, 10, 10_000)),
            20 => Self::CorruptEntry,
            _ => Self::ExpireTokens,
        }
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
