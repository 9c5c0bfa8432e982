//! The topic list watcher: the topics of a namespace that match a pattern, kept current by the broker (PIP-145).
//!
//! It opens with WATCH_TOPIC_LIST, whose answer lists the topics, and follows each WATCH_TOPIC_UPDATE. After a lost
//! connection it opens again with the hash of the list it holds: an answer with that hash lists nothing and nothing has
//! changed; any other answer is the list as it is now, and what differs is reported as one change. Every broker can
//! answer, so it attaches to the service URL without a lookup, unless it is to attach to the broker of a topic. WATCH_TOPIC_LIST_CLOSE ends it.
//!
//! Changes reach the handle through [`TopicListWatcher::take_news`], after the waker of
//! [`TopicListWatcher::poll_changed`] was woken. The last one of each topic is kept, so that a slow reader leaves at most
//! one entry for each topic.

use crate::machine::EndpointId;
use crate::machine::endpoint::attach_status::AttachStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::connection::error::RequestError;
use super::connection::peer::PeerInfo;
use super::endpoint::machine::{AfterNotification, AttachRoute, Dirty, EndpointMachine};
use super::endpoint::outbox::{More, Op, OpKind, Outbox, Response};
use super::{Deadline, Deferred, Now, ReplyTo};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::topics_hash;
use crate::id::WatcherId;
use crate::pb;
use crate::wire::command::Command;

/// Topics that a watcher holds at most, and changes that wait to be taken; a broker that names more ends it with an error.
pub const TOPICS_MAX: usize = 1_000_000;

/// Configuration of a watcher.
#[derive(Debug, Clone)]
pub struct TopicListConfig {
    /// `tenant/namespace`.
    pub namespace: String,
    /// A regular expression that matches whole names (`topics_pattern`). A broker refuses more than 50 characters.
    pub pattern: String,
    /// A topic whose broker is asked to watch; `None`: any broker.
    pub via: Option<Arc<str>>,
    /// How long the first answer may take, reconnects included, and the close. Default of the client: 30 s.
    pub operation_timeout: Duration,
}

/// A topic that appeared or vanished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicChange {
    /// It matches and is new.
    Added,
    /// It is gone.
    Removed,
}

/// What a handle takes from its watcher.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicNews {
    /// The last change of each topic, in the order of the names; the first ones add the whole list. A broker may announce
    /// that a topic is gone which it has never listed.
    pub changes: Vec<(String, TopicChange)>,
    /// The watcher has attached again, after a lost connection or a lost update: topics may have been deleted and made
    /// again without a change.
    pub is_reattached: bool,
}

/// ```text
///            open_request            on_attached
///  Detached --------------> Opening -------------> Attached
///     ^                        |                      |
///     +------------------------+----------------------+
///                        on_detached
///
///  any state ---- closed and answered, or failed ----> Finished
/// ```
#[derive(Debug)]
enum WatcherState {
    Detached,
    Opening,
    Attached,
    /// With what every later call gets.
    Finished(Error),
}

/// A close that was asked for.
#[derive(Debug, Default)]
struct WatcherClose {
    /// Bounded by the callers that wait.
    replies: Vec<ReplyTo<()>>,
    /// When it is over without an answer.
    deadline: Option<Instant>,
    /// WATCH_TOPIC_LIST_CLOSE is on its way.
    is_requested: bool,
}

/// A watcher of the topics of one namespace.
#[derive(Debug)]
pub struct TopicListWatcher {
    id: WatcherId,
    config: TopicListConfig,
    scope: Arc<str>,
    state: WatcherState,
    dirty: Dirty,
    /// Answered by the first attach.
    created: Option<ReplyTo<()>>,
    /// When the creation is given up.
    creation_deadline: Option<Instant>,
    attach_status: AttachStatus,
    closing: Option<WatcherClose>,
    /// Whether the broker has confirmed the close, or was never asked to open.
    is_closed_at_broker: bool,
    /// The list as the handle will know it once it has taken the changes.
    topics: BTreeSet<String>,
    /// The broker's hash of it; `None` before the first list.
    hash: Option<String>,
    /// The last one of each topic.
    changes: BTreeMap<String, TopicChange>,
    /// It has attached again since the handle has looked.
    is_reattached: bool,
    waker: Option<Waker>,
}

