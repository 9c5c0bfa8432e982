//! Going back and forth in a subscription.

use super::*;
use pulsar_native::SeekTo;

async fn stage(target: &Target, name: &str, batching: bool) -> (Consumer, Producer, Vec<MessageId>) {
    let client = target.client().await;
    let topic = target.topic(name);
    let consumer = subscribed(client.consumer(&topic, "s")).await;
    let builder = client.producer(&topic).batching(batching).batching_max_publish_delay(Duration::from_millis(200));
    let producer = created(builder.batching_max_messages(5)).await;
    let ids = send_all(&producer, (0..10).map(|number| number.to_string())).await;
    (consumer, producer, ids)
}

async fn seek(consumer: &mut Consumer, to: SeekTo) {
    within("the seek", consumer.seek(to)).await.expect("moved");
}

pub async fn to_a_message(target: &Target) {
    for batching in [false, true] {
        let (mut consumer, _, ids) = stage(target, "seek-message", batching).await;
        assert_eq!(texts(&mut consumer, 7).await, ["0", "1", "2", "3", "4", "5", "6"]);
        seek(&mut consumer, SeekTo::Message { id: ids[3].clone(), inclusive: true }).await;
        assert_eq!(texts(&mut consumer, 3).await, ["3", "4", "5"], "batching {batching}");
        seek(&mut consumer, SeekTo::Message { id: ids[1].clone(), inclusive: false }).await;
        assert_eq!(texts(&mut consumer, 3).await, ["2", "3", "4"], "batching {batching}");
    }
}

pub async fn to_the_ends(target: &Target) {
    let (mut consumer, producer, _) = stage(target, "seek-ends", false).await;
    assert_eq!(texts(&mut consumer, 5).await, ["0", "1", "2", "3", "4"]);
    seek(&mut consumer, SeekTo::Earliest).await;
    assert_eq!(texts(&mut consumer, 2).await, ["0", "1"]);
    seek(&mut consumer, SeekTo::Latest).await;
    send(&producer, "10").await;
    let message = receive(&mut consumer).await;
    assert_eq!(message.to_string_lossy(), "10");
    seek(&mut consumer, SeekTo::PublishTime(SystemTime::UNIX_EPOCH)).await;
    assert_eq!(texts(&mut consumer, 1).await, ["0"]);
    seek(&mut consumer, SeekTo::PublishTime(message.publish_time())).await;
    // Others may have been published in the same millisecond.
    let next = receive(&mut consumer).await;
    assert!(next.publish_time() >= message.publish_time(), "{} is of before", next.to_string_lossy());
}
