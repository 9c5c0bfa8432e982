//! Protocol state without I/O and without a clock.
//!
//! **Internals, unstable**: may change in any release before 1.0.
//!
//! Everything here decides and nothing here reads a socket, a clock, a random source or the environment. Time comes in as
//! [`Now`], seeds and credentials as arguments; frames, events and deadlines go out.
//!
//! # Planes
//! | folder | decides about |
//! | --- | --- |
//! | `supervisor` | which brokers are dialed; where each endpoint attaches, and when it tries again; queries |
//! | `session` | one connection and the endpoints attached to it: dispatch, schedule |
//! | `connection` | one connection's protocol: handshake, keep-alive, requests and responses |
//! | `endpoint` | what all endpoints share: the lock, the ready list, the contract [`EndpointMachine`] |
//! | `producer`, `consumer`, `topic_list` | the three kinds of endpoint |
//! | `memory`, `receive_memory` | how much of the client's memory limits each producer and consumer may use |
//! | `failover` | when a client with several clusters leaves one for another |
//!
//! # The contract
//! - Inputs are `handle_*` and `on_*`; what the application asks are verbs (`push`, `ack`, `close`); outputs are `poll_*` and
//!   `take_*`. `now` is the last argument.
//! - After any input the caller drains `poll_transmit`, then `poll_event`, then asks `poll_deadline`. A parent drains
//!   its children, it does not chain them.
//! - `poll_deadline` changes nothing. `handle_deadline` does nothing when it is called early, so a deadline that moves
//!   later need not be re-armed.
//! - Every response and event names the attempt it belongs to; one of an earlier attempt changes nothing, except that an
//!   endpoint which opens late is closed at the broker.
//! - Peer input gives an `Err` or an event. A panic means that an invariant of this library broke, and its text says
//!   which.
//! - Every queue has a bound, and the bound has a name with its unit at the end.
//!
//! # Locks
//! An endpoint, then at most one leaf ([`ReadyList`], send results, a reply, the memory budget). Never two endpoints. Under a lock no task is
//! woken, no callback called, nothing compressed or written, and no value of the application dropped: that goes into
//! [`Deferred`], which is fired with no lock held.

use std::time::{Duration, Instant};

pub mod connection;
pub mod consumer;
pub mod control;
pub mod credentials;
pub mod deadlines;
pub mod endpoint;
pub mod failover;
mod id_map;
pub mod memory;
pub mod producer;
pub mod receive_memory;
pub mod session;
pub mod supervisor;
pub mod topic_list;

pub use endpoint::deferred::Deferred;
pub use endpoint::machine::{Dirty, EndpointMachine, EndpointRef};
pub use endpoint::reply::{Reply, ReplyTo};
pub use endpoint::{Endpoint, EndpointId, ReadyList};

/// One reading of the clocks, taken by whoever drives the machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock: deadlines.
    pub at: Instant,
    /// The wall clock in milliseconds since 1970 UTC: `publish_time`.
    pub wall_ms: u64,
}

/// When something is due, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// When.
    pub at: Instant,
    /// What is due, for logs and traces.
    pub why: &'static str,
}

impl Deadline {
    /// Something due at `at`.
    pub fn new(at: Instant, why: &'static str) -> Self {
        Self { at, why }
    }

    /// Due `after` from `now`; `None` where that is beyond what the clock can say.
    pub fn after(now: Now, after: Duration, why: &'static str) -> Option<Self> {
        now.at.checked_add(after).map(|at| Self { at, why })
    }

    /// Whether it is due at `now`.
    pub fn is_due(&self, now: Now) -> bool {
        self.at <= now.at
    }

    /// The earlier of two, if any.
    pub fn earlier(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => Some(if b.at < a.at { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}