impl TopicListWatcher {
    /// A watcher that is not attached yet. `created` is answered by the first attach, with the list at hand, or with the
    /// reason why there is none.
    pub fn new(id: WatcherId, config: TopicListConfig, created: ReplyTo<()>, now: Now) -> Self {
        Self {
            id,
            scope: format!("{}/{}", config.namespace, config.pattern).into(),
            creation_deadline: now.at.checked_add(config.operation_timeout),
            attach_status: AttachStatus::new(now),
            config,
            state: WatcherState::Detached,
            dirty: Dirty::Now,
            created: Some(created),
            closing: None,
            is_closed_at_broker: true,
            topics: BTreeSet::new(),
            hash: None,
            changes: BTreeMap::new(),
            is_reattached: false,
            waker: None,
        }
    }

    /// `watcher_id` of the protocol.
    pub fn id(&self) -> WatcherId {
        self.id
    }

    /// Whether a broker reports changes at the moment.
    pub fn is_attached(&self) -> bool {
        matches!(self.state, WatcherState::Attached)
    }

    /// What came since the last call.
    ///
    /// # Errors
    /// Why the watcher has ended, after the last changes.
    pub fn take_news(&mut self) -> Result<TopicNews> {
        match &self.state {
            WatcherState::Finished(error) if self.changes.is_empty() => Err(error.clone()),
            _ => {
                let changes = std::mem::take(&mut self.changes).into_iter().collect();
                Ok(TopicNews { changes, is_reattached: std::mem::take(&mut self.is_reattached) })
            }
        }
    }

    /// Ready when [`take_news`](Self::take_news) has something to give; else `waker` is woken then.
    pub fn poll_changed(&mut self, waker: &Waker, deferred: &mut Deferred) -> Poll<()> {
        if self.has_news() || matches!(self.state, WatcherState::Finished(_)) {
            return Poll::Ready(());
        }
        if let Some(old) = self.waker.replace(waker.clone()) {
            // Not dropped under the lock: dropping a waker may run any code.
            deferred.run(move || drop(old));
        }
        Poll::Pending
    }

    /// Ends the watcher at the broker; `reply` is answered when that is done, or has taken too long.
    pub fn close(&mut self, reply: Option<ReplyTo<()>>, now: Now, deferred: &mut Deferred) {
        if matches!(self.state, WatcherState::Finished(_)) {
            if let Some(reply) = reply {
                reply.send(Ok(()), deferred);
            }
            return;
        }
        let closing = self.closing.get_or_insert_with(|| WatcherClose {
            deadline: now.at.checked_add(self.config.operation_timeout),
            ..WatcherClose::default()
        });
        closing.replies.extend(reply);
        self.dirty = Dirty::Now;
        if matches!(self.state, WatcherState::Detached) {
            self.finish(self.closed_error(), Ok(()), deferred);
        }
    }

    fn closed_error(&self) -> Error {
        Error::local(ErrorKind::Closed, "the topic list watcher is closed").with_topic(&self.scope)
    }

    /// Ends it. `later` is what later calls get, `closed` what those get that wait for a close.
    fn finish(&mut self, later: Error, closed: Result<()>, deferred: &mut Deferred) {
        self.state = WatcherState::Finished(later.clone());
        self.attach_status.on_finished(&later, deferred);
        self.dirty = Dirty::Now;
        self.creation_deadline = None;
        if let Some(created) = self.created.take() {
            created.send(Err(later), deferred);
        }
        for reply in self.closing.take().into_iter().flat_map(|closing| closing.replies) {
            reply.send(closed.clone(), deferred);
        }
        self.wake(deferred);
    }

    fn wake(&mut self, deferred: &mut Deferred) {
        if let Some(waker) = self.waker.take() {
            deferred.wake(waker);
        }
    }

    fn has_news(&self) -> bool {
        self.is_reattached || !self.changes.is_empty()
    }

