//! What an application sees of an outage: the states of its handles, in their order, and nothing else.

use std::sync::{Arc, Mutex};

use pulsar_native::{
    AttachState, ConnectionPhase, ConsumerEvent, HandleState, InitialPosition, ProducerEvent, StateWatch,
    SubscriptionType,
};

use super::support::*;

/// The states of one topic as lines, in their order; a state that only moved its next attempt is not repeated.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn of(mut states: StateWatch<HandleState>) -> Self {
        let seen = Self::default();
        let lines = seen.clone();
        spawn(async move {
            while let Some(state) = states.changed().await {
                lines.add(label(&state));
            }
            lines.add("over".to_owned());
        });
        seen
    }

    fn add(&self, line: String) {
        let mut lines = self.0.lock().expect("unpoisoned");
        if lines.last() != Some(&line) {
            lines.push(line);
        }
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().expect("unpoisoned").clone()
    }
}

/// A state without its times and texts.
fn label(state: &HandleState) -> String {
    let [part] = &state.parts[..] else { panic!("one part: {state}") };
    match &part.state {
        AttachState::Attached { .. } => "attached".to_owned(),
        AttachState::Detached { error: None, attempt, .. } => format!("attempt {attempt}"),
        AttachState::Detached { error: Some(error), attempt, .. } => {
            format!("attempt {attempt} after {:?}", error.kind())
        }
        AttachState::Finished { error: None, .. } => "closed".to_owned(),
        AttachState::Finished { error: Some(error), .. } => format!("ended by {:?}", error.kind()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_dies_and_returns_is_told_step_by_step() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    let consumer = stage.consumer(TOPIC).await;
    let (of_producer, of_consumer) = (Seen::of(producer.watch_state()), Seen::of(consumer.watch_state()));
    until("the first state", || of_consumer.lines(), |lines| lines.len() == 1).await;
    stage.net.refuse(true);
    stage.broker.drop_connections();
    let detached = |state: HandleState| matches!(state.parts[0].state, AttachState::Detached { attempt: 4, .. });
    until("three failed attempts", || producer.state(), |state| detached(state.clone())).await;
    let state = producer.state();
    let AttachState::Detached { since, error: Some(error), next_attempt: Some(next), .. } = &state.parts[0].state
    else {
        panic!("{state}");
    };
    assert!(since < next, "it is tried again later: {state}");
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    assert!(error.address().is_some(), "the error names the broker: {error}");
    assert!(state.to_string().contains("attempt 4"), "{state}");
    let [connection] = &stage.client.state().connections[..] else { panic!("{}", stage.client.state()) };
    assert!(matches!(connection.phase, ConnectionPhase::Failed { .. } | ConnectionPhase::Connecting), "{connection:?}");

    stage.net.refuse(false);
    until("both to be back", || producer.is_connected() && consumer.is_connected(), |back| *back).await;
    let [connection] = &stage.client.state().connections[..] else { panic!("{}", stage.client.state()) };
    assert!(matches!(connection.phase, ConnectionPhase::Connected { .. }), "{connection:?}");
    stage.close_and_check().await;
    for seen in [of_producer, of_consumer] {
        until("the end", || seen.lines(), |lines| lines.last().is_some_and(|last| last == "over")).await;
        let lines = seen.lines();
        let attempts = lines.len() - 4;
        let mut expected = vec!["attached".to_owned()];
        expected.extend((1..=attempts).map(|attempt| format!("attempt {attempt} after Connection")));
        expected.extend(["attached", "closed", "over"].map(str::to_owned));
        assert!(attempts >= 4, "{lines:?}");
        assert_eq!(lines, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn each_cause_of_a_detach_is_named() {
    type Strike = fn(&Stage);
    let cases: [(&str, Strike, &str); 4] = [
        ("unloaded", |stage| stage.broker.unload(TOPIC), "attempt 1 after NotReady"),
        ("connection cut", |stage| stage.broker.drop_connections(), "attempt 1 after Connection"),
        (
            "quota",
            |stage| {
                let refuse = stage.broker.faults().on(FaultEvent::Producer);
                refuse.refuse_request(ServerCode::PRODUCER_BLOCKED_QUOTA_EXCEEDED_ERROR);
                stage.broker.unload(TOPIC);
            },
            "attempt 2 after BacklogQuotaExceeded",
        ),
        (
            "topic gone",
            |stage| {
                stage.broker.faults().on(FaultEvent::Producer).always().refuse_request(ServerCode::TOPIC_NOT_FOUND);
                stage.broker.unload(TOPIC);
            },
            "ended by TopicNotFound",
        ),
    ];
    for (what, strike, expected) in cases {
        let stage = Stage::new().await;
        let producer = stage.producer(TOPIC).await;
        let seen = Seen::of(producer.watch_state());
        until("the first state", || seen.lines(), |lines| lines.len() == 1).await;
        strike(&stage);
        until("the state", || seen.lines(), |lines| lines.iter().any(|line| line == expected)).await;
        if expected.starts_with("attempt") {
            until("it to be back", || seen.lines(), |lines| lines.last().is_some_and(|line| line == "attached")).await;
        }
        let errors = producer.stats().errors;
        assert!(errors.total() > 0, "{what}: {errors:?}");
        stage.close_and_check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_with_its_handle_and_holds_nothing() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    let mut states = producer.watch_state();
    assert_eq!(label(&within("the present state", states.changed()).await.expect("a state")), "attached");
    let waiting = spawn(async move { states.changed().await });
    tokio::task::yield_now().await;
    drop(producer);
    assert_eq!(within("the end", waiting).await.expect("no panic"), None);
    until("the close at the broker", || stage.attached(TOPIC).0, |producers| *producers == 0).await;
    let mut client = stage.client.watch_state();
    assert!(within("the present state", client.changed()).await.is_some());
    stage.close_and_check().await;
    while let Some(state) = within("the end of the client", client.changed()).await {
        assert!(state.connections.is_empty() || !state.is_closed, "{state}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_active_consumer_changes_and_says_so_once() {
    let stage = Stage::new().await;
    let failover = |name: &str| {
        let builder = stage.client.consumer(TOPIC, "s").subscription_type(SubscriptionType::Failover);
        builder.name(name)
    };
    let first = subscribed(failover("a")).await;
    let mut events = first.events();
    until("the first to be active", || first.is_active(), |active| *active == Some(true)).await;
    let second = subscribed(failover("b")).await;
    let mut of_second = second.events();
    // The broker chooses by a hash of the names: the second takes over, and gives way again.
    until("both to know", || (first.is_active(), second.is_active()), |known| *known == (Some(false), Some(true)))
        .await;
    within("the close", second.close()).await.expect("closed");
    until("the first to be active again", || first.is_active(), |active| *active == Some(true)).await;
    let changes = |events: &mut pulsar_native::ConsumerEvents| -> Vec<bool> {
        std::iter::from_fn(|| events.try_recv())
            .map(|event| match event {
                ConsumerEvent::ActiveChanged { is_active, .. } => is_active,
                other => panic!("{other:?}"),
            })
            .collect()
    };
    assert_eq!((changes(&mut events), changes(&mut of_second)), (vec![true, false, true], vec![true]));
    // One that is detached is not active.
    stage.broker.drop_connections();
    until("the loss", || first.is_connected(), |connected| !connected).await;
    until("it to be back", || first.is_connected(), |connected| *connected).await;
    until("it to be active again", || first.is_active(), |active| *active == Some(true)).await;
    assert_eq!(changes(&mut events), [false, true]);
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_terminated_topic_is_told_once() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    let mut consumer = stage.consumer(TOPIC).await;
    let mut events = consumer.events();
    send(&producer, "last").await;
    stage.broker.terminate(TOPIC);
    let message = within("the message", consumer.receive()).await.expect("a message");
    within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed");
    let event = within("the event", events.recv()).await;
    assert!(matches!(&event, Some(ConsumerEvent::EndOfTopic { topic, .. }) if topic.ends_with(TOPIC)), "{event:?}");
    assert!(events.try_recv().is_none());
    stage.close_and_check().await;
}

/// Everything that a handle counts, against what was done.
#[tokio::test(start_paused = true)]
async fn statistics_agree_with_what_was_done() {
    let stage = Stage::new().await;
    let producer = created(stage.client.producer(TOPIC)).await;
    confirmed(enqueue_numbers(&producer, 0..10).await).await;
    send(&producer, "alone").await;
    stage.broker.drop_connections();
    until("the loss", || producer.is_connected(), |connected| !connected).await;
    let pending = enqueue(&producer, "while away").await;
    assert_eq!(producer.stats().pending_messages, 1);
    confirmed(vec![pending]).await;
    let stats = producer.stats();
    assert_eq!((stats.accepted_messages, stats.confirmed_messages, stats.pending_messages), (12, 12, 0), "{stats:?}");
    assert_eq!((stats.confirmed_entries, stats.failed_messages, stats.reconnects), (3, 0, 1), "{stats:?}");
    assert_eq!(stats.send_latency.count(), 12, "{stats:?}");
    assert_eq!(stats.errors.of("Connection"), 1, "{stats:?}");
    assert!(stats.confirmed_bytes >= 10 + 5 + 10, "{stats:?}");

    let builder = stage.client.consumer(TOPIC, "s").subscription_type(SubscriptionType::Shared);
    let mut consumer = subscribed(builder.initial_position(InitialPosition::Earliest)).await;
    for number in 0..12 {
        let message = within("a message", consumer.receive()).await.expect("a message");
        pass(Duration::from_millis(100)).await;
        match number {
            11 => consumer.nack(&message).expect("nacked"),
            _ => consumer.ack(&message).expect("acknowledged"),
        }
    }
    let stats = consumer.stats();
    assert_eq!((stats.received_messages, stats.received_entries), (12, 3), "{stats:?}");
    assert_eq!((stats.acknowledged_messages, stats.negative_acknowledgements), (11, 1), "{stats:?}");
    assert!(stats.publish_latency.count() >= 1, "{stats:?}");
    assert_eq!(stats.processing_latency.count(), 1, "the first entry of those that arrived together: {stats:?}");
    let took = stats.processing_latency.quantile(1.0).expect("times");
    assert!((100..115).contains(&took.as_millis()), "{took:?}");
    stage.close_and_check().await;
}

/// The broker keeps back what could be delivered: said once, and again only after a message has come.
#[tokio::test(start_paused = true)]
async fn a_stalled_consumer_says_so_once() {
    let stage = Stage::new().await;
    let producer = created(stage.client.producer(TOPIC)).await;
    let builder = stage.client.consumer(TOPIC, "s").subscription_type(SubscriptionType::Shared);
    let mut consumer = subscribed(builder.stall_timeout(Duration::from_secs(10))).await;
    let mut events = consumer.events();
    // Without a backlog there is no stall, however long nothing comes.
    pass(Duration::from_secs(200)).await;
    assert!(events.try_recv().is_none());
    for wait in [3000, 6000].map(Duration::from_secs) {
        send(&producer, "now").await;
        let message = within("a message", consumer.receive()).await.expect("a message");
        within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed");
        // The time of the broker is the paused clock, that of the message is not: they part by what has passed.
        send(&producer, Message::new("later").with_deliver_after(wait)).await;
        assert!(consumer.try_receive().expect("no error").is_none(), "it asks for more");
        let begun = Instant::now();
        let event = within("the event", events.recv()).await;
        let Some(ConsumerEvent::Stalled { quiet_for, reason, .. }) = event else { panic!("{event:?}") };
        assert!(matches!(reason, pulsar_native::IdleReason::Withheld { backlog: 1, .. }), "{reason}");
        assert!(quiet_for >= Duration::from_secs(10) && quiet_for <= begun.elapsed() + SLACK, "{quiet_for:?}");
        assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
        pass(Duration::from_secs(2700)).await;
        assert!(events.try_recv().is_none(), "said once");
        let late = within("what was delayed", consumer.receive()).await.expect("a message");
        within("the confirmation", consumer.ack_confirmed(&late)).await.expect("confirmed");
    }
    stage.close_and_check().await;
}

/// What the application brings about itself is no stall.
#[tokio::test(start_paused = true)]
async fn an_application_that_is_slow_is_not_stalled() {
    for read in [false, true] {
        let stage = Stage::new().await;
        let producer = created(stage.client.producer(TOPIC)).await;
        let mut consumer = subscribed(stage.client.consumer(TOPIC, "s").stall_timeout(Duration::from_secs(10))).await;
        let mut events = consumer.events();
        send(&producer, "held").await;
        if read {
            text(&mut consumer).await;
        }
        pass(Duration::from_secs(600)).await;
        assert!(events.try_recv().is_none(), "read: {read}");
        stage.close_and_check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn sends_without_a_receipt_are_told_once() {
    let stage = Stage::new().await;
    let producer = created(stage.client.producer(TOPIC).send_timeout(Duration::ZERO)).await;
    let mut events = producer.events();
    send(&producer, "in time").await;
    stage.net.refuse(true);
    stage.broker.drop_connections();
    let pending = enqueue_numbers(&producer, 0..10).await;
    let begun = Instant::now();
    let event = within("the event", events.recv()).await;
    let Some(ProducerEvent::SendOverdue { waiting, state, .. }) = event else { panic!("{event:?}") };
    assert!(matches!(state, AttachState::Detached { error: Some(_), .. }), "{state}");
    assert!(waiting >= Duration::from_secs(10) && begun.elapsed() < Duration::from_secs(11), "{waiting:?}");
    pass(Duration::from_secs(60)).await;
    assert!(events.try_recv().is_none(), "said once");
    stage.net.refuse(false);
    confirmed(pending).await;
    stage.close_and_check().await;
    assert!(within("the end", events.recv()).await.is_none(), "an end that was asked for is no event");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_producers_topic_is_an_event() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    let mut events = producer.events();
    stage.broker.faults().on(FaultEvent::Producer).always().refuse_request(ServerCode::TOPIC_NOT_FOUND);
    stage.broker.unload(TOPIC);
    let event = within("the event", events.recv()).await;
    let Some(ProducerEvent::TopicEnded { topic, error, .. }) = event else { panic!("{event:?}") };
    assert_eq!((&*topic, error.kind()), (TOPIC, ErrorKind::TopicNotFound), "{error}");
    stage.close_and_check().await;
}

/// The watch of a pattern consumer's state yields states after its only topic has ended, until the consumer is closed.
#[cfg(feature = "patterns")]
#[tokio::test(start_paused = true)]
async fn the_states_of_a_pattern_go_on_without_topics() {
    let stage = Stage::new().await;
    assert!(stage.broker.create_topic(TOPIC));
    let builder = stage.client.consumer(pulsar_native::Topics::pattern("persistent://public/default/t"), "s");
    let builder = builder.pattern_auto_discovery_period(Duration::from_secs(1));
    let consumer = within("a consumer", builder.subscribe()).await.expect("a consumer");
    let mut states = consumer.watch_state();
    assert!(within("the present state", states.changed()).await.is_some_and(|state| state.is_attached()));
    let faults = stage.broker.faults();
    faults.on(FaultEvent::Subscribe).on_topic(TOPIC).refuse_request(ServerCode::TOPIC_NOT_FOUND);
    faults.close_consumers(TOPIC, None);
    for is_so in [HandleState::is_finished, HandleState::is_attached] {
        while !is_so(&within("a state", states.changed()).await.expect("it goes on")) {}
    }
    within("the close", consumer.close()).await.expect("closed");
    while within("the end", states.changed()).await.is_some() {}
    stage.close_and_check().await;
}
