//! The cluster, as `scripts/real-cluster` starts it and names it in the environment, and the ways into it.

use std::path::PathBuf;

use pulsar_native::broker::EmbeddedBroker;
use pulsar_native::{Client, ClientBuilder};

use crate::admin::Admin;
use crate::common::cluster_admin::ClusterAdmin;
use crate::common::runner;
use crate::suite::target::{Cluster, Feature, Fut, QuotaPolicy, Role, TopicView};
use crate::suite::*;

/// The addresses of a server, each `host:port`.
#[derive(Debug, Clone)]
pub struct Addresses {
    pub plain: String,
    pub tls: String,
    pub web: String,
    pub web_tls: String,
}

impl Addresses {
    /// `CLUSTER_<name><number>`.
    fn of(name: &str, number: &str) -> Self {
        let get = |kind: &str| variable(&format!("CLUSTER_{name}{kind}{number}"));
        let web = |kind: &str| match name {
            "PROXY" => get(&format!("_WEB{kind}")),
            _ => variable(&format!("CLUSTER_WEB{kind}{number}")),
        };
        Self { plain: get(""), tls: get("_TLS"), web: web(""), web_tls: web("_TLS") }
    }
}

/// What the environment says of the cluster.
#[derive(Clone)]
pub struct Environment {
    pub brokers: [Addresses; 2],
    /// The ports of the listener `external`.
    pub external: [String; 2],
    pub proxy: Addresses,
    pub ca_file: PathBuf,
    pub admin: ClusterAdmin,
    script: PathBuf,
    nobody_token: String,
    expired_token: String,
    token_key: PathBuf,
}

impl runner::Environment for Environment {
    const WHAT: &'static str = "two real brokers and a proxy";
    const HOW: &'static str = "no CLUSTER_BROKER_1 in the environment: scripts/real-cluster test";
    const REQUIRED: &'static str = "CLUSTER_REQUIRED";

    fn find() -> Option<Self> {
        std::env::var_os("CLUSTER_BROKER_1")?;
        let brokers = [Addresses::of("BROKER", "_1"), Addresses::of("BROKER", "_2")];
        let webs = [brokers[0].web.clone(), brokers[1].web.clone()];
        Some(Self {
            brokers,
            external: [variable("CLUSTER_EXTERNAL_1"), variable("CLUSTER_EXTERNAL_2")],
            proxy: Addresses::of("PROXY", ""),
            ca_file: variable("CLUSTER_CA_FILE").into(),
            admin: ClusterAdmin { webs, token: variable("CLUSTER_TOKEN") },
            script: variable("CLUSTER_SCRIPT").into(),
            nobody_token: variable("CLUSTER_NOBODY_TOKEN"),
            expired_token: variable("CLUSTER_EXPIRED_TOKEN"),
            token_key: variable("CLUSTER_TOKEN_KEY").into(),
        })
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not in the environment, but CLUSTER_BROKER_1 is"))
}

impl Environment {
    pub fn token(&self, role: Role) -> Token {
        Token::new(self.token_of(role))
    }

    pub fn expired_token(&self) -> Token {
        Token::new(self.expired_token.clone())
    }

    fn token_of(&self, role: Role) -> String {
        match role {
            Role::Admin => self.admin.token.clone(),
            Role::Nobody => self.nobody_token.clone(),
        }
    }

    /// A builder with the superuser's token and the authority.
    pub fn builder(&self, url: impl Into<String>) -> ClientBuilder {
        Client::builder(url).authentication(self.token(Role::Admin)).ca_file(&self.ca_file)
    }

    pub async fn client(&self, url: impl Into<String>) -> Client {
        within("the connection", self.builder(url).connect()).await.expect("a client")
    }

