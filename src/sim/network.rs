//! Simulated connections: bytes in flight in both directions, and the faults of the network.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::rng::Rng;
use crate::broker::machine::ConnId;

/// The most bytes between two sockets, their buffers included.
const IN_FLIGHT_BYTES_MAX: usize = 96 * 1024;

/// Identifies one connection; not reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PairId(pub(super) u64);

/// The number of a cluster, and a connection as its brokers number it.
pub(super) type ClusterConn = (usize, ConnId);

/// The direction of bytes on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Direction {
    /// From the client to the broker.
    ToBroker,
    /// From the broker to the client.
    ToClient,
}

/// An event of the network at a later time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NetworkEvent {
    /// Bytes arrive, if there are any by then.
    Arrive(PairId, Direction),
    /// The connection breaks, for both ends.
    Break(PairId),
    /// The receiving end of this direction is notified that the other end has closed.
    End(PairId, Direction),
}

/// One direction.
#[derive(Debug)]
struct Pipe {
    chunks: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    last_arrival: Instant,
    /// Nothing arrives any longer, and neither end is notified.
    is_blackholed: bool,
    reads_stalled_until: Option<Instant>,
    disconnect_after_bytes: Option<u64>,
    delay: Duration,
    /// The further time that each byte takes.
    per_byte: Duration,
}

impl Pipe {
    fn new(delay: Duration, now: Instant) -> Self {
        Self {
            chunks: VecDeque::new(),
            bytes: 0,
            last_arrival: now,
            is_blackholed: false,
            reads_stalled_until: None,
            disconnect_after_bytes: None,
            delay,
            per_byte: Duration::ZERO,
        }
    }

    fn free_bytes(&self) -> usize {
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
    pub(super) conn: ClusterConn,
    /// The broker's number in its cluster.
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
    pub(super) client_closed: bool,
    pub(super) broker_closed: bool,
    /// A fault of the network was injected into it.
    pub(super) is_faulted: bool,
}

impl SocketPair {
    fn pipe(&mut self, direction: Direction) -> &mut Pipe {
        match direction {
            Direction::ToBroker => &mut self.up,
            Direction::ToClient => &mut self.down,
        }
    }

    /// The client's socket ends behind what has arrived.
    pub(super) fn end_client(&mut self, end: ClientEnd) {
        if self.client_end == ClientEnd::Open {
            self.client_end = end;
        }
    }

    /// The client's task, to be woken because there is something to read, or the stream has ended.
    pub(super) fn take_reader(&mut self) -> Option<Waker> {
        self.reader.take()
    }

    /// The client's task, to be woken because it can write again, or the stream has ended.
    pub(super) fn take_writer(&mut self) -> Option<Waker> {
        self.writer.take()
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Network {
    pairs: BTreeMap<PairId, SocketPair>,
    by_conn: BTreeMap<ClusterConn, PairId>,
    /// Removed connections that a fault was injected into. It grows with one run.
    removed_faulted: BTreeSet<ClusterConn>,
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
            removed_faulted: BTreeSet::new(),
            rng,
            next: 0,
            delay_max: Duration::from_millis(5),
            events: Vec::new(),
        }
    }

