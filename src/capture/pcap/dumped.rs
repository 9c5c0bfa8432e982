//! Packets of a text dump, which does not say of which network they are.

use std::time::SystemTime;

use bytes::Bytes;

use super::connections::Connections;
use super::headers::{self, Content};
use super::packets::Packet;
use crate::capture::Segment;

/// A packet whose network is to be found out.
#[derive(Debug)]
pub(in crate::capture) struct DumpedPacket {
    pub(in crate::capture) at: SystemTime,
    pub(in crate::capture) bytes: Bytes,
}

/// The segments of the packets; none if they are none of TCP.
pub(in crate::capture) fn segments_of(packets: impl Iterator<Item = DumpedPacket>) -> Vec<Segment> {
    let mut connections = Connections::default();
    let mut last = None;
    for DumpedPacket { at, bytes } in packets {
        let of_link = |link_type| {
            let packet = Packet { at, link_type, size: bytes.len(), bytes: bytes.clone() };
            match headers::content(&packet) {
                Content::Tcp(segment) => Some(segment),
                _ => None,
            }
        };
        if let Some(segment) = headers::GUESSES.into_iter().find_map(of_link) {
            connections.push(at, segment);
            last = Some(at);
        }
    }
    if let Some(at) = last {
        connections.finish_all(at);
    }
    std::iter::from_fn(|| connections.next()).collect()
}
