//! A tap in front of several brokers: a client that is sent from one to another stays behind it, and all that goes to each broker and
//! comes from it is seen.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use pulsar_native::ClientBuilder;
use pulsar_native::broker::{EmbeddedBroker, FaultEvent};
use pulsar_native::capture::SegmentEvent;
use pulsar_native::client::{DialFuture, Dialer, Socket, Target};
use pulsar_native::tap::{Inspector, InspectorConfig, ObservedEvent, Tap, TapBuilder, TapFeed, TapItem};
use tokio::net::{TcpListener, TcpStream};

use crate::common::temp_file::TempFile;
use crate::suite::{Arc, BTreeMap, BTreeSet, Client, InitialPosition, Mutex, Producer};
use crate::suite::{created, receive, send, subscribed, within};

/// How often each command went to a broker or came from it.
type Commands = BTreeMap<&'static str, usize>;

#[derive(Default)]
struct Seen {
    brokers: BTreeMap<SocketAddr, Commands>,
    /// Violations, and bytes that were not seen.
    wrong: Vec<String>,
}

fn see(feed: TapFeed) -> Seen {
    let (mut inspector, mut observed) = (Inspector::new(InspectorConfig::default()), Vec::new());
    let (mut seen, mut brokers) = (Seen::default(), BTreeMap::new());
    for item in feed {
        let TapItem::Segment(segment) = item else { continue };
        if let SegmentEvent::Opened { broker, .. } = segment.event {
            brokers.insert(segment.connection, broker);
        }
        inspector.inspect(&segment, &mut observed);
        for observation in observed.drain(..) {
            match &observation.event {
                ObservedEvent::Frame(frame) => {
                    let commands = seen.brokers.entry(brokers[&observation.connection]).or_default();
                    *commands.entry(frame.command).or_default() += 1;
                }
                ObservedEvent::Opened { .. } | ObservedEvent::Closed { .. } => {}
                _ => seen.wrong.push(observation.to_string()),
            }
        }
    }
    seen
}

/// Notes the addresses that a client connects to.
#[derive(Clone, Default)]
struct Dialed(Arc<Mutex<BTreeSet<String>>>);

impl Dialer for Dialed {
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a> {
        Box::pin(async move {
            self.0.lock().expect("no panic").insert(target.address.to_string());
            let socket = TcpStream::connect((&*target.address.host, target.address.port)).await?;
            Ok(Box::new(socket) as Box<dyn Socket>)
        })
    }
}

/// A tap, and a client behind it.
struct Behind {
    tap: Tap,
    seeing: JoinHandle<Seen>,
    client: Client,
    dialed: Dialed,
}

impl Behind {
    async fn new(tap: TapBuilder, set_up: impl FnOnce(&Tap) -> ClientBuilder) -> Self {
        let (tap, feed) = within("the tap to listen", tap.start()).await.expect("a free port");
        let dialed = Dialed::default();
        let connecting = set_up(&tap).dialer_under_tls(dialed.clone()).connect();
        let client = within("the connection", connecting).await.expect("a client");
        Self { tap, seeing: std::thread::spawn(move || see(feed)), client, dialed }
    }

    /// Behind a tap that ends TLS, in front of this broker, which speaks TLS.
    async fn tls(url: &str) -> Self {
        let tap = Tap::builder(url).ca_file(crate::tls::file("ca.pem"));
        let authority = TempFile::new("tapped-brokers-ca.pem", "");
        let set_up = |tap: &Tap| {
            std::fs::write(authority.path(), tap.ca_pem()).expect("it can be written");
            Client::builder(tap.tls_url()).ca_file(authority.path())
        };
        Self::new(tap, set_up).await
    }

    async fn producer(&self, topic: &str) -> Producer {
        created(self.client.producer(topic).batching(false)).await
    }

