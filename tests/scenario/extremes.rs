//! Options at the ends of their ranges: each is refused by its name, or works. Never is there a panic, and never does one
//! cost a connection that others use.

use std::time::SystemTime;

use pulsar_native::{
    AccessMode, Compression, ConsumerBuilder, HashingScheme, KeySharedPolicy, MessageRoutingMode, ProducerBuilder,
};

use crate::common::extremes::{Extremes, durations, texts, times};
use crate::faults::support::*;

/// The broker's limit, small so that text beyond it is cheap.
const MAX_MESSAGE_SIZE: u32 = 64 * 1024;
/// More than a frame may have: 10 KiB are added to the limit of a message.
const BEYOND: usize = 76 * 1024;

/// Options that make a message too large, or the limit too low for it.
const SIZES: [&str; 5] = ["payload", "key", "ordering_key", "property", "max_uncompressed_size"];
/// In how many of the 400 rounds a message comes at least: in 119, and another option makes other choices of a seed.
const DELIVERED_MIN: usize = 100;

const PARTITIONED: &str = "persistent://public/default/partitioned";

fn broker() -> EmbeddedBrokerBuilder {
    EmbeddedBroker::builder().max_message_size(MAX_MESSAGE_SIZE).partitioned_topic(PARTITIONED, 3)
}

/// `error` refuses one of the options that have an extreme value, by its name.
fn assert_names_an_option(error: &Error, extremes: &Extremes) {
    let (text, chosen) = (error.to_string(), extremes.chosen());
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{chosen:?}: {text:.300}");
    let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    assert!(words.any(|word| chosen.iter().any(|option| option == word)), "{chosen:?}: {text:.300}");
    assert!(!error.is_retriable() && text.len() < 1000, "{} bytes: {text:.300}", text.len());
}

fn client(extremes: &mut Extremes, builder: ClientBuilder) -> ClientBuilder {
    let builder = extremes.set(builder, "connection_timeout", &durations(), ClientBuilder::connection_timeout);
    let builder = extremes.set(builder, "operation_timeout", &durations(), ClientBuilder::operation_timeout);
    let builder = extremes.set(builder, "keep_alive_interval", &durations(), ClientBuilder::keep_alive_interval);
    let builder = extremes.set(builder, "max_backoff_interval", &durations(), ClientBuilder::max_backoff_interval);
    let builder =
        extremes.set(builder, "initial_backoff_interval", &durations(), ClientBuilder::initial_backoff_interval);
    let connections = [0, 1, 1024, 1025, u32::MAX];
    let builder = extremes.set(builder, "connections_per_broker", &connections, ClientBuilder::connections_per_broker);
    let builder = extremes.set(builder, "connection_max_idle", &durations(), ClientBuilder::connection_max_idle);
    let quarantines =
        [(Duration::MAX, Duration::ZERO), (Duration::ZERO, Duration::ZERO), (Duration::MAX, Duration::MAX)];
    let builder = extremes.set(builder, "service_url_quarantine", &quarantines, |builder, (initial, max)| {
        builder.service_url_quarantine(initial, max)
    });
    let limits = [0, 1, usize::MAX / 2, usize::MAX];
    let builder = extremes.set(builder, "memory_limit", &limits, ClientBuilder::memory_limit);
    let builder = extremes.set(builder, "receive_memory_limit", &limits, ClientBuilder::receive_memory_limit);
    let builder = extremes.set(builder, "seed", &[0, u64::MAX], ClientBuilder::seed);
    // The embedded broker has no listeners.
    let names: Vec<_> =
        texts(BEYOND).into_iter().filter(|name| name.trim().is_empty() || name.len() > BEYOND).collect();
    extremes.set(builder, "listener_name", &names, |builder, name| builder.listener_name(name))
}

