//! One test for each edge of the diagram of [`PooledState`].

use super::*;
use crate::error::{Error, ErrorKind, RetryPolicy, ServerError};
use crate::machine::control::HostPort;

struct Rig {
    pool: ConnectionPool,
    random: SplitMix64,
    now: Now,
}

fn holder(number: u64) -> Holder {
    Holder::Query(number)
}

fn key(name: &str) -> BrokerKey {
    let host = HostPort { host: name.into(), port: 6650 };
    BrokerKey::of_host(host, Transport::Pulsar)
}

fn peer() -> PeerInfo {
    PeerInfo {
        address: "b:6650".into(),
        server_version: "test".to_owned(),
        protocol_version: 21,
        max_message_size: 1024,
        supports_topic_watchers: false,
        supports_partitions_without_creation: false,
    }
}

fn refused(code: i32) -> CloseReason {
    CloseReason::Broker(ServerError::new(code, "no"))
}

fn unreachable() -> CloseReason {
    CloseReason::Dial(Error::network("connection refused (os error 111)"))
}

impl Rig {
    fn new() -> Self {
        let config = PoolConfig {
            opens_in_flight_max: 2,
            idle_connection_max: Duration::from_secs(60),
            initial_backoff_interval: Duration::from_millis(100),
        };
        let now = Now { at: Instant::now(), wall_ms: 0 };
        Self { pool: ConnectionPool::new(config), random: SplitMix64::new(7), now }
    }

    fn wait(&mut self, time: Duration) {
        self.now.at += time;
        self.pool.handle_deadline(self.now);
        self.pool.check();
    }

    fn join(&mut self, name: &str, number: u64) -> ConnectionId {
        self.pool.join(&key(name), holder(number), self.now);
        self.pool.check();
        self.pool.connection_of(holder(number)).expect("a seat")
    }

    fn actions(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.pool.poll_action())
            .map(|action| match action {
                Action::FetchCredentials(connection, _, context) => match context.challenge() {
                    Some(challenge) => format!("fetch {} for {}", connection.0, challenge.method),
                    None => format!("fetch {}", connection.0),
                },
                Action::Dial { connection, key, .. } => format!("dial {} {}", connection.0, key.physical),
                Action::Command(connection, SessionCommand::AuthResponse(_)) => format!("challenge {}", connection.0),
                Action::Command(connection, command) => format!("tell {} {command:?}", connection.0),
                Action::Disconnect(connection) => format!("hang up {}", connection.0),
            })
            .collect()
    }

    fn credentials(&mut self, connection: ConnectionId) -> Option<Lost> {
        self.pool.on_credentials(connection, Ok(AuthData::none()))
    }

    fn end(&mut self, connection: ConnectionId, reason: &CloseReason) -> Option<Lost> {
        let lost = self.pool.on_ended(connection, reason, &mut self.random, self.now);
        self.pool.check();
        lost
    }

    /// A connection that is up, with one holder.
    fn up(&mut self, name: &str, number: u64) -> ConnectionId {
        let connection = self.join(name, number);
        assert!(self.credentials(connection).is_none());
        self.pool.on_up(connection, peer());
        assert_eq!(self.pool.state(connection), Some(PooledState::Up));
        self.actions();
        connection
    }

    fn fail_lookups(&mut self, connection: ConnectionId, times: u32) -> bool {
        (0..times).fold(false, |_, _| self.pool.on_lookup(connection, true, &mut self.random, self.now))
    }
}

#[test]
fn many_users_of_one_broker_make_one_dial_with_fresh_credentials() {
    let mut rig = Rig::new();
    let connection = rig.join("b", 1);
    assert_eq!(rig.join("b", 2), connection);
    assert_eq!(rig.actions(), ["fetch 1"]);
    assert_eq!(rig.pool.state(connection), Some(PooledState::FetchingCredentials));
    rig.credentials(connection);
    assert_eq!(rig.actions(), ["dial 1 b:6650"]);
    assert_eq!(rig.pool.state(connection), Some(PooledState::Dialing));
    assert_eq!(rig.join("b", 3), connection);
    assert_eq!(rig.actions(), [""; 0]);
    assert_ne!(rig.join("other", 4), connection);
}

