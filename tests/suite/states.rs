//! What an application sees of an outage: the lines of the table "What happens, and what is told" of
//! `docs/observability.md`. Each body brings one about, and asserts the states and events, in their order, and no others.

use super::relay::Relay;
use super::seen::{self, Seen};
use super::target::{Feature, QuotaPolicy};
use super::*;
use pulsar_native::{AttachState, ConsumerEvents, ProducerEvents};

const LONG: Duration = Duration::from_secs(60);
/// From which time on a message without a receipt is told.
const OVERDUE: Duration = Duration::from_millis(500);

/// A producer and a consumer of one topic, and what they are told.
struct Watched {
    producer: Producer,
    consumer: Consumer,
    of_producer: Seen,
    of_consumer: Seen,
    producer_events: ProducerEvents,
    consumer_events: ConsumerEvents,
}

impl Watched {
    async fn of(client: &Client, topic: &str) -> Self {
        let consumer = subscribed(client.consumer(topic, "s")).await;
        let builder = client.producer(topic).batching(false).send_timeout(Duration::ZERO);
        let producer = created(builder.stall_timeout(OVERDUE)).await;
        let (of_producer, of_consumer) = (Seen::of(producer.watch_state()), Seen::of(consumer.watch_state()));
        of_producer.last_is("attached").await;
        of_consumer.last_is("attached").await;
        let (producer_events, consumer_events) = (producer.events(), consumer.events());
        Self { producer, consumer, of_producer, of_consumer, producer_events, consumer_events }
    }

    /// A message goes through.
    async fn exchange(&mut self, target: &Target, text: &str) {
        send(&self.producer, text).await;
        // What was acknowledged just before an unload may come again.
        loop {
            let message = receive(&mut self.consumer).await;
            target.confirm(&self.consumer, &message).await;
            if message.to_string_lossy() == text {
                return;
            }
        }
    }

    /// The next event of the producer.
    async fn producer_event(&mut self) -> String {
        seen::producer_event(&within("an event", self.producer_events.recv()).await.expect("an event"))
    }

    async fn both_are(&self, line: &str) {
        self.of_producer.last_is(line).await;
        self.of_consumer.last_is(line).await;
    }

    /// Closes the client, and gives the states of both; there are no more events. The statistics agree with the states.
    async fn finish(mut self, client: &Client) -> [Vec<String>; 2] {
        let stats = self.producer.stats();
        let counted = [stats.errors.total() - stats.failed_messages, self.consumer.stats().errors.total()];
        within("the close", client.close()).await.expect("closed");
        let states = [self.of_producer.to_the_end().await, self.of_consumer.to_the_end().await];
        assert_eq!(seen::of_producer(&mut self.producer_events), [""; 0]);
        assert_eq!(seen::of_consumer(&mut self.consumer_events), [""; 0]);
        let told = [self.of_producer.failures(), self.of_consumer.failures()];
        let differ = counted.iter().zip(&told).any(|(counted, told)| !(*told..=told + 1).contains(counted));
        assert!(!differ, "as many errors as failures, the last of which may not be told: {counted:?}, {told:?}");
        states
    }
}

pub async fn a_broker_is_away(target: &Target) {
    let relay = Relay::to(target).await;
    let client = relay.client(target, LONG).await;
    let mut watched = Watched::of(&client, &target.topic("away")).await;
    // Through the relay, or a proxy, perhaps.
    let AttachState::Attached { broker, .. } = watched.producer.state().parts[0].state.clone() else {
        panic!("attached")
    };
    let of_client = Seen::of_connection(client.watch_state(), move |told| told.starts_with(&*broker));
    watched.exchange(target, "before").await;
    relay.refuse(true);
    relay.cut();
    let pending = within("capacity", watched.producer.enqueue("while away")).await.expect("accepted");
    assert_eq!(watched.producer_event().await, "overdue by Connection");
    watched.of_producer.has_failed(2).await;
    watched.of_consumer.has_failed(2).await;
    relay.refuse(false);
    within("a receipt", pending).await.expect("stored");
    watched.both_are("attached").await;
    watched.exchange(target, "after").await;
    let stats = (watched.producer.stats(), watched.consumer.stats());
    assert_eq!((stats.0.reconnects, stats.1.reconnects), (1, 1));
    for states in watched.finish(&client).await {
        assert_eq!(states, ["attached", "Connection", "attached", "closed"]);
    }
    let lines = of_client.to_the_end().await;
    let [first, second, between @ .., last, end] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!([first, second, last, end], ["connected", "failed: Connection", "connected", "closed"], "{lines:?}");
    assert!(between.iter().all(|line| line == "connecting" || line == "failed: Connection"), "{lines:?}");
}

