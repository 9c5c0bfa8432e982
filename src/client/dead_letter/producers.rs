//! The producers of retries and dead letters, each created with the first message that needs it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::policy::{DeadLetterPolicy, LetterKind};
use crate::client::subscribe::random_name;
use crate::client::{Client, Producer, Shared};
use crate::error::{Error, Result};
use crate::schema::{SchemaInfo, SchemaType};

/// See the module. Bounded by the topics of the consumer.
pub(in crate::client) struct Producers {
    client: Client,
    /// Topic, subscription and consumer, for the names of producers.
    subscription: String,
    consumer: String,
    schema: Option<SchemaInfo>,
    /// Held while one is created, so that it is created once. In an order of their own, so that a simulated run is the same again.
    by_topic: Mutex<BTreeMap<String, Arc<Producer>>>,
}

impl Producers {
    pub(in crate::client) fn new(
        client: Arc<Shared>,
        subscription: String,
        consumer: String,
        schema: Option<SchemaInfo>,
    ) -> Self {
        // That a consumer takes any schema says nothing about what is sent.
        let schema = schema.filter(|schema| schema.schema_type != SchemaType::AutoConsume);
        let by_topic = Mutex::default();
        Self { client: Client { shared: client }, subscription, consumer, schema, by_topic }
    }

    /// The producer of `topic`.
    pub(super) async fn get(&self, kind: LetterKind, topic: &str, policy: &DeadLetterPolicy) -> Result<Arc<Producer>> {
        let mut by_topic = self.by_topic.lock().await;
        if let Some(producer) = by_topic.get(topic) {
            return Ok(producer.clone());
        }
        let suffix = if kind == LetterKind::Dead { "DLQ" } else { "RETRY" };
        let name = format!("{topic}-{}-{}-{}-{suffix}", self.subscription, self.consumer, random_name());
        // A message that was chunked, or grows too large by the properties that are added, is split.
        let is_persistent = !topic.starts_with("non-persistent://");
        let mut builder = self.client.producer(topic).name(name).batching(false).chunking(is_persistent);
        if let Some(schema) = &self.schema {
            builder = builder.schema(schema.clone());
        }
        let options = match kind {
            LetterKind::Dead => {
                if let Some(subscription) = &policy.initial_subscription {
                    builder = builder.initial_subscription(subscription);
                }
                &policy.dead_letter_producer
            }
            LetterKind::Retry => &policy.retry_letter_producer,
        };
        if let Some(options) = options {
            builder = options(builder);
        }
        let producer = Arc::new(builder.create().await?);
        by_topic.insert(topic.to_owned(), producer.clone());
        Ok(producer)
    }

    /// A message was refused for good: the next one gets a new producer. Called from callbacks, so it does not wait; one
    /// that is missed is replaced after the next refusal.
    pub(super) fn failed(&self, topic: &str, error: &Error) {
        if !error.is_retriable() {
            if let Ok(mut by_topic) = self.by_topic.try_lock() {
                by_topic.remove(topic);
            }
        }
    }
}
