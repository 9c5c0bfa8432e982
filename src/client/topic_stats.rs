//! Statistics of topics, as the REST interface of the brokers tells them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::http::admin::{AdminApi, topic_path};
use super::{Client, parse_topic};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::consumer::SubscriptionType;
use crate::topic::TopicName;

/// The most partitions of one topic whose statistics are read.
const PARTITIONS_MAX: u64 = 10_000;

/// Statistics of one topic or of one partition, by [`Client::topic_stats`]. The names, and their meaning, are those of
/// Pulsar's admin API. What a broker does not say is 0, empty or `None`.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct TopicStatistics {
    /// The full name of the topic, or of the partition.
    pub topic: String,
    /// Messages published since the broker loaded the topic.
    pub msg_in_counter: u64,
    /// Bytes published since the broker loaded the topic.
    pub bytes_in_counter: u64,
    /// Messages published per second, as of the broker's last statistics round, of which there is one a minute by default.
    pub msg_rate_in: f64,
    /// Messages delivered per second to all subscriptions, as of the same round.
    pub msg_rate_out: f64,
    /// Bytes that are stored.
    pub storage_size: u64,
    /// The names of the connected producers (`publishers[].producerName`).
    pub publishers: Vec<String>,
    /// The subscriptions by their names.
    pub subscriptions: BTreeMap<String, SubscriptionStatistics>,
}

/// Statistics of one subscription of a topic.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct SubscriptionStatistics {
    /// `type`; `None` before its first consumer.
    pub subscription_type: Option<SubscriptionType>,
    /// Entries that are not acknowledged, delivered or not: a batch is one.
    pub msg_backlog: u64,
    /// Messages that were delivered and are not acknowledged; of Shared and Key_Shared subscriptions.
    pub unacked_messages: u64,
    /// Messages whose delivery time has not come.
    pub msg_delayed: u64,
    /// Messages delivered since the broker loaded the topic.
    pub msg_out_counter: u64,
    /// Messages delivered per second, as of the broker's last statistics round.
    pub msg_rate_out: f64,
    /// Exclusive and Failover: the consumer that gets the messages.
    pub active_consumer_name: Option<String>,
    /// It gets nothing, because too many messages are not acknowledged (`maxUnackedMessagesOnSubscription`).
    pub blocked_subscription_on_unacked_msgs: bool,
    /// Whether it stays without consumers: `false` for that of a reader.
    pub is_durable: bool,
    /// The connected consumers.
    pub consumers: Vec<ConnectedConsumerStatistics>,
}

/// Statistics of one consumer of a subscription.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct ConnectedConsumerStatistics {
    /// Its name.
    pub consumer_name: String,
    /// Messages that may be sent to it; below zero after a batch of more messages than it had permits.
    pub available_permits: i64,
    /// Messages that were delivered to it and are not acknowledged.
    pub unacked_messages: u64,
    /// Messages delivered to it since it connected.
    pub msg_out_counter: u64,
    /// Messages delivered to it per second, as of the broker's last statistics round.
    pub msg_rate_out: f64,
    /// It gets nothing, because too many messages are not acknowledged (`maxUnackedMessagesOnConsumer`).
    pub blocked_consumer_on_unacked_msgs: bool,
    /// Where it is connected from, as the broker writes it.
    pub address: Option<String>,
    /// Its client library.
    pub client_version: Option<String>,
    /// Since when, as the broker writes it: RFC 3339.
    pub connected_since: Option<String>,
}

impl Client {
    /// The statistics of a topic (`GET /admin/v2/{topic}/stats`): backlog and consumers of its subscriptions. One for a
    /// topic without partitions, or for one partition by its name; else one for each partition in their order. A
    /// partition that nothing has used yet has none. Creates no topic.
    ///
    /// They are read from the REST interface: where the service URL is `http://` or `https://`, or
    /// [`ClientBuilder::admin_url`](super::ClientBuilder::admin_url) names one.
    ///
    /// ```
    /// # #[cfg(feature = "broker")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use pulsar_native::{Client, broker::EmbeddedBroker};
    /// # let broker = EmbeddedBroker::builder().http(true).start().await?;
    /// # let url = broker.http_url().ok_or("no REST interface")?;
    /// let client = Client::builder(url).connect().await?;
    /// let consumer = client.consumer("orders", "billing").subscribe().await?;
    /// for topic in client.topic_stats("orders").await? {
    ///     println!("{}: {} entries in the backlog", topic.topic, topic.subscriptions["billing"].msg_backlog);
    /// }
    /// # drop(consumer);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "broker"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// - [`Unsupported`](ErrorKind::Unsupported): no URL of a REST interface is known.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the topic's name.
    /// - [`TopicNotFound`](ErrorKind::TopicNotFound): there is no such topic.
    /// - [`Authorization`](ErrorKind::Authorization): the role may not read it; on a broker with authorization that is
    ///   an administrator of the tenant, or a role with rights on the namespace.
    /// - [`TimedOut`](ErrorKind::TimedOut): a request had no answer within the operation timeout.
    /// - Why the REST interface could not be reached, or what else it answered.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request and has no other effect.
    pub async fn topic_stats(&self, topic: impl Into<String>) -> Result<Vec<TopicStatistics>> {
        let topic = parse_topic(&topic.into())?;
        let api = self.shared.admin.get().ok_or_else(|| {
            let what = "the statistics of topics are at the REST interface of the brokers, and its URL is not known: \
                        set ClientBuilder::admin_url";
            Error::local(ErrorKind::Unsupported, what)
        })?;
        let missing = match stats_of(&*api, &topic).await {
            Err(error) if error.kind() == ErrorKind::TopicNotFound => error,
            read => return Ok(vec![read?]),
        };
        let mut found = Vec::new();
        for partition in partitions_of(&*api, &topic).await? {
            match stats_of(&*api, &partition).await {
                Err(error) if error.kind() == ErrorKind::TopicNotFound => {}
                read => found.push(read?),
            }
        }
        if found.is_empty() { Err(missing) } else { Ok(found) }
    }
}

