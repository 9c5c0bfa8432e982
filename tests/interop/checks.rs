//! The checks. Each goes both ways: the official client sends and this one receives, and the reverse.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use Job::{DeadLetters, Growth, Ids, Matrix, Messages, Pattern, Readers, Retries, Table, TokenRefresh};
use pulsar_native::Compression;

use crate::admin;
use crate::changing;
use crate::common::random::Random;
use crate::ids;
use crate::letters::{self, Kind};
use crate::matrix;
use crate::message::{Described, LOCAL_CLUSTER};
use crate::ours::Ours;
use crate::peer::Peer;
use crate::readers;
use crate::refresh;
use crate::table;

/// How much of an error is printed, characters.
const ERROR_CHARS_MAX: usize = 400;

/// What is sent, and how.
#[derive(Clone)]
pub struct Work {
    pub topic: String,
    pub partitions: u32,
    pub batching: bool,
    /// A batch for each key.
    pub by_key: bool,
    pub chunking: bool,
    pub codec: Compression,
    /// By the keys of `tests/keys/first.*`.
    pub encrypted: bool,
    pub murmur3: bool,
    pub messages: Vec<Described>,
}

impl Work {
    fn needs(&self) -> Vec<&'static str> {
        let mut needs: Vec<_> = self.messages.iter().flat_map(Described::needs).collect();
        if self.partitions > 0 {
            needs.push(if self.murmur3 { "murmur3" } else { "java_hash" });
        }
        if self.encrypted && self.chunking {
            needs.push("encrypted_chunks");
        }
        needs
    }

    pub fn new(messages: Vec<Described>) -> Self {
        Self {
            topic: String::new(),
            partitions: 0,
            batching: false,
            by_key: false,
            chunking: false,
            codec: Compression::None,
            encrypted: false,
            murmur3: false,
            messages,
        }
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

fn for_clusters() -> Vec<Described> {
    let of = |clusters: &[&str]| clusters.iter().map(|&name| name.to_owned()).collect();
    let message = |text, clusters: &[&str]| Described { replicate_to: of(clusters), ..Described::new(text) };
    vec![message("two", &["east", "west"]), message("none", &[LOCAL_CLUSTER]), message("all", &[])]
}

fn keyed(stem: &str) -> Vec<Described> {
    let key = |at: u32| Described { key: Some(format!("{stem}-{at}")), ..Described::new(format!("value {at}")) };
    (0..40).map(key).collect()
}

/// Every check but those of the [matrix](crate::matrix).
fn all() -> Vec<(&'static str, Job)> {
    let one = |message: Described| Messages(Work::new(vec![message]));
    let many: Vec<_> = (0..100).map(|at| Described::new(format!("message {at}"))).collect();
    vec![
        ("plain", Messages(Work::new(plain()))),
        ("key", one(Described { key: Some("order-7".into()), ..Described::new("keyed") })),
        ("bytes key", one(Described { key_bytes: Some(vec![0, 255, 128]), ..Described::new("keyed by bytes") })),
        ("ordering key", one(Described { ordering_key: Some(b"lane".to_vec()), ..Described::new("ordered") })),
        ("properties", Messages(Work::new(properties()))),
        ("event time", one(Described { event_time: Some(1_700_000_000_123), ..Described::new("timed") })),
        ("replication clusters", Messages(Work::new(for_clusters()))),
        ("empty", one(Described::new(""))),
        ("null", one(Described { key: Some("gone".into()), ..Described::default() })),
        ("batch", Messages(Work { batching: true, ..Work::new(many) })),
        ("partitions by Java's hash", Messages(Work { partitions: 5, ..Work::new(keyed("order")) })),
        ("partitions by Murmur3", Messages(Work { partitions: 5, murmur3: true, ..Work::new(keyed("schlüssel")) })),
        ("partitions of keys beyond ASCII", Messages(Work { partitions: 5, ..Work::new(keyed("schlüssel")) })),
        ("partitions that are added", Growth),
        ("topics of a pattern", Pattern),
        ("message ids in bytes", Ids),
        ("readers and checkpoints", Readers),
        ("table view", Table),
        ("token refresh", TokenRefresh),
        ("dead letters", DeadLetters(Kind::Shared)),
        ("dead letters of Key_Shared", DeadLetters(Kind::KeyShared)),
        ("retries in turn", Retries(Kind::Shared)),
        ("retries in turn on Key_Shared", Retries(Kind::KeyShared)),
    ]
}

/// A name and what is done.
pub type Check = (String, Job);

pub enum Job {
    /// Messages both ways.
    Messages(Work),
    /// A row of the matrix.
    Matrix(Work),
    TokenRefresh,
    /// Keys while partitions are added.
    Growth,
    /// Topics that come under a pattern.
    Pattern,
    /// Ids of messages that the other side has written.
    Ids,
    /// Readers that go on where one of the other side was stopped.
    Readers,
    /// The last value of each key.
    Table,
    /// What each side makes of messages that it gave up.
    DeadLetters(Kind),
    /// Messages that each side sends to the retry topic, for the other.
    Retries(Kind),
}

/// Those to be run: what `INTEROP_CHECKS` names, separated by commas; or as many as `INTEROP_SAMPLE` says, and as many
/// rows of the matrix, chosen by `INTEROP_SEED` or a new seed, which is printed; or all.
pub fn chosen() -> Result<Vec<Check>, String> {
    let mut checks: Vec<Check> = all().into_iter().map(|(name, job)| (name.to_owned(), job)).collect();
    let mut rows = matrix::rows();
    if let Ok(names) = std::env::var("INTEROP_CHECKS") {
        let names: BTreeSet<_> = names.split(',').map(str::trim).collect();
        let is_check = |name: &str| checks.iter().chain(&rows).any(|(check, _)| *check == name);
        if let Some(name) = names.iter().find(|name| !is_check(name)) {
            return Err(format!("INTEROP_CHECKS names no check: {name}"));
        }
        checks.retain(|(check, _)| names.contains(check.as_str()));
        rows.retain(|(check, _)| names.contains(check.as_str()));
    }
    if let Some(sample) = number("INTEROP_SAMPLE")? {
        let new_seed = || UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let seed = number("INTEROP_SEED")?.unwrap_or_else(new_seed);
        let (of_checks, of_rows) = (checks.len(), rows.len());
        println!(
            "interop: samples of {sample} of {of_checks} checks and of {of_rows} rows of the matrix, INTEROP_SEED={seed} \
             repeats them"
        );
        let mut random = Random::new(seed);
        for list in [&mut checks, &mut rows] {
            while list.len() as u64 > sample.max(1) {
                list.remove(random.below(list.len() as u64) as usize);
            }
        }
    }
    checks.append(&mut rows);
    Ok(checks)
}

fn number(variable: &str) -> Result<Option<u64>, String> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| format!("{variable} takes a number, not {text}"))
}

