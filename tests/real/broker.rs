//! A real broker, as `scripts/real-pulsar` starts it and names it in the environment.

use std::path::PathBuf;

use pulsar_native::broker::EmbeddedBroker;

use crate::admin::Admin;
use crate::suite::target::{Cluster, Feature, Fut, QuotaPolicy, Role, TopicView};
use crate::suite::*;

/// How to get one.
pub const HOW: &str = "no PULSAR_URL in the environment: scripts/real-pulsar run cargo test --all-features";

/// What the environment says of the broker.
#[derive(Clone)]
pub struct Real {
    /// Of the binary protocol.
    pub url: String,
    /// Whether the suite gets the web port as its service URL.
    is_http: bool,
    pub tls_url: String,
    /// `https://`.
    pub web_tls_url: String,
    pub ca_file: PathBuf,
    pub admin: Admin,
    token: String,
    nobody_token: String,
    expired_token: String,
    token_key: PathBuf,
}

impl Real {
    /// `None` without a broker.
    pub fn from_environment() -> Option<Self> {
        let url = std::env::var("PULSAR_URL").ok()?;
        let token = variable("PULSAR_TOKEN");
        Some(Self {
            url,
            is_http: false,
            tls_url: variable("PULSAR_TLS_URL"),
            web_tls_url: variable("PULSAR_WEB_TLS_URL"),
            ca_file: variable("PULSAR_CA_FILE").into(),
            admin: Admin::new(&variable("PULSAR_ADMIN_URL"), token.clone()),
            token,
            nobody_token: variable("PULSAR_NOBODY_TOKEN"),
            expired_token: variable("PULSAR_EXPIRED_TOKEN"),
            token_key: variable("PULSAR_TOKEN_KEY").into(),
        })
    }

    /// The same with its web port as the service URL.
    pub fn over_http(&self) -> Self {
        Self { is_http: true, ..self.clone() }
    }

    pub fn http_url(&self) -> String {
        format!("http://{}", self.admin.address())
    }

    pub fn target(&self) -> Target {
        Target::new(Arc::new(self.clone()))
    }
}

impl Real {
    /// An embedded broker that has the real one's key, to mint tokens.
    async fn mint(&self) -> EmbeddedBroker {
        let key = std::fs::read(&self.token_key).expect("the key of the tokens");
        EmbeddedBroker::builder().token_secret_key(key).start().await.expect("a free port")
    }
}

pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not in the environment, but PULSAR_URL is"))
}

impl Cluster for Real {
    fn url(&self) -> String {
        if self.is_http { self.http_url() } else { self.url.clone() }
    }

    fn broker_address(&self) -> String {
        self.url.trim_start_matches("pulsar://").to_owned()
    }

    fn token(&self, role: Role) -> String {
        match role {
            Role::Admin => self.token.clone(),
            Role::Nobody => self.nobody_token.clone(),
        }
    }

    fn expired_token(&self) -> String {
        self.expired_token.clone()
    }

    fn token_expiring(&self, valid_for: Duration) -> Fut<'_, String> {
        Box::pin(async move { self.mint().await.token_expiring("admin", valid_for) })
    }

    fn token_not_before(&self, starts_in: Duration) -> Fut<'_, String> {
        Box::pin(async move { self.mint().await.token_not_before("admin", starts_in) })
    }

    fn http_address(&self) -> Fut<'_, String> {
        Box::pin(async { self.admin.address().to_owned() })
    }

    fn with(&self, feature: Feature) -> Fut<'_, (Arc<dyn Cluster>, &'static str)> {
        let same = self.clone();
        Box::pin(async move {
            let namespace = same.admin.namespace_with(feature).await;
            (Arc::new(same) as Arc<dyn Cluster>, namespace)
        })
    }

    fn stats<'a>(&'a self, topic: &'a str) -> Fut<'a, Option<TopicView>> {
        Box::pin(self.admin.stats(topic))
    }

    fn create<'a>(&'a self, topic: &'a str) -> Fut<'a, ()> {
        Box::pin(self.admin.change("PUT", topic, "", ""))
    }

    fn create_partitioned<'a>(&'a self, topic: &'a str, partitions: u32) -> Fut<'a, ()> {
        Box::pin(async move { self.admin.change("PUT", topic, "/partitions", &partitions.to_string()).await })
    }

    fn grow<'a>(&'a self, topic: &'a str, partitions: u32) -> Fut<'a, ()> {
        Box::pin(async move { self.admin.change("POST", topic, "/partitions", &partitions.to_string()).await })
    }

    fn unload<'a>(&'a self, topic: &'a str) -> Fut<'a, ()> {
        Box::pin(self.admin.change("PUT", topic, "/unload", ""))
    }

    fn terminate<'a>(&'a self, topic: &'a str) -> Fut<'a, ()> {
        Box::pin(self.admin.change("POST", topic, "/terminate", ""))
    }

    fn delete<'a>(&'a self, topic: &'a str) -> Fut<'a, ()> {
        Box::pin(self.admin.change("DELETE", topic, "?force=true", ""))
    }

    fn compact<'a>(&'a self, topic: &'a str) -> Fut<'a, ()> {
        Box::pin(self.admin.compact(topic))
    }

    fn limit_backlog<'a>(&'a self, topic: &'a str, policy: Option<QuotaPolicy>) -> Fut<'a, ()> {
        Box::pin(self.admin.limit_backlog(topic, policy))
    }
}

/// All messages up to that with the text `wanted`, acknowledged, after an unload of the topic: the broker may deliver again
/// what was acknowledged just before, which is `repeated`, and nothing else.
pub async fn receive_after(consumer: &mut Consumer, repeated: &str, wanted: &str) -> Vec<ReceivedMessage> {
    let mut received = Vec::new();
    loop {
        let message = receive(consumer).await;
        within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed");
        let is_wanted = message.to_string_lossy() == wanted;
        assert!(is_wanted || message.to_string_lossy() == repeated, "neither repeated nor next: {message:?}");
        received.push(message);
        if is_wanted {
            return received;
        }
    }
}
