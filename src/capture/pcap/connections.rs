//! TCP connections: which end is the broker, when they begin and end, and the segments of each.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::SystemTime;

use super::headers::TcpSegment;
use super::stream::{Item, Stream};
use crate::capture::{Direction, Segment, SegmentEvent, Traffic};

/// The most connections that are remembered; beyond it those that have been silent for longest are forgotten.
const CONNECTIONS_MAX: usize = 1 << 16;

/// The most bytes of all connections that wait for earlier ones.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// The ports of a broker: plain and TLS, and its HTTP interface.
const BROKER_PORTS: [u16; 4] = [6650, 6651, 8080, 8443];

/// Two ends in ascending order.
type Ends = [SocketAddr; 2];

/// Puts the packets of all connections in order.
#[derive(Debug, Default)]
pub(super) struct Connections {
    known: HashMap<Ends, Connection>,
    /// Connections so far.
    count: u64,
    /// Packets so far.
    packets: u64,
    waiting_bytes: usize,
    out: VecDeque<Segment>,
}

#[derive(Debug)]
struct Connection {
    number: u64,
    /// The place of the client in the ends.
    client: usize,
    /// What each end sends.
    streams: [Stream; 2],
    /// The sequence number of the client's SYN.
    syn: Option<u32>,
    last_packet: u64,
    is_over: bool,
}

impl Connection {
    /// Whether a SYN with this sequence number is the one that opened it, sent again.
    fn is_opened_by(&self, sequence: u32) -> bool {
        !self.is_over && self.syn == Some(sequence)
    }

    fn direction(&self, sender: usize) -> Direction {
        if sender == self.client { Direction::ToBroker } else { Direction::ToClient }
    }
}

impl Connections {
    pub(super) fn next(&mut self) -> Option<Segment> {
        self.out.pop_front()
    }

    pub(super) fn push(&mut self, at: SystemTime, packet: TcpSegment) {
        self.packets += 1;
        let sender = usize::from(packet.source > packet.destination);
        let mut ends = [packet.source, packet.destination];
        ends.sort();
        let is_first = packet.is_syn && packet.acknowledged.is_none();
        if let Some(known) = self.known.get(&ends).filter(|known| is_first && !known.is_opened_by(packet.sequence)) {
            // The same ports again: another connection.
            if !known.is_over {
                self.finish(at, ends);
            }
            self.known.remove(&ends);
        }
        if !self.known.contains_key(&ends) {
            if !packet.is_syn && packet.payload.is_empty() && packet.cut == 0 {
                return;
            }
            self.open(at, ends, sender, &packet);
        }
        self.data(at, ends, sender, packet);
    }

    fn open(&mut self, at: SystemTime, ends: Ends, sender: usize, packet: &TcpSegment) {
        if self.known.len() >= CONNECTIONS_MAX {
            self.forget(at);
        }
        self.count += 1;
        let client = match (packet.is_syn, packet.acknowledged) {
            (true, None) => sender,
            (true, Some(_)) => 1 - sender,
            _ => client_of(ends, sender, &packet.payload),
        };
        let is_first = packet.is_syn && packet.acknowledged.is_none();
        let connection = Connection {
            number: self.count,
            client,
            streams: Default::default(),
            syn: is_first.then_some(packet.sequence),
            last_packet: self.packets,
            is_over: false,
        };
        let event = SegmentEvent::Opened { client: ends[client], broker: ends[1 - client], is_partial: !packet.is_syn };
        self.out.push_back(Segment { connection: self.count, at, event });
        self.known.insert(ends, connection);
    }

