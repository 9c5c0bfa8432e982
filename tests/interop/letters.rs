//! Retry and dead letters. Of the same messages each side writes letters for a subscription of its own, and the two are
//! compared; every letter is read by both.

use std::time::Duration;

use pulsar_native::SubscriptionType::{self, KeyShared, Shared};
use pulsar_native::{Compression, Consumer, ConsumerBuilder, DeadLetterPolicy, InitialPosition, ReceivedMessage};

use crate::checks::{Work, new_topic};
use crate::message::Described;
use crate::ours::{Ours, described, id_of, within};
use crate::peer::{GiveUp, Peer};

/// The redeliveries and retries of the policy, on both sides.
pub const MAX: u32 = 2;
/// Of a negative acknowledgement and of a retry, milliseconds.
pub const DELAY_MS: u64 = 200;

/// The subscriptions: letters of the first are written by us to begin with, those of the second by them.
const SIDES: [&str; 2] = ["ours", "theirs"];

/// The same subscription type by the names of both sides.
#[derive(Clone, Copy)]
pub enum Kind {
    Shared,
    KeyShared,
}

impl Kind {
    pub fn java(self) -> &'static str {
        match self {
            Self::Shared => "Shared",
            Self::KeyShared => "Key_Shared",
        }
    }

    fn ours(self) -> SubscriptionType {
        match self {
            Self::Shared => Shared,
            Self::KeyShared => KeyShared,
        }
    }
}

/// Alone, compressed alone, in a batch, in a compressed batch.
fn forms(peer: &Peer) -> Vec<Work> {
    let message = |payload: &str| Described {
        ordering_key: Some(b"lane".to_vec()),
        properties: [("mine".to_owned(), "wert €".to_owned())].into(),
        event_time: Some(1_700_000_000_123),
        ..Described::new(payload)
    };
    let mut messages = vec![
        Described { key: Some("k".into()), ..message("keyed") },
        Described { key_bytes: Some(vec![0, 255, 128]), ..message("keyed by bytes") },
        Described { ordering_key: None, ..message("without a key") },
        Described { key: Some("gone".into()), ..Described::default() },
    ];
    messages.retain(|message| !message.needs().iter().any(|need| peer.lacks(need)));
    let form = |(batching, codec)| Work { topic: new_topic(), batching, codec, ..Work::new(messages.clone()) };
    [(false, Compression::None), (false, Compression::Lz4), (true, Compression::None), (true, Compression::Lz4)]
        .map(form)
        .into()
}

/// Messages that are never acknowledged: after 1 + [`MAX`] deliveries each is in the dead-letter topic, once.
pub async fn dead(ours: &Ours, peer: &mut Peer, kind: Kind) -> Result<(), String> {
    for work in forms(peer) {
        let form = format!("batching {}, codec {:?}", work.batching, work.codec);
        dead_of(ours, peer, kind, &work).await.map_err(|error| format!("{form}: {error}"))?;
    }
    Ok(())
}

async fn dead_of(ours: &Ours, peer: &mut Peer, kind: Kind, work: &Work) -> Result<(), String> {
    let [our_letters, their_letters] =
        SIDES.map(|side| Work { topic: format!("{}-{side}-DLQ", work.topic), ..work.clone() });
    let deliveries = work.messages.len() * (1 + MAX as usize);
    let writes_letters = !peer.lacks("give_up");
    let mut give_up = GiveUp { topic: &work.topic, subscription: SIDES[1], kind, retry: false, then: "nack", count: 0 };

    let mut consumer = within("the consumer", builder(ours, &work.topic, SIDES[0], kind).subscribe()).await?;
    if writes_letters {
        peer.give_up(&give_up).await?;
    }
    ours.produce(work).await?;
    for _ in 0..deliveries {
        let message = within("a delivery", consumer.receive()).await?;
        consumer.nack(&message).map_err(|error| error.to_string())?;
    }
    let seen = tokio::select! {
        seen = ours.consume(&our_letters) => seen.map_err(|error| format!("we read our letters: {error}"))?,
        message = consumer.receive() => return Err(format!("delivered once more: {message:?}")),
    };
    within("the close", consumer.close()).await?;
    let read = peer.consume(&our_letters).await.map_err(|error| format!("they read our letters: {error}"))?;
    same("our letters, as we and as they read them", &letters(seen.clone()), &letters(read))?;
    if writes_letters {
        give_up.count = deliveries;
        peer.give_up(&give_up).await.map_err(|error| format!("they are given them: {error}"))?;
        let theirs = ours.consume(&their_letters).await.map_err(|error| format!("we read theirs: {error}"))?;
        peer.release().await?;
        same("our letters and theirs", &letters(seen), &letters(theirs))?;
    }
    Ok(())
}

