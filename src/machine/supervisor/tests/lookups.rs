//! Where a topic is: lookups, redirects, proxies.

use super::*;

#[test]
fn an_endpoint_is_looked_up_and_opened_over_the_connection_there_is() {
    let mut harness = Harness::new("pulsar://service");
    let (_endpoint, mut created) = harness.open(1);
    assert_eq!(harness.log(), ["fetch", "dial service:6650", "lookup at service:6650"]);
    assert_eq!(harness.state(1), "looking up");
    let mut response = lookup_response(LookupType::Connect, "pulsar://service:6650");
    response.proxy_through_service_url = Some(true);
    harness.respond(Ok(Box::new(Command::LookupResponse(response))));
    assert_eq!(harness.log(), ["open producer 1 #1 at service:6650"]);
    assert_eq!(harness.state(1), "opening");
    assert!(peek(&mut created).is_none());
    harness.opened();
    assert_eq!(harness.state(1), "attached");
    assert_eq!(peek(&mut created).expect("created").expect("well").name, "made-up");
}

#[test]
fn the_broker_that_a_lookup_names_is_dialed_once_for_all_its_topics() {
    let mut harness = Harness::new("pulsar://service");
    let _endpoints = [harness.open(1), harness.open(2)];
    harness.log();
    harness.responds = false;
    harness.respond(connect_to("pulsar://b:6650"));
    harness.respond(connect_to("pulsar://b:6650"));
    assert_eq!(harness.log(), ["fetch"]);
    assert_eq!((harness.state(1), harness.state(2)), ("connecting", "connecting"));
    harness.responds = true;
    harness.input(Input::Credentials(ConnectionId(2), Ok(AuthData::none())));
    assert_eq!(harness.log(), ["dial b:6650", "open producer 1 #1 at b:6650", "open producer 2 #1 at b:6650"]);
}

#[test]
fn a_redirect_is_followed_with_its_flag() {
    let mut harness = Harness::new("pulsar://service");
    let _endpoint = harness.open(1);
    harness.log();
    let mut redirect = lookup_response(LookupType::Redirect, "pulsar://leader:6650");
    redirect.authoritative = Some(true);
    harness.respond(Ok(Box::new(Command::LookupResponse(redirect))));
    assert_eq!(harness.log(), ["fetch", "dial leader:6650", "lookup at leader:6650 (authoritative)"]);
    assert_eq!(harness.state(1), "looking up");
    harness.respond(connect_to("pulsar://service:6650"));
    assert_eq!(harness.log(), ["open producer 1 #1 at service:6650"]);
}

#[test]
fn a_broker_behind_a_proxy_gets_its_own_connection_through_it() {
    let mut harness = Harness::new("pulsar://service");
    let _endpoint = harness.open(1);
    harness.log();
    let mut response = lookup_response(LookupType::Connect, "pulsar://b:6650");
    response.proxy_through_service_url = Some(true);
    harness.respond(Ok(Box::new(Command::LookupResponse(response))));
    assert_eq!(harness.log(), ["fetch", "dial service:6650 for b:6650", "open producer 1 #1 at b:6650"]);
    let (connection, ..) = harness.opened();
    harness.detached(connection, id(1), Some("pulsar://c:6650"));
    assert_eq!(harness.log(), ["fetch", "dial service:6650 for c:6650", "open producer 1 #2 at c:6650"]);
}

#[test]
fn a_lookup_that_is_refused_for_now_is_tried_again_after_a_pause() {
    let mut harness = Harness::new("pulsar://service");
    let (_endpoint, mut created) = harness.open(1);
    harness.log();
    harness.respond(refused(6));
    assert_eq!((harness.log().len(), harness.state(1)), (0, "backing off"));
    harness.wait_ms(99);
    assert_eq!(harness.log(), NONE);
    harness.wait_ms(1);
    assert_eq!(harness.log(), ["lookup at service:6650"]);
    harness.respond(Err(RequestError::TimedOut));
    harness.wait_ms(200);
    assert_eq!(harness.log(), ["lookup at service:6650"]);
    assert!(peek(&mut created).is_none());
}

#[test]
fn an_unknown_topic_is_one_clear_error() {
    let mut harness = Harness::new("pulsar://service");
    let (endpoint, mut created) = harness.open(1);
    harness.respond(refused(11));
    let error = peek(&mut created).expect("answered").expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::TopicNotFound);
    assert_eq!(error.topic(), Some("persistent://public/default/t"));
    assert_eq!(error.address(), Some("service:6650"));
    assert_eq!(harness.state(1), "closed");
    assert!(endpoint.with(|producer| producer.is_finished()));
}

#[test]
fn the_listener_goes_into_every_lookup() {
    let mut harness = Harness::with("pulsar://service", |config| config.listener_name = Some("external".to_owned()));
    let _endpoint = harness.open(1);
    let Command::Lookup(lookup) = &harness.asks[0].2 else { panic!("a lookup") };
    assert_eq!(lookup.advertised_listener_name.as_deref(), Some("external"));
}

#[test]
fn an_ipv6_service_host_is_one_and_the_same_with_and_without_brackets() {
    let mut harness = Harness::new("pulsar://[::1]:6650");
    let _endpoint = harness.open(1);
    harness.log();
    harness.respond(connect_to("pulsar://[::1]:6650"));
    assert_eq!(harness.log(), ["open producer 1 #1 at [::1]:6650"]);
    let key = harness.supervisor.hosts.key();
    assert_eq!(key.logical, HostPort { host: "::1".into(), port: 6650 });
}