async fn get(api: &dyn AdminApi, topic: &TopicName, what: &str) -> Result<Value> {
    let path = topic_path(topic.as_str()).unwrap_or_default();
    api.get(format!("/admin/v2/{path}/{what}")).await.map_err(|error| error.with_topic(&topic.as_str().into()))
}

async fn stats_of(api: &dyn AdminApi, topic: &TopicName) -> Result<TopicStatistics> {
    Ok(read_topic(topic.as_str(), &get(api, topic, "stats").await?))
}

/// None if it has none, is one itself, or does not exist.
async fn partitions_of(api: &dyn AdminApi, topic: &TopicName) -> Result<Vec<TopicName>> {
    if topic.partition_index().is_some() {
        return Ok(Vec::new());
    }
    let count = match get(api, topic, "partitions?checkAllowAutoCreation=false").await {
        Ok(metadata) => number(&metadata, "partitions").min(PARTITIONS_MAX),
        Err(error) if error.kind() == ErrorKind::TopicNotFound => 0,
        Err(error) => return Err(error),
    };
    Ok((0..count).filter_map(|index| u32::try_from(index).ok()).map(|index| topic.partition(index)).collect())
}

fn number(value: &Value, name: &str) -> u64 {
    // Below zero for a moment, where a broker subtracts two counts.
    value.get(name).and_then(Value::as_u64).unwrap_or(0)
}

fn rate(value: &Value, name: &str) -> f64 {
    value.get(name).and_then(Value::as_f64).unwrap_or(0.0)
}

fn flag(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// `None` too where it is empty.
fn text(value: &Value, name: &str) -> Option<String> {
    value.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn list<T>(value: &Value, name: &str, read: impl Fn(&Value) -> T) -> Vec<T> {
    value.get(name).and_then(Value::as_array).map(|all| all.iter().map(read).collect()).unwrap_or_default()
}

fn read_topic(topic: &str, stats: &Value) -> TopicStatistics {
    let subscriptions = stats.get("subscriptions").and_then(Value::as_object).into_iter().flatten();
    TopicStatistics {
        topic: topic.to_owned(),
        msg_in_counter: number(stats, "msgInCounter"),
        bytes_in_counter: number(stats, "bytesInCounter"),
        msg_rate_in: rate(stats, "msgRateIn"),
        msg_rate_out: rate(stats, "msgRateOut"),
        storage_size: number(stats, "storageSize"),
        publishers: list(stats, "publishers", |one| text(one, "producerName").unwrap_or_default()),
        subscriptions: subscriptions.map(|(name, stats)| (name.clone(), read_subscription(stats))).collect(),
    }
}

fn read_subscription(stats: &Value) -> SubscriptionStatistics {
    let subscription_type = text(stats, "type").and_then(|name| match name.as_str() {
        "Exclusive" => Some(SubscriptionType::Exclusive),
        "Shared" => Some(SubscriptionType::Shared),
        "Failover" => Some(SubscriptionType::Failover),
        "Key_Shared" => Some(SubscriptionType::KeyShared),
        _ => None,
    });
    SubscriptionStatistics {
        subscription_type,
        msg_backlog: number(stats, "msgBacklog"),
        unacked_messages: number(stats, "unackedMessages"),
        msg_delayed: number(stats, "msgDelayed"),
        msg_out_counter: number(stats, "msgOutCounter"),
        msg_rate_out: rate(stats, "msgRateOut"),
        active_consumer_name: text(stats, "activeConsumerName"),
        blocked_subscription_on_unacked_msgs: flag(stats, "blockedSubscriptionOnUnackedMsgs"),
        is_durable: flag(stats, "isDurable"),
        consumers: list(stats, "consumers", read_consumer),
    }
}

fn read_consumer(stats: &Value) -> ConnectedConsumerStatistics {
    ConnectedConsumerStatistics {
        consumer_name: text(stats, "consumerName").unwrap_or_default(),
        available_permits: stats.get("availablePermits").and_then(Value::as_i64).unwrap_or(0),
        unacked_messages: number(stats, "unackedMessages"),
        msg_out_counter: number(stats, "msgOutCounter"),
        msg_rate_out: rate(stats, "msgRateOut"),
        blocked_consumer_on_unacked_msgs: flag(stats, "blockedConsumerOnUnackedMsgs"),
        address: text(stats, "address"),
        client_version: text(stats, "clientVersion"),
        connected_since: text(stats, "connectedSince"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_broker_says_in_another_form_is_taken_as_not_said() {
        let odd = json!({
            "msgInCounter": -1, "msgRateIn": "fast", "publishers": {}, "storageSize": 1e300,
            "subscriptions": { "s": { "type": "Other", "consumers": [7, null], "msgBacklog": -3 }, "t": null },
        });
        let stats = read_topic("t", &odd);
        assert_eq!((stats.msg_in_counter, stats.msg_rate_in, stats.storage_size), (0, 0.0, 0));
        let subscription = &stats.subscriptions["s"];
        assert_eq!((subscription.subscription_type, subscription.msg_backlog), (None, 0));
        assert_eq!(subscription.consumers, vec![ConnectedConsumerStatistics::default(); 2]);
        assert_eq!(stats.subscriptions["t"], SubscriptionStatistics::default());
        for nothing in [json!(null), json!([]), json!({ "subscriptions": [1] })] {
            let expected = TopicStatistics { topic: "t".to_owned(), ..Default::default() };
            assert_eq!(read_topic("t", &nothing), expected);
        }
    }
}