fn producer(extremes: &mut Extremes, client: &Client) -> ProducerBuilder {
    let topic = extremes.choose("topic", &[vec![PARTITIONED.to_owned()], texts(BEYOND)].concat());
    let builder = client.producer(topic.unwrap_or_else(|| TOPIC.to_owned()));
    let builder = extremes.set(builder, "name", &texts(BEYOND), |builder, name| builder.name(name));
    let builder = extremes.set(builder, "producer_property", &texts(BEYOND), |builder, text| {
        builder.producer_property(text.clone(), text)
    });
    let modes = [AccessMode::Exclusive, AccessMode::WaitForExclusive, AccessMode::ExclusiveWithFencing];
    let builder = extremes.set(builder, "access_mode", &modes, ProducerBuilder::access_mode);
    let builder = extremes.set(builder, "batching", &[false], ProducerBuilder::batching);
    let messages = [0, 1, 1 << 22, u32::MAX];
    let builder = extremes.set(builder, "batching_max_messages", &messages, ProducerBuilder::batching_max_messages);
    let sizes = [0, 1, usize::MAX / 2, usize::MAX];
    let builder = extremes.set(builder, "batching_max_bytes", &sizes, ProducerBuilder::batching_max_bytes);
    let delays = [durations(), vec![Duration::from_nanos(1)]].concat();
    let builder =
        extremes.set(builder, "batching_max_publish_delay", &delays, ProducerBuilder::batching_max_publish_delay);
    let codecs: Vec<_> = Compression::ALL.into_iter().filter(|codec| codec.is_built_in()).collect();
    let builder = extremes.set(builder, "compression", &codecs, ProducerBuilder::compression);
    let levels = [i32::MIN, 0, 1, 9, 22, i32::MAX];
    let builder = extremes.set(builder, "compression_level", &levels, ProducerBuilder::compression_level);
    let builder =
        extremes.set(builder, "compress_min_msg_body_size", &sizes, ProducerBuilder::compress_min_msg_body_size);
    let builder = extremes.set(builder, "max_uncompressed_size", &sizes, ProducerBuilder::max_uncompressed_size);
    let builder = extremes.set(builder, "send_timeout", &durations(), ProducerBuilder::send_timeout);
    let builder = extremes.set(builder, "max_pending_messages", &sizes, ProducerBuilder::max_pending_messages);
    let builder = extremes.set(builder, "max_pending_bytes", &sizes, ProducerBuilder::max_pending_bytes);
    let ids = [0, (1 << 63) - 2, (1 << 63) - 1, 1 << 63, u64::MAX];
    let builder = extremes.set(builder, "initial_sequence_id", &ids, ProducerBuilder::initial_sequence_id);
    let modes = [MessageRoutingMode::SinglePartition];
    let builder = extremes.set(builder, "message_routing_mode", &modes, ProducerBuilder::message_routing_mode);
    extremes.set(builder, "hashing_scheme", &[HashingScheme::Murmur3Hash32], ProducerBuilder::hashing_scheme)
}

fn consumer(extremes: &mut Extremes, client: &Client, topic: &str) -> ConsumerBuilder {
    let subscription = extremes.choose("subscription", &texts(BEYOND));
    let builder = client.consumer(topic, subscription.unwrap_or_else(|| "s".to_owned()));
    let types = [SubscriptionType::Shared, SubscriptionType::Failover, SubscriptionType::KeyShared];
    let builder = extremes.set(builder, "subscription_type", &types, ConsumerBuilder::subscription_type);
    let builder = extremes.set(builder, "name", &texts(BEYOND), |builder, name| builder.name(name));
    let sizes = [0, 1, i32::MAX as u32, u32::MAX];
    let builder = extremes.set(builder, "receiver_queue_size", &sizes, ConsumerBuilder::receiver_queue_size);
    let times = [durations(), vec![Duration::from_nanos(1)]].concat();
    let builder =
        extremes.set(builder, "acknowledgment_group_time", &times, ConsumerBuilder::acknowledgment_group_time);
    let sizes = [0, 1, usize::MAX];
    let builder =
        extremes.set(builder, "max_acknowledgment_group_size", &sizes, ConsumerBuilder::max_acknowledgment_group_size);
    let builder =
        extremes.set(builder, "negative_ack_redelivery_delay", &times, ConsumerBuilder::negative_ack_redelivery_delay);
    let builder = extremes.set(builder, "ack_timeout", &times, ConsumerBuilder::ack_timeout);
    let levels = [i32::MIN, -1, 0, i32::MAX];
    let builder = extremes.set(builder, "priority_level", &levels, ConsumerBuilder::priority_level);
    let builder = extremes.set(builder, "consumer_property", &texts(BEYOND), |builder, text| {
        builder.consumer_property(text.clone(), text)
    });
    let builder = extremes.set(builder, "subscription_property", &texts(BEYOND), |builder, text| {
        builder.subscription_property(text.clone(), text)
    });
    let builder =
        extremes.set(builder, "batch_index_acknowledgment", &[false], ConsumerBuilder::batch_index_acknowledgment);
    let policies =
        [Vec::new(), vec![0..=u16::MAX], vec![0..=0, 0..=0], (0..20_000).map(|at| 3 * at..=3 * at).collect()]
            .map(KeySharedPolicy::Sticky);
    let builder = extremes.set(builder, "key_shared_policy", &policies, ConsumerBuilder::key_shared_policy);
    let builder = extremes.set(builder, "read_compacted", &[true], ConsumerBuilder::read_compacted);
    let flags = [false, true];
    let builder =
        extremes.set(builder, "replicate_subscription_state", &flags, ConsumerBuilder::replicate_subscription_state);
    let sizes = [0, 1, usize::MAX];
    let builder = extremes.set(builder, "max_uncompressed_size", &sizes, ConsumerBuilder::max_uncompressed_size);
    builder.initial_position(InitialPosition::Earliest)
}

