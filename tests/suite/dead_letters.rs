//! Messages that could not be processed: the retry topic, and the dead-letter topic.

use super::*;
use pulsar_native::{Compression, ConsumerEvent, DeadLetterNames, DeadLetterPolicy, Outcome};

const NACK_DELAY: Duration = Duration::from_millis(100);

fn builder(client: &Client, topic: &str, kind: SubscriptionType) -> ConsumerBuilder {
    let builder = client.consumer(topic, "s").subscription_type(kind).initial_position(InitialPosition::Earliest);
    builder.negative_ack_redelivery_delay(NACK_DELAY)
}

/// Reads the letters of a topic.
async fn letters(client: &Client, topic: &str) -> Consumer {
    subscribed(client.consumer(topic, "operators").initial_position(InitialPosition::Earliest)).await
}

fn property<'a>(message: &'a ReceivedMessage, name: &str) -> &'a str {
    message.property(name).unwrap_or_else(|| panic!("no {name} in {:?}", message.properties().collect::<Vec<_>>()))
}

/// Negatively acknowledges each delivery of `text` until `rest` others have come and been acknowledged, and `deliveries`
/// of it; none of it may come after.
async fn fail_always(consumer: &mut Consumer, text: &str, deliveries: usize) -> Vec<MessageId> {
    let mut ids = Vec::new();
    while ids.len() < deliveries {
        let message = receive(consumer).await;
        if message.to_string_lossy() == text {
            assert_eq!(message.redelivery_count() as usize, ids.len());
            ids.push(message.id());
            consumer.nack(&message).expect("noted");
        } else {
            consumer.ack(&message).expect("acknowledged");
        }
    }
    ids
}

fn poison() -> Message {
    poison_with("poison")
}

fn poison_with(text: impl Into<String>) -> Message {
    Message::new(text.into())
        .with_key("k")
        .with_ordering_key("o")
        .with_property("mine", "1")
        .with_event_time(SystemTime::UNIX_EPOCH + Duration::from_secs(7))
}

/// Delivered exactly 1 + 2 times, then it stands in the dead-letter topic once, as Java writes it; for each form that a message
/// has in an entry, and each kind of subscription that counts.
pub async fn delivered_too_often(target: &Target) {
    for batching in [false, true] {
        for codec in [Compression::None, Compression::Lz4] {
            tokio::join!(
                exactly_three_times(target, SubscriptionType::Shared, batching, codec),
                exactly_three_times(target, SubscriptionType::KeyShared, batching, codec),
            );
        }
    }
}

async fn exactly_three_times(target: &Target, kind: SubscriptionType, batching: bool, codec: Compression) {
    let form = format!("{kind:?}, batching {batching}, {codec:?}");
    let client = target.client().await;
    let topic = target.topic("poison");
    let policy = DeadLetterPolicy::new(2).with_initial_subscription("operators");
    let mut consumer = subscribed(builder(&client, &topic, kind).dead_letter_policy(policy)).await;
    let builder = client.producer(&topic).batching(batching).compression(codec).compress_min_msg_body_size(0);
    // A batch is closed by its third message.
    let builder = builder.batching_max_messages(3).batching_max_publish_delay(Duration::from_secs(10));
    let text = "poison ".repeat(100);
    // All of one key: Key_Shared takes a batch by the key of its first message.
    let other = |text: &str| Message::new(text.repeat(100)).with_ordering_key("o");
    let messages = ["a", "b"].map(other).into_iter();
    send_all(&created(builder).await, messages.chain([poison_with(text.clone())])).await;

    let dead_topic = format!("{topic}-s-DLQ");
    let ids = fail_always(&mut consumer, &text, 3).await;
    assert_eq!(ids[0].batch_index(), batching.then_some(2), "{form}");
    let mut dead_letters = letters(&client, &dead_topic).await;
    // Keeps taking what comes, as an application does.
    let dead = tokio::select! {
        dead = receive(&mut dead_letters) => dead,
        message = consumer.receive() => panic!("{form}: delivered once more: {message:?}"),
    };
    assert_eq!((dead.to_string_lossy(), dead.is_null()), (text.into(), false), "{form}");
    assert_eq!((dead.key(), dead.key_is_base64(), dead.ordering_key()), (Some("k"), false, Some(&b"o"[..])));
    assert_eq!(dead.event_time(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(7)));
    let id = ids[0].to_string();
    let mut properties: Vec<_> = dead.properties().collect();
    properties.sort_unstable();
    let expected = [
        ("ORIGIN_MESSAGE_ID", id.as_str()),
        ("ORIGIN_MESSAGE_IDY_TIME", &id),
        ("REAL_SUBSCRIPTION", "s"),
        ("REAL_TOPIC", &topic),
        ("mine", "1"),
    ];
    assert_eq!(properties, expected, "{form}");
    dead_letters.ack(&dead).expect("acknowledged");
    tokio::select! {
        () = drained(target, &topic, "s") => {}
        message = consumer.receive() => panic!("{form}: delivered once more: {message:?}"),
    }
    assert_eq!(consumer.stats().dead_lettered_messages, 1, "{form}");
    drained(target, &dead_topic, "operators").await;
    assert_eq!(target.stats(&dead_topic).await.messages_in, 1, "{form}");
}