    /// A namespace of 16 bundles, none of which a broker has.
    pub async fn namespace(&self, name: &str) -> String {
        let namespace = format!("public/{name}-{:x}", std::process::id());
        let path = format!("/admin/v2/namespaces/{namespace}");
        self.admin.ask("PUT", &path, r#"{"bundles":{"numBundles":16}}"#).await.expect("a namespace");
        namespace
    }

    /// A topic of the namespace on each of the brokers.
    pub async fn topic_of_each(&self, namespace: &str) -> [String; 2] {
        let mut found = [None, None];
        for number in 0..100 {
            let topic = format!("persistent://{namespace}/t{number}");
            let owner = self.admin.owner(&topic).await.expect("an owner");
            found[owner].get_or_insert(topic);
            if let [Some(first), Some(second)] = &found {
                return [first.clone(), second.clone()];
            }
        }
        panic!("one broker has all of {namespace}");
    }

    /// Has the script `start` or `kill` a broker, and waits for it.
    pub async fn broker(&self, index: usize, what: &str) {
        let number = (index + 1).to_string();
        let run = tokio::process::Command::new(&self.script).args(["broker", &number, what]).status().await;
        assert!(run.as_ref().is_ok_and(std::process::ExitStatus::success), "broker {number} {what}: {run:?}");
    }

    /// Lookups at one broker.
    pub fn at_broker(self, index: usize) -> Way {
        Way { url: format!("pulsar://{}", self.brokers[index].plain), redirect_hosts: &[], cluster: self }
    }

    /// Lookups over the web port of one broker, which redirects to the other.
    pub fn over_http(self) -> Way {
        Way { url: format!("http://{}", self.brokers[0].web), redirect_hosts: &["127.0.0.2"], cluster: self }
    }

    /// Everything through Pulsar's proxy.
    pub fn through_proxy(self) -> Way {
        Way { url: format!("pulsar://{}", self.proxy.plain), redirect_hosts: &[], cluster: self }
    }
}

/// A way into the cluster.
#[derive(Clone)]
pub struct Way {
    cluster: Environment,
    url: String,
    redirect_hosts: &'static [&'static str],
}

impl Way {
    pub fn target(self) -> Target {
        Target::new(Arc::new(self))
    }

    /// An embedded broker that has the real ones' key, to mint tokens.
    async fn mint(&self) -> EmbeddedBroker {
        let key = std::fs::read(&self.cluster.token_key).expect("the key of the tokens");
        EmbeddedBroker::builder().token_secret_key(key).start().await.expect("a free port")
    }

    fn admin(&self) -> Admin {
        Admin::new(&format!("http://{}", self.cluster.brokers[0].web), self.cluster.admin.token.clone())
    }
}

impl Cluster for Way {
    fn url(&self) -> String {
        self.url.clone()
    }

    /// Over HTTP, the first of two.
    fn broker_address(&self) -> String {
        match self.url.strip_prefix("pulsar://") {
            Some(address) => address.to_owned(),
            None => self.cluster.brokers[0].plain.clone(),
        }
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder(&self.url).http_redirect_hosts(self.redirect_hosts.iter().copied())
    }

    fn token(&self, role: Role) -> String {
        self.cluster.token_of(role)
    }

    fn expired_token(&self) -> String {
        self.cluster.expired_token.clone()
    }

    fn token_expiring(&self, valid_for: Duration) -> Fut<'_, String> {
        Box::pin(async move { self.mint().await.token_expiring("admin", valid_for) })
    }

    fn token_not_before(&self, starts_in: Duration) -> Fut<'_, String> {
        Box::pin(async move { self.mint().await.token_not_before("admin", starts_in) })
    }

    fn http_address(&self) -> Fut<'_, String> {
        Box::pin(async { self.cluster.brokers[0].web.clone() })
    }

    fn with(&self, feature: Feature) -> Fut<'_, (Arc<dyn Cluster>, &'static str)> {
        let same = self.clone();
        Box::pin(async move {
            let namespace = same.admin().namespace_with(feature).await;
            (Arc::new(same) as Arc<dyn Cluster>, namespace)
        })
    }

    fn stats<'a>(&'a self, topic: &'a str) -> Fut<'a, Option<TopicView>> {
        Box::pin(async move { self.admin().stats(topic).await })
    }

    fn create<'a>(&'a self, topic: &'a str) -> Fut<'a, ()> {
        Box::pin(async move { self.admin().change("PUT", topic, "", "").await })
    }

    fn create_partitioned<'a>(&'a self, topic: &'a str, partitions: u32) -> Fut<'a, ()> {
        Box::pin(async move { self.admin().change("PUT", topic, "/partitions", &partitions.to_string()).await })
    }

    fn grow<'a>(&'a self, topic: &'a str, partitions: u32) -> Fut<'a, ()> {
        Box::pin(async move { self.admin().change("POST", topic, "/partitions", &partitions.to_string()).await })
    }

    fn unload<'a>(&'a self, topic: &'a str) -> Fut<'a, ()> {
        Box::pin(async move { self.admin().change("PUT", topic, "/unload", "").await })
    }

    fn terminate<'a>(&'a self, topic: &'a str) -> Fut<'a, ()> {
        Box::pin(async move { self.admin().change("POST", topic, "/terminate", "").await })
    }

    fn delete<'a>(&'a self, topic: &'a str) -> Fut<'a, ()> {
        Box::pin(async move { self.admin().change("DELETE", topic, "?force=true", "").await })
    }

    fn compact<'a>(&'a self, topic: &'a str) -> Fut<'a, ()> {
        Box::pin(async move { self.admin().compact(topic).await })
    }

    fn limit_backlog<'a>(&'a self, topic: &'a str, policy: Option<QuotaPolicy>) -> Fut<'a, ()> {
        Box::pin(async move { self.admin().limit_backlog(topic, policy).await })
    }
}
