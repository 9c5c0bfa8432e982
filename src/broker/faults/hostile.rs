//! Faults on any frame, by a seed: a broker to fuzz a client with.
//!
//! What happens to the n-th frame of the m-th connection depends on the seed, n and m alone, so that a client that does the same
//! meets the same. A client that keeps to the protocol loses nothing: whatever was confirmed is stored, no receipt is made up, no
//! message is damaged or overtaken, and what is refused may be tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{FaultEffect, FaultEvent};
use crate::broker::ids::ConnId;
use crate::error::ServerCode;
use crate::pb::{self, MessageIdData};
use crate::splitmix::SplitMix64;
use crate::wire::command::Command;
use crate::wire::hot::{MessageHead, put_message, put_pong};

/// One frame in so many has a fault.
const ONE_IN: u64 = 16;

/// By how much an answer is late at most, milliseconds.
const LATE_MS_MAX: u64 = 2_000;

/// Connections whose frames are counted; beyond it the oldest one begins anew.
const CONNECTIONS_MAX: usize = 10_000;

/// An id that no client has.
const NO_ENDPOINT: u64 = u64::MAX >> 2;

/// What happens to a frame.
#[derive(Debug)]
pub(crate) enum HostileAct {
    Effect(FaultEffect),
    /// These bytes are sent first; then the frame is handled.
    SendFirst(Bytes),
    /// These bytes, which are no frame, are sent instead of an answer, and then the connection ends: frames behind this one would
    /// overtake it.
    Break(Bytes),
}

/// The faults of one seed.
#[derive(Debug)]
pub(crate) struct Hostility {
    seed: u64,
    /// Frames of each connection so far, deliveries among them.
    frames: BTreeMap<ConnId, u64>,
    counts: BTreeMap<&'static str, u64>,
}

/// Random numbers of one frame.
struct Dice(SplitMix64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.next() % bound
    }

    fn late(&mut self) -> FaultEffect {
        FaultEffect::DelayResponse { by: Duration::from_millis(1 + self.below(LATE_MS_MAX)) }
    }

    fn pick<T>(&mut self, kinds: &[T]) -> T
    where
        T: Copy,
    {
        kinds[self.below(kinds.len() as u64) as usize]
    }
}

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Refused,
    Lost,
    Late,
    Twice,
    Closed,
    Disconnected,
    WrongAnswer,
    Garbage,
    Strange,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Lost => "answer lost",
            Self::Late => "answer late",
            Self::Twice => "sent twice",
            Self::Closed => "endpoint closed",
            Self::Disconnected => "disconnected",
            Self::WrongAnswer => "wrong answer",
            Self::Garbage => "malformed frame",
            Self::Strange => "frame that was not asked for",
        }
    }

    /// What may happen to a frame so that nothing is lost by it.
    fn of(event: FaultEvent) -> &'static [Self] {
        use Kind::{Closed, Disconnected, Garbage, Late, Lost, Refused, Strange, Twice, WrongAnswer};
        match event {
            FaultEvent::Connect => &[Lost, Late, Disconnected, Garbage],
            FaultEvent::Lookup | FaultEvent::PartitionedMetadata => {
                &[Refused, Lost, Late, Twice, Disconnected, WrongAnswer, Garbage, Strange]
            }
            FaultEvent::Producer | FaultEvent::Subscribe => {
                &[Refused, Lost, Late, Twice, Closed, Disconnected, WrongAnswer, Garbage, Strange]
            }
            FaultEvent::Send => &[Lost, Late, Twice, Closed, Disconnected, Garbage, Strange, Strange],
            FaultEvent::Delivery => &[Twice, Closed, Disconnected],
            // They have no answer.
            FaultEvent::Flow | FaultEvent::Redeliver | FaultEvent::AuthResponse => &[Closed, Disconnected, Strange],
            _ => &[Lost, Late, Twice, Disconnected, WrongAnswer, Garbage, Strange],
        }
    }
}

impl Hostility {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, frames: BTreeMap::new(), counts: BTreeMap::new() }
    }

    /// How often each kind of fault happened.
    pub(crate) fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// What happens to the next frame of a connection; `command` is what the client sent.
    pub(crate) fn act(&mut self, conn: ConnId, event: FaultEvent, command: Option<&Command>) -> Option<HostileAct> {
        if self.frames.len() >= CONNECTIONS_MAX && !self.frames.contains_key(&conn) {
            self.frames.pop_first();
        }
        let number = self.frames.entry(conn).or_default();
        *number += 1;
        let mut dice = Dice(SplitMix64::new(SplitMix64::new(self.seed ^ conn.0 << 40).next() ^ *number));
        if dice.below(ONE_IN) > 0 {
            return None;
        }
        let kind = dice.pick(Kind::of(event));
        let act = match kind {
            Kind::Refused => HostileAct::Effect(FaultEffect::RefuseRequest { code: ServerCode::SERVICE_NOT_READY }),
            Kind::Lost => HostileAct::Effect(FaultEffect::DropResponse),
            Kind::Late => HostileAct::Effect(dice.late()),
            Kind::Twice => HostileAct::Effect(FaultEffect::DuplicateResponse),
            Kind::Closed => HostileAct::Effect(FaultEffect::Close { url: None }),
            Kind::Disconnected => HostileAct::Effect(FaultEffect::Disconnect),
            Kind::WrongAnswer => {
                let bytes = wrong_answer(command?.request_id()?, command?);
                HostileAct::Effect(FaultEffect::RespondWith { bytes })
            }
            Kind::Garbage => HostileAct::Break(garbage(&mut dice)),
            Kind::Strange => HostileAct::SendFirst(strange(&mut dice)),
        };
        *self.counts.entry(kind.name()).or_default() += 1;
        Some(act)
    }
}

