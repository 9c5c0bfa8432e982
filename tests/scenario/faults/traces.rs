//! What the feature `tracing` tells: exactly what `docs/observability.md` lists, and no secret.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pulsar_native::Cluster;
use tracing::Level;

use super::support::*;
use crate::common::trace_lines::{Line, Lines};
use crate::common::trace_secrets::Secrets;

/// What was told at INFO and above, without times.
fn story(lines: &Lines) -> Vec<String> {
    let fields = ["endpoints", "attached", "refused", "attempt", "endpoint"];
    lines.at_least(Level::INFO).iter().map(|line| line.with(&fields)).collect()
}

/// The rows of the table of events: level, target, event.
fn documented() -> BTreeSet<(String, String, String)> {
    let text = include_str!("../../../docs/observability.md");
    let table = text.lines().skip_while(|line| !line.starts_with("| level | target")).skip(2);
    let row = |line: &str| {
        let mut cells = line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).skip(1);
        Some((cells.next()?, cells.next()?, cells.next()?))
    };
    table.take_while(|line| line.starts_with('|')).filter_map(row).collect()
}

fn row(line: &Line) -> (String, String, String) {
    (line.level.to_string(), line.target.clone(), line.message.clone())
}

/// Each event has its row in the docs, and each span has ended.
fn check(lines: &Lines) {
    let documented = documented();
    for line in lines.at_least(Level::TRACE) {
        assert!(documented.contains(&row(&line)), "not in docs/observability.md: {line:?}");
        let expected = if line.level <= Level::INFO { Some("client") } else { line.span };
        assert_eq!(line.span, expected, "whole without DEBUG: {line:?}");
        assert!(line.span.is_some(), "in a span of its client: {line:?}");
    }
    assert_eq!(lines.open_spans().into_iter().collect::<Vec<_>>(), []);
}

#[tokio::test(start_paused = true)]
async fn a_healthy_client_has_two_lines_at_info() {
    let (lines, _guard) = Lines::listen();
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    let mut consumer = stage.consumer(TOPIC).await;
    for number in 0..100 {
        send(&producer, number.to_string()).await;
        text(&mut consumer).await;
    }
    let before = lines.texts().len();
    send(&producer, "one more").await;
    text(&mut consumer).await;
    assert_eq!(lines.texts().len(), before, "nothing is told for a message");
    // A topic that moves is no outage.
    stage.broker.unload(TOPIC);
    until("both to be detached", || producer.is_connected() || consumer.is_connected(), |any| !any).await;
    until("both to be back", || producer.is_connected() && consumer.is_connected(), |back| *back).await;
    stage.close_and_check().await;
    assert_eq!(story(&lines), ["INFO connected attempt=1", "INFO client closed"]);
    let told = lines.at_least(Level::TRACE);
    let told: Vec<_> = told.iter().map(|line| line.with(&["endpoint", "attempt", "is_redirect"])).collect();
    let first = [
        "DEBUG connecting attempt=1",
        "DEBUG fetching credentials",
        "DEBUG credentials fetched",
        "DEBUG dialing",
        "DEBUG dialed, shaking hands",
        "INFO connected attempt=1",
        "TRACE looking up endpoint=producer 0",
        "TRACE looked up endpoint=producer 0 is_redirect=false",
        "DEBUG opening endpoint=producer 0",
        "DEBUG attached attempt=1 endpoint=producer 0",
    ];
    let of_producer = |line: &&String| !line.contains("consumer");
    assert_eq!(
        told.iter().filter(of_producer).take(first.len()).map(|line| sorted(line)).collect::<Vec<_>>(),
        first.map(sorted)
    );
    check(&lines);
}

/// The words of a line, because fields come in the order that they are asked for.
fn sorted(line: &str) -> Vec<String> {
    let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
    words.sort();
    words
}

/// A thousand producers and consumers lose their broker for half a minute.
#[tokio::test(start_paused = true)]
async fn an_outage_of_a_thousand_has_ten_lines() {
    let (lines, _guard) = Lines::listen();
    let stage = Stage::new().await;
    let (mut producers, mut consumers) = (Vec::new(), Vec::new());
    for number in 0..500 {
        let topic = format!("t{}", number % 50);
        producers.push(stage.producer(&topic).await);
        consumers.push(stage.shared(&topic).await);
    }
    stage.net.refuse(true);
    stage.broker.drop_connections();
    pass(Duration::from_secs(30)).await;
    stage.net.refuse(false);
    let all = || producers.iter().all(Producer::is_connected) && consumers.iter().all(Consumer::is_connected);
    until("all to be back", all, |back| *back).await;
    let story_so_far = story(&lines);
    assert!(story_so_far.len() <= 10, "{story_so_far:#?}");
    let [lost, failed @ .., connected, again] = &story_so_far[1..] else { panic!("{story_so_far:#?}") };
    assert_eq!(lost, "WARN connection lost endpoints=1000");
    let attempt = |line: &String| {
        line.strip_prefix("WARN no connection endpoints=")?.split_once(" attempt=").map(|(_, n)| n.to_owned())
    };
    assert_eq!(failed.iter().map(attempt).collect::<Vec<_>>(), ["1", "2", "4", "8"].map(|n| Some(n.to_owned())));
    assert!(connected.starts_with("INFO connected attempt="), "{connected}");
    assert_eq!(again, "INFO attached again attached=1000 refused=0");
    let told = lines.at_least(Level::INFO);
    let away = told.iter().find(|line| line.message == "connected" && !line.field("away_ms").is_empty()).expect("told");
    assert!(away.field("away_ms").parse::<u64>().is_ok_and(|ms| (30_000..40_000).contains(&ms)), "{away:?}");
    let lost = told.iter().find(|line| line.message == "connection lost").expect("told");
    assert_eq!((lost.field("broker"), lost.target.as_str()), (&*stage.broker.address().to_string(), "connection"));
    assert!(!lost.field("error").is_empty(), "{lost:?}");
    stage.close_and_check().await;
    assert_eq!(story(&lines).len(), story_so_far.len() + 1, "the close of the client");
    check(&lines);
}

