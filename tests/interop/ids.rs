//! Message ids in bytes: each side parses those of the other, and goes on reading behind them.

use pulsar_native::{InitialPosition, MessageId, SeekTo};

use crate::admin;
use crate::checks::{Work, new_topic};
use crate::common::random::Random;
use crate::message::Described;
use crate::ours::{Ours, within};
use crate::peer::{Peer, Place};

/// What is told of a payload, bytes.
pub const PAYLOAD_BYTES: usize = 8;

/// In batches, outside of them, in chunks, and in a partition.
pub async fn run(ours: &Ours, peer: &mut Peer) -> Result<(), String> {
    let batch = Work { batching: true, ..Work::new((0..12).map(numbered).collect()) };
    let plain = Work::new((0..4).map(numbered).collect());
    let chunked = Work { chunking: true, ..Work::new(vec![numbered(0), larger_than_an_entry(), numbered(2)]) };
    for (form, work) in [("batch", &batch), ("plain", &plain), ("chunked", &chunked)] {
        let topic = new_topic();
        both_ways(ours, peer, work, &topic, None).await.map_err(|error| format!("{form}: {error}"))?;
    }
    let topic = new_topic();
    admin::create_partitioned(&topic, 3).await?;
    let partition = format!("{topic}-partition-2");
    both_ways(ours, peer, &batch, &partition, Some(&topic)).await.map_err(|error| format!("partition: {error}"))
}

/// A payload that is told whole.
pub fn numbered(number: u32) -> Described {
    Described::new(format!("{number:08}"))
}

pub fn larger_than_an_entry() -> Described {
    let mut random = Random::new(7);
    let noise = (0..5_500_000).map(|_| random.below(256) as u8);
    Described::new(b"00000001".iter().copied().chain(noise).collect::<Vec<_>>())
}

/// `topic` may be a partition, of `parent`.
async fn both_ways(
    ours: &Ours,
    peer: &mut Peer,
    work: &Work,
    topic: &str,
    parent: Option<&String>,
) -> Result<(), String> {
    let work = Work { topic: topic.to_owned(), ..work.clone() };
    ours.produce(&work).await?;
    let own = read(ours, topic, work.messages.len()).await?;
    let reads_plain = !peer.lacks("plain_ids");
    let read_there = parent.filter(|_| !reads_plain).map_or(topic, |parent| parent);
    let theirs = peer.read_ids(read_there, work.messages.len()).await?;
    if theirs.iter().map(|(payload, _)| payload).ne(own.iter().map(|(payload, _)| payload)) {
        return Err("other messages".to_owned());
    }
    // Theirs, as read here: the same messages.
    let mut parsed = Vec::new();
    for ((_, bytes), (payload, own)) in theirs.iter().zip(&own) {
        let id = MessageId::from_bytes_with_topic(bytes, parent.map_or(topic, |parent| parent));
        let id = id.map_err(|error| format!("{payload}: {bytes:02x?}: {error}"))?;
        let describe = |id: &MessageId| (id.ledger_id(), id.entry_id(), id.first_chunk().map(|id| id.entry_id()));
        let is_in_batch = own.batch_size().is_some();
        let is_same_member =
            !is_in_batch || (id.batch_index(), id.batch_size()) == (own.batch_index(), own.batch_size());
        let is_same_partition = parent.is_none() || id.partition() == own.partition();
        if describe(&id) != describe(own) || !is_same_member || !is_same_partition {
            return Err(format!("{payload} has the id {id:?}, read from theirs, and {own:?}"));
        }
        parsed.push(id);
    }
    seek_to_each(ours, parent.map_or(topic, |parent| parent), &own, &parsed).await?;
    // Ours, as read there; and what they write is read here again.
    let place = |id: &MessageId| place(id, topic, parent, reads_plain);
    let places: Vec<_> = own.iter().map(|(_, id)| place(id)).collect();
    let earliest = place(&MessageId::EARLIEST);
    let behind = peer.read_behind(&places[..places.len() - 1]).await?;
    for (at, found) in behind.iter().enumerate() {
        let (payload, id) = &own[at];
        if found.payloads.iter().any(|next| *next != own[at + 1].0) {
            return Err(format!("behind our id {id:?} of {payload} they read {:?}", found.payloads));
        }
        let again = MessageId::from_bytes(&found.bytes).map_err(|error| format!("{:02x?}: {error}", found.bytes))?;
        let sent = MessageId::from_bytes(&places[at].bytes).map_err(|error| error.to_string())?;
        let is_same_chunk = again.first_chunk() == id.first_chunk() || !reads_plain;
        if again != sent || again.batch_size() != id.batch_size() || !is_same_chunk {
            return Err(format!("our id {id:?} comes back as {again:?}"));
        }
    }
    let start = peer.read_behind(&[earliest]).await?;
    match start.iter().all(|found| found.payloads.iter().all(|payload| *payload == own[0].0)) {
        true => Ok(()),
        false => Err(format!("from our earliest they read {start:?}")),
    }
}

/// A client that reads no plain ids wants 0 where there is no partition and no batch, and finds a partition by its parent.
/// What it reads it keeps without the first chunk.
pub fn place(id: &MessageId, topic: &str, parent: Option<&String>, reads_plain: bool) -> Place {
    let (mut id, mut topic) = (id.clone(), topic);
    if !reads_plain {
        topic = parent.map_or(topic, |parent| parent);
        id = if id.partition().is_none() { id.with_partition(0) } else { id };
        id = if id.batch_index().is_none() { id.with_batch(0, 0) } else { id };
    }
    Place { topic: topic.to_owned(), parent: parent.cloned(), bytes: id.to_bytes().to_vec() }
}

/// The starts of the payloads, and the ids.
async fn read(ours: &Ours, topic: &str, count: usize) -> Result<Vec<(String, MessageId)>, String> {
    let builder = ours.client.consumer(topic, "ids").initial_position(InitialPosition::Earliest);
    let mut consumer = within("the consumer", builder.subscribe()).await?;
    let mut seen = Vec::new();
    for _ in 0..count {
        let message = within("a message", consumer.receive()).await?;
        seen.push((start_of(message.payload()), message.id()));
    }
    within("the close", consumer.close()).await?;
    Ok(seen)
}

pub fn start_of(payload: &[u8]) -> String {
    String::from_utf8_lossy(&payload[..payload.len().min(PAYLOAD_BYTES)]).into_owned()
}

/// By ids that they wrote, a consumer goes to each message, and behind each.
async fn seek_to_each(ours: &Ours, topic: &str, own: &[(String, MessageId)], ids: &[MessageId]) -> Result<(), String> {
    let mut consumer = within("the consumer", ours.client.consumer(topic, "seeks").subscribe()).await?;
    for (at, id) in ids.iter().enumerate() {
        for inclusive in [true, false] {
            let Some((expected, _)) = own.get(if inclusive { at } else { at + 1 }) else { continue };
            within("the seek", consumer.seek(SeekTo::Message { id: id.clone(), inclusive })).await?;
            let message = within("a message", consumer.receive()).await?;
            let seen = start_of(message.payload());
            if seen != *expected {
                return Err(format!("sought to {id:?}, inclusive {inclusive}: {seen}, not {expected}"));
            }
        }
    }
    within("the close", consumer.close()).await
}
