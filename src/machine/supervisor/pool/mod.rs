//! The connections of a client: one per [`BrokerKey`], shared by all who need that broker.
//!
//! A *user* of a connection is an endpoint (asking where its topic is, opening, or attached) or a question. Each user
//! sits on at most one connection. Who needs an answer queues for a *turn*, and at most `opens_in_flight_max` users
//! per connection have one at a time, so that a thousand endpoints that lost their broker do not ask it all at once.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::machine::connection::peer::PeerInfo;
use crate::machine::control::{Action, AuthData, BrokerKey, CloseReason, ConnectionId, SessionCommand};
use crate::machine::deadlines::Deadlines;
use crate::machine::supervisor::backoff::Backoff;
use crate::machine::supervisor::failure::{Failure, refuses_credentials};
use crate::machine::{Deadline, EndpointId, Now};
use crate::splitmix::SplitMix64;

/// Lookups in a row that one connection leaves unanswered, or answers with "not now", before it is replaced.
pub(crate) const LOOKUP_FAILURES_MAX: u32 = 5;

/// The longest time that a broker which could not be reached is left alone. It is far below the longest back-off of
/// an endpoint: it only gathers those who want the same broker into one dial.
const REST_MAX: Duration = Duration::from_secs(5);

/// Who needs a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum User {
    /// A producer or consumer.
    Endpoint(EndpointId),
    /// A question of the client itself.
    Question(u64),
}

/// Where one connection stands. One that is over is not in the table any more.
///
/// ```text
///   first user          (could not be reached a moment ago)
///      |------------------------------> Resting
///      v                                   | its time is over
/// FetchingCredentials <--------------------+
///      |    | no credentials
///      |    +-----------------------------------------> over
///  credentials                                           ^
///      v       refused credentials, first time: over,    |
///   Dialing ------ and its users wait for a fresh link --|
///      |    any other end                                |
///      |-------------------------------------------------|
///      | CONNECTED                                       |
///      v       ended, or idle                            |
///      Up -----------------------------------------------|
///      | too many lookups failed                         |
///      v       ended, or the last user left              |
///   Draining --------------------------------------------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BrokerState {
    /// Not dialed yet, because the last dial of this broker failed a moment ago.
    Resting,
    /// Waiting for [`Input::Credentials`](crate::machine::control::Input::Credentials).
    FetchingCredentials,
    /// The driver connects, and the session shakes hands.
    Dialing,
    /// Usable.
    Up,
    /// Not handed out any more: who is attached stays, who comes gets another connection.
    Draining,
}

/// What a user of a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seat {
    /// Queued for a turn, with this ticket.
    Waiting(u64),
    /// Has a turn: a request of it is on its way.
    Asking,
    /// Attached.
    Guest,
}

#[derive(Debug)]
struct Link {
    key: BrokerKey,
    /// `host:port` for errors, with the proxy's if there is one.
    address: Arc<str>,
    state: BrokerState,
    /// Bounded by the endpoints and questions of the client.
    users: BTreeMap<User, Seat>,
    /// The queue for a turn by ticket: those of `users` that wait.
    waiting: BTreeMap<u64, User>,
    /// How many of `users` have a turn.
    asking: usize,
    /// The broker refused the credentials of the link before this one.
    is_second_try: bool,
    /// The broker wants fresh credentials on the open connection.
    is_challenged: bool,
    lookups_failed: u32,
    peer: Option<PeerInfo>,
}

impl Link {
    fn was_up(&self) -> bool {
        self.peer.is_some()
    }
}

/// A connection is gone, and these were on it.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) key: BrokerKey,
    pub(crate) users: Vec<User>,
    pub(crate) failure: Failure,
}

#[derive(Debug, Clone)]
pub(crate) struct BrokersConfig {
    pub(crate) opens_in_flight_max: usize,
    pub(crate) idle_connection_max: Duration,
    pub(crate) initial_backoff_interval: Duration,
}

