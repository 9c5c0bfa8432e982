//! One attach at a time, by its own generation; neighbours see nothing; what is given up is closed at the broker.

use super::support::*;
use pulsar_native::ConsumerEvent;

#[tokio::test(start_paused = true)]
async fn a_topic_that_moves_re_attaches_alone_and_its_neighbours_see_no_gap() {
    let stage = Stage::new().await;
    let moved = stage.producer("moved").await;
    let neighbour = stage.producer("neighbour").await;
    let mut listening = stage.consumer("neighbour").await;
    let mut moving = stage.consumer("moved").await;
    stage.broker.faults().on(FaultEvent::Lookup).on_topic("moved").always().delay_response(Duration::from_secs(2));
    stage.broker.unload("moved");
    until("both to notice", || moved.is_connected() || moving.is_connected(), |connected| !connected).await;
    let late = enqueue(&moved, "late").await;
    let started = Instant::now();
    for number in 0..100 {
        send(&neighbour, number.to_string()).await;
        assert_eq!(text(&mut listening).await, number.to_string());
    }
    assert!(started.elapsed() < Duration::from_secs(1), "no gap: {:?}", started.elapsed());
    assert!(neighbour.is_connected() && listening.is_connected());
    confirmed(vec![late]).await;
    assert_eq!(text(&mut moving).await, "late");
    assert_eq!(stage.net.dials(), 1, "one connection all the time");
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn an_assigned_broker_is_dialed_without_a_lookup() {
    let stage = Stage::new().await;
    let other = stage.another().await;
    other.faults().acquire_topic(TOPIC);
    let producer = stage.producer(TOPIC).await;
    let mut consumer = stage.consumer(TOPIC).await;
    stage.broker.faults().on(FaultEvent::Lookup).always().drop_request();
    stage.broker.faults().close_consumers(TOPIC, Some(&other.url()));
    stage.broker.faults().on(FaultEvent::Send).close_to(&other.url());
    send(&producer, "here").await;
    send(&producer, "there").await;
    assert_eq!(text(&mut consumer).await, "there");
    assert_eq!(stage.broker.faults().injected(), 1, "nobody asked");
    assert_eq!(other.stats(TOPIC).expect("it is there").publishers.len(), 1);
    drop(producer);
    drop(consumer);
    stage.close_and_check().await;
    stop_and_check(&other).await;
}

/// The assigned address is a hint for once: where nobody answers, the lookup decides again.
#[tokio::test(start_paused = true)]
async fn an_assigned_broker_that_is_dead_is_tried_once() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    let mut consumer = stage.consumer(TOPIC).await;
    stage.broker.transfer(TOPIC, "pulsar://gone.example:6650");
    send(&producer, "found again").await;
    assert_eq!(text(&mut consumer).await, "found again");
    let dialed = stage.net.dialed();
    let hints = dialed.iter().filter(|address| address.starts_with("gone.example")).count();
    assert!((1..=2).contains(&hints), "once for each at most: {dialed:?}");
    // The next move does not remember it.
    stage.broker.unload(TOPIC);
    send(&producer, "once more").await;
    assert_eq!(stage.net.dialed(), dialed);
    stage.close_and_check().await;
}

