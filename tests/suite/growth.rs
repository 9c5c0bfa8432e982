//! Partitions that are added to a topic while producers and consumers are at work.

use super::*;
use pulsar_native::hash::java_string_hash;
use pulsar_native::{ConsumerEvent, HandleState, ProducerEvent, StateWatch};

/// The shortest that is taken.
const INTERVAL: Duration = Duration::from_secs(1);

/// Keys of the load.
const KEYS: u32 = 20;

/// Sends the numbers of each key one after the other, and says how many it sent of each.
pub(crate) struct Load {
    is_over: Arc<std::sync::atomic::AtomicBool>,
    task: tokio::task::JoinHandle<u32>,
}

impl Load {
    pub(crate) fn start(producer: Producer, keys: u32) -> Self {
        let is_over = Arc::<std::sync::atomic::AtomicBool>::default();
        let over = is_over.clone();
        let task = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(5));
            for number in 0.. {
                let message = |key: u32| Message::new(number.to_string()).with_key(format!("key-{key}"));
                send_all(&producer, (0..keys).map(message)).await;
                if over.load(Ordering::Relaxed) {
                    return number + 1;
                }
                pace.tick().await;
            }
            0
        });
        Self { is_over, task }
    }

    pub(crate) async fn stop(self) -> u32 {
        self.is_over.store(true, Ordering::Relaxed);
        within("the load to end", self.task).await.expect("no panic")
    }
}

/// What came of each key: the partition and the number, in the order of the receives.
pub(crate) type Received = BTreeMap<String, Vec<(Option<u32>, u32)>>;

/// Receives and acknowledges until the consumer is closed.
pub(crate) fn receiving(mut consumer: Consumer) -> tokio::task::JoinHandle<Received> {
    tokio::spawn(async move {
        let mut received = Received::new();
        while let Ok(message) = consumer.receive().await {
            let number = message.to_string_lossy().parse().expect("a number");
            let key = message.key().expect("a key").to_owned();
            received.entry(key).or_default().push((message.id().partition(), number));
            consumer.ack(&message).expect("acknowledged");
        }
        received
    })
}

/// Every number of every key came once, and in order within each partition.
pub(crate) fn assert_complete(received: &Received, keys: u32, numbers: u32) {
    assert_eq!(received.len(), keys as usize, "{:?}", received.keys());
    for (key, came) in received {
        let all: BTreeSet<_> = came.iter().map(|(_, number)| *number).collect();
        assert_eq!((came.len(), all.len()), (numbers as usize, numbers as usize), "{key}: each once");
        let partitions: BTreeSet<_> = came.iter().map(|(partition, _)| *partition).collect();
        for partition in partitions {
            let numbers = came.iter().filter(|(at, _)| *at == partition).map(|(_, number)| *number);
            assert!(numbers.is_sorted(), "{key}: in order in {partition:?}");
        }
    }
}

/// Waits until the consumer has so many parts, all of them attached.
pub(crate) async fn has_parts(states: &mut StateWatch<HandleState>, parts: usize) {
    let all = async {
        while let Some(state) = states.changed().await {
            if state.parts.len() == parts && state.is_attached() {
                return;
            }
        }
        panic!("the consumer has ended");
    };
    within(&format!("{parts} parts"), all).await;
}

/// Waits until the producer sends to so many partitions.
pub(crate) async fn sends_to(producer: &Producer, partitions: u32) {
    until("the growth of a producer", || async { producer.partitions() }, |seen| *seen == partitions).await;
}

/// Sends a message with each of the keys `at-<partitions>-<number>`, so many.
pub(crate) async fn keys_go_where_every_client_sends_them(producer: &Producer, partitions: u32, keys: u32) {
    for key in 0..keys {
        let key = format!("at-{partitions}-{key}");
        let id = send(producer, Message::new("0").with_key(&key)).await;
        assert_eq!(id.partition(), Some(java_string_hash(&key) % partitions), "{key}");
    }
}

pub async fn partitions_are_added_under_load(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("growing", 1).await;
    let producer = created(client.producer(&topic).auto_update_partitions_interval(INTERVAL)).await;
    let mut producer_events = producer.events();
    let consumer = subscribed(client.consumer(&topic, "s").auto_update_partitions_interval(INTERVAL)).await;
    let still = subscribed(client.consumer(&topic, "still").auto_update_partitions(false)).await;
    let (mut events, mut states, acker) = (consumer.events(), consumer.watch_state(), consumer.acker());
    let load = Load::start(producer.clone(), KEYS);
    let received = receiving(consumer);
    for partitions in [4, 8] {
        within("partitions to be added", target.cluster().grow(&topic, partitions)).await;
        sends_to(&producer, partitions).await;
        has_parts(&mut states, partitions as usize).await;
        keys_go_where_every_client_sends_them(&producer, partitions, KEYS).await;
    }
    let numbers = load.stop().await;
    for partition in 0..8 {
        drained(target, &format!("{topic}-partition-{partition}"), "s").await;
    }
    assert!(within("the drain", acker.drain(Duration::from_secs(10))).await.is_complete());
    let mut received = within("the consumer to end", received).await.expect("no panic");
    received.retain(|key, came| !key.starts_with("at-") || came.len() != 1);
    assert_complete(&received, KEYS, numbers);
    for partition in 1..8 {
        let name = format!("{topic}-partition-{partition}");
        let Some(ProducerEvent::PartitionAdded { topic, .. }) = producer_events.try_recv() else { panic!("{name}") };
        assert_eq!(*topic, name);
        let Some(ConsumerEvent::TopicAdded { topic, .. }) = events.try_recv() else { panic!("{name}") };
        assert_eq!(*topic, name);
    }
    assert_eq!(still.state().parts.len(), 1, "one that does not look");
}

/// A consumer that starts at the latest message misses nothing of a partition that it finds late.
pub async fn a_new_partition_is_read_from_its_beginning(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("found-late", 1).await;
    let builder = client.consumer(&topic, "s").initial_position(InitialPosition::Latest);
    let mut consumer = subscribed(builder.auto_update_partitions_interval(INTERVAL)).await;
    let before = created(client.producer(&topic)).await;
    let first = send(&before, "before").await;
    within("partitions to be added", target.cluster().grow(&topic, 3)).await;
    let new = format!("{topic}-partition-2");
    let early = created(client.producer(&new)).await;
    let ids = send_all(&early, (0..10).map(|number| number.to_string())).await;
    assert_eq!(receive(&mut consumer).await.id(), first);
    for (number, id) in ids.into_iter().enumerate() {
        let message = receive(&mut consumer).await;
        assert_eq!((message.id(), message.to_string_lossy().into_owned()), (id, number.to_string()));
        consumer.ack(&message).expect("acknowledged");
    }
    drained(target, &new, "s").await;
}

pub async fn intervals_that_are_too_short(target: &Target) {
    let client = target.client().await;
    let short = Duration::from_millis(999);
    let error = within("the refusal", client.producer("t").auto_update_partitions_interval(short).create()).await;
    assert_eq!(error.expect_err("too short").kind(), ErrorKind::InvalidArgument);
    let error = client.consumer("t", "s").auto_update_partitions_interval(short).subscribe();
    assert_eq!(within("the refusal", error).await.expect_err("too short").kind(), ErrorKind::InvalidArgument);
}
