//! Which topics the retries and dead letters of a consumer go to.

use super::policy::{DeadLetterNames, DeadLetterPolicy, LetterKind};
use crate::client::{Shared, parse_topic};
use crate::error::{ErrorKind, Result};
use crate::machine::supervisor::query;
use crate::pb;
use crate::topic::TopicName;

/// The topics of a policy.
pub(in crate::client) struct LetterTopics {
    pub(super) policy: DeadLetterPolicy,
    /// The full name; `None` without retries.
    retry_topic: Option<String>,
}

impl LetterTopics {
    /// Finds the topics of a consumer. With retries they are named after its first topic, unless the policy names them or
    /// they exist under the older name.
    ///
    /// As the Java client does it since 3.3: it asks for partitions without having the topic created (PIP-344), and a
    /// topic of the older name counts whether it is partitioned or not. A broker that would create it is asked for the
    /// list of its namespace instead.
    pub(in crate::client) async fn find(
        client: &Shared,
        mut policy: DeadLetterPolicy,
        retries: bool,
        first_topic: &str,
        subscription: &str,
    ) -> Result<Self> {
        if !retries {
            return Ok(Self { policy, retry_topic: None });
        }
        let first = parse_topic(first_topic)?.base();
        let mut found = [LetterKind::Retry, LetterKind::Dead].map(|kind| (kind, None));
        for (kind, topic) in &mut found {
            let given = match kind {
                LetterKind::Dead => policy.dead_letter_topic.take(),
                LetterKind::Retry => policy.retry_letter_topic.take(),
            };
            *topic = Some(match given {
                Some(given) => parse_topic(&given)?.as_str().to_owned(),
                None => named(client, policy.names, *kind, &first, subscription).await?,
            });
        }
        let [(_, retry_topic), (_, dead_letter_topic)] = found;
        policy.dead_letter_topic = dead_letter_topic;
        Ok(Self { policy, retry_topic })
    }

    /// Where retries go, and come from.
    pub(in crate::client) fn retry_topic(&self) -> Option<&str> {
        self.retry_topic.as_deref()
    }

    /// Where dead letters go of a topic or partition.
    pub(super) fn dead_letter_topic(&self, topic: &str, subscription: &str) -> String {
        match (&self.policy.dead_letter_topic, TopicName::parse(topic)) {
            (Some(given), _) => given.clone(),
            (None, Ok(topic)) => self.policy.names.name(LetterKind::Dead, &topic.base(), subscription),
            // Names of parts are well formed.
            (None, Err(_)) => topic.to_owned(),
        }
    }
}

async fn named(
    client: &Shared,
    names: DeadLetterNames,
    kind: LetterKind,
    topic: &TopicName,
    subscription: &str,
) -> Result<String> {
    if names == DeadLetterNames::TopicAndSubscription {
        let older = DeadLetterNames::Subscription.name(kind, topic, subscription);
        if exists(client, &parse_topic(&older)?).await? {
            return Ok(older);
        }
    }
    Ok(names.name(kind, topic, subscription))
}

/// Whether there is a topic of this name, partitioned or not. It is not created.
async fn exists(client: &Shared, topic: &TopicName) -> Result<bool> {
    match client.query(query::existing_partitions(&topic.as_str().into())).await {
        Ok(Some(_)) => return Ok(true),
        Err(error) if error.kind() == ErrorKind::TopicNotFound => return Ok(false),
        Err(error) => return Err(error),
        Ok(None) => {}
    }
    let namespace = topic.namespace().to_owned();
    let mut request = pb::CommandGetTopicsOfNamespace { namespace, ..Default::default() };
    request.set_mode(pb::command_get_topics_of_namespace::Mode::All);
    let topics = client.query(query::topics_of_namespace(request)).await?.topics;
    Ok(topics.iter().filter_map(|name| TopicName::parse(name).ok()).any(|name| name.base() == *topic))
}
