//! How a consumer begins: its topics are found, and attached.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use super::consumer::Consumer;
use super::consumer_builder::ConsumerBuilder;
use super::consumer_shared::ConsumerShared;
use super::dead_letter::{DeadLetterPolicy, LetterTopics};
use super::encryption::Decryption;
use super::joining::{Joining, QueueLimits};
use super::parse_topic;
#[cfg(feature = "patterns")]
use super::pattern::{TopicPattern, follow::Start};
use super::topics::Selection;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::consumer::ConsumerConfig;
use crate::topic::TopicName;

/// A pattern to be followed.
#[cfg(feature = "patterns")]
pub(super) type Followed = Start;
#[cfg(not(feature = "patterns"))]
pub(super) type Followed = std::convert::Infallible;

/// What is behind the topics of a consumer.
#[derive(Default)]
struct Found {
    /// The full names of the topics, or the pattern.
    names: Vec<Arc<str>>,
    /// By full name and partition index.
    parts: Vec<(Arc<str>, i32)>,
    /// Those of the topics that have partitions.
    partitioned: Vec<TopicName>,
    followed: Option<Followed>,
}

impl ConsumerBuilder {
    /// Subscribes: to each topic, or to each of its partitions.
    ///
    /// # Errors
    /// - [`InvalidArgument`](crate::ErrorKind::InvalidArgument): an unusable option, topic name or pattern, or no topic.
    /// - The broker's refusal: unknown topic, no permission, a subscription that another consumer holds, a schema that
    ///   does not fit.
    /// - [`TimedOut`](crate::ErrorKind::TimedOut), with the last cause, after the operation timeout.
    ///
    /// A topic of a [pattern](super::Topics::pattern) that is deleted meanwhile is no error.
    ///
    /// # Cancel safety
    /// Dropping the future closes the topics and partitions attached so far. A subscription that it created stays.
    pub async fn subscribe(self) -> Result<Consumer> {
        self.config.validate()?;
        self.auto_update.validate()?;
        if self.total_queue_size_max == 0 {
            let what = "`max_total_receiver_queue_size_across_partitions` is 0: at least 1";
            return Err(Error::local(ErrorKind::InvalidArgument, what));
        }
        if self.scales_queue == Some(true) && self.config.receiver_queue_size == 0 {
            let what = "`auto_scaled_receiver_queue_size` with a `receiver_queue_size` of 0, which does not grow";
            return Err(Error::local(ErrorKind::InvalidArgument, what));
        }
        let letter_topics = self.letter_topics().await?;
        let retry_topic = letter_topics.as_ref().and_then(LetterTopics::retry_topic);
        let Found { names, parts, partitioned, followed } = self.find(retry_topic).await?;
        let follows_pattern = followed.is_some();
        let config = self.client.consumer_options.share(self.config_for(parts.len(), follows_pattern));
        let joining =
            Joining { initial_position: self.position_of_added, queues: self.queue_limits(), follows_pattern };
        let may_grow = follows_pattern || !partitioned.is_empty();
        let growth = Some(self.auto_update).filter(|auto_update| auto_update.is_enabled && may_grow);
        // Created before the first response is awaited, so that dropping this future closes what was attached.
        let mut shared = ConsumerShared::new(self.client.clone(), names, config, joining);
        shared.set_partitioned(partitioned);
        shared.interceptors = self.interceptors;
        shared.positions = self.positions;
        shared.decryption = Arc::new(Decryption::new(&self.encryption));
        let letters = letter_topics.map(|topics| shared.set_dead_letters(topics));
        shared.set_paused(self.starts_paused);
        let mut opened = Vec::new();
        for (topic, partition) in parts {
            opened.push(shared.open_part(topic, partition)?);
        }
        for (id, subscribed) in opened {
            match subscribed.await {
                // Deleted since it was in the list.
                Err(error) if follows_pattern && error.kind() == ErrorKind::TopicNotFound => {
                    drop(shared.parts.remove(id))
                }
                subscribed => subscribed?,
            }
        }
        Ok(Consumer::new(Arc::new(shared), letters, growth, followed))
    }

