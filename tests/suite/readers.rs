//! Readers: where they begin, and what they are given.

use pulsar_native::{Checkpoint, MessagesUntil, ReadUntil, Reader, SeekTo};

use super::target::Offer;
use super::*;

async fn reader(client: &Client, topic: &str, start: SeekTo) -> Reader {
    within("a reader", client.reader(topic, start).create()).await.expect("a reader")
}

async fn read(reader: &mut Reader, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for at in 0..count {
        let message = within(&format!("message {at} of {reader:?}"), reader.read_next()).await.expect("a message");
        texts.push(message.to_string_lossy().into_owned());
    }
    texts
}

async fn has_next(reader: &mut Reader) -> bool {
    within("an answer", reader.has_next()).await.expect("an answer")
}

/// All that there is.
async fn read_all(reader: &mut Reader) -> Vec<String> {
    let mut texts = Vec::new();
    while has_next(reader).await {
        texts.extend(read(reader, 1).await);
    }
    texts
}

async fn seek(reader: &mut Reader, to: SeekTo) {
    within("the seek", reader.seek(to)).await.expect("moved");
}

/// With batches of four.
async fn producer(client: &Client, topic: &str, batching: bool) -> Producer {
    let builder = client.producer(topic).batching(batching).batching_max_publish_delay(Duration::from_millis(200));
    created(builder.batching_max_messages(4)).await
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Whether the broker says where a position lies: of a time in the topic, old ones do not.
fn is_known(target: &Target, position: &SeekTo) -> bool {
    !matches!(position, SeekTo::PublishTime(_)) || target.offers(Offer::MarkDeletePosition)
}

/// Ten messages, on their own and in batches.
pub async fn starts(target: &Target) {
    let client = target.client().await;
    for batching in [false, true] {
        let topic = target.topic("reader-starts");
        let producer = producer(&client, &topic, batching).await;
        let mut empty = reader(&client, &topic, SeekTo::Latest).await;
        assert!(!has_next(&mut empty).await);
        let ids = send_all(&producer, numbers(0..10)).await;
        assert_eq!(read_all(&mut empty).await, numbers(0..10));
        for (start, expected) in [
            (SeekTo::Earliest, 0),
            (SeekTo::Latest, 10),
            (SeekTo::PublishTime(SystemTime::UNIX_EPOCH), 0),
            (SeekTo::PublishTime(SystemTime::now() + Duration::from_secs(60)), 10),
            (SeekTo::Message { id: ids[4].clone(), inclusive: true }, 4),
            (SeekTo::Message { id: ids[4].clone(), inclusive: false }, 5),
            (SeekTo::Message { id: ids[3].clone(), inclusive: false }, 4),
            (SeekTo::Message { id: ids[9].clone(), inclusive: false }, 10),
            (SeekTo::Message { id: ids[9].clone(), inclusive: true }, 9),
            (SeekTo::Message { id: MessageId::LATEST, inclusive: true }, 9),
            (SeekTo::Message { id: MessageId::LATEST, inclusive: false }, 10),
            (SeekTo::Message { id: MessageId::EARLIEST, inclusive: false }, 0),
        ] {
            if !is_known(target, &start) {
                continue;
            }
            let mut reader = reader(&client, &topic, start.clone()).await;
            assert_eq!(read_all(&mut reader).await, numbers(expected..10), "{start:?}");
        }
    }
}

pub async fn seeks(target: &Target) {
    let client = target.client().await;
    for batching in [false, true] {
        let topic = target.topic("reader-seeks");
        let producer = producer(&client, &topic, batching).await;
        let ids = send_all(&producer, numbers(0..10)).await;
        let mut reader = reader(&client, &topic, SeekTo::Earliest).await;
        assert_eq!(read(&mut reader, 3).await, numbers(0..3));
        for (to, expected) in [
            (SeekTo::Latest, 10),
            (SeekTo::Message { id: ids[2].clone(), inclusive: false }, 3),
            (SeekTo::Earliest, 0),
            (SeekTo::Message { id: ids[9].clone(), inclusive: false }, 10),
            (SeekTo::Message { id: ids[9].clone(), inclusive: true }, 9),
            (SeekTo::PublishTime(SystemTime::now() + Duration::from_secs(60)), 10),
            (SeekTo::Message { id: ids[5].clone(), inclusive: true }, 5),
            (SeekTo::PublishTime(SystemTime::UNIX_EPOCH), 0),
            (SeekTo::Message { id: MessageId::LATEST, inclusive: true }, 9),
            (SeekTo::Message { id: MessageId::EARLIEST, inclusive: true }, 0),
        ] {
            if !is_known(target, &to) {
                continue;
            }
            seek(&mut reader, to.clone()).await;
            assert_eq!(has_next(&mut reader).await, expected < 10, "{to:?}");
            assert_eq!(read_all(&mut reader).await, numbers(expected..10), "{to:?}");
        }
        seek(&mut reader, SeekTo::Latest).await;
        send(&producer, "10").await;
        assert_eq!(read_all(&mut reader).await, ["10"]);
    }
}

/// The topic moves after each message, with others in the queue.
pub async fn each_message_once_over_reconnects(target: &Target) {
    let client = target.client().await;
    for (batching, queue_size) in [(false, 1000), (true, 1000), (true, 1)] {
        let topic = target.topic("reader-reconnects");
        let producer = producer(&client, &topic, batching).await;
        let builder = client.reader(&topic, SeekTo::Latest).receiver_queue_size(queue_size);
        let mut reader = within("a reader", builder.create()).await.expect("a reader");
        // The subscription of a reader ends with its connection: without another one a broker may remove the messages meanwhile.
        let other = subscribed(client.consumer(&topic, "keeps")).await;
        within("the close", other.close()).await.expect("closed");
        target.unload(&topic).await;
        send_all(&producer, numbers(0..20)).await;
        for number in 0..20 {
            assert_eq!(read(&mut reader, 1).await, [number.to_string()], "batching {batching}");
            if number % 3 == 0 {
                // A broker that unloads a topic in the midst of a SUBSCRIBE may answer it all the same, and forget it.
                let consumers = async || target.subscription(&topic, reader.subscription()).await.consumers.len();
                until("the reader to be back", consumers, |&consumers| consumers == 1).await;
                target.unload(&topic).await;
            }
        }
        assert!(!has_next(&mut reader).await);
        target.unload(&topic).await;
        assert!(!has_next(&mut reader).await);
    }
}

/// A partitioned topic and a plain one, from the beginning and from the end; a partition that is added.
pub async fn several_topics(target: &Target) {
    let client = target.client().await;
    let partitioned = target.partitioned_topic("reader-several", 3).await;
    let plain = target.topic("reader-several-plain");
    let mut latest =
        within("a reader", client.reader([&partitioned, &plain], SeekTo::Latest).create()).await.expect("a reader");
    let producers =
        [created(client.producer(&partitioned).batching(false)).await, created(client.producer(&plain)).await];
    assert!(!has_next(&mut latest).await);
    let mut sent = BTreeSet::new();
    for number in 0..30 {
        let text = number.to_string();
        let message = Message::new(text.clone()).with_key(&text);
        send(&producers[number % 2], message).await;
        sent.insert(text);
    }
    let builder = client.reader([&partitioned, &plain], SeekTo::Earliest);
    let builder = builder.auto_update_partitions_interval(Duration::from_secs(1));
    let mut earliest = within("a reader", builder.create()).await.expect("a reader");
    for reader in [&mut latest, &mut earliest] {
        let texts = read_all(reader).await;
        assert_eq!(texts.len(), 30, "each once");
        assert_eq!(BTreeSet::from_iter(texts), sent);
        assert!(!has_next(reader).await);
    }
    let one = within(
        "a reader",
        client.reader([&partitioned, &plain], SeekTo::Message { id: MessageId::new(1, 1), inclusive: true }).create(),
    )
    .await;
    assert_eq!(one.expect_err("several parts").kind(), ErrorKind::InvalidArgument);
    target.cluster().grow(&partitioned, 5).await;
    let added = created(client.producer(format!("{partitioned}-partition-4"))).await;
    send(&added, "more").await;
    assert_eq!(read(&mut earliest, 1).await, ["more"]);
}

/// Nothing of it is left at the broker.
pub async fn leaves_nothing(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("reader-leaves");
    let producer = producer(&client, &topic, false).await;
    send(&producer, "0").await;
    let builder = client.reader(&topic, SeekTo::Earliest).subscription_role_prefix("role").reader_name("me");
    let mut reader = within("a reader", builder.create()).await.expect("a reader");
    let name = reader.subscription().to_owned();
    assert!(name.starts_with("role-reader-") && name.len() == "role-reader-".len() + 10, "{name}");
    assert_eq!(read(&mut reader, 1).await, ["0"]);
    assert!(!has_next(&mut reader).await);
    let look = || target.stats(&topic);
    until("the acknowledgement", look, |seen| seen.subscriptions.get(&name).is_some_and(|one| one.backlog == 0)).await;
    within("the close", reader.close()).await.expect("closed");
    until("its end", look, |seen| seen.subscriptions.is_empty()).await;
    let named = || client.reader(&topic, SeekTo::Earliest).subscription_name("mine");
    let _first = within("a reader", named().create()).await.expect("a reader");
    assert_eq!(within("a reader", named().create()).await.expect_err("taken").kind(), ErrorKind::Busy);
}

/// A reader is stopped a hundred times, after a few messages or a look for one, and another one begins where it was.
pub async fn resumed_a_hundred_times(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("reader-resumed", 2).await;
    let builder = client.producer(&topic).auto_update_partitions_interval(Duration::from_secs(1));
    let producer = created(builder.batching_max_messages(5).batching_max_publish_delay(Duration::from_millis(5))).await;
    let (mut checkpoint, mut texts, mut sent) = (Checkpoint::new(), Vec::new(), 0);
    for stop in 0..100 {
        let messages =
            (sent..sent + 6).map(|number| Message::new(number.to_string()).with_key(format!("{}", number % 7)));
        send_all(&producer, messages).await;
        sent += 6;
        if stop == 50 {
            target.cluster().grow(&topic, 4).await;
            until(
                "the producer to send to the new partitions",
                async || producer.state().parts.len(),
                |&parts| parts == 4,
            )
            .await;
        }
        let mut reader = within("a reader", client.reader(&topic, &checkpoint).create()).await.expect("a reader");
        texts.extend(read(&mut reader, stop % 11).await);
        if stop % 3 == 0 {
            assert!(has_next(&mut reader).await, "{stop}: {} of {sent}", texts.len());
        }
        let before = std::mem::replace(&mut checkpoint, reader.checkpoint());
        assert!(before <= checkpoint, "{before} and {checkpoint}");
        checkpoint = match stop % 2 {
            0 => Checkpoint::from_bytes(&checkpoint.to_bytes()).expect("bytes"),
            _ => checkpoint.to_string().parse().expect("a text"),
        };
        within("the close", reader.close()).await.expect("closed");
    }
    let mut reader = within("a reader", client.reader(&topic, checkpoint).create()).await.expect("a reader");
    texts.extend(read_all(&mut reader).await);
    let mut read: Vec<usize> = texts.iter().map(|text| text.parse().expect("a number")).collect();
    read.sort_unstable();
    assert_eq!(read, Vec::from_iter(0..sent), "each message once");
    assert_eq!(reader.checkpoint().positions().count(), 4, "{:?}", reader.checkpoint());
}

/// What a subscription has acknowledged is where a reader and another subscription begin.
pub async fn checkpoint_of_a_subscription(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("reader-subscription", 2).await;
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    if !target.offers(Offer::MarkDeletePosition) {
        let error = within("an answer", consumer.checkpoint()).await.expect_err("the broker does not say");
        return assert_eq!(error.kind(), ErrorKind::NotAllowed, "{error}");
    }
    assert!(within("an answer", consumer.checkpoint()).await.expect("an answer").positions().count() <= 2);
    let producer = created(client.producer(&topic).batching(false)).await;
    send_all(&producer, numbers(0..10)).await;
    let mut unread = BTreeSet::from_iter(numbers(0..10));
    for _ in 0..6 {
        let message = receive(&mut consumer).await;
        unread.remove(&*message.to_string_lossy());
        consumer.ack(&message).expect("acknowledged");
    }
    let checkpoint = within("an answer", consumer.checkpoint()).await.expect("an answer");
    let mut reader = within("a reader", client.reader(&topic, &checkpoint).create()).await.expect("a reader");
    assert_eq!(BTreeSet::from_iter(read_all(&mut reader).await), unread);
    let mut other = subscribed(client.consumer(&topic, "other")).await;
    within("the seek", other.seek_to_checkpoint(&checkpoint)).await.expect("moved");
    assert_eq!(BTreeSet::from_iter(texts(&mut other, 4).await), unread);
    within("the seek", reader.seek_to_checkpoint(&checkpoint)).await.expect("moved");
    assert_eq!(BTreeSet::from_iter(read_all(&mut reader).await), unread);
}

pub async fn a_terminated_topic(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("reader-terminated");
    let producer = producer(&client, &topic, false).await;
    let mut empty = reader(&client, &topic, SeekTo::Earliest).await;
    send_all(&producer, numbers(0..3)).await;
    within("the close", producer.close()).await.expect("closed");
    target.cluster().terminate(&topic).await;
    let mut at_end = reader(&client, &topic, SeekTo::Latest).await;
    assert!(!has_next(&mut at_end).await);
    assert_eq!(read_all(&mut empty).await, numbers(0..3));
    until("the end of the topic", async || empty.has_reached_end_of_topic(), |&ended| ended).await;
    assert!(!has_next(&mut empty).await);
    seek(&mut empty, SeekTo::Message { id: MessageId::LATEST, inclusive: true }).await;
    assert_eq!(read_all(&mut empty).await, ["2"]);
    assert_eq!(read_until(&mut at_end, ReadUntil::Now).await, [""; 0]);
    seek(&mut at_end, SeekTo::Earliest).await;
    assert_eq!(read_until(&mut at_end, ReadUntil::Now).await, numbers(0..3));
}

async fn begin_until(reader: &mut Reader, end: ReadUntil) -> MessagesUntil<'_> {
    within("the end to be known", reader.until(end)).await.expect("a stream")
}