#[tokio::test(start_paused = true)]
async fn refusals_are_told_once_each_and_ends_always() {
    let (lines, _guard) = Lines::listen();
    let stage = Stage::new().await;
    let topics: Vec<_> = (0..5).map(|number| format!("persistent://public/default/t{number}")).collect();
    let mut producers = Vec::new();
    for topic in &topics {
        producers.push(stage.producer(topic).await);
    }
    let refuse = |code| stage.broker.faults().on(FaultEvent::Producer).always().refuse_request(code);
    refuse(ServerCode::PRODUCER_BLOCKED_QUOTA_EXCEEDED_ERROR);
    stage.broker.drop_connections();
    pass(Duration::from_secs(20)).await;
    let not_attached = |level| {
        let told = lines.at_least(Level::DEBUG);
        told.iter().filter(|line| line.message == "not attached" && line.level == level).count()
    };
    assert_eq!(not_attached(Level::WARN), 3, "of one code, three in a minute");
    assert!(not_attached(Level::DEBUG) > 10, "the others, and those that follow");
    let told = lines.at_least(Level::INFO);
    let refused = told.iter().find(|line| line.message == "not attached").expect("told");
    assert!(refused.field("error").contains("ProducerBlockedQuotaExceededError"), "{refused:?}");
    assert!(refused.field("topic").starts_with("persistent://public/default/t"), "{refused:?}");
    assert!(story(&lines).contains(&"INFO attached again attached=0 refused=5".to_owned()), "{:#?}", story(&lines));
    stage.broker.faults().clear();
    refuse(ServerCode::TOPIC_TERMINATED_ERROR);
    until("the ends", || producers.iter().all(|producer| producer.state().is_finished()), |ended| *ended).await;
    let ended = lines.at_least(Level::ERROR);
    assert_eq!(
        ended.iter().map(|line| line.field("topic").to_owned()).collect::<BTreeSet<_>>(),
        topics.into_iter().collect()
    );
    assert!(ended.iter().all(|line| line.message == "ended"), "{ended:#?}");
    stage.close_and_check().await;
    check(&lines);
}

