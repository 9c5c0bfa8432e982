//! One connection and the endpoints attached to it.
//!
//! A session dispatches what the broker sends to the endpoint it is for, and schedules the endpoints that have something
//! to write. The driver feeds it: bytes in by [`Session::handle_read`], bytes out by [`Session::poll_transmit`], events
//! for the supervisor by [`Session::poll_event`].
//!
//! It owns the connection and no endpoint: an endpoint is owned by its handles, and is attached here while this session
//! is its owner. When the session ends, every endpoint goes back to the supervisor.
//!
//! | file | what |
//! | --- | --- |
//! | `attachments.rs` | endpoints attach, detach and finish; responses to their requests |
//! | `inbound.rs` | frames of the broker, each to its endpoint |
//! | `schedule.rs` | the run queue: which endpoint writes next, and deadlines |

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::connection::{Connection, ConnectionConfig, Requester};
use super::consumer::Consumer;
use super::control::{Attempt, AuthData, CloseReason, SessionCommand, SessionEvent};
use super::deadlines::Deadlines;
use super::endpoint::machine::DataRoute;
use super::endpoint::outbox::Op;
use super::producer::Producer;
use super::{Deferred, Endpoint, EndpointId, EndpointRef, Now, ReadyList};
use crate::id::{ConsumerId, ProducerId};
use crate::wire::command::Command;
use crate::wire::frame::Limits;

mod attachments;
mod inbound;
mod schedule;

use crate::machine::id_map::IdMap;
use inbound::Inbound;

/// ```text
///             the answer to its open request
///  Opening ----------------------------------> Attached
///     |                                           |
///     +---------> detached (refused, <------------+  closed by the broker, connection lost
///                 no answer, finished)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Attached,
}

/// An endpoint that this session serves.
#[derive(Debug)]
struct Attachment {
    endpoint: EndpointRef,
    attempt: Attempt,
    phase: Phase,
    schedule: ScheduleState,
}

/// Where an attachment stands in the schedule.
#[derive(Debug, Default)]
struct ScheduleState {
    /// In the run queue, where each attachment stands at most once: neither the number of notifications nor the amount
    /// still to be written has it served more often than the others.
    is_queued: bool,
    /// Notified, and not served since.
    needs_poll: bool,
    /// When it is served without a notification: never later than its deadline.
    next_poll_at: Option<Instant>,
}

/// The typed tables of the two commands that come once a message.
#[derive(Debug, Default)]
struct DataRoutes {
    /// Where SEND_RECEIPTs go, from the open request on.
    producers: IdMap<ProducerId, Arc<Endpoint<Producer>>>,
    /// Where MESSAGEs go, once the consumer is attached.
    consumers: IdMap<ConsumerId, Arc<Endpoint<Consumer>>>,
}

impl DataRoutes {
    /// The endpoint is being opened.
    fn open(&mut self, route: DataRoute) {
        if let DataRoute::Producer(producer) = route {
            self.producers.insert(producer.with(|producer| producer.id()), producer);
        }
    }

    /// The endpoint is attached.
    fn attach(&mut self, route: DataRoute) {
        if let DataRoute::Consumer(consumer) = route {
            self.consumers.insert(consumer.with(|consumer| consumer.id()), consumer);
        }
    }

    fn remove(&mut self, id: EndpointId) {
        match id {
            EndpointId::Producer(id) => drop(self.producers.remove(&id)),
            EndpointId::Consumer(id) => drop(self.consumers.remove(&id)),
            EndpointId::TopicList(_) => {}
        }
    }
}

/// A connection and its attached endpoints.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    /// Ids of attached endpoints with something to do.
    ready: Arc<ReadyList>,
    /// The list of the supervisor, which serves what is detached.
    supervisor: Arc<ReadyList>,
    attachments: IdMap<EndpointId, Attachment>,
    routes: DataRoutes,
    /// Endpoints that the broker closed: their receipts and answers may still arrive on this connection. At most
    /// twice as many as the client has endpoints that are not finished.
    detached: BTreeMap<EndpointId, EndpointRef>,
    /// How many of them there are before the finished ones are removed: looking costs no more than what it removes.
    detached_prune_len: usize,
    /// Attachments in the order in which they are served. Entries of earlier attempts are skipped.
    run_queue: VecDeque<(EndpointId, Attempt)>,
    /// Ids on their way from the ready list into the run queue; empty between calls, kept for its memory.
    notified: Vec<EndpointId>,
    deadlines: Deadlines<EndpointId>,
    events: VecDeque<SessionEvent>,
    /// Fresh credentials were requested from the supervisor for an AUTH_CHALLENGE.
    is_challenged: bool,
    /// Requests of the endpoint being served; empty between calls, kept for its memory.
    requests: Vec<(Op, Command)>,
    inbound: Inbound,
}

impl Session {
    /// A session on a connection that has just been made; endpoints that lose it go to `supervisor`.
    pub fn new(config: ConnectionConfig, credentials: AuthData, supervisor: Arc<ReadyList>, now: Now) -> Self {
        Self {
            connection: Connection::new(config, credentials, now),
            ready: ReadyList::new(),
            supervisor,
            attachments: IdMap::default(),
            routes: DataRoutes::default(),
            detached: BTreeMap::new(),
            detached_prune_len: attachments::DETACHED_PRUNE_LEN_MIN,
            run_queue: VecDeque::new(),
            notified: Vec::new(),
            deadlines: Deadlines::default(),
            events: VecDeque::new(),
            is_challenged: false,
            requests: Vec::new(),
            inbound: Inbound::default(),
        }
    }

    /// Carries out a command of the supervisor.
    ///
    /// # Errors
    /// The connection has to end, with this reason.
    pub fn handle_command(
        &mut self,
        command: SessionCommand,
        now: Now,
        deferred: &mut Deferred,
    ) -> Result<(), CloseReason> {
        match command {
            SessionCommand::Request(token, command) => {
                self.request(*command, Requester::Supervisor(token), now, deferred);
            }
            SessionCommand::AuthResponse(credentials) => {
                self.is_challenged = false;
                self.connection.respond_to_challenge(credentials);
            }
            SessionCommand::Open(endpoint, attempt) => self.open(endpoint, attempt, now, deferred),
            SessionCommand::End(reason) => return Err(reason),
        }
        Ok(())
    }

    /// The bounds of inbound frames at the moment.
    pub fn limits(&self) -> &Limits {
        self.connection.limits()
    }

    /// The next event for the supervisor.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }
}

#[cfg(test)]
mod tests;
