//! Segments written as a capture file: pcapng, with TCP/IP headers made up, so that Wireshark and every reader of captures opens it.
//!
//! ```text
//! section header   with a comment: what was overwritten, if anything
//! interface        link type raw IP, times in nanoseconds
//! packet ...       SYN, SYN-ACK, ACK; data, each with the next sequence number; FIN or RST
//! ```
//!
//! Bytes that are missing are a packet whose data was not captured, so that a reader waits for no retransmission. A connection whose beginning was not captured has no SYN.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Direction, Segment, SegmentEvent};

/// The comment in the section header of a recording whose credentials and payloads are overwritten: checksums were made right again where
/// they had been, lengths are what they were.
pub const MASKED: &str = "pulsar-native: credentials and payloads are overwritten, checksums are made to fit";

/// The comment in the section header of a recording that has everything.
pub const UNMASKED: &str = "pulsar-native: credentials and payloads are as they were sent";

/// The comment in the section header of a recording with credentials overwritten and payloads as they were.
pub const TOKENS_MASKED: &str = "pulsar-native: credentials are overwritten";

/// The comment in the section header of a recording with payloads overwritten and credentials as they were.
pub const PAYLOADS_MASKED: &str = "pulsar-native: payloads are overwritten, checksums are made to fit";

/// Data in one packet, bytes: with its headers it fits the 16 bits that IPv4 has for it.
const PACKET_DATA_BYTES_MAX: usize = 60_000;

/// The largest gap, bytes: a larger one is one of so many. A packet that is longer than IP can say has no length in its header, as those
/// that a network card has yet to cut.
const MISSING_BYTES_MAX: usize = 1 << 30;

/// Odd, so that no two of 2^32 connections begin with the same sequence number.
const SEQUENCES_APART: u32 = 0x9e37_79b9;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// `LINKTYPE_RAW`: packets begin with their IP header.
const LINK_RAW_IP: u16 = 101;
const OPTION_COMMENT: u16 = 1;
const OPTION_TIME_RESOLUTION: u16 = 9;
/// 10^-9 s.
const NANOSECONDS: u8 = 9;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const PROTOCOL_TCP: u8 = 6;
const TCP_HEADER_BYTES: usize = 20;

/// Writes segments as they come. Nothing is buffered here: hand it a buffered writer, and [`flush`](Self::flush) it.
#[derive(Debug)]
pub struct Recording<W> {
    out: W,
    flows: BTreeMap<u64, Flow>,
}

/// One connection.
#[derive(Debug)]
struct Flow {
    client: SocketAddr,
    broker: SocketAddr,
    /// The next sequence number of each direction.
    next: [u32; 2],
    is_closed: [bool; 2],
}

impl<W: Write> Recording<W> {
    /// Begins a file. `comment` is that of its section header: [`MASKED`], [`UNMASKED`] or any other text.
    ///
    /// # Errors
    /// The writer's.
    pub fn new(out: W, comment: &str) -> io::Result<Self> {
        let mut recording = Self { out, flows: BTreeMap::new() };
        let mut body = Vec::new();
        body.extend(BYTE_ORDER.to_le_bytes());
        body.extend([1, 0, 0, 0]);
        body.extend(u64::MAX.to_le_bytes());
        put_option(&mut body, OPTION_COMMENT, comment.as_bytes());
        body.extend([0; 4]);
        recording.block(SECTION_HEADER, &body)?;
        let mut body = Vec::new();
        body.extend(u32::from(LINK_RAW_IP).to_le_bytes());
        body.extend([0; 4]);
        put_option(&mut body, OPTION_TIME_RESOLUTION, &[NANOSECONDS]);
        body.extend([0; 4]);
        recording.block(INTERFACE, &body)?;
        Ok(recording)
    }

