//! Parts that join a consumer while it is at work, and leave it: partitions that are added to its topics, and topics of
//! its pattern.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::Shared;
use super::consumer_shared::ConsumerShared;
use super::events::ConsumerEvent;
use super::growth::{Attached, Grows, Opened};
use super::subscribe::Followed;
use super::workers::Tasks;
use crate::error::{Error, ErrorKind, Result};
use crate::id::ConsumerId;
use crate::machine::consumer::Consumer as Machine;
use crate::machine::consumer::{ConsumerConfig, InitialPosition};
use crate::machine::{EndpointId, Reply};
use crate::topic::TopicName;

/// The options of parts that join later, as far as they differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joining {
    /// Where the subscription starts if it is not there yet.
    pub(super) initial_position: InitialPosition,
    pub(super) queues: QueueLimits,
    /// The topics are those of a pattern: they come and go, and that one ends says nothing.
    pub(super) follows_pattern: bool,
}

/// The receiver queues of a consumer, messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLimits {
    /// Of each part, as it was set.
    pub(super) each: u32,
    /// Of all parts together.
    pub(super) total: u32,
    /// Each may grow up to its part of the total.
    pub(super) is_scaled: bool,
}

impl QueueLimits {
    /// Of each of so many parts: its size, and up to which it may grow. A single one gets the size that was set.
    pub(super) fn share(self, parts: usize) -> (u32, u32) {
        let parts = u32::try_from(parts).unwrap_or(u32::MAX).max(1);
        let part = (self.total / parts).max(1);
        let size = match (self.each, parts) {
            (0, _) | (_, 1) => self.each,
            _ => self.each.min(part),
        };
        (size, if self.is_scaled { size.max(part) } else { size })
    }

    /// Sets those of one of so many parts.
    pub(super) fn apply(self, parts: usize, config: &mut ConsumerConfig) {
        (config.receiver_queue_size, config.receiver_queue_size_max) = self.share(parts);
    }
}

impl ConsumerShared {
    /// The seed of the first look for new partitions: another one for each consumer of a client.
    pub(super) fn growth_seed(&self) -> u64 {
        let first = self.parts.iter().next().map_or(0, |part| match part.id() {
            EndpointId::Consumer(id) => id.0,
            _ => 0,
        });
        self.client.seed() ^ (first << 1)
    }

    /// Keeps in mind which of its topics have partitions.
    pub(super) fn set_partitioned(&self, topics: Vec<TopicName>) {
        *self.partitioned.lock().unwrap_or_else(PoisonError::into_inner) = topics;
    }

    /// While the subscription is being deleted, and afterwards, no part joins.
    pub(super) fn set_leaving(&self, is_leaving: bool) {
        self.is_leaving.store(is_leaving, Ordering::Release);
        if is_leaving {
            self.wake_receiver();
        }
    }

    /// The configuration of parts that join, if there are `parts` with them.
    fn config_of_joining(&self, parts: usize) -> Arc<ConsumerConfig> {
        let mut config = ConsumerConfig::clone(&self.config);
        config.initial_position = self.joining.initial_position;
        if mutation!(NewPartitionAtLatest) {
            config.initial_position = InitialPosition::Latest;
        }
        self.joining.queues.apply(parts, &mut config);
        Arc::new(config)
    }

    /// Gives each part its share of the total, after parts have come or gone. With the lock of `opening`.
    fn share_queue(&self) {
        let parts = self.parts.snapshot().1;
        let (size, size_max) = self.joining.queues.share(parts.len());
        for part in parts {
            part.endpoint.with(|consumer| consumer.set_receiver_queue_size(size, size_max));
        }
    }

    pub(super) fn opening(&self) -> MutexGuard<'_, ()> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts attaching topics or partitions that join it, but for those that are there.
    pub(super) fn open_joining(&self, mut topics: Vec<(Arc<str>, i32)>) -> Result<Vec<Opened<()>>> {
        let _opening = self.opening();
        topics.retain(|(topic, _)| self.parts.of_topic(topic).is_none() || mutation!(TopicTakenTwice));
        if topics.is_empty() || self.is_leaving.load(Ordering::Acquire) {
            return Ok(Vec::new());
        }
        let config = self.config_of_joining(self.parts.snapshot().1.len() + topics.len());
        let mut opened = Vec::with_capacity(topics.len());
        for (topic, partition) in topics {
            let from = self.positions.as_ref().map(|positions| positions.of_joining(&topic));
            let (id, attached) = self.open_with(topic, partition, config.clone(), from, true)?;
            opened.push(Opened { id, attached });
            // Wakes a receive that waits already: with a queue of size 0 it has to request a message of the new part.
            if let Some(waker) = self.inbox.notify(id) {
                waker.wake();
            }
        }
        self.share_queue();
        Ok(opened)
    }

