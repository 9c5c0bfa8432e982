//! The admin API of a real broker, as far as the suite and the tests beside it need it.

use serde_json::Value;

use crate::common::admin_http::{self, Answer};
use crate::suite::target::{ConsumerView, Feature, QuotaPolicy, SubscriptionView, TopicView};
use crate::suite::until;

#[derive(Clone)]
pub struct Admin {
    address: String,
    token: String,
}

impl Admin {
    /// `url` is `http://host:port`.
    pub fn new(url: &str, token: String) -> Self {
        Self { address: admin_http::address_of(url).to_owned(), token }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Statistics with the backlog counted now; `None` for a topic that does not exist.
    pub async fn stats(&self, topic: &str) -> Option<TopicView> {
        let query = "/stats?getPreciseBacklog=true";
        let answer = self.request("GET", &path(topic, query), "").await;
        if answer.status == 404 {
            return None;
        }
        assert_eq!(answer.status, 200, "statistics of {topic}: {}", answer.body);
        Some(view(&serde_json::from_str(&answer.body).expect("statistics in JSON")))
    }

    /// The topic's latest schema, if it has one.
    pub async fn schema(&self, topic: &str) -> Option<Value> {
        let name = topic.split_once("://").expect("a full name").1;
        let answer = self.request("GET", &format!("/admin/v2/schemas/{name}/schema"), "").await;
        if answer.status == 404 {
            return None;
        }
        assert_eq!(answer.status, 200, "the schema of {topic}: {}", answer.body);
        Some(serde_json::from_str(&answer.body).expect("a schema in JSON"))
    }

    /// A request that changes something and is expected to succeed.
    pub async fn change(&self, method: &str, topic: &str, action: &str, body: &str) {
        let answer = self.request(method, &path(topic, action), body).await;
        assert!(answer.is_success(), "{method} {topic} {action}: {} {}", answer.status, answer.body);
    }

    /// What the broker shows of the storage of a topic.
    pub async fn internal_stats(&self, topic: &str) -> Value {
        let answer = self.request("GET", &path(topic, "/internalStats"), "").await;
        serde_json::from_str(&answer.body).expect("statistics in JSON")
    }

    /// What a request about a topic says.
    pub async fn read(&self, topic: &str, action: &str) -> Value {
        let answer = self.request("GET", &path(topic, action), "").await;
        assert_eq!(answer.status, 200, "{action} of {topic}: {}", answer.body);
        serde_json::from_str(&answer.body).expect("an answer in JSON")
    }

    /// A request about a namespace, `tenant/namespace`, that is expected to succeed.
    pub async fn change_namespace(&self, method: &str, namespace: &str, action: &str, body: &str) {
        let answer = self.request(method, &format!("/admin/v2/namespaces/{namespace}{action}"), body).await;
        assert!(answer.is_success(), "{method} {namespace} {action}: {} {}", answer.status, answer.body);
    }

    /// The namespace that offers `feature`.
    pub async fn namespace_with(&self, feature: Feature) -> &'static str {
        match feature {
            Feature::Deduplication => "public/dedup",
            Feature::NoTopicCreation => "public/strict",
            Feature::FewUnacknowledged => {
                let namespace = "public/few-unacknowledged";
                self.limit_unacknowledged(namespace, crate::suite::idle::FEW).await;
                namespace
            }
        }
    }

    /// Makes a namespace, which may be there already.
    pub async fn make_namespace(&self, namespace: &str) {
        let answer = self.request("PUT", &format!("/admin/v2/namespaces/{namespace}"), "").await;
        assert!(answer.is_success() || answer.status == 409, "{namespace}: {} {}", answer.status, answer.body);
    }

    /// The same, and limits what a consumer in it may leave unacknowledged.
    async fn limit_unacknowledged(&self, namespace: &str, messages: u64) {
        self.make_namespace(namespace).await;
        self.change_namespace("POST", namespace, "/maxUnackedMessagesPerConsumer", &messages.to_string()).await;
    }

    /// Compacts a topic, and waits until it is done.
    pub async fn compact(&self, topic: &str) {
        self.change("PUT", topic, "/compaction", "").await;
        let state = path(topic, "/compaction");
        let look = || async { self.request("GET", &state, "").await.body };
        until("the end of the compaction", look, |state| state.contains("SUCCESS")).await;
    }

    /// Sets or removes the backlog quota of a topic, and waits until the broker applies it: it reads the policies of topics
    /// from a topic of its own.
    pub async fn limit_backlog(&self, topic: &str, policy: Option<QuotaPolicy>) {
        let (method, action) = ("POST", "/backlogQuota?backlogQuotaType=destination_storage");
        let name = match policy {
            None => return self.change("DELETE", topic, action, "").await,
            Some(QuotaPolicy::ProducerException) => "producer_exception",
            Some(QuotaPolicy::ProducerRequestHold) => "producer_request_hold",
        };
        let limit = format!(r#"{{"limitSize":1000,"limit":1000,"limitTime":-1,"policy":"{name}"}}"#);
        self.change(method, topic, action, &limit).await;
        let applied = path(topic, "/backlogQuotaMap");
        let look = || async { self.request("GET", &applied, "").await.body };
        until("the quota to be there", look, |quotas| quotas.contains(name)).await;
    }

    async fn request(&self, method: &str, path: &str, body: &str) -> Answer {
        admin_http::request(&self.address, &self.token, method, path, body).await.expect("an answer of the admin port")
    }
}

/// `persistent://tenant/namespace/topic` as a path of the admin API.
fn path(topic: &str, action: &str) -> String {
    format!("/admin/v2/{}{action}", topic.replacen("://", "/", 1))
}

fn view(stats: &Value) -> TopicView {
    let consumer = |consumer: &Value| ConsumerView {
        name: text(&consumer["consumerName"]),
        permits: consumer["availablePermits"].as_i64().expect("availablePermits"),
    };
    let subscription = |subscription: &Value| SubscriptionView {
        backlog: subscription["msgBacklog"].as_u64().expect("msgBacklog"),
        unacked: subscription["unackedMessages"].as_u64().expect("unackedMessages"),
        messages_out: subscription["msgOutCounter"].as_u64().expect("msgOutCounter"),
        consumers: list(&subscription["consumers"]).iter().map(consumer).collect(),
    };
    let subscriptions = stats["subscriptions"].as_object().expect("subscriptions");
    TopicView {
        messages_in: stats["msgInCounter"].as_u64().expect("msgInCounter"),
        publishers: list(&stats["publishers"]).iter().map(|publisher| text(&publisher["producerName"])).collect(),
        subscriptions: subscriptions.iter().map(|(name, stats)| (name.clone(), subscription(stats))).collect(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
