//! What producers and consumers of the same labels make up together, and how it is told.

use std::collections::BTreeMap;

use metrics::{Label, counter, gauge, histogram};

use super::names;
use crate::machine::consumer::ConsumerStats;
use crate::machine::endpoint::machine::EndpointStats;
use crate::machine::producer::ProducerStats;
use crate::stats::{ErrorCounts, Histogram};
use crate::topic::TopicName;

/// What a metric about producers or consumers is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels {
    pub(super) kind: EndpointKind,
    tenant: String,
    namespace: String,
    /// The topic, and the index of the partition if it is one; if those are wanted.
    topic: Option<(String, Option<u32>)>,
    subscription: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EndpointKind {
    Producer,
    Consumer,
}

impl Labels {
    /// The labels of one endpoint. `with_topic` adds topic and partition.
    pub(super) fn new(kind: EndpointKind, topic: &str, subscription: Option<String>, with_topic: bool) -> Option<Self> {
        let topic = TopicName::parse(topic).ok()?;
        let (tenant, namespace) = (topic.tenant().to_owned(), topic.namespace().to_owned());
        let topic = with_topic.then(|| (topic.base().as_str().to_owned(), topic.partition_index()));
        Some(Self { kind, tenant, namespace, topic, subscription })
    }

    fn to_labels(&self) -> Vec<Label> {
        let mut labels = vec![
            Label::new("pulsar.tenant", self.tenant.clone()),
            Label::new("pulsar.namespace", self.namespace.clone()),
        ];
        if let Some((topic, partition)) = &self.topic {
            labels.push(Label::new("pulsar.topic", topic.clone()));
            labels.extend(partition.map(|index| Label::new("pulsar.partition", index.to_string())));
        }
        labels.extend(self.subscription.clone().map(|name| Label::new("pulsar.subscription", name)));
        labels
    }

    fn with(&self, name: &'static str, value: &str) -> Vec<Label> {
        let mut labels = self.to_labels();
        labels.push(Label::new(name, value.to_owned()));
        labels
    }

    /// Adds to a counter of these labels.
    pub(super) fn count(&self, name: &'static str, count: u64) {
        counter!(name, self.to_labels()).increment(count);
    }

    fn record(labels: &[Label], name: &'static str, times: &Histogram) {
        let histogram = histogram!(name, labels.to_vec());
        for (time, count) in times.buckets() {
            histogram.record_many(time.as_secs_f64(), usize::try_from(count).unwrap_or(usize::MAX));
        }
    }

    fn count_errors(&self, name: &'static str, errors: &ErrorCounts) {
        for (code, count) in errors.iter() {
            counter!(name, self.with("error.type", code)).increment(count);
        }
    }
}

/// The sums of what came since the last time, and of what is.
#[derive(Debug, Default)]
pub(super) struct Group {
    stats: Sums,
    active: u32,
    detached: u32,
}

#[derive(Debug, Default)]
enum Sums {
    #[default]
    None,
    Producers(Box<ProducerStats>),
    Consumers(Box<ConsumerStats>),
}

