//! The contract that every endpoint machine obeys, and its object-safe face.
//!
//! A kind of endpoint is one machine that implements [`EndpointMachine`] and one variant of [`EndpointId`]. The session
//! and the supervisor work on [`AnyEndpoint`], which [`Endpoint`] implements for all of them, so they know no kind by
//! name. Only MESSAGE and SEND_RECEIPT take a typed way, the machine's [`DataRoute`].

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::attach_status::{AttachFailure, AttachState, AttachStatus};
use super::outbox::{More, Op, Outbox, Response};
use super::{Endpoint, EndpointId, ReadyList};
use crate::error::Error;
use crate::machine::connection::error::RequestError;
use crate::machine::connection::peer::PeerInfo;
use crate::machine::consumer::{Consumer, ConsumerStats};
use crate::machine::producer::{Producer, ProducerStats};
use crate::machine::{Deadline, Deferred, Now, ReplyTo};
use crate::wire::command::Command;

/// Which broker serves an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachRoute {
    /// The one that owns the topic: LOOKUP comes before each attach.
    TopicOwner,
    /// Any broker of the cluster: the endpoint attaches over a connection to the service URL.
    AnyBroker,
}

/// What the session does after a notification.
#[derive(Debug, Clone, PartialEq)]
pub enum AfterNotification {
    /// Nothing: the endpoint stays attached.
    Stay,
    /// Detach it because of this, so that it attaches afresh.
    Reattach(Error),
}

/// The typed way of the two commands that come once a message. All others go through [`AnyEndpoint`].
#[derive(Debug, Clone, Default)]
pub enum DataRoute {
    /// Neither of the two is for this endpoint.
    #[default]
    None,
    /// SEND_RECEIPT.
    Producer(Arc<Endpoint<Producer>>),
    /// MESSAGE, once the endpoint is attached.
    Consumer(Arc<Endpoint<Consumer>>),
}

/// What an endpoint has counted.
#[derive(Debug, Clone, Default)]
pub enum EndpointStats {
    /// It counts nothing.
    #[default]
    None,
    /// Of a producer.
    Producer(Box<ProducerStats>),
    /// Of a consumer.
    Consumer(Box<ConsumerStats>),
}

/// What inputs of an endpoint gave its owner to do; the later ones are the more urgent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dirty {
    /// Nothing.
    #[default]
    Clean,
    /// To note another [deadline](EndpointMachine::poll_deadline). An owner that wakes by then anyway need not be woken for it.
    AtDeadline,
    /// Anything else: bytes to write, a frame to seal, an end to notice.
    Now,
}

impl Dirty {
    /// Notes something more to do.
    #[inline]
    pub fn raise(&mut self, other: Self) {
        *self = (*self).max(other);
    }

    /// Notes something to do now, if there `is` something.
    #[inline]
    pub fn now_if(&mut self, is: bool) {
        if is {
            *self = Self::Now;
        }
    }

    /// Notes another deadline, if it `is` another.
    #[inline]
    pub fn at_deadline_if(&mut self, is: bool) {
        if is {
            self.raise(Self::AtDeadline);
        }
    }
}