    /// Keeps those that are attached, and closes the others.
    pub(super) fn settle_joining(&self, attached: Attached<()>) {
        let _opening = self.opening();
        let mut is_smaller = false;
        for (id, result) in attached {
            let Some(part) = self.parts.of_id(id) else { continue };
            let topic = part.topic.clone();
            let ended = || Error::local(ErrorKind::Closed, "it ended as soon as it was attached").with_topic(&topic);
            if result.is_ok() && part.read(Machine::is_finished) {
                self.keep_position(&part);
            }
            let result = result
                .and_then(|()| if part.set_joined(!self.joining.follows_pattern) { Ok(()) } else { Err(ended()) });
            match result {
                Ok(()) => self.events.push(ConsumerEvent::TopicAdded { topic }),
                Err(error) => {
                    part.set_joining();
                    drop(self.parts.remove(id));
                    is_smaller = true;
                    self.events.push(ConsumerEvent::TopicNotAdded { topic, error });
                }
            }
        }
        if is_smaller {
            self.share_queue();
        }
    }
}

/// Topics of a pattern.
impl ConsumerShared {
    /// Follows the pattern, as long as what is returned lives.
    pub(super) fn follow(self: &Arc<Self>, followed: Followed) -> Tasks<()> {
        #[cfg(feature = "patterns")]
        {
            let client = super::Client { shared: self.client.clone() };
            let (handle, states) = (Arc::downgrade(self), client.watch_state());
            let seed = self.growth_seed() ^ 0x7061_7474;
            self.client.spawn(super::pattern::follow::follow(handle, followed, states, seed))
        }
        #[cfg(not(feature = "patterns"))]
        match followed {}
    }

    /// Closes every part and allows no more to be added; the replies are those of the closes.
    pub(super) fn close(&self) -> Vec<Reply<()>> {
        let replies = self.parts.close();
        self.wake_receiver();
        replies
    }

    #[cfg(feature = "patterns")]
    pub(super) fn shared_client(&self) -> &Arc<Shared> {
        &self.client
    }

    /// Adds to its topics that have partitions.
    #[cfg(feature = "patterns")]
    pub(super) fn add_partitioned(&self, topics: Vec<TopicName>) {
        let mut partitioned = self.partitioned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |topic: &TopicName| !partitioned.contains(topic);
        let new: Vec<_> = topics.into_iter().filter(is_new).collect();
        partitioned.extend(new);
    }

    /// Removes the parts of other topics than these, and those that have ended, to be added again.
    #[cfg(feature = "patterns")]
    pub(super) fn keep_topics(&self, keeps: impl Fn(&str) -> bool) {
        let _opening = self.opening();
        let mut is_smaller = false;
        let is_kept = |topic: &str| TopicName::parse(topic).is_ok_and(|topic| keeps(topic.base().as_str()));
        self.partitioned.lock().unwrap_or_else(PoisonError::into_inner).retain(|topic| is_kept(topic.as_str()));
        if let Some(positions) = &self.positions {
            positions.keep_topics(is_kept);
        }
        for part in self.parts.iter() {
            let is_gone = !is_kept(&part.topic);
            if is_gone || part.read(Machine::is_finished) {
                if !is_gone {
                    self.keep_position(&part);
                }
                // Its close takes as long as it takes.
                drop(self.parts.remove(part.id()));
                is_smaller = true;
            }
            if is_gone {
                self.events.push(ConsumerEvent::TopicRemoved { topic: part.topic.clone() });
            }
        }
        if is_smaller {
            self.share_queue();
        }
    }

    /// No topic comes any more: it, or the client, is closed.
    #[cfg(feature = "patterns")]
    pub(super) fn end_pattern(&self) {
        self.is_pattern_over.store(true, Ordering::Release);
        self.wake_receiver();
    }

    /// Has a receive that waits look for its end, although no part has something for it: where there may be none.
    pub(super) fn wake_receiver(&self) {
        if !self.joining.follows_pattern {
            return;
        }
        let no_part = EndpointId::Consumer(ConsumerId(u64::MAX));
        if let Some(waker) = self.inbox.notify(no_part) {
            waker.wake();
        }
    }

    /// Why nothing more comes, if all parts have ended, and no part may come any more.
    pub(super) fn end_of_set(&self) -> Option<Error> {
        let is_over = self.parts.is_closed()
            || self.is_stopped()
            || self.is_leaving.load(Ordering::Acquire)
            || self.is_pattern_over.load(Ordering::Acquire);
        is_over.then(|| Error::local(ErrorKind::Closed, "the consumer is closed"))
    }
}

impl Grows for ConsumerShared {
    type Answer = ();

    fn client(&self) -> &Shared {
        &self.client
    }

    fn is_over(&self) -> bool {
        let is_left = || self.is_leaving.load(Ordering::Acquire) || !self.joining.follows_pattern;
        self.is_stopped() || self.parts.is_closed() || (is_left() && self.parts.are_finished())
    }

    fn partitioned_topics(&self) -> Vec<TopicName> {
        self.partitioned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open_new(&self, topic: &TopicName, partitions: u32) -> Result<Vec<Opened<()>>> {
        let name = |index: u32| (Arc::from(topic.partition(index).as_str()), i32::try_from(index).unwrap_or(i32::MAX));
        self.open_joining((0..partitions).map(name).collect())
    }

    fn settle(&self, _topic: &TopicName, attached: Attached<()>) {
        self.settle_joining(attached);
    }
}
