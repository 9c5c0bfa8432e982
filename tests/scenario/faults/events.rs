//! What a consumer says besides messages, and that messages go on whatever that is.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{BufMut as _, BytesMut};
use futures_core::Stream as _;
use prost::Message as _;
use pulsar_native::hash::java_string_hash;
use pulsar_native::pb;
use pulsar_native::wire::{Command, Frame, Limits, SendHead, cut, frames, put_send_head};
use pulsar_native::{ConsumerEvent, ConsumerEvents, Outcome, UnreadableMessage, UnreadableReason};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::support::*;

/// A way to receive messages.
#[derive(Debug, Clone, Copy)]
enum Form {
    Receive,
    TryReceive,
    ReceiveMany,
    Stream,
    Process,
    ProcessByKey,
}

impl Form {
    const ALL: [Self; 6] =
        [Self::Receive, Self::TryReceive, Self::ReceiveMany, Self::Stream, Self::Process, Self::ProcessByKey];

    /// Receives and acknowledges until the consumer ends, and returns why.
    async fn run(self, mut consumer: Consumer, texts: mpsc::UnboundedSender<String>) -> Error {
        let acker = consumer.acker();
        let noted = texts.clone();
        let note = move |message: &ReceivedMessage| {
            noted.send(message.to_string_lossy().into_owned()).expect("the test listens");
        };
        let done = |message: ReceivedMessage| {
            note(&message);
            acker.ack(&message).expect("acknowledged");
        };
        match self {
            Self::Receive => loop {
                match consumer.receive().await {
                    Ok(message) => done(message),
                    Err(end) => return end,
                }
            },
            Self::TryReceive => loop {
                match consumer.try_receive() {
                    Ok(Some(message)) => done(message),
                    Ok(None) => pass(Duration::from_millis(1)).await,
                    Err(end) => return end,
                }
            },
            Self::ReceiveMany => loop {
                match consumer.receive_many(7).await {
                    Ok(messages) => messages.into_iter().for_each(done),
                    Err(end) => return end,
                }
            },
            Self::Stream => {
                let mut end = None;
                while let Some(item) = poll_fn(|cx| Pin::new(&mut consumer).poll_next(cx)).await {
                    assert!(end.is_none(), "the end is the last item");
                    match item {
                        Ok(message) => done(message),
                        Err(error) => end = Some(error),
                    }
                }
                end.expect("the end is an item")
            }
            Self::Process => {
                let work = |message| {
                    note(&message);
                    async {}
                };
                consumer.process(3, work).await.expect_err("it goes on until the consumer ends")
            }
            Self::ProcessByKey => {
                let work = move |message| {
                    note(&message);
                    async { Ok::<_, Error>(Outcome::Ack) }
                };
                consumer.process_by_key(3, work).await.expect_err("it goes on until the consumer ends")
            }
        }
    }
}

/// The broker ends the topic's consumers for good: they are closed, and refused when they come back.
fn end_consumers(stage: &Stage, topic: &str) {
    stage.broker.faults().on(FaultEvent::Subscribe).on_topic(topic).refuse_request(ServerCode::TOPIC_NOT_FOUND);
    stage.broker.faults().close_consumers(topic, None);
}

async fn ended(events: &mut ConsumerEvents) -> (String, ErrorKind) {
    match within("an event", events.recv()).await {
        Some(ConsumerEvent::TopicEnded { topic, error, .. }) => (topic, error.kind()),
        other => panic!("not the end of a part: {other:?}"),
    }
}

async fn unreadable(events: &mut ConsumerEvents) -> UnreadableMessage {
    match within("an event", events.recv()).await {
        Some(ConsumerEvent::Unreadable(message)) => message,
        other => panic!("not an unreadable message: {other:?}"),
    }
}

/// Sends numbers to each topic and waits until all have been received.
async fn exchange(stage: &Stage, topics: &[String], texts: &mut mpsc::UnboundedReceiver<String>) {
    let mut expected = Vec::new();
    for topic in topics {
        let producer = stage.producer(topic).await;
        confirmed(enqueue_numbers(&producer, 0..10).await).await;
        expected.extend(numbers(0..10));
    }
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        seen.push(within("a message", texts.recv()).await.expect("it receives"));
    }
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected);
}