#[test]
fn without_credentials_there_is_no_dial() {
    let mut rig = Rig::new();
    let connection = rig.join("b", 1);
    let error = Error::local(ErrorKind::Authentication, "no such file");
    let lost = rig.pool.on_credentials(connection, Err(error)).expect("its holders are told");
    assert_eq!(lost.holders, [holder(1)]);
    assert!(lost.failure.is_final(false) && !lost.failure.is_final(true));
    assert_eq!(rig.pool.state(connection), None);
    assert_eq!(rig.pool.connection_of(holder(1)), None);
}

#[test]
fn refused_credentials_are_fetched_once_more_for_all_who_wait() {
    let mut rig = Rig::new();
    let first = rig.join("b", 1);
    rig.join("b", 2);
    rig.credentials(first);
    rig.actions();
    assert!(rig.end(first, &refused(3)).is_none());
    let second = rig.pool.connection_of(holder(1)).expect("it waits on");
    assert_eq!((rig.pool.connection_of(holder(2)), rig.pool.state(first)), (Some(second), None));
    assert_eq!(rig.actions(), ["fetch 2"]);
    rig.credentials(second);
    let lost = rig.end(second, &refused(3)).expect("the end");
    assert_eq!(lost.holders, [holder(1), holder(2)]);
    assert_eq!(lost.failure.retry_policy, RetryPolicy::RetryIfEstablished);
    assert_eq!(lost.failure.error.kind(), ErrorKind::Authentication);
    assert_eq!(lost.failure.error.address(), Some("b:6650"));
}

#[test]
fn events_of_an_ended_connection_change_nothing() {
    let mut rig = Rig::new();
    let first = rig.join("b", 1);
    rig.credentials(first);
    rig.end(first, &refused(3));
    rig.actions();
    rig.pool.on_up(first, peer());
    rig.pool.on_challenged(first, AuthData::token("challenge"));
    assert!(rig.credentials(first).is_none());
    assert!(rig.end(first, &unreachable()).is_none());
    assert_eq!(rig.actions(), [""; 0]);
    assert_eq!(rig.pool.state(ConnectionId(2)), Some(PooledState::FetchingCredentials));
}

#[test]
fn a_failed_dial_leaves_the_pool_and_the_broker_cools_down() {
    let mut rig = Rig::new();
    let first = rig.join("b", 1);
    rig.credentials(first);
    rig.actions();
    let lost = rig.end(first, &unreachable()).expect("its holders are told");
    assert_eq!(lost.failure.retry_policy, RetryPolicy::Retry);
    assert!(lost.failure.error.to_string().contains("refused (os error 111) [broker b:6650]"));

    let second = rig.join("b", 1);
    assert_ne!(first, second);
    assert_eq!(rig.pool.state(second), Some(PooledState::CoolingDown));
    assert_eq!(rig.join("b", 2), second);
    rig.wait(Duration::from_millis(89));
    assert_eq!(rig.actions(), [""; 0]);
    rig.wait(Duration::from_millis(11));
    assert_eq!(rig.actions(), ["fetch 2"]);
    assert_eq!(rig.pool.state(second), Some(PooledState::FetchingCredentials));
}

#[test]
fn a_cooldown_without_waiters_is_forgotten_and_the_rest_is_not() {
    let mut rig = Rig::new();
    let first = rig.join("b", 1);
    rig.credentials(first);
    rig.end(first, &unreachable());
    let second = rig.join("b", 1);
    rig.actions();
    rig.pool.leave(holder(1), rig.now);
    assert_eq!((rig.pool.state(second), rig.actions()), (None, vec![]));
    let third = rig.join("b", 1);
    assert_eq!(rig.pool.state(third), Some(PooledState::CoolingDown));
}