/// What is never acknowledged in time is given up as what is negatively acknowledged, also where both happen.
pub async fn timed_out_too_often(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("timed-out");
    let policy = DeadLetterPolicy::new(2).with_initial_subscription("operators");
    let builder = builder(&client, &topic, SubscriptionType::Shared).ack_timeout(Duration::from_secs(1));
    let mut consumer = subscribed(builder.dead_letter_policy(policy)).await;
    send(&created(client.producer(&topic)).await, poison()).await;
    for deliveries in 0..3 {
        let message = receive(&mut consumer).await;
        assert_eq!(message.redelivery_count(), deliveries);
        if deliveries == 1 {
            consumer.nack(&message).expect("noted");
        }
    }
    let mut dead_letters = letters(&client, &format!("{topic}-s-DLQ")).await;
    let dead = tokio::select! {
        dead = receive(&mut dead_letters) => dead,
        message = consumer.receive() => panic!("delivered once more: {message:?}"),
    };
    assert_eq!((dead.to_string_lossy(), consumer.stats().acknowledgement_timeouts), ("poison".into(), 2));
    drained(target, &topic, "s").await;
}

/// A message just below the largest that the broker takes is too large with the properties that are added. Its letter goes
/// out in chunks; where its producer makes none, a dead letter is sent without those properties, and a retry is refused.
pub async fn a_letter_that_grows_too_large(target: &Target) {
    // Between what the original and what a letter have beside the payload, bytes.
    const LARGE: usize = 5 * 1024 * 1024 - 220;
    let client = target.client().await;
    for chunking in [true, false] {
        let topic = target.topic("too-large");
        let policy = DeadLetterPolicy::new(1)
            .with_initial_subscription("operators")
            .with_dead_letter_producer(move |builder| builder.chunking(chunking))
            .with_retry_letter_producer(move |builder| builder.chunking(chunking));
        let builder = builder(&client, &topic, SubscriptionType::Shared).retry_enabled(true);
        let mut consumer = subscribed(builder.dead_letter_policy(policy)).await;
        let text = "x".repeat(LARGE);
        let id = send(&created(client.producer(&topic)).await, poison_with(text.clone())).await;
        assert!(id.first_chunk().is_none());

        let message = receive(&mut consumer).await;
        let retry = within("the retry", consumer.reconsume_later(&message, Duration::ZERO)).await;
        if chunking {
            retry.expect("stored");
            let again = receive(&mut consumer).await;
            assert!(again.payload() == text.as_bytes() && again.id().first_chunk().is_some());
            assert_eq!(property(&again, "RECONSUMETIMES"), "1");
            within("the dead letter", consumer.reconsume_later(&again, Duration::ZERO)).await.expect("stored");
        } else {
            assert_eq!(retry.expect_err("too large").kind(), ErrorKind::MessageTooLarge);
            consumer.nack(&message).expect("noted");
            let again = receive(&mut consumer).await;
            consumer.nack(&again).expect("noted");
        }
        let mut dead_letters = letters(&client, &format!("{topic}-s-DLQ")).await;
        let dead = tokio::select! {
            dead = receive(&mut dead_letters) => dead,
            message = consumer.receive() => panic!("delivered once more: {message:?}"),
        };
        assert!(dead.payload() == text.as_bytes());
        assert_eq!((dead.key(), property(&dead, "mine")), (Some("k"), "1"));
        let id = id.to_string();
        assert_eq!(dead.property("ORIGIN_MESSAGE_ID"), chunking.then_some(id.as_str()));
        assert_eq!(dead.id().first_chunk().is_some(), chunking);
        drained(target, &topic, "s").await;
    }
}

