//! This client behind the line protocol of `pulsar-native referee`: what a glue is, in any language. `docs/referee.md` has the lines.
//!
//! `pulsar-native referee -- target/debug/examples/referee_glue`

use std::collections::HashMap;
use std::time::Duration;

use pulsar_native::{
    AccessMode, Client, Consumer, InitialPosition, Message, Producer, ReceivedMessage, SubscriptionType, Token,
};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::timeout;

#[tokio::main]
async fn main() {
    run(tokio::io::stdin(), tokio::io::stdout()).await;
}

#[derive(Default)]
struct Glue {
    client: Option<Client>,
    producers: HashMap<String, Producer>,
    consumers: HashMap<String, Consumer>,
    /// Received messages; a handle is an index.
    messages: Vec<ReceivedMessage>,
}

/// Why a request is answered with something else than `ok`.
enum Refusal {
    Failed(String),
    Unsupported(String),
}

impl<E: std::error::Error> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string().replace('\n', " "))
    }
}

pub(crate) async fn run(input: impl AsyncRead + Unpin, mut output: impl AsyncWrite + Unpin + Send + 'static) {
    let (answers, mut lines) = unbounded_channel::<String>();
    let writer = tokio::spawn(async move {
        while let Some(line) = lines.recv().await {
            if output.write_all(format!("{line}\n").as_bytes()).await.is_err() || output.flush().await.is_err() {
                return;
            }
        }
    });
    let _ = answers.send(concat!("ready pulsar-native ", env!("CARGO_PKG_VERSION")).to_owned());
    let (mut glue, mut requests) = (Glue::default(), BufReader::new(input).lines());
    while let Ok(Some(line)) = requests.next_line().await {
        let answer = match glue.answer(&line, &answers).await {
            Ok(text) => text,
            Err(Refusal::Failed(error)) => format!("error {error}"),
            Err(Refusal::Unsupported(what)) => format!("unsupported {what}"),
        };
        if answers.send(answer).is_err() || line == "exit" {
            break;
        }
    }
    drop((glue, answers));
    let _ = writer.await;
}

impl Glue {
    async fn answer(&mut self, line: &str, answers: &UnboundedSender<String>) -> Result<String, Refusal> {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["connect", url, ref options @ ..] => self.client = Some(client(url, options)?),
            ["producer", name, topic, ref options @ ..] => {
                let producer = producer(self.client()?, topic, options).await?;
                self.producers.insert(name.to_owned(), producer);
            }
            ["subscribe", name, topic, subscription, kind, ref options @ ..] => {
                let consumer = consumer(self.client()?, topic, subscription, kind, options).await?;
                self.consumers.insert(name.to_owned(), consumer);
            }
            ["send", producer, id, ref payload @ ..] => {
                let (answers, id) = (answers.clone(), id.to_owned());
                let pending = found(&self.producers, producer)?.enqueue(Message::new(payload_of(payload))).await?;
                tokio::spawn(async move {
                    let _ = answers.send(match pending.await {
                        Ok(stored) => {
                            format!("sent {id} ok {}:{}", stored.position().ledger_id, stored.position().entry_id)
                        }
                        Err(error) => format!("sent {id} error {error}"),
                    });
                });
            }
            ["receive", consumer, millis] => {
                let wait = Duration::from_millis(millis.parse()?);
                let consumer = self.consumers.get_mut(consumer).ok_or_else(|| missing(consumer))?;
                let Ok(received) = timeout(wait, consumer.receive()).await else { return Ok("none".to_owned()) };
                let message = received?;
                let (count, payload) = (message.redelivery_count(), shown(&message));
                self.messages.push(message);
                return Ok(format!("ok {} {count} {payload}", self.messages.len() - 1));
            }
            ["ack", consumer, message] => found(&self.consumers, consumer)?.ack(self.message(message)?)?,
            ["ack_cumulative", consumer, message] => {
                found(&self.consumers, consumer)?.ack_cumulative(self.message(message)?)?;
            }
            ["nack", consumer, message] => found(&self.consumers, consumer)?.nack(self.message(message)?)?,
            ["close", name] => match (self.producers.remove(name), self.consumers.remove(name)) {
                (Some(producer), _) => producer.close().await?,
                (_, Some(consumer)) => consumer.close().await?,
                _ => return Err(missing(name)),
            },
            ["exit"] => {
                if let Some(client) = self.client.take() {
                    client.close().await?;
                }
            }
            _ => return Err(Refusal::Unsupported(line.to_owned())),
        }
        Ok("ok".to_owned())
    }

    fn client(&self) -> Result<&Client, Refusal> {
        self.client.as_ref().ok_or_else(|| Refusal::Failed("not connected".to_owned()))
    }

    fn message(&self, handle: &str) -> Result<&ReceivedMessage, Refusal> {
        self.messages.get(handle.parse::<usize>()?).ok_or_else(|| Refusal::Failed(format!("no message {handle}")))
    }
}

