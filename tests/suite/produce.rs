//! Sending: order, receipts, batches, metadata, and what fails alone.

use super::target::Feature;
use super::*;
use pulsar_native::Compression::{Lz4, Snappy, Zlib, Zstd};
use pulsar_native::TryEnqueueError;

/// A consumer that gets everything sent from now on.
async fn listener(client: &Client, topic: &str) -> Consumer {
    subscribed(client.consumer(topic, "listener")).await
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("message {number}")).collect()
}

pub async fn ids_grow(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("ids-grow");
    let producer = created(client.producer(&topic)).await;
    let mut consumer = listener(&client, &topic).await;
    let mut last = MessageId::EARLIEST;
    for text in numbered(5) {
        let id = send(&producer, text.as_str()).await;
        assert!(id > last, "{id} after {last}");
        let message = receive(&mut consumer).await;
        assert_eq!((message.to_string_lossy(), &message.id()), (text.as_str().into(), &id));
        assert_eq!((message.topic(), message.id().topic()), (topic.as_str(), Some(topic.as_str())));
        assert_eq!(id.partition(), None);
        last = id;
    }
}

pub async fn order_of_enqueue(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("order-of-enqueue");
    let producer = created(client.producer(&topic)).await;
    let mut consumer = listener(&client, &topic).await;
    let sent = numbered(3000);
    let ids = send_all(&producer, sent.iter().map(String::as_str)).await;
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "ids in the order of enqueue");
    let received = receive_all(&mut consumer, sent.len()).await;
    assert_eq!(received.iter().map(ReceivedMessage::to_string_lossy).collect::<Vec<_>>(), sent);
    assert_eq!(received.iter().map(ReceivedMessage::id).collect::<Vec<_>>(), ids);
}

pub async fn callbacks_come_once_and_in_order(target: &Target) {
    let client = target.client().await;
    let producer = created(client.producer(target.topic("callbacks"))).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    for number in 0..200 {
        let seen = seen.clone();
        let callback = move |outcome: Result<MessageId, _>| seen.lock().unwrap().push((number, outcome.is_ok()));
        within("capacity", producer.enqueue_with("x", callback)).await.expect("accepted");
    }
    within("the flush", producer.flush()).await.expect("a clean flush");
    let look = || async { seen.lock().unwrap().clone() };
    let seen = until("200 callbacks", look, |seen| seen.len() == 200).await;
    assert_eq!(seen, (0..200).map(|number| (number, true)).collect::<Vec<_>>());
}

pub async fn flush_waits_for_all(target: &Target) {
    let client = target.client().await;
    let producer = created(client.producer(target.topic("flush")).batching(false)).await;
    let settled = Arc::new(AtomicUsize::new(0));
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let pending = within("capacity", producer.enqueue("x")).await.expect("accepted");
        let settled = settled.clone();
        waiting.push(async move {
            pending.await.expect("stored");
            settled.fetch_add(1, Ordering::SeqCst);
        });
    }
    within("the flush", producer.flush()).await.expect("a clean flush");
    // Everything is settled by now: each of them is ready at its first poll.
    for one in waiting {
        let mut one = std::pin::pin!(one);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(one.as_mut().poll(&mut context).is_ready(), "the flush came before a receipt");
    }
    assert_eq!(settled.load(Ordering::SeqCst), 50);
    within("an empty flush", producer.flush()).await.expect("nothing to do");
}

pub async fn unbatched(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("unbatched");
    let producer = created(client.producer(&topic).batching(false)).await;
    let mut consumer = listener(&client, &topic).await;
    let ids = send_all(&producer, numbered(100).iter().map(String::as_str)).await;
    assert!(ids.iter().all(|id| id.batch_index().is_none()), "{ids:?}");
    let entries: BTreeSet<_> = ids.iter().map(|id| (id.ledger_id(), id.entry_id())).collect();
    assert_eq!(entries.len(), 100);
    assert_eq!(texts(&mut consumer, 100).await, numbered(100));
}

pub async fn batches_share_an_entry(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("batches");
    let builder = client.producer(&topic).batching_max_publish_delay(Duration::from_secs(5)).batching_max_messages(10);
    let producer = created(builder).await;
    let mut consumer = listener(&client, &topic).await;
    let ids = send_all(&producer, numbered(30).iter().map(String::as_str)).await;
    let entries: BTreeSet<_> = ids.iter().map(|id| (id.ledger_id(), id.entry_id())).collect();
    assert_eq!(entries.len(), 3, "{ids:?}");
    for (at, id) in (0..).zip(&ids) {
        assert_eq!((id.batch_index(), id.batch_size()), (Some(at % 10), Some(10)));
    }
    let received = receive_all(&mut consumer, 30).await;
    assert_eq!(received.iter().map(ReceivedMessage::id).collect::<Vec<_>>(), ids);
    assert!(received.iter().all(|message| message.id().batch_size() == Some(10)));
}

