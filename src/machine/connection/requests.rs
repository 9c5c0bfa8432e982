//! Requests that have no response yet, and the check of a response: it is of the type that belongs to the request, or a
//! refusal. The table of commands (`wire/command.rs`) says which is which.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::Requester;
use super::error::ProtocolViolation;
use crate::error::ServerError;
use crate::machine::{Deadline, EndpointId, Now};
use crate::pb;
use crate::pb::base_command::Type;
use crate::pb::command_lookup_topic_response::LookupType;
use crate::wire::command::Command;

/// A request that has no response yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct PendingRequest {
    pub(super) requester: Requester,
    /// The type of its response.
    pub(super) expected: Type,
}

/// The requests of one connection that have no response yet.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Bounded by the endpoints' operations and the supervisor's requests, one each.
    pending: HashMap<u64, PendingRequest>,
    /// Every request waits equally long, so the order of asking is the order of deadlines. An answered one stays as
    /// long as an earlier one waits, and is skipped.
    deadlines: VecDeque<(Deadline, u64)>,
    next_id: u64,
}

impl Requests {
    /// The id of the next request.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Adds the [next](Self::next_id) request, which waits for `timeout`.
    pub(super) fn add(&mut self, request: PendingRequest, timeout: Duration, now: Now) {
        let id = self.next_id;
        self.next_id += 1;
        self.pending.insert(id, request);
        if let Some(deadline) = Deadline::after(now, timeout, "request") {
            self.deadlines.push_back((deadline, id));
        }
    }

    /// The request `id`, if it has no response yet.
    pub(super) fn get(&self, id: u64) -> Option<PendingRequest> {
        self.pending.get(&id).copied()
    }

    /// Lets the request `id` wait for its response without a time limit.
    pub(super) fn lift_time_limit(&mut self, id: u64) {
        self.deadlines.retain(|&(_, other)| other != id);
    }

    /// The request `id` has its response. Deadlines of answered requests go as soon as none is before them, not only
    /// when their time comes: a fast run of requests would leave as many behind as fit into the timeout.
    pub(super) fn remove(&mut self, id: u64) {
        self.pending.remove(&id);
        while self.deadlines.front().is_some_and(|(_, id)| !self.pending.contains_key(id)) {
            self.deadlines.pop_front();
        }
    }

    /// The open request of this endpoint, if there is one, gets no response.
    pub(super) fn forget_open(&mut self, endpoint: EndpointId) {
        let is_open = |request: &PendingRequest| matches!(request.requester, Requester::Open(id, _) if id == endpoint);
        let open = self.pending.iter().find(|(_, request)| is_open(request)).map(|(id, _)| *id);
        if let Some(id) = open {
            self.remove(id);
        }
    }

    /// When the oldest request is overdue.
    pub(super) fn poll_deadline(&self) -> Option<Deadline> {
        self.deadlines.front().map(|&(deadline, _)| deadline)
    }

    /// A request whose response did not come in time.
    pub(super) fn poll_expired(&mut self, now: Now) -> Option<Requester> {
        while let Some(&(deadline, id)) = self.deadlines.front() {
            let is_pending = self.pending.contains_key(&id);
            if is_pending && !deadline.is_due(now) {
                return None;
            }
            self.deadlines.pop_front();
            if let Some(pending) = self.pending.remove(&id) {
                return Some(pending.requester);
            }
        }
        None
    }

    /// Empties it: the requesters, in the order of their requests.
    pub(super) fn take_all(&mut self) -> Vec<Requester> {
        self.deadlines.clear();
        let mut pending: Vec<_> = self.pending.drain().collect();
        pending.sort_unstable_by_key(|&(id, _)| id);
        pending.into_iter().map(|(_, pending)| pending.requester).collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.deadlines.is_empty()
    }
}

/// The response for the requester: the command, or the refusal it carries. A command of the wrong type is the
/// peer's violation, except for what proxies do.
pub(super) fn check_response(
    command: Command,
    expected: Type,
) -> Result<Result<Command, ServerError>, ProtocolViolation> {
    let is_error = matches!(command, Command::Error(_));
    if !is_error && command.command_type() != expected as i32 && !is_refusal_of_proxy(&command, expected) {
        return Err(ProtocolViolation::new(format!(
            "the broker answered with {} where {} belongs",
            command.name(),
            expected.as_str_name()
        )));
    }
    Ok(match command.refusal() {
        Some(refusal) => Err(ServerError::new(refusal.code, refusal.message)),
        None => Ok(command),
    })
}

/// Pulsar's proxy passes a refusal of PARTITIONED_METADATA on in a LOOKUP_RESPONSE.
fn is_refusal_of_proxy(command: &Command, expected: Type) -> bool {
    let is_refused = |lookup: &pb::CommandLookupTopicResponse| lookup.response == Some(LookupType::Failed.into());
    expected == Type::PartitionedMetadataResponse
        && matches!(command, Command::LookupResponse(lookup) if is_refused(lookup))
}