    /// Writes a segment. Those of a connection whose `Opened` was not written are left out, and those of one whose addresses and ports
    /// another has by now: a reader would take them for the other's.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(&mut self, segment: &Segment) -> io::Result<()> {
        let (id, at) = (segment.connection, segment.at);
        match &segment.event {
            SegmentEvent::Opened { client, broker, is_partial } => self.open(id, at, *client, *broker, *is_partial),
            SegmentEvent::Bytes { direction, bytes } => {
                for data in bytes.chunks(PACKET_DATA_BYTES_MAX) {
                    self.packet(id, at, *direction, PSH | ACK, data, 0)?;
                }
                Ok(())
            }
            SegmentEvent::Missing { direction, count } => {
                let missing = usize::try_from(*count).unwrap_or(usize::MAX).min(MISSING_BYTES_MAX);
                self.packet(id, at, *direction, PSH | ACK, &[], missing)
            }
            SegmentEvent::Closed { direction, is_reset } => self.close(id, at, *direction, *is_reset),
        }
    }

    /// Hands everything on that the writer holds.
    ///
    /// # Errors
    /// The writer's.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// The writer; what it holds is not flushed.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn open(
        &mut self,
        id: u64,
        at: SystemTime,
        client: SocketAddr,
        broker: SocketAddr,
        is_partial: bool,
    ) -> io::Result<()> {
        self.flows.retain(|_, flow| (flow.client, flow.broker) != (client, broker));
        // Another for each connection: by it readers tell a second one between the same ports from a SYN that was sent twice.
        let first = (id as u32).wrapping_mul(SEQUENCES_APART);
        self.flows.insert(id, Flow { client, broker, next: [first; 2], is_closed: [false; 2] });
        if is_partial {
            return Ok(());
        }
        self.packet(id, at, Direction::ToBroker, SYN, &[], 0)?;
        self.packet(id, at, Direction::ToClient, SYN | ACK, &[], 0)?;
        self.packet(id, at, Direction::ToBroker, ACK, &[], 0)
    }

    fn close(&mut self, id: u64, at: SystemTime, direction: Direction, is_reset: bool) -> io::Result<()> {
        self.packet(id, at, direction, if is_reset { RST | ACK } else { FIN | ACK }, &[], 0)?;
        let Some(flow) = self.flows.get_mut(&id) else { return Ok(()) };
        flow.is_closed[index(direction)] = true;
        if is_reset || flow.is_closed == [true; 2] {
            self.flows.remove(&id);
        }
        Ok(())
    }

    /// A packet with `data`, and with `missing` bytes that were not captured behind it.
    fn packet(
        &mut self,
        id: u64,
        at: SystemTime,
        direction: Direction,
        flags: u8,
        data: &[u8],
        missing: usize,
    ) -> io::Result<()> {
        let Some(flow) = self.flows.get_mut(&id) else { return Ok(()) };
        let packet = flow.packet(direction, flags, data, missing);
        let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let nanoseconds = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let [captured, sent] = [packet.len(), packet.len() + missing].map(|bytes| (bytes as u32).to_le_bytes());
        let mut body = Vec::with_capacity(packet.len() + 24);
        body.extend([0; 4]);
        body.extend(((nanoseconds >> 32) as u32).to_le_bytes());
        body.extend((nanoseconds as u32).to_le_bytes());
        body.extend(captured);
        body.extend(sent);
        body.extend(packet);
        pad(&mut body);
        self.block(ENHANCED_PACKET, &body)
    }

    /// `body` is a multiple of four bytes.
    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let length = (body.len() as u32 + 12).to_le_bytes();
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&length)?;
        self.out.write_all(body)?;
        self.out.write_all(&length)
    }
}

fn index(direction: Direction) -> usize {
    match direction {
        Direction::ToBroker => 0,
        Direction::ToClient => 1,
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn put_option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    out.extend(code.to_le_bytes());
    out.extend((value.len() as u16).to_le_bytes());
    out.extend(value);
    pad(out);
}

impl Flow {
    /// An IP packet, from the IP header on; moves the sequence number.
    fn packet(&mut self, direction: Direction, flags: u8, data: &[u8], missing: usize) -> Vec<u8> {
        let (from, to) = match direction {
            Direction::ToBroker => (self.client, self.broker),
            Direction::ToClient => (self.broker, self.client),
        };
        let [sequence, acknowledged] = [direction, direction.reversed()].map(|direction| self.next[index(direction)]);
        // SYN and FIN count as one byte.
        let counted = (data.len() + missing) as u32 + u32::from(flags & (SYN | FIN) != 0);
        self.next[index(direction)] = sequence.wrapping_add(counted);
        let mut tcp = Vec::with_capacity(TCP_HEADER_BYTES + data.len());
        tcp.extend(from.port().to_be_bytes());
        tcp.extend(to.port().to_be_bytes());
        tcp.extend(sequence.to_be_bytes());
        tcp.extend(if flags & ACK == 0 { 0 } else { acknowledged }.to_be_bytes());
        tcp.extend([(TCP_HEADER_BYTES as u8 / 4) << 4, flags]);
        tcp.extend(u16::MAX.to_be_bytes());
        // Checksum and urgent pointer.
        tcp.extend([0; 4]);
        tcp.extend(data);
        match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(from.octets(), to.octets(), tcp, missing),
            (from, to) => ipv6(v6(from), v6(to), tcp, missing),
        }
    }
}

/// In a connection over both families, as a proxy may make one, all addresses are written as IPv6.
fn v6(address: IpAddr) -> [u8; 16] {
    let address: Ipv6Addr = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    address.octets()
}

