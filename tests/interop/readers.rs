//! Readers and checkpoints: this client reads behind the ids of messages that the other has written and read, and the positions
//! of a checkpoint, taken out one by one, are read behind by the other and put together again from what it writes.

use std::collections::BTreeMap;

use pulsar_native::{Checkpoint, MessageId, ReadUntil, ReaderStart, SeekTo};

use crate::admin;
use crate::checks::{Work, new_topic};
use crate::ids::{larger_than_an_entry, numbered, place, start_of};
use crate::message::Described;
use crate::ours::{Ours, within};
use crate::peer::Peer;

const PARTITIONS: u32 = 3;

/// Messages that are read before a reader is stopped, of [`SENT`].
const FIRST: usize = 25;
const SENT: u32 = 60;

pub async fn run(ours: &Ours, peer: &mut Peer) -> Result<(), String> {
    let batch = Work { batching: true, ..Work::new((0..12).map(numbered).collect()) };
    let plain = Work::new((0..4).map(numbered).collect());
    let chunked = Work { chunking: true, ..Work::new(vec![numbered(0), larger_than_an_entry(), numbered(2)]) };
    for (form, work) in [("batch", batch), ("plain", plain), ("chunked", chunked)] {
        let work = Work { topic: new_topic(), ..work };
        from_their_ids(ours, peer, &work).await.map_err(|error| format!("{form}: {error}"))?;
    }
    for batching in [false, true] {
        let keyed = (0..SENT).map(with_key).collect();
        let work = Work { topic: new_topic(), batching, partitions: PARTITIONS, ..Work::new(keyed) };
        admin::create_partitioned(&work.topic, PARTITIONS).await?;
        peer.produce(&work).await?;
        let batching = if batching { "batches" } else { "alone" };
        go_on_behind_theirs(ours, peer, &work).await.map_err(|error| format!("their reader, {batching}: {error}"))?;
        through_a_checkpoint(ours, peer, &work).await.map_err(|error| format!("checkpoint, {batching}: {error}"))?;
    }
    Ok(())
}

fn with_key(number: u32) -> Described {
    Described { key: Some(format!("key {}", number % 17)), ..numbered(number) }
}

/// They write; a reader begins at each id as they serialize it, and behind it.
async fn from_their_ids(ours: &Ours, peer: &mut Peer, work: &Work) -> Result<(), String> {
    peer.produce(work).await?;
    let theirs = peer.read_ids(&work.topic, work.messages.len()).await?;
    for (at, (payload, bytes)) in theirs.iter().enumerate() {
        let id = MessageId::from_bytes(bytes).map_err(|error| format!("{payload}: {bytes:02x?}: {error}"))?;
        for inclusive in [true, false] {
            let rest = &theirs[if inclusive { at } else { at + 1 }..];
            let read = read_all(ours, &work.topic, SeekTo::Message { id: id.clone(), inclusive }.into()).await?;
            if read.iter().ne(rest.iter().map(|(payload, _)| payload)) {
                return Err(format!("from {id:?}, inclusive {inclusive}: {read:?}"));
            }
        }
    }
    Ok(())
}

/// Their reader is stopped; from the last ids that it has seen ours goes on.
async fn go_on_behind_theirs(ours: &Ours, peer: &mut Peer, work: &Work) -> Result<(), String> {
    let theirs = peer.read_ids(&work.topic, FIRST).await?;
    let mut checkpoint = Checkpoint::new();
    let mut read = Vec::new();
    for (payload, bytes) in theirs {
        let id = MessageId::from_bytes(&bytes).map_err(|error| format!("{payload}: {bytes:02x?}: {error}"))?;
        let partition = id.partition().ok_or_else(|| format!("{id:?} names no partition"))?;
        set(&mut checkpoint, &format!("{}-partition-{partition}", work.topic), id)?;
        read.push(payload);
    }
    read.extend(read_all(ours, &work.topic, (&checkpoint).into()).await?);
    all_once(work, read).map_err(|error| format!("{error} behind {checkpoint}"))
}