/// Messages that both sides in turn send to the retry topic, until they are in the dead-letter topic.
pub async fn retried(ours: &Ours, peer: &mut Peer, kind: Kind) -> Result<(), String> {
    for work in forms(peer) {
        let form = format!("batching {}, codec {:?}", work.batching, work.codec);
        retried_of(ours, peer, kind, &work).await.map_err(|error| format!("{form}: {error}"))?;
    }
    Ok(())
}

async fn retried_of(ours: &Ours, peer: &mut Peer, kind: Kind, work: &Work) -> Result<(), String> {
    ours.produce(work).await?;
    let mut seen = [Vec::new(), Vec::new()];
    for (at, side) in SIDES.into_iter().enumerate() {
        for delivery in 0..=MAX as usize {
            let taken = match delivery % 2 == at {
                true => reconsume_all(ours, work, side, kind).await.map_err(|error| format!("we: {error}")),
                false => reconsumed(peer, work, side, kind).await.map_err(|error| format!("they: {error}")),
            };
            seen[at].push(letters(taken.map_err(|error| format!("{side}, delivery {delivery}, {error}"))?));
        }
        let dead = Work { topic: format!("{}-{side}-DLQ", work.topic), ..work.clone() };
        let (read, their_read) = (ours.consume(&dead).await?, peer.consume(&dead).await?);
        same("dead letters, as we and as they read them", &letters(read.clone()), &letters(their_read))?;
        seen[at].push(letters(read));
    }
    let [ours, theirs] = seen;
    for (delivery, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        same(&format!("delivery {delivery}, sent by the one and by the other"), ours, theirs)?;
    }
    Ok(())
}

async fn reconsumed(peer: &mut Peer, work: &Work, side: &str, kind: Kind) -> Result<Vec<(Described, String)>, String> {
    let count = work.messages.len();
    let give_up = GiveUp { topic: &work.topic, subscription: side, kind, retry: true, then: "reconsume", count };
    let taken = peer.give_up(&give_up).await?;
    peer.release().await?;
    Ok(taken)
}

async fn reconsume_all(ours: &Ours, work: &Work, side: &str, kind: Kind) -> Result<Vec<(Described, String)>, String> {
    let builder = builder(ours, &work.topic, side, kind).retry_enabled(true);
    let mut consumer = within("the consumer", builder.subscribe()).await?;
    let mut seen = Vec::new();
    for _ in &work.messages {
        let message = within("a delivery", consumer.receive()).await?;
        within("the retry", consumer.reconsume_later(&message, Duration::from_millis(DELAY_MS))).await?;
        seen.push(taken(&message));
    }
    close(consumer).await?;
    Ok(seen)
}

async fn close(consumer: Consumer) -> Result<(), String> {
    within("the close", consumer.close()).await
}

fn taken(message: &ReceivedMessage) -> (Described, String) {
    (described(message), id_of(&message.id()))
}

fn builder(ours: &Ours, topic: &str, side: &str, kind: Kind) -> ConsumerBuilder {
    let builder = ours.client.consumer(topic, side).subscription_type(kind.ours());
    let builder = builder.negative_ack_redelivery_delay(Duration::from_millis(DELAY_MS));
    builder.initial_position(InitialPosition::Earliest).dead_letter_policy(DeadLetterPolicy::new(MAX))
}

/// In the order of their origin, without what names the side.
fn letters(read: Vec<(Described, String)>) -> Vec<Described> {
    let mut letters: Vec<_> = read.into_iter().map(|(letter, _)| letter).collect();
    for letter in &mut letters {
        if let Some(side) = letter.properties.get_mut("REAL_SUBSCRIPTION") {
            *side = if SIDES.contains(&side.as_str()) { "a side".to_owned() } else { format!("not a side: {side}") };
        }
    }
    letters.sort_by(|one, other| (&one.payload, &one.key).cmp(&(&other.payload, &other.key)));
    letters
}

fn same(what: &str, one: &[Described], other: &[Described]) -> Result<(), String> {
    if one.len() != other.len() {
        return Err(format!("{what}: {} and {}", one.len(), other.len()));
    }
    match one.iter().zip(other).find(|(one, other)| one != other) {
        Some((one, other)) => Err(format!("{what}: {one:?} and {other:?}")),
        None => Ok(()),
    }
}
