//! The producers of one topic: names, access modes and topic epochs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::broker::connections::EndpointDescription;
use crate::broker::ids::ProducerKey;
use crate::broker::refusal::{NAMING_EXCEPTION, PRODUCER_BUSY_EXCEPTION, PRODUCER_FENCED_EXCEPTION, refuse};
use crate::pb::{ProducerAccessMode, ServerError};
use crate::wire::command::Refusal;

/// Producers of one topic; one more gets ProducerBusy.
const PRODUCERS_MAX: usize = 100_000;

/// A producer whose PRODUCER passed all checks but that of its access mode.
#[derive(Debug)]
pub(crate) struct OpeningProducer {
    pub(crate) key: ProducerKey,
    pub(crate) request_id: u64,
    pub(crate) name: Arc<str>,
    /// The topic epoch it brings.
    pub(crate) topic_epoch: Option<u64>,
    pub(crate) schema_version: Bytes,
    pub(crate) description: EndpointDescription,
}

/// What becomes of a PRODUCER whose access mode allows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It shares the topic.
    Shared,
    /// It has the topic alone. `fenced` are those that it displaces.
    Exclusive { topic_epoch: u64, fenced: Vec<ProducerKey> },
    /// It waits for the topic (WaitForExclusive).
    Queued,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct TopicProducers {
    /// Names of the connected producers.
    connected: BTreeMap<ProducerKey, Arc<str>>,
    /// Those of WaitForExclusive that wait, in order of arrival.
    queue: VecDeque<OpeningProducer>,
    /// The producer that has the topic alone.
    exclusive: Option<ProducerKey>,
    /// Of each connected producer.
    descriptions: BTreeMap<ProducerKey, EndpointDescription>,
    /// Counts exclusive producers, to fence out earlier ones.
    topic_epoch: Option<u64>,
}

impl TopicProducers {
    pub(crate) fn keys(&self) -> Vec<ProducerKey> {
        self.connected.keys().copied().collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ProducerKey, &Arc<str>)> {
        self.connected.iter().map(|(key, name)| (*key, name))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.connected.values()
    }

    pub(crate) fn name_of(&self, key: ProducerKey) -> Option<&Arc<str>> {
        self.connected.get(&key)
    }

    pub(crate) fn holder_of(&self, name: &str) -> Option<ProducerKey> {
        self.connected.iter().find(|(_, connected)| ***connected == *name).map(|(key, _)| *key)
    }

    /// Whether the topic takes one more producer, of this name if it has chosen one. `limit` is that of the policies; 0: none.
    pub(crate) fn check_connect(&self, topic: &str, name: Option<&str>, limit: Option<u32>) -> Result<(), Refusal> {
        let limit = limit.filter(|limit| *limit > 0).map_or(PRODUCERS_MAX, |limit| PRODUCERS_MAX.min(limit as usize));
        if self.connected.len() >= limit {
            let text = format!("Topic '{topic}' reached max producers limit");
            return Err(refuse(ServerError::ProducerBusy, text));
        }
        match name {
            Some(name) if self.holder_of(name).is_some() => {
                let text =
                    format!("{NAMING_EXCEPTION}Producer with name '{name}' is already connected to topic '{topic}'");
                Err(refuse(ServerError::ProducerBusy, text))
            }
            _ => Ok(()),
        }
    }

