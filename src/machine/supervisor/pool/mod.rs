//! The connections of a client: one per [`BrokerKey`], shared by everything that needs that broker.
//!
//! A *holder* of a connection is an endpoint (looking up its topic, opening, or attached) or a query. Each holds at most
//! one connection. A holder that has to send a request queues for a *slot*, and at most `opens_in_flight_max` holders of
//! one connection have a slot at a time, so that a thousand endpoints that lost their broker do not ask it all at once:
//! `slots.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::machine::connection::peer::PeerInfo;
use crate::machine::control::{
    Action, AuthContext, AuthData, BrokerKey, CloseReason, ClusterId, ConnectionId, SessionCommand, Transport,
};
use crate::machine::deadlines::Deadlines;
use crate::machine::supervisor::backoff::Backoff;
use crate::machine::supervisor::failure::{Failure, refuses_credentials};
use crate::machine::supervisor::notice::{ConnectionNotice, Notice};
use crate::machine::{Deadline, EndpointId, Now};
use crate::splitmix::SplitMix64;

mod slots;

#[cfg(debug_assertions)]
use slots::HolderState;
use slots::Seat;

/// Lookups in a row that one connection leaves unanswered, or answers with "not now", before it is replaced.
pub(crate) const LOOKUP_FAILURES_MAX: u32 = 5;

/// The longest time that a broker is not dialed after it could not be reached. It is far below the longest back-off of an
/// endpoint: its purpose is one dial for all that want the same broker.
const COOLDOWN_MAX: Duration = Duration::from_secs(5);

/// Something that needs a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// A producer, consumer or watcher.
    Endpoint(EndpointId),
    /// A query of the client itself.
    Query(u64),
}

/// The state of one connection. One that has ended is not in the table any more.
///
/// ```text
///   first holder        (the last dial failed a moment ago)
///      |------------------------------> CoolingDown
///      v                                   | cooldown is over
/// FetchingCredentials <--------------------+
///      |    | no credentials
///      |    +-----------------------------------------> ended
///  credentials                                            ^
///      v       credentials refused, first time: ended,    |
///   Dialing ------ its holders get a fresh connection ----|
///      |       any other end                              |
///      |--------------------------------------------------|
///      | CONNECTED                                        |
///      v       ended, or idle                             |
///      Up ------------------------------------------------|
///      | too many lookups failed                          |
///      v       ended, or the last holder left             |
///   Draining ---------------------------------------------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PooledState {
    /// Not dialed yet, because the last dial of this broker failed a moment ago.
    CoolingDown,
    /// Waiting for [`Input::Credentials`](crate::machine::control::Input::Credentials).
    FetchingCredentials,
    /// The driver connects, then the session shakes hands.
    Dialing,
    /// Usable.
    Up,
    /// Not handed out any more: what is attached stays, new holders get another connection.
    Draining,
}

#[derive(Debug)]
struct PooledConnection {
    key: BrokerKey,
    /// `host:port` for errors, with the proxy's if there is one.
    address: Arc<str>,
    state: PooledState,
    /// How many holders have it.
    holders: usize,
    /// The queue for a slot, by ticket: the queued ones of its holders.
    queue: BTreeMap<u64, Holder>,
    /// How many of its holders have a slot.
    active: usize,
    /// The broker refused the credentials of the connection before this one.
    is_second_try: bool,
    /// The credentials that the broker has seen last; before there are any, those it refused on the connection before
    /// this one.
    shown: Option<AuthData>,
    /// AUTH_CHALLENGE asked for fresh credentials on the open connection.
    is_challenged: bool,
    lookups_failed: u32,
    peer: Option<PeerInfo>,
}

impl PooledConnection {
    fn was_up(&self) -> bool {
        self.peer.is_some()
    }
}

/// A connection that has ended, and its holders.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) key: BrokerKey,
    pub(crate) holders: Vec<Holder>,
    pub(crate) failure: Failure,
}

