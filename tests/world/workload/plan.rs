//! The plan of one seed: topics, their producers and consumers, and the faults.

use std::time::Duration;

use pulsar_native::SubscriptionType;
use pulsar_native::broker::BrokerConfig;
use pulsar_native::sim::{Fault, Rng};

use super::failures::Failures;

pub(super) struct Plan {
    pub(super) broker: BrokerConfig,
    pub(super) topics: Vec<TopicPlan>,
    pub(super) clients: usize,
    pub(super) faults: Vec<(Duration, Fault)>,
    pub(super) operation_timeout: Duration,
    pub(super) keep_alive_interval: Duration,
    /// Of each client, bytes; 0 is none.
    pub(super) memory_limit: usize,
    /// The same for what waits in consumers.
    pub(super) receive_memory_limit: usize,
}

/// At least as large as any message of the plan counts, bytes; also one that is given up, with the properties that say so.
pub(super) const MESSAGE_BYTES_MAX: usize = 20_600;

/// In one seed of so many the applications fail.
const FAILURES_EACH: u64 = 3;

/// In one seed of so many messages are split into chunks.
const CHUNKS_EACH: u64 = 4;

/// In one seed of so many messages are batched by key.
const KEY_BATCHES_EACH: u64 = 3;

/// The faults of one seed: mostly of all kinds, else of one kind only. What a kind does alone can be checked more closely.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Theme {
    All,
    Nothing,
    /// The clients come to a cluster of which one broker is silent.
    LostBroker,
    /// The brokers store slowly. Producers are closed while their messages are on the way.
    SlowReceipts,
    /// What was attached is refused.
    Refusals,
    /// Topics move.
    Moves,
    /// Connections break while there is no token for the next one.
    Tokens,
}

impl Theme {
    fn of(rng: &mut Rng) -> Self {
        match rng.below(20) {
            0..=1 => Self::Nothing,
            2 => Self::LostBroker,
            3 => Self::SlowReceipts,
            4..=6 => Self::Refusals,
            7 => Self::Tokens,
            8 => Self::Moves,
            _ => Self::All,
        }
    }
}

#[derive(Clone)]
pub(super) struct TopicPlan {
    pub(super) name: String,
    pub(super) partitions: u32,
    pub(super) producers: Vec<ProducerPlan>,
    pub(super) subscriptions: Vec<SubscriptionPlan>,
}

#[derive(Clone)]
pub(super) struct ProducerPlan {
    pub(super) name: Option<String>,
    pub(super) client: usize,
    pub(super) messages: u64,
    pub(super) batching: bool,
    pub(super) batching_max_publish_delay: Duration,
    pub(super) send_timeout: Duration,
    pub(super) pending_max: usize,
    pub(super) pace: Duration,
    pub(super) stall_timeout: Duration,
    /// Some messages are delivered after a delay.
    pub(super) delays: bool,
    /// The most payload of a chunk, bytes; 0: no message is split.
    pub(super) chunk_bytes: u32,
    /// A batch for each key.
    pub(super) batches_by_key: bool,
}

#[derive(Clone)]
pub(super) struct SubscriptionPlan {
    pub(super) name: String,
    pub(super) kind: SubscriptionType,
    pub(super) queue: u32,
    pub(super) index_acks: bool,
    pub(super) consumers: Vec<usize>,
    pub(super) stall_timeout: Duration,
    pub(super) failures: Failures,
}