/// What is left of it, in the order of the numbers.
async fn rest(mut messages: MessagesUntil<'_>) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(message) = within("a message, or the end", messages.next()).await {
        texts.push(message.expect("a message").to_string_lossy().into_owned());
    }
    texts.sort_by_key(|text| text.parse::<usize>().expect("a number"));
    texts
}

async fn read_until(reader: &mut Reader, end: ReadUntil) -> Vec<String> {
    rest(begin_until(reader, end).await).await
}

fn keyed(numbers: std::ops::Range<usize>) -> impl Iterator<Item = Message> {
    numbers.map(|number| Message::new(number.to_string()).with_key(format!("{}", number % 5)))
}

/// What is published behind the end is kept for later, whoever begins or drops the stream.
pub async fn until_an_end(target: &Target) {
    let client = target.client().await;
    for queue_size in [1000, 1, 0] {
        let topic = target.partitioned_topic("reader-until", 3).await;
        let producer = created(client.producer(&topic).batching_max_messages(4)).await;
        let builder = client.reader(&topic, SeekTo::Earliest).receiver_queue_size(queue_size);
        let mut reader = within("a reader", builder.create()).await.expect("a reader");
        assert_eq!(read_until(&mut reader, ReadUntil::Now).await, [""; 0]);
        send_all(&producer, keyed(0..30)).await;
        assert!(has_next(&mut reader).await, "one is found before");
        let mut messages = begin_until(&mut reader, ReadUntil::Now).await;
        send_all(&producer, keyed(30..60)).await;
        let first = within("a message", messages.next()).await.expect("not the end").expect("a message");
        drop(messages);
        let mut before = rest(begin_until(&mut reader, ReadUntil::Position(Checkpoint::new())).await).await;
        assert_eq!(before, [""; 0], "no topic has a position");
        before.push(first.to_string_lossy().into_owned());
        before.extend(read_until(&mut reader, ReadUntil::Now).await);
        before.sort_by_key(|text| text.parse::<usize>().expect("a number"));
        assert_eq!(before, numbers(0..60), "queue of {queue_size}");
        assert!(!has_next(&mut reader).await);
    }
}