#[derive(Debug, Clone)]
pub(crate) struct PoolConfig {
    pub(crate) opens_in_flight_max: usize,
    pub(crate) idle_connection_max: Duration,
    pub(crate) initial_backoff_interval: Duration,
}

/// All connections of a client.
#[derive(Debug)]
pub(crate) struct ConnectionPool {
    config: PoolConfig,
    /// One for each dial that is under way or made. Bounded: one without holders is closed, so there are at most as many as
    /// holders, plus the idle ones of the last `idle_connection_max`.
    connections: BTreeMap<ConnectionId, PooledConnection>,
    /// The connection to hand out for a key: a subset of `connections`. Never iterated, so its order does not matter.
    pooled: HashMap<BrokerKey, ConnectionId>,
    /// What each holder has. Bounded by the endpoints and queries of the client.
    held: BTreeMap<Holder, Seat>,
    /// Brokers that could not be reached. An entry is removed, when another is added, once its cooldown ended
    /// [`COOLDOWN_MAX`] ago: bounded by the dials that failed within twice that time.
    cooldowns: HashMap<BrokerKey, Cooldown>,
    /// Connections that may have a slot to give.
    dispatchable: BTreeSet<ConnectionId>,
    /// Ends of cooldowns and idle times. Bounded by `connections`.
    deadlines: Deadlines<ConnectionId>,
    /// Not collected yet. Bounded by the caller, who collects after every input.
    actions: VecDeque<Action>,
    /// Not collected yet. Bounded by the caller, who collects after every input.
    notices: Vec<Notice>,
    next_connection: u64,
    next_ticket: u64,
}

#[derive(Debug)]
struct Cooldown {
    backoff: Backoff,
    until: Instant,
}

impl ConnectionPool {
    pub(crate) fn new(config: PoolConfig) -> Self {
        Self {
            config,
            connections: BTreeMap::new(),
            pooled: HashMap::new(),
            held: BTreeMap::new(),
            cooldowns: HashMap::new(),
            dispatchable: BTreeSet::new(),
            deadlines: Deadlines::default(),
            actions: VecDeque::new(),
            notices: Vec::new(),
            next_connection: 0,
            next_ticket: 0,
        }
    }

    fn make(&mut self, key: BrokerKey, is_second_try: bool, refused: Option<AuthData>, now: Now) -> ConnectionId {
        self.next_connection += 1;
        let id = ConnectionId(self.next_connection);
        let address = key.name();
        let cooldown = self.cooldowns.get(&key).map(|cooldown| cooldown.until).filter(|until| *until > now.at);
        let state = match cooldown {
            Some(until) => {
                self.deadlines.set(id, Some(Deadline::new(until, "cooldown of a broker")));
                PooledState::CoolingDown
            }
            None => {
                let (state, action) = first_step(id, &key, refused.as_ref());
                self.actions.push_back(action);
                state
            }
        };
        self.pooled.insert(key.clone(), id);
        let connection = PooledConnection {
            key,
            address,
            state,
            holders: 0,
            queue: BTreeMap::new(),
            active: 0,
            is_second_try,
            shown: refused,
            is_challenged: false,
            lookups_failed: 0,
            peer: None,
        };
        self.connections.insert(id, connection);
        self.notice(id, ConnectionNotice::Connecting);
        id
    }

    /// What has happened to a connection of the table.
    fn notice(&mut self, id: ConnectionId, event: ConnectionNotice) {
        if let Some(connection) = self.connections.get(&id) {
            self.notices.push(Notice::Connection { connection: id, broker: connection.address.clone(), event });
        }
    }

    /// Moves what has happened since the last call behind what `into` holds.
    pub(crate) fn take_notices(&mut self, into: &mut Vec<Notice>) {
        into.append(&mut self.notices);
    }

    /// The key of a connection.
    pub(crate) fn key(&self, id: ConnectionId) -> Option<&BrokerKey> {
        self.connections.get(&id).map(|connection| &connection.key)
    }