    /// The topics of retries and dead letters, where there are any.
    async fn letter_topics(&self) -> Result<Option<LetterTopics>> {
        let Some(policy) = self.dead_letter_policy.clone().or(self.retries.then(DeadLetterPolicy::default)) else {
            return Ok(None);
        };
        policy.validate(self.config.subscription_type, self.retries)?;
        let first = match self.topics.selection() {
            Selection::Names(topics) => topics.first(),
            #[cfg(feature = "patterns")]
            Selection::Pattern(_) if self.retries => {
                let what = "`retry_enabled` needs a topic that the retry topic is named after, and a pattern is none";
                return Err(Error::local(ErrorKind::InvalidArgument, what));
            }
            // Dead letters are named after the topic that they are given up on.
            #[cfg(feature = "patterns")]
            Selection::Pattern(pattern) => Some(pattern),
        };
        let Some(first) = first else { return Ok(None) };
        // Few have any: a box keeps the future of the others small.
        let finding = LetterTopics::find(&self.client, policy, self.retries, first, &self.config.subscription);
        Box::pin(finding).await.map(Some)
    }

    async fn find(&self, retry_topic: Option<&str>) -> Result<Found> {
        match self.topics.selection() {
            Selection::Names(topics) => self.find_named(topics.iter().map(String::as_str).chain(retry_topic)).await,
            #[cfg(feature = "patterns")]
            Selection::Pattern(pattern) => Box::pin(self.find_matching(pattern)).await,
        }
    }

    #[cfg(feature = "patterns")]
    async fn find_matching(&self, text: &str) -> Result<Found> {
        let pattern = TopicPattern::parse(text, self.topics_mode)?;
        if self.discovery_period < super::growth::INTERVAL_MIN {
            let what = format!("`pattern_auto_discovery_period` is {:?}: at least 1 s", self.discovery_period);
            return Err(Error::local(ErrorKind::InvalidArgument, what));
        }
        let (names, found) = pattern.find(&self.client).await?;
        let period = self.discovery_period.min(super::growth::INTERVAL_MAX);
        let followed = Start { pattern: Arc::new(pattern), names, period };
        let names = vec![text.into()];
        Ok(Found { names, parts: found.parts, partitioned: found.partitioned, followed: Some(followed) })
    }

    async fn find_named(&self, topics: impl Iterator<Item = &str>) -> Result<Found> {
        let mut found = Found::default();
        for name in topics {
            let topic = parse_topic(name)?;
            if found.names.iter().any(|known| **known == *topic.as_str()) {
                let what = format!("{topic} is named twice");
                return Err(Error::local(ErrorKind::InvalidArgument, what));
            }
            let (name, parts) = self.client.parts_of(&topic).await?;
            found.names.push(name);
            // The name of a partition is a topic by itself.
            if topic.partition_index().is_none() && parts.iter().any(|(_, partition)| *partition >= 0) {
                found.partitioned.push(topic);
            }
            found.parts.extend(parts);
        }
        if found.names.is_empty() {
            return Err(Error::local(ErrorKind::InvalidArgument, "a consumer needs a topic"));
        }
        found.names.shrink_to_fit();
        Ok(found)
    }

    fn queue_limits(&self) -> QueueLimits {
        let is_scaled = self.scales_queue.unwrap_or(true);
        QueueLimits { each: self.config.receiver_queue_size, total: self.total_queue_size_max, is_scaled }
    }

    fn config_for(&self, parts: usize, follows_pattern: bool) -> ConsumerConfig {
        let mut config = ConsumerConfig::clone(&self.config);
        self.queue_limits().apply(parts, &mut config);
        if follows_pattern {
            // What was deleted stays deleted, and what is made again is another topic.
            config.force_topic_creation = mutation!(PatternMakesTopics);
            config.recreated_position = Some(self.position_of_added);
        }
        config
    }
}

/// Five letters, as the Java client names its consumers.
pub(super) fn random_name() -> String {
    let mut bits = RandomState::new().build_hasher().finish();
    let letter = |_| {
        let letter = b'a' + (bits % 26) as u8;
        bits /= 26;
        char::from(letter)
    };
    (0..5).map(letter).collect()
}