/// In every form of receiving: one event for the part that ended, the others go on, the last end is the whole's.
#[tokio::test(start_paused = true)]
async fn one_part_ends_and_the_others_continue() {
    for form in Form::ALL {
        for partitioned in [false, true] {
            let broker = EmbeddedBroker::builder().partitioned_topic("parts", 3);
            let stage = Stage::with(broker, |builder| builder).await;
            let topic = |number| match partitioned {
                true => format!("persistent://public/default/parts-partition-{number}"),
                false => format!("persistent://public/default/t{number}"),
            };
            let topics: Vec<_> = (0..3).map(topic).collect();
            let builder = match partitioned {
                true => stage.client.consumer("parts", "s"),
                false => stage.client.consumer(&topics[..], "s"),
            };
            let consumer = within("a consumer", builder.subscribe()).await.expect("a consumer");
            let mut events = consumer.events();
            let (sender, mut texts) = mpsc::unbounded_channel();
            let receiving = spawn(form.run(consumer, sender));
            exchange(&stage, &topics, &mut texts).await;

            end_consumers(&stage, &topics[1]);
            assert_eq!(ended(&mut events).await, (topics[1].clone(), ErrorKind::TopicNotFound), "{form:?}");
            exchange(&stage, &[topics[0].clone(), topics[2].clone()], &mut texts).await;
            assert!(events.try_recv().is_none(), "{form:?}: the end is reported once");

            end_consumers(&stage, &topics[2]);
            assert_eq!(ended(&mut events).await.0, topics[2], "{form:?}");
            exchange(&stage, &topics[..1], &mut texts).await;
            assert!(!receiving.is_finished(), "{form:?}");

            end_consumers(&stage, &topics[0]);
            assert_eq!(ended(&mut events).await.0, topics[0], "{form:?}");
            let end = within("the end", receiving).await.expect("no panic");
            assert_eq!((end.kind(), end.topic()), (ErrorKind::TopicNotFound, Some(&*topics[0])), "{form:?}: {end}");
            assert!(within("the end", events.recv()).await.is_none(), "{form:?}: no event after the end");
            stage.close_and_check().await;
        }
    }
}

/// A close is no news to the application that asked for it, of the consumer or of the whole client.
#[tokio::test(start_paused = true)]
async fn a_close_gives_no_events() {
    for whole_client in [false, true] {
        let stage = Stage::new().await;
        let builder = stage.client.consumer(["a", "b"], "s");
        let mut consumer = within("a consumer", builder.subscribe()).await.expect("a consumer");
        let mut events = consumer.events();
        if whole_client {
            within("the close", stage.client.close()).await.expect("closed");
        } else {
            within("the close", consumer.close()).await.expect("closed");
            within("a second close", consumer.close()).await.expect("closed already");
        }
        failed(within("the end", consumer.receive()).await, ErrorKind::Closed);
        failed(within("the end", consumer.receive()).await, ErrorKind::Closed);
        assert!(within("the end", events.recv()).await.is_none());
        if !whole_client {
            stage.close_and_check().await;
        }
    }
}

/// A dropped consumer ends its events, though an acker keeps it open at the broker.
#[tokio::test(start_paused = true)]
async fn events_end_with_the_consumer_that_finds_them() {
    let stage = Stage::new().await;
    let consumer = stage.consumer(TOPIC).await;
    let (mut events, acker) = (consumer.events(), consumer.acker());
    let reading = spawn(async move { events.recv().await.is_none() });
    drop(consumer);
    assert!(within("the end", reading).await.expect("no panic"));
    assert_eq!(stage.attached(TOPIC), (0, 1));
    drop(acker);
    stage.close_and_check().await;
}

