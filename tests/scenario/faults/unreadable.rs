//! Messages that cannot be read, in every form of receiving: each is reported, and those around it come.

use pulsar_native::{ConsumerEvents, UnreadableMessage, UnreadableMessagePolicy, UnreadableReason};
use tokio::sync::mpsc;

use super::forms::Form;
use super::support::*;
use crate::suite::raw::{RawEntry, publish};
use crate::suite::unreadable::{
    as_unreadable, check_metadata, chunk, encrypted, large, other_codec, other_codec_batch, plain,
};

/// More than the default of `max_uncompressed_size`, 80 MiB.
const DECLARED: u32 = 80 * 1024 * 1024 + 1;

async fn unreadable(events: &mut ConsumerEvents) -> UnreadableMessage {
    as_unreadable(within("an event", events.recv()).await)
}

async fn store(stage: &Stage, entries: &[RawEntry<'_>]) {
    within("the receipts", publish(stage.broker.connect(), None, TOPIC, entries)).await;
}

/// All kinds of messages that cannot be read, between three that can.
async fn store_all(stage: &Stage) {
    // A block of so many bytes could hold what is declared.
    let block = vec![0; DECLARED as usize / 255 + 1];
    let entries = [
        (plain(), &b"0"[..]),
        (encrypted(), b"sealed"),
        (chunk(), b"a part"),
        (plain(), b"1"),
        (other_codec(), b"other"),
        (other_codec_batch(), b"another batch"),
        (large(DECLARED), &block[..]),
        (plain(), b"2"),
    ];
    store(stage, &entries).await;
}

/// The events of [`store_all`].
async fn found(events: &mut ConsumerEvents, form: Form) -> Vec<UnreadableMessage> {
    let mut found = Vec::new();
    for _ in 0..5 {
        found.push(unreadable(events).await);
    }
    check_metadata(&found[..4]);
    assert!(matches!(found[4].reason(), UnreadableReason::TooLarge { .. }), "{form:?}: {found:?}");
    for (message, payload) in found.iter().zip([&b"sealed"[..], b"a part", b"other", b"another batch"]) {
        assert_eq!((message.topic(), message.payload()), (TOPIC, payload), "{form:?}");
    }
    assert!(events.try_recv().is_none(), "{form:?}: each is reported once");
    found
}

async fn consumer(stage: &Stage, policy: UnreadableMessagePolicy) -> Consumer {
    let builder = stage.client.consumer(TOPIC, "s").subscription_type(SubscriptionType::Shared);
    subscribed(builder.unreadable_message_policy(policy)).await
}

/// They stay unacknowledged; the application settles them.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_reported_and_the_rest_comes() {
    for form in Form::ALL {
        let stage = Stage::new().await;
        let consumer = consumer(&stage, UnreadableMessagePolicy::default()).await;
        let (mut events, acker) = (consumer.events(), consumer.acker());
        let (sender, mut texts) = mpsc::unbounded_channel();
        let receiving = spawn(form.run(consumer, sender));
        store_all(&stage).await;
        for expected in ["0", "1", "2"] {
            assert_eq!(within("a message", texts.recv()).await.expect("it receives"), expected, "{form:?}");
        }
        let found = found(&mut events, form).await;
        assert!(found.iter().all(|message| !message.is_acknowledged()), "{form:?}");
        // The batch counts as the two messages it holds.
        until("the acknowledgements", || stage.subscription(TOPIC).msg_backlog, |left| *left == 6).await;
        acker.nack_id(&found[0].id()).expect("noted");
        assert_eq!(unreadable(&mut events).await.id(), found[0].id(), "{form:?}: it is reported again");
        acker.ack(found[0].message()).expect("acknowledged");
        for message in &found[1..] {
            acker.ack_id(&message.id()).expect("acknowledged");
        }
        stage.drained(TOPIC).await;
        assert!(!receiving.is_finished(), "{form:?}");
        receiving.abort();
        drop(acker);
        stage.close_and_check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_acknowledged_if_the_policy_says_so() {
    for form in Form::ALL {
        let stage = Stage::new().await;
        let consumer = consumer(&stage, UnreadableMessagePolicy::Acknowledge).await;
        let mut events = consumer.events();
        let (sender, mut texts) = mpsc::unbounded_channel();
        let receiving = spawn(form.run(consumer, sender));
        store_all(&stage).await;
        for expected in ["0", "1", "2"] {
            assert_eq!(within("a message", texts.recv()).await.expect("it receives"), expected, "{form:?}");
        }
        let found = found(&mut events, form).await;
        assert!(found.iter().all(UnreadableMessage::is_acknowledged), "{form:?}");
        stage.drained(TOPIC).await;
        receiving.abort();
        stage.close_and_check().await;
    }
}

/// An application that left it alone is told of it again by the next consumer.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_comes_again_after_a_reconnect() {
    let stage = Stage::new().await;
    let mut consumer = stage.consumer(TOPIC).await;
    let mut events = consumer.events();
    store(&stage, &[(encrypted(), b"sealed"), (plain(), b"1")]).await;
    assert_eq!(text(&mut consumer).await, "1");
    let first = unreadable(&mut events).await;
    stage.broker.faults().close_consumers(TOPIC, None);
    assert_eq!(text(&mut consumer).await, "1");
    assert_eq!(unreadable(&mut events).await.id(), first.id());
    consumer.ack_id(&first.id()).expect("acknowledged");
    stage.broker.faults().close_consumers(TOPIC, None);
    assert_eq!(text(&mut consumer).await, "1");
    assert!(events.try_recv().is_none(), "it is acknowledged");
    drop(consumer);
    stage.close_and_check().await;
}

/// With a queue of one message, one that cannot be read does not keep its place in it.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_does_not_use_up_the_queue() {
    for queue in [0, 1, 2] {
        let stage = Stage::new().await;
        let mut entries = vec![(other_codec(), &b"other"[..]); 20];
        entries.push((plain(), b"readable"));
        store(&stage, &entries).await;
        let builder = stage.client.consumer(TOPIC, "s").receiver_queue_size(queue);
        let builder = builder.initial_position(InitialPosition::Earliest);
        let mut consumer = subscribed(builder).await;
        assert_eq!(text(&mut consumer).await, "readable", "queue of {queue}");
        let mut events = consumer.events();
        assert_eq!(std::iter::from_fn(|| events.try_recv()).count(), 20, "queue of {queue}");
        drop(consumer);
        stage.close_and_check().await;
    }
}
