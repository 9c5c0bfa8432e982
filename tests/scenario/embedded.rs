//! The suite on the embedded broker, which plays Pulsar 4.0 here and older releases in `older`. After each test the broker
//! must have recorded no violation.

use std::sync::PoisonError;

use pulsar_native::broker::{BacklogQuota, BacklogQuotaPolicy, BacklogQuotaType, EmbeddedBroker, PulsarVersion, Rule};
use pulsar_native::client::{DialFuture, Dialer, Socket};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::suite::target::{
    Cluster, ConsumerView, Feature, Fut, Offer, QuotaPolicy, Role, SubscriptionView, TopicView,
};
use crate::suite::*;

const TOKEN_KEY: &[u8] = b"a key for tests, of thirty-two bytes at least";

/// What the service URL is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lookups {
    Binary,
    Http,
}

/// What a broker plays, and how it is asked.
#[derive(Debug, Clone, Copy)]
struct Playing {
    version: PulsarVersion,
    lookups: Lookups,
    /// Clients go through a tap.
    is_tapped: bool,
    /// Answers that the machine of a new broker would not give are a failure.
    is_compared: bool,
}

impl Playing {
    fn new(version: PulsarVersion, lookups: Lookups) -> Self {
        Self { version, lookups, is_tapped: false, is_compared: false }
    }
}

/// The brokers of one test.
type Started = Arc<Mutex<Vec<Behind>>>;

/// A broker, and what is in front of it.
#[derive(Clone)]
struct Behind {
    broker: EmbeddedBroker,
    #[cfg(feature = "tap")]
    tapped: Arc<Mutex<Option<crate::common::tapped::Tapped>>>,
}

/// One embedded broker, and those that were made beside it for features that a broker has or has not as a whole.
#[derive(Clone)]
struct Embedded {
    broker: EmbeddedBroker,
    playing: Playing,
    all: Started,
    behind: Behind,
}

impl Embedded {
    async fn start(playing: Playing, all: Started, feature: Option<Feature>) -> Self {
        let Playing { version, lookups, .. } = playing;
        let [admin, nobody] = [Role::Admin, Role::Nobody].map(crate::suite::credentials::password);
        // A release that does not ask a silent connection whether it is alive finds out by its keep-alive.
        let keep_alive = Duration::from_secs(if version < PulsarVersion::V3_0 { 2 } else { 30 });
        let broker = EmbeddedBroker::like(version)
            .keep_alive_interval(keep_alive)
            .token_secret_key(TOKEN_KEY)
            .basic_user(admin.0, admin.1)
            .basic_user(nobody.0, nobody.1)
            .http(lookups == Lookups::Http)
            .authentication_refresh_check(Duration::from_secs(1))
            .broker_deduplication_enabled(feature == Some(Feature::Deduplication))
            .allow_auto_topic_creation(feature != Some(Feature::NoTopicCreation))
            .max_unacked_messages_per_consumer(match feature {
                Some(Feature::FewUnacknowledged) => crate::suite::idle::FEW,
                _ => 50_000,
            })
            .start()
            .await
            .expect("a free port");
        #[cfg(feature = "tap")]
        let tapped = match playing.is_tapped {
            true => Some(crate::common::tapped::Tapped::before(&broker.url()).await),
            false => None,
        };
        let behind = Behind {
            broker: broker.clone(),
            #[cfg(feature = "tap")]
            tapped: Arc::new(Mutex::new(tapped)),
        };
        all.lock().unwrap_or_else(PoisonError::into_inner).push(behind.clone());
        Self { broker, playing, all, behind }
    }

    /// What a tap in front of the broker has to say.
    fn of_tap(&self, _of: TapAddress) -> Option<String> {
        #[cfg(feature = "tap")]
        {
            let tapped = self.behind.tapped.lock().unwrap_or_else(PoisonError::into_inner);
            let tapped = tapped.as_ref()?;
            Some(match _of {
                TapAddress::Url => tapped.url(),
                TapAddress::HostPort => tapped.address(),
            })
        }
        #[cfg(not(feature = "tap"))]
        None
    }
}

enum TapAddress {
    Url,
    HostPort,
}

impl Cluster for Embedded {
    fn url(&self) -> String {
        match self.playing.lookups {
            Lookups::Binary => self.of_tap(TapAddress::Url).unwrap_or_else(|| self.broker.url()),
            Lookups::Http => self.broker.http_url().expect("it serves HTTP"),
        }
    }

    fn broker_address(&self) -> String {
        self.of_tap(TapAddress::HostPort).unwrap_or_else(|| self.broker.address().to_string())
    }

    fn token(&self, role: Role) -> String {
        self.broker.token(match role {
            Role::Admin => "admin",
            Role::Nobody => "nobody",
        })
    }

