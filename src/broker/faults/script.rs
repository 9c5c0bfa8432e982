//! The armed faults: which of them takes effect on an event, and what they have deferred.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::{FaultEffect, FaultEvent, HostileAct, Hostility, ScriptedFault};
use crate::broker::ids::{ConnId, ConsumerKey};
use crate::wire::command::Command;

/// Faults armed at once; one more is not armed.
const FAULTS_MAX: usize = 1_000;

/// The armed faults, and the responses that they hold back.
#[derive(Default)]
pub(crate) struct FaultScript {
    /// In the order in which they were armed.
    armed: Vec<ScriptedFault>,
    /// Faults by a seed, behind those that are armed.
    hostility: Option<Hostility>,
    injected: u64,
    received: ByteLimit,
    sent: ByteLimit,
    /// Responses that will go out in reverse order.
    held: Vec<(ConnId, Bytes)>,
    /// Effects of faults on deliveries; they run after the input that caused the delivery.
    deferred: VecDeque<DeferredFault>,
}

/// The effect of a fault on a delivery, to be run once the input that caused the delivery is done.
#[derive(Debug)]
pub(crate) enum DeferredFault {
    SendLater { conn: ConnId, bytes: Bytes, by: Duration },
    CloseConsumer { key: ConsumerKey, url: Option<String> },
    Disconnect { conn: ConnId },
}

impl FaultScript {
    /// Whether nothing is armed: the only check for a frame while there are no faults.
    pub(crate) fn is_idle(&self) -> bool {
        self.armed.is_empty() && self.hostility.is_none()
    }

    pub(crate) fn arm(&mut self, fault: ScriptedFault) {
        if self.armed.len() < FAULTS_MAX && fault.times != Some(0) {
            self.armed.push(fault);
        }
    }

    /// Disarms all faults and limits; returns the responses that were held back.
    pub(crate) fn clear(&mut self) -> Vec<(ConnId, Bytes)> {
        self.armed.clear();
        self.hostility = None;
        self.received = ByteLimit::default();
        self.sent = ByteLimit::default();
        std::mem::take(&mut self.held)
    }

    /// Events on which a fault took effect so far.
    pub(crate) fn injected(&self) -> u64 {
        self.injected
    }

    /// The effect on this event, of the matching fault that was armed first; its remaining count decreases by one.
    pub(crate) fn take_effect(&mut self, event: Option<FaultEvent>, topic: Option<&str>) -> Option<FaultEffect> {
        for index in 0..self.armed.len() {
            let Some(fault) = self.armed.get_mut(index).filter(|fault| fault.is_for(event, topic)) else { continue };
            if fault.after > 0 {
                fault.after -= 1;
                continue;
            }
            let effect = fault.effect.clone();
            match &mut fault.times {
                None => {}
                Some(left) if *left > 1 => *left -= 1,
                Some(_) => drop(self.armed.remove(index)),
            }
            self.injected += 1;
            return Some(effect);
        }
        None
    }

    /// Has faults by this seed from now on.
    pub(crate) fn be_hostile(&mut self, seed: u64) {
        self.hostility = Some(Hostility::new(seed));
    }

    /// How often each kind of fault by a seed happened.
    pub(crate) fn hostile_counts(&self) -> BTreeMap<&'static str, u64> {
        self.hostility.as_ref().map(|hostility| hostility.counts().clone()).unwrap_or_default()
    }

    /// The fault by a seed on this frame of a connection; `command` is what the client sent.
    pub(crate) fn hostile_act(
        &mut self,
        conn: ConnId,
        event: Option<FaultEvent>,
        command: Option<&Command>,
    ) -> Option<HostileAct> {
        let act = self.hostility.as_mut()?.act(conn, event?, command)?;
        self.injected += 1;
        Some(act)
    }

    /// Holds a response back; returns all of them in reverse order once there are `count`.
    pub(crate) fn hold(&mut self, conn: ConnId, response: Bytes, count: usize) -> Vec<(ConnId, Bytes)> {
        self.held.push((conn, response));
        if self.held.len() < count { Vec::new() } else { self.held.drain(..).rev().collect() }
    }

    pub(crate) fn defer(&mut self, fault: DeferredFault) {
        self.deferred.push_back(fault);
    }

    pub(crate) fn next_deferred(&mut self) -> Option<DeferredFault> {
        self.deferred.pop_front()
    }

    /// Ends the connection on which the `bytes`-th byte from now on arrives.
    pub(crate) fn limit_received(&mut self, bytes: usize) {
        self.received = ByteLimit { left: Some(bytes) };
    }

    /// Ends the connection to which the `bytes`-th byte from now on is written.
    pub(crate) fn limit_sent(&mut self, bytes: usize) {
        self.sent = ByteLimit { left: Some(bytes) };
    }

    /// How many of the received bytes may be read if the limit is reached within them; the limit is then removed.
    pub(crate) fn end_received(&mut self, bytes: usize) -> Option<usize> {
        let last = self.received.end_within(bytes);
        self.injected += u64::from(last.is_some());
        last
    }

    /// Counts bytes that were read.
    pub(crate) fn count_received(&mut self, bytes: usize) {
        self.received.count(bytes);
    }

    /// How many of the bytes to be written may go out if the limit is reached within them; the limit is then removed.
    /// Otherwise all of them count.
    pub(crate) fn end_sent(&mut self, bytes: usize) -> Option<usize> {
        let last = self.sent.end_within(bytes);
        self.injected += u64::from(last.is_some());
        self.sent.count(bytes);
        last
    }
}

/// Bytes that may still pass, over all connections, before the connection with the last of them is ended.
#[derive(Debug, Default)]
struct ByteLimit {
    left: Option<usize>,
}

impl ByteLimit {
    fn end_within(&mut self, bytes: usize) -> Option<usize> {
        self.left.take_if(|left| *left <= bytes)
    }

    fn count(&mut self, bytes: usize) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(bytes);
        }
    }
}

impl fmt::Debug for FaultScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultScript")
            .field("armed", &self.armed.len())
            .field("injected", &self.injected)
            .finish_non_exhaustive()
    }
}
