//! Which answer belongs to which request.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use super::observation::Endpoint;
use crate::pb::base_command::Type;

/// Requests of one connection that may wait at a time; beyond it the first is forgotten.
const PENDING_MAX: usize = 50_000;

/// Requests that are remembered after their answer.
const ANSWERED_MAX: usize = 1_024;

/// A request that waits for its answer.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) command: &'static str,
    pub(super) response: Type,
    pub(super) at: SystemTime,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) topic: Option<Arc<str>>,
}

/// What a response turned out to be.
#[derive(Debug)]
pub(super) enum Matched {
    Answers(Request),
    /// Its request was answered before.
    Again,
    /// No request has this id, as far as that is remembered.
    Unknown,
    /// The first requests of this connection are forgotten.
    Forgotten,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Requests {
    pending: BTreeMap<u64, Request>,
    answered: VecDeque<u64>,
    answered_set: BTreeSet<u64>,
    is_forgetful: bool,
}

impl Requests {
    /// Returns the request that waits under the same id, which is forgotten.
    pub(super) fn ask(&mut self, id: u64, request: Request) -> Option<Request> {
        if self.pending.len() >= PENDING_MAX {
            self.is_forgetful = true;
            self.pending.pop_first();
        }
        self.pending.insert(id, request)
    }

    /// `is_last`: no further answer is allowed.
    pub(super) fn answer(&mut self, id: u64, is_last: bool) -> Matched {
        if !is_last {
            return self.pending.get(&id).cloned().map_or(Matched::Unknown, Matched::Answers);
        }
        if let Some(request) = self.pending.remove(&id) {
            self.remember(id);
            return Matched::Answers(request);
        }
        match () {
            () if self.answered_set.contains(&id) => Matched::Again,
            () if self.is_forgetful => Matched::Forgotten,
            () => Matched::Unknown,
        }
    }

    fn remember(&mut self, id: u64) {
        if self.answered.len() >= ANSWERED_MAX {
            if let Some(oldest) = self.answered.pop_front() {
                self.answered_set.remove(&oldest);
            }
        }
        if self.answered_set.insert(id) {
            self.answered.push_back(id);
        }
    }
}