    /// The address of a connection, for errors.
    pub(crate) fn address(&self, id: ConnectionId) -> Option<&Arc<str>> {
        self.connections.get(&id).map(|connection| &connection.address)
    }

    /// The capabilities of the broker, once the handshake is done.
    pub(crate) fn peer(&self, id: ConnectionId) -> Option<&PeerInfo> {
        self.connections.get(&id).and_then(|connection| connection.peer.as_ref())
    }

    /// Passes a command to the session.
    pub(crate) fn command(&mut self, id: ConnectionId, command: SessionCommand) {
        self.actions.push_back(Action::Command(id, command));
    }

    /// The credentials that a connection asked for.
    pub(crate) fn on_credentials(&mut self, id: ConnectionId, credentials: Result<AuthData>) -> Option<Lost> {
        let connection = self.connections.get_mut(&id)?;
        match (connection.state, credentials) {
            (PooledState::FetchingCredentials, Ok(credentials)) => {
                connection.state = PooledState::Dialing;
                connection.shown = Some(credentials.clone());
                let key = connection.key.clone();
                self.actions.push_back(Action::Dial { connection: id, key, credentials });
                None
            }
            (PooledState::FetchingCredentials, Err(error)) => {
                let failure = Failure::of_credentials(error.with_address(&connection.address));
                self.remove(id, failure, false)
            }
            (PooledState::CoolingDown, _) => None,
            (_, Ok(credentials)) => {
                if std::mem::take(&mut connection.is_challenged) {
                    connection.shown = Some(credentials.clone());
                    self.command(id, SessionCommand::AuthResponse(credentials));
                }
                None
            }
            (_, Err(error)) => {
                // An open connection lives on until the broker ends it; the next dial fetches again. A handshake that
                // waits for credentials ends here.
                if !std::mem::take(&mut connection.is_challenged) || connection.was_up() {
                    return None;
                }
                let failure = Failure::of_credentials(error.with_address(&connection.address));
                self.actions.push_back(Action::Disconnect(id));
                self.remove(id, failure, false)
            }
        }
    }

