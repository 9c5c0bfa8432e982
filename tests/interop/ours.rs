//! The same three requests to this client.

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pulsar_native::{
    BatchingType, Client, HashingScheme, InitialPosition, Message, MessageId, PemKey, PemKeyReader, ReceivedMessage,
    Token,
};

use crate::checks::Work;
use crate::message::{Described, LOCAL_CLUSTER};

pub async fn within<T>(what: &str, call: impl Future<Output = Result<T, impl std::fmt::Display>>) -> Result<T, String> {
    let timed = tokio::time::timeout(Duration::from_secs(30), call).await;
    timed.map_err(|_| format!("{what}: 30 s have passed"))?.map_err(|error| format!("{what}: {error}"))
}

/// What the environment says of the broker.
pub fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|_| format!("{name} is not in the environment"))
}

/// What encrypted messages are encrypted for.
pub const KEY_NAME: &str = "interop";

/// The file of a key for tests.
pub fn key_file(name: &str) -> String {
    format!("{}/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn keys() -> PemKeyReader {
    PemKeyReader::new()
        .with_public_key(KEY_NAME, PemKey::file(key_file("first.public.pem")))
        .with_private_key(KEY_NAME, PemKey::file(key_file("first.pkcs8.pem")))
}

pub struct Ours {
    pub client: Client,
}

impl Ours {
    pub async fn connect() -> Result<Self, String> {
        let builder = Client::builder(variable("PULSAR_URL")?).authentication(Token::new(variable("PULSAR_TOKEN")?));
        Ok(Self { client: within("the connection", builder.connect()).await? })
    }

    pub async fn produce(&self, work: &Work) -> Result<Vec<String>, String> {
        let hashing = if work.murmur3 { HashingScheme::Murmur3Hash32 } else { HashingScheme::JavaStringHash };
        let builder =
            self.client.producer(&work.topic).batching(work.batching).chunking(work.chunking).hashing_scheme(hashing);
        let builder = builder
            .compression(work.codec)
            .batching_type(if work.by_key { BatchingType::KeyBased } else { BatchingType::Default })
            .compress_min_msg_body_size(0)
            .batching_max_publish_delay(Duration::from_millis(20));
        let builder = match work.encrypted {
            true => builder.encryption_key(KEY_NAME).crypto_key_reader(keys()),
            false => builder,
        };
        let producer = within("the producer", builder.create()).await?;
        let mut pending = Vec::new();
        for message in &work.messages {
            pending.push(within("a send", producer.enqueue(built(message))).await?);
        }
        let mut ids = Vec::new();
        for one in pending {
            ids.push(id_of(&within("a receipt", one).await?));
        }
        within("the close", producer.close()).await?;
        Ok(ids)
    }

    pub async fn subscribe(&self, work: &Work) -> Result<(), String> {
        within("the close", self.consumer(work).await?.close()).await
    }

    async fn consumer(&self, work: &Work) -> Result<pulsar_native::Consumer, String> {
        let builder = self.client.consumer(&work.topic, "ours").initial_position(InitialPosition::Earliest);
        let builder = if work.encrypted { builder.crypto_key_reader(keys()) } else { builder };
        within("the consumer", builder.subscribe()).await
    }

    pub async fn consume(&self, work: &Work) -> Result<Vec<(Described, String)>, String> {
        let mut consumer = self.consumer(work).await?;
        let mut seen = Vec::new();
        for _ in &work.messages {
            let message = within("a message", consumer.receive()).await?;
            within("the acknowledgment", consumer.ack_confirmed(&message)).await?;
            if message.encryption_context().is_some() != work.encrypted {
                return Err(format!("encrypted is to be {}: {message:?}", work.encrypted));
            }
            seen.push((described(&message), id_of(&message.id())));
        }
        within("the close", consumer.close()).await?;
        Ok(seen)
    }
}

fn built(described: &Described) -> Message {
    let message = Message::new(described.payload.clone().unwrap_or_default());
    let mut message = if described.payload.is_none() { message.with_null_value() } else { message };
    if let Some(key) = &described.key {
        message = message.with_key(key);
    }
    if let Some(key) = &described.key_bytes {
        message = message.with_key_bytes(key.clone());
    }
    if let Some(key) = &described.ordering_key {
        message = message.with_ordering_key(key.clone());
    }
    if let Some(time) = described.event_time {
        message = message.with_event_time(UNIX_EPOCH + Duration::from_millis(time));
    }
    for (key, value) in &described.properties {
        message = message.with_property(key, value);
    }
    match described.replicate_to.as_slice() {
        [] => message,
        [local] if local == LOCAL_CLUSTER => message.with_replication_disabled(),
        clusters => message.with_replication_clusters(clusters),
    }
}

pub fn described(message: &ReceivedMessage) -> Described {
    let is_text = !message.key_is_base64();
    let millis = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    Described {
        payload: (!message.is_null()).then(|| message.payload().to_vec()),
        key: message.key().filter(|_| is_text).map(str::to_owned),
        key_bytes: message.key_bytes().filter(|_| !is_text).map(|key| key.into_owned()),
        ordering_key: message.ordering_key().map(<[u8]>::to_vec),
        properties: message.properties().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        event_time: message.event_time().map(millis),
        replicate_to: message.replication_clusters().map(str::to_owned).collect(),
    }
}

pub fn id_of(id: &MessageId) -> String {
    let or_minus_one = |number: Option<u64>| number.map_or("-1".to_owned(), |number| number.to_string());
    let numbers = [id.ledger_id(), id.entry_id(), id.partition().map(u64::from), id.batch_index().map(u64::from)];
    numbers.map(or_minus_one).join(":")
}