/// A creation that is given up is closed at the broker, on the connection it was asked on, before it is tried again.
#[tokio::test(start_paused = true)]
async fn an_abandoned_creation_is_closed_at_the_broker_before_the_retry() {
    let stage =
        Stage::with(EmbeddedBroker::builder(), |builder| builder.operation_timeout(Duration::from_secs(3))).await;
    let builder = stage.client.producer(TOPIC).name("p").batching(false).send_timeout(Duration::from_secs(60));
    let producer = created(builder).await;
    let mut consumer = stage.consumer(TOPIC).await;
    stage.broker.faults().on(FaultEvent::Producer).times(2).drop_response();
    stage.broker.faults().on(FaultEvent::Subscribe).times(2).drop_response();
    stage.broker.unload(TOPIC);
    // Without the close, the broker would refuse the retry: the name, and the exclusive subscription, are taken.
    stage.broker.faults().on(FaultEvent::CloseProducer).after(100).drop_request();
    send(&producer, "through").await;
    assert_eq!(text(&mut consumer).await, "through");
    assert_eq!(stage.attached(TOPIC), (1, 1));
    assert_eq!(stage.net.dials(), 1, "on the same connection");
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_creation_dropped_while_it_waits_leaves_nothing_at_the_broker() {
    let stage = Stage::new().await;
    for event in [FaultEvent::Producer, FaultEvent::Subscribe] {
        stage.broker.faults().on(event).delay_response(Duration::from_secs(3));
    }
    let wait = Duration::from_secs(1);
    let creating = stage.client.producer(TOPIC).create();
    assert!(tokio::time::timeout(wait, creating).await.is_err(), "no answer yet");
    let subscribing = stage.client.consumer(TOPIC, "s").subscribe();
    assert!(tokio::time::timeout(wait, subscribing).await.is_err(), "no answer yet");
    until("both to be closed", || stage.attached(TOPIC), |seen| *seen == (0, 0)).await;
    // The answers come late and find nobody.
    pass(Duration::from_secs(5)).await;
    assert_eq!(stage.attached(TOPIC), (0, 0));
    stage.close_and_check().await;
}

/// The application closes while the attach is under way: its success, when it comes, is closed at the broker.
#[tokio::test(start_paused = true)]
async fn a_success_after_the_close_is_closed_at_the_broker() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    let consumer = stage.consumer(TOPIC).await;
    stage.broker.faults().on(FaultEvent::Producer).delay_response(Duration::from_secs(2));
    stage.broker.faults().on(FaultEvent::Subscribe).delay_response(Duration::from_secs(2));
    stage.broker.unload(TOPIC);
    struck(&stage.broker, 2).await;
    within("the close", producer.close()).await.expect("closed");
    within("the close", consumer.close()).await.expect("closed");
    pass(Duration::from_secs(5)).await;
    assert_eq!(stage.attached(TOPIC), (0, 0));
    stage.close_and_check().await;
}

/// The answer of an earlier attempt comes while a later one is under way, or long after it.
#[tokio::test(start_paused = true)]
async fn a_late_answer_of_an_earlier_attempt_changes_nothing() {
    for late in [4, 7, 20] {
        let stage =
            Stage::with(EmbeddedBroker::builder(), |builder| builder.operation_timeout(Duration::from_secs(3))).await;
        let builder = stage.client.producer(TOPIC).name("p").batching(false).send_timeout(Duration::from_secs(60));
        let producer = created(builder).await;
        let mut consumer = stage.consumer(TOPIC).await;
        for event in [FaultEvent::Lookup, FaultEvent::Producer, FaultEvent::Subscribe] {
            stage.broker.faults().on(event).delay_response(Duration::from_secs(late));
        }
        stage.broker.unload(TOPIC);
        for number in 0..30 {
            send(&producer, number.to_string()).await;
            assert_eq!(text(&mut consumer).await, number.to_string());
            pass(Duration::from_secs(1)).await;
        }
        assert_eq!(stage.attached(TOPIC), (1, 1));
        assert_eq!(stage.net.dials(), 1);
        stage.close_and_check().await;
    }
}