    pub(super) fn open(&mut self, client: usize, conn: ClusterConn, broker: usize, now: Instant) -> PairId {
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
            client_closed: false,
            broker_closed: false,
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

    pub(super) fn of_conn(&self, conn: ClusterConn) -> Option<PairId> {
        self.by_conn.get(&conn).copied()
    }

    /// Whether a fault of the network was injected into the connection.
    pub(super) fn is_faulted(&self, conn: ClusterConn) -> bool {
        let pair = self.of_conn(conn).and_then(|id| self.get(id));
        pair.is_some_and(|pair| pair.is_faulted) || self.removed_faulted.contains(&conn)
    }

    /// Connections that neither end has closed, in order.
    pub(super) fn live(&self) -> Vec<PairId> {
        self.pairs.iter().filter(|(_, pair)| !pair.client_closed && !pair.broker_closed).map(|(id, _)| *id).collect()
    }

    /// Reads at most `max` bytes that have arrived for the client.
    pub(super) fn read(&mut self, id: PairId, max: usize, waker: &Waker) -> Poll<io::Result<Bytes>> {
        let Some(pair) = self.pairs.get_mut(&id) else { return Poll::Ready(Ok(Bytes::new())) };
        if !pair.client_rx.is_empty() && max > 0 {
            // Sometimes a few bytes only, although there are more.
            let most = if self.rng.chance_per_mille(50) { self.rng.range_inclusive(1, 24) as usize } else { max };
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

    /// Takes as many of the client's bytes as fit; returns how many.
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
            if pair.up.free_bytes() == 0 && !bytes.is_empty() {
                pair.writer = Some(waker.clone());
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(self.write(id, Direction::ToBroker, &mut bytes, now)))
    }

    /// Takes as many of `bytes` as fit, and leaves the rest; returns how many it took.
    pub(super) fn write(&mut self, id: PairId, direction: Direction, bytes: &mut Bytes, now: Instant) -> usize {
        let Some(pair) = self.pairs.get_mut(&id) else {
            let all = bytes.len();
            bytes.clear();
            return all;
        };
        let pipe = pair.pipe(direction);
        let mut taken = 0;
        let mut to_take = pipe.free_bytes().min(bytes.len());
        while to_take > 0 {
            // Mostly the size of a segment, sometimes a few bytes, so that frames are cut at any byte.
            let most = if self.rng.chance_per_mille(150) {
                self.rng.range_inclusive(1, 24)
            } else {
                self.rng.range_inclusive(200, 9000)
            };
            let size = to_take.min(most as usize);
            let mut chunk = bytes.split_to(size);
            let jitter = self.rng.duration(Duration::ZERO, pipe.delay / 2);
            let transfer = pipe.per_byte * size as u32;
            let arrival = (now + pipe.delay + jitter).max(pipe.last_arrival) + transfer;
            if let Some(left) = &mut pipe.disconnect_after_bytes {
                if *left < size as u64 {
                    chunk.truncate(*left as usize);
                    self.events.push((arrival, NetworkEvent::Break(id)));
                }
                *left = left.saturating_sub(size as u64);
            }
            pipe.last_arrival = arrival;
            pipe.bytes += chunk.len();
            pipe.chunks.push_back((arrival, chunk));
            if !pipe.is_blackholed {
                self.events.push((
                    arrival.max(pipe.reads_stalled_until.unwrap_or(arrival)),
                    NetworkEvent::Arrive(id, direction),
                ));
            }
            to_take -= size;
            taken += size;
        }
        taken
    }

    /// Moves what has arrived to the receiving end; returns how many bytes.
    pub(super) fn arrive(&mut self, id: PairId, direction: Direction, now: Instant) -> usize {
        let Some(pair) = self.pairs.get_mut(&id) else { return 0 };
        let (pipe, rx) = match direction {
            Direction::ToBroker => (&mut pair.up, &mut pair.broker_rx),
            Direction::ToClient => (&mut pair.down, &mut pair.client_rx),
        };
        if pipe.is_blackholed || pipe.reads_stalled_until.is_some_and(|until| until > now) {
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

    /// One end is closed: the other is notified behind the last byte.
    pub(super) fn finish(&mut self, id: PairId, direction: Direction, now: Instant) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        match direction {
            Direction::ToBroker => pair.client_closed = true,
            Direction::ToClient => pair.broker_closed = true,
        }
        let pipe = pair.pipe(direction);
        if !pipe.is_blackholed {
            let at = (now + pipe.delay).max(pipe.last_arrival).max(pipe.reads_stalled_until.unwrap_or(now));
            self.events.push((at, NetworkEvent::End(id, direction)));
        }
    }

    /// Removes the connection once both ends are closed.
    pub(super) fn remove_if_closed(&mut self, id: PairId) {
        let is_closed = self.pairs.get(&id).is_some_and(|pair| pair.client_closed && pair.broker_closed);
        if is_closed {
            if let Some(pair) = self.pairs.remove(&id) {
                self.by_conn.remove(&pair.conn);
                if pair.is_faulted {
                    self.removed_faulted.insert(pair.conn);
                }
            }
        }
    }

    fn faulted(&mut self, id: PairId, direction: Direction) -> Option<&mut Pipe> {
        let pair = self.pairs.get_mut(&id)?;
        pair.is_faulted = true;
        Some(pair.pipe(direction))
    }

    pub(super) fn blackhole(&mut self, id: PairId, direction: Direction) {
        if let Some(pipe) = self.faulted(id, direction) {
            pipe.is_blackholed = true;
        }
    }

    pub(super) fn disconnect_after(&mut self, id: PairId, direction: Direction, bytes: u64) {
        if let Some(pipe) = self.faulted(id, direction) {
            pipe.disconnect_after_bytes = Some(bytes);
        }
    }

    pub(super) fn stall_reads(&mut self, id: PairId, direction: Direction, until: Instant) {
        if let Some(pipe) = self.faulted(id, direction) {
            pipe.reads_stalled_until = Some(until);
            self.events.push((until, NetworkEvent::Arrive(id, direction)));
        }
    }

    pub(super) fn slow_down(&mut self, id: PairId, direction: Direction, delay: Duration, per_byte: Duration) {
        if let Some(pipe) = self.faulted(id, direction) {
            pipe.delay = delay;
            pipe.per_byte = per_byte;
        }
    }
}
