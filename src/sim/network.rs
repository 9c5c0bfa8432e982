//! Simulated connections: bytes in flight in both directions, and the faults of the network.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::rng::Rng;
use crate::broker::machine::ConnId;

/// The most bytes between two sockets, their buffers included.
const IN_FLIGHT_BYTES_MAX: usize = 96 * 1024;

/// Names one connection; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PairId(pub(super) u64);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Direction {
    /// From the client to the broker.
    Up,
    /// From the broker to the client.
    Down,
}

/// An event of the network at a later time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NetworkEvent {
    /// Bytes arrive, if there are any by then.
    Arrive(PairId, Direction),
    /// The connection breaks, for both ends.
    Break(PairId),
    /// The receiving end of this direction learns that the other is gone.
    End(PairId, Direction),
}

/// One direction.
#[derive(Debug)]
struct Pipe {
    chunks: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    last_arrival: Instant,
    /// Nothing arrives any more, and neither end learns of it.
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

/// The state of the client's socket behind the last byte that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientEnd {
    /// More may arrive.
    Open,
    /// The end of the stream.
    Closed,
    /// An error, on writes too.
    Reset,
}

/// One connection: two sockets, and the bytes between them.
#[derive(Debug)]
pub(super) struct SocketPair {
    pub(super) client: usize,
    pub(super) conn: ConnId,
    pub(super) broker: usize,
    up: Pipe,
    down: Pipe,
    /// Arrived at the client and not read.
    client_rx: BytesMut,
    client_end: ClientEnd,
    /// The client's task, where it waits to read or to write.
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Arrived at the broker, less than a frame.
    pub(super) broker_rx: BytesMut,
    /// Out of the broker, and not yet in the socket.
    pub(super) broker_tx: BytesMut,
    pub(super) client_gone: bool,
    pub(super) broker_gone: bool,
    /// A fault made it misbehave.
    pub(super) is_faulted: bool,
}

