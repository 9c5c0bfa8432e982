//! Going back and forth in a subscription.

use super::*;
use pulsar_native::{SeekTo, Topics};

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

/// One consumer of a topic with three partitions and of one without, which has received all of them: by the full name of
/// each, the ids in order.
async fn several(target: &Target) -> (Consumer, [String; 2], BTreeMap<String, Vec<MessageId>>) {
    let client = target.client().await;
    let topics = [target.partitioned_topic("seek-parts", 3).await, target.topic("seek-plain")];
    let mut consumer = subscribed(client.consumer(topics.clone(), "s")).await;
    let mut ids = BTreeMap::new();
    for part in (0..3).map(|index| format!("{}-partition-{index}", topics[0])).chain([topics[1].clone()]) {
        let producer = created(client.producer(&part).batching(false)).await;
        let sent = send_all(&producer, (0..4).map(|number| number.to_string())).await;
        ids.insert(part.clone(), sent.into_iter().map(|id| id.with_topic(part.as_str())).collect());
    }
    assert_eq!(by_topic(&mut consumer, 16).await.len(), 4);
    (consumer, topics, ids)
}

/// The texts of the next messages, by their topics.
async fn by_topic(consumer: &mut Consumer, count: usize) -> BTreeMap<String, Vec<String>> {
    let mut texts = BTreeMap::<_, Vec<_>>::new();
    for message in receive_all(consumer, count).await {
        texts.entry(message.topic().to_owned()).or_default().push(message.to_string_lossy().into_owned());
    }
    texts
}

fn from(first: usize) -> Vec<String> {
    (first..4).map(|number| number.to_string()).collect()
}

pub async fn each_topic_elsewhere(target: &Target) {
    let (mut consumer, topics, ids) = several(target).await;
    let parts: Vec<_> = (0..3).map(|index| format!("{}-partition-{index}", topics[0])).collect();
    let to = |part: &str, at: usize, inclusive| SeekTo::Message { id: ids[part][at].clone(), inclusive };
    let mut asked = BTreeSet::new();
    let seek = consumer.seek_each(|name| {
        asked.insert(name.to_owned());
        match name {
            name if name == parts[0] => Some(to(name, 2, true)),
            name if name == parts[1] => Some(to(name, 2, false)),
            name if name == topics[1] => Some(SeekTo::PublishTime(SystemTime::UNIX_EPOCH)),
            _ => None,
        }
    });
    within("the seeks", seek).await.expect("moved");
    assert_eq!(asked, ids.keys().cloned().collect());
    let seen = by_topic(&mut consumer, 7).await;
    assert_eq!(
        seen,
        [(&parts[0], from(2)), (&parts[1], from(3)), (&topics[1], from(0))]
            .map(|(name, texts)| (name.clone(), texts))
            .into()
    );
    let another =
        consumer.seek_each(|name| Some(if name == topics[1] { to(&parts[0], 0, true) } else { SeekTo::Earliest }));
    let error = within("the refusal", another).await.expect_err("an id of another topic");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("is not of this topic"), "{error}");
    within("no seek", consumer.seek_each(|_| None)).await.expect("nothing to do");
    // Nothing has moved: only what is sent now comes.
    let client = target.client().await;
    send(&created(client.producer(&parts[2])).await, "new").await;
    assert_eq!(texts(&mut consumer, 1).await, ["new"]);
}

pub async fn by_an_id_of_several_topics(target: &Target) {
    let (mut consumer, topics, ids) = several(target).await;
    let part = format!("{}-partition-1", topics[0]);
    let kept = ids[&part][1].to_bytes();
    let to = |id: MessageId| SeekTo::Message { id, inclusive: true };
    let without_topic = MessageId::from_bytes(&kept).expect("an id");
    let of_no_topic = without_topic.clone().with_topic("persistent://public/default/elsewhere");
    for (id, reason) in [(without_topic, "which of several topics"), (of_no_topic, "does not read")] {
        let error = within("the refusal", consumer.seek(to(id))).await.expect_err("not one of its topics");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(reason), "{error}");
    }
    // By the name of the topic and the partition in the id, or by the name of the partition.
    for name in [&topics[0], &part] {
        let id = MessageId::from_bytes_with_topic(&kept, name).expect("an id of a topic");
        seek(&mut consumer, to(id)).await;
        assert_eq!(by_topic(&mut consumer, 3).await, BTreeMap::from([(part.clone(), from(1))]));
    }
    seek(&mut consumer, to(MessageId::EARLIEST)).await;
    assert_eq!(by_topic(&mut consumer, 16).await, ids.keys().map(|name| (name.clone(), from(0))).collect());
    seek(&mut consumer, to(MessageId::EARLIEST.with_topic(part.as_str()))).await;
    seek(&mut consumer, to(MessageId::LATEST.with_topic(topics[1].as_str()))).await;
    assert_eq!(by_topic(&mut consumer, 4).await, BTreeMap::from([(part, from(0))]));
}

/// Topics of a pattern are several, also while there is only one.
pub async fn a_pattern_wants_the_topic(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("seek-pattern");
    let ids = send_all(&created(client.producer(&topic)).await, ["0", "1"]).await;
    let pattern = Topics::pattern(format!("{topic}.*"));
    let builder = client.consumer(pattern, "s").initial_position(InitialPosition::Earliest);
    let mut consumer = subscribed(builder).await;
    assert_eq!(texts(&mut consumer, 2).await, ["0", "1"]);
    let to = |id: MessageId| SeekTo::Message { id, inclusive: true };
    let error = within("the refusal", consumer.seek(to(ids[1].clone()))).await.expect_err("of which topic");
    assert!(error.to_string().contains("which of several topics"), "{error}");
    seek(&mut consumer, to(ids[1].clone().with_topic(topic))).await;
    assert_eq!(texts(&mut consumer, 1).await, ["1"]);
}
