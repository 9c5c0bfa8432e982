//! Topics move and connections break; producers and consumers go on.

use super::*;

/// The topic is unloaded while messages are on their way in both directions.
pub async fn unload_in_full_flight(target: &Target) {
    const COUNT: usize = 3000;
    let client = target.client().await;
    for batching in [true, false] {
        let topic = target.topic("unload");
        let mut consumer = within("a consumer", client.consumer(&topic, "s").subscribe()).await.expect("a consumer");
        let producer = within("a producer", client.producer(&topic).batching(batching).create()).await.expect("made");
        let sent = Arc::new(AtomicUsize::new(0));
        let counting = sent.clone();
        let sending = tokio::spawn(async move {
            for number in 0..COUNT {
                counting.store(number, Ordering::SeqCst);
                drop(within("room", producer.enqueue(number.to_string())).await.expect("accepted"));
                if number % 50 == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            within("the flush", producer.flush()).await.expect("nothing failed");
        });
        let receiving = tokio::spawn(async move {
            // What comes again is known by its number: order and completeness are judged on first arrivals.
            let mut next = 0;
            while next < COUNT {
                let message = receive(&mut consumer).await;
                let number: usize = message.text().parse().expect("a number");
                assert!(number <= next, "{next} is missing before {number}");
                next = next.max(number + 1);
                consumer.ack(&message).expect("acknowledged");
            }
            consumer
        });
        for at in [COUNT / 4, COUNT / 2] {
            until("enough to be sent", || async { sent.load(Ordering::SeqCst) }, |sent| *sent >= at).await;
            target.unload(&topic).await;
        }
        within("the sender to end", sending).await.expect("no panic");
        let consumer = within("the receiver to end", receiving).await.expect("no panic");
        drained(target, &topic, "s").await;
        assert!(consumer.is_connected());
    }
}

/// A deleted topic comes back where topics are made on demand: the producer attaches to the new one.
pub async fn deleted_topic_is_made_anew(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("deleted");
    let producer = within("a producer", client.producer(&topic).create()).await.expect("a producer");
    send(&producer, "to the first").await;
    within("the deletion", target.cluster().delete(&topic)).await;
    send(&producer, "to the second").await;
    let builder = client.consumer(&topic, "s").initial_position(InitialPosition::Earliest);
    let mut consumer = within("a consumer", builder.subscribe()).await.expect("a consumer");
    assert_eq!(texts(&mut consumer, 1).await, ["to the second"]);
}
