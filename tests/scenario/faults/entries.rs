//! Entries that are damaged, doubled, empty or odd: each has its way, and the ones behind it come.

use super::support::*;

async fn filled(stage: &Stage, batching: bool) -> Producer {
    let builder = stage.client.producer(TOPIC).batching(batching).batching_max_publish_delay(Duration::from_secs(1));
    let producer = created(builder).await;
    for entry in 0..3 {
        let pending = enqueue_numbers(&producer, entry * 3..entry * 3 + 3).await;
        within("the flush", producer.flush()).await.expect("stored");
        confirmed(pending).await;
    }
    producer
}

/// It is acknowledged with its validation error, its permits come back, the connection stays.
#[tokio::test(start_paused = true)]
async fn a_damaged_entry_is_acknowledged_with_its_error_and_the_next_ones_come() {
    for batching in [true, false] {
        for crc in [true, false] {
            for kind in [SubscriptionType::Exclusive, SubscriptionType::Shared] {
                let stage = Stage::new().await;
                let producer = filled(&stage, batching).await;
                let faults = stage.broker.faults();
                // An unbatched payload may be anything, so only its checksum can be wrong.
                let damaged = if crc || !batching {
                    faults.corrupt_stored_entry(TOPIC, 1)
                } else {
                    faults.corrupt_stored_payload(TOPIC, 1)
                };
                assert!(damaged, "there is such an entry");
                let builder = stage.client.consumer(TOPIC, "s").initial_position(InitialPosition::Earliest);
                let builder = builder.subscription_type(kind).receiver_queue_size(2);
                let mut consumer = subscribed(builder).await;
                let lost: &[&str] = if batching { &["3", "4", "5"] } else { &["1"] };
                let expected: Vec<_> = numbers(0..9).into_iter().filter(|text| !lost.contains(&&**text)).collect();
                assert_eq!(receive_up_to(&mut consumer, "8").await, expected, "{batching} {crc} {kind:?}");
                stage.drained(TOPIC).await;
                assert_eq!(stage.net.dials(), 1, "the connection stays");
                for number in 9..30 {
                    send(&producer, number.to_string()).await;
                    assert_eq!(receive_up_to(&mut consumer, &number.to_string()).await, [number.to_string()]);
                }
                stage.close_and_check().await;
            }
        }
    }
}

/// Nothing but damage: the queue never runs dry of permits.
#[tokio::test(start_paused = true)]
async fn a_topic_full_of_damage_does_not_stop_delivery() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    confirmed(enqueue_numbers(&producer, 0..100).await).await;
    for entry in 0..99 {
        assert!(stage.broker.faults().corrupt_stored_entry(TOPIC, entry));
    }
    for queue in [1, 2, 10] {
        let builder = stage.client.consumer(TOPIC, format!("queue of {queue}")).receiver_queue_size(queue);
        let builder = builder.initial_position(InitialPosition::Earliest);
        let mut consumer = subscribed(builder).await;
        assert_eq!(text(&mut consumer).await, "99");
    }
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_entry_does_not_stop_a_queue_of_zero() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    confirmed(enqueue_numbers(&producer, 0..3).await).await;
    assert!(stage.broker.faults().corrupt_stored_entry(TOPIC, 1));
    let builder = stage.client.consumer(TOPIC, "s").receiver_queue_size(0);
    let builder = builder.initial_position(InitialPosition::Earliest);
    let mut consumer = subscribed(builder).await;
    assert_eq!([text(&mut consumer).await, text(&mut consumer).await], ["0", "2"]);
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn empty_and_null_and_compressed_payloads_survive_a_reconnect() {
    let stage = Stage::deduplicating().await;
    for batching in [true, false] {
        let topic = format!("odd-{batching}");
        let builder = stage.client.producer(&topic).name("p").batching(batching);
        let producer = created(builder).await;
        let mut consumer = stage.consumer(&topic).await;
        stage.broker.faults().on(FaultEvent::Send).disconnect();
        let pending = vec![enqueue(&producer, "").await, enqueue(&producer, Message::new("").with_null_value()).await];
        confirmed(pending).await;
        let empty = within("a message", consumer.receive()).await.expect("a message");
        assert!(empty.payload().is_empty() && !empty.is_null());
        let mut next = within("a message", consumer.receive()).await.expect("a message");
        // What was delivered before the cut may come once more.
        while !next.is_null() {
            assert!(next.payload().is_empty());
            next = within("a message", consumer.receive()).await.expect("a message");
        }
    }
    stage.close_and_check().await;
}

/// A delivery takes more bytes than the send of it, beside its entry: longer ids, and the metadata of the broker.
#[tokio::test(start_paused = true)]
async fn what_was_sent_fits_the_frame_of_its_delivery() {
    let broker = EmbeddedBroker::builder().max_message_size(10_000);
    let stage = Stage::with(broker.exposing_broker_entry_metadata_to_client_enabled(true), |builder| builder).await;
    let key = "k".repeat(4000);
    let (mut stored, mut refused) = (0, 0);
    // A batch that fills the frame by its records, its key and the name of its producer.
    for name_bytes in (6_000..6_600).step_by(8) {
        let topic = format!("t{name_bytes}");
        let builder = stage.client.producer(&topic).name("n".repeat(name_bytes));
        let builder = builder.batching_max_publish_delay(Duration::from_secs(1));
        let producer = created(builder).await;
        let first = enqueue(&producer, Message::new(vec![0; 5_700]).with_key(&key)).await;
        let second = enqueue(&producer, "x").await;
        match within("the receipt", first).await {
            Ok(_) => {
                confirmed(vec![second]).await;
                let mut consumer = stage.consumer(&topic).await;
                assert_eq!(text(&mut consumer).await.len(), 5_700, "name of {name_bytes}");
                assert_eq!(text(&mut consumer).await, "x", "name of {name_bytes}");
                stored += 1;
            }
            Err(error) => {
                assert_eq!(error.error().kind(), ErrorKind::MessageTooLarge, "{error}");
                refused += 1;
            }
        }
    }
    assert!(stored > 0 && refused > 0, "{stored} stored, {refused} refused");
    assert_eq!(stage.net.dials(), 1, "no frame cost the connection");
    stage.close_and_check().await;
}