/// The only broker that the client knows ends in the middle of its work. Started again, it answers lookups before it has
/// all its topics.
#[allow(dead_code, reason = "not every binary can kill its broker")]
pub async fn a_broker_is_killed(target: &Target, topic: &str, kill: impl AsyncFnOnce(), start: impl AsyncFnOnce()) {
    let client = target.client().await;
    let mut watched = Watched::of(&client, topic).await;
    watched.exchange(target, "before").await;
    kill().await;
    let pending = within("capacity", watched.producer.enqueue("while away")).await.expect("accepted");
    assert_eq!(watched.producer_event().await, "overdue by Connection");
    watched.of_producer.has_failed(2).await;
    watched.of_consumer.has_failed(2).await;
    start().await;
    within("a receipt", pending).await.expect("stored");
    watched.both_are("attached").await;
    watched.exchange(target, "after").await;
    for states in watched.finish(&client).await {
        let [first, second, starting @ .., last, end] = &states[..] else { panic!("{states:?}") };
        assert_eq!([first, second, last, end], ["attached", "Connection", "attached", "closed"], "{states:?}");
        assert!(starting.iter().all(|line| line == "NotReady" || line == "Connection"), "{states:?}");
    }
}

pub async fn a_topic_is_unloaded(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("unloaded");
    let mut watched = Watched::of(&client, &topic).await;
    watched.exchange(target, "before").await;
    target.unload(&topic).await;
    let reconnects = || async { (watched.producer.stats().reconnects, watched.consumer.stats().reconnects) };
    until("both to be back", reconnects, |reconnects| *reconnects == (1, 1)).await;
    watched.exchange(target, "after").await;
    for states in watched.finish(&client).await {
        assert_eq!(states, ["attached", "NotReady", "attached", "closed"]);
    }
}

/// The source of the token gives one that is refused for a while.
pub async fn a_token_expires(target: &Target) {
    let soon = target.cluster().token_expiring(Duration::from_secs(3)).await;
    let current = Arc::new(Mutex::new(soon));
    let shown = Arc::clone(&current);
    let source = Token::from_fn(move || {
        let token = shown.lock().expect("unpoisoned").clone();
        async move { Ok(token) }
    });
    let builder = target.builder_without_token().authentication(source);
    let client = within("the connection", builder.connect()).await.expect("a client");
    let mut watched = Watched::of(&client, &target.topic("token")).await;
    watched.exchange(target, "before").await;
    *current.lock().expect("unpoisoned") = target.cluster().expired_token();
    watched.of_producer.has_failed(2).await;
    watched.of_consumer.has_failed(2).await;
    *current.lock().expect("unpoisoned") = target.cluster().token(target::Role::Admin);
    watched.both_are("attached").await;
    watched.exchange(target, "after").await;
    for states in watched.finish(&client).await {
        assert_eq!(states, ["attached", "Authentication", "attached", "closed"]);
    }
}

/// Stores some messages that are not acknowledged, sets the quota and waits until the producer was refused.
async fn exceed_quota(target: &Target, topic: &str, watched: &Watched, policy: QuotaPolicy) {
    for _ in 0..20 {
        send(&watched.producer, vec![1; 10_000]).await;
    }
    within("the quota", target.cluster().limit_backlog(topic, Some(policy))).await;
    target.unload(topic).await;
    watched.of_producer.last_is("BacklogQuotaExceeded").await;
    watched.of_consumer.last_is("attached").await;
}

pub async fn a_quota_is_exceeded_with_an_exception(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("quota-exception");
    let mut watched = Watched::of(&client, &topic).await;
    exceed_quota(target, &topic, &watched, QuotaPolicy::ProducerException).await;
    let pending = within("capacity", watched.producer.enqueue("pending")).await.expect("accepted");
    let error = within("the outcome", pending).await.expect_err("the quota is exceeded");
    assert_eq!(error.error().kind(), ErrorKind::BacklogQuotaExceeded, "{error}");
    // The next attempt fails it. How long that is away is the backoff's to say, which may be longer than a message waits untold.
    let told = seen::of_producer(&mut watched.producer_events);
    assert!(told.iter().all(|told| told == "overdue by BacklogQuotaExceeded"), "{told:?}");
    within("the end of the quota", target.cluster().limit_backlog(&topic, None)).await;
    watched.both_are("attached").await;
    send(&watched.producer, "after").await;
    let [of_producer, of_consumer] = watched.finish(&client).await;
    assert_eq!(of_producer, ["attached", "NotReady", "BacklogQuotaExceeded", "attached", "closed"]);
    assert_eq!(of_consumer, ["attached", "NotReady", "attached", "closed"]);
}