/// The state machine of one endpoint, without its lock.
///
/// # Order of calls
/// ```text
/// open_request -> on_attached -> (poll_transmit | on_response | on_notification)* -> on_detached -> open_request ...
/// ```
/// `handle_deadline`, `close` and `fail` may come at any time, attached or not. Once [`is_finished`](Self::is_finished)
/// nothing changes any more. After every call the caller asks [`take_dirty`](Self::take_dirty), or, if it is the
/// endpoint's owner, serves it.
pub trait EndpointMachine: Send + Sized + 'static {
    /// Work between two locks: sealing a producer's batch. [`Infallible`](std::convert::Infallible) for a machine that
    /// has none.
    type Job;
    /// What comes of a job.
    type Done;

    /// The full name of its topic; of a watcher, its namespace and pattern. For errors.
    fn subject(&self) -> Arc<str>;

    /// What its open request asks for, for errors: "the creation of the producer".
    fn open_description(&self) -> &'static str;

    /// Which broker it attaches to.
    fn route(&self) -> AttachRoute {
        AttachRoute::TopicOwner
    }

    /// What it has counted since it was created.
    fn stats(&self) -> EndpointStats {
        EndpointStats::None
    }

    /// The subscription of a consumer.
    fn subscription(&self) -> Option<&str> {
        None
    }

    /// How long a message may wait for its receipt; one attempt to attach is made just before that has passed. `None`
    /// where nothing fails by waiting.
    fn send_timeout(&self) -> Option<Duration> {
        None
    }

    /// Whether the application has it before its first attach: no refusal ends it that would not end one that was attached.
    fn is_in_use(&self) -> bool {
        false
    }

    /// What the inputs since the last call gave the owner to do.
    fn take_dirty(&mut self) -> Dirty;

    /// The command that opens it at a broker, without its request id.
    ///
    /// # Errors
    /// [`RequestError::Unsupported`] where the broker lacks what it needs.
    fn open_request(&mut self, peer: &PeerInfo, now: Now) -> Result<Command, RequestError>;

    /// The broker has opened it. `response` is of the type that its open request names.
    fn on_attached(&mut self, response: &Command, peer: &PeerInfo, now: Now, deferred: &mut Deferred);

    /// No broker has it any more, or none took it. Does nothing if that is known.
    fn on_detached(&mut self, now: Now, deferred: &mut Deferred);

    /// An attempt to attach it failed, or its broker closed it; another attempt follows.
    fn on_attach_failed(&mut self, _error: &Error, _now: Now, _deferred: &mut Deferred) {}

    /// It is about to be opened in another cluster than before: what is known of positions in the topic is void.
    fn on_cluster_changed(&mut self, _deferred: &mut Deferred) {}

    /// Where it is attached, or why it is not; kept up to date by [`Endpoint`].
    fn attach_status(&mut self) -> &mut AttachStatus;

    /// The response to an operation that it asked for through its [`Outbox`].
    fn on_response(&mut self, op: Op, response: Response, now: Now, deferred: &mut Deferred);

    /// A command of the broker about this endpoint that answers no request.
    fn on_notification(&mut self, command: Command, now: Now, deferred: &mut Deferred) -> AfterNotification;

    /// Work to be done with no lock held, before the next [`poll_transmit`](Self::poll_transmit).
    fn take_job(&mut self, _now: Now) -> Option<Self::Job> {
        None
    }

    /// Does the work. No lock is held.
    fn run_job(job: Self::Job) -> Self::Done;

    /// Takes the result of a job.
    fn put_job(&mut self, done: Self::Done, now: Now, deferred: &mut Deferred);

    /// Writes what is due, up to the quantum of `out`.
    fn poll_transmit(&mut self, out: &mut Outbox<'_>, now: Now) -> More;

    /// When something is due.
    fn poll_deadline(&self) -> Option<Deadline>;

    /// Does what is due, in whatever state; nothing when it is early.
    fn handle_deadline(&mut self, now: Now, deferred: &mut Deferred);

    /// Whether the connection cannot be trusted any more and has to end; says so once.
    fn take_wants_reconnect(&mut self) -> bool {
        false
    }

    /// Ends it: all that waits on it ends with `error`.
    fn fail(&mut self, error: Error, deferred: &mut Deferred);

    /// Closes it once what was accepted is settled; `reply` gets the result.
    fn close(&mut self, reply: Option<ReplyTo<()>>, now: Now, deferred: &mut Deferred);

    /// Whether it is attached to a broker at the moment.
    fn is_attached(&self) -> bool;

    /// Whether it was closed, and may still have something to send.
    fn is_closing(&self) -> bool;

    /// Whether it is closed or failed, so that its owner can forget it.
    fn is_finished(&self) -> bool;

    /// Whether nothing is left to close at the broker: it has confirmed the close, or never heard of the endpoint.
    fn is_closed_at_broker(&self) -> bool;

    /// The typed way of MESSAGE or SEND_RECEIPT to it.
    fn data_route(_endpoint: Arc<Endpoint<Self>>) -> DataRoute {
        DataRoute::None
    }
}

/// What came of serving an endpoint once.
#[derive(Debug)]
pub struct Served {
    /// Whether it has more to write than its quantum allowed.
    pub more: More,
    /// Its next deadline.
    pub deadline: Option<Deadline>,
    /// Whether its owner can forget it.
    pub is_finished: bool,
    /// Whether the connection cannot be trusted any more.
    pub wants_reconnect: bool,
}

/// What came of looking at the deadline of an endpoint.
#[derive(Debug)]
pub struct Expired {
    /// Whether something was due.
    pub was_due: bool,
    /// Its next deadline.
    pub next: Option<Deadline>,
}

