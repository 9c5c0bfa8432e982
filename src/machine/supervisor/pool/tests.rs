//! One test for each edge of the diagram of [`BrokerState`].

use super::*;
use crate::error::{Error, ErrorKind, RetryPolicy, ServerError};
use crate::machine::control::HostPort;

struct Rig {
    brokers: Brokers,
    random: SplitMix64,
    now: Now,
}

fn user(number: u64) -> User {
    User::Question(number)
}

fn key(name: &str) -> BrokerKey {
    let host = HostPort { host: name.into(), port: 6650 };
    BrokerKey { logical: host.clone(), physical: host, tls: false, index: 0 }
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
        let config = BrokersConfig {
            opens_in_flight_max: 2,
            idle_connection_max: Duration::from_secs(60),
            initial_backoff_interval: Duration::from_millis(100),
        };
        let now = Now { at: Instant::now(), wall_ms: 0 };
        Self { brokers: Brokers::new(config), random: SplitMix64::new(7), now }
    }

    fn wait(&mut self, time: Duration) {
        self.now.at += time;
        self.brokers.handle_deadline(self.now);
        self.brokers.check();
    }

    fn join(&mut self, name: &str, number: u64) -> ConnectionId {
        self.brokers.join(&key(name), user(number), self.now);
        self.brokers.check();
        self.brokers.link_of(user(number)).expect("a seat")
    }

    fn actions(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.brokers.poll_action())
            .map(|action| match action {
                Action::FetchCredentials(link) => format!("fetch {}", link.0),
                Action::Dial { link, key, .. } => format!("dial {} {}", link.0, key.physical),
                Action::Tell(link, SessionCommand::Challenge(_)) => format!("challenge {}", link.0),
                Action::Tell(link, command) => format!("tell {} {command:?}", link.0),
                Action::HangUp(link) => format!("hang up {}", link.0),
            })
            .collect()
    }

    fn credentials(&mut self, link: ConnectionId) -> Option<Lost> {
        self.brokers.on_credentials(link, Ok(AuthData::none()))
    }

    fn end(&mut self, link: ConnectionId, reason: &CloseReason) -> Option<Lost> {
        let lost = self.brokers.on_ended(link, reason, &mut self.random, self.now);
        self.brokers.check();
        lost
    }

    /// A link that is up, with one user.
    fn up(&mut self, name: &str, number: u64) -> ConnectionId {
        let link = self.join(name, number);
        assert!(self.credentials(link).is_none());
        self.brokers.on_up(link, peer());
        assert_eq!(self.brokers.state(link), Some(BrokerState::Up));
        self.actions();
        link
    }

    fn fail_lookups(&mut self, link: ConnectionId, times: u32) -> bool {
        (0..times).fold(false, |_, _| self.brokers.on_lookup(link, true, &mut self.random, self.now))
    }
}

#[test]
fn many_users_of_one_broker_make_one_dial_with_fresh_credentials() {
    let mut rig = Rig::new();
    let link = rig.join("b", 1);
    assert_eq!(rig.join("b", 2), link);
    assert_eq!(rig.actions(), ["fetch 1"]);
    assert_eq!(rig.brokers.state(link), Some(BrokerState::FetchingCredentials));
    rig.credentials(link);
    assert_eq!(rig.actions(), ["dial 1 b:6650"]);
    assert_eq!(rig.brokers.state(link), Some(BrokerState::Dialing));
    assert_eq!(rig.join("b", 3), link);
    assert_eq!(rig.actions(), [""; 0]);
    assert_ne!(rig.join("other", 4), link);
}

#[test]
fn without_credentials_there_is_no_dial() {
    let mut rig = Rig::new();
    let link = rig.join("b", 1);
    let error = Error::local(ErrorKind::Authentication, "no such file");
    let lost = rig.brokers.on_credentials(link, Err(error)).expect("its users are told");
    assert_eq!(lost.users, [user(1)]);
    assert!(lost.failure.is_final(false) && !lost.failure.is_final(true));
    assert_eq!(rig.brokers.state(link), None);
    assert_eq!(rig.brokers.link_of(user(1)), None);
}

#[test]
fn refused_credentials_are_fetched_once_more_for_all_who_wait() {
    let mut rig = Rig::new();
    let first = rig.join("b", 1);
    rig.join("b", 2);
    rig.credentials(first);
    rig.actions();
    assert!(rig.end(first, &refused(3)).is_none());
    let second = rig.brokers.link_of(user(1)).expect("it waits on");
    assert_eq!((rig.brokers.link_of(user(2)), rig.brokers.state(first)), (Some(second), None));
    assert_eq!(rig.actions(), ["fetch 2"]);
    rig.credentials(second);
    let lost = rig.end(second, &refused(3)).expect("the end");
    assert_eq!(lost.users, [user(1), user(2)]);
    assert_eq!(lost.failure.retry_policy, RetryPolicy::Terminal);
    assert_eq!(lost.failure.error.kind(), ErrorKind::Authentication);
    assert_eq!(lost.failure.error.address(), Some("b:6650"));
}