/// All connections of a client.
#[derive(Debug)]
pub(crate) struct Brokers {
    config: BrokersConfig,
    /// One for each dial that is under way or made. Bounded: a link without users is hung up, so there are at most as
    /// many as users, plus the idle ones of the last `idle_connection_max`.
    links: BTreeMap<ConnectionId, Link>,
    /// The link to hand out for a key: a subset of `links`. Never iterated, so its order does not matter.
    pooled: HashMap<BrokerKey, ConnectionId>,
    /// Where each user sits.
    seats: BTreeMap<User, ConnectionId>,
    /// Brokers that could not be reached lately; older entries go when one is added. Bounded by the dials that failed
    /// within twice [`REST_MAX`].
    rests: HashMap<BrokerKey, Rest>,
    /// Links that may have a turn to give.
    open_gates: BTreeSet<ConnectionId>,
    /// Rests and idle times. Bounded by `links`.
    deadlines: Deadlines<ConnectionId>,
    /// Not collected yet. Bounded by the caller, who collects after every input.
    actions: VecDeque<Action>,
    next_link: u64,
    next_ticket: u64,
}

#[derive(Debug)]
struct Rest {
    backoff: Backoff,
    until: Instant,
}

impl Brokers {
    pub(crate) fn new(config: BrokersConfig) -> Self {
        Self {
            config,
            links: BTreeMap::new(),
            pooled: HashMap::new(),
            seats: BTreeMap::new(),
            rests: HashMap::new(),
            open_gates: BTreeSet::new(),
            deadlines: Deadlines::default(),
            actions: VecDeque::new(),
            next_link: 0,
            next_ticket: 0,
        }
    }

    /// Queues `user` for a turn on the connection to `key`, which is made if there is none. It leaves the one it sat
    /// on before.
    pub(crate) fn join(&mut self, key: &BrokerKey, user: User, now: Now) {
        self.leave(user, now);
        let id = match self.pooled.get(key) {
            Some(&id) => id,
            None => self.make(key.clone(), false, now),
        };
        self.seat(id, user);
    }

    fn make(&mut self, key: BrokerKey, is_second_try: bool, now: Now) -> ConnectionId {
        self.next_link += 1;
        let id = ConnectionId(self.next_link);
        let address: Arc<str> = match key.proxy_to_broker_url() {
            Some(broker) => format!("{broker} through {}", key.physical).into(),
            None => key.logical.to_string().into(),
        };
        let rest = self.rests.get(&key).map(|rest| rest.until).filter(|until| *until > now.at);
        let state = if rest.is_some() { BrokerState::Resting } else { BrokerState::FetchingCredentials };
        match rest {
            Some(until) => self.deadlines.set(id, Some(Deadline::new(until, "rest of a broker"))),
            None => self.actions.push_back(Action::FetchCredentials(id)),
        }
        self.pooled.insert(key.clone(), id);
        let link = Link {
            key,
            address,
            state,
            users: BTreeMap::new(),
            waiting: BTreeMap::new(),
            asking: 0,
            is_second_try,
            is_challenged: false,
            lookups_failed: 0,
            peer: None,
        };
        self.links.insert(id, link);
        id
    }

    fn seat(&mut self, id: ConnectionId, user: User) {
        let Some(link) = self.links.get_mut(&id) else { return };
        self.next_ticket += 1;
        link.users.insert(user, Seat::Waiting(self.next_ticket));
        link.waiting.insert(self.next_ticket, user);
        self.seats.insert(user, id);
        self.open_gates.insert(id);
        if link.state != BrokerState::Resting {
            self.deadlines.set(id, None);
        }
    }

    /// The user needs no connection any more, or another one.
    pub(crate) fn leave(&mut self, user: User, now: Now) {
        let Some(id) = self.seats.remove(&user) else { return };
        let Some(link) = self.links.get_mut(&id) else { return };
        match link.users.remove(&user) {
            Some(Seat::Waiting(ticket)) => {
                link.waiting.remove(&ticket);
            }
            Some(Seat::Asking) => link.asking -= 1,
            Some(Seat::Guest) | None => {}
        }
        self.open_gates.insert(id);
        if !link.users.is_empty() {
            return;
        }
        if matches!(link.state, BrokerState::Resting | BrokerState::Draining) {
            self.hang_up(id);
        } else {
            let idle = Deadline::after(now, self.config.idle_connection_max, "idle connection");
            self.deadlines.set(id, idle);
        }
    }

    /// The user is attached: its turn is over, its place stays.
    pub(crate) fn settle(&mut self, user: User) {
        let Some(&id) = self.seats.get(&user) else { return };
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.users.insert(user, Seat::Guest) == Some(Seat::Asking) {
            link.asking -= 1;
        }
        self.open_gates.insert(id);
    }