pub async fn kept_out_of_a_batch(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("kept-out");
    let builder = client.producer(&topic).batching_max_publish_delay(Duration::from_secs(20)).batching_max_messages(3);
    let producer = created(builder).await;
    let mut consumer = listener(&client, &topic).await;
    let alone = Message::new("alone").with_property("p", "v").with_batching(false);
    let messages =
        [Message::new("a"), Message::new("b"), alone, Message::new("c"), Message::new("d"), Message::new("e")];
    let ids = send_all(&producer, messages).await;
    let sizes: Vec<_> = ids.iter().map(MessageId::batch_size).collect();
    assert_eq!(sizes, [Some(2), Some(2), None, Some(3), Some(3), Some(3)], "{ids:?}");
    let received = receive_all(&mut consumer, 6).await;
    assert_eq!(received.iter().map(ReceivedMessage::id).collect::<Vec<_>>(), ids, "in the order of the calls");
    assert_eq!((received[2].to_string_lossy(), received[2].property("p")), ("alone".into(), Some("v")));
}

pub async fn linger_is_ended_by_flush(target: &Target) {
    let client = target.client().await;
    let producer = created(
        client.producer(target.topic("batching_max_publish_delay")).batching_max_publish_delay(Duration::from_secs(20)),
    )
    .await;
    let pending = within("capacity", producer.enqueue("early")).await.expect("accepted");
    let started = Instant::now();
    within("the flush", producer.flush()).await.expect("a clean flush");
    within("the receipt", pending).await.expect("stored");
    assert!(started.elapsed() < Duration::from_secs(15), "took {:?}", started.elapsed());
}

pub async fn each_codec(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("codecs");
    let mut consumer = listener(&client, &topic).await;
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let payloads = [vec![b'a'; 100_000], (0..50_000).map(|_| noise()).collect(), b"short".to_vec(), Vec::new()];
    for (codec, level) in [(Lz4, None), (Zlib, None), (Zlib, Some(9)), (Zstd, None), (Zstd, Some(19)), (Snappy, None)] {
        if !codec.is_built_in() {
            continue;
        }
        for batching in [true, false] {
            let builder = client.producer(&topic).compression(codec).compress_min_msg_body_size(0).batching(batching);
            let builder = match level {
                Some(level) => builder.compression_level(level),
                None => builder,
            };
            let producer = created(builder.batching_max_publish_delay(Duration::from_millis(50))).await;
            send_all(&producer, payloads.iter().cloned()).await;
            for payload in &payloads {
                let received = receive(&mut consumer).await;
                assert!(received.payload() == payload, "{codec:?} of level {level:?}, batching {batching}");
            }
            within("the close", producer.close()).await.expect("closed");
        }
    }
}

fn event_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)
}

fn decorated(text: &str) -> Message {
    Message::new(text.to_owned())
        .with_key("clé")
        .with_ordering_key(&b"\x00order\xff"[..])
        .with_event_time(event_time())
        .with_property("one", "1")
        .with_property("empty", "")
        .with_property("ünï", "çödé")
}

fn is_decorated(message: &ReceivedMessage, text: &str) {
    assert_eq!(message.to_string_lossy(), text);
    assert_eq!((message.key(), message.key_is_base64()), (Some("clé"), false));
    assert_eq!(message.ordering_key(), Some(&b"\x00order\xff"[..]));
    assert_eq!(message.event_time(), Some(event_time()));
    assert_eq!(message.property("ünï"), Some("çödé"));
    assert_eq!(message.property("absent"), None);
    let properties: Vec<_> = message.properties().collect();
    assert_eq!(properties, [("one", "1"), ("empty", ""), ("ünï", "çödé")]);
    assert_eq!(message.redelivery_count(), 0);
    assert!(!message.is_null());
    let published = message.publish_time();
    let age = SystemTime::now().duration_since(published).unwrap_or_else(|early| early.duration());
    assert!(age < Duration::from_secs(60), "published at {published:?}");
}

pub async fn metadata_alone(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("metadata-alone");
    let producer = created(client.producer(&topic).batching(false)).await;
    let mut consumer = listener(&client, &topic).await;
    send(&producer, decorated("alone")).await;
    let message = receive(&mut consumer).await;
    is_decorated(&message, "alone");
    is_decorated(&message.detach(), "alone");
    send(&producer, Message::new("bytes").with_key_bytes([0xff, 0xfe, 0xfd])).await;
    let message = receive(&mut consumer).await;
    assert_eq!((message.key(), message.key_is_base64()), (Some("//79"), true));
    assert_eq!(message.key_bytes().as_deref(), Some(&[0xff, 0xfe, 0xfd][..]));
    assert_eq!((message.ordering_key(), message.event_time(), message.properties().count()), (None, None, 0));
}

