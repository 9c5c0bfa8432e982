//! The admin API of a real broker, as far as tests need it.
//!
//! HTTP by hand: a request of HTTP/1.0 is answered in one piece that ends with the connection, which is less code than
//! an HTTP client takes to configure, and no dependency.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::suite::target::{ConsumerView, SubscriptionView, TopicView};

#[derive(Clone)]
pub struct Admin {
    address: String,
    token: String,
}

impl Admin {
    /// `url` is `http://host:port`.
    pub fn new(url: &str, token: String) -> Self {
        Self { address: url.trim_start_matches("http://").trim_end_matches('/').to_owned(), token }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Statistics with the backlog counted now; `None` for a topic that does not exist.
    pub async fn stats(&self, topic: &str) -> Option<TopicView> {
        let query = "/stats?getPreciseBacklog=true";
        let (status, body) = self.request("GET", &path(topic, query), "").await;
        if status == 404 {
            return None;
        }
        assert_eq!(status, 200, "statistics of {topic}: {body}");
        Some(view(&serde_json::from_str(&body).expect("statistics in JSON")))
    }

    /// The topic's latest schema, if it has one.
    pub async fn schema(&self, topic: &str) -> Option<Value> {
        let name = topic.split_once("://").expect("a full name").1;
        let (status, body) = self.request("GET", &format!("/admin/v2/schemas/{name}/schema"), "").await;
        if status == 404 {
            return None;
        }
        assert_eq!(status, 200, "the schema of {topic}: {body}");
        Some(serde_json::from_str(&body).expect("a schema in JSON"))
    }

    /// A request that changes something and is expected to succeed.
    pub async fn change(&self, method: &str, topic: &str, action: &str, body: &str) {
        let (status, answer) = self.request(method, &path(topic, action), body).await;
        assert!((200..300).contains(&status), "{method} {topic} {action}: {status} {answer}");
    }

    /// A request about a namespace, `tenant/namespace`, that is expected to succeed.
    pub async fn change_namespace(&self, method: &str, namespace: &str, action: &str, body: &str) {
        let (status, answer) = self.request(method, &format!("/admin/v2/namespaces/{namespace}{action}"), body).await;
        assert!((200..300).contains(&status), "{method} {namespace} {action}: {status} {answer}");
    }

    async fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let request = format!(
            "{method} {path} HTTP/1.0\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        let mut socket = TcpStream::connect(&self.address).await.expect("the admin port");
        socket.write_all(request.as_bytes()).await.expect("the request to be taken");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("an HTTP status");
        (status, body.to_owned())
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
        consumers: list(&subscription["consumers"]).iter().map(consumer).collect(),
    };
    let subscriptions = stats["subscriptions"].as_object().expect("subscriptions");
    TopicView {
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