/// The gauges that were told, with their values.
pub(super) type Gauges = BTreeMap<(Labels, &'static str), f64>;

impl Group {
    /// Adds what came to `stats` after `earlier`. What an endpoint has ended with is nothing that is.
    pub(super) fn add(&mut self, stats: &EndpointStats, earlier: &EndpointStats) {
        match (stats, earlier) {
            (EndpointStats::Producer(stats), EndpointStats::Producer(earlier)) => {
                self.add_producer(&stats.since(earlier))
            }
            (EndpointStats::Producer(stats), _) => self.add_producer(stats),
            (EndpointStats::Consumer(stats), EndpointStats::Consumer(earlier)) => {
                self.add_consumer(&stats.since(earlier))
            }
            (EndpointStats::Consumer(stats), _) => self.add_consumer(stats),
            (EndpointStats::None, _) => {}
        }
    }

    pub(super) fn add_live(&mut self, is_attached: bool) {
        self.active += 1;
        self.detached += u32::from(!is_attached);
    }

    fn add_producer(&mut self, stats: &ProducerStats) {
        match &mut self.stats {
            Sums::Producers(sums) => sums.merge(stats),
            sums => *sums = Sums::Producers(Box::new(stats.clone())),
        }
    }

    fn add_consumer(&mut self, stats: &ConsumerStats) {
        match &mut self.stats {
            Sums::Consumers(sums) => sums.merge(stats),
            sums => *sums = Sums::Consumers(Box::new(stats.clone())),
        }
    }

    /// Adds what came to the counters and histograms.
    pub(super) fn publish(&self, labels: &Labels) {
        match &self.stats {
            Sums::Producers(stats) => publish_producers(labels, stats),
            Sums::Consumers(stats) => publish_consumers(labels, stats),
            Sums::None => {}
        }
    }

    /// The values of its gauges.
    pub(super) fn gauges(&self, labels: &Labels, gauges: &mut Gauges) {
        let mut set = |name: &'static str, value: f64| {
            gauges.insert((labels.clone(), name), value);
        };
        let (active, detached) = (f64::from(self.active), f64::from(self.detached));
        match &self.stats {
            Sums::Producers(stats) => {
                set(names::PRODUCER_ACTIVE, active);
                set(names::PRODUCER_DETACHED, detached);
                set(names::PENDING_COUNT, stats.pending_messages as f64);
                set(names::PENDING_SIZE, stats.pending_bytes as f64);
            }
            Sums::Consumers(stats) => {
                set(names::CONSUMER_ACTIVE, active);
                set(names::CONSUMER_DETACHED, detached);
                set(names::QUEUE_COUNT, stats.queued_messages as f64);
                set(names::PERMITS, stats.available_permits as f64);
            }
            Sums::None => {}
        }
    }
}

fn publish_producers(labels: &Labels, stats: &ProducerStats) {
    for (name, count) in [
        (names::PRODUCER_RECONNECTS, stats.reconnects),
        (names::SEND_COUNT, stats.confirmed_messages),
        (names::SEND_SIZE, stats.confirmed_bytes),
        (names::SEND_ENTRIES, stats.confirmed_entries),
        (names::SEND_FAILED, stats.failed_messages),
    ] {
        labels.count(name, count);
    }
    labels.count_errors(names::PRODUCER_ERRORS, &stats.errors);
    let success = labels.with("pulsar.response.status", "success");
    Labels::record(&success, names::SEND_DURATION, &stats.send_latency);
}

fn publish_consumers(labels: &Labels, stats: &ConsumerStats) {
    for (name, count) in [
        (names::CONSUMER_RECONNECTS, stats.reconnects),
        (names::RECEIVED_COUNT, stats.received_messages),
        (names::RECEIVED_SIZE, stats.received_bytes),
        (names::RECEIVED_ENTRIES, stats.received_entries),
        (names::REDELIVERED, stats.redelivered_entries),
        (names::DAMAGED, stats.damaged_entries),
        (names::ACKS, stats.acknowledged_messages),
        (names::CUMULATIVE_ACKS, stats.cumulative_acknowledgements),
        (names::NACKS, stats.negative_acknowledgements),
        (names::ACK_TIMEOUTS, stats.acknowledgement_timeouts),
        (names::DEAD_LETTERS, stats.dead_lettered_messages),
    ] {
        labels.count(name, count);
    }
    labels.count_errors(names::CONSUMER_ERRORS, &stats.errors);
    let plain = labels.to_labels();
    Labels::record(&plain, names::PUBLISH_DURATION, &stats.publish_latency);
    Labels::record(&plain, names::PROCESS_DURATION, &stats.processing_latency);
}

/// Brings the gauges from what was told to what is: by differences, so that those of several clients add up.
pub(super) fn publish_gauges(told: &mut Gauges, now: Gauges) {
    for ((labels, name), value) in &now {
        let before = told.remove(&(labels.clone(), *name)).unwrap_or(0.0);
        gauge!(*name, labels.to_labels()).increment(value - before);
    }
    // Of labels that nothing has any more.
    for ((labels, name), before) in std::mem::replace(told, now) {
        gauge!(name, labels.to_labels()).decrement(before);
    }
}
