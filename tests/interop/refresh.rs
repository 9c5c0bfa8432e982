//! Tokens that expire while both clients are connected. The broker asks for fresh ones (AUTH_CHALLENGE), each client has a
//! supplier of them, and messages go to the official client and back over connections that stay.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pulsar_native::broker::EmbeddedBroker;
use pulsar_native::{Client, Consumer, Error, Producer, Token};
use serde_json::Value;

use crate::admin;
use crate::checks::new_topic;
use crate::common::temp_file::TempFile;
use crate::ours::{variable, within};
use crate::peer::Peer;

/// How long a token is valid. The broker looks every other second.
const VALID: Duration = Duration::from_secs(3);
/// How often the tokens of a connection expire while messages flow.
const EXPIRIES: u64 = 2;
/// How long they flow: in the worst case the broker finds an expiry as late as it can.
const FLOW: Duration = Duration::from_secs(2 * (VALID.as_secs() + 2));
/// After so much time there is a new token.
const TOKEN_AGE_MAX: Duration = Duration::from_millis(300);

pub async fn run(peer: &mut Peer) -> Result<(), String> {
    let tokens = Tokens::start().await?;
    let (to_them, to_us) = (new_topic(), new_topic());
    let theirs = async {
        let echoed = peer.echo(tokens.file.text(), &to_them, &to_us).await;
        echoed.map_err(|error| format!("they echo: {error}"))
    };
    let ours = async { exchange(&tokens, &to_them, &to_us).await.map_err(|error| format!("we exchange: {error}")) };
    let (theirs, ours) = tokio::try_join!(theirs, ours)?;
    for (who, asked) in [("their", theirs), ("our", ours)] {
        // Once to connect, once for each expiry.
        if asked < 1 + EXPIRIES {
            return Err(format!("{who} supplier of tokens was asked {asked} times only"));
        }
    }
    Ok(())
}

/// A file with a token that expires soon, and what makes another.
struct Tokens {
    mint: EmbeddedBroker,
    file: TempFile,
}

impl Tokens {
    /// The mint is an embedded broker that has the real one's key.
    async fn start() -> Result<Self, String> {
        let path = variable("PULSAR_TOKEN_KEY")?;
        let key = std::fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
        let mint = within("a mint", EmbeddedBroker::builder().token_secret_key(key).start()).await?;
        let file = TempFile::new("interop-token", mint.token_expiring("admin", VALID));
        Ok(Self { mint, file })
    }

    /// Whoever reads meanwhile reads the old token or the new one.
    fn renew(&self) -> Result<(), String> {
        let new = PathBuf::from(format!("{}.new", self.file.text()));
        let written = std::fs::write(&new, self.mint.token_expiring("admin", VALID));
        written.and_then(|()| std::fs::rename(&new, self.file.path())).map_err(|error| error.to_string())
    }
}

/// Sends and gets back, until the tokens have expired often enough; how often our supplier was asked.
async fn exchange(tokens: &Tokens, to_them: &str, to_us: &str) -> Result<u64, String> {
    let asked = Arc::new(AtomicU64::new(0));
    let client = within("the connection", connect(&variable("PULSAR_URL")?, tokens.file.path(), &asked)).await?;
    let mut consumer = within("the consumer", client.consumer(to_us, "ours").subscribe()).await?;
    let producer = within("the producer", client.producer(to_them).create()).await?;
    // The official client is connected as well once this is back.
    echo(&producer, &mut consumer, "first").await?;
    let before = connections(&[to_them, to_us]).await?;
    let (started, mut renewed) = (Instant::now(), Instant::now());
    for number in 0.. {
        if renewed.elapsed() >= TOKEN_AGE_MAX {
            tokens.renew()?;
            renewed = Instant::now();
        }
        echo(&producer, &mut consumer, &number.to_string()).await?;
        if started.elapsed() >= FLOW {
            break;
        }
    }
    let after = connections(&[to_them, to_us]).await?;
    if before != after {
        return Err(format!("a connection was replaced: {before:?} became {after:?}"));
    }
    echo(&producer, &mut consumer, "end").await?;
    within("the close", client.close()).await?;
    Ok(asked.load(Ordering::Relaxed))
}

async fn connect(url: &str, file: &Path, asked: &Arc<AtomicU64>) -> Result<Client, Error> {
    let (file, asked) = (file.to_owned(), Arc::clone(asked));
    let supplier = Token::from_fn(move || {
        asked.fetch_add(1, Ordering::Relaxed);
        let token = std::fs::read_to_string(&file).map_err(Error::from);
        async move { token }
    });
    Client::builder(url).authentication(supplier).connect().await
}

async fn echo(producer: &Producer, consumer: &mut Consumer, text: &str) -> Result<(), String> {
    within("a receipt", producer.send(text)).await?;
    let message = within("the echo", consumer.receive()).await?;
    within("the acknowledgment", consumer.ack_confirmed(&message)).await?;
    let echoed = message.to_string_lossy();
    if echoed == text { Ok(()) } else { Err(format!("sent {text:?}, and {echoed:?} came back")) }
}

/// The sockets of all producers and consumers of these topics, and since when they are there.
async fn connections(topics: &[&str]) -> Result<BTreeSet<String>, String> {
    let mut connections = BTreeSet::new();
    for topic in topics {
        let stats: Value = admin::stats(topic).await?;
        let subscriptions = stats["subscriptions"].as_object().into_iter().flatten();
        let consumers = subscriptions.filter_map(|(_, subscription)| subscription["consumers"].as_array()).flatten();
        let endpoints = stats["publishers"].as_array().into_iter().flatten().chain(consumers);
        connections.extend(endpoints.map(|one| format!("{topic} {} since {}", one["address"], one["connectedSince"])));
    }
    // A producer and a consumer of each side.
    if connections.len() == 4 { Ok(connections) } else { Err(format!("not two clients: {connections:?}")) }
}
