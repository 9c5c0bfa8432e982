//! One official client: a process that speaks the line protocol of `clients/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::checks::Work;
use crate::ids::PAYLOAD_BYTES;
use crate::letters::{DELAY_MS, Kind, MAX};
use crate::message::{Described, hex, unhex};
use crate::ours::{KEY_NAME, key_file};

/// For one request; a first one starts the client.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(90);

pub struct Peer {
    _process: Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Name and version.
    pub title: String,
    lacks: Vec<String>,
}

/// Messages that a consumer of the peer does not acknowledge.
pub struct GiveUp<'a> {
    pub topic: &'a str,
    pub subscription: &'a str,
    pub kind: Kind,
    /// With the retry topic.
    pub retry: bool,
    /// `nack` or `reconsume`.
    pub then: &'static str,
    /// How many deliveries.
    pub count: usize,
}

/// A message id in bytes, and the topic that it is of.
pub struct Place {
    pub topic: String,
    /// The partitioned topic, if it is a partition.
    pub parent: Option<String>,
    pub bytes: Vec<u8>,
}

/// What lies behind a place.
#[derive(Debug)]
pub struct Behind {
    /// The starts of the messages that were read there, each in another way.
    pub payloads: Vec<String>,
    /// The id, as the client writes it again.
    pub bytes: Vec<u8>,
}

impl Peer {
    /// Starts `command`, a line for the shell.
    pub async fn start(command: &str) -> Result<Self, String> {
        let mut process = Command::new("sh");
        process
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut process = process.spawn().map_err(|error| format!("{command}: {error}"))?;
        let requests = process.stdin.take().ok_or("no standard input")?;
        let answers = BufReader::new(process.stdout.take().ok_or("no standard output")?).lines();
        let mut peer = Self { _process: process, requests, answers, title: String::new(), lacks: Vec::new() };
        let info = peer.ask(json!({"do": "info"})).await?;
        peer.title = format!("{} {}", text(&info["client"]), text(&info["version"]));
        peer.lacks = info["lacks"].as_array().map(|all| all.iter().map(text).collect()).unwrap_or_default();
        Ok(peer)
    }

    /// Whether it cannot do what is named.
    pub fn lacks(&self, name: &str) -> bool {
        self.lacks.iter().any(|lack| lack == name)
    }

