//! From the queues of a consumer's endpoints to messages: merging, opening entries, returning permits.
//!
//! Each endpoint fills its own queue under its own lock. The one owner of the consumer swaps a whole queue out, and
//! from then on takes message after message from that private run without a lock. Entries are opened (decompressed,
//! cut into records) here, on the user's task.
//!
//! # Fast and slow paths
//! Most messages are members of a batch that is open already, or entries of one message that lie there as they were
//! sent. Each step tries that first, in a function `_fast` that gives up on anything else; `_slow` does the same step
//! for every case. A `_slow` function may be called at any time, a `_fast` one never changes a result.
//!
//! | step | fast | slow, for |
//! | --- | --- | --- |
//! | the next message, or wait | [`Receiver::poll`], `next_fast` | `poll_slow`: the current source is empty; an end |
//! | the next message, if any | [`Receiver::try_next`], `next_fast` | `try_slow`: the same |
//! | of one source ([`source`]) | `Source::next_fast` | `Source::next_slow`: the queue epoch has moved; the run is empty |
//! | a member of the open batch | `BatchCursor::next_fast` | `Source::next_member_slow`: acknowledged in part; own metadata |
//! | an entry ([`decode`]) | `decode_fast` | `decode_slow`: batches, compression, what cannot be read |
//!
//! A message is 24 bytes, made in the user's frame by the inlined fast path. A call that returned one through memory
//! would cost as much as the rest, so `poll_slow` returns a code that fits registers and leaves the message in
//! [`Receiver::found`], from where `poll` moves it. It never stays there between two calls.
//!
//! # Ends
//! A part that ends for good is reported as an event, once; its source gives nothing more. The consumer has ended once
//! all of its sources have; from then on every call returns the error of the last one. One whose topics follow a pattern
//! has not: others may come, until it is closed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::consumer_shared::ConsumerShared;
use super::events::ConsumerEvent;
use super::message::ReceivedMessage;
use super::parts::Part;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::EndpointId;
use crate::machine::consumer::{Consumer, SeekTo};

mod decode;
mod gather;
mod source;

pub use gather::BatchReceivePolicy;
pub(super) use gather::Gather;
use source::Source;

/// The receiving half of a consumer: the queues of its parts, merged.
pub(super) struct Receiver {
    shared: Arc<ConsumerShared>,
    /// One for each part of the set, in the order of the set.
    sources: Vec<Source>,
    /// Their places, where there are several.
    #[expect(clippy::box_collection, reason = "most consumers have one source")]
    by_id: Option<Box<HashMap<EndpointId, usize>>>,
    /// The epoch of the set that `sources` are of.
    epoch: u64,
    /// Sources that have, or may have, messages. The first is the current one; each gives its whole run in turn.
    run_queue: VecDeque<usize>,
    /// Endpoints with something to take: emptied by each call that fills it.
    notified: Vec<EndpointId>,
    /// Sources whose end was not reported.
    open_sources: usize,
    /// The end of the source that ended last.
    last_end: Option<Error>,
    /// [`Self::poll`] has returned the end of the consumer.
    is_over: bool,
    /// Messages that were received and put back, to be received before all others. While there are some, or interceptors
    /// see each message, `run_queue` is in `run_queue_behind`, so that the fast path finds nothing.
    put_back: VecDeque<ReceivedMessage>,
    run_queue_behind: VecDeque<usize>,
    /// A message on its way from [`Self::poll_slow`] to its caller: see the module.
    found: Option<ReceivedMessage>,
}

impl Receiver {
    pub(super) fn new(shared: Arc<ConsumerShared>) -> Self {
        let mut receiver = Self {
            shared,
            sources: Vec::new(),
            by_id: None,
            epoch: 0,
            run_queue: VecDeque::new(),
            notified: Vec::new(),
            open_sources: 0,
            last_end: None,
            is_over: false,
            put_back: VecDeque::new(),
            run_queue_behind: VecDeque::new(),
            found: None,
        };
        receiver.sync_sources();
        receiver
    }

    /// The next message, the error that ended the consumer, or `Pending`.
    #[inline(always)]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<ReceivedMessage>> {
        loop {
            if let Some(message) = self.next_fast() {
                return Poll::Ready(Ok(message));
            }
            match self.poll_slow(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            if let Some(message) = self.found.take() {
                return Poll::Ready(Ok(message));
            }
        }
    }