/// Back through the retry topic until it was there often enough.
pub async fn reconsumed_later(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("retry");
    let policy = DeadLetterPolicy::new(2).with_names(DeadLetterNames::SubscriptionLowerCase);
    let policy =
        policy.with_dead_letter_topic(format!("{topic}-dead")).with_retry_letter_topic(format!("{topic}-again"));
    let builder = builder(&client, &topic, SubscriptionType::Shared).retry_enabled(true).dead_letter_policy(policy);
    let mut consumer = subscribed(builder).await;
    let mut dead_letters = letters(&client, &format!("{topic}-dead")).await;
    send(&created(client.producer(&topic)).await, poison()).await;

    let delay = Duration::from_millis(1);
    for times in 0..3 {
        let message = receive(&mut consumer).await;
        let seen = message.property("RECONSUMETIMES").map(str::to_owned);
        assert_eq!(seen, (times > 0).then(|| times.to_string()));
        assert_eq!(message.topic(), if times == 0 { topic.clone() } else { format!("{topic}-again") });
        within("the retry", consumer.reconsume_later(&message, delay)).await.expect("stored");
    }
    let dead = receive(&mut dead_letters).await;
    for (name, value) in [
        ("RECONSUMETIMES", "3"),
        ("DELAY_TIME", "1"),
        ("REAL_TOPIC", &topic),
        ("REAL_SUBSCRIPTION", "s"),
        ("mine", "1"),
    ] {
        assert_eq!(property(&dead, name), value);
    }
    assert_eq!((dead.to_string_lossy(), dead.key()), ("poison".into(), Some("k")));
    drained(target, &topic, "s").await;
    drained(target, &format!("{topic}-again"), "s").await;
}

/// A retry topic of the name that Java gave before 2.8 is used where it exists.
pub async fn a_retry_topic_of_the_older_name(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("older");
    let subscription = topic.rsplit('/').next().expect("a name").to_owned();
    let namespace = &topic[..topic.len() - subscription.len()];
    let retry_topic = format!("{namespace}{subscription}-RETRY");
    drop(created(client.producer(&retry_topic)).await);
    let builder = client.consumer(&topic, &subscription).subscription_type(SubscriptionType::Shared);
    let consumer = subscribed(builder.retry_enabled(true)).await;
    assert_eq!(consumer.topics().collect::<Vec<_>>(), [&topic, &retry_topic]);
    let builder = client.consumer(&topic, "other").subscription_type(SubscriptionType::Shared);
    let consumer = subscribed(builder.retry_enabled(true)).await;
    assert_eq!(consumer.topics().collect::<Vec<_>>(), [topic.clone(), format!("{topic}-other-RETRY")]);
}

/// The names of older releases, which TDMQ clusters of 2.7 and of 2.6 have: by the subscription alone.
pub async fn topics_of_older_names(target: &Target) {
    let client = target.client().await;
    for (names, retry, dead) in
        [(DeadLetterNames::Subscription, "RETRY", "DLQ"), (DeadLetterNames::SubscriptionLowerCase, "retry", "dlq")]
    {
        let topic = target.topic("named");
        let subscription = topic.rsplit('/').next().expect("a name").to_owned();
        let (retry_topic, dead_topic) = (format!("{topic}-{retry}"), format!("{topic}-{dead}"));
        let builder = || {
            let builder = client.consumer(&topic, &subscription).subscription_type(SubscriptionType::Shared);
            let builder = builder.negative_ack_redelivery_delay(NACK_DELAY);
            builder.dead_letter_policy(DeadLetterPolicy::new(1).with_names(names))
        };
        let mut dead_letters = letters(&client, &dead_topic).await;
        let producer = created(client.producer(&topic)).await;

        let mut consumer = subscribed(builder().retry_enabled(true)).await;
        assert_eq!(consumer.topics().collect::<Vec<_>>(), [&topic, &retry_topic]);
        send(&producer, "retried").await;
        for from in [&topic, &retry_topic] {
            let message = receive(&mut consumer).await;
            assert_eq!(message.topic(), from);
            within("the letter", consumer.reconsume_later(&message, Duration::ZERO)).await.expect("stored");
        }
        assert_eq!(receive(&mut dead_letters).await.to_string_lossy(), "retried");
        within("the close", consumer.close()).await.expect("closed");

        let mut consumer = subscribed(builder()).await;
        send(&producer, "refused").await;
        fail_always(&mut consumer, "refused", 2).await;
        let dead = tokio::select! {
            dead = receive(&mut dead_letters) => dead,
            message = consumer.receive() => panic!("delivered once more: {message:?}"),
        };
        assert_eq!((dead.to_string_lossy(), dead.topic()), ("refused".into(), dead_topic.as_str()));
        drained(target, &topic, &subscription).await;
        drained(target, &retry_topic, &subscription).await;
    }
}