    fn expired_token(&self) -> String {
        self.broker.token_expiring("admin", Duration::ZERO)
    }

    fn token_expiring(&self, valid_for: Duration) -> Fut<'_, String> {
        Box::pin(async move { self.broker.token_expiring("admin", valid_for) })
    }

    fn token_not_before(&self, starts_in: Duration) -> Fut<'_, String> {
        Box::pin(async move { self.broker.token_not_before("admin", starts_in) })
    }

    fn http_address(&self) -> Fut<'_, String> {
        Box::pin(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("an address").to_string();
            tokio::spawn(async move {
                while let Ok((mut socket, _)) = listener.accept().await {
                    let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
                    let _ = socket.shutdown().await;
                }
            });
            address
        })
    }

    fn with(&self, feature: Feature) -> Fut<'_, (Arc<dyn Cluster>, &'static str)> {
        Box::pin(async move {
            let other: Arc<dyn Cluster> = Arc::new(Self::start(self.playing, self.all.clone(), Some(feature)).await);
            (other, "public/default")
        })
    }

    fn offers(&self, offer: Offer) -> bool {
        let since = match offer {
            Offer::MarkDeletePosition => PulsarVersion::V2_7,
            Offer::AckReceipts | Offer::AccessModes => PulsarVersion::V2_8,
            Offer::Fencing | Offer::TopicListWatchers => PulsarVersion::V2_11,
            Offer::ForcedUnsubscribe => PulsarVersion::V3_3,
        };
        self.playing.version >= since
    }

    fn stats<'a>(&'a self, topic: &'a str) -> Fut<'a, Option<TopicView>> {
        Box::pin(async move {
            let stats = self.broker.stats(topic)?;
            let consumer = |consumer: pulsar_native::broker::ConnectedConsumerStats| ConsumerView {
                name: consumer.consumer_name,
                permits: consumer.available_permits,
            };
            let subscription = |subscription: pulsar_native::broker::SubscriptionStats| SubscriptionView {
                backlog: subscription.msg_backlog,
                unacked: subscription.unacked_messages,
                messages_out: subscription.msg_out_counter,
                consumers: subscription.consumers.into_iter().map(consumer).collect(),
            };
            let subscriptions = stats.subscriptions.into_iter().map(|(name, stats)| (name, subscription(stats)));
            let (messages_in, publishers) = (stats.msg_in_counter, stats.publishers);
            Some(TopicView { messages_in, publishers, subscriptions: subscriptions.collect() })
        })
    }

    fn create<'a>(&'a self, topic: &'a str) -> Fut<'a, ()> {
        Box::pin(async move { assert!(self.broker.create_topic(topic)) })
    }

    fn create_partitioned<'a>(&'a self, topic: &'a str, partitions: u32) -> Fut<'a, ()> {
        Box::pin(async move { assert!(self.broker.create_partitioned_topic(topic, partitions)) })
    }

    fn grow<'a>(&'a self, topic: &'a str, partitions: u32) -> Fut<'a, ()> {
        self.create_partitioned(topic, partitions)
    }

    fn unload<'a>(&'a self, topic: &'a str) -> Fut<'a, ()> {
        Box::pin(async move { self.broker.unload(topic) })
    }

    fn terminate<'a>(&'a self, topic: &'a str) -> Fut<'a, ()> {
        Box::pin(async move { self.broker.terminate(topic) })
    }

    fn delete<'a>(&'a self, topic: &'a str) -> Fut<'a, ()> {
        Box::pin(async move { self.broker.delete_topic(topic) })
    }

    fn limit_backlog<'a>(&'a self, topic: &'a str, policy: Option<QuotaPolicy>) -> Fut<'a, ()> {
        let quota = policy.map(|policy| match policy {
            QuotaPolicy::ProducerException => BacklogQuota::new(1, BacklogQuotaPolicy::ProducerException),
            QuotaPolicy::ProducerRequestHold => BacklogQuota::new(1, BacklogQuotaPolicy::ProducerRequestHold),
        });
        Box::pin(async move {
            let kind = BacklogQuotaType::DestinationStorage;
            let is_set = self.broker.set_topic_policies(topic, |own| match quota {
                Some(quota) => drop(own.backlog_quotas.insert(kind, quota)),
                None => drop(own.backlog_quotas.remove(&kind)),
            });
            assert!(is_set, "{topic} is in a namespace");
        })
    }

    fn compact<'a>(&'a self, topic: &'a str) -> Fut<'a, ()> {
        Box::pin(async move { assert!(self.broker.compact(topic), "{topic} exists") })
    }
}