/// Up to a position within batches, and up to a time; the rest is read afterwards.
pub async fn until_each_kind_of_end(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("reader-ends", 2).await;
    let producer = created(client.producer(&topic).batching_max_messages(4)).await;
    send_all(&producer, keyed(0..20)).await;
    let mut reader = reader(&client, &topic, SeekTo::Earliest).await;
    let mut first = read(&mut reader, 7).await;
    let middle = reader.checkpoint();
    assert!(has_next(&mut reader).await);
    assert_eq!(reader.checkpoint(), middle, "a look reads nothing");
    assert_eq!(read_until(&mut reader, ReadUntil::Position(middle.clone())).await, [""; 0], "it is there");
    let mut second = read_until(&mut reader, ReadUntil::Now).await;
    first.sort_by_key(|text| text.parse::<usize>().expect("a number"));
    seek(&mut reader, SeekTo::Earliest).await;
    assert_eq!(read_until(&mut reader, ReadUntil::Position(middle)).await, first);
    assert_eq!(read_until(&mut reader, ReadUntil::Position(reader_at_end(&client, &topic).await)).await, second);
    second.extend(first);
    second.sort_by_key(|text| text.parse::<usize>().expect("a number"));
    assert_eq!(second, numbers(0..20));

    let passed = |ms| until("a moment to pass", async move || SystemTime::now(), move |now| *now >= ms);
    let next_ms = || SystemTime::now() + Duration::from_millis(2);
    passed(next_ms()).await;
    let late = SystemTime::now();
    passed(next_ms()).await;
    send_all(&producer, keyed(20..30)).await;
    seek(&mut reader, SeekTo::Earliest).await;
    assert_eq!(read_until(&mut reader, ReadUntil::PublishTime(SystemTime::UNIX_EPOCH)).await, [""; 0]);
    assert_eq!(read_until(&mut reader, ReadUntil::PublishTime(late)).await, numbers(0..20));
    assert_eq!(read_until(&mut reader, ReadUntil::PublishTime(SystemTime::now())).await, numbers(20..30));
    let to_come = ReadUntil::PublishTime(SystemTime::now() + Duration::from_secs(60));
    assert_eq!(reader.until(to_come).await.expect_err("not known").kind(), ErrorKind::InvalidArgument);
    let builder = client.reader(target.topic("reader-ranges"), SeekTo::Earliest).key_hash_range([0..=9]);
    let mut ranges = within("a reader", builder.create()).await.expect("a reader");
    assert_eq!(ranges.until(ReadUntil::Now).await.expect_err("not known").kind(), ErrorKind::InvalidArgument);
}