    /// AUTH_CHALLENGE asks for fresh credentials, in the handshake or later.
    pub(crate) fn on_challenged(&mut self, id: ConnectionId, challenge: AuthData) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if matches!(connection.state, PooledState::Dialing | PooledState::Up | PooledState::Draining)
            && !connection.is_challenged
        {
            connection.is_challenged = true;
            let context = context(&connection.key, connection.shown.as_ref()).with_challenge(challenge);
            self.actions.push_back(Action::FetchCredentials(id, connection.key.cluster, context));
            self.notice(id, ConnectionNotice::Challenged);
        }
    }

    /// The handshake is done.
    pub(crate) fn on_up(&mut self, id: ConnectionId, peer: PeerInfo) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.state != PooledState::Dialing {
            return;
        }
        connection.state = PooledState::Up;
        connection.is_second_try = false;
        let server_version = peer.server_version.as_str().into();
        let connected = ConnectionNotice::Connected { server_version, protocol_version: peer.protocol_version };
        connection.peer = Some(peer);
        // A broker that accepts connections but answers no lookup keeps its cooldown, see `on_lookup`.
        self.dispatchable.insert(id);
        self.notice(id, connected);
    }

    /// The connection has ended. `None` if nothing follows: it is unknown, or its holders have got a fresh one.
    pub(crate) fn on_ended(
        &mut self,
        id: ConnectionId,
        reason: &CloseReason,
        random: &mut SplitMix64,
        now: Now,
    ) -> Option<Lost> {
        let connection = self.connections.get(&id)?;
        let was_up = connection.was_up();
        let (key, is_second_try) = (connection.key.clone(), connection.is_second_try);
        let refused = connection.shown.clone();
        let failure = Failure::of_connection(reason, was_up, &connection.address);
        let is_on_purpose = *reason == CloseReason::ClusterSwitched;
        let lost = self.remove(id, failure, is_on_purpose)?;
        if was_up {
            return Some(lost);
        }
        if refuses_credentials(reason) && !is_second_try {
            // The token may have expired since it was fetched, or been replaced.
            if !lost.holders.is_empty() {
                let fresh = self.make(key, true, refused, now);
                for holder in lost.holders {
                    self.enqueue(fresh, holder);
                }
            }
            return None;
        }
        self.cool_down(key, random, now);
        Some(lost)
    }

    /// A lookup or query over this connection was answered, or not. After too many failures in a row it is not handed out any
    /// more; `true` then.
    pub(crate) fn on_lookup(&mut self, id: ConnectionId, failed: bool, random: &mut SplitMix64, now: Now) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        if !failed {
            connection.lookups_failed = 0;
            // A late answer on a connection that was replaced does not mean that the broker accepts new ones.
            if connection.state == PooledState::Up {
                self.cooldowns.remove(&connection.key);
            }
            return false;
        }
        connection.lookups_failed += 1;
        if connection.lookups_failed < LOOKUP_FAILURES_MAX || connection.state != PooledState::Up {
            return false;
        }
        connection.state = PooledState::Draining;
        let key = connection.key.clone();
        let is_idle = connection.holders == 0;
        self.unpool(id, &key);
        self.cool_down(key, random, now);
        if is_idle {
            self.disconnect(id);
        }
        true
    }

    /// Keeps a broker from being dialed for a moment.
    fn cool_down(&mut self, key: BrokerKey, random: &mut SplitMix64, now: Now) {
        self.cooldowns.retain(|_, cooldown| cooldown.until + COOLDOWN_MAX > now.at);
        let initial = self.config.initial_backoff_interval;
        let cooldown = self
            .cooldowns
            .entry(key)
            .or_insert_with(|| Cooldown { backoff: Backoff::new(initial, COOLDOWN_MAX), until: now.at });
        if let Some(until) = now.at.checked_add(cooldown.backoff.next(random)) {
            cooldown.until = until;
        }
    }

    fn unpool(&mut self, id: ConnectionId, key: &BrokerKey) {
        if self.pooled.get(key) == Some(&id) {
            self.pooled.remove(key);
        }
    }

    fn remove(&mut self, id: ConnectionId, failure: Failure, is_on_purpose: bool) -> Option<Lost> {
        let connection = self.connections.get(&id)?;
        let was_up = connection.was_up();
        let holders = self.take_holders(id);
        let endpoints = holders.iter().filter(|holder| matches!(holder, Holder::Endpoint(_))).count();
        self.notice(
            id,
            match is_on_purpose {
                true => ConnectionNotice::Closed,
                false => ConnectionNotice::Failed { error: failure.error.clone(), was_up, endpoints },
            },
        );
        let connection = self.connections.remove(&id)?;
        self.unpool(id, &connection.key);
        self.dispatchable.remove(&id);
        self.deadlines.set(id, None);
        Some(Lost { key: connection.key, holders, failure })
    }

    fn disconnect(&mut self, id: ConnectionId) {
        self.notice(id, ConnectionNotice::Closed);
        self.take_holders(id);
        let Some(connection) = self.connections.remove(&id) else { return };
        self.unpool(id, &connection.key);
        self.dispatchable.remove(&id);
        self.deadlines.set(id, None);
        // What was never dialed needs no end.
        if matches!(connection.state, PooledState::Dialing | PooledState::Up | PooledState::Draining) {
            self.actions.push_back(Action::Disconnect(id));
        }
    }

    /// Hands none of the present connections out any more: each is of a cluster that is not used now.
    pub(crate) fn retire_all(&mut self) {
        self.pooled.clear();
        self.cooldowns.clear();
    }

    /// Ends the connections of other clusters than this one. One with holders, which a session serves, ends by itself and
    /// returns them; any other holder has left.
    pub(crate) fn end_retired(&mut self, cluster: ClusterId) {
        let retired = |connection: &PooledConnection| connection.key.cluster != cluster;
        let ids: Vec<_> = self.connections.iter().filter(|(_, it)| retired(it)).map(|(id, _)| *id).collect();
        for id in ids {
            match self.connections.get_mut(&id) {
                Some(connection) if connection.holders > 0 => {
                    connection.state = PooledState::Draining;
                    self.command(id, SessionCommand::End(CloseReason::ClusterSwitched));
                }
                _ => self.disconnect(id),
            }
        }
    }

    /// Ends every connection.
    pub(crate) fn disconnect_all(&mut self) {
        while let Some(&id) = self.connections.keys().next() {
            self.disconnect(id);
        }
    }

    /// The next action to carry out.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn poll_deadline(&self) -> Option<Deadline> {
        self.deadlines.next()
    }

    /// A cooldown that is over leads to a dial; a connection that was idle for too long is closed.
    pub(crate) fn handle_deadline(&mut self, now: Now) {
        while let Some(id) = self.deadlines.pop_due(now) {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            if connection.holders == 0 {
                self.disconnect(id);
            } else if connection.state == PooledState::CoolingDown {
                let (state, action) = first_step(id, &connection.key, connection.shown.as_ref());
                connection.state = state;
                self.actions.push_back(action);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn state(&self, id: ConnectionId) -> Option<PooledState> {
        self.connections.get(&id).map(|connection| connection.state)
    }

    /// Whether no connection is left and no action waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.actions.is_empty()
    }

    /// How many items [`check`](Self::check) looks at.
    #[cfg(debug_assertions)]
    pub(crate) fn check_size(&self) -> usize {
        self.held.len() + self.connections.len()
    }

    /// What holds between two inputs.
    #[cfg(debug_assertions)]
    pub(crate) fn check(&self) {
        let mut held = 0;
        for connection in self.connections.values() {
            assert!(connection.active <= self.config.opens_in_flight_max.max(1), "no more slots than allowed");
            held += connection.holders;
        }
        assert_eq!(held, self.held.len(), "the holders of a connection are counted");
        let (mut active, mut queued) = (HashMap::new(), 0);
        for (holder, seat) in &self.held {
            match seat.state {
                HolderState::Queued(ticket) => {
                    let queue = self.connections.get(&seat.connection).map(|connection| &connection.queue);
                    assert_eq!(queue.and_then(|queue| queue.get(&ticket)), Some(holder), "it queues for a slot");
                    queued += 1;
                }
                HolderState::Active => *active.entry(seat.connection).or_default() += 1,
                HolderState::Attached => {}
            }
        }
        for (id, connection) in &self.connections {
            assert_eq!(active.remove(id).unwrap_or(0), connection.active, "slots of a connection are counted");
            queued -= connection.queue.len();
        }
        assert!(active.is_empty() && queued == 0, "a holder has a connection that is there");
        assert!(self.pooled.values().all(|id| self.connections.contains_key(id)), "the pool hands out what exists");
    }
}

/// How a connection begins: with its credentials; over HTTP, where each request shows them, with the dial.
fn first_step(id: ConnectionId, key: &BrokerKey, refused: Option<&AuthData>) -> (PooledState, Action) {
    match key.transport {
        Transport::Pulsar => {
            let context = context(key, refused);
            (PooledState::FetchingCredentials, Action::FetchCredentials(id, key.cluster, context))
        }
        Transport::Http => {
            let credentials = AuthData::none();
            (PooledState::Dialing, Action::Dial { connection: id, key: key.clone(), credentials })
        }
    }
}

/// What credentials are for, in place of which others.
fn context(key: &BrokerKey, outdated: Option<&AuthData>) -> AuthContext {
    let context = AuthContext::new(key.logical.clone());
    match outdated {
        Some(outdated) => context.with_outdated(outdated.clone()),
        None => context,
    }
}

#[cfg(test)]
mod tests;