    /// Applies the access mode of a PRODUCER:
    ///
    /// | mode | topic is free | shared producers | an exclusive one, or some wait for it |
    /// | --- | --- | --- | --- |
    /// | Shared | shared | shared | ProducerBusy |
    /// | Exclusive | exclusive | ProducerFenced | ProducerFenced |
    /// | WaitForExclusive | exclusive | queued | queued |
    /// | ExclusiveWithFencing | exclusive | exclusive, fences all out | exclusive, fences all out |
    ///
    /// An exclusive one has to bring a topic epoch that is not older than the topic's, or none.
    pub(crate) fn admit(&mut self, mode: ProducerAccessMode, topic_epoch: Option<u64>) -> Result<Admission, Refusal> {
        let exclusive = self.exclusive.and_then(|key| self.connected.get(&key));
        let is_reserved = exclusive.is_some() || !self.queue.is_empty();
        let is_taken = is_reserved || !self.connected.is_empty();
        let reason = match exclusive {
            Some(name) => format!("Topic has an existing exclusive producer: {name}"),
            None if !self.connected.is_empty() => "Topic has existing shared producers".to_owned(),
            None => "Topic has producers waiting for exclusivity".to_owned(),
        };
        match mode {
            ProducerAccessMode::Shared if is_reserved => {
                Err(refuse(ServerError::ProducerBusy, format!("{PRODUCER_BUSY_EXCEPTION}{reason}")))
            }
            ProducerAccessMode::Shared => Ok(Admission::Shared),
            ProducerAccessMode::Exclusive if is_taken => {
                Err(refuse(ServerError::ProducerFenced, format!("{PRODUCER_FENCED_EXCEPTION}{reason}")))
            }
            ProducerAccessMode::WaitForExclusive if is_taken => Ok(Admission::Queued),
            ProducerAccessMode::Exclusive | ProducerAccessMode::WaitForExclusive => {
                let topic_epoch = self.raise_epoch(topic_epoch)?;
                Ok(Admission::Exclusive { topic_epoch, fenced: Vec::new() })
            }
            ProducerAccessMode::ExclusiveWithFencing => {
                let topic_epoch = self.raise_epoch(topic_epoch)?;
                Ok(Admission::Exclusive { topic_epoch, fenced: self.keys() })
            }
        }
    }

    /// The topic epoch of a new exclusive producer: the next one, or the one it brings unless that is an old one.
    fn raise_epoch(&mut self, given: Option<u64>) -> Result<u64, Refusal> {
        let epoch = match (given, self.topic_epoch) {
            (Some(given), Some(current)) if given < current => {
                let text = format!(
                    "{PRODUCER_FENCED_EXCEPTION}Topic epoch has already moved. Current epoch: {current}, Producer epoch: {given}"
                );
                return Err(refuse(ServerError::ProducerFenced, text));
            }
            (Some(given), _) => given,
            (None, current) => current.map_or(0, |current| current.wrapping_add(1)),
        };
        self.topic_epoch = Some(epoch);
        Ok(epoch)
    }

    pub(crate) fn connect(
        &mut self,
        key: ProducerKey,
        name: Arc<str>,
        is_exclusive: bool,
        description: EndpointDescription,
    ) {
        if is_exclusive {
            self.exclusive = Some(key);
        }
        self.connected.insert(key, name);
        self.descriptions.insert(key, description);
    }

    pub(crate) fn description(&self, key: ProducerKey) -> Option<&EndpointDescription> {
        self.descriptions.get(&key)
    }

    /// Producers that wait for exclusivity.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn enqueue(&mut self, producer: OpeningProducer) {
        self.queue.push_back(producer);
    }

    /// Empties the queue of WaitForExclusive.
    pub(crate) fn take_queue(&mut self) -> VecDeque<OpeningProducer> {
        std::mem::take(&mut self.queue)
    }

    /// Takes a producer off the topic, connected or queued.
    pub(crate) fn disconnect(&mut self, key: ProducerKey) {
        self.connected.remove(&key);
        self.descriptions.remove(&key);
        self.queue.retain(|queued| queued.key != key);
        if self.exclusive == Some(key) {
            self.exclusive = None;
        }
    }

    /// The next producer of the queue once the topic is free, and its topic epoch or why it does not get the topic.
    pub(crate) fn take_next(&mut self) -> Option<(OpeningProducer, Result<u64, Refusal>)> {
        if !self.connected.is_empty() {
            return None;
        }
        let next = self.queue.pop_front()?;
        let epoch = self.raise_epoch(next.topic_epoch);
        Some((next, epoch))
    }
}
