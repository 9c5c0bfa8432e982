//! Simulated connections: bytes in flight in both directions, and everything that can happen to them.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::rng::Rng;
use crate::broker::machine::ConnId;
use crate::machine::control::ConnectionId;

/// What lies between two sockets at most, their buffers included, bytes.
const IN_FLIGHT_BYTES_MAX: usize = 96 * 1024;

/// One connection of the network; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NetId(pub(super) u64);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Direction {
    /// From the client to the broker.
    Up,
    /// From the broker to the client.
    Down,
}

/// What the network will do by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Bytes arrive, if there are any by then.
    Arrive(NetId, Direction),
    /// The connection breaks, for both ends.
    Break(NetId),
    /// The receiving end of this direction learns that the other is gone.
    End(NetId, Direction),
}

/// One direction.
#[derive(Debug)]
struct Pipe {
    chunks: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    last_arrival: Instant,
    /// Nothing arrives any more, and nobody is told.
    is_hole: bool,
    frozen_until: Option<Instant>,
    cut_after_bytes: Option<u64>,
    delay: Duration,
    /// Microseconds for each byte.
    pace: u64,
}

impl Pipe {
    fn new(delay: Duration, now: Instant) -> Self {
        Self {
            chunks: VecDeque::new(),
            bytes: 0,
            last_arrival: now,
            is_hole: false,
            frozen_until: None,
            cut_after_bytes: None,
            delay,
            pace: 0,
        }
    }

    fn room(&self) -> usize {
        IN_FLIGHT_BYTES_MAX.saturating_sub(self.bytes)
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) client: usize,
    pub(super) link: ConnectionId,
    pub(super) conn: ConnId,
    pub(super) broker: usize,
    up: Pipe,
    down: Pipe,
    /// Arrived at the client and not read.
    pub(super) client_rx: BytesMut,
    pub(super) client_eof: bool,
    /// Arrived at the broker, less than a frame.
    pub(super) broker_rx: BytesMut,
    /// Out of the broker, and not yet in the socket.
    pub(super) broker_tx: BytesMut,
    pub(super) client_gone: bool,
    pub(super) broker_gone: bool,
    /// A fault made it misbehave.
    pub(super) is_faulted: bool,
}

impl Wire {
    fn pipe(&mut self, direction: Direction) -> &mut Pipe {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Net {
    wires: BTreeMap<NetId, Wire>,
    by_conn: BTreeMap<ConnId, NetId>,
    rng: Rng,
    next: u64,
    /// The longest way of a byte without faults.
    pub(super) delay_max: Duration,
    /// What is to happen; collected by the world after each call.
    pub(super) due: Vec<(Instant, Due)>,
}

impl Net {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            wires: BTreeMap::new(),
            by_conn: BTreeMap::new(),
            rng,
            next: 0,
            delay_max: Duration::from_millis(5),
            due: Vec::new(),
        }
    }

    pub(super) fn open(
        &mut self,
        client: usize,
        link: ConnectionId,
        conn: ConnId,
        broker: usize,
        now: Instant,
    ) -> NetId {
        self.next += 1;
        let id = NetId(self.next);
        let delay = self.rng.duration(Duration::from_micros(50), self.delay_max);
        let wire = Wire {
            client,
            link,
            conn,
            broker,
            up: Pipe::new(delay, now),
            down: Pipe::new(delay, now),
            client_rx: BytesMut::new(),
            client_eof: false,
            broker_rx: BytesMut::new(),
            broker_tx: BytesMut::new(),
            client_gone: false,
            broker_gone: false,
            is_faulted: false,
        };
        self.wires.insert(id, wire);
        self.by_conn.insert(conn, id);
        id
    }

    pub(super) fn get_mut(&mut self, id: NetId) -> Option<&mut Wire> {
        self.wires.get_mut(&id)
    }

    pub(super) fn get(&self, id: NetId) -> Option<&Wire> {
        self.wires.get(&id)
    }

    pub(super) fn of_conn(&self, conn: ConnId) -> Option<NetId> {
        self.by_conn.get(&conn).copied()
    }

    /// Connections that both ends have, in order.
    pub(super) fn live(&self) -> Vec<NetId> {
        self.wires.iter().filter(|(_, wire)| !wire.client_gone && !wire.broker_gone).map(|(id, _)| *id).collect()
    }

