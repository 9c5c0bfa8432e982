//! Keeps the topics of a consumer those that match its pattern: the broker announces what comes and goes, where it can
//! (WATCH_TOPIC_LIST), and the list is asked for at an interval all the same.
//!
//! ```text
//!  wait for: a change that is announced | the interval | an attach | the end of the client
//!     +-> remove parts of topics that are gone -> open those that are new -> wait
//! ```
//!
//! A list that is requested may be older than the last WATCH_TOPIC_UPDATE, since a broker answers concurrent requests with one
//! list. So while a watcher is attached,
//!
//! - a topic that a list lacks is gone once the next list, a moment later, lacks it too;
//! - a topic that a list still has after its removal was announced is there again once the next list has it too;
//! - when a watch has begun, or has come back after a lost connection, a second list follows the first: what came between
//!   the broker's list and its first announcement is in neither.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;

use super::{Members, TopicPattern, resolve};
use crate::client::consumer_shared::ConsumerShared;
use crate::client::growth::{Attached, Grows, Opened, spread};
use crate::client::runtime::AsyncTimer;
use crate::client::state::StateWatch;
use crate::client::topic_list::{TopicChange, TopicListWatch, TopicNews};
use crate::client::{ClientState, clock};
use crate::error::{ErrorKind, Result};
use crate::machine::supervisor::query;
use crate::topic::TopicName;

/// After which a list is asked for again that may be older than what was announced.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Announced removals that are remembered until the next list; beyond, they are forgotten.
const REMOVED_MAX: usize = 100_000;

/// After which a topic that could not be added is tried again, whatever the interval.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// What follows one pattern.
struct Follower {
    handle: Weak<ConsumerShared>,
    pattern: Arc<TopicPattern>,
    period: Duration,
    /// Before the next list, unless the last one is doubtful.
    next_wait: Duration,
    timer: Box<dyn AsyncTimer>,
    /// When the timer ends.
    next_look: Instant,
    client_state: StateWatch<ClientState>,
    watch: Option<TopicListWatch>,
    /// The full names of topics and partitions, as they are known.
    names: BTreeSet<String>,
    /// The broker's hash of the last list.
    hash: Option<String>,
    /// Those that the last list lacked, until the next one.
    missing: BTreeSet<String>,
    /// Those whose removal was announced since the last list.
    removed: BTreeSet<String>,
    /// The last list may be older than what was announced.
    is_doubtful: bool,
    joining: Vec<Opened<()>>,
}

enum Event {
    Announced(Result<TopicNews>),
    /// It is time for a list.
    Due,
    Attached(Attached<()>),
    ClientClosed,
}

/// What a consumer begins with.
pub(in crate::client) struct Start {
    pub(in crate::client) pattern: Arc<TopicPattern>,
    /// The list of which its first topics are.
    pub(in crate::client) names: Vec<String>,
    pub(in crate::client) period: Duration,
}

/// Follows the pattern until the consumer is over or dropped.
pub(in crate::client) async fn follow(
    handle: Weak<ConsumerShared>,
    start: Start,
    client_state: StateWatch<ClientState>,
    seed: u64,
) {
    // The timer belongs to the task.
    let Some(timer) = handle.upgrade().map(|handle| handle.new_timer()) else { return };
    let Start { pattern, names, period } = start;
    let follower = Follower {
        handle,
        pattern,
        period,
        // So that those that begin together do not ask together.
        next_wait: spread(period, seed),
        timer,
        next_look: clock::now().at,
        client_state,
        watch: None,
        names: names.into_iter().collect(),
        hash: None,
        missing: BTreeSet::new(),
        removed: BTreeSet::new(),
        is_doubtful: false,
        joining: Vec::new(),
    };
    follower.run().await;
}

impl Follower {
    async fn run(self) {
        let handle = self.handle.clone();
        self.follow_changes().await;
        // No topic comes any more: the consumer, or its client, is closed.
        handle.upgrade().iter().for_each(|handle| handle.end_pattern());
    }

    /// Until the consumer, or its client, is closed.
    async fn follow_changes(mut self) {
        // The first look is at once: between the list that the consumer began with and the first announcement, topics
        // may have come.
        while self.look().await.is_some() {
            loop {
                match self.next_event().await {
                    Event::Due => break,
                    Event::Attached(attached) => {
                        let Some(handle) = of(&self.handle) else { return };
                        if attached.iter().any(|(_, result)| result.is_err()) {
                            self.look_by(clock::now().at + RETRY_AFTER);
                        }
                        handle.settle_joining(attached);
                    }
                    Event::Announced(Ok(news)) => {
                        if news.is_reattached {
                            self.look_by(clock::now().at + SECOND_LOOK);
                        }
                        self.apply(news.changes);
                        if self.reconcile().await.is_none() {
                            return;
                        }
                    }
                    // The list is asked for instead, and the watch is tried again with the next one.
                    Event::Announced(Err(_)) => self.watch = None,
                    Event::ClientClosed => return,
                }
            }
        }
    }