impl TopicPlan {
    pub(super) fn parts(&self) -> Vec<String> {
        match self.partitions {
            0 => vec![self.name.clone()],
            count => (0..count).map(|index| format!("{}-partition-{index}", self.name)).collect(),
        }
    }
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let rng = &mut rng;
        let mut broker = BrokerConfig::default();
        let theme = Theme::of(rng);
        broker.broker_deduplication_enabled = theme != Theme::SlowReceipts && rng.chance_per_mille(500);
        broker.acknowledgment_at_batch_index_level_enabled = rng.chance_per_mille(700);
        let tokens = theme == Theme::Tokens || rng.chance_per_mille(400);
        broker.token_secret_key = tokens.then(|| b"a secret of the simulation, long enough".to_vec());
        let clients = rng.range_inclusive(1, 3) as usize;
        let mut topics = Vec::new();
        for number in 0..rng.range_inclusive(1, 2) {
            let topic = Self::topic(rng, theme, number, clients, broker.acknowledgment_at_batch_index_level_enabled);
            if topic.partitions > 0 {
                broker.partitioned_topics.insert(topic.name.clone(), topic.partitions);
            }
            topics.push(topic);
        }
        let faults = Self::faults(rng, theme, tokens);
        Self::set_stall_timeouts(&mut Rng::new(seed ^ 0x57a11), &mut topics, theme == Theme::Nothing);
        if seed % FAILURES_EACH == 0 {
            Self::set_failures(&mut Rng::new(seed ^ 0xdead), &mut topics);
        }
        if seed % CHUNKS_EACH == 1 {
            Self::set_chunks(&mut Rng::new(seed ^ 0xc4c4), &mut topics);
        }
        if seed % KEY_BATCHES_EACH == 2 {
            Self::set_key_batches(&mut Rng::new(seed ^ 0x6ba7), &mut topics);
        }
        let operation_timeout = Duration::from_secs(*rng.pick(&[5, 30]));
        let keep_alive_interval = Duration::from_secs(*rng.pick(&[10, 30]));
        // One message at a time, a few, some, or no bound that is ever reached. From numbers of its own.
        let mut memory = Rng::new(seed ^ 0x3e30);
        let memory_limit = *memory.pick(&[1, 100, 1000, 25_000, 64 * 1024 * 1024, 0]);
        let receive_memory_limit = *memory.pick(&[1, 1000, 100_000, 0, 0]);
        Self {
            broker,
            topics,
            clients,
            faults,
            operation_timeout,
            keep_alive_interval,
            memory_limit,
            receive_memory_limit,
        }
    }

    fn faults(rng: &mut Rng, theme: Theme, tokens: bool) -> Vec<(Duration, Fault)> {
        let span = Duration::from_secs(rng.range_inclusive(1, 40));
        let count = rng.range_inclusive(1, 12);
        let at = |rng: &mut Rng| {
            // Many of them while everything is being set up.
            let within = if rng.chance_per_mille(300) { Duration::from_millis(80) } else { span };
            rng.duration(Duration::ZERO, within)
        };
        match theme {
            Theme::Nothing => Vec::new(),
            Theme::LostBroker => vec![(Duration::ZERO, Fault::LoseBroker)],
            Theme::SlowReceipts => {
                let by = rng.duration(Duration::from_millis(100), Duration::from_secs(3));
                vec![(Duration::ZERO, Fault::SlowReceipts { by, duration: span })]
            }
            Theme::Refusals => {
                // While producers are in use.
                let early = |rng: &mut Rng| rng.duration(Duration::ZERO, Duration::from_secs(5));
                (0..count).map(|_| (early(rng), Fault::random_refusal(rng))).collect()
            }
            Theme::Tokens => {
                let at: Vec<_> = (0..count).map(|_| at(rng)).collect();
                let broken = at.iter().map(|at| (*at, Fault::random_of_tokens(rng)));
                let broken: Vec<_> = broken.collect();
                // They are needed for a new connection, or for one that is in use.
                let needed = at.iter().map(|at| (*at, rng.pick(&[Fault::Disconnect, Fault::ExpireTokens]).clone()));
                let needed: Vec<_> = needed.collect();
                broken.into_iter().chain(needed).collect()
            }
            Theme::Moves => {
                let moves = [Fault::Transfer, Fault::Transfer, Fault::Unload];
                (0..count).map(|_| (at(rng), rng.pick(&moves).clone())).collect()
            }
            Theme::All => (0..count).map(|_| (at(rng), Fault::random(rng, tokens))).collect(),
        }
    }

    fn topic(rng: &mut Rng, theme: Theme, number: u64, clients: usize, index_acks: bool) -> TopicPlan {
        let any_client = |rng: &mut Rng| rng.below(clients as u64) as usize;
        let mut subscriptions = Vec::new();
        for number in 0..rng.range_inclusive(1, 2) {
            let kind = *rng.pick(&[
                SubscriptionType::Exclusive,
                SubscriptionType::Shared,
                SubscriptionType::Failover,
                SubscriptionType::KeyShared,
            ]);
            let consumers = if kind == SubscriptionType::Exclusive { 1 } else { rng.range_inclusive(1, 3) };
            subscriptions.push(SubscriptionPlan {
                name: format!("s{number}"),
                kind,
                queue: *rng.pick(&[0, 1, 2, 5, 20, 1000]),
                index_acks: index_acks && rng.chance_per_mille(800),
                consumers: (0..consumers).map(|_| any_client(rng)).collect(),
                stall_timeout: Duration::MAX,
                failures: Failures::default(),
            });
        }
        let by_key = subscriptions.iter().any(|subscription| subscription.kind == SubscriptionType::KeyShared);
        // Several where one of them may end.
        let partitions = match theme {
            Theme::Refusals if rng.chance_per_mille(500) => rng.range_inclusive(2, 3) as u32,
            _ if rng.chance_per_mille(200) => rng.range_inclusive(1, 3) as u32,
            _ => 0,
        };
        // Without a queue there is one consumer per topic, so no partitions.
        for subscription in subscriptions.iter_mut().filter(|_| partitions > 0) {
            subscription.queue = subscription.queue.max(1);
        }
        let mut producers = Vec::new();
        for producer in 0..rng.range_inclusive(1, 2) {
            producers.push(ProducerPlan {
                name: (theme == Theme::SlowReceipts || rng.chance_per_mille(500))
                    .then(|| format!("p{number}-{producer}")),
                client: any_client(rng),
                messages: rng.range_inclusive(5, 50),
                batching: !by_key && rng.chance_per_mille(700),
                batching_max_publish_delay: Duration::from_millis(*rng.pick(&[0, 0, 1, 50])),
                send_timeout: Duration::from_secs(*rng.pick(&[0, 5, 30, 30])),
                pending_max: *rng.pick(&[1, 3, 10, 1000]),
                pace: Duration::from_millis(*rng.pick(&[0, 10, 300, 1000])),
                stall_timeout: Duration::MAX,
                delays: false,
                chunk_bytes: 0,
                batches_by_key: false,
            });
        }
        TopicPlan { name: format!("persistent://public/default/t{number}"), partitions, producers, subscriptions }
    }

    /// By a generator of their own. Where nothing else happens, messages are delayed.
    fn set_stall_timeouts(rng: &mut Rng, topics: &mut [TopicPlan], delays: bool) {
        for topic in topics {
            for subscription in &mut topic.subscriptions {
                subscription.stall_timeout = Duration::from_secs(*rng.pick(&[1, 3, 10]));
            }
            for producer in &mut topic.producers {
                producer.stall_timeout = Duration::from_millis(*rng.pick(&[100, 1000, 5000]));
                producer.delays = delays;
            }
        }
    }

    /// By a generator of their own.
    fn set_failures(rng: &mut Rng, topics: &mut [TopicPlan]) {
        for subscription in topics.iter_mut().flat_map(|topic| &mut topic.subscriptions) {
            subscription.failures = Failures::of(rng, subscription.kind);
            if subscription.failures.has_retries() {
                // Without a queue there is one topic per consumer.
                subscription.queue = subscription.queue.max(1);
            }
        }
    }

    /// By a generator of their own. Not on Key_Shared, where a message is stuck once another consumer joins in the midst of it
    /// and its key moves: the broker sends no more of the key before the first chunks are acknowledged.
    fn set_chunks(rng: &mut Rng, topics: &mut [TopicPlan]) {
        for topic in topics {
            if topic.subscriptions.iter().any(|subscription| subscription.kind == SubscriptionType::KeyShared) {
                continue;
            }
            for producer in &mut topic.producers {
                (producer.batching, producer.chunk_bytes) = (false, *rng.pick(&[300, 1000, 7000]));
            }
        }
    }

    /// By a generator of their own. Where a subscription divides messages by key, and elsewhere at times; there is then a
    /// fourth consumer at times.
    fn set_key_batches(rng: &mut Rng, topics: &mut [TopicPlan]) {
        for topic in topics {
            let mut by_key: Vec<_> =
                topic.subscriptions.iter_mut().filter(|plan| plan.kind == SubscriptionType::KeyShared).collect();
            for subscription in &mut by_key {
                let more = rng.below(4 - subscription.consumers.len() as u64 + 1) as usize;
                let first = subscription.consumers[0];
                subscription.consumers.extend(std::iter::repeat_n(first, more));
            }
            let is_by_key = !by_key.is_empty() || rng.chance_per_mille(200);
            for producer in topic.producers.iter_mut().filter(|producer| producer.chunk_bytes == 0 && is_by_key) {
                (producer.batching, producer.batches_by_key) = (true, true);
            }
        }
    }

    pub(super) fn parts(&self) -> Vec<String> {
        self.topics.iter().flat_map(TopicPlan::parts).collect()
    }
}