fn frame(command: impl Into<Command>) -> Bytes {
    let mut out = BytesMut::new();
    command.into().encode_frame(&mut out);
    out.freeze()
}

/// An answer of another type than the request asks for.
fn wrong_answer(request_id: u64, command: &Command) -> Bytes {
    match command {
        Command::Producer(_) | Command::Lookup(_) | Command::PartitionedMetadata(_) => {
            frame(pb::CommandSuccess { request_id, schema: None })
        }
        _ => {
            frame(pb::CommandProducerSuccess { request_id, producer_name: "hostile".to_owned(), ..Default::default() })
        }
    }
}

/// Bytes that are no frame, behind which nothing can be read.
fn garbage(dice: &mut Dice) -> Bytes {
    let mut out = BytesMut::new();
    match dice.below(8) {
        // total_size that no frame has; one below its own command_size; a command that is larger than its frame.
        0 => out.put_slice(&[0xff; 12]),
        1 => out.put_slice(&[0, 0, 0, 3, 0, 0, 0]),
        2 => out.put_slice(&[0, 0, 0, 9, 0, 0, 0, 200, 8, 19, 0x9a, 1, 0]),
        // A command that is no Protobuf, and one without its type.
        3 => out.put_slice(&[0, 0, 0, 8, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]),
        4 => out.put_slice(&[0, 0, 0, 7, 0, 0, 0, 3, 0x9a, 1, 0]),
        5 => out.put_slice(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        // Half a frame, and another one behind it.
        6 => {
            let success = frame(pb::CommandError { request_id: 1, error: 0, message: "cut in the middle".to_owned() });
            out.put_slice(&success[..success.len() / 2]);
            put_pong(&mut out);
        }
        _ => (0..1 + dice.below(200)).for_each(|_| out.put_u8(dice.below(256) as u8)),
    }
    out.freeze()
}

/// A sound frame that is about nothing that the client has.
fn strange(dice: &mut Dice) -> Bytes {
    let request_id = NO_ENDPOINT + dice.below(1_000);
    let message = "said the hostile broker".to_owned();
    match dice.below(8) {
        // A type of a later version, and a PONG with a field of one.
        0 => Bytes::from_static(&[0, 0, 0, 10, 0, 0, 0, 6, 8, 127, 0xfa, 7, 1, 0]),
        1 => Bytes::from_static(&[0, 0, 0, 12, 0, 0, 0, 8, 8, 19, 0x9a, 1, 3, 0xa0, 6, 1]),
        2 => frame(pb::CommandSuccess { request_id, schema: None }),
        3 => frame(pb::CommandError { request_id, error: dice.below(40) as i32, message }),
        4 => {
            let id = MessageIdData { ledger_id: 1, entry_id: dice.below(10), ..Default::default() };
            frame(pb::CommandSendReceipt {
                producer_id: NO_ENDPOINT,
                sequence_id: 1,
                message_id: Some(id),
                ..Default::default()
            })
        }
        5 => frame(pb::CommandSendError {
            producer_id: NO_ENDPOINT,
            sequence_id: 1,
            error: dice.below(40) as i32,
            message,
        }),
        6 => frame(pb::CommandCloseConsumer { consumer_id: NO_ENDPOINT, request_id, ..Default::default() }),
        _ => {
            let mut out = BytesMut::new();
            put_message(&mut out, &MessageHead::new(NO_ENDPOINT, 1, dice.below(10)), b"no entry");
            out.freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{Limits, cut, frames};

    #[test]
    fn the_same_frame_of_the_same_connection_meets_the_same() {
        let run = |order: [u64; 4]| {
            let mut hostility = Hostility::new(7);
            let mut acts = BTreeMap::new();
            for conn in order.into_iter().cycle().take(400) {
                let act = hostility.act(ConnId(conn), FaultEvent::Send, None);
                acts.entry(conn).or_insert_with(Vec::new).push(format!("{act:?}"));
            }
            (acts, hostility.counts)
        };
        let (acts, counts) = run([1, 2, 2, 1]);
        assert_eq!((acts, counts.clone()), run([2, 1, 1, 2]));
        assert!(counts.len() > 4, "{counts:?}");
    }

    #[test]
    fn strange_frames_can_be_read_and_malformed_ones_cannot() {
        let mut dice = Dice(SplitMix64::new(1));
        let is_read = |bytes: Bytes| {
            let mut rx = BytesMut::from(&bytes[..]);
            match cut(&mut rx, &Limits::default()) {
                Ok(Some(run)) => rx.is_empty() && frames(run).all(|frame| frame.is_ok()),
                _ => false,
            }
        };
        for _ in 0..200 {
            assert!(is_read(strange(&mut dice)));
            assert!(!is_read(garbage(&mut dice)));
        }
    }
}
