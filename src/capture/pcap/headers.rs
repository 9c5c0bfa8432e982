//! What a packet's headers say, from its network up to TCP.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, TransportSlice};

use super::packets::Packet;

/// Link types, as <https://www.tcpdump.org/linktypes.html> numbers them.
const ETHERNET: i32 = 1;
const RAW_IP: i32 = 101;
const NULL: i32 = 0;
const RAW_BSD: i32 = 12;
const RAW_OPENBSD: i32 = 14;
const LOOP: i32 = 108;
const LINUX_COOKED: i32 = 113;
const IPV4: i32 = 228;
const IPV6: i32 = 229;
const LINUX_COOKED_2: i32 = 276;

/// Those that packets of unknown origin are tried as.
pub(super) const GUESSES: [i32; 5] = [RAW_IP, ETHERNET, LINUX_COOKED, LINUX_COOKED_2, NULL];

/// Bytes of the headers that etherparse does not read.
const LOOPBACK_HEADER_BYTES: usize = 4;
const LINUX_COOKED_HEADER_BYTES: usize = 16;
const LINUX_COOKED_2_HEADER_BYTES: usize = 20;

/// A TCP segment of a packet.
#[derive(Debug)]
pub(super) struct TcpSegment {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) sequence: u32,
    /// If the segment has one.
    pub(super) acknowledged: Option<u32>,
    pub(super) is_syn: bool,
    pub(super) is_fin: bool,
    pub(super) is_reset: bool,
    pub(super) payload: Bytes,
    /// Bytes behind the payload that the capture cut off.
    pub(super) cut: u32,
}

/// What is in a packet.
#[derive(Debug)]
pub(super) enum Content {
    Tcp(TcpSegment),
    /// A part of an IP packet, whose TCP header may be in another.
    Fragment,
    /// Anything else, also a packet that is cut within its headers.
    Other,
}

pub(super) fn is_known(link_type: i32) -> bool {
    matches!(
        link_type,
        NULL | ETHERNET | RAW_BSD | RAW_OPENBSD | RAW_IP | LOOP | LINUX_COOKED | IPV4 | IPV6 | LINUX_COOKED_2
    )
}

pub(super) fn content(packet: &Packet) -> Content {
    match sliced(packet) {
        Some(sliced) => tcp(packet, &sliced),
        None => Content::Other,
    }
}

fn sliced(packet: &Packet) -> Option<LaxSlicedPacket<'_>> {
    let bytes = &packet.bytes[..];
    let behind = |header: usize| LaxSlicedPacket::from_ip(bytes.get(header..)?).ok();
    let of_type = |at: usize, header: usize| {
        let ether_type = bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)?;
        Some(LaxSlicedPacket::from_ether_type(EtherType(ether_type), bytes.get(header..)?))
    };
    match packet.link_type {
        ETHERNET => LaxSlicedPacket::from_ethernet(bytes).ok(),
        NULL | LOOP => behind(LOOPBACK_HEADER_BYTES),
        RAW_IP | RAW_BSD | RAW_OPENBSD | IPV4 | IPV6 => behind(0),
        LINUX_COOKED => of_type(LINUX_COOKED_HEADER_BYTES - 2, LINUX_COOKED_HEADER_BYTES),
        LINUX_COOKED_2 => of_type(0, LINUX_COOKED_2_HEADER_BYTES),
        _ => None,
    }
}

fn tcp(packet: &Packet, sliced: &LaxSlicedPacket<'_>) -> Content {
    // By the headers, how many bytes follow those of IP.
    let (source, destination, declared): (IpAddr, IpAddr, usize) = match &sliced.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let declared = usize::from(header.total_len()).saturating_sub(4 * usize::from(header.ihl()));
            (header.source_addr().into(), header.destination_addr().into(), declared)
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let declared = usize::from(header.payload_length()).saturating_sub(ip.extensions().slice().len());
            (header.source_addr().into(), header.destination_addr().into(), declared)
        }
        _ => return Content::Other,
    };
    let Some(ip_payload) = sliced.ip_payload() else { return Content::Other };
    if ip_payload.fragmented {
        return Content::Fragment;
    }
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { return Content::Other };
    // Captured before the network card cuts it into packets, a large one can have no length of its own.
    let cut = match declared {
        0 => packet.size - packet.bytes.len(),
        declared => declared.saturating_sub(ip_payload.payload.len()),
    };
    Content::Tcp(TcpSegment {
        source: SocketAddr::new(source, tcp.source_port()),
        destination: SocketAddr::new(destination, tcp.destination_port()),
        sequence: tcp.sequence_number(),
        acknowledged: tcp.ack().then(|| tcp.acknowledgment_number()),
        is_syn: tcp.syn(),
        is_fin: tcp.fin(),
        is_reset: tcp.rst(),
        payload: packet.bytes.slice_ref(tcp.payload()),
        cut: u32::try_from(cut).unwrap_or(u32::MAX),
    })
}