/// Sends to a partition that has ended fail, and no others do; a flush says so once.
#[tokio::test(start_paused = true)]
async fn one_partition_of_a_producer_ends_and_the_others_continue() {
    let broker = EmbeddedBroker::builder().partitioned_topic("parts", 3);
    let stage = Stage::with(broker, |builder| builder).await;
    let producer = stage.producer("parts").await;
    let key_of = |partition| (0..).map(|number| number.to_string()).find(|key| java_string_hash(key) % 3 == partition);
    let keys: Vec<_> = (0..3).map(|partition| key_of(partition).expect("a key")).collect();
    let message = |partition: usize| Message::new("x").with_key(&keys[partition]);
    let end = |partition: usize| {
        let topic = format!("persistent://public/default/parts-partition-{partition}");
        stage.broker.faults().on(FaultEvent::Producer).on_topic(&topic).refuse_request(ServerCode::TOPIC_NOT_FOUND);
        stage.broker.faults().close_producers(&topic, None);
    };
    end(1);
    until("the end", || producer.is_connected(), |connected| !connected).await;
    let refused = within("the refusal", producer.send(message(1))).await.expect_err("it has ended");
    assert_eq!(refused.error().kind(), ErrorKind::TopicNotFound, "{refused}");
    for partition in [0, 2, 0, 2] {
        send(&producer, message(partition)).await;
    }
    failed(within("the flush", producer.flush()).await, ErrorKind::TopicNotFound);
    for _ in 0..2 {
        let pending = enqueue(&producer, message(0)).await;
        within("the flush", producer.flush()).await.expect("nothing failed since");
        confirmed(vec![pending]).await;
    }
    for partition in [0, 2] {
        end(partition);
        let refused = within("the refusal", producer.send(message(partition))).await.expect_err("it has ended");
        assert_eq!(refused.error().kind(), ErrorKind::TopicNotFound, "{refused}");
    }
    for _ in 0..2 {
        failed(within("the flush", producer.flush()).await, ErrorKind::TopicNotFound);
    }
    within("the close", producer.close()).await.expect("it is over already");
    drop(producer);
    stage.close_and_check().await;
}

/// A connection that says what it is told to.
struct Raw {
    stream: tokio::io::DuplexStream,
    rx: BytesMut,
}

impl Raw {
    /// Writes, and reads until so many frames have come.
    async fn exchange(&mut self, out: &[u8], frames_wanted: usize) {
        let exchanging = async {
            self.stream.write_all(out).await.expect("the broker reads");
            let mut seen = 0;
            while seen < frames_wanted {
                let read = self.stream.read_buf(&mut self.rx).await.expect("the broker writes");
                assert!(read > 0, "the broker closed the connection");
                let Some(run) = cut(&mut self.rx, &Limits::default()).expect("sound lengths") else { continue };
                seen += frames(run).filter(|frame| !matches!(frame, Ok(Frame::Other(Command::Ping(_))))).count();
            }
        };
        within("the answers", exchanging).await;
    }

    async fn ask(&mut self, command: impl Into<Command>) {
        let mut out = BytesMut::new();
        command.into().encode_frame(&mut out);
        self.exchange(&out, 1).await;
    }
}

/// Stores entries as they are given, which the client's own producer would never make.
async fn publish_raw(broker: &EmbeddedBroker, entries: &[(pb::MessageMetadata, &[u8])]) {
    let mut raw = Raw { stream: broker.connect(), rx: BytesMut::new() };
    let protocol_version = Some(21);
    raw.ask(pb::CommandConnect { client_version: "raw".into(), protocol_version, ..Default::default() }).await;
    raw.ask(pb::CommandLookupTopic { topic: TOPIC.into(), request_id: 1, ..Default::default() }).await;
    let (topic, producer_name) = (TOPIC.into(), Some("raw".into()));
    raw.ask(pb::CommandProducer { topic, producer_id: 1, request_id: 2, producer_name, ..Default::default() }).await;
    let mut out = BytesMut::new();
    for (number, (metadata, payload)) in entries.iter().enumerate() {
        let sequence_id = number as u64;
        let metadata = pb::MessageMetadata {
            producer_name: "raw".into(),
            sequence_id,
            publish_time: 1_700_000_000_000,
            ..metadata.clone()
        };
        let mut entry = BytesMut::new();
        entry.put_u32(metadata.encoded_len() as u32);
        entry.put_slice(&metadata.encode_to_vec());
        entry.put_slice(payload);
        let is_chunk = metadata.num_chunks_from_msg.is_some();
        let num_messages = metadata.num_messages_in_batch.unwrap_or(1);
        put_send_head(&mut out, &SendHead { is_chunk, num_messages, ..SendHead::new(1, sequence_id) }, entry.len());
        out.extend_from_slice(&entry);
    }
    raw.exchange(&out, entries.len()).await;
}

fn plain() -> pb::MessageMetadata {
    pb::MessageMetadata::default()
}