/// Ours is stopped; they read behind each position, and what they make of the positions is where ours goes on.
async fn through_a_checkpoint(ours: &Ours, peer: &mut Peer, work: &Work) -> Result<(), String> {
    let mut reader = within("the reader", ours.client.reader(&work.topic, SeekTo::Earliest).create()).await?;
    let mut read = Vec::new();
    for _ in 0..FIRST {
        read.push(start_of(within("a message", reader.read_next()).await?.payload()));
    }
    let checkpoint = reader.checkpoint();
    let mut next = BTreeMap::new();
    let mut rest = within("the end", reader.until(ReadUntil::Now)).await?;
    while let Some(message) = within("a message", async { rest.next().await.transpose() }).await? {
        next.entry(message.topic().to_owned()).or_insert_with(|| start_of(message.payload()));
    }
    let reads_plain = !peer.lacks("plain_ids");
    // A reader of theirs waits for what is not there.
    let (open, done): (Vec<_>, Vec<_>) = checkpoint.positions().partition(|(topic, _)| next.contains_key(*topic));
    let place = |&(topic, id): &(&str, &MessageId)| match reads_plain {
        true => place(id, topic, Some(&work.topic), true),
        false => place(&for_partition(id), topic, None, false),
    };
    let places: Vec<_> = open.iter().map(place).collect();
    let mut again = Checkpoint::new();
    for (topic, id) in done {
        set(&mut again, topic, id.clone())?;
    }
    for (found, (topic, sent)) in peer.read_behind(&places).await?.iter().zip(&open) {
        if found.payloads.iter().any(|payload| *payload != next[*topic]) {
            return Err(format!("behind {checkpoint} in {topic} they read {:?}, not {}", found.payloads, next[*topic]));
        }
        let id = MessageId::from_bytes(&found.bytes).map_err(|error| format!("{:02x?}: {error}", found.bytes))?;
        let id = match (reads_plain || sent.batch_index().is_some(), id.ledger_id().zip(id.entry_id())) {
            (false, Some((ledger_id, entry_id))) => MessageId::new(ledger_id, entry_id),
            _ => id,
        };
        set(&mut again, topic, id)?;
    }
    if again != checkpoint {
        return Err(format!("{checkpoint} comes back as {again}"));
    }
    read.extend(read_all(ours, &work.topic, (&again).into()).await?);
    all_once(work, read)
}

/// For a client that reads no plain ids: it takes a partition for a topic of its own, whose only partition is 0, and a whole
/// entry for that of a member behind all others.
fn for_partition(id: &MessageId) -> MessageId {
    let id = id.clone().with_partition(0);
    if id.batch_index().is_none() { id.with_batch(i32::MAX.unsigned_abs(), 0) } else { id }
}

fn set(checkpoint: &mut Checkpoint, topic: &str, id: MessageId) -> Result<(), String> {
    checkpoint.set(topic, id).map_err(|error| error.to_string())
}

/// What a reader has from a start up to the end.
async fn read_all(ours: &Ours, topic: &str, start: ReaderStart) -> Result<Vec<String>, String> {
    let mut reader = within("the reader", ours.client.reader(topic, start).create()).await?;
    let mut messages = within("the end", reader.until(ReadUntil::Now)).await?;
    let mut read = Vec::new();
    while let Some(message) = within("a message", async { messages.next().await.transpose() }).await? {
        read.push(start_of(message.payload()));
    }
    drop(messages);
    within("the close", reader.close()).await?;
    Ok(read)
}

fn all_once(work: &Work, mut read: Vec<String>) -> Result<(), String> {
    read.sort_unstable();
    match read.iter().map(String::as_bytes).eq(work.messages.iter().filter_map(|message| message.payload.as_deref())) {
        true => Ok(()),
        false => Err(format!("not each once: {read:?}")),
    }
}