/// Each event of the table, with credentials of every kind on the way: none of them is told.
#[tokio::test(start_paused = true)]
async fn everything_that_can_be_told_holds_no_secret() {
    const KEY: &str = "a secret of at least 32 bytes, for HS256";
    const BAD: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJub2JvZHkifQ.bm90IHNpZ25lZA";
    let (lines, _guard) = Lines::listen();
    let (broker, net) = broker_on_net(EmbeddedBroker::builder().token_secret_key(KEY)).await;
    let (good, is_sealed) = (broker.token("admin"), Arc::new(AtomicBool::new(true)));
    let (token, sealed) = (good.clone(), is_sealed.clone());
    let vault = Token::from_fn(move || {
        let (token, is_sealed) = (token.clone(), sealed.swap(false, Ordering::SeqCst));
        async move { if is_sealed { Err(Error::connection("the vault is sealed")) } else { Ok(token) } }
    });
    let client =
        within("the connection", builder(&broker, &net).authentication(vault).connect()).await.expect("a client");
    let stage = Stage { broker, net, client };
    let producer = stage.producer(TOPIC).await;
    let consumer = stage.consumer(TOPIC).await;
    stage.broker.faults().challenge();
    pass(Duration::from_secs(1)).await;
    stage.broker.faults().on(FaultEvent::Producer).refuse_request(ServerCode::PRODUCER_BLOCKED_QUOTA_EXCEEDED_ERROR);
    for _ in 0..2 {
        stage.net.refuse(true);
        stage.broker.drop_connections();
        pass(Duration::from_secs(5)).await;
        stage.net.refuse(false);
        until("both to be back", || producer.is_connected() && consumer.is_connected(), |back| *back).await;
    }
    stage.broker.faults().on(FaultEvent::Producer).always().refuse_request(ServerCode::TOPIC_TERMINATED_ERROR);
    stage.broker.unload(TOPIC);
    until("the end", || producer.state().is_finished(), |ended| *ended).await;
    within("the close", consumer.close()).await.expect("closed");
    // Idle by now: the loss of a connection that carries nothing, and one that is not the first.
    stage.broker.drop_connections();
    assert_eq!(within("a query", stage.client.partitions(TOPIC)).await.expect("an answer"), 0);
    pass(Duration::from_secs(120)).await;
    assert_eq!(within("a query", stage.client.partitions(TOPIC)).await.expect("an answer"), 0);
    let bad = builder(&stage.broker, &stage.net).authentication(Token::new(BAD)).connect();
    failed(within("the refusal", bad).await, ErrorKind::Authentication);
    // Further clusters.
    stage.broker.faults().clear();
    let other = stage.another().await;
    let moving =
        within("the connection", builder(&stage.broker, &stage.net).authentication(Token::new(good.clone())).connect());
    let moving = moving.await.expect("a client");
    let producer = created(moving.producer("moving")).await;
    stage.broker.migrate(Some(&other.url()), None);
    send(&producer, "there").await;
    stage.broker.migrate(None, None);
    moving.service_url_control().switch_to(Cluster::new(stage.broker.url())).expect("a good cluster");
    send(&producer, "back").await;
    within("the close", moving.close()).await.expect("closed");
    // Another machine's web port: the client is made and dials nothing.
    let exposed = Client::builder("http://broker.example.com:8080").authentication(Token::new(BAD));
    within("the close", exposed.build().expect("a client").close()).await.expect("closed");
    stage.close_and_check().await;

    check(&lines);
    let told: BTreeSet<_> = lines.at_least(Level::TRACE).iter().map(row).collect();
    let untold: Vec<_> = documented().into_iter().filter(|row| !told.contains(row)).collect();
    // `tls/client_certificates.rs` and `http/clusters.rs` lead to those.
    let elsewhere =
        ["TLS files not usable, the former ones stay in use", "no cluster to use is named, the one in use stays"];
    let elsewhere = elsewhere.map(|message| ("WARN".to_owned(), "client".to_owned(), message.to_owned()));
    assert_eq!(untold, elsewhere, "rows of docs/observability.md that nothing here leads to");
    let texts = lines.texts();
    assert!(texts.len() > 100, "it was heard");
    for secret in [KEY, BAD, &good, "eyJ"] {
        let holds: Vec<_> = texts.iter().filter(|text| text.contains(secret)).collect();
        assert!(holds.is_empty(), "{secret} in {holds:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_says_how_long_it_took_and_which_attempt() {
    let (lines, _guard) = Lines::listen();
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    stage.net.refuse(true);
    stage.broker.drop_connections();
    pass(Duration::from_secs(5)).await;
    stage.net.refuse(false);
    until("it to be back", || producer.is_connected(), |back| *back).await;
    let told = lines.at_least(Level::DEBUG);
    let attached = told.iter().rfind(|line| line.message == "attached").expect("told");
    let failed = told.iter().filter(|line| line.message == "not attached").count();
    assert_eq!(attached.field("attempt"), (failed + 1).to_string(), "{attached:?}");
    assert!(attached.field("elapsed_ms").parse::<u64>().is_ok_and(|ms| ms >= 5000), "{attached:?}");
    assert_eq!(attached.span, Some("attach"));
    stage.close_and_check().await;
    check(&lines);
}

/// What every test of `suite/` is checked with.
#[test]
fn a_token_that_is_traced_is_found() {
    for (token, is_secret) in [("plain", false), ("xeyJhbGciOiJ", true), ("the key", true)] {
        let secrets = Secrets::new(&["the key"]);
        tracing::subscriber::with_default(secrets.clone(), || tracing::trace!(token, "told"));
        assert_eq!(std::panic::catch_unwind(|| secrets.check()).is_err(), is_secret, "{token}");
    }
    assert!(std::panic::catch_unwind(|| Secrets::new(&[]).check()).is_err(), "silence proves nothing");
}

/// Once for a client, before it has sent anything.
#[tokio::test]
async fn credentials_over_plain_http_are_warned_of_once() {
    let token = || Token::new("a token");
    for (url, with_token, warned) in [
        ("http://broker.example.com:8080,other.example.com:8080", true, Some("broker.example.com:8080")),
        ("http://10.1.2.3:8080", true, Some("10.1.2.3:8080")),
        ("http://broker.example.com:8080", false, None),
        ("http://127.0.0.1:8080,localhost:8080,[::1]:8080", true, None),
        ("https://broker.example.com:8443", true, None),
        ("pulsar://broker.example.com:6650", true, None),
    ] {
        let (lines, _guard) = Lines::listen();
        let builder = Client::builder(url);
        let builder = if with_token { builder.authentication(token()) } else { builder };
        let client = builder.build().expect("a client");
        within("the close", client.close()).await.expect("closed");
        let warnings: Vec<_> = lines.at_least(Level::WARN).iter().map(|line| line.field("broker").to_owned()).collect();
        assert_eq!(warnings, warned.into_iter().collect::<Vec<_>>(), "{url}");
        check(&lines);
    }
}
