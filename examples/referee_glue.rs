//! This client behind the line protocol of `pulsar-native referee`: what a glue is, in any language. `docs/referee.md` has the lines.
//!
//! `pulsar-native referee -- target/debug/examples/referee_glue`

use std::collections::HashMap;
use std::time::Duration;

use pulsar_native::{
    AccessMode, Client, Consumer, InitialPosition, Producer, ReceivedMessage, SubscriptionType, Token,
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
    messages: HashMap<String, ReceivedMessage>,
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
            ["connect", url, timeout, ref options @ ..] => self.client = Some(client(url, timeout, options)?),
            ["producer", name, topic, ref options @ ..] => {
                let producer = producer(self.client()?, topic, options).await?;
                self.producers.insert(name.to_owned(), producer);
            }
            ["subscribe", name, topic, subscription, kind, queue, ref options @ ..] => {
                let consumer = consumer(self.client()?, [topic, subscription, kind, queue], options).await?;
                self.consumers.insert(name.to_owned(), consumer);
            }
            ["send", producer, id, ref payload @ ..] => {
                let (answers, id) = (answers.clone(), id.to_owned());
                let pending = found(&self.producers, producer)?.enqueue(payload.join(" ")).await?;
                tokio::spawn(async move {
                    let _ = answers.send(match pending.await {
                        Ok(stored) => {
                            format!("sent {id} ok {}:{}", stored.position().ledger_id, stored.position().entry_id)
                        }
                        Err(error) => format!("sent {id} error {error}"),
                    });
                });
            }
            ["receive", consumer, name, wait] => {
                let consumer = self.consumers.get_mut(consumer).ok_or_else(|| missing(consumer))?;
                let Ok(received) = timeout(millis(wait)?, consumer.receive()).await else {
                    return Ok("none".to_owned());
                };
                let message = received?;
                let answer = format!("ok {} {:.1000}", message.redelivery_count(), message.to_string_lossy());
                self.messages.insert(name.to_owned(), message);
                return Ok(answer);
            }
            ["ack", consumer, name] => found(&self.consumers, consumer)?.ack(found(&self.messages, name)?)?,
            ["ack_cumulative", consumer, name] => {
                found(&self.consumers, consumer)?.ack_cumulative(found(&self.messages, name)?)?;
            }
            ["nack", consumer, name] => found(&self.consumers, consumer)?.nack(found(&self.messages, name)?)?,
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
}

fn found<'a, T>(all: &'a HashMap<String, T>, name: &str) -> Result<&'a T, Refusal> {
    all.get(name).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> Refusal {
    Refusal::Failed(format!("there is no {name}"))
}

fn millis(value: &str) -> Result<Duration, Refusal> {
    Ok(Duration::from_millis(value.parse()?))
}

fn client(url: &str, timeout: &str, options: &[&str]) -> Result<Client, Refusal> {
    let mut builder = Client::builder(url).operation_timeout(millis(timeout)?);
    for option in options {
        builder = match option.split_once('=') {
            Some(("connection_timeout_ms", value)) => builder.connection_timeout(millis(value)?),
            Some(("keep_alive_ms", value)) => builder.keep_alive_interval(millis(value)?),
            Some(("token_file", path)) => builder.authentication(Token::from_file(path)),
            _ => return Err(Refusal::Unsupported((*option).to_owned())),
        };
    }
    Ok(builder.build()?)
}

async fn producer(client: &Client, topic: &str, options: &[&str]) -> Result<Producer, Refusal> {
    let mut builder = client.producer(topic).batching(false);
    for option in options {
        builder = match option.split_once('=') {
            Some(("batching", value)) => builder.batching(value.parse()?),
            Some(("send_timeout_ms", value)) => builder.send_timeout(millis(value)?),
            Some(("producer_name", name)) => builder.name(name),
            Some(("access_mode", "exclusive")) => builder.access_mode(AccessMode::Exclusive),
            _ => return Err(Refusal::Unsupported((*option).to_owned())),
        };
    }
    Ok(builder.create().await?)
}

async fn consumer(client: &Client, fixed: [&str; 4], options: &[&str]) -> Result<Consumer, Refusal> {
    let [topic, subscription, kind, queue] = fixed;
    let kind = match kind {
        "exclusive" => SubscriptionType::Exclusive,
        "shared" => SubscriptionType::Shared,
        "failover" => SubscriptionType::Failover,
        "key_shared" => SubscriptionType::KeyShared,
        _ => return Err(Refusal::Unsupported(kind.to_owned())),
    };
    let builder = client.consumer(topic, subscription).subscription_type(kind).receiver_queue_size(queue.parse()?);
    let mut builder = builder.initial_position(InitialPosition::Earliest);
    for option in options {
        builder = match option.split_once('=') {
            Some(("nack_delay_ms", value)) => builder.negative_ack_redelivery_delay(millis(value)?),
            Some(("ack_timeout_ms", value)) => builder.ack_timeout(millis(value)?),
            Some(("batch_index_ack", value)) => builder.batch_index_acknowledgment(value.parse()?),
            _ => return Err(Refusal::Unsupported((*option).to_owned())),
        };
    }
    Ok(builder.subscribe().await?)
}
