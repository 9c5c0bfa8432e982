//! Messages in several chunks.

use std::time::SystemTime;

use pulsar_native::{
    Checkpoint, Compression, ConsumerEvent, ConsumerEvents, DeadLetterPolicy, IncompleteReason, ReadUntil, SeekTo,
    UnreadableMessage, UnreadableReason, pb,
};
use tokio::net::TcpStream;

use super::raw::{RawEntry, publish};
use super::relay::Relay;
use super::target::{Feature, Role};
use super::*;

const NACK_DELAY: Duration = Duration::from_millis(100);

/// Of the same length for each number, and with another content.
fn payload(number: usize, bytes: usize) -> Vec<u8> {
    let mut state = number as u32 * 2 + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

fn numbered(number: usize, bytes: usize) -> Message {
    Message::new(payload(number, bytes)).with_property("number", number.to_string()).with_key("k")
}

fn number_of(message: &ReceivedMessage) -> usize {
    message.property("number").and_then(|number| number.parse().ok()).expect("its number")
}

/// A producer whose chunks have 1,000 bytes.
async fn chunking(client: &Client, topic: &str) -> Producer {
    created(client.producer(topic).batching(false).chunking(true).chunk_max_message_size(1000)).await
}

fn builder(client: &Client, topic: &str, kind: SubscriptionType) -> ConsumerBuilder {
    let builder = client.consumer(topic, "s").subscription_type(kind).initial_position(InitialPosition::Earliest);
    builder.negative_ack_redelivery_delay(NACK_DELAY)
}

fn check(message: &ReceivedMessage, bytes: usize) {
    assert!(message.payload() == payload(number_of(message), bytes), "{message:?}");
    assert_eq!(message.key(), Some("k"));
}

/// Larger than the broker takes, by itself and among small ones, which go out in batches; for each kind of subscription.
pub async fn larger_than_the_broker_takes(target: &Target) {
    const LARGE: usize = 11_000_000;
    let client = target.client().await;
    let topic = target.topic("large");
    let producer = created(client.producer(&topic).chunking(true)).await;
    let kinds = [
        SubscriptionType::Exclusive,
        SubscriptionType::Shared,
        SubscriptionType::Failover,
        SubscriptionType::KeyShared,
    ];
    let mut consumers = Vec::new();
    for (at, kind) in kinds.into_iter().enumerate() {
        consumers.push(subscribed(client.consumer(&topic, format!("s{at}")).subscription_type(kind)).await);
    }
    let sent = send_all(&producer, [numbered(0, 10), numbered(1, LARGE), numbered(2, 10)]).await;
    assert!(sent[1].first_chunk().is_some_and(|first| first < sent[1]) && sent[0].first_chunk().is_none());
    for (at, consumer) in consumers.iter_mut().enumerate() {
        let messages = receive_all(consumer, 3).await;
        assert_eq!(messages.iter().map(number_of).collect::<Vec<_>>(), [0, 1, 2]);
        messages.iter().zip([10, LARGE, 10]).for_each(|(message, bytes)| check(message, bytes));
        assert_eq!(messages[1].id(), sent[1]);
        let first = |id: &MessageId| id.first_chunk().map(|first| (first.ledger_id(), first.entry_id()));
        assert_eq!(first(&messages[1].id()), first(&sent[1]));
        // By each way of acknowledging.
        match at {
            0 => consumer.ack_cumulative(&messages[2]).expect("acknowledged"),
            1 => consumer.ack_ids(&messages.iter().map(|message| message.id()).collect::<Vec<_>>()).expect("noted"),
            2 => messages.iter().for_each(|message| consumer.ack(message).expect("acknowledged")),
            _ => {
                for message in &messages {
                    target.confirm(consumer, message).await;
                }
            }
        }
        drained(target, &topic, &format!("s{at}")).await;
    }
}

pub async fn compressed_before_they_are_split(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("compressed");
    let mut consumer = subscribed(builder(&client, &topic, SubscriptionType::Shared).receiver_queue_size(0)).await;
    let producer = client.producer(&topic).batching(false).chunking(true).chunk_max_message_size(1000);
    let producer = created(producer.compression(Compression::Lz4)).await;
    // Half of it does not shrink.
    let mixed = [payload(7, 8000), vec![0; 8000]].concat();
    let id = send(&producer, mixed.clone()).await;
    let small = send(&producer, vec![0; 8000]).await;
    assert!(id.first_chunk().is_some() && small.first_chunk().is_none());
    // With a queue of zero each chunk is asked for.
    for expected in [mixed, vec![0; 8000]] {
        let message = receive(&mut consumer).await;
        assert!(message.payload() == expected);
        consumer.ack(&message).expect("acknowledged");
    }
    drained(target, &topic, "s").await;
}

/// Three producers at once, and two consumers that share what they send: each message comes whole, to one of them.
pub async fn those_of_several_producers_interleave(target: &Target) {
    const EACH: usize = 20;
    let client = target.client().await;
    let topic = target.topic("interleaved");
    let mut consumers = Vec::new();
    for _ in 0..2 {
        // With permits for all of it: once a consumer had none in the midst of a message, a broker at times reads no further,
        // although both have permits again.
        consumers.push(subscribed(builder(&client, &topic, SubscriptionType::Shared)).await);
    }
    let mut sending = Vec::new();
    for at in 0..3 {
        let producer = chunking(&client, &topic).await;
        sending.push(tokio::spawn(async move {
            for number in 0..EACH {
                send(&producer, numbered(at * EACH + number, 5500)).await;
            }
        }));
    }
    let (mut first, mut second) = (consumers.remove(0), consumers.remove(0));
    let mut numbers = BTreeSet::new();
    while numbers.len() < 3 * EACH {
        let (message, consumer) = tokio::select! {
            message = receive(&mut first) => (message, &first),
            message = receive(&mut second) => (message, &second),
        };
        check(&message, 5500);
        assert!(numbers.insert(number_of(&message)), "once each");
        consumer.ack(&message).expect("acknowledged");
    }
    for sending in sending {
        within("the producer", sending).await.expect("no panic");
    }
    drained(target, &topic, "s").await;
}

/// All its chunks come again, and it does as a whole; at last it is a dead letter as a whole.
pub async fn comes_again_and_is_given_up_as_one(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("again");
    let producer = chunking(&client, &topic).await;
    let policy = DeadLetterPolicy::new(2).with_initial_subscription("operators");
    let mut consumer = subscribed(builder(&client, &topic, SubscriptionType::Shared).dead_letter_policy(policy)).await;
    let sent = send_all(&producer, [numbered(0, 3500), numbered(1, 3500)]).await;
    let mut deliveries = 0;
    while deliveries < 3 {
        let message = receive(&mut consumer).await;
        check(&message, 3500);
        if number_of(&message) == 0 {
            assert_eq!((message.redelivery_count(), message.id()), (deliveries, sent[0].clone()));
            deliveries += 1;
            consumer.nack(&message).expect("noted");
        } else {
            consumer.ack(&message).expect("acknowledged");
        }
    }
    let letters = client.consumer(format!("{topic}-s-DLQ"), "operators");
    let mut letters = subscribed(letters.initial_position(InitialPosition::Earliest)).await;
    let letter = tokio::select! {
        letter = receive(&mut letters) => letter,
        message = consumer.receive() => panic!("{message:?}"),
    };
    check(&letter, 3500);
    assert_eq!(letter.property("ORIGIN_MESSAGE_ID"), Some(sent[0].to_string().as_str()));
    drained(target, &topic, "s").await;
}

pub async fn sought_by_their_first_chunk(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("sought");
    let producer = chunking(&client, &topic).await;
    let mut consumer = subscribed(builder(&client, &topic, SubscriptionType::Exclusive)).await;
    let sent = send_all(&producer, (0..3).map(|number| numbered(number, 3500))).await;
    receive_all(&mut consumer, 3).await;
    for (inclusive, expected) in [(true, vec![1, 2]), (false, vec![2])] {
        // As the id is kept by an application.
        let id = MessageId::from_bytes(&sent[1].to_bytes()).expect("an id");
        within("the seek", consumer.seek(SeekTo::Message { id, inclusive })).await.expect("sought");
        let messages = receive_all(&mut consumer, expected.len()).await;
        assert_eq!(messages.iter().map(number_of).collect::<Vec<_>>(), expected);
        messages.iter().for_each(|message| check(message, 3500));
    }
}

/// A reader that starts at a chunked message, inclusive or not, reads each message once, whether the chunks arrive together or one
/// by one; so does a reader that starts from its checkpoint.
pub async fn a_reader_begins_behind_one(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("begun-behind");
    let producer = chunking(&client, &topic).await;
    let sent = send_all(&producer, (0..3).map(|number| numbered(number, 3500))).await;
    for (queue_size, inclusive) in [(1, true), (1, false), (1000, true), (1000, false)] {
        let start = SeekTo::Message { id: sent[1].clone(), inclusive };
        let builder = || client.reader(&topic, start.clone()).receiver_queue_size(queue_size);
        let mut expected: Vec<_> = (if inclusive { 1 } else { 2 }..3).collect();
        let mut reader = within("a reader", builder().create()).await.expect("a reader");
        let mut read = Vec::new();
        while within("an answer", reader.has_next()).await.expect("an answer") {
            let kept = reader.checkpoint();
            let mut other = within("a reader", client.reader(&topic, &kept).create()).await.expect("a reader");
            let next = within("a message", other.read_next()).await.expect("a message");
            assert_eq!(number_of(&next), expected[read.len()], "behind {kept}, queue of {queue_size}");
            read.push(number_of(&within("a message", reader.read_next()).await.expect("a message")));
        }
        assert_eq!(read, expected, "queue of {queue_size}, inclusive {inclusive}");
        let mut ending = within("a reader", builder().create()).await.expect("a reader");
        let mut messages = within("the end", ending.until(ReadUntil::Now)).await.expect("a stream");
        while let Some(message) = within("a message", messages.next()).await {
            assert_eq!(number_of(&message.expect("a message")), expected.remove(0));
        }
        assert!(expected.is_empty(), "{expected:?} of a queue of {queue_size}");
    }
}

/// Chunks that were stored and whose receipts were lost are sent again: no message is lost, none comes cut or in the wrong
/// order, and none of the copies stays in the backlog.
pub async fn sent_again_after_a_connection_was_cut(target: &Target) {
    const COUNT: usize = 60;
    for deduplication in [false, true] {
        let features: &[Feature] = if deduplication { &[Feature::Deduplication] } else { &[] };
        let target = match features {
            [feature] => &target.with(*feature).await,
            _ => target,
        };
        let relay = Relay::to(target).await;
        let client = relay.client(target, Duration::from_secs(30)).await;
        let topic = target.topic("cut");
        let mut consumer = subscribed(builder(&client, &topic, SubscriptionType::Exclusive)).await;
        let producer = chunking(&client, &topic).await;
        let sending = tokio::spawn(async move {
            for number in 0..COUNT {
                drop(within("capacity", producer.enqueue(numbered(number, 9500))).await.expect("accepted"));
                tokio::task::yield_now().await;
            }
            within("the flush", producer.flush()).await.expect("nothing failed");
        });
        let (mut next, mut cuts) = (0, 0);
        while next < COUNT {
            let message = receive(&mut consumer).await;
            check(&message, 9500);
            let number = number_of(&message);
            assert!(number <= next, "{next} is missing before {number}");
            next = next.max(number + 1);
            consumer.ack(&message).expect("acknowledged");
            if next > (cuts + 1) * 15 {
                relay.cut();
                cuts += 1;
            }
        }
        within("the sender", sending).await.expect("no panic");
        let late = tokio::spawn(async move {
            while let Ok(message) = consumer.receive().await {
                consumer.ack(&message).expect("acknowledged");
            }
        });
        drained(target, &topic, "s").await;
        late.abort();
    }
}

/// A consumer that goes in the midst of a message leaves it to another one. On a Shared subscription Pulsar keeps the
/// message for the one that is gone, until the topic is loaded anew.
pub async fn a_consumer_goes_in_the_midst_of_one(target: &Target) {
    let client = target.client().await;
    for kind in [SubscriptionType::Exclusive, SubscriptionType::Failover, SubscriptionType::Shared] {
        let topic = target.topic("midst");
        let producer = chunking(&client, &topic).await;
        // Two of its permits: the message has four chunks.
        let first = subscribed(builder(&client, &topic, kind).receiver_queue_size(2)).await;
        send(&producer, numbered(0, 3500)).await;
        until("the first chunks", || std::future::ready(first.stats()), |stats| stats.received_entries >= 2).await;
        within("the close", first.close()).await.expect("closed");
        let mut second = subscribed(builder(&client, &topic, kind)).await;
        if kind == SubscriptionType::Shared {
            target.unload(&topic).await;
        }
        let message = receive(&mut second).await;
        check(&message, 3500);
        second.ack(&message).expect("acknowledged");
        drained(target, &topic, "s").await;
    }
}

fn chunk(uuid: &str, id: i32, of: i32, total: i32) -> pb::MessageMetadata {
    let (num_chunks_from_msg, total_chunk_msg_size) = (Some(of), Some(total));
    let (uuid, partition_key) = (Some(uuid.to_owned()), Some("k".to_owned()));
    let metadata = pb::MessageMetadata { uuid, partition_key, chunk_id: Some(id), ..Default::default() };
    pb::MessageMetadata { num_chunks_from_msg, total_chunk_msg_size, ..metadata }
}

async fn store(target: &Target, topic: &str, entries: &[RawEntry<'_>]) {
    let stream = within("a connection", TcpStream::connect(target.broker_address())).await.expect("a connection");
    let token = Some(target.cluster().token(Role::Admin));
    within("the receipts", publish(stream, token, topic, entries)).await;
}

/// Those that are reported while nothing is received: of which message, how many chunks of it, and why.
async fn incomplete(
    consumer: &mut Consumer,
    events: &mut ConsumerEvents,
    count: usize,
    acknowledge: bool,
) -> Vec<(String, usize, IncompleteReason)> {
    let mut found = Vec::new();
    let mut waiting = Box::pin(consumer.receive());
    while found.len() < count {
        let event = tokio::select! {
            event = within("an event", events.recv()) => event,
            message = &mut waiting => panic!("{message:?}"),
        };
        let Some(ConsumerEvent::IncompleteChunkedMessage { uuid, received_chunks, reason, acknowledged, .. }) = event
        else {
            panic!("{event:?}")
        };
        assert_eq!(acknowledged, acknowledge);
        found.push((uuid.to_string(), received_chunks, reason));
    }
    found
}

/// What is whole takes less to arrive, on a busy machine too.
const EXPIRY: Duration = Duration::from_millis(1500);

/// A gap, a message without its beginning, one without its end: reported, counted, and then acknowledged or not, as the
/// application has chosen. What is whole comes all the same, and permits do not run out. (On Shared, a broker itself
/// acknowledges chunks that have no beginning.)
pub async fn incomplete_ones_are_dropped(target: &Target) {
    for (kind, acknowledge) in [
        (SubscriptionType::Exclusive, false),
        (SubscriptionType::KeyShared, true),
        (SubscriptionType::KeyShared, false),
    ] {
        let client = target.client().await;
        let topic = target.topic("incomplete");
        let builder = builder(&client, &topic, kind).receiver_queue_size(2);
        let builder = builder.auto_ack_incomplete_chunked_messages(acknowledge);
        let builder = builder.expire_time_of_incomplete_chunked_message(EXPIRY);
        let mut consumer = subscribed(builder.negative_ack_redelivery_delay(Duration::from_secs(60))).await;
        let mut events = consumer.events();
        let entries: Vec<RawEntry<'_>> = vec![
            (chunk("gap", 0, 3, 3), b"0"),
            (chunk("whole", 0, 2, 2), b"0"),
            (chunk("gap", 2, 3, 3), b"2"),
            (chunk("headless", 1, 2, 2), b"1"),
            (chunk("whole", 1, 2, 2), b"1"),
            (chunk("endless", 0, 2, 2), b"0"),
        ];
        store(target, &topic, &entries).await;
        let message = receive(&mut consumer).await;
        assert_eq!(message.to_string_lossy(), "01");
        consumer.ack(&message).expect("acknowledged");
        let found = incomplete(&mut consumer, &mut events, 4, acknowledge).await;
        let expected = [
            ("gap", 1, IncompleteReason::Missing),
            ("gap", 1, IncompleteReason::Missing),
            ("headless", 1, IncompleteReason::Missing),
            ("endless", 1, IncompleteReason::Expired),
        ];
        assert_eq!(found, expected.map(|(uuid, chunks, reason)| (uuid.to_owned(), chunks, reason)));
        assert_eq!(consumer.stats().incomplete_chunked_messages, 4);
        if acknowledge {
            drained(target, &topic, "s").await;
        } else {
            let look = || target.subscription(&topic, "s");
            until("the acknowledgements", look, |seen| seen.backlog == 4).await;
        }
    }
}

/// What is missing may come yet: another consumer has it, or it was negatively acknowledged by itself. Until then no chunk
/// of the message is acknowledged.
pub async fn young_ones_with_a_gap_stay(target: &Target) {
    for kind in [SubscriptionType::Exclusive, SubscriptionType::KeyShared] {
        let client = target.client().await;
        let topic = target.topic("young");
        let builder = builder(&client, &topic, kind).auto_ack_incomplete_chunked_messages(true);
        let mut consumer = subscribed(builder.negative_ack_redelivery_delay(Duration::from_secs(60))).await;
        let mut events = consumer.events();
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock that is right");
        let publish_time = u64::try_from(since_epoch.as_millis()).expect("a clock that is right");
        let young = |id| pb::MessageMetadata { publish_time, ..chunk("gap", id, 3, 3) };
        store(target, &topic, &[(young(0), b"0"), (young(2), b"2")]).await;
        let found = incomplete(&mut consumer, &mut events, 2, false).await;
        assert!(found.iter().all(|(uuid, chunks, reason)| {
            (uuid.as_str(), *chunks, *reason) == ("gap", 1, IncompleteReason::Missing)
        }));
        within("the close", consumer.close()).await.expect("closed");
        let look = || target.subscription(&topic, "s");
        until("nothing is acknowledged", look, |seen| seen.backlog == 2).await;
    }
}

/// What is left of a message whose producer died counts as read: nothing of it is ever given.
pub async fn a_reader_passes_an_incomplete_one(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("passed");
    store(target, &topic, &[(pb::MessageMetadata::default(), b"whole"), (chunk("endless", 0, 2, 2), b"0")]).await;
    let mut reader = within("the reader", client.reader(&topic, SeekTo::Earliest).create()).await.expect("created");
    assert!(within("an answer", reader.has_next()).await.expect("an answer"));
    let message = within("a message", reader.read_next()).await.expect("a message");
    assert_eq!(message.to_string_lossy(), "whole");
    while within("an answer", reader.has_next()).await.expect("an answer") {
        // The chunk is on its way: nothing comes of it.
        let came = tokio::time::timeout(Duration::from_millis(100), reader.read_next()).await;
        assert!(came.is_err(), "{came:?}");
    }
    let checkpoint = reader.checkpoint();
    let read = checkpoint.position(reader.topics().next().expect("one")).expect("a position");
    assert_eq!(
        read.first_chunk().map(|first| first.entry_id()),
        Some(Some(1)),
        "what comes of it begins there: {checkpoint}"
    );
}

/// A reader is stopped while two messages are not complete, one within the other, and after each of them: what goes on at the
/// checkpoint reads each of them once and whole, and what lies between their chunks not again.
pub async fn checkpoints_within_messages(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("within");
    let single = pb::MessageMetadata::default;
    store(target, &topic, &[(single(), b"before"), (chunk("a", 0, 2, 2), b"a"), (single(), b"between")]).await;
    let mut checkpoint = Checkpoint::new();
    let mut read = Vec::new();
    let later: [&[RawEntry<'_>]; 5] = [
        &[(chunk("b", 0, 3, 3), b"b"), (single(), b"more")],
        &[(chunk("b", 1, 3, 3), b"b")],
        &[(chunk("a", 1, 2, 2), b"a"), (single(), b"behind a")],
        &[(chunk("b", 2, 3, 3), b"b"), (single(), b"behind b")],
        &[],
    ];
    for (stop, entries) in later.into_iter().enumerate() {
        let mut reader = within("a reader", client.reader(&topic, &checkpoint).create()).await.expect("created");
        if stop % 2 == 1 {
            target.unload(&topic).await;
        }
        let mut messages = within("the end to be known", reader.until(ReadUntil::Now)).await.expect("a stream");
        while let Some(message) = within("a message, or the end", messages.next()).await {
            read.push(message.expect("a message").to_string_lossy().into_owned());
        }
        drop(messages);
        let open = match stop {
            0..=2 => Some(Some(1)),
            3 => Some(Some(3)),
            _ => None,
        };
        let now = reader.checkpoint();
        let first_chunk = now.position(&topic).expect("a position").first_chunk();
        assert_eq!(first_chunk.map(|first| first.entry_id()), open, "stop {stop}: {now}");
        assert!(checkpoint <= now, "{checkpoint} and {now}");
        checkpoint = match stop % 2 {
            0 => Checkpoint::from_bytes(&now.to_bytes()).expect("bytes"),
            _ => now.to_string().parse().expect("a text"),
        };
        within("the close", reader.close()).await.expect("closed");
        if !entries.is_empty() {
            store(target, &topic, entries).await;
        }
    }
    assert_eq!(read, ["before", "between", "more", "aa", "behind a", "bbb", "behind b"]);
}

/// Of the messages that are not complete one is too large, the older one is dropped for the younger one, and that once its
/// time is over: each is told.
pub async fn limits_of_a_reader(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("reader-limits");
    let entries: Vec<RawEntry<'_>> = vec![
        (chunk("older", 0, 2, 2), b"0"),
        (chunk("large", 0, 2, 9000), b"0"),
        (chunk("endless", 0, 2, 2), b"0"),
        (pb::MessageMetadata::default(), b"whole"),
    ];
    store(target, &topic, &entries).await;
    let builder = client.reader(&topic, SeekTo::Earliest).max_pending_chunked_messages(1);
    let builder = builder.max_chunked_message_size(8000).max_pending_chunked_bytes(8000);
    let builder = builder.expire_time_of_incomplete_chunked_message(EXPIRY);
    let mut reader = within("a reader", builder.create()).await.expect("created");
    let mut events = reader.events();
    let message = within("a message", reader.read_next()).await.expect("a message");
    assert_eq!(message.to_string_lossy(), "whole");
    let is_too_large = |message: &UnreadableMessage| {
        matches!(
            message.reason(),
            UnreadableReason::ChunkedMessageTooLarge { total_bytes: 9000, limit_bytes: 8000, .. }
        )
    };
    let told = async {
        let mut told = BTreeSet::new();
        let mut waiting = Box::pin(reader.read_next());
        while told.len() < 3 {
            let event = tokio::select! {
                event = within("an event", events.recv()) => event,
                message = &mut waiting => panic!("{message:?}"),
            };
            told.insert(match event {
                Some(ConsumerEvent::IncompleteChunkedMessage { uuid, .. }) => uuid.to_string(),
                Some(ConsumerEvent::Unreadable(message)) if is_too_large(&message) => "large".to_owned(),
                other => format!("{other:?}"),
            });
        }
        told
    };
    assert_eq!(told.await, BTreeSet::from(["endless", "large", "older"].map(str::to_owned)));
}

pub async fn options_that_cannot_work(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("refused");
    let non_persistent = topic.replace("persistent://", "non-persistent://");
    let refusals = [
        (client.producer(&non_persistent).chunking(true), "chunking"),
        (client.producer(&topic).chunking(true).chunk_max_message_size(10), "chunk_max_message_size"),
        (client.producer(&topic).batching(false).chunk_max_message_size(10), "chunk_max_message_size"),
    ];
    for (builder, option) in refusals {
        let error = within("the refusal", builder.create()).await.expect_err(option);
        assert!(error.kind() == ErrorKind::InvalidArgument && error.to_string().contains(option), "{error}");
    }
    let consumer = || client.consumer(&topic, "s");
    let refusals = [
        (consumer().max_chunked_message_size(0), "max_chunked_message_size"),
        (consumer().max_pending_chunked_messages(1001), "max_pending_chunked_messages"),
        (consumer().max_pending_chunked_bytes(0), "max_pending_chunked_bytes"),
    ];
    for (builder, option) in refusals {
        let error = within("the refusal", builder.subscribe()).await.expect_err(option);
        assert!(error.kind() == ErrorKind::InvalidArgument && error.to_string().contains(option), "{error}");
    }
}
