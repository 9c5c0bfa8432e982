//! A switch to another cluster, and topics that migrate to one.

use super::*;

#[test]
fn a_switch_moves_what_is_attached_looked_up_and_asked() {
    let mut harness = Harness::new("pulsar://service");
    let (_attached, _) = harness.attached(1);
    let _looking_up = harness.open(2);
    let mut partitions = ask_partitions(&mut harness);
    harness.log();
    harness.switch(1, "pulsar://other");
    assert_eq!(
        harness.log(),
        [
            "fetch",
            "end service:6650",
            "dial other:6650",
            "lookup at other:6650",
            "partitions at other:6650",
            "lookup at other:6650"
        ]
    );
    let is_partitions = |command: &Command| matches!(command, Command::PartitionedMetadata(_));
    let at = harness.asks.iter().position(|(.., command)| is_partitions(command)).expect("it was asked again");
    let (connection, ask, _) = harness.asks.remove(at).expect("it is there");
    harness.notice(connection, SessionEvent::Response(ask, partitions_response(3)));
    assert_eq!(peek(&mut partitions).expect("answered").expect("a number"), 3);
    for _ in 0..2 {
        harness.respond(connect_to("pulsar://other:6650"));
        harness.opened();
    }
    assert_eq!((harness.state(1), harness.state(2)), ("attached", "attached"));
}

#[test]
fn a_switch_does_not_wait_for_a_back_off_or_a_cooldown() {
    let mut harness =
        Harness::with("pulsar://service", |config| config.max_backoff_interval = Duration::from_secs(600));
    let (_endpoint, connection) = harness.attached(1);
    harness.unreachable.insert("service");
    harness.end(connection, "reset by peer");
    harness.wait(Duration::from_secs(300));
    assert_eq!(harness.state(1), "backing off");
    harness.log();
    harness.switch(1, "pulsar://other");
    assert_eq!(harness.log(), ["fetch", "dial other:6650", "lookup at other:6650"]);
    harness.respond(connect_to("pulsar://other:6650"));
    harness.opened();
    harness.log();
    harness.unreachable.clear();
    harness.switch(2, "pulsar://service");
    assert_eq!(
        harness.log(),
        ["end other:6650", "fetch", "dial service:6650", "lookup at service:6650"],
        "the same host as before, which was not reached then"
    );
}

#[test]
fn what_comes_late_from_the_cluster_before_changes_nothing() {
    let mut harness = Harness::new("pulsar://service");
    harness.responds = false;
    let _endpoint = harness.open(1);
    harness.switch(2, "pulsar://other");
    harness.switch(1, "pulsar://older");
    harness.responds = true;
    harness.pump();
    harness.input(Input::Credentials(ConnectionId(1), Ok(AuthData::none())));
    assert_eq!(harness.log(), ["fetch", "fetch"], "neither the first nor the one that was given up is dialed");
    harness.input(Input::Credentials(ConnectionId(2), Ok(AuthData::none())));
    assert_eq!(harness.log(), ["dial other:6650", "lookup at other:6650"]);
}

#[test]
fn what_is_reported_while_its_session_ends_leads_to_the_new_cluster() {
    let opening = |harness: &mut Harness| {
        let _endpoint = harness.open(1);
        harness.respond(connect_to("pulsar://service:6650"));
        harness.opens.pop_front().map(|(connection, ..)| connection).expect("an open")
    };
    let reports: [fn(&mut Harness, ConnectionId, Attempt); 3] = [
        |harness, connection, attempt| {
            harness.notice(connection, SessionEvent::OpenFailed(id(1), attempt, server_error(6)))
        },
        |harness, connection, attempt| {
            harness.notice(connection, SessionEvent::Detached(id(1), attempt, Some("pulsar://b:6650".to_owned())));
        },
        |harness, connection, attempt| {
            harness.notice(connection, SessionEvent::Migrated(id(1), attempt, Some("pulsar://b:6650".to_owned())));
        },
    ];
    for report in reports {
        let mut harness = Harness::new("pulsar://service");
        let connection = opening(&mut harness);
        let attempt = harness.give_back(connection, id(1));
        let switch = Input::SwitchCluster(ClusterId(1), ServiceUrl::parse("pulsar://other").expect("good"));
        // Its session has not taken the command to end yet.
        harness.supervisor.handle(switch, harness.now, &mut harness.deferred);
        report(&mut harness, connection, attempt);
        assert_eq!(harness.state(1), "looking up");
        let log = harness.log();
        assert!(log.ends_with(&["dial other:6650".to_owned(), "lookup at other:6650".to_owned()]), "{log:?}");
    }
}