/// Where the dead-letter topic takes nothing, the message comes again, and an event says why.
pub async fn a_dead_letter_topic_that_refuses(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("refused");
    let dead_topic = target.topic("refusing");
    drop(created(client.producer(&dead_topic)).await);
    target.cluster().terminate(&dead_topic).await;
    let policy = DeadLetterPolicy::new(1).with_dead_letter_topic(&dead_topic);
    let mut consumer = subscribed(builder(&client, &topic, SubscriptionType::Shared).dead_letter_policy(policy)).await;
    send(&created(client.producer(&topic)).await, poison()).await;
    let ids = fail_always(&mut consumer, "poison", 2).await;

    let mut events = consumer.events();
    for _ in 0..2 {
        let event = tokio::select! {
            event = within("the event", events.recv()) => event,
            message = consumer.receive() => panic!("{message:?}"),
        };
        match event {
            Some(ConsumerEvent::DeadLetterFailed { message, error, .. }) => {
                assert_eq!((message, error.kind()), (ids[0].clone(), ErrorKind::TopicTerminated), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(consumer.stats().dead_lettered_messages, 0);
}

/// Cumulative, where messages are read in order.
pub async fn reconsumed_later_in_order(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("retry-in-order");
    let mut consumer = subscribed(builder(&client, &topic, SubscriptionType::Exclusive).retry_enabled(true)).await;
    let producer = created(client.producer(&topic)).await;
    send_all(&producer, ["1", "2", "3"].map(Message::from)).await;
    let messages = receive_all(&mut consumer, 3).await;
    let retry = consumer.acker();
    let retried = retry.reconsume_later_cumulative(&messages[2], Duration::ZERO);
    within("the retry", retried).await.expect("stored");
    let again = receive(&mut consumer).await;
    assert_eq!((again.to_string_lossy(), property(&again, "RECONSUMETIMES")), ("3".into(), "1"));
    consumer.ack(&again).expect("acknowledged");
    drained(target, &topic, "s").await;
    drained(target, &format!("{topic}-s-RETRY"), "s").await;
}

/// The work says that a message is dead, and why; another comes again from the broker after a while.
pub async fn given_up_with_a_reason(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("given-up");
    let policy = DeadLetterPolicy::new(5);
    let mut consumer = subscribed(builder(&client, &topic, SubscriptionType::Shared).dead_letter_policy(policy)).await;
    let mut dead_letters = letters(&client, &format!("{topic}-s-DLQ")).await;
    send_all(&created(client.producer(&topic)).await, ["bad", "later", "good"]).await;
    let pool = tokio::spawn(async move {
        let work = |message: ReceivedMessage| async move {
            match (&*message.to_string_lossy(), message.redelivery_count()) {
                ("bad", _) => Outcome::DeadLetter("no such order".into()),
                ("later", 0) => Outcome::Retry(Duration::from_millis(100)),
                _ => Outcome::Ack,
            }
        };
        consumer.process(2, work).await
    });
    let dead = receive(&mut dead_letters).await;
    assert_eq!((dead.to_string_lossy(), property(&dead, "DEAD_LETTER_REASON")), ("bad".into(), "no such order"));
    drained(target, &topic, "s").await;
    pool.abort();
}

/// Refused by name, before anything is asked of a broker.
pub async fn options_that_cannot_work(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("refused-options");
    let policy = DeadLetterPolicy::new(1);
    let consumer = client.consumer(&topic, "s").dead_letter_policy(policy).subscribe();
    let error = within("the refusal", consumer).await.expect_err("Exclusive has no counts");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("dead_letter_policy"), "{error}");
    let consumer = subscribed(builder(&client, &topic, SubscriptionType::Shared)).await;
    send(&created(client.producer(&topic)).await, "x").await;
    let mut consumer = consumer;
    let message = receive(&mut consumer).await;
    let error = within("the refusal", consumer.reconsume_later(&message, NACK_DELAY)).await.expect_err("no retries");
    assert!(error.to_string().contains("retry_enabled"), "{error}");
}