pub async fn metadata_in_a_batch(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("metadata-batch");
    let producer =
        created(client.producer(&topic).batching_max_publish_delay(Duration::from_secs(5)).batching_max_messages(3))
            .await;
    let mut consumer = listener(&client, &topic).await;
    send_all(&producer, [Message::new("plain"), decorated("first"), decorated("second")]).await;
    let messages = receive_all(&mut consumer, 3).await;
    assert_eq!(messages[0].id().batch_size(), Some(3));
    assert_eq!((messages[0].key(), messages[0].properties().count()), (None, 0));
    is_decorated(&messages[1], "first");
    is_decorated(&messages[2].detach(), "second");
}

pub async fn empty_and_null_are_different(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("empty-and-null");
    let mut consumer = listener(&client, &topic).await;
    for batching in [false, true] {
        let builder = client.producer(&topic).batching(batching).batching_max_publish_delay(Duration::from_secs(5));
        let producer = created(builder.batching_max_messages(3)).await;
        send_all(
            &producer,
            [Message::new(""), Message::new("gone").with_key("k").with_null_value(), Message::new("last")],
        )
        .await;
        let messages = receive_all(&mut consumer, 3).await;
        let shape = |message: &ReceivedMessage| (message.payload().len(), message.is_null());
        assert_eq!(messages.iter().map(shape).collect::<Vec<_>>(), [(0, false), (0, true), (4, false)]);
        assert_eq!(messages[1].key(), Some("k"));
    }
}

pub async fn oversize_fails_alone(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("oversize");
    let mut consumer = listener(&client, &topic).await;
    for batching in [true, false] {
        let producer = created(client.producer(&topic).batching(batching)).await;
        let before = within("capacity", producer.enqueue("before")).await.expect("accepted");
        let large = vec![0; 5 * 1024 * 1024 + 1];
        let refused = within("the refusal", producer.send(large)).await.expect_err("too large");
        assert_eq!(refused.error().kind(), ErrorKind::MessageTooLarge, "{refused}");
        assert!(!refused.may_be_stored(), "{refused}");
        assert!(refused.to_string().contains(&topic), "names the topic: {refused}");
        within("the receipt", before).await.expect("stored");
        send(&producer, "after").await;
        assert_eq!(texts(&mut consumer, 2).await, ["before", "after"]);
    }
}

pub async fn large_payloads(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("large");
    let mut consumer = listener(&client, &topic).await;
    let producer = created(client.producer(&topic)).await;
    let sizes = [16 * 1024 - 1, 16 * 1024, 64 * 1024, 1024 * 1024, 5 * 1024 * 1024 - 1024];
    let payload = |size: usize| (0..size).map(|at| (at * 31 % 251) as u8).collect::<Vec<_>>();
    send_all(&producer, sizes.map(payload)).await;
    for size in sizes {
        let message = receive(&mut consumer).await;
        assert!(message.payload() == payload(size), "{size} bytes came back as {}", message.payload().len());
    }
}

pub async fn sequence_ids(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("sequence-ids");
    let mut consumer = listener(&client, &topic).await;
    let producer = created(client.producer(&topic).initial_sequence_id(100)).await;
    for message in [Message::new("counted"), Message::new("chosen").with_sequence_id(500), Message::new("counted on")] {
        send(&producer, message).await;
    }
    let ids: Vec<_> = receive_all(&mut consumer, 3).await.iter().map(ReceivedMessage::sequence_id).collect();
    assert_eq!(ids, [101, 500, 501]);
    assert_eq!(producer.last_sequence_id(), Some(501));
}

pub async fn producer_names(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("producer-names");
    let mut consumer = listener(&client, &topic).await;
    let named = created(client.producer(&topic).name("by hand")).await;
    let unnamed = created(client.producer(&topic)).await;
    assert_eq!(named.name(), "by hand");
    assert!(!unnamed.name().is_empty() && unnamed.name() != "by hand");
    for producer in [&named, &unnamed] {
        send(producer, "x").await;
        assert_eq!(receive(&mut consumer).await.producer_name(), producer.name());
    }
    let taken = client.producer(&topic).name("by hand").create();
    let error = within("the refusal", taken).await.expect_err("the name is taken");
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(error.to_string().contains(&topic), "names the topic: {error}");
    within("the close", named.close()).await.expect("closed");
    created(client.producer(&topic).name("by hand")).await;
}

