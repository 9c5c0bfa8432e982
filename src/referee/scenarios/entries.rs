//! Entries that cannot be read: they are not shown, and what is behind them comes.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;

use super::{TOPIC, plain};
use crate::pb;
use crate::referee::relay::By;
use crate::referee::stage::{PROMPT, Stage, Step, check};
use crate::referee::verdict::Stop;
use crate::referee::{Scenario, protocol};
use crate::wire::{Command, Frame};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "entry-corrupt",
        must: "not show an entry whose checksum does not match, keep the connection, and show those behind it",
        source: "ConsumerImpl.messageReceived: ChecksumMismatch; CommandAck.validation_error",
        broker: plain,
        run: |stage| Box::pin(corrupt(stage)),
    },
    Scenario {
        name: "entries-corrupt-permits",
        must: "give the permits of corrupt entries back, so that delivery goes on",
        source: "ConsumerImpl.discardCorruptedMessage: increaseAvailablePermits",
        broker: plain,
        run: |stage| Box::pin(corrupt_permits(stage)),
    },
    Scenario {
        name: "entry-empty-payload",
        must: "show a message with an empty payload, as any other",
        source: "MessageMetadata, nothing behind it; apache/pulsar-client-go#236",
        broker: plain,
        run: |stage| Box::pin(empty_payload(stage)),
    },
    Scenario {
        name: "entry-without-metadata",
        must: "survive a MESSAGE whose metadata_size is beyond its frame",
        source: "the framing of entries: metadata_size <= what is left of the frame",
        broker: plain,
        run: |stage| Box::pin(replaced(stage, metadata_beyond_frame())),
    },
    Scenario {
        name: "entry-too-short",
        must: "survive a MESSAGE with nothing behind its command",
        source: "the framing of entries: metadata_size is required",
        broker: plain,
        run: |stage| Box::pin(replaced(stage, Bytes::new())),
    },
    Scenario {
        name: "batch-count-absurd",
        must: "survive an entry that claims 2^31-1 messages and has none, without memory for them",
        source: "MessageMetadata.num_messages_in_batch",
        broker: plain,
        run: |stage| Box::pin(replaced(stage, batch(i32::MAX, &[]))),
    },
    Scenario {
        name: "batch-record-beyond-entry",
        must: "survive a batch whose record claims metadata beyond the entry",
        source: "Commands.deSerializeSingleMessageInBatch",
        broker: plain,
        run: |stage| Box::pin(replaced(stage, batch(2, &[0x7f, 0xff, 0xff, 0xff, 0x18, 0x01]))),
    },
    Scenario {
        name: "batch-payload-beyond-entry",
        must: "survive a batch whose record claims a payload beyond the entry",
        source: "SingleMessageMetadata.payload_size",
        broker: plain,
        // payload_size 500.
        run: |stage| Box::pin(replaced(stage, batch(1, &[0, 0, 0, 3, 0x18, 0xf4, 0x03, b'x']))),
    },
    Scenario {
        name: "batch-payload-negative",
        must: "survive a batch whose record has a payload_size below zero",
        source: "SingleMessageMetadata.payload_size is an int32",
        broker: plain,
        run: |stage| Box::pin(replaced(stage, batch(1, &negative_payload()))),
    },
    Scenario {
        name: "uncompressed-size-absurd",
        must: "survive a payload of a few bytes that claims to be 1 GiB uncompressed, without memory for them",
        source: "MessageMetadata.uncompressed_size; CompressionType.LZ4",
        broker: plain,
        run: |stage| Box::pin(replaced(stage, compressed(1, 1 << 30))),
    },
    Scenario {
        name: "compression-unknown",
        must: "not show the payload of an unknown compression as if it were plain",
        source: "MessageMetadata.compression of a later version",
        broker: plain,
        run: |stage| Box::pin(replaced(stage, compressed(99, 5))),
    },
];

/// The metadata of a message that no client has published.
pub(super) fn metadata() -> pb::MessageMetadata {
    pb::MessageMetadata {
        producer_name: "referee".to_owned(),
        sequence_id: 0,
        publish_time: 1_700_000_000_000,
        ..Default::default()
    }
}

/// An entry with a checksum that matches.
pub(super) fn entry(metadata: &pb::MessageMetadata, payload: &[u8]) -> Bytes {
    let mut summed = BytesMut::new();
    summed.put_u32(metadata.encoded_len() as u32);
    summed.put_slice(&metadata.encode_to_vec());
    summed.put_slice(payload);
    let mut out = BytesMut::new();
    out.put_u16(0x0e01);
    out.put_u32(crc32c::crc32c(&summed));
    out.put_slice(&summed);
    out.freeze()
}

fn metadata_beyond_frame() -> Bytes {
    let mut summed = BytesMut::new();
    summed.put_u32(100_000);
    summed.put_slice(&metadata().encode_to_vec());
    let mut out = BytesMut::new();
    out.put_u16(0x0e01);
    out.put_u32(crc32c::crc32c(&summed));
    out.put_slice(&summed);
    out.freeze()
}

fn batch(messages: i32, records: &[u8]) -> Bytes {
    entry(&pb::MessageMetadata { num_messages_in_batch: Some(messages), ..metadata() }, records)
}