#[test]
fn a_dead_broker_is_dialed_ever_more_rarely_up_to_the_longest_rest() {
    let mut rig = Rig::new();
    let start = rig.now.at;
    let mut dials = 0;
    while rig.now.at < start + Duration::from_secs(60) {
        let connection = rig.join("b", 1);
        if rig.pool.state(connection) == Some(PooledState::CoolingDown) {
            let rest = rig.pool.poll_deadline().expect("a rest ends");
            rig.now.at = rig.now.at.max(rest.at);
            rig.pool.handle_deadline(rig.now);
        }
        rig.credentials(connection);
        dials += 1;
        rig.end(connection, &unreachable());
    }
    assert!((14..25).contains(&dials), "{dials}");
}

#[test]
fn a_lost_connection_is_told_to_all_and_may_be_dialed_at_once() {
    let mut rig = Rig::new();
    let connection = rig.up("b", 1);
    rig.join("b", 2);
    // A reason that would be terminal in a handshake.
    let lost = rig.end(connection, &refused(3)).expect("told");
    assert_eq!(lost.holders, [holder(1), holder(2)]);
    assert_eq!(lost.failure.retry_policy, RetryPolicy::Retry);
    let again = rig.join("b", 1);
    assert_eq!(rig.pool.state(again), Some(PooledState::FetchingCredentials));
}

#[test]
fn an_idle_connection_is_hung_up_and_one_in_use_is_not() {
    let mut rig = Rig::new();
    let connection = rig.up("b", 1);
    rig.wait(Duration::from_secs(3600));
    assert_eq!(rig.pool.state(connection), Some(PooledState::Up));
    rig.pool.leave(holder(1), rig.now);
    rig.wait(Duration::from_secs(59));
    assert_eq!(rig.join("b", 1), connection);
    rig.wait(Duration::from_secs(3600));
    assert_eq!(rig.pool.state(connection), Some(PooledState::Up));
    rig.pool.leave(holder(1), rig.now);
    rig.wait(Duration::from_secs(60));
    assert_eq!((rig.pool.state(connection), rig.actions()), (None, vec!["hang up 1".to_owned()]));
}

#[test]
fn a_connection_that_is_being_made_is_not_idle() {
    let mut rig = Rig::new();
    let connection = rig.join("b", 1);
    rig.wait(Duration::from_secs(120));
    assert_eq!(rig.pool.state(connection), Some(PooledState::FetchingCredentials));
}

#[test]
fn failed_lookups_in_a_row_replace_the_connection_but_spare_the_attached() {
    let mut rig = Rig::new();
    let sick = rig.up("b", 1);
    assert_eq!(rig.pool.next_slot(), Some((sick, holder(1))));
    rig.pool.on_attached(holder(1));
    assert!(!rig.fail_lookups(sick, LOOKUP_FAILURES_MAX - 1));
    rig.pool.on_lookup(sick, false, &mut rig.random, rig.now);
    assert!(!rig.fail_lookups(sick, LOOKUP_FAILURES_MAX - 1));
    assert!(rig.fail_lookups(sick, 1));
    assert_eq!(rig.pool.state(sick), Some(PooledState::Draining));
    assert_eq!(rig.actions(), [""; 0]);
    let fresh = rig.join("b", 2);
    assert_ne!(fresh, sick);
    rig.pool.leave(holder(1), rig.now);
    assert_eq!((rig.pool.state(sick), rig.actions()), (None, vec!["hang up 1".to_owned()]));
}

#[test]
fn an_answer_on_a_draining_connection_leaves_the_cooldown_of_its_broker() {
    let mut rig = Rig::new();
    let sick = rig.up("b", 1);
    rig.fail_lookups(sick, LOOKUP_FAILURES_MAX);
    rig.pool.on_lookup(sick, false, &mut rig.random, rig.now);
    let fresh = rig.join("b", 2);
    assert_eq!(rig.pool.state(fresh), Some(PooledState::CoolingDown));
}

#[test]
fn a_draining_connection_that_ends_tells_its_guests_and_no_others() {
    let mut rig = Rig::new();
    let sick = rig.up("b", 1);
    rig.fail_lookups(sick, LOOKUP_FAILURES_MAX);
    let fresh = rig.join("b", 2);
    assert_eq!(rig.end(sick, &CloseReason::Io(Error::network("reset"))).expect("told").holders, [holder(1)]);
    assert_eq!(rig.join("b", 3), fresh);
}