impl SocketPair {
    fn pipe(&mut self, direction: Direction) -> &mut Pipe {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    /// The client's socket will give no more than what has arrived.
    pub(super) fn end_client(&mut self, end: ClientEnd) {
        if self.client_end == ClientEnd::Open {
            self.client_end = end;
        }
    }

    /// The client's task, to be woken because there is something to read, or an end.
    pub(super) fn take_reader(&mut self) -> Option<Waker> {
        self.reader.take()
    }

    /// The client's task, to be woken because there is room to write, or an end.
    pub(super) fn take_writer(&mut self) -> Option<Waker> {
        self.writer.take()
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Network {
    pairs: BTreeMap<PairId, SocketPair>,
    by_conn: BTreeMap<ConnId, PairId>,
    rng: Rng,
    next: u64,
    /// The longest latency without faults.
    pub(super) delay_max: Duration,
    /// To be scheduled by the world after each call.
    pub(super) events: Vec<(Instant, NetworkEvent)>,
}

impl Network {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            pairs: BTreeMap::new(),
            by_conn: BTreeMap::new(),
            rng,
            next: 0,
            delay_max: Duration::from_millis(5),
            events: Vec::new(),
        }
    }

    pub(super) fn open(&mut self, client: usize, conn: ConnId, broker: usize, now: Instant) -> PairId {
        self.next += 1;
        let id = PairId(self.next);
        let delay = self.rng.duration(Duration::from_micros(50), self.delay_max);
        let pair = SocketPair {
            client,
            conn,
            broker,
            up: Pipe::new(delay, now),
            down: Pipe::new(delay, now),
            client_rx: BytesMut::new(),
            client_end: ClientEnd::Open,
            reader: None,
            writer: None,
            broker_rx: BytesMut::new(),
            broker_tx: BytesMut::new(),
            client_gone: false,
            broker_gone: false,
            is_faulted: false,
        };
        self.pairs.insert(id, pair);
        self.by_conn.insert(conn, id);
        id
    }

    pub(super) fn get_mut(&mut self, id: PairId) -> Option<&mut SocketPair> {
        self.pairs.get_mut(&id)
    }

    pub(super) fn get(&self, id: PairId) -> Option<&SocketPair> {
        self.pairs.get(&id)
    }

    pub(super) fn of_conn(&self, conn: ConnId) -> Option<PairId> {
        self.by_conn.get(&conn).copied()
    }

    /// Connections that neither end has closed, in order.
    pub(super) fn live(&self) -> Vec<PairId> {
        self.pairs.iter().filter(|(_, pair)| !pair.client_gone && !pair.broker_gone).map(|(id, _)| *id).collect()
    }

    /// Reads at most `max` bytes that have arrived for the client.
    pub(super) fn read(&mut self, id: PairId, max: usize, waker: &Waker) -> Poll<io::Result<Bytes>> {
        let Some(pair) = self.pairs.get_mut(&id) else { return Poll::Ready(Ok(Bytes::new())) };
        if !pair.client_rx.is_empty() && max > 0 {
            // Sometimes a few bytes only, although there are more.
            let most = if self.rng.chance(50) { self.rng.range(1, 24) as usize } else { max };
            let size = pair.client_rx.len().min(max).min(most);
            return Poll::Ready(Ok(pair.client_rx.split_to(size).freeze()));
        }
        match pair.client_end {
            ClientEnd::Open => {
                pair.reader = Some(waker.clone());
                Poll::Pending
            }
            ClientEnd::Closed => Poll::Ready(Ok(Bytes::new())),
            ClientEnd::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    /// Takes what fits of the client's bytes; how many.
    pub(super) fn write_up(
        &mut self,
        id: PairId,
        mut bytes: Bytes,
        now: Instant,
        waker: &Waker,
    ) -> Poll<io::Result<usize>> {
        if let Some(pair) = self.pairs.get_mut(&id) {
            if pair.client_end == ClientEnd::Reset {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if pair.up.room() == 0 && !bytes.is_empty() {
                pair.writer = Some(waker.clone());
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(self.write(id, Direction::Up, &mut bytes, now)))
    }

    /// Takes what fits of `bytes`, and leaves the rest; how many it took.
    pub(super) fn write(&mut self, id: PairId, direction: Direction, bytes: &mut Bytes, now: Instant) -> usize {
        let Some(pair) = self.pairs.get_mut(&id) else {
            let all = bytes.len();
            bytes.clear();
            return all;
        };
        let pipe = pair.pipe(direction);
        let mut taken = 0;
        let mut left = pipe.room().min(bytes.len());
        while left > 0 {
            // Mostly the size of a segment, sometimes a few bytes, so that frames are cut at any byte.
            let most = if self.rng.chance(150) { self.rng.range(1, 24) } else { self.rng.range(200, 9000) };
            let size = left.min(most as usize);
            let mut chunk = bytes.split_to(size);
            let jitter = self.rng.duration(Duration::ZERO, pipe.delay / 2);
            let pace = Duration::from_micros(pipe.pace * size as u64);
            let arrival = (now + pipe.delay + jitter).max(pipe.last_arrival) + pace;
            if let Some(cut) = &mut pipe.cut_after_bytes {
                if *cut < size as u64 {
                    chunk.truncate(*cut as usize);
                    self.events.push((arrival, NetworkEvent::Break(id)));
                }
                *cut = cut.saturating_sub(size as u64);
            }
            pipe.last_arrival = arrival;
            pipe.bytes += chunk.len();
            pipe.chunks.push_back((arrival, chunk));
            if !pipe.is_hole {
                self.events
                    .push((arrival.max(pipe.frozen_until.unwrap_or(arrival)), NetworkEvent::Arrive(id, direction)));
            }
            left -= size;
            taken += size;
        }
        taken
    }

    /// Moves what has arrived to the receiving end; how many bytes.
    pub(super) fn arrive(&mut self, id: PairId, direction: Direction, now: Instant) -> usize {
        let Some(pair) = self.pairs.get_mut(&id) else { return 0 };
        let (pipe, rx) = match direction {
            Direction::Up => (&mut pair.up, &mut pair.broker_rx),
            Direction::Down => (&mut pair.down, &mut pair.client_rx),
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

    /// One end is closed: the other learns it behind the last byte.
    pub(super) fn finish(&mut self, id: PairId, direction: Direction, now: Instant) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        match direction {
            Direction::Up => pair.client_gone = true,
            Direction::Down => pair.broker_gone = true,
        }
        let pipe = pair.pipe(direction);
        if !pipe.is_hole {
            let at = (now + pipe.delay).max(pipe.last_arrival).max(pipe.frozen_until.unwrap_or(now));
            self.events.push((at, NetworkEvent::End(id, direction)));
        }
    }

    /// Removes the connection once both ends are closed.
    pub(super) fn forget_if_over(&mut self, id: PairId) {
        let over = self.pairs.get(&id).is_some_and(|pair| pair.client_gone && pair.broker_gone);
        if over {
            if let Some(pair) = self.pairs.remove(&id) {
                self.by_conn.remove(&pair.conn);
            }
        }
    }

    fn faulted(&mut self, id: PairId, direction: Direction) -> Option<&mut Pipe> {
        let pair = self.pairs.get_mut(&id)?;
        pair.is_faulted = true;
        Some(pair.pipe(direction))
    }

    pub(super) fn make_hole(&mut self, id: PairId, direction: Direction) {
        if let Some(pipe) = self.faulted(id, direction) {
            pipe.is_hole = true;
        }
    }

    pub(super) fn cut_after(&mut self, id: PairId, direction: Direction, bytes: u64) {
        if let Some(pipe) = self.faulted(id, direction) {
            pipe.cut_after_bytes = Some(bytes);
        }
    }

    pub(super) fn freeze(&mut self, id: PairId, direction: Direction, until: Instant) {
        if let Some(pipe) = self.faulted(id, direction) {
            pipe.frozen_until = Some(until);
            self.events.push((until, NetworkEvent::Arrive(id, direction)));
        }
    }

    pub(super) fn slow_down(&mut self, id: PairId, direction: Direction, delay: Duration, micros_per_byte: u64) {
        if let Some(pipe) = self.faulted(id, direction) {
            pipe.delay = delay;
            pipe.pace = micros_per_byte;
        }
    }
}
