//! One connection with its guests: the endpoints attached to it.
//!
//! A session routes what the broker says to the endpoint it is for, and gives each endpoint that has something to
//! do its turn to write. The tokio driver and the simulator use it alike: bytes in by [`Session::handle_read`], bytes
//! out by [`Session::poll_transmit`], news for the supervisor by [`Session::poll_event`].
//!
//! It owns the connection and no endpoint: an endpoint lives in its handle, and is a guest here while this is its
//! server. When the session ends, every guest goes back to the supervisor's list.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::consumer::Consumer;
use super::producer::Producer;
use super::{Deferred, Endpoint, EndpointId, Now, ReadyList};
use crate::id::{ConsumerId, ProducerId};
use crate::machine::connection::{Connection, ConnectionConfig, Requester};
use crate::machine::control::{Attempt, AuthData, EndpointRef, SessionCommand, SessionEvent};
use crate::machine::deadlines::Deadlines;
use crate::machine::endpoint::outbox::Op;
use crate::machine::session::id_map::IdMap;
use crate::wire::command::Command;
use crate::wire::frame::Limits;

mod guests;
mod id_map;
mod inbound;
mod turns;

use inbound::Inbound;

/// ```text
///          SUCCESS, PRODUCER_SUCCESS
/// Opening ---------------------------> Attached
///    |                                    |
///    +------> given up (refused,  <-------+  closed by the broker, link lost
///             no answer, finished)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Attached,
}

#[derive(Debug)]
struct Guest<M> {
    endpoint: Arc<Endpoint<M>>,
    attempt: Attempt,
    phase: Phase,
    place: Place,
}

impl<M> Guest<M> {
    fn new(endpoint: Arc<Endpoint<M>>, attempt: Attempt) -> Self {
        Self { endpoint, attempt, phase: Phase::Opening, place: Place::default() }
    }
}

/// Where a guest stands.
#[derive(Debug, Default)]
struct Place {
    /// In the ring, where everyone stands at most once: neither the number of its marks nor what it still has to write
    /// gives it more turns than the others.
    in_ring: bool,
    /// It was given a turn and has not been looked at since.
    unseen: bool,
    /// By when it is looked at without a mark: never later than its deadline.
    look_by: Option<Instant>,
}

/// A connection and its guests.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    /// The ids of guests with something to do.
    ready: Arc<ReadyList>,
    /// Where guests go that lose their place here.
    supervisor: Arc<ReadyList>,
    producers: IdMap<ProducerId, Guest<Producer>>,
    consumers: IdMap<ConsumerId, Guest<Consumer>>,
    /// Guests that the broker closed: their receipts and answers may still arrive on this connection. At most one
    /// for each endpoint of the client that is not finished.
    former: BTreeMap<EndpointId, EndpointRef>,
    /// Guests in turn. What an earlier attempt left in it is skipped.
    ring: VecDeque<(EndpointId, Attempt)>,
    /// Ids on their way from the ready list into the ring.
    marked: Vec<EndpointId>,
    deadlines: Deadlines<EndpointId>,
    notices: VecDeque<SessionEvent>,
    /// The broker waits for fresh credentials, and the supervisor knows.
    challenged: bool,
    asks: Vec<(Op, Command)>,
    inbound: Inbound,
}

impl Session {
    /// A session on a connection that has just been made; guests that lose it go to `supervisor`.
    pub fn new(config: ConnectionConfig, credentials: AuthData, supervisor: Arc<ReadyList>, now: Now) -> Self {
        Self {
            connection: Connection::new(config, credentials, now),
            ready: ReadyList::new(),
            supervisor,
            producers: IdMap::default(),
            consumers: IdMap::default(),
            former: BTreeMap::new(),
            ring: VecDeque::new(),
            marked: Vec::new(),
            deadlines: Deadlines::default(),
            notices: VecDeque::new(),
            challenged: false,
            asks: Vec::new(),
            inbound: Inbound::default(),
        }
    }

    /// Carries out what the supervisor says.
    pub fn handle_command(&mut self, command: SessionCommand, now: Now, deferred: &mut Deferred) {
        match command {
            SessionCommand::Ask(ask, command) => self.connection.request(*command, Requester::Supervisor(ask), now),
            SessionCommand::Challenge(credentials) => {
                self.challenged = false;
                self.connection.answer_challenge(credentials);
            }
            SessionCommand::Open(endpoint, attempt) => self.open(endpoint, attempt, now, deferred),
        }
    }

    /// The bounds of inbound frames at the moment.
    pub fn limits(&self) -> &Limits {
        self.connection.limits()
    }

    /// News for the supervisor.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.notices.pop_front()
    }
}

#[cfg(test)]
mod tests;