/// An endpoint of any kind, behind its lock. See [`EndpointMachine`] for what each call means.
pub trait AnyEndpoint: Send + Sync + fmt::Debug {
    /// Names the endpoint.
    fn id(&self) -> EndpointId;
    /// See [`EndpointMachine::subject`].
    fn subject(&self) -> Arc<str>;
    /// See [`EndpointMachine::open_description`].
    fn open_description(&self) -> &'static str;
    /// See [`EndpointMachine::route`].
    fn route(&self) -> AttachRoute;
    /// See [`EndpointMachine::stats`].
    fn stats(&self) -> EndpointStats;
    /// See [`EndpointMachine::subscription`].
    fn subscription(&self) -> Option<String>;
    /// See [`EndpointMachine::send_timeout`].
    fn send_timeout(&self) -> Option<Duration>;
    /// See [`EndpointMachine::is_in_use`].
    fn is_in_use(&self) -> bool;
    /// See [`Endpoint::move_to`].
    fn move_to(&self, owner: &Arc<ReadyList>, deferred: &mut Deferred);
    /// See [`EndpointMachine::open_request`].
    ///
    /// # Errors
    /// As there.
    fn open_request(&self, peer: &PeerInfo, now: Now) -> Result<Command, RequestError>;
    /// See [`EndpointMachine::on_attached`].
    fn on_attached(&self, response: &Command, peer: &PeerInfo, now: Now, deferred: &mut Deferred);
    /// See [`EndpointMachine::on_detached`]. `cause` is why its attach is over; `None` if it was only opening.
    fn on_detached(&self, cause: Option<&Error>, now: Now, deferred: &mut Deferred);
    /// See [`EndpointMachine::on_attach_failed`].
    fn on_attach_failed(&self, failure: &AttachFailure<'_>, now: Now, deferred: &mut Deferred);
    /// See [`EndpointMachine::on_cluster_changed`].
    fn on_cluster_changed(&self, deferred: &mut Deferred);
    /// Where it is attached, or why it is not.
    fn attach_state(&self) -> AttachState;
    /// See [`EndpointMachine::on_response`].
    fn on_response(&self, op: Op, response: Response, now: Now, deferred: &mut Deferred);
    /// See [`EndpointMachine::on_notification`].
    fn on_notification(&self, command: Command, now: Now, deferred: &mut Deferred) -> AfterNotification;
    /// See [`EndpointMachine::fail`].
    fn fail(&self, error: Error, deferred: &mut Deferred);
    /// See [`EndpointMachine::close`], here without a reply.
    fn close(&self, now: Now, deferred: &mut Deferred);
    /// See [`EndpointMachine::is_closing`].
    fn is_closing(&self) -> bool;
    /// See [`EndpointMachine::is_finished`].
    fn is_finished(&self) -> bool;
    /// See [`EndpointMachine::is_closed_at_broker`].
    fn is_closed_at_broker(&self) -> bool;
    /// Does what is due and writes up to a quantum; `None` if `owner` does not serve it any more.
    fn serve(&self, owner: &Arc<ReadyList>, out: &mut Outbox<'_>, now: Now, deferred: &mut Deferred) -> Option<Served>;
    /// Does what is due without writing; `None` if `owner` does not serve it any more.
    fn expire(&self, owner: &Arc<ReadyList>, now: Now, deferred: &mut Deferred) -> Option<Expired>;
    /// See [`EndpointMachine::data_route`].
    fn data_route(self: Arc<Self>) -> DataRoute;
}

/// A counted reference to an endpoint of any kind.
pub type EndpointRef = Arc<dyn AnyEndpoint>;

impl<M: EndpointMachine> AnyEndpoint for Endpoint<M> {
    fn id(&self) -> EndpointId {
        Endpoint::id(self)
    }

    fn subject(&self) -> Arc<str> {
        self.with(|machine| machine.subject())
    }

    fn open_description(&self) -> &'static str {
        self.with(|machine| machine.open_description())
    }

    fn route(&self) -> AttachRoute {
        self.with(|machine| machine.route())
    }

    fn stats(&self) -> EndpointStats {
        self.with(|machine| machine.stats())
    }

    fn subscription(&self) -> Option<String> {
        self.with(|machine| machine.subscription().map(str::to_owned))
    }

    fn send_timeout(&self) -> Option<Duration> {
        self.with(|machine| machine.send_timeout())
    }

    fn is_in_use(&self) -> bool {
        self.with(|machine| machine.is_in_use())
    }

    fn move_to(&self, owner: &Arc<ReadyList>, deferred: &mut Deferred) {
        Endpoint::move_to(self, owner, deferred);
    }

    fn open_request(&self, peer: &PeerInfo, now: Now) -> Result<Command, RequestError> {
        self.with(|machine| machine.open_request(peer, now))
    }

    fn on_attached(&self, response: &Command, peer: &PeerInfo, now: Now, deferred: &mut Deferred) {
        self.with_deferred(deferred, |machine, deferred| {
            machine.attach_status().on_attached(&peer.address, now, deferred);
            machine.on_attached(response, peer, now, deferred);
        });
    }

    fn on_detached(&self, cause: Option<&Error>, now: Now, deferred: &mut Deferred) {
        self.with_deferred(deferred, |machine, deferred| {
            if let Some(cause) = cause {
                machine.attach_status().on_detached(cause, now, deferred);
            }
            machine.on_detached(now, deferred);
        });
    }

    fn on_attach_failed(&self, failure: &AttachFailure<'_>, now: Now, deferred: &mut Deferred) {
        self.with_deferred(deferred, |machine, deferred| {
            machine.attach_status().on_failure(failure, now, deferred);
            machine.on_attach_failed(failure.error, now, deferred);
        });
    }

    fn on_cluster_changed(&self, deferred: &mut Deferred) {
        self.with_deferred(deferred, |machine, deferred| machine.on_cluster_changed(deferred));
    }

    fn attach_state(&self) -> AttachState {
        self.with(|machine| machine.attach_status().state().clone())
    }

    fn on_response(&self, op: Op, response: Response, now: Now, deferred: &mut Deferred) {
        self.with_deferred(deferred, |machine, deferred| machine.on_response(op, response, now, deferred));
    }

    fn on_notification(&self, command: Command, now: Now, deferred: &mut Deferred) -> AfterNotification {
        self.with_deferred(deferred, |machine, deferred| machine.on_notification(command, now, deferred))
    }

    fn fail(&self, error: Error, deferred: &mut Deferred) {
        self.with_deferred(deferred, |machine, deferred| machine.fail(error, deferred));
    }

    fn close(&self, now: Now, deferred: &mut Deferred) {
        self.with_deferred(deferred, |machine, deferred| machine.close(None, now, deferred));
    }

    fn is_closing(&self) -> bool {
        self.with(|machine| machine.is_closing())
    }

    fn is_finished(&self) -> bool {
        self.with(|machine| machine.is_finished())
    }

    fn is_closed_at_broker(&self) -> bool {
        self.with(|machine| machine.is_closed_at_broker())
    }

    fn serve(&self, owner: &Arc<ReadyList>, out: &mut Outbox<'_>, now: Now, deferred: &mut Deferred) -> Option<Served> {
        let mut done = None;
        loop {
            let step = Endpoint::serve(self, owner, |machine| {
                if let Some(done) = done.take() {
                    machine.put_job(done, now, deferred);
                }
                if let Some(job) = machine.take_job(now) {
                    return ControlFlow::Continue(job);
                }
                machine.handle_deadline(now, deferred);
                let more = machine.poll_transmit(out, now);
                ControlFlow::Break(Served {
                    more,
                    deadline: machine.poll_deadline(),
                    is_finished: machine.is_finished(),
                    wants_reconnect: machine.take_wants_reconnect(),
                })
            })?;
            match step {
                ControlFlow::Break(served) => return Some(served),
                // With no lock held, so that the application can use the endpoint meanwhile.
                ControlFlow::Continue(job) => done = Some(M::run_job(job)),
            }
        }
    }

    fn expire(&self, owner: &Arc<ReadyList>, now: Now, deferred: &mut Deferred) -> Option<Expired> {
        Endpoint::serve(self, owner, |machine| {
            let was_due = machine.poll_deadline().is_some_and(|deadline| deadline.is_due(now));
            machine.handle_deadline(now, deferred);
            Expired { was_due, next: machine.poll_deadline() }
        })
    }

    fn data_route(self: Arc<Self>) -> DataRoute {
        M::data_route(self)
    }
}