    /// Notes what was announced of a topic, also where the list says so already: what came or went between the broker's
    /// list and its first announcement is in neither, but the handle may know it from another list.
    fn note(&mut self, topic: String, change: TopicChange) {
        match change {
            TopicChange::Added => drop(self.topics.insert(topic.clone())),
            TopicChange::Removed => drop(self.topics.remove(&topic)),
        }
        self.changes.insert(topic, change);
    }

    /// The whole list as it is now: what is not in it is gone.
    fn replace(&mut self, topics: Vec<String>) {
        let now: BTreeSet<String> = topics.into_iter().collect();
        let gone: Vec<String> = self.topics.difference(&now).cloned().collect();
        let new: Vec<String> = now.difference(&self.topics).cloned().collect();
        for topic in gone {
            self.note(topic, TopicChange::Removed);
        }
        for topic in new {
            self.note(topic, TopicChange::Added);
        }
    }

    /// Ends the watcher if its list, or the changes that wait for [`take_news`](Self::take_news), exceed [`TOPICS_MAX`].
    fn check_size(&mut self, deferred: &mut Deferred) {
        if self.topics.len().max(self.changes.len()) > TOPICS_MAX {
            let what = format!("more than {TOPICS_MAX} topics match the pattern, or have changed");
            let error = Error::local(ErrorKind::NotAllowed, what).with_topic(&self.scope);
            self.finish(error.clone(), Err(error), deferred);
        }
    }
}

impl EndpointMachine for TopicListWatcher {
    type Job = Infallible;
    type Done = Infallible;

    fn subject(&self) -> Arc<str> {
        self.config.via.clone().unwrap_or_else(|| self.scope.clone())
    }

