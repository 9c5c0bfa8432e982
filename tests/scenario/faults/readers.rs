//! Readers: streams up to an end, which ends whatever becomes of the topics.

use pulsar_native::{ConsumerEvent, ConsumerEvents, ReadUntil, Reader, Topics, pb};

use super::support::*;
use crate::suite::raw::{RawEntry, publish};

/// A publish time behind that of every seek, milliseconds since 1970.
const LATER_MS: u64 = 10_000_000_000_000;

async fn reader(stage: &Stage, topic: &str) -> Reader {
    let builder = stage.client.reader(topic, SeekTo::Earliest).receiver_queue_size(1);
    within("a reader", builder.create()).await.expect("a reader")
}

/// A topic is deleted, or a message expires unread, before it was sent to the reader: the broker is asked again.
#[tokio::test(start_paused = true)]
async fn until_ends_where_messages_are_gone() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    confirmed(enqueue_numbers(&producer, 0..10).await).await;
    let mut reader = reader(&stage, TOPIC).await;
    let mut messages = within("the end to be known", reader.until(ReadUntil::Now)).await.expect("a stream");
    let first = within("a message", messages.next()).await.expect("not the end").expect("a message");
    assert_eq!(first.to_string_lossy(), "0");
    stage.broker.faults().on(FaultEvent::LastMessageId).drop_response();
    stage.broker.delete_topic(TOPIC);
    let mut read = 1;
    while let Some(message) = within("a message, or the end", messages.next()).await {
        message.expect("a message");
        read += 1;
    }
    assert!(read < 4, "{read} were sent ahead");
    drop(messages);
    confirmed(enqueue_numbers(&producer, 10..12).await).await;
    for number in ["10", "11"] {
        let message = within("a message", reader.read_next()).await.expect("a message");
        assert_eq!(message.to_string_lossy(), number);
    }
    drop(reader);
    stage.close_and_check().await;
}

/// One partition ends for good: the others are read, then its error comes, and nothing more.
#[tokio::test(start_paused = true)]
async fn until_names_a_partition_that_ends_early() {
    let stage = Stage::with(EmbeddedBroker::builder().partitioned_topic("parts", 3), |builder| builder).await;
    let part = |number| format!("persistent://public/default/parts-partition-{number}");
    for number in 0..3 {
        confirmed(enqueue_numbers(&stage.producer(&part(number)).await, 0..10).await).await;
    }
    let mut reader = reader(&stage, "parts").await;
    let mut events = reader.events();
    let mut messages = within("the end to be known", reader.until(ReadUntil::Now)).await.expect("a stream");
    let faults = stage.broker.faults();
    faults.on(FaultEvent::Subscribe).on_topic(&part(1)).refuse_request(ServerCode::TOPIC_NOT_FOUND);
    faults.close_consumers(&part(1), None);
    let mut read = 0;
    let error = loop {
        match within("a message, or an error", messages.next()).await.expect("not the end") {
            Ok(_) => read += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), error.topic()), (ErrorKind::TopicNotFound, Some(&*part(1))), "{error}");
    assert!((20..30).contains(&read), "all of two partitions, and not all of the third: {read}");
    assert!(within("the end", messages.next()).await.is_none());
    drop(messages);
    let Some(ConsumerEvent::TopicEnded { topic, .. }) = within("an event", events.recv()).await else {
        panic!("an end is told")
    };
    assert_eq!(*topic, part(1));
    confirmed(enqueue_numbers(&stage.producer(&part(0)).await, 10..11).await).await;
    let message = within("a message", reader.read_next()).await.expect("the others go on");
    assert_eq!(message.to_string_lossy(), "10");
    drop(reader);
    stage.close_and_check().await;
}

/// A topic of a pattern ends for good, and joins again before the reader looks: it goes on behind what was read.
#[tokio::test(start_paused = true)]
async fn a_topic_that_joins_a_pattern_again_doubles_nothing() {
    let stage = Stage::new().await;
    confirmed(enqueue_numbers(&stage.producer(TOPIC).await, 0..10).await).await;
    let builder = stage.client.reader(Topics::pattern("persistent://public/default/t"), SeekTo::Earliest);
    let builder = builder.pattern_auto_discovery_period(Duration::from_secs(1));
    let mut reader = within("a reader", builder.create()).await.expect("a reader");
    let mut events = reader.events();
    for round in 0..3 {
        for number in round * 3..round * 3 + 3 {
            let message = within("a message", reader.read_next()).await.expect("a message");
            assert_eq!(message.to_string_lossy(), number.to_string(), "each once");
        }
        let faults = stage.broker.faults();
        faults.on(FaultEvent::Subscribe).on_topic(TOPIC).refuse_request(ServerCode::TOPIC_NOT_FOUND);
        faults.close_consumers(TOPIC, None);
        let added = within("an event", events.recv()).await;
        assert!(matches!(&added, Some(ConsumerEvent::TopicAdded { topic, .. }) if **topic == *TOPIC), "{added:?}");
    }
    let last = within("a message", reader.read_next()).await.expect("a message");
    assert_eq!(last.to_string_lossy(), "9");
    assert!(!within("an answer", reader.has_next()).await.expect("an answer"));
    drop(reader);
    stage.close_and_check().await;
}