    /// Whose turn it is, on a connection that is up.
    pub(crate) fn next_turn(&mut self) -> Option<(ConnectionId, User)> {
        while let Some(&id) = self.open_gates.first() {
            let turn = self.links.get_mut(&id).and_then(|link| {
                let is_open = matches!(link.state, BrokerState::Up | BrokerState::Draining);
                if !is_open || link.asking >= self.config.opens_in_flight_max.max(1) {
                    return None;
                }
                let (_, user) = link.waiting.pop_first()?;
                link.users.insert(user, Seat::Asking);
                link.asking += 1;
                Some((id, user))
            });
            if turn.is_some() {
                return turn;
            }
            self.open_gates.remove(&id);
        }
        None
    }

    /// Where the user sits.
    pub(crate) fn link_of(&self, user: User) -> Option<ConnectionId> {
        self.seats.get(&user).copied()
    }

    /// The key of a connection.
    pub(crate) fn key(&self, id: ConnectionId) -> Option<&BrokerKey> {
        self.links.get(&id).map(|link| &link.key)
    }

    /// The address of a connection, for errors.
    pub(crate) fn address(&self, id: ConnectionId) -> Option<&Arc<str>> {
        self.links.get(&id).map(|link| &link.address)
    }

    /// What the broker said of itself, once it has.
    pub(crate) fn peer(&self, id: ConnectionId) -> Option<&PeerInfo> {
        self.links.get(&id).and_then(|link| link.peer.as_ref())
    }

    /// Passes a command to the session.
    pub(crate) fn tell(&mut self, id: ConnectionId, command: SessionCommand) {
        self.actions.push_back(Action::Tell(id, command));
    }

    /// The credentials that a link asked for.
    pub(crate) fn on_credentials(&mut self, id: ConnectionId, credentials: Result<AuthData>) -> Option<Lost> {
        let link = self.links.get_mut(&id)?;
        match (link.state, credentials) {
            (BrokerState::FetchingCredentials, Ok(credentials)) => {
                link.state = BrokerState::Dialing;
                let key = link.key.clone();
                self.actions.push_back(Action::Dial { link: id, key, credentials });
                None
            }
            (BrokerState::FetchingCredentials, Err(error)) => {
                let failure = Failure::of_credentials(error.with_address(&link.address));
                self.remove(id, failure)
            }
            (BrokerState::Resting, _) => None,
            (_, Ok(credentials)) => {
                if std::mem::take(&mut link.is_challenged) {
                    self.tell(id, SessionCommand::Challenge(credentials));
                }
                None
            }
            (_, Err(error)) => {
                // An open connection lives on until the broker ends it; the next dial fetches again. A handshake that
                // waits for credentials ends here.
                if !std::mem::take(&mut link.is_challenged) || link.was_up() {
                    return None;
                }
                let failure = Failure::of_credentials(error.with_address(&link.address));
                self.actions.push_back(Action::HangUp(id));
                self.remove(id, failure)
            }
        }
    }

    /// The broker wants fresh credentials, in the handshake or later.
    pub(crate) fn on_challenged(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if matches!(link.state, BrokerState::Dialing | BrokerState::Up | BrokerState::Draining) && !link.is_challenged {
            link.is_challenged = true;
            self.actions.push_back(Action::FetchCredentials(id));
        }
    }