fn found<'a, T>(all: &'a HashMap<String, T>, name: &str) -> Result<&'a T, Refusal> {
    all.get(name).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> Refusal {
    Refusal::Failed(format!("there is no {name}"))
}

fn client(url: &str, options: &[&str]) -> Result<Client, Refusal> {
    let mut builder = Client::builder(url);
    for option in options {
        builder = match option.split_once('=') {
            Some(("operation_timeout_ms", value)) => builder.operation_timeout(Duration::from_millis(value.parse()?)),
            Some(("connection_timeout_ms", value)) => builder.connection_timeout(Duration::from_millis(value.parse()?)),
            Some(("keep_alive_ms", value)) => builder.keep_alive_interval(Duration::from_millis(value.parse()?)),
            Some(("token_file", path)) => builder.authentication(Token::from_file(path)),
            _ => return Err(Refusal::Unsupported((*option).to_owned())),
        };
    }
    Ok(builder.build()?)
}

async fn producer(client: &Client, topic: &str, options: &[&str]) -> Result<Producer, Refusal> {
    let mut builder = client.producer(topic);
    for option in options {
        builder = match option.split_once('=') {
            Some(("batching", value)) => builder.batching(value.parse()?),
            Some(("send_timeout_ms", value)) => builder.send_timeout(Duration::from_millis(value.parse()?)),
            Some(("producer_name", name)) => builder.name(name),
            Some(("access_mode", "exclusive")) => builder.access_mode(AccessMode::Exclusive),
            _ => return Err(Refusal::Unsupported((*option).to_owned())),
        };
    }
    Ok(builder.create().await?)
}

async fn consumer(
    client: &Client,
    topic: &str,
    subscription: &str,
    kind: &str,
    options: &[&str],
) -> Result<Consumer, Refusal> {
    let kind = match kind {
        "exclusive" => SubscriptionType::Exclusive,
        "shared" => SubscriptionType::Shared,
        "failover" => SubscriptionType::Failover,
        "key_shared" => SubscriptionType::KeyShared,
        _ => return Err(Refusal::Unsupported(kind.to_owned())),
    };
    let mut builder = client.consumer(topic, subscription).subscription_type(kind);
    for option in options {
        builder = match option.split_once('=') {
            Some(("position", "earliest")) => builder.initial_position(InitialPosition::Earliest),
            Some(("queue", value)) => builder.receiver_queue_size(value.parse()?),
            Some(("nack_delay_ms", value)) => {
                builder.negative_ack_redelivery_delay(Duration::from_millis(value.parse()?))
            }
            Some(("ack_timeout_ms", value)) => builder.ack_timeout(Duration::from_millis(value.parse()?)),
            Some(("batch_index_ack", value)) => builder.batch_index_acknowledgment(value.parse()?),
            _ => return Err(Refusal::Unsupported((*option).to_owned())),
        };
    }
    Ok(builder.subscribe().await?)
}

/// The payload as text, or `bytes:N` of a long one.
fn shown(message: &ReceivedMessage) -> String {
    let length = message.payload().len();
    if length > 1_000 { format!("bytes:{length}") } else { message.to_string_lossy().into_owned() }
}

/// Words, or `bytes:N` for so many bytes of any content.
fn payload_of(words: &[&str]) -> Vec<u8> {
    let count = words.first().and_then(|word| word.strip_prefix("bytes:")).and_then(|count| count.parse().ok());
    count.map_or_else(|| words.join(" ").into_bytes(), |count| vec![b'x'; count])
}
