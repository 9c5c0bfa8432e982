//! What the bodies need of a broker, and the handle they get.

use std::future::Future;
use std::pin::Pin;

use super::*;
use pulsar_native::{ClientBuilder, Error};

/// The futures of [`Cluster`], which is used as an object.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A broker, from an operator's side.
pub trait Cluster: Send + Sync {
    /// The service URL: of the binary protocol, or of lookups over HTTP.
    fn url(&self) -> String;
    /// `host:port` of the binary protocol.
    fn broker_address(&self) -> String;
    /// A builder with the service URL, and what else the way to the broker needs.
    fn builder(&self) -> ClientBuilder {
        Client::builder(self.url())
    }
    /// A token that is good for the whole test: of the superuser, or of a role without rights.
    fn token(&self, role: Role) -> String;
    /// A token of the superuser that is no longer valid.
    fn expired_token(&self) -> String;
    /// A token of the superuser that expires soon.
    fn token_expiring(&self, valid_for: Duration) -> Fut<'_, String>;
    /// A token of the superuser that is good only this far in the future.
    fn token_not_before(&self, starts_in: Duration) -> Fut<'_, String>;
    /// `host:port` that speaks HTTP.
    fn http_address(&self) -> Fut<'_, String>;
    /// Where topics are to be made that want `feature`, and on which broker.
    fn with(&self, feature: Feature) -> Fut<'_, (Arc<dyn Cluster>, &'static str)>;
    /// Whether it has what brokers have only from some release on. Where it has not, a body asserts how the client says so.
    fn offers(&self, _: Offer) -> bool {
        true
    }
    fn stats<'a>(&'a self, topic: &'a str) -> Fut<'a, Option<TopicView>>;
    fn create<'a>(&'a self, topic: &'a str) -> Fut<'a, ()>;
    fn create_partitioned<'a>(&'a self, topic: &'a str, partitions: u32) -> Fut<'a, ()>;
    /// Adds partitions, so that there are `partitions`.
    fn grow<'a>(&'a self, topic: &'a str, partitions: u32) -> Fut<'a, ()>;
    fn unload<'a>(&'a self, topic: &'a str) -> Fut<'a, ()>;
    fn terminate<'a>(&'a self, topic: &'a str) -> Fut<'a, ()>;
    fn delete<'a>(&'a self, topic: &'a str) -> Fut<'a, ()>;
    /// Compacts a topic; done when this is.
    fn compact<'a>(&'a self, topic: &'a str) -> Fut<'a, ()>;
    /// From the next attach on a backlog quota below what is stored has this consequence; `None`: none. Not for an empty topic.
    fn limit_backlog<'a>(&'a self, topic: &'a str, policy: Option<QuotaPolicy>) -> Fut<'a, ()>;
}

/// What a broker does to producers of a topic whose backlog quota is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaPolicy {
    ProducerException,
    ProducerRequestHold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Admin,
    Nobody,
}

/// What only some namespaces, or some brokers, offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    Deduplication,
    NoTopicCreation,
    /// A consumer may leave [`super::idle::FEW`] messages unacknowledged.
    FewUnacknowledged,
}

/// What came with a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Confirmed acknowledgements: 2.8.
    AckReceipts,
    /// Exclusive producers: 2.8.
    AccessModes,
    /// What a subscription has acknowledged, beside the last message: 2.7.
    MarkDeletePosition,
    /// Exclusive producers that fence the others out: 2.11.
    Fencing,
    /// WATCH_TOPIC_LIST: 2.11.
    TopicListWatchers,
    /// `force` of UNSUBSCRIBE: 3.3.
    ForcedUnsubscribe,
}

