//! Which answer belongs to which request.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use super::observation::Endpoint;
use crate::pb::base_command::Type;
use crate::tap::budget::Share;

/// Requests of one connection that may wait at a time; beyond it the first is forgotten.
const PENDING_MAX: usize = 50_000;

/// Requests that are remembered after their answer.
const ANSWERED_MAX: usize = 1_024;

/// Requests of one id that an answer is compared with.
const SAME_ID_MAX: usize = 16;

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

/// What a request takes without its topic, and the id of one that is answered, bytes.
const REQUEST_BYTES: usize = 192;
const ANSWERED_BYTES: usize = 64;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Requests {
    /// By id, and by a number: one id may have several requests, which is the client's fault.
    pending: BTreeMap<(u64, u64), Request>,
    asked: u64,
    answered: VecDeque<u64>,
    answered_set: BTreeSet<u64>,
    is_forgetful: bool,
    /// In the topics of those that wait.
    topic_bytes: usize,
    share: Share,
}

impl Requests {
    pub(super) fn new(share: Share) -> Self {
        Self {
            pending: BTreeMap::new(),
            asked: 0,
            answered: VecDeque::new(),
            answered_set: BTreeSet::new(),
            is_forgetful: false,
            topic_bytes: 0,
            share,
        }
    }

    /// Requests whose answers may come are forgotten.
    pub(super) fn is_forgetful(&self) -> bool {
        self.is_forgetful
    }

    /// Returns the command of a request that waits under the same id.
    pub(super) fn ask(&mut self, id: u64, request: Request) -> Option<&'static str> {
        let waiting = self.of(id).next().map(|(_, waiting)| waiting.command);
        let is_full = self.share.is_full();
        if is_full || self.pending.len() >= PENDING_MAX {
            self.is_forgetful = true;
            if let Some(first) = self.pending.first_key_value().map(|(key, _)| *key) {
                self.remove(first);
            }
            if is_full {
                return waiting;
            }
        }
        self.asked += 1;
        self.topic_bytes += bytes_of(&request);
        self.pending.insert((id, self.asked), request);
        self.charge();
        waiting
    }

    fn remove(&mut self, key: (u64, u64)) {
        if let Some(request) = self.pending.remove(&key) {
            self.topic_bytes -= bytes_of(&request);
            self.charge();
        }
    }

    /// Says what it holds.
    fn charge(&mut self) {
        let answered = self.answered.len() * ANSWERED_BYTES;
        self.share.set(self.pending.len() * REQUEST_BYTES + self.topic_bytes + answered);
    }

    fn of(&self, id: u64) -> impl Iterator<Item = (&(u64, u64), &Request)> {
        self.pending.range((id, 0)..=(id, u64::MAX))
    }

    /// Of several requests of one id the first that such a response can answer. `is_last`: no further answer is allowed.
    pub(super) fn answer(&mut self, id: u64, response_type: i32, is_last: bool) -> Matched {
        let is_it = |request: &Request| response_type == Type::Error as i32 || request.response as i32 == response_type;
        let found = self.of(id).take(SAME_ID_MAX).find(|(_, request)| is_it(request)).or_else(|| self.of(id).next());
        if let Some((key, request)) = found.map(|(key, request)| (*key, request.clone())) {
            if is_last {
                self.remember(id);
                self.remove(key);
            }
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

fn bytes_of(request: &Request) -> usize {
    request.topic.as_ref().map_or(0, |topic| topic.len())
}