/// The checks with one client; how many failed.
pub async fn run_all(name: &str, command: &str, checks: &[Check]) -> usize {
    let mut failed = 0;
    let (ours, mut peer) = match (Ours::connect().await, Peer::start(command).await) {
        (Ok(ours), Ok(peer)) => (ours, peer),
        (ours, peer) => {
            println!("{name}: FAILED to start: {:?} {:?}", ours.err(), peer.err());
            return 1;
        }
    };
    for (check, job) in checks {
        let lacking = job.needs().iter().any(|need| peer.lacks(need));
        let outcome = match lacking {
            true => "not possible with this client".to_owned(),
            false => match job.run(&ours, &mut peer).await {
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

impl Job {
    /// The names, as in `lacks`, of what a client must be able to do.
    fn needs(&self) -> Vec<&'static str> {
        match self {
            Messages(work) | Matrix(work) => work.needs(),
            TokenRefresh | DeadLetters(_) | Ids | Readers => Vec::new(),
            Retries(_) => vec!["give_up"],
            Growth => vec!["send_keys"],
            Pattern => vec!["read_pattern"],
            Table => vec!["read_table"],
        }
    }

    async fn run(&self, ours: &Ours, peer: &mut Peer) -> Result<(), String> {
        match self {
            Messages(work) => both_ways(ours, peer, work).await.map(drop),
            Matrix(work) => matrix::run(ours, peer, work).await,
            TokenRefresh => refresh::run(peer).await,
            Growth => changing::grown(ours, peer).await,
            Pattern => changing::matched(ours, peer).await,
            Ids => ids::run(ours, peer).await,
            Readers => readers::run(ours, peer).await,
            Table => table::run(ours, peer).await,
            DeadLetters(kind) => letters::dead(ours, peer, *kind).await,
            Retries(kind) => letters::retried(ours, peer, *kind).await,
        }
    }
}

/// Both ways, each on a topic of its own, and the topics: that of their messages, that of ours. Keys have gone to the
/// same partitions.
pub async fn both_ways(ours: &Ours, peer: &mut Peer, work: &Work) -> Result<[String; 2], String> {
    let (theirs_to_ours, ours_to_theirs) = (on_new_topic(work).await?, on_new_topic(work).await?);
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
    Ok([theirs_to_ours.topic, ours_to_theirs.topic])
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
    if work.by_key {
        check_key_batches(&seen)?;
    }
    let in_order = work.partitions > 0 || work.by_key || ids.iter().eq(seen.iter().map(|(_, id)| id));
    if !in_order {
        return Err("out of order".to_owned());
    }
    let partition = |id: &str| id.split(':').nth(2).unwrap_or_default().to_owned();
    let keyed = |(id, message): (&&String, &&Described)| Some((message.key.clone()?, partition(id)));
    Ok(sent.iter().filter_map(keyed).collect())
}

/// An entry has messages of one key; they share entries, and come in the order of the calls, which is that of their payloads.
fn check_key_batches(seen: &[(&Described, String)]) -> Result<(), String> {
    let mut last = BTreeMap::new();
    let mut entries = BTreeMap::new();
    for (message, id) in seen {
        let before = last.insert(&message.key, &message.payload);
        if before.is_some_and(|before| *before >= message.payload) {
            return Err(format!("{:?} is out of order", message.key));
        }
        let entry = id.rsplitn(3, ':').last().unwrap_or_default();
        if *entries.entry(entry).or_insert(&message.key) != &message.key {
            return Err(format!("entry {entry} has messages of several keys"));
        }
    }
    match entries.len() * 2 <= seen.len() {
        true => Ok(()),
        false => Err(format!("{} messages in {} entries", seen.len(), entries.len())),
    }
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
    let topic = new_topic();
    if work.partitions > 0 {
        admin::create_partitioned(&topic, work.partitions).await?;
    }
    Ok(Work { topic, ..work.clone() })
}

/// The name of a topic that nothing else uses.
pub fn new_topic() -> String {
    static TOPICS: AtomicU64 = AtomicU64::new(0);
    let number = TOPICS.fetch_add(1, Ordering::Relaxed);
    format!("persistent://public/default/interop-{}-{number}", std::process::id())
}
