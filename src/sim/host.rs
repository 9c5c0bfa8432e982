//! One client's supervisor and its connections, as the tokio runtime carries them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::board::UnitId;
use super::link::Link;
use crate::client::Authentication;
use crate::machine::control::AuthData;
use crate::machine::control::{Action, BrokerKey, ConnectionId, Input};
use crate::machine::supervisor::Supervisor;
use crate::machine::{Deferred, Now, ReadyList};

/// What a client is made of before anything runs.
pub(crate) struct Parts {
    pub(crate) supervisor: Supervisor,
    pub(crate) ready: Arc<ReadyList>,
    pub(crate) inbox: UnboundedReceiver<Input>,
    pub(crate) news: UnboundedSender<Input>,
    pub(crate) authentication: Arc<dyn Authentication>,
    pub(crate) connect_timeout: Duration,
    pub(crate) keep_alive_interval: Duration,
    pub(crate) operation_timeout: Duration,
}

/// A dial under way.
pub(super) struct Dialing {
    pub(super) key: BrokerKey,
    pub(super) credentials: AuthData,
}

/// One client.
pub(super) struct Host {
    pub(super) unit: UnitId,
    pub(super) waker: Waker,
    /// `None` once the client is closed and empty.
    pub(super) parts: Option<Parts>,
    pub(super) links: BTreeMap<ConnectionId, Link>,
    pub(super) units: BTreeMap<ConnectionId, UnitId>,
    pub(super) dialing: BTreeMap<ConnectionId, Dialing>,
    /// Credentials being fetched.
    pub(super) fetching: BTreeSet<ConnectionId>,
}

impl Host {
    /// Lets the supervisor work; what it wants done comes back.
    pub(super) fn run(&mut self, now: Now) -> Vec<Action> {
        let Some(parts) = &mut self.parts else { return Vec::new() };
        let mut actions = Vec::new();
        let mut cx = Context::from_waker(&self.waker);
        loop {
            let mut deferred = Deferred::new();
            let mut moved = false;
            while let Poll::Ready(Some(input)) = parts.inbox.poll_recv(&mut cx) {
                parts.supervisor.handle(input, now, &mut deferred);
                moved = true;
            }
            parts.supervisor.handle_ready(Some(&self.waker), now, &mut deferred);
            if parts.supervisor.poll_deadline().is_some_and(|deadline| deadline.is_due(now)) {
                parts.supervisor.handle_deadline(now, &mut deferred);
                moved = true;
            }
            while let Some(action) = parts.supervisor.poll_action() {
                actions.push(action);
            }
            deferred.fire();
            if !moved {
                return actions;
            }
        }
    }

    /// Whether nothing of the client is left to run.
    pub(super) fn is_over(&self) -> bool {
        let drained = self.parts.as_ref().is_some_and(|parts| parts.supervisor.is_drained());
        drained && self.links.is_empty() && self.dialing.is_empty() && self.fetching.is_empty()
    }
}