/// A record whose payload_size is -1: a varint of ten bytes.
fn negative_payload() -> Vec<u8> {
    let mut record = vec![0, 0, 0, 11, 0x18];
    record.extend([0xff; 9]);
    record.extend([0x01, b'x']);
    record
}

fn compressed(codec: i32, uncompressed_size: u32) -> Bytes {
    let metadata =
        pb::MessageMetadata { compression: Some(codec), uncompressed_size: Some(uncompressed_size), ..metadata() };
    entry(&metadata, b"\x50hello")
}

fn corrupt_entry(stage: &Stage, entry: u64) -> Step {
    let done = stage.broker.faults().corrupt_stored_entry(TOPIC, entry);
    if done { Ok(()) } else { Err(Stop::glue("the referee has no entry to damage")) }
}

/// Acknowledgements of this entry without a validation error.
fn plain_acks(stage: &Stage, entry_id: u64) -> usize {
    stage.relay.look(|recording| {
        let acks = recording.commands(0).filter(|(_, command)| match command {
            Command::Ack(ack) => {
                ack.validation_error.is_none() && ack.message_id.iter().any(|id| id.entry_id == entry_id)
            }
            _ => false,
        });
        acks.count()
    })
}

async fn corrupt(stage: &mut Stage) -> Step {
    let payloads = stage.publish_numbered(TOPIC, 4).await?;
    corrupt_entry(stage, 1)?;
    stage.connect().await?;
    stage.subscribe("c", TOPIC, "shared", 10).await?;
    for payload in [&payloads[0], &payloads[2], &payloads[3]] {
        let message = stage.expect("c", payload).await?;
        stage.ack("c", &message).await?;
    }
    stage.sent_by_client("ACK", 1, 0, PROMPT).await?;
    let damaged = stage.relay.look(|recording| {
        let mut messages = recording.frames(By::Broker, 0).filter_map(|(_, frame, _)| match frame {
            Frame::Message { head, .. } => Some(head.entry_id),
            _ => None,
        });
        messages.nth(1)
    });
    let acks = damaged.map_or(0, |entry_id| plain_acks(stage, entry_id));
    check(acks == 0, || "it acknowledged the corrupt entry as if it were read".to_owned())?;
    stage.at_most_connections(1, 0)
}

async fn corrupt_permits(stage: &mut Stage) -> Step {
    let payloads = stage.publish_numbered(TOPIC, 8).await?;
    for entry in 0..6 {
        corrupt_entry(stage, entry)?;
    }
    stage.connect().await?;
    stage.subscribe("c", TOPIC, "shared", 2).await?;
    for payload in &payloads[6..] {
        let message = stage.expect("c", payload).await?;
        stage.ack("c", &message).await?;
    }
    Ok(())
}

async fn empty_payload(stage: &mut Stage) -> Step {
    stage.publish(TOPIC, &["before", "", "behind"]).await?;
    stage.connect().await?;
    stage.subscribe("c", TOPIC, "shared", 10).await?;
    for payload in ["before", "", "behind"] {
        let message = stage.expect("c", payload).await?;
        stage.ack("c", &message).await?;
    }
    Ok(())
}

/// How soon the messages behind an entry that cannot be read come.
const SURVIVES: Duration = Duration::from_secs(10);

/// Most characters of a payload in an error: it may be any memory of the client's process.
const SHOWN_CHARS_MAX: usize = 40;

/// How much more memory a client may have by an entry of a few bytes, whatever it claims to hold.
const MEMORY_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// The second of three messages comes with another entry, on its first delivery. It may come as it is on a later one.
pub(super) async fn replaced(stage: &mut Stage, entry: Bytes) -> Step {
    let payloads = stage.publish_numbered(TOPIC, 3).await?;
    let second = stage.broker.stored_messages(TOPIC).get(1).map(|message| message.id.position());
    let second = second.ok_or_else(|| Stop::glue("the referee has no entry to replace"))?;
    stage.relay.replace(move |frame| {
        let Frame::Message { head, .. } = frame else { return None };
        let is_second = (head.ledger_id, head.entry_id) == (second.ledger_id, second.entry_id);
        is_second.then(|| {
            let mut out = BytesMut::new();
            Frame::Message { head: head.clone(), entry: entry.clone() }.encode(&mut out);
            out.freeze()
        })
    });
    stage.connect().await?;
    let memory = stage.glue.peak_memory().unwrap_or(0);
    stage.subscribe("c", TOPIC, "shared", 10).await?;
    let mut missing = vec![payloads[0].as_str(), payloads[2].as_str()];
    while !missing.is_empty() {
        let Some(message) = stage.receive("c", SURVIVES).await? else {
            return Err(Stop::failed(format!("not received behind it within {SURVIVES:?}: {}", missing.join(", "))));
        };
        let is_known = payloads.contains(&message.payload);
        let shown = || protocol::shown(&message.payload, SHOWN_CHARS_MAX);
        check(is_known, || format!("it showed {:?} of the entry that cannot be read", shown()))?;
        missing.retain(|payload| *payload != message.payload);
        stage.ack("c", &message).await?;
    }
    let more = stage.glue.peak_memory().unwrap_or(0).saturating_sub(memory);
    check(more < MEMORY_BYTES_MAX, || format!("its process took {} MiB of memory for that entry", more / (1024 * 1024)))
}
