//! What a client asks of the cluster.

use super::*;

#[test]
fn connect_shows_what_the_broker_says_of_itself() {
    let mut harness = Harness::new("pulsar://service");
    let (to, mut reply) = Reply::pair();
    harness.input(Input::Query(query::connect().with_reply(to)));
    assert_eq!(&*peek(&mut reply).expect("answered").expect("connected").address, "service:6650");
    assert_eq!(harness.log(), ["fetch", "dial service:6650"]);
}

#[test]
fn connect_dials_each_host_before_it_pauses_and_waits_for_one_to_come_up() {
    let mut harness = Harness::new("pulsar://a,b,c");
    harness.unreachable.extend(["a", "b", "c"]);
    let (to, mut reply) = Reply::pair();
    harness.input(Input::Query(query::connect().with_reply(to)));
    assert!(peek(&mut reply).is_none());
    let dials = |harness: &mut Harness| {
        let log = harness.log();
        let mut dials: Vec<String> =
            log.iter().filter_map(|line| line.strip_prefix("dial ").map(str::to_owned)).collect();
        dials.sort_unstable();
        dials
    };
    assert_eq!(dials(&mut harness), ["a:6650", "b:6650", "c:6650"]);
    harness.unreachable.remove("b");
    harness.wait(Duration::from_secs(5));
    assert_eq!(&*peek(&mut reply).expect("answered").expect("connected").address, "b:6650");
}

#[test]
fn connect_ends_in_time_with_the_last_failure() {
    let mut harness = Harness::new("pulsar://service");
    harness.unreachable.insert("service");
    let (to, mut reply) = Reply::pair();
    harness.input(Input::Query(query::connect().with_reply(to)));
    harness.wait_ms(29_999);
    assert!(peek(&mut reply).is_none());
    harness.wait_ms(1);
    let error = peek(&mut reply).expect("answered").expect_err("unreachable");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let text = error.to_string();
    let what = "timed out after 30s waiting for the connection to the service URL [broker service:6650]: ";
    assert!(text.starts_with(what) && text.contains("connecting to service:6650: connection refused"), "{text}");
}

#[test]
fn a_query_for_the_owner_of_a_topic_looks_it_up_first() {
    let mut harness = Harness::new("pulsar://service");
    let (to, mut reply) = Reply::pair();
    harness.input(Input::Query(query::coordinator(3).with_reply(to)));
    harness.respond(connect_to("pulsar://owner:6650"));
    assert_eq!(
        harness.log(),
        [
            "fetch",
            "dial service:6650",
            "lookup at service:6650",
            "fetch",
            "dial owner:6650",
            "TC_CLIENT_CONNECT_REQUEST at owner:6650"
        ]
    );
    harness.respond(Ok(Box::new(pb::CommandTcClientConnectResponse::default().into())));
    assert_eq!(peek(&mut reply), Some(Ok(())));
    assert_eq!(harness.supervisor.queries.len() + harness.supervisor.requests.iter().count(), 0);
}

#[test]
fn connect_finds_the_host_that_lives() {
    let mut harness = Harness::new("pulsar://a,b,c");
    harness.unreachable.extend(["a", "b"]);
    let (to, mut reply) = Reply::pair();
    harness.input(Input::Query(query::connect().with_reply(to)));
    assert_eq!(&*peek(&mut reply).expect("answered").expect("connected").address, "c:6650");
    // The next one goes there straight.
    harness.log();
    let _endpoint = harness.open(1);
    assert_eq!(harness.log(), ["lookup at c:6650"]);
}

#[test]
fn connect_with_a_wrong_token_does_not_bother_the_other_hosts() {
    let mut harness = Harness::new("pulsar://a,b,c");
    harness.refuses_token = true;
    let (to, mut reply) = Reply::pair();
    harness.input(Input::Query(query::connect().with_reply(to)));
    let error = peek(&mut reply).expect("answered").expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert_eq!(harness.log().iter().filter(|line| line.starts_with("dial")).count(), 2);
}

#[test]
fn connect_ends_although_the_credentials_never_come() {
    let mut harness = Harness::new("pulsar://service");
    harness.responds = false;
    let (to, mut reply) = Reply::pair();
    harness.input(Input::Query(query::connect().with_reply(to)));
    harness.wait(Duration::from_secs(30));
    let error = peek(&mut reply).expect("answered").expect_err("late");
    assert_eq!((error.kind(), error.address()), (ErrorKind::TimedOut, Some("service:6650")));
}

#[test]
fn partitions_are_counted() {
    let mut harness = Harness::new("pulsar://service");
    let mut reply = ask_partitions(&mut harness);
    assert_eq!(harness.log(), ["fetch", "dial service:6650", "partitions at service:6650"]);
    harness.respond(partitions_response(3));
    assert_eq!(peek(&mut reply), Some(Ok(3)));
    assert_eq!(harness.supervisor.queries.len() + harness.supervisor.requests.iter().count(), 0);
}

#[test]
fn a_partition_question_is_retried_where_that_can_help() {
    let mut harness = Harness::new("pulsar://service");
    let mut reply = ask_partitions(&mut harness);
    harness.respond(refused(6));
    assert!(peek(&mut reply).is_none());
    harness.wait_ms(100);
    let (connection, ..) = harness.asks[0];
    harness.end(connection, "reset by peer");
    harness.wait_ms(200);
    harness.respond(refused(4));
    let error = peek(&mut reply).expect("answered").expect_err("not allowed");
    assert_eq!((error.kind(), error.topic()), (ErrorKind::Authorization, Some("persistent://public/default/t")));
}

/// A refusal leaves the connection up; the next host is asked all the same, and then there is a pause.
#[test]
fn a_refused_query_is_asked_of_each_service_host_before_it_pauses() {
    let mut harness = Harness::new("pulsar://a,b,c");
    let mut reply = ask_partitions(&mut harness);
    let asked = |harness: &mut Harness| -> Vec<String> {
        let log = harness.log();
        log.iter().filter_map(|line| line.strip_prefix("partitions at ").map(str::to_owned)).collect()
    };
    let mut hosts = asked(&mut harness);
    for _ in 0..2 {
        harness.respond(refused(6));
        hosts.extend(asked(&mut harness));
    }
    hosts.sort_unstable();
    assert_eq!(hosts, ["a:6650", "b:6650", "c:6650"]);
    harness.respond(refused(6));
    assert_eq!((asked(&mut harness).len(), peek(&mut reply)), (0, None), "all hosts were asked");
    harness.wait_ms(200);
    harness.respond(partitions_response(3));
    assert_eq!(peek(&mut reply), Some(Ok(3)));
}

#[test]
fn a_partition_question_ends_in_time_and_names_the_last_trouble() {
    let mut harness = Harness::new("pulsar://service");
    harness.unreachable.insert("service");
    let mut reply = ask_partitions(&mut harness);
    harness.wait_ms(29_999);
    assert!(peek(&mut reply).is_none());
    harness.wait_ms(1);
    let error = peek(&mut reply).expect("answered").expect_err("late");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("connection refused"), "{error}");
}

#[test]
fn a_query_without_a_caller_is_not_retried() {
    let mut harness = Harness::new("pulsar://service");
    drop(ask_partitions(&mut harness));
    harness.respond(refused(6));
    harness.log();
    harness.wait(Duration::from_secs(50));
    assert_eq!(harness.log(), NONE);
    assert!(harness.supervisor.queries.is_empty());
}
