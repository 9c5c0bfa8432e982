//! The checks. Each goes both ways: the official client sends and this one receives, and the reverse.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::message::Described;
use crate::ours::Ours;
use crate::peer::Peer;

/// How much of an error is printed, characters.
const ERROR_CHARS_MAX: usize = 400;

/// What is sent, and how.
#[derive(Clone)]
pub struct Work {
    pub topic: String,
    pub partitions: u32,
    pub batching: bool,
    pub lz4: bool,
    pub murmur3: bool,
    pub messages: Vec<Described>,
}

impl Work {
    /// The names, as in `lacks`, of what a client must be able to do.
    fn needs(&self) -> Vec<&'static str> {
        let mut needs: Vec<_> = self.messages.iter().flat_map(Described::needs).collect();
        if self.partitions > 0 {
            needs.push(if self.murmur3 { "murmur3" } else { "java_hash" });
        }
        needs
    }

    fn new(messages: Vec<Described>) -> Self {
        Self { topic: String::new(), partitions: 0, batching: false, lz4: false, murmur3: false, messages }
    }
}

fn plain() -> Vec<Described> {
    ["first", "second", "third"].map(Described::new).into()
}

fn properties() -> Vec<Described> {
    let properties = [("a", "1"), ("empty", ""), ("schlüssel", "wert €")];
    let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned()));
    vec![Described { properties: properties.into(), ..Described::new("with properties") }]
}

fn keyed(stem: &str) -> Vec<Described> {
    let key = |at: u32| Described { key: Some(format!("{stem}-{at}")), ..Described::new(format!("value {at}")) };
    (0..40).map(key).collect()
}

/// Name and work of every check.
fn all() -> Vec<(&'static str, Work)> {
    let one = |message: Described| Work::new(vec![message]);
    let many: Vec<_> = (0..100).map(|at| Described::new(format!("message {at}"))).collect();
    let blanks = vec![Described::new(vec![b' '; 100_000]), Described::new("short")];
    vec![
        ("plain", Work::new(plain())),
        ("key", one(Described { key: Some("order-7".into()), ..Described::new("keyed") })),
        ("bytes key", one(Described { key_bytes: Some(vec![0, 255, 128]), ..Described::new("keyed by bytes") })),
        ("ordering key", one(Described { ordering_key: Some(b"lane".to_vec()), ..Described::new("ordered") })),
        ("properties", Work::new(properties())),
        ("event time", one(Described { event_time: Some(1_700_000_000_123), ..Described::new("timed") })),
        ("empty", one(Described::new(""))),
        ("null", one(Described { key: Some("gone".into()), ..Described::default() })),
        ("batch", Work { batching: true, ..Work::new(many.clone()) }),
        ("LZ4", Work { lz4: true, ..Work::new(blanks) }),
        ("LZ4 in batches", Work { lz4: true, batching: true, ..Work::new(many) }),
        ("partitions by Java's hash", Work { partitions: 5, ..Work::new(keyed("order")) }),
        ("partitions by Murmur3", Work { partitions: 5, murmur3: true, ..Work::new(keyed("schlüssel")) }),
        ("partitions of keys beyond ASCII", Work { partitions: 5, ..Work::new(keyed("schlüssel")) }),
    ]
}

/// All checks with one client; how many failed. `INTEROP_CHECKS` names those to be run, separated by commas.
pub async fn run_all(name: &str, command: &str) -> usize {
    let chosen = std::env::var("INTEROP_CHECKS").ok();
    let chosen = chosen.as_deref().map(|names| names.split(',').map(str::trim).collect::<BTreeSet<_>>());
    let unknown = |name: &&str| all().iter().all(|(check, _)| check != name);
    if let Some(name) = chosen.iter().flatten().copied().find(unknown) {
        println!("INTEROP_CHECKS names no check: {name}");
        return 1;
    }
    let mut failed = 0;
    let (ours, mut peer) = match (Ours::connect().await, Peer::start(command).await) {
        (Ok(ours), Ok(peer)) => (ours, peer),
        (ours, peer) => {
            println!("{name}: FAILED to start: {:?} {:?}", ours.err(), peer.err());
            return 1;
        }
    };
    for (check, work) in all() {
        if chosen.as_ref().is_some_and(|chosen| !chosen.contains(check)) {
            continue;
        }
        let lacking = work.needs().iter().any(|need| peer.lacks.iter().any(|lack| lack == need));
        let outcome = match lacking {
            true => "not possible with this client".to_owned(),
            false => match run_check(&ours, &mut peer, work).await {
                Ok(()) => "ok".to_owned(),
                Err(error) => {
                    failed += 1;
                    format!("FAILED: {}", error.chars().take(ERROR_CHARS_MAX).collect::<String>())
                }
            },
        };
        println!("{check:<32} {:<24} {outcome}", peer.title);
    }
    failed
}