#[test]
fn news_of_a_link_that_is_over_change_nothing() {
    let mut rig = Rig::new();
    let first = rig.join("b", 1);
    rig.credentials(first);
    rig.end(first, &refused(3));
    rig.actions();
    rig.brokers.on_up(first, peer());
    rig.brokers.on_challenged(first);
    assert!(rig.credentials(first).is_none());
    assert!(rig.end(first, &unreachable()).is_none());
    assert_eq!(rig.actions(), [""; 0]);
    assert_eq!(rig.brokers.state(ConnectionId(2)), Some(BrokerState::FetchingCredentials));
}

#[test]
fn a_failed_dial_leaves_the_pool_and_the_broker_rests() {
    let mut rig = Rig::new();
    let first = rig.join("b", 1);
    rig.credentials(first);
    rig.actions();
    let lost = rig.end(first, &unreachable()).expect("its users are told");
    assert_eq!(lost.failure.retry_policy, RetryPolicy::Retry);
    assert!(lost.failure.error.to_string().contains("refused (os error 111) [broker b:6650]"));

    let second = rig.join("b", 1);
    assert_ne!(first, second);
    assert_eq!(rig.brokers.state(second), Some(BrokerState::Resting));
    assert_eq!(rig.join("b", 2), second);
    rig.wait(Duration::from_millis(89));
    assert_eq!(rig.actions(), [""; 0]);
    rig.wait(Duration::from_millis(11));
    assert_eq!(rig.actions(), ["fetch 2"]);
    assert_eq!(rig.brokers.state(second), Some(BrokerState::FetchingCredentials));
}

#[test]
fn a_resting_link_that_nobody_waits_for_is_forgotten_and_the_rest_is_not() {
    let mut rig = Rig::new();
    let first = rig.join("b", 1);
    rig.credentials(first);
    rig.end(first, &unreachable());
    let second = rig.join("b", 1);
    rig.actions();
    rig.brokers.leave(user(1), rig.now);
    assert_eq!((rig.brokers.state(second), rig.actions()), (None, vec![]));
    let third = rig.join("b", 1);
    assert_eq!(rig.brokers.state(third), Some(BrokerState::Resting));
}

#[test]
fn a_dead_broker_is_dialed_ever_more_rarely_up_to_the_longest_rest() {
    let mut rig = Rig::new();
    let start = rig.now.at;
    let mut dials = 0;
    while rig.now.at < start + Duration::from_secs(60) {
        let link = rig.join("b", 1);
        if rig.brokers.state(link) == Some(BrokerState::Resting) {
            let rest = rig.brokers.poll_deadline().expect("a rest ends");
            rig.now.at = rig.now.at.max(rest.at);
            rig.brokers.handle_deadline(rig.now);
        }
        rig.credentials(link);
        dials += 1;
        rig.end(link, &unreachable());
    }
    assert!((14..25).contains(&dials), "{dials}");
}

#[test]
fn a_lost_connection_is_told_to_all_and_may_be_dialed_at_once() {
    let mut rig = Rig::new();
    let link = rig.up("b", 1);
    rig.join("b", 2);
    // A reason that would be terminal in a handshake.
    let lost = rig.end(link, &refused(3)).expect("told");
    assert_eq!(lost.users, [user(1), user(2)]);
    assert_eq!(lost.failure.retry_policy, RetryPolicy::Retry);
    let again = rig.join("b", 1);
    assert_eq!(rig.brokers.state(again), Some(BrokerState::FetchingCredentials));
}

#[test]
fn an_idle_connection_is_hung_up_and_one_in_use_is_not() {
    let mut rig = Rig::new();
    let link = rig.up("b", 1);
    rig.wait(Duration::from_secs(3600));
    assert_eq!(rig.brokers.state(link), Some(BrokerState::Up));
    rig.brokers.leave(user(1), rig.now);
    rig.wait(Duration::from_secs(59));
    assert_eq!(rig.join("b", 1), link);
    rig.wait(Duration::from_secs(3600));
    assert_eq!(rig.brokers.state(link), Some(BrokerState::Up));
    rig.brokers.leave(user(1), rig.now);
    rig.wait(Duration::from_secs(60));
    assert_eq!((rig.brokers.state(link), rig.actions()), (None, vec!["hang up 1".to_owned()]));
}