    fn data(&mut self, at: SystemTime, ends: Ends, sender: usize, packet: TcpSegment) {
        let Some(connection) = self.known.get_mut(&ends) else { return };
        connection.last_packet = self.packets;
        if connection.is_over {
            return;
        }
        let before: usize = connection.streams.iter().map(Stream::waiting_bytes).sum();
        let (mut sent, mut confirmed) = (Vec::new(), Vec::new());
        let [first, second] = &mut connection.streams;
        let (own, other) = if sender == 0 { (first, second) } else { (second, first) };
        let sequence = packet.sequence.wrapping_add(u32::from(packet.is_syn));
        if packet.is_syn {
            own.start(sequence);
            if let Some(acknowledged) = packet.acknowledged {
                other.start(acknowledged);
            }
        }
        if !packet.payload.is_empty() || packet.cut > 0 || packet.is_fin {
            own.push(sequence, packet.payload, packet.cut, packet.is_fin, &mut sent);
        }
        if let Some(acknowledged) = packet.acknowledged {
            other.acknowledge(acknowledged, &mut confirmed);
        }
        let after: usize = connection.streams.iter().map(Stream::waiting_bytes).sum();
        self.waiting_bytes = self.waiting_bytes + after - before;
        self.put(at, ends, 1 - sender, confirmed);
        self.put(at, ends, sender, sent);
        if packet.is_reset {
            self.finish(at, ends);
            self.end(at, ends, sender, true);
        } else {
            self.end(at, ends, sender, false);
            self.end(at, ends, 1 - sender, false);
        }
        if self.waiting_bytes > WAITING_BYTES_MAX {
            self.finish(at, ends);
        }
    }

    fn put(&mut self, at: SystemTime, ends: Ends, sender: usize, items: Vec<Item>) {
        let Some(connection) = self.known.get(&ends) else { return };
        let direction = connection.direction(sender);
        for item in items {
            let event = match item {
                Item::Bytes(bytes) => SegmentEvent::Bytes { direction, bytes },
                Item::Missing(count) => SegmentEvent::Missing { direction, count },
            };
            self.out.push_back(Segment { connection: connection.number, at, event });
        }
    }

    /// Tells of the end of a direction, once.
    fn end(&mut self, at: SystemTime, ends: Ends, sender: usize, is_reset: bool) {
        let Some(connection) = self.known.get_mut(&ends) else { return };
        let direction = connection.direction(sender);
        if is_reset || connection.streams[sender].ends_now() {
            let event = SegmentEvent::Closed { direction, is_reset };
            self.out.push_back(Segment { connection: connection.number, at, event });
        }
        connection.is_over |= is_reset || connection.streams.iter().all(Stream::is_ended);
    }

    /// Gives out all that waits of a connection.
    fn finish(&mut self, at: SystemTime, ends: Ends) {
        for sender in [0, 1] {
            let Some(connection) = self.known.get_mut(&ends).filter(|connection| !connection.is_over) else { return };
            let mut items = Vec::new();
            let stream = &mut connection.streams[sender];
            self.waiting_bytes -= stream.waiting_bytes();
            stream.finish(&mut items);
            self.put(at, ends, sender, items);
            self.end(at, ends, sender, false);
        }
    }

    /// The end of the capture.
    pub(super) fn finish_all(&mut self, at: SystemTime) {
        let mut open: Vec<_> = self.known.iter().map(|(ends, connection)| (connection.number, *ends)).collect();
        open.sort();
        for (_, ends) in open {
            self.finish(at, ends);
        }
        self.known.clear();
    }

    /// Forgets the half of the connections that have been silent for longest.
    fn forget(&mut self, at: SystemTime) {
        let mut all: Vec<_> = self.known.iter().map(|(ends, known)| (known.last_packet, *ends)).collect();
        all.sort();
        for (_, ends) in all.into_iter().take(CONNECTIONS_MAX / 2) {
            self.finish(at, ends);
            self.known.remove(&ends);
        }
    }
}

/// Which end is the client, of a connection whose beginning is not there: by what the first bytes are, by the ports of a
/// broker, by the higher port.
fn client_of(ends: Ends, sender: usize, first: &[u8]) -> usize {
    match Traffic::sender(first) {
        Some(Direction::ToBroker) => return sender,
        Some(Direction::ToClient) => return 1 - sender,
        None => {}
    }
    let is_broker = ends.map(|end| BROKER_PORTS.contains(&end.port()));
    match is_broker {
        [true, false] => 1,
        [false, true] => 0,
        _ => usize::from(ends[0].port() < ends[1].port()),
    }
}