    /// The handshake is done.
    pub(crate) fn on_up(&mut self, id: ConnectionId, peer: PeerInfo) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.state != BrokerState::Dialing {
            return;
        }
        link.state = BrokerState::Up;
        link.is_second_try = false;
        link.peer = Some(peer);
        // A broker that lets in but answers no lookup keeps its rest, see `on_lookup`.
        self.open_gates.insert(id);
    }

    /// The connection is over. `None` where nobody has to be told: it is unknown, or its users wait for a fresh one.
    pub(crate) fn on_ended(
        &mut self,
        id: ConnectionId,
        reason: &CloseReason,
        random: &mut SplitMix64,
        now: Now,
    ) -> Option<Lost> {
        let link = self.links.get(&id)?;
        let was_up = link.was_up();
        let (key, is_second_try) = (link.key.clone(), link.is_second_try);
        let failure = Failure::of_link(reason, was_up, &link.address);
        let lost = self.remove(id, failure)?;
        if was_up {
            return Some(lost);
        }
        if refuses_credentials(reason) && !is_second_try {
            // The token may have expired since it was fetched, or been replaced.
            if !lost.users.is_empty() {
                let fresh = self.make(key, true, now);
                for user in lost.users {
                    self.seat(fresh, user);
                }
            }
            return None;
        }
        self.rest(key, random, now);
        Some(lost)
    }

    /// A lookup or partition question over this link was answered, or not. Too many failures in a row and the link is
    /// handed out no more; `true` then.
    pub(crate) fn on_lookup(&mut self, id: ConnectionId, failed: bool, random: &mut SplitMix64, now: Now) -> bool {
        let Some(link) = self.links.get_mut(&id) else { return false };
        if !failed {
            link.lookups_failed = 0;
            self.rests.remove(&link.key);
            return false;
        }
        link.lookups_failed += 1;
        if link.lookups_failed < LOOKUP_FAILURES_MAX || link.state != BrokerState::Up {
            return false;
        }
        link.state = BrokerState::Draining;
        let key = link.key.clone();
        let is_idle = link.users.is_empty();
        self.unpool(id, &key);
        self.rest(key, random, now);
        if is_idle {
            self.hang_up(id);
        }
        true
    }

    /// Leaves a broker alone for a moment.
    fn rest(&mut self, key: BrokerKey, random: &mut SplitMix64, now: Now) {
        self.rests.retain(|_, rest| rest.until + REST_MAX > now.at);
        let initial = self.config.initial_backoff_interval;
        let rest =
            self.rests.entry(key).or_insert_with(|| Rest { backoff: Backoff::new(initial, REST_MAX), until: now.at });
        if let Some(until) = now.at.checked_add(rest.backoff.next(random)) {
            rest.until = until;
        }
    }

    fn unpool(&mut self, id: ConnectionId, key: &BrokerKey) {
        if self.pooled.get(key) == Some(&id) {
            self.pooled.remove(key);
        }
    }

    fn remove(&mut self, id: ConnectionId, failure: Failure) -> Option<Lost> {
        let link = self.links.remove(&id)?;
        self.unpool(id, &link.key);
        self.open_gates.remove(&id);
        self.deadlines.set(id, None);
        for user in link.users.keys() {
            self.seats.remove(user);
        }
        Some(Lost { key: link.key, users: link.users.into_keys().collect(), failure })
    }

    fn hang_up(&mut self, id: ConnectionId) {
        let Some(link) = self.links.remove(&id) else { return };
        self.unpool(id, &link.key);
        self.open_gates.remove(&id);
        self.deadlines.set(id, None);
        for user in link.users.keys() {
            self.seats.remove(user);
        }
        // What was never dialed needs no end.
        if matches!(link.state, BrokerState::Dialing | BrokerState::Up | BrokerState::Draining) {
            self.actions.push_back(Action::HangUp(id));
        }
    }

    /// Ends every connection.
    pub(crate) fn hang_up_all(&mut self) {
        while let Some(&id) = self.links.keys().next() {
            self.hang_up(id);
        }
    }

    /// The next action to carry out.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn poll_deadline(&self) -> Option<Deadline> {
        self.deadlines.next()
    }

    /// Rests that are over lead to a dial; a connection that nobody needed for long is ended.
    pub(crate) fn handle_deadline(&mut self, now: Now) {
        while let Some(id) = self.deadlines.pop_due(now) {
            let Some(link) = self.links.get_mut(&id) else { continue };
            if link.users.is_empty() {
                self.hang_up(id);
            } else if link.state == BrokerState::Resting {
                link.state = BrokerState::FetchingCredentials;
                self.actions.push_back(Action::FetchCredentials(id));
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn state(&self, id: ConnectionId) -> Option<BrokerState> {
        self.links.get(&id).map(|link| link.state)
    }

    /// Nothing is left of a client that is closed.
    pub(crate) fn is_empty(&self) -> bool {
        self.links.is_empty() && self.actions.is_empty()
    }

    /// What must hold between two inputs.
    #[cfg(debug_assertions)]
    pub(crate) fn check(&self) {
        let mut seated = 0;
        for (id, link) in &self.links {
            let asking = link.users.values().filter(|seat| **seat == Seat::Asking).count();
            assert_eq!(asking, link.asking, "turns of a link are counted");
            assert!(asking <= self.config.opens_in_flight_max.max(1), "no more turns than allowed");
            assert!(link.users.keys().all(|user| self.seats.get(user) == Some(id)), "a user sits where it is listed");
            assert!(link.waiting.values().all(|user| matches!(link.users.get(user), Some(Seat::Waiting(_)))));
            seated += link.users.len();
        }
        assert_eq!(seated, self.seats.len(), "a user sits on one link");
        assert!(self.pooled.values().all(|id| self.links.contains_key(id)), "the pool holds no link that is over");
    }
}

#[cfg(test)]
mod tests;