fn message(extremes: &mut Extremes) -> Message {
    let payloads = [0, MAX_MESSAGE_SIZE as usize, BEYOND].map(|size| "x".repeat(size));
    let message = Message::new(extremes.choose("payload", &payloads).unwrap_or_else(|| "a message".to_owned()));
    let message = extremes.set(message, "key", &texts(BEYOND), |message, key| message.with_key(key));
    let message = extremes.set(message, "ordering_key", &texts(BEYOND), |message, key| message.with_ordering_key(key));
    let message =
        extremes.set(message, "property", &texts(BEYOND), |message, text| message.with_property(text.clone(), text));
    let ids = [0, (1 << 63) - 2, (1 << 63) - 1, 1 << 63, u64::MAX];
    let message = extremes.set(message, "sequence_id", &ids, Message::with_sequence_id);
    let message = extremes.set(message, "event_time", &times(), Message::with_event_time);
    let message = extremes.set(message, "deliver_at", &times(), Message::with_deliver_at);
    extremes.set(message, "deliver_after", &durations(), Message::with_deliver_after)
}

/// One client, producer, consumer and message; what was refused ends it. Whether the message came.
async fn round(seed: u64) -> bool {
    let mut extremes = Extremes::new(seed, 6 + seed % 20);
    let (broker, net) = broker_on_net(broker()).await;
    let builder = client(&mut extremes, builder(&broker, &net));
    let outcome = match within("the connection", builder.connect()).await {
        Ok(client) => {
            let outcome = one_message(&mut extremes, &client).await;
            // Others on the connection noticed nothing.
            if !extremes.chosen().iter().any(|option| option == "listener_name") {
                let bystander = created(client.producer("bystander")).await;
                send(&bystander, "x").await;
            }
            if !extremes.chosen().iter().any(|option| option == "connections_per_broker") {
                assert_eq!(net.dials(), 1, "{:?} {:?}", extremes.chosen(), net.dialed());
            }
            within("the close", client.close()).await.expect("closed");
            outcome
        }
        Err(error) => Err(error),
    };
    if let Err(error) = &outcome {
        assert_names_an_option(error, &extremes);
    }
    stop_and_check(&broker).await;
    outcome == Ok(true)
}

async fn one_message(extremes: &mut Extremes, client: &Client) -> Result<bool, Error> {
    let producer = within("a producer", producer(extremes, client).create()).await?;
    let mut consumer = within("a consumer", consumer(extremes, client, producer.topic()).subscribe()).await?;
    let message = message(extremes);
    let sent = match within("capacity", producer.enqueue(message.clone())).await {
        Ok(pending) => {
            let flushed = within("a flush", producer.flush()).await.map(drop);
            flushed.or_else(|error| too_large_at_last(error, extremes))?;
            within("a receipt", pending).await
        }
        Err(error) => Err(error),
    };
    match sent {
        Ok(_) => {}
        Err(error) => {
            assert!(!error.may_be_stored(), "{error}");
            return too_large_at_last(error.into(), extremes).map(|()| false);
        }
    }
    if !delivered_at_once(extremes) {
        return Ok(false);
    }
    let received = within("the message", consumer.receive()).await?;
    assert_eq!((received.payload(), received.key()), (message.payload(), message.key()));
    assert_eq!(received.ordering_key(), message.ordering_key());
    assert!(received.properties().eq(message.properties()));
    assert_eq!(received.event_time(), message.event_time());
    if let Some(id) = message.sequence_id() {
        assert_eq!(received.sequence_id(), id);
    }
    within("the acknowledgement", consumer.ack_confirmed(&received)).await?;
    consumer.nack(&received)?;
    Ok(true)
}