fn ipv4(from: [u8; 4], to: [u8; 4], mut tcp: Vec<u8>, missing: usize) -> Vec<u8> {
    let bytes = tcp.len() + missing;
    let length = (bytes as u16).to_be_bytes();
    sum_tcp(&mut tcp, &[&from, &to, &[0, PROTOCOL_TCP], &length]);
    let mut packet = vec![0x45, 0];
    packet.extend(u16::try_from(20 + bytes).unwrap_or(0).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, PROTOCOL_TCP, 0, 0]);
    packet.extend(from);
    packet.extend(to);
    let sum = checksum(&[&packet]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet.extend(tcp);
    packet
}

fn ipv6(from: [u8; 16], to: [u8; 16], mut tcp: Vec<u8>, missing: usize) -> Vec<u8> {
    let bytes = tcp.len() + missing;
    let length = (bytes as u32).to_be_bytes();
    sum_tcp(&mut tcp, &[&from, &to, &length, &[0, 0, 0, PROTOCOL_TCP]]);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(bytes).unwrap_or(0).to_be_bytes());
    packet.extend([PROTOCOL_TCP, 64]);
    packet.extend(from);
    packet.extend(to);
    packet.extend(tcp);
    packet
}

/// Sets the checksum of a TCP segment, as of what is there; `pseudo` is what IP adds to it.
fn sum_tcp(tcp: &mut [u8], pseudo: &[&[u8]]) {
    let mut parts = pseudo.to_vec();
    parts.push(tcp);
    let sum = checksum(&parts).to_be_bytes();
    tcp[16..18].copy_from_slice(&sum);
}

/// The Internet checksum (RFC 1071); all parts but the last have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::capture::SegmentReader;

    #[test]
    fn blocks_have_their_length_at_both_ends_and_sums_are_right() {
        let mut recording = Recording::new(Vec::new(), MASKED).expect("a Vec takes it");
        let at = UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
        let events = [
            SegmentEvent::Opened {
                client: "127.0.0.1:50000".parse().expect("an address"),
                broker: "[::1]:6650".parse().expect("an address"),
                is_partial: false,
            },
            SegmentEvent::Bytes { direction: Direction::ToBroker, bytes: Bytes::from(vec![7; 130_001]) },
            SegmentEvent::Missing { direction: Direction::ToClient, count: 9 },
            SegmentEvent::Closed { direction: Direction::ToClient, is_reset: true },
        ];
        for event in events {
            recording.write(&Segment { connection: 3, at, event }).expect("a Vec takes it");
        }
        let file = recording.into_inner();
        let (mut rest, mut kinds, mut missing) = (&file[..], Vec::new(), 0);
        while !rest.is_empty() {
            let number = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("four bytes"));
            let length = number(4) as usize;
            assert_eq!(number(length - 4) as usize, length);
            if number(0) == ENHANCED_PACKET {
                let (captured, sent) = (number(20) as usize, number(24) as usize);
                let packet = &rest[28..28 + captured];
                let length = ((sent - 40) as u32).to_be_bytes();
                let parts = [&packet[8..40], &length, &[0, 0, 0, PROTOCOL_TCP], &packet[40..]];
                assert_eq!(checksum(&parts), 0, "with its own checksum the sum is zero");
                missing += sent - captured;
            }
            kinds.push(number(0));
            rest = &rest[length..];
        }
        // Three to open, three of data, one of what is missing, one to close.
        assert_eq!((kinds.len(), kinds[0], kinds[1], missing), (10, SECTION_HEADER, INTERFACE, 9));
    }

    /// The system may give a client's port again before the end of the first connection is seen.
    #[test]
    fn a_second_connection_between_the_same_ports_is_one_of_its_own() {
        let mut recording = Recording::new(Vec::new(), MASKED).expect("a Vec takes it");
        let opened = || SegmentEvent::Opened {
            client: "127.0.0.1:50000".parse().expect("an address"),
            broker: "127.0.0.1:6650".parse().expect("an address"),
            is_partial: false,
        };
        let bytes = |text: &'static str| SegmentEvent::Bytes { direction: Direction::ToBroker, bytes: text.into() };
        let reset = || SegmentEvent::Closed { direction: Direction::ToBroker, is_reset: true };
        let written = [
            (1, opened()),
            (1, bytes("first")),
            (2, opened()),
            (1, reset()),
            (2, bytes("second")),
            (2, reset()),
            (3, opened()),
            (3, bytes("third")),
        ];
        for (connection, event) in written {
            recording.write(&Segment { connection, at: UNIX_EPOCH, event }).expect("a Vec takes it");
        }
        let file = recording.into_inner();
        let mut read = Vec::new();
        for segment in SegmentReader::new(&file[..]) {
            let Segment { connection, event, .. } = segment.expect("a whole file");
            if let SegmentEvent::Bytes { bytes, .. } = event {
                read.push((connection, String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
        assert_eq!(read, [(1, "first".to_owned()), (2, "second".to_owned()), (3, "third".to_owned())]);
    }
}