#[test]
fn slots_are_bounded_and_go_in_order() {
    let mut rig = Rig::new();
    let connection = rig.join("b", 9);
    for number in [5, 1, 7] {
        rig.join("b", number);
    }
    assert_eq!(rig.pool.next_slot(), None);
    rig.credentials(connection);
    rig.pool.on_up(connection, peer());
    assert_eq!(rig.pool.next_slot(), Some((connection, holder(9))));
    assert_eq!(rig.pool.next_slot(), Some((connection, holder(5))));
    assert_eq!(rig.pool.next_slot(), None);
    rig.pool.leave(holder(5), rig.now);
    assert_eq!(rig.pool.next_slot(), Some((connection, holder(1))));
    assert_eq!(rig.pool.next_slot(), None);
    rig.pool.on_attached(holder(9));
    assert_eq!(rig.pool.next_slot(), Some((connection, holder(7))));
    rig.pool.check();
}

#[test]
fn who_leaves_the_queue_gets_no_slot() {
    let mut rig = Rig::new();
    let connection = rig.up("b", 1);
    rig.join("b", 2);
    rig.pool.leave(holder(1), rig.now);
    assert_eq!(rig.pool.next_slot(), Some((connection, holder(2))));
    assert_eq!(rig.pool.next_slot(), None);
}

#[test]
fn a_challenge_is_answered_with_fresh_credentials_and_asked_for_once() {
    let mut rig = Rig::new();
    let connection = rig.up("b", 1);
    rig.pool.on_challenged(connection, AuthData::token("challenge"));
    rig.pool.on_challenged(connection, AuthData::token("challenge"));
    assert_eq!(rig.actions(), ["fetch 1 for token"]);
    rig.credentials(connection);
    assert_eq!(rig.actions(), ["challenge 1"]);
    // Credentials that nobody asked for.
    rig.credentials(connection);
    assert_eq!(rig.actions(), [""; 0]);
}

#[test]
fn a_failed_refresh_leaves_an_open_connection_alone_and_ends_a_handshake() {
    let mut rig = Rig::new();
    let error = || Err(Error::network("the token endpoint is away"));
    let open = rig.up("b", 1);
    rig.pool.on_challenged(open, AuthData::token("challenge"));
    assert!(rig.pool.on_credentials(open, error()).is_none());
    assert_eq!(rig.pool.state(open), Some(PooledState::Up));

    let shaking = rig.join("c", 2);
    rig.credentials(shaking);
    rig.pool.on_challenged(shaking, AuthData::token("challenge"));
    rig.actions();
    assert_eq!(rig.pool.on_credentials(shaking, error()).expect("told").holders, [holder(2)]);
    assert_eq!(rig.actions(), ["hang up 2"]);
}

#[test]
fn the_end_hangs_up_what_was_dialed() {
    let mut rig = Rig::new();
    rig.up("a", 1);
    let dialing = rig.join("b", 2);
    rig.credentials(dialing);
    rig.join("c", 3);
    rig.actions();
    rig.pool.disconnect_all();
    assert_eq!(rig.actions(), ["hang up 1", "hang up 2"]);
    assert!(rig.pool.is_empty());
}

#[test]
fn an_http_host_is_dialed_without_credentials_also_after_a_cooldown() {
    let mut rig = Rig::new();
    let web = BrokerKey { transport: Transport::Http, ..key("web") };
    rig.pool.join(&web, holder(1), rig.now);
    rig.pool.check();
    let first = rig.pool.connection_of(holder(1)).expect("a seat");
    assert_eq!(rig.pool.state(first), Some(PooledState::Dialing));
    assert_eq!(rig.actions(), ["dial 1 web:6650"]);
    let lost = rig.end(first, &unreachable()).expect("it is gone");
    rig.pool.join(&lost.key, holder(1), rig.now);
    let second = rig.pool.connection_of(holder(1)).expect("a seat");
    assert_eq!(rig.pool.state(second), Some(PooledState::CoolingDown));
    rig.wait(COOLDOWN_MAX);
    assert_eq!(rig.actions(), ["dial 2 web:6650"]);
}
