//! pcap and pcapng files: packets, their headers, and the bytes of each TCP connection in order.
//!
//! ```text
//! file --packets--> Packet --headers--> TcpSegment --connections, stream--> Segment
//! ```

mod connections;
mod dumped;
mod headers;
mod packets;
mod stream;

#[cfg(test)]
mod tests;

use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use self::connections::Connections;
use self::headers::Content;
use self::packets::Packets;
use super::{CaptureError, Segment};

pub(super) use self::dumped::{DumpedPacket, segments_of};
pub use self::packets::is_capture;

/// Reads a pcap or pcapng file as [`Segment`]s: all its TCP connections, in the order of time.
///
/// Known are Ethernet (with VLAN tags), Linux cooked captures (both versions), loopback and raw IP; IPv4 and IPv6; all byte orders
/// and resolutions of time. Retransmissions, overlaps and reordering are undone. Bytes that the capture lacks are
/// [`SegmentEvent::Missing`](super::SegmentEvent::Missing): as soon as the other side has acknowledged them and 64 more packets of the
/// connection have come without them, or more than 4 MiB wait for them, else at the end. Packets cut by the capture's snap length lack their end.
///
/// Which end is the broker is told by the SYN; without it by the first bytes, if a frame starts there; else the end with port 6650,
/// 6651, 8080 or 8443, or with the lower port. What is not TCP is left out and [counted](Self::counts); what is on a connection,
/// Pulsar's protocol or another, [`Traffic`](super::Traffic) tells.
///
/// A file is read in pieces. What is kept is bounded: 64 MiB of bytes that wait for earlier ones, 65,536 connections, one block of
/// the file (at most 16 MiB).
///
/// An error is the last item. Behind a file that is cut come first the segments of all whole packets, then
/// [`CaptureError::Truncated`].
pub struct SegmentReader<R> {
    packets: Packets<R>,
    connections: Connections,
    counts: PacketCounts,
    /// The time of the last packet.
    at: SystemTime,
    end: End,
}

/// What a capture holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PacketCounts {
    /// All packets.
    pub packets: u64,
    /// Those of TCP.
    pub tcp: u64,
    /// Fragments of IP packets, which are left out.
    pub fragments: u64,
    /// Those of TCP that the capture cut.
    pub cut: u64,
    /// Those of a network that is not known here, which are left out.
    pub unknown_link: u64,
}

enum End {
    NotYet,
    /// All packets are read; what ended them is told behind the last segment.
    Read(Option<CaptureError>),
}

impl<R: Read> SegmentReader<R> {
    /// Reads `file`, which needs no buffer of its own.
    #[must_use]
    pub fn new(file: R) -> Self {
        Self {
            packets: Packets::new(file),
            connections: Connections::default(),
            counts: PacketCounts::default(),
            at: UNIX_EPOCH,
            end: End::NotYet,
        }
    }

    /// What has been read so far.
    #[must_use]
    pub fn counts(&self) -> PacketCounts {
        self.counts
    }

    /// The comment in the header of the section of a pcapng file that is read, once that was read: in a
    /// [recording](crate::capture::recording) what of it is overwritten.
    #[must_use]
    pub fn comment(&self) -> Option<&str> {
        self.packets.comment()
    }

    fn read_packet(&mut self) {
        let end = match self.packets.next() {
            Ok(Some(packet)) => {
                self.counts.packets += 1;
                self.at = packet.at;
                self.counts.unknown_link += u64::from(!headers::is_known(packet.link_type));
                match headers::content(&packet) {
                    Content::Tcp(segment) => {
                        self.counts.tcp += 1;
                        self.counts.cut += u64::from(segment.cut > 0);
                        self.connections.push(packet.at, segment);
                    }
                    Content::Fragment => self.counts.fragments += 1,
                    Content::Other => {}
                }
                return;
            }
            Ok(None) => None,
            Err(error) => Some(error),
        };
        self.connections.finish_all(self.at);
        self.end = End::Read(end);
    }
}

impl<R: Read> Iterator for SegmentReader<R> {
    type Item = Result<Segment, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(segment) = self.connections.next() {
                return Some(Ok(segment));
            }
            match &mut self.end {
                End::NotYet => self.read_packet(),
                End::Read(error) => return error.take().map(Err),
            }
        }
    }
}

impl<R> std::fmt::Debug for SegmentReader<R> {
    /// Does not show what was captured.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentReader").field("counts", &self.counts).finish_non_exhaustive()
    }
}