pub async fn resent_sequence_ids_are_stored_once(target: &Target) {
    let target = target.with(Feature::Deduplication).await;
    let client = target.client().await;
    let topic = target.topic("dedup");
    let mut consumer = listener(&client, &topic).await;
    let producer = created(client.producer(&topic).name("once")).await;
    let message = |id: u64| Message::new(format!("number {id}")).with_sequence_id(id);
    send_all(&producer, [message(1), message(2), message(3)]).await;
    let duplicate = send(&producer, message(2)).await;
    assert_eq!((duplicate.ledger_id(), duplicate.entry_id()), (None, None));
    send(&producer, message(4)).await;
    assert_eq!(texts(&mut consumer, 4).await, ["number 1", "number 2", "number 3", "number 4"]);
    within("the close", producer.close()).await.expect("closed");

    let again = created(client.producer(&topic).name("once")).await;
    assert_eq!(again.last_sequence_id(), Some(4), "the broker remembers");
    send(&again, message(3)).await;
    send(&again, "counted on").await;
    let message = receive(&mut consumer).await;
    assert_eq!((message.to_string_lossy(), message.sequence_id()), ("counted on".into(), 5));
}

pub async fn terminated_topic(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("terminated");
    let mut consumer = listener(&client, &topic).await;
    let producer = created(client.producer(&topic)).await;
    send(&producer, "the last").await;
    within("the termination", target.cluster().terminate(&topic)).await;
    let failed = within("the refusal", producer.send("too late")).await.expect_err("the topic has ended");
    assert_eq!(failed.error().kind(), ErrorKind::TopicTerminated, "{failed}");
    let error = within("the refusal", client.producer(&topic).create()).await.expect_err("the topic has ended");
    assert_eq!(error.kind(), ErrorKind::TopicTerminated, "{error}");
    assert!(error.to_string().contains(&topic), "names the topic: {error}");
    assert_eq!(texts(&mut consumer, 1).await, ["the last"]);
}

pub async fn full_queue_gives_the_message_back(target: &Target) {
    let client = target.client().await;
    let producer = created(client.producer(target.topic("full")).max_pending_messages(2)).await;
    let mut accepted = Vec::new();
    let returned = loop {
        match producer.try_enqueue(Message::new("payload").with_key("k")) {
            Ok(pending) => accepted.push(pending),
            Err(TryEnqueueError::Full { message, .. }) => break message,
            Err(error) => panic!("{error}"),
        }
        assert!(accepted.len() < 100_000, "two messages of room never ran out");
    };
    assert_eq!((returned.payload(), returned.key()), (&b"payload"[..], Some("k")));
    // Waiting for room instead works.
    accepted.push(within("capacity", producer.enqueue(*returned)).await.expect("accepted"));
    for pending in accepted {
        within("the receipt", pending).await.expect("stored");
    }
}

pub async fn many_tasks(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("many-tasks");
    let mut consumer = listener(&client, &topic).await;
    let producer = created(client.producer(&topic).max_pending_messages(50)).await;
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let producer = producer.clone();
            tokio::spawn(async move {
                for number in 0..100 {
                    let message = Message::new(number.to_string()).with_key(task.to_string());
                    drop(within("capacity", producer.enqueue(message)).await.expect("accepted"));
                }
                within("the flush", producer.flush()).await.expect("a clean flush");
            })
        })
        .collect();
    let mut by_task: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for message in receive_all(&mut consumer, 800).await {
        let number = message.to_string_lossy().parse().expect("a number");
        by_task.entry(message.key().expect("a key").to_owned()).or_default().push(number);
    }
    assert_eq!(by_task.len(), 8);
    assert!(by_task.values().all(|numbers| *numbers == (0..100).collect::<Vec<_>>()), "{by_task:?}");
    for task in tasks {
        task.await.expect("no panic");
    }
}

pub async fn delayed(target: &Target) {
    const DELAY: Duration = Duration::from_secs(2);
    let client = target.client().await;
    let topic = target.topic("delayed");
    let mut exclusive = listener(&client, &topic).await;
    let builder = client.consumer(&topic, "shared").subscription_type(SubscriptionType::Shared);
    let mut shared = subscribed(builder).await;
    let producer = created(client.producer(&topic)).await;
    let started = Instant::now();
    send(&producer, Message::new("later").with_deliver_after(DELAY)).await;
    send(&producer, "at once").await;
    assert_eq!(texts(&mut exclusive, 2).await, ["later", "at once"], "in order counts more");
    assert!(started.elapsed() < DELAY, "an exclusive consumer does not wait: {:?}", started.elapsed());
    assert_eq!(texts(&mut shared, 2).await, ["at once", "later"]);
    // The broker's clock may tick a little early.
    assert!(started.elapsed() > DELAY / 2, "came after {:?}", started.elapsed());
}