    async fn ask(&mut self, request: Value) -> Result<Value, String> {
        let asking = async {
            self.requests.write_all(format!("{request}\n").as_bytes()).await?;
            loop {
                // Some clients also log to standard output.
                match self.answers.next_line().await? {
                    Some(line) if !line.starts_with('{') => {}
                    line => return Ok::<_, std::io::Error>(line),
                }
            }
        };
        let line = tokio::time::timeout(ANSWER_TIME_MAX, asking).await;
        let line = line.map_err(|_| format!("no answer within {ANSWER_TIME_MAX:?} to {}", request["do"]))?;
        let line = line.map_err(|error| error.to_string())?.ok_or("the client has ended")?;
        let answer: Value = serde_json::from_str(&line).map_err(|error| format!("{error} in {line}"))?;
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer),
        }
    }

    /// Sends all, and gives their ids.
    pub async fn produce(&mut self, work: &Work) -> Result<Vec<String>, String> {
        let messages: Vec<_> = work.messages.iter().map(Described::to_json).collect();
        let request = json!({
            "do": "produce", "topic": work.topic, "batching": work.batching, "by_key": work.by_key,
            "chunking": work.chunking, "compression": format!("{:?}", work.codec).to_uppercase(),
            "hashing": if work.murmur3 { "murmur3" } else { "java" }, "messages": messages, "keys": keys(work),
        });
        let answer = self.ask(request).await?;
        let ids = answer["ids"].as_array().ok_or("an answer without ids")?;
        Ok(ids.iter().map(|id| id.as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Creates the subscription.
    pub async fn subscribe(&mut self, work: &Work) -> Result<(), String> {
        self.receive(work, 0).await.map(drop)
    }

    /// Receives and acknowledges as many as `work` has, with their ids.
    pub async fn consume(&mut self, work: &Work) -> Result<Vec<(Described, String)>, String> {
        self.receive(work, work.messages.len()).await
    }

    /// Receives and gives up; the consumer stays until [`release`](Self::release).
    pub async fn give_up(&mut self, asked: &GiveUp<'_>) -> Result<Vec<(Described, String)>, String> {
        let request = json!({
            "do": "give_up", "topic": asked.topic, "subscription": asked.subscription, "type": asked.kind.java(),
            "retry": asked.retry, "then": asked.then, "max": MAX, "delay_ms": DELAY_MS, "count": asked.count,
        });
        messages(&self.ask(request).await?)
    }

    /// Sends a message with each key, by a producer that looks for new partitions every second and stays until
    /// [`release`](Self::release); their partitions.
    pub async fn send_keys(&mut self, topic: &str, keys: &[String]) -> Result<Vec<i64>, String> {
        let answer = self.ask(json!({"do": "send_keys", "topic": topic, "keys": keys})).await?;
        let ids = answer["ids"].as_array().ok_or("an answer without ids")?;
        let partition = |id: &Value| id.as_str()?.split(':').nth(2)?.parse().ok();
        ids.iter().map(|id| partition(id).ok_or_else(|| format!("no partition in {id}"))).collect()
    }

    /// Receives so many messages of the topics that match, by a consumer that stays until [`release`](Self::release);
    /// the topics.
    pub async fn read_pattern(&mut self, pattern: &str, count: usize) -> Result<BTreeSet<String>, String> {
        let answer = self.ask(json!({"do": "read_pattern", "pattern": pattern, "count": count})).await?;
        let topics = answer["topics"].as_array().ok_or("an answer without topics")?;
        Ok(topics.iter().filter_map(|topic| topic.as_str().map(str::to_owned)).collect())
    }

    /// Of so many messages from the start of a topic on, the start of the payload and the id in bytes.
    pub async fn read_ids(&mut self, topic: &str, count: usize) -> Result<Vec<(String, Vec<u8>)>, String> {
        let answer =
            self.ask(json!({"do": "read_ids", "topic": topic, "count": count, "bytes": PAYLOAD_BYTES})).await?;
        let messages = answer["messages"].as_array().ok_or("an answer without messages")?;
        messages.iter().map(|message| Ok((text(&message["payload"]), bytes(&message["id_bytes"])?))).collect()
    }

    /// The next message behind each place.
    pub async fn read_behind(&mut self, places: &[Place]) -> Result<Vec<Behind>, String> {
        let place =
            |place: &Place| json!({"topic": place.topic, "parent": place.parent, "id_bytes": hex(&place.bytes)});
        let places: Vec<_> = places.iter().map(place).collect();
        let answer = self.ask(json!({"do": "read_behind", "places": places, "bytes": PAYLOAD_BYTES})).await?;
        let found = answer["found"].as_array().ok_or("an answer without what was found")?;
        let behind = |one: &Value| {
            let payloads = one["payloads"].as_array().ok_or("no payloads")?.iter().map(text).collect();
            Ok(Behind { payloads, bytes: bytes(&one["id_bytes"])? })
        };
        found.iter().map(behind).collect()
    }

    /// The entries of a table view of the topic, once it is read to its end.
    pub async fn read_table(&mut self, topic: &str) -> Result<BTreeMap<String, Vec<u8>>, String> {
        let answer = self.ask(json!({"do": "read_table", "topic": topic})).await?;
        let entries = answer["entries"].as_object().ok_or("an answer without entries")?;
        entries.iter().map(|(key, value)| Ok((key.clone(), bytes(value)?))).collect()
    }

    /// Closes the producers and consumers that stay.
    pub async fn release(&mut self) -> Result<(), String> {
        self.ask(json!({"do": "release"})).await.map(drop)
    }

    /// Sends each message of `from` to `to`, up to the one that is `end`; how often its supplier of tokens was asked.
    pub async fn echo(&mut self, token_file: &str, from: &str, to: &str) -> Result<u64, String> {
        let answer = self.ask(json!({"do": "echo", "token_file": token_file, "from": from, "to": to})).await?;
        answer["tokens"].as_u64().ok_or_else(|| "an answer without tokens".to_owned())
    }

    async fn receive(&mut self, work: &Work, count: usize) -> Result<Vec<(Described, String)>, String> {
        let request = json!({
            "do": "consume", "topic": work.topic, "subscription": "theirs", "count": count, "keys": keys(work),
        });
        messages(&self.ask(request).await?)
    }
}

/// Of an encrypted work, the key. The private one as PKCS#1, because the Go client reads no PKCS#8.
fn keys(work: &Work) -> Value {
    match work.encrypted {
        true => json!({
            "name": KEY_NAME, "public": key_file("first.public.pem"), "private": key_file("first.pkcs1.pem"),
        }),
        false => Value::Null,
    }
}

fn bytes(value: &Value) -> Result<Vec<u8>, String> {
    value.as_str().map(unhex).ok_or_else(|| format!("{value} is not hexadecimal"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("?").to_owned()
}

/// Those of an answer, with their ids.
fn messages(answer: &Value) -> Result<Vec<(Described, String)>, String> {
    let messages = answer["messages"].as_array().ok_or("an answer without messages")?;
    let id = |message: &Value| message["id"].as_str().unwrap_or_default().to_owned();
    Ok(messages.iter().map(|message| (Described::from_json(message), id(message))).collect())
}