    /// What was seen of each broker, by its URL. Nothing may have been wrong, and the client may have gone past the tap to none.
    async fn finish<const N: usize>(self, brokers: [&str; N]) -> [Commands; N] {
        within("the close", self.client.close()).await.expect("closed");
        drop(self.tap);
        let seen = tokio::task::spawn_blocking(|| self.seeing.join());
        let mut seen = within("the tap to stop", seen).await.expect("no panic").expect("no panic");
        assert_eq!(seen.wrong, Vec::<String>::new());
        let dialed = self.dialed.0.lock().expect("no panic");
        brokers.map(|url| {
            let address = url.rsplit('/').next().expect("host and port");
            assert!(!dialed.contains(address), "{address} was dialed");
            seen.brokers.remove(&address.parse().expect("an address")).unwrap_or_default()
        })
    }
}

/// So many times that command was seen.
fn assert_seen(commands: &Commands, expected: &[(&str, usize)]) {
    for (command, count) in expected {
        assert_eq!(commands.get(command).copied().unwrap_or(0), *count, "{command} of {commands:?}");
    }
}

/// Topics of two brokers, of which one moves to the other in the middle of its traffic.
async fn topics_of_two_brokers(cluster: &EmbeddedBroker, behind: Behind) -> [Commands; 2] {
    let mut sent = [0; 2];
    let mut send_to = async |producer: &Producer, topic: &str| {
        sent[cluster.owner(topic).expect("it was looked up")] += 1;
        send(producer, "x").await;
    };
    let mut producers = BTreeMap::new();
    for number in 0..8 {
        let topic = format!("topic-{number}");
        let producer = behind.producer(&topic).await;
        send_to(&producer, &topic).await;
        producers.insert(topic, producer);
    }
    let owned = |owner| producers.iter().find(|(topic, _)| cluster.owner(topic) == Some(owner)).expect("of 8 one");
    for (from, (topic, producer)) in [owned(0), owned(1)].into_iter().enumerate() {
        let mut consumer = subscribed(behind.client.consumer(topic, "s")).await;
        send_to(producer, topic).await;
        receive(&mut consumer).await;
        assert!(cluster.move_topic(topic, 1 - from));
        send_to(producer, topic).await;
        receive(&mut consumer).await;
        assert_eq!(cluster.owner(topic), Some(1 - from));
    }
    let urls = cluster.broker_urls();
    let seen = behind.finish([&urls[0], &urls[1]]).await;
    for (commands, sent) in seen.iter().zip(sent) {
        assert_seen(commands, &[("SEND_RECEIPT", sent)]);
        assert!(commands["SEND"] >= sent && commands["MESSAGE"] > 0, "{commands:?}");
        assert!(commands["CLOSE_PRODUCER"] > 0 && commands["CLOSE_CONSUMER"] > 0, "{commands:?}");
        assert_eq!(commands["CONNECT"], commands["CONNECTED"]);
        assert_eq!(commands["PRODUCER"], commands["PRODUCER_SUCCESS"]);
    }
    assert_eq!(cluster.violations(), []);
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_and_closes_lead_to_another_broker() {
    let cluster = EmbeddedBroker::builder().brokers(2).start().await.expect("free ports");
    let tap = Tap::builder(&cluster.broker_urls()[0]);
    let behind = Behind::new(tap, |tap| Client::builder(tap.url())).await;
    let seen = topics_of_two_brokers(&cluster, behind).await;
    assert!(seen.iter().all(|commands| commands.contains_key("LOOKUP")), "both are asked: {seen:?}");
}

/// Both brokers have one address for HTTP, as behind a load balancer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_over_http_lead_to_another_broker() {
    let cluster = EmbeddedBroker::builder().brokers(2).http(true).start().await.expect("free ports");
    let tap = Tap::builder(cluster.http_url().expect("it answers over HTTP"));
    let behind = Behind::new(tap, |tap| Client::builder(tap.http_url())).await;
    let seen = topics_of_two_brokers(&cluster, behind).await;
    assert!(seen.iter().all(|commands| !commands.contains_key("LOOKUP")), "lookups go over HTTP: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migrated_topic_is_seen_at_its_new_cluster() {
    let start = || EmbeddedBroker::builder().start();
    let (blue, green) = (start().await.expect("a free port"), start().await.expect("a free port"));
    let behind = Behind::new(Tap::builder(blue.url()), |tap| Client::builder(tap.url())).await;
    let producer = behind.producer("t").await;
    send(&producer, "blue").await;
    blue.migrate(Some(&green.url()), None);
    send(&producer, "green").await;
    let [of_blue, of_green] = behind.finish([&blue.url(), &green.url()]).await;
    assert_seen(&of_blue, &[("SEND_RECEIPT", 1), ("TOPIC_MIGRATED", 1)]);
    assert_seen(&of_green, &[("SEND", 1), ("SEND_RECEIPT", 1), ("TOPIC_MIGRATED", 0)]);
    assert_eq!((blue.violations(), green.violations()), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_with_tls_are_seen_behind_tls() {
    let start = || crate::tls::broker(EmbeddedBroker::builder(), crate::tls::Clients::Anyone);
    let ((first, url), (second, other), (third, last)) = (start().await, start().await, start().await);
    first.faults().on(FaultEvent::Lookup).on_topic("persistent://public/default/moved").always().redirect(&other, true);
    let behind = Behind::tls(&url).await;
    let (stays, moved) = (behind.producer("stays").await, behind.producer("moved").await);
    send(&stays, "x").await;
    send(&moved, "x").await;
    second.migrate(None, Some(&last));
    send(&moved, "y").await;
    let [of_first, of_second, of_third] = behind.finish([&url, &other, &last]).await;
    assert_seen(&of_first, &[("SEND", 1), ("LOOKUP", 2), ("TOPIC_MIGRATED", 0)]);
    assert_seen(&of_second, &[("SEND_RECEIPT", 1), ("TOPIC_MIGRATED", 1)]);
    assert_seen(&of_third, &[("SEND", 1), ("SEND_RECEIPT", 1)]);
    assert_eq!((first.violations(), second.violations(), third.violations()), (vec![], vec![], vec![]));
}

/// The broker that the topic moves to is named by its TLS address alone, and no lookup tells of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closes_lead_to_another_broker_behind_tls() {
    // The client of one broker alone would go through its address as through a proxy's.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("pulsar+ssl://{}", listener.local_addr().expect("an address"));
    let first = EmbeddedBroker::builder().brokers(2).broker_service_url_tls(&url).start().await.expect("free ports");
    crate::tls::end_tls(listener, first.address());
    let (second, other) = crate::tls::broker(EmbeddedBroker::builder(), crate::tls::Clients::Anyone).await;
    second.faults().acquire_topic("t");
    let behind = Behind::tls(&url).await;
    let producer = behind.producer("t").await;
    // The producer may be there before it.
    let builder = behind.client.consumer("t", "s").initial_position(InitialPosition::Earliest);
    let mut consumer = subscribed(builder).await;
    first.faults().on(FaultEvent::Lookup).always().drop_request();
    first.transfer("t", &other);
    send(&producer, "there").await;
    assert_eq!(receive(&mut consumer).await.to_string_lossy(), "there");
    assert_eq!(first.faults().injected(), 0, "no lookup");
    let [of_first, of_second] = behind.finish([&url, &other]).await;
    assert_seen(&of_first, &[("CLOSE_PRODUCER", 1), ("CLOSE_CONSUMER", 1), ("SEND_RECEIPT", 0)]);
    assert_seen(&of_second, &[("PRODUCER", 1), ("SUBSCRIBE", 1), ("SEND_RECEIPT", 1), ("MESSAGE", 1)]);
    assert_eq!((first.violations(), second.violations()), (vec![], vec![]));
}