/// What was found before a seek is not given out after it.
pub async fn until_after_a_seek(target: &Target) {
    let client = target.client().await;
    for batching in [false, true] {
        let topic = target.topic("reader-until-sought");
        let producer = producer(&client, &topic, batching).await;
        send_all(&producer, numbers(0..10)).await;
        let mut reader = reader(&client, &topic, SeekTo::Earliest).await;
        assert_eq!(read(&mut reader, 9).await, numbers(0..9));
        assert!(has_next(&mut reader).await, "the last one is found");
        seek(&mut reader, SeekTo::Earliest).await;
        assert_eq!(read_until(&mut reader, ReadUntil::Now).await, numbers(0..10));
        assert!(!has_next(&mut reader).await);
    }
}

/// The position of a reader that has read all of it.
async fn reader_at_end(client: &Client, topic: &str) -> Checkpoint {
    let mut reader = reader(client, topic, SeekTo::Earliest).await;
    read_all(&mut reader).await;
    reader.checkpoint()
}

/// Messages of a partition that joins meanwhile are read afterwards.
pub async fn until_while_partitions_are_added(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("reader-until-grown", 2).await;
    let producer = created(client.producer(&topic).batching(false)).await;
    send_all(&producer, keyed(0..10)).await;
    let builder = client.reader(&topic, SeekTo::Earliest).auto_update_partitions_interval(Duration::from_secs(1));
    let mut reader = within("a reader", builder.create()).await.expect("a reader");
    let messages = begin_until(&mut reader, ReadUntil::Now).await;
    target.cluster().grow(&topic, 3).await;
    let added = format!("{topic}-partition-2");
    let producer = created(client.producer(&added)).await;
    send_all(&producer, numbers(10..15)).await;
    until("the reader to find it", || target.stats(&added), |seen| !seen.subscriptions.is_empty()).await;
    assert_eq!(rest(messages).await, numbers(0..10));
    assert!(has_next(&mut reader).await);
    assert_eq!(read_all(&mut reader).await, numbers(10..15));
}