    /// Takes what fits of `bytes`; gives what does not.
    pub(super) fn write(&mut self, id: NetId, direction: Direction, bytes: &mut Bytes, now: Instant) -> usize {
        let Some(wire) = self.wires.get_mut(&id) else {
            let all = bytes.len();
            bytes.clear();
            return all;
        };
        let pipe = wire.pipe(direction);
        let mut taken = 0;
        let mut left = pipe.room().min(bytes.len());
        while left > 0 {
            // Mostly what a segment carries, sometimes a few bytes: frames get cut everywhere.
            let most = if self.rng.chance(150) { self.rng.range(1, 24) } else { self.rng.range(200, 9000) };
            let size = left.min(most as usize);
            let mut chunk = bytes.split_to(size);
            let jitter = self.rng.duration(Duration::ZERO, pipe.delay / 2);
            let pace = Duration::from_micros(pipe.pace * size as u64);
            let arrival = (now + pipe.delay + jitter).max(pipe.last_arrival) + pace;
            if let Some(cut) = &mut pipe.cut_after_bytes {
                if *cut < size as u64 {
                    chunk.truncate(*cut as usize);
                    self.due.push((arrival, Due::Break(id)));
                }
                *cut = cut.saturating_sub(size as u64);
            }
            pipe.last_arrival = arrival;
            pipe.bytes += chunk.len();
            pipe.chunks.push_back((arrival, chunk));
            if !pipe.is_hole {
                self.due.push((arrival.max(pipe.frozen_until.unwrap_or(arrival)), Due::Arrive(id, direction)));
            }
            left -= size;
            taken += size;
        }
        taken
    }

    pub(super) fn room(&self, id: NetId, direction: Direction) -> usize {
        self.wires.get(&id).map_or(usize::MAX, |wire| match direction {
            Direction::Up => wire.up.room(),
            Direction::Down => wire.down.room(),
        })
    }

    /// Moves what has arrived to the receiving end; how many bytes.
    pub(super) fn arrive(&mut self, id: NetId, direction: Direction, now: Instant) -> usize {
        let Some(wire) = self.wires.get_mut(&id) else { return 0 };
        let (pipe, rx) = match direction {
            Direction::Up => (&mut wire.up, &mut wire.broker_rx),
            Direction::Down => (&mut wire.down, &mut wire.client_rx),
        };
        if pipe.is_hole || pipe.frozen_until.is_some_and(|until| until > now) {
            return 0;
        }
        let mut moved = 0;
        while pipe.chunks.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, chunk)) = pipe.chunks.pop_front() else { break };
            pipe.bytes -= chunk.len();
            moved += chunk.len();
            rx.extend_from_slice(&chunk);
        }
        moved
    }

    /// One end is gone in good order: the other learns it behind the last byte.
    pub(super) fn finish(&mut self, id: NetId, direction: Direction, now: Instant) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        match direction {
            Direction::Up => wire.client_gone = true,
            Direction::Down => wire.broker_gone = true,
        }
        let pipe = wire.pipe(direction);
        if !pipe.is_hole {
            let at = (now + pipe.delay).max(pipe.last_arrival).max(pipe.frozen_until.unwrap_or(now));
            self.due.push((at, Due::End(id, direction)));
        }
    }

    /// Both ends are done with it.
    pub(super) fn forget_if_over(&mut self, id: NetId) {
        let over = self.wires.get(&id).is_some_and(|wire| wire.client_gone && wire.broker_gone);
        if over {
            if let Some(wire) = self.wires.remove(&id) {
                self.by_conn.remove(&wire.conn);
            }
        }
    }

    fn faulted(&mut self, id: NetId, direction: Direction) -> Option<&mut Pipe> {
        let wire = self.wires.get_mut(&id)?;
        wire.is_faulted = true;
        Some(wire.pipe(direction))
    }

    pub(super) fn make_hole(&mut self, id: NetId, direction: Direction) {
        if let Some(pipe) = self.faulted(id, direction) {
            pipe.is_hole = true;
        }
    }

    pub(super) fn cut_after(&mut self, id: NetId, direction: Direction, bytes: u64) {
        if let Some(pipe) = self.faulted(id, direction) {
            pipe.cut_after_bytes = Some(bytes);
        }
    }

    pub(super) fn freeze(&mut self, id: NetId, direction: Direction, until: Instant) {
        if let Some(pipe) = self.faulted(id, direction) {
            pipe.frozen_until = Some(until);
            self.due.push((until, Due::Arrive(id, direction)));
        }
    }

    pub(super) fn slow_down(&mut self, id: NetId, direction: Direction, delay: Duration, micros_per_byte: u64) {
        if let Some(pipe) = self.faulted(id, direction) {
            pipe.delay = delay;
            pipe.pace = micros_per_byte;
        }
    }
}