/// What the broker's statistics say of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicView {
    /// Messages published since the topic was loaded.
    pub messages_in: u64,
    pub publishers: Vec<String>,
    pub subscriptions: BTreeMap<String, SubscriptionView>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubscriptionView {
    /// Entries, or messages: brokers differ, and agree on zero.
    pub backlog: u64,
    pub unacked: u64,
    /// Messages delivered since the topic was loaded.
    pub messages_out: u64,
    pub consumers: Vec<ConsumerView>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsumerView {
    pub name: String,
    pub permits: i64,
}

/// One broker and one namespace, for one test.
pub struct Target {
    cluster: Arc<dyn Cluster>,
    namespace: &'static str,
}

impl Target {
    pub fn new(cluster: Arc<dyn Cluster>) -> Self {
        Self { cluster, namespace: "public/default" }
    }

    pub async fn with(&self, feature: Feature) -> Self {
        let (cluster, namespace) = self.cluster.with(feature).await;
        Self { cluster, namespace }
    }

    pub fn cluster(&self) -> &dyn Cluster {
        &*self.cluster
    }

    pub fn shared_cluster(&self) -> Arc<dyn Cluster> {
        Arc::clone(&self.cluster)
    }

    /// A topic name that no other test has, nor an earlier run.
    pub fn topic(&self, name: &str) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        format!("persistent://{}/{name}-{:x}-{number}", self.namespace, since_1970.as_nanos())
    }

    pub async fn partitioned_topic(&self, name: &str, partitions: u32) -> String {
        let topic = self.topic(name);
        within("a partitioned topic to be made", self.cluster.create_partitioned(&topic, partitions)).await;
        topic
    }

    /// A builder with the URL and the superuser's token.
    pub fn builder(&self) -> ClientBuilder {
        self.builder_without_token().authentication(Token::new(self.cluster.token(Role::Admin)))
    }

    pub fn builder_without_token(&self) -> ClientBuilder {
        self.cluster.builder()
    }

    pub async fn client(&self) -> Client {
        within("the connection", self.builder().connect()).await.expect("a client with a good token")
    }

    /// `host:port` of the service URL.
    pub fn address(&self) -> String {
        self.split_url().1
    }

    /// A service URL of the same kind with another host, or several.
    pub fn url_of(&self, hosts: &str) -> String {
        format!("{}://{hosts}", self.split_url().0)
    }

    /// Whether lookups go over HTTP.
    pub fn is_http(&self) -> bool {
        self.split_url().0 == "http"
    }

    fn split_url(&self) -> (String, String) {
        let url = self.cluster.url();
        let (scheme, address) = url.split_once("://").expect("a URL");
        (scheme.to_owned(), address.to_owned())
    }

    /// `host:port` of the binary protocol.
    pub fn broker_address(&self) -> String {
        self.cluster.broker_address()
    }

    pub async fn stats(&self, topic: &str) -> TopicView {
        within("the topic's statistics", self.cluster.stats(topic)).await.unwrap_or_default()
    }

    /// The statistics of one subscription; all zero if it does not exist.
    pub async fn subscription(&self, topic: &str, subscription: &str) -> SubscriptionView {
        self.stats(topic).await.subscriptions.remove(subscription).unwrap_or_default()
    }

    pub fn offers(&self, offer: Offer) -> bool {
        self.cluster.offers(offer)
    }

    /// Acknowledges a message, confirmed by the broker.
    pub async fn confirm(&self, consumer: &Consumer, message: &ReceivedMessage) {
        self.confirmed(consumer.ack_confirmed(message), || consumer.ack(message)).await;
    }

    /// A confirmed acknowledgement. A broker that confirms none is not asked: the client refuses at once, by name, nothing is
    /// acknowledged, and `plain` does it instead.
    pub async fn confirmed(
        &self,
        confirmed: impl Future<Output = Result<(), Error>>,
        plain: impl FnOnce() -> Result<(), Error>,
    ) {
        let result = within("the confirmation", confirmed).await;
        if self.offers(Offer::AckReceipts) {
            return result.expect("confirmed");
        }
        let error = result.expect_err("there is no confirmation");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("confirmed acknowledgements"), "names the feature: {error}");
        plain().expect("acknowledged without");
    }

    pub async fn unload(&self, topic: &str) {
        within("the topic to be unloaded", self.cluster.unload(topic)).await;
    }
}
