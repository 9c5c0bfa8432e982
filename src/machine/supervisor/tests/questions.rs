//! What a client asks on behalf of itself.

use super::*;

#[test]
fn connect_shows_what_the_broker_says_of_itself() {
    let mut rig = Rig::new("pulsar://service");
    let (to, mut reply) = Reply::pair();
    rig.input(Input::Connect(to));
    assert_eq!(&*peek(&mut reply).expect("answered").expect("connected").address, "service:6650");
    assert_eq!(rig.log(), ["fetch", "dial service:6650"]);
}

#[test]
fn connect_dials_each_host_once_and_reports_the_last_failure() {
    let mut rig = Rig::new("pulsar://a,b,c");
    rig.unreachable.extend(["a", "b", "c"]);
    let (to, mut reply) = Reply::pair();
    rig.input(Input::Connect(to));
    let error = peek(&mut reply).expect("answered").expect_err("unreachable");
    assert_eq!(error.kind(), ErrorKind::Connection);
    let log = rig.log();
    let mut dials: Vec<&str> = log.iter().filter_map(|line| line.strip_prefix("dial ")).collect();
    let last = dials[2].to_owned();
    assert!(error.to_string().contains(&format!("connecting to {last}: connection refused")), "{error}");
    dials.sort_unstable();
    assert_eq!(dials, ["a:6650", "b:6650", "c:6650"]);
}

#[test]
fn connect_finds_the_host_that_lives() {
    let mut rig = Rig::new("pulsar://a,b,c");
    rig.unreachable.extend(["a", "b"]);
    let (to, mut reply) = Reply::pair();
    rig.input(Input::Connect(to));
    assert_eq!(&*peek(&mut reply).expect("answered").expect("connected").address, "c:6650");
    // The next one goes there straight.
    rig.log();
    let _endpoint = rig.open(1);
    assert_eq!(rig.log(), ["lookup at c:6650"]);
}

#[test]
fn connect_with_a_wrong_token_does_not_bother_the_other_hosts() {
    let mut rig = Rig::new("pulsar://a,b,c");
    rig.refuses_token = true;
    let (to, mut reply) = Reply::pair();
    rig.input(Input::Connect(to));
    let error = peek(&mut reply).expect("answered").expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert_eq!(rig.log().iter().filter(|line| line.starts_with("dial")).count(), 2);
}

#[test]
fn connect_ends_although_the_credentials_never_come() {
    let mut rig = Rig::new("pulsar://service");
    rig.answers = false;
    let (to, mut reply) = Reply::pair();
    rig.input(Input::Connect(to));
    rig.wait(Duration::from_secs(30));
    let error = peek(&mut reply).expect("answered").expect_err("late");
    assert_eq!((error.kind(), error.address()), (ErrorKind::TimedOut, Some("service:6650")));
}

#[test]
fn partitions_are_counted() {
    let mut rig = Rig::new("pulsar://service");
    let mut reply = ask_partitions(&mut rig);
    assert_eq!(rig.log(), ["fetch", "dial service:6650", "partitions at service:6650"]);
    rig.answer(partitions_answer(3));
    assert_eq!(peek(&mut reply), Some(Ok(3)));
    assert_eq!(rig.supervisor.questions.len() + rig.supervisor.asks.len(), 0);
}

#[test]
fn a_partition_question_is_retried_where_that_can_help() {
    let mut rig = Rig::new("pulsar://service");
    let mut reply = ask_partitions(&mut rig);
    rig.answer(partitions_refused(6));
    assert!(peek(&mut reply).is_none());
    rig.wait_ms(100);
    let (link, ..) = rig.asks[0];
    rig.end(link, "reset by peer");
    rig.wait_ms(200);
    rig.answer(partitions_refused(4));
    let error = peek(&mut reply).expect("answered").expect_err("not allowed");
    assert_eq!((error.kind(), error.topic()), (ErrorKind::Authorization, Some("persistent://public/default/t")));
}

#[test]
fn a_partition_question_ends_in_time_and_names_the_last_trouble() {
    let mut rig = Rig::new("pulsar://service");
    rig.unreachable.insert("service");
    let mut reply = ask_partitions(&mut rig);
    rig.wait_ms(29_999);
    assert!(peek(&mut reply).is_none());
    rig.wait_ms(1);
    let error = peek(&mut reply).expect("answered").expect_err("late");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(format!("{error:#}").contains("connection refused"), "{error:#}");
}

#[test]
fn a_question_that_nobody_waits_for_is_not_retried() {
    let mut rig = Rig::new("pulsar://service");
    drop(ask_partitions(&mut rig));
    rig.answer(partitions_refused(6));
    rig.log();
    rig.wait(Duration::from_secs(50));
    assert_eq!(rig.log(), NONE);
    assert!(rig.supervisor.questions.is_empty());
}
