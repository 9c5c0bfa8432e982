//! Flushes: answered once everything accepted before them is settled.

use std::collections::VecDeque;

use super::Producer;
use super::lifecycle::LifecycleState;
use crate::error::Error;
use crate::machine::{Deferred, ReplyTo};

/// Flushes that wait, and the failure that the next one reports.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    /// In the order of their targets. Those whose callers have given up are removed by the next flush, so there are
    /// no more than callers, and one.
    waiting: VecDeque<Flush>,
    /// The first failure that no flush has reported, and that none of `waiting` waited for.
    unreported: Option<Error>,
}

#[derive(Debug)]
struct Flush {
    /// Messages with an index below this are to be settled.
    target: u64,
    reply: ReplyTo<()>,
    /// The first failure among them.
    failure: Option<Error>,
}

impl Flushes {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.unreported.is_none()
    }

    /// Adds a flush for all messages with an index below `target`.
    fn push(&mut self, target: u64, reply: ReplyTo<()>) {
        self.remove_abandoned();
        self.waiting.push_back(Flush { target, reply, failure: self.unreported.take() });
    }

    /// The message at `index` has failed. The first flush that waits for it reports that, or, if there is none yet, the
    /// next flush.
    pub(super) fn note_failure(&mut self, index: u64, error: &Error) {
        let failure = match self.waiting.iter_mut().find(|flush| flush.target > index) {
            Some(flush) => &mut flush.failure,
            None => &mut self.unreported,
        };
        failure.get_or_insert_with(|| error.clone());
    }

    /// Removes flushes whose callers have given up. The failure that one of them would have reported goes to the flush
    /// behind it, where it comes before that one's own.
    fn remove_abandoned(&mut self) {
        let mut failure = None;
        self.waiting.retain_mut(|flush| {
            flush.failure = failure.take().or(flush.failure.take());
            if flush.reply.is_abandoned() {
                failure = flush.failure.take();
                return false;
            }
            true
        });
        self.unreported = failure.or(self.unreported.take());
    }

    /// Answers those for which no message is left: `unsettled` is the index of the oldest message that is not settled.
    fn complete(&mut self, unsettled: u64, deferred: &mut Deferred) {
        while self.waiting.front().is_some_and(|flush| flush.target <= unsettled) {
            let Some(flush) = self.waiting.pop_front() else { break };
            flush.reply.send(flush.failure.map_or(Ok(()), Err), deferred);
        }
    }
}

impl Producer {
    /// Closes the open batch, and answers once everything accepted so far is settled: with the first failure since
    /// the last flush, if there was one.
    pub fn flush(&mut self, reply: ReplyTo<()>, deferred: &mut Deferred) {
        if let LifecycleState::Finished(error) = self.lifecycle.state() {
            reply.send(Err(error.clone()), deferred);
            return;
        }
        self.close_batch();
        self.flushes.get_or_insert_default().push(self.sequence_ids.accepted_messages(), reply);
        self.complete_flushes(deferred);
    }

    /// Answers the flushes for which everything is settled.
    pub(super) fn complete_flushes(&mut self, deferred: &mut Deferred) {
        if self.flushes.as_ref().is_none_or(|flushes| flushes.waiting.is_empty()) {
            return;
        }
        let in_flight = self.in_flight.front().map(|(_, entry)| entry.index);
        let in_batch = || self.oldest_batch().map(|batch| batch.index);
        let unsettled = in_flight.or_else(in_batch).unwrap_or(self.sequence_ids.accepted_messages());
        let flushes = self.flushes.take().map(|mut flushes| {
            flushes.complete(unsettled, deferred);
            flushes
        });
        self.flushes = flushes.filter(|flushes| !flushes.is_empty());
        debug_assert!(
            self.flushes.as_ref().is_none_or(|flushes| flushes.waiting.is_empty()) || !self.is_finished(),
            "nothing is unsettled in a finished producer"
        );
    }
}
