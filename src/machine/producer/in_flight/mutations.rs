//! Planted bugs in what is written again after a new attach. They do nothing unless their [`Mutation`] is switched on.

use bytes::{Bytes, BytesMut};

use super::{GroupFrames, InFlight, OneOrMore, SealedEntry, SealedFrame};
use crate::machine::mutation::{self, Mutation};
use crate::wire::frame::{Frame, frames};

pub(super) fn apply(in_flight: &mut InFlight) {
    if mutation::is(Mutation::ReorderOnResend) {
        swap_oldest(in_flight);
    }
    if mutation::is(Mutation::RenumberOnResend) {
        renumber_transmitted(in_flight);
    }
}

/// The oldest two frames change places.
fn swap_oldest(in_flight: &mut InFlight) {
    let (Some(first), Some(second)) = (in_flight.frame(0), in_flight.frame(1)) else { return };
    let position = in_flight.position_of(1).unwrap_or(0);
    let mut oldest = unpack(in_flight, 0);
    if position == 0 {
        oldest.swap(0, 1);
    } else {
        oldest[0] = second;
        let mut behind = unpack(in_flight, position);
        behind[0] = first;
        pack(in_flight, position, &behind);
    }
    pack(in_flight, 0, &oldest);
}

/// What was written before gets other sequence ids.
fn renumber_transmitted(in_flight: &mut InFlight) {
    for position in 0..in_flight.groups.len() {
        if in_flight.groups[position].transmitted {
            let frames: Vec<_> = unpack(in_flight, position).iter().map(renumbered).collect();
            pack(in_flight, position, &frames);
        }
    }
}

fn renumbered(frame: &SealedFrame) -> SealedFrame {
    let bytes = Bytes::from([&frame.head[..], &frame.payload[..]].concat());
    let mut out = BytesMut::new();
    for frame in frames(bytes).flatten() {
        match frame {
            Frame::Send { mut head, entry } => {
                head.sequence_id += 1000;
                Frame::Send { head, entry }.encode(&mut out);
            }
            other => other.encode(&mut out),
        }
    }
    SealedFrame { head: out.freeze(), payload: Bytes::new() }
}

/// The frames of the unsettled entries of a group.
fn unpack(in_flight: &InFlight, position: usize) -> Vec<SealedFrame> {
    let offset = in_flight.offset(position);
    (offset..offset + in_flight.groups[position].unsettled).filter_map(|at| in_flight.frame(at)).collect()
}

/// Gives the unsettled entries of a group these frames.
fn pack(in_flight: &mut InFlight, position: usize, frames: &[SealedFrame]) {
    let offset = in_flight.offset(position);
    let mut all = BytesMut::new();
    for (entry, frame) in in_flight.entries.range_mut(offset..).zip(frames) {
        entry.start = all.len() as u32;
        all.extend_from_slice(&frame.head);
        all.extend_from_slice(&frame.payload);
        entry.end = all.len() as u32;
    }
    let group = &mut in_flight.groups[position];
    group.is_whole = false;
    let frame = SealedFrame { head: all.freeze(), payload: Bytes::new() };
    group.frames = GroupFrames::Sealed(OneOrMore::one(SealedEntry { frame, compared_bytes: 0 }));
}