/// Runs one body on a broker of its own, which must have recorded no violation. No secret may have been traced by then.
async fn run_with(playing: Playing, body: impl AsyncFnOnce(&Target)) {
    #[cfg(feature = "tracing")]
    let secrets = crate::common::trace_secrets::Secrets::everywhere(&[&String::from_utf8_lossy(TOKEN_KEY)]);
    let all = Arc::default();
    let embedded = Embedded::start(playing, Arc::clone(&all), None).await;
    body(&Target::new(Arc::new(embedded))).await;
    let brokers = all.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // Before the brokers end the connections.
    #[cfg(feature = "tap")]
    for Behind { tapped, .. } in &brokers {
        let tapped = tapped.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(tapped) = tapped {
            let seen = tapped.finish().await;
            assert!(seen.violations.is_empty(), "a tap saw that rules are broken: {:?}", seen.violations);
            let differences = seen.differences.join("\n");
            assert!(
                !playing.is_compared || differences.is_empty(),
                "a new broker would answer otherwise:\n{differences}"
            );
        }
    }
    for Behind { broker, .. } in &brokers {
        let violations = broker.violations().into_iter().filter(|violation| match violation.rule {
            // With a short keep-alive the broker notices a connection that a test cuts off before the client does.
            Rule::PongMissing => playing.version >= PulsarVersion::V3_0,
            _ => true,
        });
        let violations: Vec<_> = violations.map(|violation| violation.to_string()).collect();
        assert!(violations.is_empty(), "the client broke rules:\n{}", violations.join("\n"));
        within("the broker to stop", broker.stop()).await;
    }
    #[cfg(feature = "tracing")]
    secrets.check();
}

/// The dialer may be the application's own: here it is a pipe in memory, no socket at all.
struct InMemory(EmbeddedBroker);

impl Dialer for InMemory {
    fn dial<'a>(&'a self, _: &'a pulsar_native::client::Target) -> DialFuture<'a> {
        Box::pin(async { Ok(Box::new(self.0.connect()) as Box<dyn Socket>) })
    }
}

#[tokio::test]
async fn in_memory() {
    let broker = EmbeddedBroker::builder().start().await.expect("a free port");
    let client = Client::builder("pulsar://no.such.host:6650").dialer(InMemory(broker.clone())).connect();
    let client = within("the connection", client).await.expect("a client");
    let mut consumer = subscribed(client.consumer("t", "s")).await;
    let producer = created(client.producer("t")).await;
    send(&producer, "hello").await;
    let message = receive(&mut consumer).await;
    assert_eq!(message.to_string_lossy(), "hello");
    within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed");
    within("the close", client.close()).await.expect("closed");
    assert_eq!(broker.violations(), []);
}

/// Its topics are lost with it, and made anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_is_killed() {
    let playing = Playing::new(PulsarVersion::V4_0, Lookups::Binary);
    let embedded = Embedded::start(playing, Arc::default(), None).await;
    let (killed, target) = (embedded.broker.clone(), Target::new(Arc::new(embedded)));
    let restarted = Mutex::new(None);
    let start = async || {
        let builder = EmbeddedBroker::builder().token_secret_key(TOKEN_KEY).listen(killed.address());
        let broker = within("the start", builder.start()).await.expect("its port is free again");
        *restarted.lock().unwrap_or_else(PoisonError::into_inner) = Some(broker);
    };
    crate::suite::states::a_broker_is_killed(&target, &target.topic("killed"), || killed.stop(), start).await;
    let restarted = restarted.into_inner().unwrap_or_else(PoisonError::into_inner).expect("it was started");
    assert_eq!((killed.violations(), restarted.violations()), (vec![], vec![]));
}

/// The same on a broker that plays this release.
pub(super) async fn run_like(version: PulsarVersion, body: impl AsyncFnOnce(&Target)) {
    run_with(Playing::new(version, Lookups::Binary), body).await;
}

/// The same through a tap.
#[cfg(feature = "tap")]
pub(super) async fn run_tapped(is_compared: bool, body: impl AsyncFnOnce(&Target)) {
    let playing = Playing { is_tapped: true, is_compared, ..Playing::new(PulsarVersion::V4_0, Lookups::Binary) };
    run_with(playing, body).await;
}

async fn run(body: impl AsyncFnOnce(&Target)) {
    run_like(PulsarVersion::V4_0, body).await;
}

/// Tests that call `run` of the module around them.
macro_rules! tests {
    ($($theme:ident { $($name:ident)* })*) => {
        $(mod $theme {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::run(crate::suite::$theme::$name).await;
            })*
        })*
    };
}
crate::suite::with_every_test!(tests);
crate::suite::with_every_test_of_the_binary_protocol!(tests);

/// The same with an `http://` service URL.
#[cfg(feature = "http")]
mod over_http {
    use super::{Lookups, Playing, PulsarVersion, Target, run_with};

    async fn run(body: impl AsyncFnOnce(&Target)) {
        run_with(Playing::new(PulsarVersion::V4_0, Lookups::Http), body).await;
    }

    crate::suite::with_every_test!(tests);
}