pub async fn a_quota_is_exceeded_and_holds(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("quota-hold");
    let mut watched = Watched::of(&client, &topic).await;
    exceed_quota(target, &topic, &watched, QuotaPolicy::ProducerRequestHold).await;
    let pending = within("capacity", watched.producer.enqueue("held")).await.expect("accepted");
    assert_eq!(watched.producer_event().await, "overdue by BacklogQuotaExceeded");
    within("the end of the quota", target.cluster().limit_backlog(&topic, None)).await;
    within("a receipt", pending).await.expect("sent once it may be");
    watched.both_are("attached").await;
    let [of_producer, of_consumer] = watched.finish(&client).await;
    assert_eq!(of_producer, ["attached", "NotReady", "BacklogQuotaExceeded", "attached", "closed"]);
    assert_eq!(of_consumer, ["attached", "NotReady", "attached", "closed"]);
}

/// One of the two consumers of a Failover subscription.
struct Member {
    relay: Relay,
    consumer: Consumer,
    events: ConsumerEvents,
    states: Seen,
}

impl Member {
    async fn of(target: &Target, topic: &str, name: &str) -> Self {
        let relay = Relay::to(target).await;
        let client = relay.client(target, LONG).await;
        let builder = client.consumer(topic, "s").subscription_type(SubscriptionType::Failover).name(name);
        let consumer = subscribed(builder).await;
        let (events, states) = (consumer.events(), Seen::of(consumer.watch_state()));
        Self { relay, consumer, events, states }
    }

    async fn is(&mut self, expected: &str) {
        let event = within(expected, self.events.recv()).await.expect("an event");
        assert_eq!(seen::consumer_event(&event), expected);
    }
}

/// The active one and the other, which have been told so: the broker chooses by a hash of the names.
async fn active_and_standby(target: &Target, topic: &str) -> (Member, Member) {
    let mut first = Member::of(target, topic, "a").await;
    first.is("active").await;
    let mut second = Member::of(target, topic, "b").await;
    let event = within("an event", second.events.recv()).await.expect("an event");
    if seen::consumer_event(&event) == "active" {
        first.is("not active").await;
        return (second, first);
    }
    assert_eq!(seen::consumer_event(&event), "not active");
    (first, second)
}

pub async fn the_active_consumer_closes(target: &Target) {
    let topic = target.topic("failover-close");
    let (mut active, mut standby) = active_and_standby(target, &topic).await;
    within("the close", active.consumer.close()).await.expect("closed");
    standby.is("active").await;
    assert_eq!(active.states.to_the_end().await, ["attached", "closed"]);
    assert_eq!(seen::of_consumer(&mut active.events), [""; 0], "a close that was asked for is no event");
    assert_eq!(standby.states.lines(), ["attached"]);
    assert_eq!(seen::of_consumer(&mut standby.events), [""; 0]);
}

pub async fn the_active_consumer_is_cut(target: &Target) {
    let topic = target.topic("failover-cut");
    let (mut active, mut standby) = active_and_standby(target, &topic).await;
    active.relay.refuse(true);
    active.relay.cut();
    active.is("not active").await;
    assert_eq!(active.consumer.is_active(), Some(false));
    standby.is("active").await;
    active.relay.refuse(false);
    // The hash has not changed.
    active.is("active").await;
    standby.is("not active").await;
    assert_eq!(active.states.lines(), ["attached", "Connection", "attached"]);
    assert_eq!(standby.states.lines(), ["attached"]);
    assert_eq!(seen::of_consumer(&mut active.events), [""; 0]);
    assert_eq!(seen::of_consumer(&mut standby.events), [""; 0]);
}

pub async fn a_topic_is_terminated(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("terminated");
    let mut watched = Watched::of(&client, &topic).await;
    watched.exchange(target, "the last").await;
    target.cluster().terminate(&topic).await;
    let event = within("the end of the topic", watched.consumer_events.recv()).await.expect("an event");
    assert_eq!(seen::consumer_event(&event), "end of topic");
    let refused = within("the outcome", watched.producer.send("one too many")).await.expect_err("terminated");
    assert_eq!(refused.error().kind(), ErrorKind::TopicTerminated, "{refused}");
    assert_eq!(watched.producer_event().await, "ended by TopicTerminated");
    let [of_producer, of_consumer] = watched.finish(&client).await;
    assert_eq!(of_producer, ["attached", "NotReady", "ended by TopicTerminated"]);
    assert_eq!(of_consumer, ["attached", "closed"]);
}