#[test]
fn a_topic_that_migrated_is_looked_up_at_its_cluster_for_good() {
    let mut harness = Harness::new("pulsar://service");
    let (_endpoint, connection) = harness.attached(1);
    harness.migrated(connection, id(1), Some("pulsar://green:6650"));
    assert_eq!(harness.log(), ["fetch", "dial green:6650", "lookup at green:6650"]);
    harness.respond(connect_to("pulsar://green:6650"));
    let (connection, ..) = harness.opened();
    harness.log();
    harness.end(connection, "reset by peer");
    harness.wait_ms(100);
    assert_eq!(harness.log(), ["fetch", "dial green:6650", "lookup at green:6650"]);
    let _partitions = ask_partitions(&mut harness);
    assert_eq!(harness.log(), ["partitions at service:6650"], "of the client, as with the Java client");
    harness.switch(1, "pulsar://other");
    assert_eq!(
        harness.log(),
        [
            "fetch",
            "hang up service:6650",
            "hang up green:6650",
            "dial other:6650",
            "lookup at other:6650",
            "partitions at other:6650"
        ]
    );
}

#[test]
fn an_open_that_is_answered_with_a_migration_goes_there() {
    let mut harness = Harness::new("pulsar://service");
    let (_endpoint, mut created) = harness.open(1);
    harness.respond(connect_to("pulsar://service:6650"));
    let (connection, ..) = harness.opens.pop_front().expect("an open");
    harness.log();
    harness.migrated(connection, id(1), Some("pulsar://green:6650"));
    assert_eq!(harness.log(), ["fetch", "dial green:6650", "lookup at green:6650"]);
    harness.respond(connect_to("pulsar://green:6650"));
    harness.opened();
    assert!(matches!(peek(&mut created), Some(Ok(_))));
}

#[test]
fn clusters_that_name_each_other_before_the_open_do_not_spin() {
    let mut harness = Harness::new("pulsar://service");
    let _endpoint = harness.open(1);
    for (url, state) in [("pulsar://green:6650", "looking up"), ("pulsar://service:6650", "backing off")] {
        harness.respond(connect_to(url));
        let (connection, ..) = harness.opens.pop_front().expect("an open");
        harness.migrated(connection, id(1), Some(url));
        assert_eq!(harness.state(1), state);
    }
}

#[test]
fn a_migration_is_not_followed_from_tls_to_plain() {
    for (service, named, followed) in [
        ("pulsar+ssl://service", Some("pulsar://green:6650"), false),
        ("pulsar+ssl://service", Some("pulsar+ssl://green:6651"), true),
        ("pulsar://service", Some("http://green:8080"), false),
        ("pulsar://service", None, false),
        ("pulsar://service", Some("pulsar://"), false),
    ] {
        let mut harness = Harness::new(service);
        let _endpoint = harness.open(1);
        let mut found = lookup_response(LookupType::Connect, "pulsar://service:6650");
        found.broker_service_url_tls = Some("pulsar+ssl://service:6651".to_owned());
        harness.respond(Ok(Box::new(Command::LookupResponse(found))));
        let (connection, ..) = harness.opened();
        harness.migrated(connection, id(1), named);
        assert_eq!(harness.state(1), if followed { "looking up" } else { "backing off" }, "{service} {named:?}");
    }
}

#[test]
fn endpoints_are_spread_over_the_connections_to_a_broker() {
    let mut harness = Harness::with("pulsar://service", |config| config.connections_per_broker = 2);
    for number in 1..=4 {
        let _endpoint = harness.open(number);
        harness.respond(connect_to("pulsar://b:6650"));
        harness.opened();
    }
    let dials = harness.log().iter().filter(|line| *line == "dial b:6650").count();
    assert_eq!(dials, 2);
    let mut endpoints: Vec<_> = harness.peers.values().map(|peer| peer.attached.len()).collect();
    endpoints.sort_unstable();
    assert_eq!(endpoints, [0, 2, 2], "the first is the one to the service URL");
}