#[test]
fn a_connection_that_is_being_made_is_not_idle() {
    let mut rig = Rig::new();
    let link = rig.join("b", 1);
    rig.wait(Duration::from_secs(120));
    assert_eq!(rig.brokers.state(link), Some(BrokerState::FetchingCredentials));
}

#[test]
fn lookups_that_fail_in_a_row_replace_the_connection_but_spare_who_is_attached() {
    let mut rig = Rig::new();
    let sick = rig.up("b", 1);
    assert_eq!(rig.brokers.next_turn(), Some((sick, user(1))));
    rig.brokers.settle(user(1));
    assert!(!rig.fail_lookups(sick, LOOKUP_FAILURES_MAX - 1));
    rig.brokers.on_lookup(sick, false, &mut rig.random, rig.now);
    assert!(!rig.fail_lookups(sick, LOOKUP_FAILURES_MAX - 1));
    assert!(rig.fail_lookups(sick, 1));
    assert_eq!(rig.brokers.state(sick), Some(BrokerState::Draining));
    assert_eq!(rig.actions(), [""; 0]);
    let fresh = rig.join("b", 2);
    assert_ne!(fresh, sick);
    rig.brokers.leave(user(1), rig.now);
    assert_eq!((rig.brokers.state(sick), rig.actions()), (None, vec!["hang up 1".to_owned()]));
}

#[test]
fn a_draining_connection_that_ends_tells_its_guests_and_leaves_the_fresh_one_alone() {
    let mut rig = Rig::new();
    let sick = rig.up("b", 1);
    rig.fail_lookups(sick, LOOKUP_FAILURES_MAX);
    let fresh = rig.join("b", 2);
    assert_eq!(rig.end(sick, &CloseReason::Io(Error::network("reset"))).expect("told").users, [user(1)]);
    assert_eq!(rig.join("b", 3), fresh);
}

#[test]
fn turns_are_bounded_and_go_in_order() {
    let mut rig = Rig::new();
    let link = rig.join("b", 9);
    for number in [5, 1, 7] {
        rig.join("b", number);
    }
    assert_eq!(rig.brokers.next_turn(), None);
    rig.credentials(link);
    rig.brokers.on_up(link, peer());
    assert_eq!(rig.brokers.next_turn(), Some((link, user(9))));
    assert_eq!(rig.brokers.next_turn(), Some((link, user(5))));
    assert_eq!(rig.brokers.next_turn(), None);
    rig.brokers.leave(user(5), rig.now);
    assert_eq!(rig.brokers.next_turn(), Some((link, user(1))));
    assert_eq!(rig.brokers.next_turn(), None);
    rig.brokers.settle(user(9));
    assert_eq!(rig.brokers.next_turn(), Some((link, user(7))));
    rig.brokers.check();
}

#[test]
fn who_leaves_the_queue_gets_no_turn() {
    let mut rig = Rig::new();
    let link = rig.up("b", 1);
    rig.join("b", 2);
    rig.brokers.leave(user(1), rig.now);
    assert_eq!(rig.brokers.next_turn(), Some((link, user(2))));
    assert_eq!(rig.brokers.next_turn(), None);
}

#[test]
fn a_challenge_is_answered_with_fresh_credentials_and_asked_for_once() {
    let mut rig = Rig::new();
    let link = rig.up("b", 1);
    rig.brokers.on_challenged(link);
    rig.brokers.on_challenged(link);
    assert_eq!(rig.actions(), ["fetch 1"]);
    rig.credentials(link);
    assert_eq!(rig.actions(), ["challenge 1"]);
    // Credentials that nobody asked for.
    rig.credentials(link);
    assert_eq!(rig.actions(), [""; 0]);
}

#[test]
fn a_failed_refresh_leaves_an_open_connection_alone_and_ends_a_handshake() {
    let mut rig = Rig::new();
    let error = || Err(Error::network("the token endpoint is away"));
    let open = rig.up("b", 1);
    rig.brokers.on_challenged(open);
    assert!(rig.brokers.on_credentials(open, error()).is_none());
    assert_eq!(rig.brokers.state(open), Some(BrokerState::Up));

    let shaking = rig.join("c", 2);
    rig.credentials(shaking);
    rig.brokers.on_challenged(shaking);
    rig.actions();
    assert_eq!(rig.brokers.on_credentials(shaking, error()).expect("told").users, [user(2)]);
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
    rig.brokers.hang_up_all();
    assert_eq!(rig.actions(), ["hang up 1", "hang up 2"]);
    assert!(rig.brokers.is_empty());
}