/// Closed again and again while it attaches, by the broker and by the connection.
#[tokio::test(start_paused = true)]
async fn closes_in_a_row_end_in_one_attach() {
    let stage = Stage::deduplicating().await;
    let builder = stage.client.producer(TOPIC).name("p").batching(false);
    let producer = created(builder).await;
    let mut consumer = stage.consumer(TOPIC).await;
    stage.broker.faults().on(FaultEvent::Producer).times(3).close();
    stage.broker.faults().on(FaultEvent::Subscribe).times(3).close();
    stage.broker.faults().on(FaultEvent::Flow).after(1).close();
    stage.broker.unload(TOPIC);
    confirmed(enqueue_numbers(&producer, 0..20).await).await;
    stage.broker.faults().on(FaultEvent::Producer).times(2).disconnect();
    stage.broker.faults().on(FaultEvent::Subscribe).times(2).disconnect();
    stage.broker.drop_connections();
    confirmed(enqueue_numbers(&producer, 20..40).await).await;
    let seen = receive_up_to(&mut consumer, "39").await;
    assert_eq!(first_arrivals(&seen), numbers(0..40));
    until("both to be back", || stage.attached(TOPIC), |seen| *seen == (1, 1)).await;
    stage.drained(TOPIC).await;
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_consumer_goes_on_after_the_broker_died() {
    for dials_refused_for in [0, 1, 10, 100] {
        let stage = Stage::new().await;
        let mut consumer = stage.consumer(TOPIC).await;
        let producer = stage.producer(TOPIC).await;
        stage.net.refuse(true);
        stage.broker.drop_connections();
        pass(Duration::from_secs(dials_refused_for)).await;
        stage.net.refuse(false);
        until("both to be back", || producer.is_connected() && consumer.is_connected(), |back| *back).await;
        send(&producer, "after").await;
        assert_eq!(text(&mut consumer).await, "after");
        stage.close_and_check().await;
    }
}

/// Many at once on one connection: all come back, over one connection, none is left out.
#[tokio::test(start_paused = true)]
async fn every_partition_attaches_again() {
    let stage = Stage::with(EmbeddedBroker::builder().partitioned_topic("parts", 8), |builder| builder).await;
    let mut consumer = stage.consumer("parts").await;
    let producer = stage.producer("parts").await;
    for cut in [true, false, true] {
        stage.broker.faults().on(FaultEvent::Subscribe).times(5).refuse_request(ServerCode::SERVICE_NOT_READY);
        stage.broker.faults().on(FaultEvent::Lookup).times(3).refuse_request(ServerCode::METADATA_ERROR);
        if cut {
            stage.broker.drop_connections()
        } else {
            stage.broker.unload("parts")
        }
        confirmed(enqueue_numbers(&producer, 0..80).await).await;
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 80 {
            let message = within("a message", consumer.receive()).await.expect("a message");
            within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed");
            seen.insert(message.to_string_lossy().into_owned());
        }
        until("all to be back", || producer.is_connected() && consumer.is_connected(), |back| *back).await;
    }
    stage.close_and_check().await;
}

/// A lookup that goes round in a circle ends after a number of hops, and counts as something that may pass.
#[tokio::test(start_paused = true)]
async fn redirects_in_a_circle_end_and_are_tried_again() {
    let stage = Stage::new().await;
    let other = stage.another().await;
    stage.broker.faults().on(FaultEvent::Lookup).always().redirect(&other.url(), true);
    other.faults().on(FaultEvent::Lookup).always().redirect(&stage.broker.url(), false);
    let started = Instant::now();
    let error = within("the failure", stage.client.producer(TOPIC).create()).await.expect_err("no end of it");
    assert!(error.is_retriable(), "{error}");
    assert!(started.elapsed() <= TIMEOUT + SLACK, "{:?}", started.elapsed());
    let asked = stage.broker.faults().injected() + other.faults().injected();
    assert!((20..2000).contains(&asked), "{asked} lookups: hops and retries are bounded");
    // The circle opens.
    stage.broker.faults().clear();
    let producer = stage.producer(TOPIC).await;
    send(&producer, "found").await;
    drop(producer);
    stage.close_and_check().await;
    stop_and_check(&other).await;
}

#[tokio::test(start_paused = true)]
async fn a_redirect_is_followed_to_the_broker_that_owns_the_topic() {
    let stage = Stage::new().await;
    let other = stage.another().await;
    stage.broker.faults().on(FaultEvent::Lookup).always().redirect(&other.url(), true);
    let producer = stage.producer(TOPIC).await;
    let mut consumer = stage.consumer(TOPIC).await;
    send(&producer, "there").await;
    assert_eq!(text(&mut consumer).await, "there");
    assert_eq!(other.stats(TOPIC).expect("it is there").publishers.len(), 1);
    assert!(stage.broker.stats(TOPIC).is_none(), "not here");
    drop((producer, consumer));
    stage.close_and_check().await;
    stop_and_check(&other).await;
}

/// A connection on which lookups are never answered is given up for another one.
#[tokio::test(start_paused = true)]
async fn a_connection_that_answers_no_lookup_is_replaced() {
    let stage =
        Stage::with(EmbeddedBroker::builder(), |builder| builder.operation_timeout(Duration::from_secs(3))).await;
    let builder = stage.client.producer(TOPIC).batching(false).send_timeout(Duration::from_secs(100));
    let producer = created(builder).await;
    stage.broker.faults().on(FaultEvent::Lookup).times(6).drop_request();
    stage.broker.unload(TOPIC);
    send(&producer, "after all").await;
    assert!(stage.net.dials() >= 2, "over another connection: {}", stage.net.dials());
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn every_host_of_the_service_url_is_tried() {
    let stage = Stage::new().await;
    let address = stage.broker.address();
    let url = format!("pulsar://dead-1.example:6650,{address},dead-2.example:6650");
    for seed in 0..6 {
        let client = Client::builder(&url).dialer(stage.net.clone()).seed(seed).connect();
        let client = within("the connection", client).await.expect("one of them answers");
        let producer = created(client.producer(TOPIC)).await;
        stage.broker.drop_connections();
        send(&producer, "x").await;
        drop(producer);
        within("the close", client.close()).await.expect("closed");
    }
    stage.close_and_check().await;
}

/// The terminal end of one partition does not pass in silence: an event and the sends that go to it say it.
#[tokio::test(start_paused = true)]
async fn the_end_of_one_partition_is_reported() {
    let stage = Stage::with(EmbeddedBroker::builder().partitioned_topic("parts", 3), |builder| builder).await;
    let mut consumer = stage.consumer("parts").await;
    let producer = stage.producer("parts").await;
    stage
        .broker
        .faults()
        .on(FaultEvent::Subscribe)
        .on_topic("parts-partition-1")
        .refuse_request(ServerCode::TOPIC_NOT_FOUND);
    stage
        .broker
        .faults()
        .on(FaultEvent::Producer)
        .on_topic("parts-partition-1")
        .refuse_request(ServerCode::TOPIC_NOT_FOUND);
    stage.broker.unload("parts-partition-1");
    let mut events = consumer.events();
    let event = tokio::select! {
        event = within("the end", events.recv()) => event,
        received = consumer.receive() => panic!("the others go on: {received:?}"),
    };
    let Some(ConsumerEvent::TopicEnded { topic, error, .. }) = event else { panic!("not an end: {event:?}") };
    assert!(topic.ends_with("parts-partition-1"), "{topic}");
    assert_eq!(failed::<()>(Err(error), ErrorKind::TopicNotFound).topic(), Some(&*topic));
    let mut failures = 0;
    for number in 0..3 {
        if let Err(error) = within("an outcome", producer.send(number.to_string())).await {
            assert_eq!(error.error().kind(), ErrorKind::TopicNotFound, "{error}");
            failures += 1;
        }
    }
    assert_eq!(failures, 1, "the other partitions go on");
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_refused_fails_the_whole_and_leaves_nothing() {
    let stage = Stage::with(EmbeddedBroker::builder().partitioned_topic("parts", 4), |builder| builder).await;
    stage
        .broker
        .faults()
        .on(FaultEvent::Subscribe)
        .on_topic("parts-partition-2")
        .refuse_request(ServerCode::AUTHORIZATION_ERROR);
    stage
        .broker
        .faults()
        .on(FaultEvent::Producer)
        .on_topic("parts-partition-2")
        .refuse_request(ServerCode::AUTHORIZATION_ERROR);
    let subscribing = stage.client.consumer("parts", "s").subscribe();
    failed(within("the refusal", subscribing).await, ErrorKind::Authorization);
    failed(within("the refusal", stage.client.producer("parts").create()).await, ErrorKind::Authorization);
    let all = || stage.broker.topics().iter().map(|topic| stage.attached(topic)).collect::<Vec<_>>();
    until("all to be closed", all, |all| all.iter().all(|seen| *seen == (0, 0))).await;
    stage.close_and_check().await;
}

/// Forced, an unsubscribe disconnects the other consumers: they come back to a new subscription, without a backlog.
#[tokio::test(start_paused = true)]
async fn a_forced_unsubscribe_deletes_the_subscription_of_others_too() {
    let stage = Stage::new().await;
    let (mut first, second) = (stage.shared(TOPIC).await, stage.shared(TOPIC).await);
    let producer = stage.producer(TOPIC).await;
    send(&producer, "x").await;
    failed(within("the refusal", first.unsubscribe()).await, ErrorKind::Server);
    assert!(first.is_connected() && second.is_connected(), "everything is as it was");
    within("the answer", first.force_unsubscribe()).await.expect("unsubscribed");
    failed(within("the end", first.receive()).await, ErrorKind::Closed);
    until("the other to come back", || stage.attached(TOPIC), |seen| *seen == (1, 1)).await;
    assert!(second.is_connected());
    drop((first, second, producer));
    stage.close_and_check().await;
}