    /// Asks for the list, begins to watch where that is possible, and brings the parts in line. `None`: it is over.
    async fn look(&mut self) -> Option<()> {
        self.is_doubtful = false;
        if self.watch.is_none() && self.pattern.has_persistent() {
            self.start_watch().await?;
            self.is_doubtful = self.watch.is_some();
        }
        let request = self.pattern.request(self.hash.clone());
        let list = of(&self.handle)?.client().start_query(query::topics_of_namespace(request)).ok()?;
        match list.await {
            Ok(answer) => {
                // With the hash that was shown, an unchanged list is not sent again.
                if answer.changed.unwrap_or(true) || self.hash.is_none() {
                    self.set_list(answer.topics.into_iter().collect());
                }
                self.hash = answer.topics_hash.filter(|_| !self.is_doubtful);
            }
            Err(error) if error.kind() == ErrorKind::Closed => return None,
            Err(_) => {}
        }
        let wait = if self.is_doubtful { SECOND_LOOK.min(self.period) } else { self.next_period() };
        self.next_look = clock::now().at + wait;
        self.timer.reset(self.next_look);
        self.reconcile().await
    }

    /// Until the next list, where nothing is to be looked for again.
    fn next_period(&mut self) -> Duration {
        std::mem::replace(&mut self.next_wait, self.period)
    }

    /// Asks for the list at that time, if not before.
    fn look_by(&mut self, at: Instant) {
        if at < self.next_look {
            self.next_look = at;
            self.timer.reset(at);
        }
    }

    fn set_list(&mut self, list: BTreeSet<String>) {
        let gone: BTreeSet<String> = self.names.difference(&list).cloned().collect();
        let lacks_again = |name: &String| self.watch.is_none() || self.missing.contains(name);
        let (gone, missing) = gone.into_iter().partition::<BTreeSet<_>, _>(lacks_again);
        let count = list.len();
        let new: Vec<_> = list.into_iter().filter(|name| !self.removed.contains(name)).collect();
        self.is_doubtful |= !missing.is_empty() || new.len() < count;
        self.names.retain(|name| !gone.contains(name));
        self.names.extend(new.into_iter().filter(|_| !mutation!(ListAddsNothing)));
        self.missing = missing;
        self.removed.clear();
    }

    fn apply(&mut self, changes: Vec<(String, TopicChange)>) {
        // The hash is that of a list without them.
        self.hash = None;
        for (name, change) in changes {
            self.missing.remove(&name);
            self.removed.remove(&name);
            match change {
                TopicChange::Added => drop(self.names.insert(name)),
                TopicChange::Removed if mutation!(RemovalIgnored) => {}
                TopicChange::Removed => {
                    self.names.remove(&name);
                    if self.removed.len() < REMOVED_MAX {
                        self.removed.insert(name);
                    }
                }
            }
        }
    }

    /// Begins to watch, unless no broker can be asked to. `None`: it is over.
    async fn start_watch(&mut self) -> Option<()> {
        let handle = of(&self.handle)?;
        let Some(pattern) = self.pattern.of_broker() else { return Some(()) };
        // Hosts that are asked over HTTP announce nothing. A broker that serves a topic of the consumer does.
        let via = match handle.client().service_url.starts_with("http") {
            false => None,
            true => match handle.parts.iter().find(|part| part.topic.starts_with("persistent")) {
                Some(part) => Some(part.topic.clone()),
                None => return Some(()),
            },
        };
        let started = handle.shared_client().start_watch(self.pattern.namespace.clone(), pattern, via);
        drop(handle);
        let (watch, created) = started.ok()?;
        if created.await.is_ok() {
            self.watch = Some(watch);
        }
        Some(())
    }

    /// Removes the parts of topics that do not match any more, and opens those that are new. `None`: it is over.
    async fn reconcile(&mut self) -> Option<()> {
        let members = self.pattern.members(self.names.iter().map(String::as_str));
        let handle = of(&self.handle)?;
        handle.keep_topics(|topic| members.contains_key(topic));
        let is_new = |parts: &[(Arc<str>, i32)]| parts.iter().any(|(name, _)| handle.parts.of_topic(name).is_none());
        let is_new = |parts: &[_]| is_new(parts) || mutation!(TopicTakenTwice);
        let new: Members = members.into_iter().filter(|(_, parts)| is_new(parts)).collect();
        drop(handle);
        if new.is_empty() {
            return Some(());
        }
        let ask = |topic: &TopicName| {
            let query = query::partitions_of_existing(&topic.as_str().into());
            of(&self.handle)?.client().start_query(query).ok()
        };
        let found = resolve(new, ask).await;
        let handle = of(&self.handle)?;
        handle.add_partitioned(found.partitioned);
        self.joining.extend(handle.open_joining(found.parts).ok()?);
        Some(())
    }

    async fn next_event(&mut self) -> Event {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let mut attached = Vec::new();
        self.joining.retain_mut(|part| match Pin::new(&mut part.attached).poll(cx) {
            Poll::Ready(result) => {
                attached.push((part.id, result));
                false
            }
            Poll::Pending => true,
        });
        if !attached.is_empty() {
            return Poll::Ready(Event::Attached(attached));
        }
        while let Poll::Ready(state) = Pin::new(&mut self.client_state).poll_next(cx) {
            if state.is_none_or(|state| state.is_closed) {
                return Poll::Ready(Event::ClientClosed);
            }
        }
        if let Some(watch) = &mut self.watch {
            if let Poll::Ready(changes) = pin!(watch.news()).poll(cx) {
                return Poll::Ready(Event::Announced(changes));
            }
        }
        self.timer.poll(cx).map(|()| Event::Due)
    }
}

fn of(handle: &Weak<ConsumerShared>) -> Option<Arc<ConsumerShared>> {
    handle.upgrade().filter(|handle| !handle.is_over())
}