    fn open_description(&self) -> &'static str {
        "the watch of the topic list"
    }

    fn route(&self) -> AttachRoute {
        match self.config.via {
            Some(_) => AttachRoute::TopicOwner,
            None => AttachRoute::AnyBroker,
        }
    }

    fn take_dirty(&mut self) -> Dirty {
        std::mem::take(&mut self.dirty)
    }

    fn open_request(&mut self, peer: &PeerInfo, _now: Now) -> Result<Command, RequestError> {
        if !peer.supports_topic_watchers {
            return Err(RequestError::Unsupported("topic list watchers"));
        }
        if !matches!(self.state, WatcherState::Finished(_)) {
            self.state = WatcherState::Opening;
        }
        self.is_closed_at_broker = false;
        Ok(Command::WatchTopicList(pb::CommandWatchTopicList {
            request_id: 0,
            watcher_id: self.id.0,
            namespace: self.config.namespace.clone(),
            topics_pattern: self.config.pattern.clone(),
            topics_hash: self.hash.clone(),
        }))
    }

    /// The answer, by its hash: the one that was sent means that the list at hand still holds, and comes without topics;
    /// any other comes with the whole list.
    fn on_attached(&mut self, response: &Command, _peer: &PeerInfo, _now: Now, deferred: &mut Deferred) {
        let Command::WatchTopicListSuccess(success) = response else { return };
        if matches!(self.state, WatcherState::Finished(_)) {
            return;
        }
        self.state = WatcherState::Attached;
        self.dirty = Dirty::Now;
        self.creation_deadline = None;
        let created = self.created.take();
        let is_missed = mutation!(ReattachedWithoutList) && self.hash.is_some();
        self.is_reattached |= created.is_none() && !is_missed;
        if self.hash.as_deref() != Some(&*success.topics_hash) && !is_missed {
            self.replace(success.topic.clone());
            self.hash = Some(success.topics_hash.clone());
        }
        if let Some(created) = created {
            created.send(Ok(()), deferred);
        }
        if self.has_news() {
            self.wake(deferred);
        }
        self.check_size(deferred);
    }

    fn on_detached(&mut self, _now: Now, deferred: &mut Deferred) {
        if matches!(self.state, WatcherState::Finished(_)) {
            return;
        }
        self.state = WatcherState::Detached;
        self.dirty = Dirty::Now;
        if self.closing.is_some() {
            // A broker forgets watchers with their connection.
            self.finish(self.closed_error(), Ok(()), deferred);
        }
    }

    fn attach_status(&mut self) -> &mut AttachStatus {
        &mut self.attach_status
    }

    fn on_response(&mut self, op: Op, response: Response, _now: Now, deferred: &mut Deferred) {
        if op.kind != OpKind::Close || self.closing.is_none() {
            return;
        }
        let closed = match response {
            Ok(_) => {
                self.is_closed_at_broker = true;
                Ok(())
            }
            Err(RequestError::Disconnected) => Ok(()),
            Err(error) => Err(error.into_error("the close of the topic list watcher").with_topic(&self.scope)),
        };
        self.finish(self.closed_error(), closed, deferred);
    }

    /// WATCH_TOPIC_UPDATE. Where the list that comes of it has not the hash that the broker names, an update was lost:
    /// the watcher attaches again without a hash, and gets the whole list.
    fn on_notification(&mut self, command: Command, _now: Now, deferred: &mut Deferred) -> AfterNotification {
        let (Command::WatchTopicUpdate(update), WatcherState::Attached) = (command, &self.state) else {
            return AfterNotification::Stay;
        };
        for topic in update.deleted_topics {
            self.note(topic, TopicChange::Removed);
        }
        for topic in update.new_topics {
            self.note(topic, TopicChange::Added);
        }
        if self.has_news() {
            self.wake(deferred);
        }
        self.check_size(deferred);
        let names: Vec<&String> = self.topics.iter().collect();
        if topics_hash(&names) == update.topics_hash {
            self.hash = Some(update.topics_hash);
            return AfterNotification::Stay;
        }
        self.hash = None;
        let what = "its list of topics differs from the broker's, so that it asks for the whole list";
        AfterNotification::Reattach(Error::local(ErrorKind::NotReady, what))
    }

    fn run_job(job: Infallible) -> Infallible {
        job
    }

    fn put_job(&mut self, done: Infallible, _now: Now, _deferred: &mut Deferred) {
        match done {}
    }

    fn poll_transmit(&mut self, out: &mut Outbox<'_>, _now: Now) -> More {
        if let (WatcherState::Attached, Some(closing)) = (&self.state, &mut self.closing) {
            if !std::mem::replace(&mut closing.is_requested, true) {
                out.request(Op { kind: OpKind::Close, number: 0 }, EndpointId::TopicList(self.id).close_request());
            }
        }
        More::No
    }

    fn poll_deadline(&self) -> Option<Deadline> {
        let creation =
            self.creation_deadline.map(|at| Deadline::new(at, "creating the topic list watcher takes too long"));
        let close = self.closing.as_ref().and_then(|closing| closing.deadline);
        let close = close.map(|at| Deadline::new(at, "closing the topic list watcher takes too long"));
        Deadline::earlier(creation, close)
    }

    fn handle_deadline(&mut self, now: Now, deferred: &mut Deferred) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now.at);
        if is_due(self.creation_deadline) {
            let what = format!("the topic list watcher was not created within {:?}", self.config.operation_timeout);
            let error = self.attach_status.timed_out(&what, now);
            self.fail(error, deferred);
        } else if is_due(self.closing.as_ref().and_then(|closing| closing.deadline)) {
            let what = format!("the topic list watcher was not closed within {:?}", self.config.operation_timeout);
            let error = self.attach_status.timed_out(&what, now);
            self.finish(self.closed_error(), Err(error.with_topic(&self.scope)), deferred);
        }
    }

    fn fail(&mut self, error: Error, deferred: &mut Deferred) {
        if !matches!(self.state, WatcherState::Finished(_)) {
            let error = error.with_topic(&self.scope);
            self.finish(error.clone(), Err(error), deferred);
        }
    }

    fn close(&mut self, reply: Option<ReplyTo<()>>, now: Now, deferred: &mut Deferred) {
        TopicListWatcher::close(self, reply, now, deferred);
    }

    fn is_attached(&self) -> bool {
        matches!(self.state, WatcherState::Attached)
    }

    fn is_closing(&self) -> bool {
        self.closing.is_some() && !matches!(self.state, WatcherState::Finished(_))
    }

    fn is_finished(&self) -> bool {
        matches!(self.state, WatcherState::Finished(_))
    }

    fn is_closed_at_broker(&self) -> bool {
        self.is_closed_at_broker
    }
}