/// A message that is too large has an error of its own, which an option that is about sizes has to be the reason of.
fn too_large_at_last(error: Error, extremes: &Extremes) -> Result<(), Error> {
    if error.kind() != ErrorKind::MessageTooLarge {
        return Err(error);
    }
    let chosen = extremes.chosen();
    assert!(chosen.iter().any(|option| SIZES.contains(&option.as_str())), "{chosen:?}: {error:.300}");
    Ok(())
}

/// Whether the message has no delay that Shared and Key_Shared subscriptions wait for, and no keys that go elsewhere.
fn delivered_at_once(extremes: &Extremes) -> bool {
    let waits = ["deliver_at", "deliver_after", "key_shared_policy"];
    !extremes.chosen().iter().any(|option| waits.contains(&option.as_str()))
        || !extremes.chosen().iter().any(|option| option == "subscription_type")
}

#[tokio::test(start_paused = true)]
async fn every_option_at_its_extremes_is_refused_by_name_or_works() {
    let (mut failed, mut delivered) = (Vec::new(), 0);
    for seed in 0..400 {
        match tokio::spawn(round(seed)).await {
            Ok(came) => delivered += usize::from(came),
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
    assert!(delivered >= DELIVERED_MIN, "{delivered} of 400 messages came");
}

/// A client and its consumer, with this number of messages stored.
async fn stage_with(messages: usize) -> (Stage, Producer, Consumer) {
    let stage = Stage::with(broker(), |builder| builder).await;
    let (producer, consumer) = (stage.producer(TOPIC).await, stage.shared(TOPIC).await);
    confirmed(enqueue_numbers(&producer, 0..messages).await).await;
    (stage, producer, consumer)
}

#[tokio::test(start_paused = true)]
async fn a_seek_to_any_time_goes_before_all_messages_or_behind_them() {
    let (stage, producer, mut consumer) = stage_with(3).await;
    let now = SystemTime::now();
    for time in times() {
        within("the seek", consumer.seek(SeekTo::PublishTime(time))).await.expect("any time can be sought to");
        let is_past = time < now;
        if is_past {
            assert_eq!(text(&mut consumer).await, "0", "{time:?}");
        } else {
            send(&producer, "after the seek").await;
            assert_eq!(text(&mut consumer).await, "after the seek", "{time:?}");
        }
    }
    assert_eq!(stage.net.dials(), 1);
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn numbers_of_messages_and_workers_may_be_anything_but_no_workers() {
    let (stage, producer, mut consumer) = stage_with(3).await;
    assert!(within("no message", consumer.receive_many(0)).await.expect("none is asked for").is_empty());
    let mut received = 0;
    while received < 3 {
        let messages = within("messages", consumer.receive_many(usize::MAX)).await.expect("messages");
        received += messages.len();
        messages.iter().for_each(|message| consumer.ack(message).expect("acknowledged"));
    }
    let work = |_: ReceivedMessage| async {};
    let none = within("a refusal", consumer.process(0, work)).await;
    assert!(failed(none, ErrorKind::InvalidArgument).to_string().contains("concurrency"));
    let none = within("a refusal", consumer.process_by_key(0, work)).await;
    assert!(failed(none, ErrorKind::InvalidArgument).to_string().contains("concurrency"));
    let (acker, topic) = (consumer.acker(), TOPIC);
    for by_key in [false, true] {
        send(&producer, Message::new("x").with_key("k")).await;
        let working = async {
            match by_key {
                true => consumer.process_by_key(usize::MAX, work).await,
                false => consumer.process(usize::MAX, work).await,
            }
        };
        tokio::select! {
            ended = working => panic!("{ended:?}"),
            () = stage.drained(topic) => {}
        }
    }
    drop((acker, consumer));
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn the_sequence_ids_of_a_producer_end_with_the_last_of_the_protocol() {
    const LAST: u64 = i64::MAX as u64;
    for batching in [false, true] {
        let stage = Stage::with(broker(), |builder| builder).await;
        let builder = stage.client.producer(TOPIC).batching(batching).initial_sequence_id(LAST - 2);
        let producer = created(builder).await;
        send(&producer, "the last but one").await;
        assert_eq!(producer.last_sequence_id(), Some(LAST - 1), "the first message gets the next id");
        send(&producer, "the last").await;
        assert_eq!(producer.last_sequence_id(), Some(LAST));
        for (message, why) in [
            (Message::new("x"), "no sequence_id is left"),
            (Message::new("x").with_sequence_id(LAST + 1), "sequence_id must be at most"),
            (Message::new("x").with_sequence_id(u64::MAX), "sequence_id must be at most"),
        ] {
            let error = within("a refusal", producer.send(message)).await.expect_err("beyond the protocol");
            assert!(!error.may_be_stored() && error.error().kind() == ErrorKind::InvalidArgument, "{error}");
            assert!(error.to_string().contains(why), "{error}");
        }
        let topic = stage.stored(TOPIC).await;
        assert_eq!(topic, ["the last but one", "the last"]);
        stage.close_and_check().await;
    }
}

/// With the limits that a broker has unless it is configured.
#[tokio::test(start_paused = true)]
async fn names_of_megabytes_are_refused_here_and_cost_no_connection() {
    let stage = Stage::new().await;
    let huge = "n".repeat(6 * 1024 * 1024);
    let create = |builder: ProducerBuilder| async { within("a producer", builder.create()).await.map(drop) };
    let subscribe = |builder: ConsumerBuilder| async { within("a consumer", builder.subscribe()).await.map(drop) };
    let (producer, consumer) = (|| stage.client.producer(TOPIC), || stage.client.consumer(TOPIC, "s"));
    for (option, refused) in [
        ("topic", create(stage.client.producer(&huge)).await),
        ("name", create(producer().name(&huge)).await),
        ("producer_property", create(producer().producer_property("k", &huge)).await),
        ("topic", subscribe(stage.client.consumer(&huge, "s")).await),
        ("topic", stage.client.partitions(&huge).await.map(drop)),
        ("subscription", subscribe(stage.client.consumer(TOPIC, &huge)).await),
        ("name", subscribe(consumer().name(&huge)).await),
        ("consumer_property", subscribe(consumer().consumer_property(&huge, "v")).await),
        ("subscription_property", subscribe(consumer().subscription_property("k", &huge)).await),
    ] {
        let error = failed(refused, ErrorKind::InvalidArgument).to_string();
        assert!(error.starts_with(&format!("{option} of 62")) && error.len() < 1000, "{option}: {error:.300}");
    }
    let refused = builder(&stage.broker, &stage.net).authentication(Token::new(&huge)).connect();
    let error = failed(within("a refusal", refused).await, ErrorKind::InvalidArgument).to_string();
    assert!(error.contains("authentication") && error.len() < 1000, "{error:.300}");
    let producer = stage.producer(TOPIC).await;
    for message in [
        Message::new("x").with_key(&huge),
        Message::new("x").with_ordering_key(huge.clone()),
        Message::new("x").with_property("k", &huge),
        Message::new(huge.clone()),
    ] {
        let error = within("a refusal", producer.send(message)).await.expect_err("larger than a frame");
        assert!(!error.may_be_stored() && error.error().kind() == ErrorKind::MessageTooLarge, "{error}");
    }
    send(&producer, "x").await;
    assert_eq!(stage.net.dials(), 1);
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn delays_without_end_wait_for_what_else_sends() {
    let stage = Stage::with(broker(), |builder| builder.keep_alive_interval(Duration::MAX)).await;
    let builder = stage.client.producer(TOPIC).send_timeout(Duration::ZERO).batching_max_publish_delay(Duration::MAX);
    let producer = created(builder).await;
    let builder = stage.client.consumer(TOPIC, "s").subscription_type(SubscriptionType::Shared);
    let builder = builder.acknowledgment_group_time(Duration::MAX).negative_ack_redelivery_delay(Duration::MAX);
    let mut consumer = subscribed(builder).await;
    let hour = Duration::from_secs(3600);

    let pending = enqueue(&producer, "1").await;
    pass(hour).await;
    assert!(pending.try_result().is_none(), "the batch waits for more messages");
    let others = enqueue_numbers(&producer, 2..4).await;
    within("the flush", producer.flush()).await.expect("stored");
    confirmed(others.into_iter().chain([pending]).collect()).await;

    let mut received = Vec::new();
    for _ in 0..3 {
        received.push(within("a message", consumer.receive()).await.expect("a message"));
    }
    consumer.nack(&received[0]).expect("noted");
    consumer.ack(&received[1]).expect("noted");
    pass(hour).await;
    assert!(consumer.try_receive().expect("open").is_none(), "nothing is redelivered");
    assert_eq!(stage.subscription(TOPIC).msg_backlog, 3, "nothing is acknowledged");
    stage.close_and_check().await;
}
