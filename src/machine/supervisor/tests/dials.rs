//! Brokers that cannot be reached, do not answer, or come back.

use super::*;

#[test]
fn an_unreachable_broker_is_retried_until_the_creation_deadline_names_it() {
    let mut harness = Harness::new("pulsar://service");
    harness.unreachable.insert("service");
    let (_endpoint, mut created) = harness.open(1);
    assert_eq!(
        (harness.log(), harness.state(1)),
        (vec!["fetch".to_owned(), "dial service:6650".to_owned()], "backing off")
    );
    harness.wait(Duration::from_secs(29));
    assert!(peek(&mut created).is_none());
    let dials = harness.log().iter().filter(|line| line.starts_with("dial")).count();
    assert!((6..14).contains(&dials), "{dials}");
    harness.wait(Duration::from_secs(1));
    let error = peek(&mut created).expect("answered").expect_err("unreachable");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("connecting to service:6650: connection refused"), "{error}");
    assert_eq!(harness.state(1), "closed");
    harness.log();
    harness.wait(Duration::from_secs(600));
    assert_eq!(harness.log(), NONE);
}

#[test]
fn a_dial_without_an_end_does_not_outlive_the_creation_deadline() {
    let mut harness = Harness::new("pulsar://service");
    harness.responds = false;
    let (_endpoint, mut created) = harness.open(1);
    harness.wait(Duration::from_secs(30));
    let error = peek(&mut created).expect("answered").expect_err("late");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("waiting for service:6650"), "{error}");
}

#[test]
fn a_broker_that_comes_back_is_found() {
    let mut harness = Harness::new("pulsar://service");
    harness.unreachable.insert("service");
    let _endpoint = harness.open(1);
    harness.wait(Duration::from_secs(10));
    harness.unreachable.clear();
    harness.wait(Duration::from_secs(15));
    harness.respond(connect_to("pulsar://service:6650"));
    harness.opened();
    assert_eq!(harness.state(1), "attached");
}

#[test]
fn service_hosts_take_turns_when_they_fail() {
    let mut harness = Harness::new("pulsar://a,b");
    harness.unreachable.extend(["a", "b"]);
    let _endpoint = harness.open(1);
    harness.wait(Duration::from_secs(10));
    let dials: Vec<String> = harness.log().into_iter().filter(|line| line.starts_with("dial")).collect();
    assert!(dials.len() > 4 && dials.windows(2).all(|pair| pair[0] != pair[1]), "{dials:?}");
}

#[test]
fn one_dead_broker_does_not_hold_up_the_topics_of_another() {
    let mut harness = Harness::with("pulsar://service", |config| config.opens_in_flight_max = 1);
    let _endpoints = [harness.open(1), harness.open(2)];
    harness.responds = false;
    harness.respond(connect_to("pulsar://dead:6650"));
    harness.respond(connect_to("pulsar://service:6650"));
    assert_eq!((harness.state(1), harness.state(2)), ("connecting", "opening"));
}

#[test]
fn a_connection_that_answers_no_lookup_is_replaced_and_its_attached_stay() {
    let mut harness = Harness::new("pulsar://service");
    let (_guest, sick) = harness.attached(1);
    let (_endpoint, _created) = harness.open(2);
    for _ in 0..LOOKUP_FAILURES_MAX {
        harness.respond(refused(6));
        harness.wait(Duration::from_secs(2));
    }
    let log = harness.log();
    assert_eq!(log.iter().filter(|line| *line == "dial service:6650").count(), 1, "{log:?}");
    assert_eq!(harness.state(1), "attached");
    let (fresh, ..) = harness.asks[0];
    assert_ne!(fresh, sick);
    harness.detached(sick, id(1), None);
    assert_eq!(harness.log(), ["hang up service:6650"]);
}

/// Many producers lose their broker: one dial at a time, no more opens in flight than allowed, all come back.
#[test]
fn a_reconnect_storm_stays_in_its_bounds() {
    const PRODUCERS: u64 = 250;
    let mut harness = Harness::with("pulsar://service", |config| config.opens_in_flight_max = 10);
    let mut endpoints = Vec::new();
    let mut connection = ConnectionId(0);
    for number in 0..PRODUCERS {
        let (endpoint, l) = harness.attached(number);
        endpoints.push(endpoint);
        connection = l;
    }
    harness.unreachable.insert("service");
    harness.end(connection, "the broker died");
    let died = harness.now.at;
    harness.wait(Duration::from_secs(25));
    let dials = harness.log().iter().filter(|line| line.starts_with("dial")).count();
    assert!(dials < 20, "{dials} dials in 25 s");
    harness.unreachable.clear();
    let mut busiest = 0;
    while harness.supervisor.endpoints.values().any(|attach| !matches!(attach.state, ManagedState::Attached)) {
        assert!(harness.now.at < died + Duration::from_secs(200), "all are back in time");
        busiest = busiest.max(harness.asks.len() + harness.opens.len());
        if !harness.asks.is_empty() {
            harness.respond(connect_to("pulsar://service:6650"));
        } else if !harness.opens.is_empty() {
            harness.opened();
        } else {
            harness.wait_ms(10);
        }
    }
    assert_eq!(busiest, 10);
    assert_eq!(harness.log().iter().filter(|line| line.starts_with("dial")).count(), 1);
}

#[test]
fn the_same_seed_does_the_same_at_the_same_time() {
    let run = |seed| {
        let mut harness = Harness::with("pulsar://a,b,c", |config| config.seed = seed);
        harness.unreachable.extend(["a", "b", "c"]);
        let _endpoints = [harness.open(1), harness.open(2), harness.open(3)];
        let mut seen = Vec::new();
        for _ in 0..2000 {
            harness.wait_ms(10);
            let at = harness.now.at.duration_since(harness.start);
            seen.extend(harness.log().into_iter().map(|line| (at, line)));
        }
        seen
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