    /// The next message of the current source, if its fast path has one.
    #[inline(always)]
    fn next_fast(&mut self) -> Option<ReceivedMessage> {
        let index = *self.run_queue.front()?;
        self.sources.get_mut(index)?.next_fast()
    }

    /// The next message of any source, left in `found`; the end; or `Pending`, with the waker in the inbox.
    #[inline(never)]
    fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            self.found = self.next_buffered();
            if self.found.is_some() {
                return Poll::Ready(Ok(()));
            }
            self.shared.inbox.take(&mut self.notified, Some(cx.waker()));
            if self.notified.is_empty() {
                self.request_one();
                // Every part that notified the inbox has been drained, so an end is final.
                return match self.end() {
                    Some(error) => {
                        self.is_over = true;
                        Poll::Ready(Err(error))
                    }
                    None => Poll::Pending,
                };
            }
            self.refill_notified();
        }
    }

    /// The next message that is here already, or the error that ended the consumer.
    #[inline]
    pub(super) fn try_next(&mut self) -> Option<Result<ReceivedMessage>> {
        match self.next_fast() {
            Some(message) => Some(Ok(message)),
            None => self.try_slow(),
        }
    }

    /// It refills only when nothing is buffered, so that a source with much traffic does not keep the others waiting.
    #[inline(never)]
    fn try_slow(&mut self) -> Option<Result<ReceivedMessage>> {
        loop {
            if let Some(message) = self.next_buffered() {
                return Some(Ok(message));
            }
            self.shared.inbox.take(&mut self.notified, None);
            if self.notified.is_empty() {
                self.request_one();
                return self.end().map(Err);
            }
            self.refill_notified();
        }
    }

    /// Puts messages back, to be received again before all others, in their order.
    fn put_back(&mut self, messages: Vec<ReceivedMessage>) {
        let later = std::mem::take(&mut self.put_back);
        self.put_back = messages.into();
        self.put_back.extend(later);
        self.run_queue_behind.extend(self.run_queue.drain(..));
    }

    /// The position of a reader in each part.
    pub(super) fn reading_positions(&mut self) -> impl Iterator<Item = (&Arc<Part<Consumer>>, SeekTo)> {
        self.sync_sources();
        self.sources.iter().map(|source| (source.part(), source.reading_position()))
    }

    /// Of parts that have left, what the application of a reader was given of them is kept now.
    pub(super) fn pass_positions(&mut self) {
        if self.shared.positions.is_some() {
            self.sync_sources();
        }
    }

    /// Gives nothing of a part until [`Self::release`]: what has come of it, and comes, stays where it is, up to the size of
    /// its queue.
    pub(super) fn hold(&mut self, id: EndpointId) {
        let Some(index) = self.index_of(id) else { return };
        let source = &mut self.sources[index];
        source.is_held = true;
        // So that nothing else puts it there.
        source.is_queued = true;
        self.run_queue.retain(|&queued| queued != index);
        self.run_queue_behind.retain(|&queued| queued != index);
    }

    /// Gives messages of all parts again.
    pub(super) fn release(&mut self) {
        for (index, source) in self.sources.iter_mut().enumerate() {
            if !mutation!(HeldForEver) && std::mem::take(&mut source.is_held) {
                self.run_queue_behind.push_back(index);
            }
        }
    }

    /// Why a part gives nothing more, once all of it was received.
    pub(super) fn end_of(&self, id: EndpointId) -> Option<&Error> {
        self.sources[self.index_of(id)?].reported_end()
    }

    /// Whether [`Self::poll`] has returned the end already.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// The next message of what was taken out of the queues.
    fn next_buffered(&mut self) -> Option<ReceivedMessage> {
        if let Some(message) = self.put_back.pop_front() {
            return Some(message);
        }
        self.run_queue.extend(self.run_queue_behind.drain(..));
        while let Some(&index) = self.run_queue.front() {
            let source = &mut self.sources[index];
            let next = source.next_slow(&self.shared.events);
            if next.is_some() {
                if let (Some(interceptors), Some(message)) = (&self.shared.interceptors, &next) {
                    interceptors.before_consume(message);
                    // The next one comes here too.
                    self.run_queue_behind.extend(self.run_queue.drain(..));
                }
                return next;
            }
            source.is_queued = false;
            self.run_queue.pop_front();
            self.report_end_of(index);
        }
        None
    }

    /// The place of the source of this endpoint.
    fn index_of(&self, id: EndpointId) -> Option<usize> {
        match &self.by_id {
            Some(by_id) => by_id.get(&id).copied(),
            None => self.sources.iter().position(|source| source.id() == id),
        }
    }

    /// Takes the queues of the endpoints that have something.
    fn refill_notified(&mut self) {
        self.sync_sources();
        let mut notified = std::mem::take(&mut self.notified);
        for id in notified.drain(..) {
            if mutation!(EndStopsOthers) && self.last_end.is_some() {
                continue;
            }
            // A part that is not there has been removed since.
            let Some(index) = self.index_of(id) else { continue };
            let source = &mut self.sources[index];
            source.refill();
            if !std::mem::replace(&mut source.is_queued, true) {
                self.run_queue.push_back(index);
            }
        }
        self.notified = notified;
    }

    /// Brings the sources in line with the set of parts, if that has changed. What is buffered of a part that was
    /// removed goes with it: it is not acknowledged.
    fn sync_sources(&mut self) {
        if self.shared.parts.epoch() == self.epoch && !self.sources.is_empty() {
            return;
        }
        let (epoch, parts) = self.shared.parts.snapshot();
        self.epoch = epoch;
        self.run_queue.extend(self.run_queue_behind.drain(..));
        let run_queue: Vec<_> = self.run_queue.drain(..).map(|index| self.sources[index].id()).collect();
        let mut known: HashMap<_, _> = self.sources.drain(..).map(|source| (source.id(), source)).collect();
        let shared = &self.shared;
        let source = |part: Arc<Part<Consumer>>| {
            let new = |part| Source::new(part, &shared.config, shared.decryption.clone(), shared.dead_letters.clone());
            known.remove(&part.id()).unwrap_or_else(|| new(part))
        };
        self.sources = parts.into_iter().map(source).collect();
        for left in known.values() {
            if let Some(id) = left.last_given() {
                shared.pass_position(&left.part().topic, id);
            }
        }
        let places = || self.sources.iter().enumerate().map(|(index, source)| (source.id(), index)).collect();
        self.by_id = (self.sources.len() > 1).then(|| Box::new(places()));
        self.run_queue = run_queue.iter().filter_map(|id| self.index_of(*id)).collect();
        self.open_sources = self.sources.iter().filter(|source| source.reported_end().is_none()).count();
    }

    /// Reports the end of a source that has nothing left, if it has ended.
    fn report_end_of(&mut self, index: usize) {
        let Some((part, error)) = self.sources[index].take_end() else { return };
        self.open_sources = if mutation!(PartEndsAll) { 0 } else { self.open_sources - 1 };
        // What the application asked for itself is no news to it.
        if error.kind() != ErrorKind::Closed && part.report_end() {
            let event = ConsumerEvent::TopicEnded { topic: part.topic.clone(), error: error.clone() };
            if mutation!(EndReportedTwice) {
                self.shared.events.push(event.clone());
            }
            self.shared.events.push(event);
        }
        self.last_end = Some(error);
    }

    /// Why the consumer has ended, once all its parts have. A set without parts, or of a pattern, has ended when it was
    /// closed.
    fn end(&self) -> Option<Error> {
        let follows_pattern = self.shared.joining.follows_pattern;
        let end = match (self.open_sources, self.sources.is_empty()) {
            (0, false) if !follows_pattern => self.last_end.clone(),
            (0, _) => self.shared.end_of_set(),
            _ => None,
        };
        if end.is_some() {
            self.shared.events.close();
            self.shared.on_receiver_end();
        }
        end
    }

    /// With a queue of size 0, a receive that waits is what grants a permit.
    fn request_one(&mut self) {
        if self.shared.config.receiver_queue_size == 0 {
            self.sources.iter().filter(|source| !source.is_held).for_each(Source::request_one);
        }
    }
}

impl Drop for Receiver {
    /// No event is found any more.
    fn drop(&mut self) {
        self.shared.events.close();
        self.shared.on_receiver_drop();
    }
}