/// Both ways, each on a topic of its own; then keys have gone to the same partitions.
async fn run_check(ours: &Ours, peer: &mut Peer, work: Work) -> Result<(), String> {
    let (theirs_to_ours, ours_to_theirs) = (on_new_topic(&work).await?, on_new_topic(&work).await?);
    ours.subscribe(&theirs_to_ours).await?;
    let ids = peer.produce(&theirs_to_ours).await.map_err(|error| format!("they send: {error}"))?;
    let seen = ours.consume(&theirs_to_ours).await.map_err(|error| format!("we receive: {error}"))?;
    let their_partitions = compare(&theirs_to_ours, &ids, &seen).map_err(|error| format!("they to us: {error}"))?;

    peer.subscribe(&ours_to_theirs).await?;
    let ids = ours.produce(&ours_to_theirs).await.map_err(|error| format!("we send: {error}"))?;
    let seen = peer.consume(&ours_to_theirs).await.map_err(|error| format!("they receive: {error}"))?;
    let our_partitions = compare(&ours_to_theirs, &ids, &seen).map_err(|error| format!("we to them: {error}"))?;
    if work.partitions > 0 && their_partitions != our_partitions {
        return Err(format!("keys go to other partitions: {their_partitions:?} and {our_partitions:?}"));
    }
    Ok(())
}

/// Each message came once, as it was sent, under the id that its sender was told; per key, its partition.
fn compare(work: &Work, ids: &[String], seen: &[(Described, String)]) -> Result<BTreeMap<String, String>, String> {
    let ids: Vec<_> = ids.iter().map(|id| normalized_id(work, id)).collect();
    let seen: Vec<_> = seen.iter().map(|(message, id)| (message, normalized_id(work, id))).collect();
    let sent: BTreeMap<_, _> = ids.iter().zip(&work.messages).collect();
    let received: BTreeMap<_, _> = seen.iter().map(|(message, id)| (id, *message)).collect();
    if sent != received {
        let differ = |id: &&String| sent.get(*id) != received.get(*id);
        let first = sent.keys().chain(received.keys()).copied().find(differ).expect("they differ");
        return Err(format!("{first}: sent {:?}, received {:?}", sent.get(first), received.get(first)));
    }
    let in_order = work.partitions > 0 || ids.iter().eq(seen.iter().map(|(_, id)| id));
    if !in_order {
        return Err("out of order".to_owned());
    }
    let partition = |id: &str| id.split(':').nth(2).unwrap_or_default().to_owned();
    let keyed = |(id, message): (&&String, &&Described)| Some((message.key.clone()?, partition(id)));
    Ok(sent.iter().filter_map(keyed).collect())
}

/// The id with -1 for a partition or an index that there is not: the Go client gives 0.
fn normalized_id(work: &Work, id: &str) -> String {
    let mut numbers: Vec<_> = id.split(':').collect();
    if work.partitions == 0 && numbers.len() == 4 {
        numbers[2] = "-1";
    }
    if !work.batching && numbers.len() == 4 {
        numbers[3] = "-1";
    }
    numbers.join(":")
}

/// The work on a topic that nothing else uses, created by the admin API where it has partitions.
async fn on_new_topic(work: &Work) -> Result<Work, String> {
    static TOPICS: AtomicU64 = AtomicU64::new(0);
    let number = TOPICS.fetch_add(1, Ordering::Relaxed);
    let name = format!("interop-{}-{number}", std::process::id());
    if work.partitions > 0 {
        create_partitioned(&name, work.partitions).await?;
    }
    Ok(Work { topic: format!("persistent://public/default/{name}"), ..work.clone() })
}

async fn create_partitioned(name: &str, partitions: u32) -> Result<(), String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not in the environment"));
    let (url, token) = (variable("PULSAR_ADMIN_URL")?, variable("PULSAR_TOKEN")?);
    let body = partitions.to_string();
    let request = format!(
        "PUT /admin/v2/persistent/public/default/{name}/partitions HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let exchange = async {
        let mut socket = tokio::net::TcpStream::connect(address).await?;
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.map(|_| answer)
    };
    let answer = exchange.await.map_err(|error| format!("the admin API: {error}"))?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if status.starts_with('2') { Ok(()) } else { Err(format!("the admin API answered {status} to a topic's creation")) }
}