/// The broker keeps back what is delayed: that is told once, and again only after a message has come.
pub async fn a_consumer_is_stalled(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("stalled");
    let builder = client.consumer(&topic, "s").subscription_type(SubscriptionType::Shared);
    let mut consumer = subscribed(builder.stall_timeout(Duration::from_millis(300))).await;
    let mut events = consumer.events();
    let states = Seen::of(consumer.watch_state());
    let producer = created(client.producer(&topic)).await;
    for round in 0..2 {
        send(&producer, Message::new("later").with_deliver_after(Duration::from_millis(1500))).await;
        assert!(consumer.try_receive().expect("no error").is_none(), "it asks for more");
        let event = within("the stall", events.recv()).await.expect("an event");
        let event = seen::consumer_event(&event);
        assert!(event.starts_with("stalled: "), "{event}");
        let late = receive(&mut consumer).await;
        target.confirm(&consumer, &late).await;
        assert_eq!(seen::of_consumer(&mut events), [""; 0], "round {round}: told once");
    }
    within("the close", client.close()).await.expect("closed");
    assert_eq!(states.to_the_end().await, ["attached", "closed"]);
}

/// Where none is made on demand: it has ended. A consumer tells of it as it receives.
pub async fn a_topic_is_deleted(target: &Target) {
    let target = target.with(Feature::NoTopicCreation).await;
    let client = target.client().await;
    let topic = target.topic("deleted");
    within("a topic", target.cluster().create(&topic)).await;
    let mut watched = Watched::of(&client, &topic).await;
    watched.exchange(&target, "the last").await;
    drained(&target, &topic, "s").await;
    within("the deletion", target.cluster().delete(&topic)).await;
    assert_eq!(watched.producer_event().await, "ended by TopicNotFound");
    let error = within("the end", watched.consumer.receive()).await.expect_err("the topic is gone");
    assert_eq!(error.kind(), ErrorKind::TopicNotFound, "{error}");
    let event = within("an event", watched.consumer_events.recv()).await.expect("an event");
    assert_eq!(seen::consumer_event(&event), "ended by TopicNotFound");
    for states in watched.finish(&client).await {
        assert_eq!(states, ["attached", "NotReady", "ended by TopicNotFound"]);
    }
}

/// The other one continues. What is routed to the one that has ended is refused.
pub async fn a_partition_is_terminated(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("part-terminated", 2).await;
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    let producer = created(client.producer(&topic)).await;
    let (mut of_consumer, mut of_producer) = (consumer.events(), producer.events());
    within("the end", target.cluster().terminate(&format!("{topic}-partition-0"))).await;
    let event = within("the end of the part", of_producer.recv()).await.expect("an event");
    assert_eq!(seen::producer_event(&event), "ended by TopicTerminated");
    let event = within("the end of the part", of_consumer.recv()).await.expect("an event");
    assert_eq!(seen::consumer_event(&event), "end of topic");
    let finished: Vec<_> = producer.state().parts.iter().map(|part| part.state.is_finished()).collect();
    assert_eq!(finished, [true, false]);
    until("all to be attached", || async { consumer.state() }, |state| state.is_attached()).await;
    // The hash of "b" is even, that of "a" is odd.
    let refused = within("a refusal", producer.send(Message::new("no").with_key("b"))).await.expect_err("terminated");
    assert_eq!(refused.error().kind(), ErrorKind::TopicTerminated, "{refused}");
    send(&producer, Message::new("yes").with_key("a")).await;
    assert_eq!(receive(&mut consumer).await.to_string_lossy(), "yes");
    within("the close", client.close()).await.expect("closed");
    assert_eq!((seen::of_producer(&mut of_producer), seen::of_consumer(&mut of_consumer)), (vec![], vec![]));
}

/// A partition belongs to its topic: it is made anew even where no topic is made on demand.
pub async fn a_partition_is_deleted(target: &Target) {
    let target = target.with(Feature::NoTopicCreation).await;
    let client = target.client().await;
    let topic = format!("{}-partition-1", target.partitioned_topic("part-deleted", 2).await);
    let mut watched = Watched::of(&client, &topic).await;
    watched.exchange(&target, "before").await;
    drained(&target, &topic, "s").await;
    within("the deletion", target.cluster().delete(&topic)).await;
    let reconnects = || async { (watched.producer.stats().reconnects, watched.consumer.stats().reconnects) };
    until("both to be back", reconnects, |reconnects| *reconnects == (1, 1)).await;
    watched.exchange(&target, "after").await;
    for states in watched.finish(&client).await {
        assert_eq!(states, ["attached", "NotReady", "attached", "closed"]);
    }
}