/// Each kind of message that cannot be read is reported with all there is to know of it and stays unacknowledged; those
/// around it come, in every form of receiving. The application settles it by an acknowledgement.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_reported_and_the_rest_comes() {
    let encryption_keys =
        vec![pb::EncryptionKeys { key: "k".into(), value: b"secret"[..].into(), ..Default::default() }];
    let kinds = [
        (UnreadableReason::Encrypted, pb::MessageMetadata { encryption_keys, ..plain() }),
        (UnreadableReason::Chunk, {
            let (uuid, num_chunks_from_msg) = (Some("u".to_owned()), Some(2));
            let (total_chunk_msg_size, chunk_id) = (Some(100), Some(0));
            pb::MessageMetadata { uuid, num_chunks_from_msg, total_chunk_msg_size, chunk_id, ..plain() }
        }),
    ];
    let codec = pb::MessageMetadata { compression: Some(3), uncompressed_size: Some(10), ..plain() };
    let batch = pb::MessageMetadata { num_messages_in_batch: Some(2), ..codec.clone() };
    // A size that the payload could have.
    let (size, stored) = (80 * 1024 * 1024 + 1, vec![0; 330_000]);
    let large = pb::MessageMetadata { compression: Some(1), uncompressed_size: Some(size), ..plain() };
    for form in Form::ALL {
        let stage = Stage::new().await;
        let mut consumer = stage.shared(TOPIC).await;
        let (mut events, acker) = (consumer.events(), consumer.acker());
        assert!(consumer.try_receive().expect("no end").is_none());
        let (sender, mut texts) = mpsc::unbounded_channel();
        let receiving = spawn(form.run(consumer, sender));
        let mut entries: Vec<(pb::MessageMetadata, &[u8])> = vec![(plain(), b"0")];
        entries.extend(kinds.iter().map(|(_, metadata)| (metadata.clone(), &b"raw payload"[..])));
        entries.extend([(plain(), &b"1"[..]), (codec.clone(), b"zstd"), (batch.clone(), b"a zstd batch")]);
        entries.extend([(large.clone(), &stored[..]), (plain(), b"2")]);
        publish_raw(&stage.broker, &entries).await;
        for expected in ["0", "1", "2"] {
            assert_eq!(within("a message", texts.recv()).await.expect("it receives"), expected, "{form:?}");
        }
        let mut found = Vec::new();
        for _ in 0..5 {
            found.push(unreadable(&mut events).await);
        }
        let reasons: Vec<_> = found.iter().map(UnreadableMessage::reason).collect();
        assert_eq!(reasons[..2], kinds.each_ref().map(|(reason, _)| *reason), "{form:?}");
        let is_zstd = |reason: &UnreadableReason| matches!(reason, UnreadableReason::Codec { number: 3, .. });
        assert!(reasons[2..4].iter().all(is_zstd), "{reasons:?}");
        assert!(matches!(reasons[4], UnreadableReason::TooLarge { .. }), "{reasons:?}");
        for (message, payload) in found.iter().zip([&b"raw payload"[..], b"raw payload", b"zstd", b"a zstd batch"]) {
            let stored = message.message();
            assert_eq!((stored.topic(), stored.payload()), (TOPIC, payload), "{form:?}");
            assert_eq!((stored.producer_name(), stored.id().batch_index()), ("raw", None), "{form:?}");
            let metadata = pb::MessageMetadata::decode(message.metadata()).expect("metadata");
            assert_eq!(metadata.sequence_id, stored.sequence_id(), "{form:?}");
        }
        assert!(events.try_recv().is_none(), "{form:?}: each is reported once");
        // The batch counts as the two messages it holds.
        until("the acknowledgements", || stage.subscription(TOPIC).msg_backlog, |left| *left == 6).await;
        for message in &found {
            acker.ack(message.message()).expect("acknowledged");
        }
        stage.drained(TOPIC).await;
        receiving.abort();
        drop(acker);
        stage.close_and_check().await;
    }
}

/// With a queue of one message, one that cannot be read does not keep its place in it.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_does_not_use_up_the_queue() {
    for queue in [0, 1, 2] {
        let stage = Stage::new().await;
        let codec = pb::MessageMetadata { compression: Some(3), uncompressed_size: Some(10), ..plain() };
        let mut entries = vec![(codec, &b"zstd"[..]); 20];
        entries.push((plain(), b"readable"));
        publish_raw(&stage.broker, &entries).await;
        let builder = stage.client.consumer(TOPIC, "s").receiver_queue_size(queue);
        let builder = builder.initial_position(InitialPosition::Earliest);
        let mut consumer = within("a consumer", builder.subscribe()).await.expect("a consumer");
        assert_eq!(text(&mut consumer).await, "readable", "queue of {queue}");
        let mut events = consumer.events();
        assert_eq!(std::iter::from_fn(|| events.try_recv()).count(), 20, "queue of {queue}");
        drop(consumer);
        stage.close_and_check().await;
    }
}