/// It is refused when it is to join again, and the reader looks before it joins at last: nothing is doubled, and what
/// `has_next` had found is not lost, although the topic was sought before.
#[tokio::test(start_paused = true)]
async fn a_topic_that_joins_a_pattern_late_doubles_nothing() {
    let stage = Stage::new().await;
    confirmed(enqueue_numbers(&stage.producer(TOPIC).await, 0..12).await).await;
    let builder = stage.client.reader(Topics::pattern("persistent://public/default/t"), SeekTo::Latest);
    let builder = builder.pattern_auto_discovery_period(Duration::from_secs(1));
    let mut reader = within("a reader", builder.create()).await.expect("a reader");
    let mut events = reader.events();
    within("the seek", reader.seek(SeekTo::Earliest)).await.expect("moved");
    for round in 0..4 {
        for number in round * 3..round * 3 + 2 {
            let message = within("a message", reader.read_next()).await.expect("a message");
            assert_eq!(message.to_string_lossy(), number.to_string(), "each once");
        }
        let is_found = round % 2 == 0;
        if is_found {
            assert!(within("an answer", reader.has_next()).await.expect("an answer"));
        }
        let faults = stage.broker.faults();
        faults.on(FaultEvent::Subscribe).on_topic(TOPIC).times(2).refuse_request(ServerCode::TOPIC_NOT_FOUND);
        faults.close_consumers(TOPIC, None);
        let refused = within("an event", events.recv()).await;
        assert!(
            matches!(&refused, Some(ConsumerEvent::TopicNotAdded { topic, .. }) if **topic == *TOPIC),
            "{refused:?}"
        );
        let found = if is_found { reader.try_read_next().expect("not ended") } else { None };
        let looked = reader.try_read_next().expect("not ended");
        assert!(looked.is_none(), "{looked:?}: nothing is there");
        let message = match found {
            Some(found) => found,
            None => within("a message", reader.read_next()).await.expect("a message"),
        };
        assert_eq!(message.to_string_lossy(), (round * 3 + 2).to_string(), "of round {round}");
        let added = within("an event", events.recv()).await;
        assert!(matches!(&added, Some(ConsumerEvent::TopicAdded { topic, .. }) if **topic == *TOPIC), "{added:?}");
    }
    assert!(!within("an answer", reader.has_next()).await.expect("an answer"));
    drop(reader);
    stage.close_and_check().await;
}

/// Ends the topic of a pattern: as a part of the reader still, or until it has left and is refused once more.
async fn end(stage: &Stage, reader: &Reader, events: &mut ConsumerEvents, leaves: bool) {
    let faults = stage.broker.faults();
    let refusals = if leaves { 2 } else { 1 };
    faults.on(FaultEvent::Subscribe).on_topic(TOPIC).times(refusals).refuse_request(ServerCode::TOPIC_NOT_FOUND);
    faults.close_consumers(TOPIC, None);
    if leaves {
        let refused = within("an event", events.recv()).await;
        assert!(matches!(refused, Some(ConsumerEvent::TopicNotAdded { .. })), "{refused:?}");
    } else {
        until("the end of the topic", || reader.state(), |state| state.is_finished()).await;
    }
}

/// Stores messages with these numbers, each published at a time of its own.
async fn store(stage: &Stage, numbers: &[(&str, u64)]) {
    let mut entries: Vec<RawEntry<'_>> = Vec::new();
    for (number, publish_time) in numbers {
        entries.push((pb::MessageMetadata { publish_time: *publish_time, ..Default::default() }, number.as_bytes()));
    }
    within("the receipts", publish(stage.broker.connect(), None, TOPIC, &entries)).await;
}

/// A topic of a pattern has ended when the reader seeks: it begins at that position when it joins again.
#[tokio::test(start_paused = true)]
async fn a_topic_that_has_ended_is_sought_as_the_others() {
    for leaves in [false, true] {
        seeks_of_one_that_has_ended(leaves).await;
    }
}

async fn seeks_of_one_that_has_ended(leaves: bool) {
    let stage = Stage::new().await;
    store(&stage, &[("0", 1000), ("1", 2000), ("2", 3000), ("3", 4000), ("4", 5000), ("5", 6000)]).await;
    let builder = stage.client.reader(Topics::pattern("persistent://public/default/t"), SeekTo::Earliest);
    let builder = builder.pattern_auto_discovery_period(Duration::from_secs(1));
    let mut reader = within("a reader", builder.create()).await.expect("a reader");
    let mut events = reader.events();
    let (mut read, mut behind_two) = (Vec::new(), None);
    for number in 0..5 {
        read.push(within("a message", reader.read_next()).await.expect("a message"));
        if number == 2 {
            behind_two = Some(reader.checkpoint());
        }
    }
    let behind_two = behind_two.expect("it was read");
    for (to, expected) in [
        (Some(SeekTo::Earliest), "0"),
        (Some(SeekTo::PublishTime(read[4].publish_time())), "4"),
        (None, "3"),
        (Some(SeekTo::PublishTime(read[1].publish_time())), "1"),
        (Some(SeekTo::Latest), "6"),
    ] {
        end(&stage, &reader, &mut events, leaves).await;
        // The client derives the wall time from the paused clock for 50 ms, which would be ahead of the next reading.
        pass(Duration::from_millis(60)).await;
        match &to {
            Some(to) => within("the seek", reader.seek(to.clone())).await.expect("moved"),
            None => within("the seek", reader.seek_to_checkpoint(&behind_two)).await.expect("moved"),
        }
        if expected == "6" {
            store(&stage, &[("6", LATER_MS)]).await;
        }
        let added = within("an event", events.recv()).await;
        assert!(matches!(added, Some(ConsumerEvent::TopicAdded { .. })), "{added:?}");
        let what = format!("a message after {to:?}, it has left: {leaves}");
        let message = within(&what, reader.read_next()).await.expect("a message");
        assert_eq!(message.to_string_lossy(), expected, "{what}");
    }
    drop(reader);
    stage.close_and_check().await;
}
