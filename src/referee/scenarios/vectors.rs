//! The golden vectors of `tests/wire/vectors.json`, sent to the client. After a malformed frame it has to report an error or to reconnect;
//! a valid frame that no state of it expects may be ignored or end the connection. In either case it has to send and receive afterwards.

use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use super::entries::replaced;
use super::frames::survives;
use super::{TOPIC, plain, with_producer};
use crate::broker::Rule;
use crate::referee::Scenario;
use crate::referee::stage::{PROMPT, RECOVERY, Stage, Step};
use crate::referee::verdict::Stop;
use crate::wire::{Command, Frame};

const SOURCE: &str = "tests/wire/vectors.json, negative";

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "vector-frame-zero",
        must: "survive a total_size of 0",
        source: SOURCE,
        broker: plain,
        run: |stage| Box::pin(malformed(stage, "frame_zero")),
    },
    Scenario {
        name: "vector-frame-oversize-header",
        must: "survive a total_size just above the largest frame, without waiting for its bytes",
        source: SOURCE,
        broker: plain,
        run: |stage| Box::pin(malformed(stage, "frame_oversize_header")),
    },
    Scenario {
        name: "vector-frame-total-smaller-than-command",
        must: "survive a command_size above total_size - 4",
        source: SOURCE,
        broker: plain,
        run: |stage| Box::pin(malformed(stage, "frame_total_smaller_than_command")),
    },
    Scenario {
        name: "vector-command-truncated-varint",
        must: "survive a command that ends within a varint",
        source: SOURCE,
        broker: plain,
        run: |stage| Box::pin(malformed(stage, "command_truncated_varint")),
    },
    Scenario {
        name: "vector-command-type-missing-body",
        must: "survive a command whose type has no body",
        source: SOURCE,
        broker: plain,
        run: |stage| Box::pin(malformed(stage, "command_type_missing_body")),
    },
    Scenario {
        name: "vector-command-missing-required",
        must: "survive a command without a required field",
        source: SOURCE,
        broker: plain,
        run: |stage| Box::pin(malformed(stage, "command_missing_required")),
    },
    Scenario {
        name: "vector-flow-zero-permits",
        must: "survive a FLOW, which only clients send",
        source: SOURCE,
        broker: plain,
        run: |stage| Box::pin(malformed(stage, "flow_zero_permits")),
    },
    Scenario {
        name: "vector-second-connect",
        must: "survive a CONNECT, which only clients send",
        source: SOURCE,
        broker: plain,
        run: |stage| Box::pin(malformed(stage, "second_connect")),
    },
    Scenario {
        name: "vector-seek-without-target",
        must: "survive a SEEK, which only clients send",
        source: SOURCE,
        broker: plain,
        run: |stage| Box::pin(malformed(stage, "seek_without_target")),
    },
    Scenario {
        name: "vector-message-bad-crc",
        must: "not show an entry whose checksum does not match",
        source: SOURCE,
        broker: plain,
        run: |stage| Box::pin(malformed(stage, "message_bad_crc")),
    },
    Scenario {
        name: "vector-message-bad-crc-behind-broker-entry-metadata",
        must: "not show an entry whose checksum does not match, also behind broker entry metadata, if CONNECT has that flag",
        source: SOURCE,
        broker: plain,
        run: |stage| Box::pin(malformed(stage, "message_bad_crc_behind_broker_entry_metadata")),
    },
    Scenario {
        name: "vector-message-batch-payload-size-overrun",
        must: "survive a batch whose record claims a payload beyond the entry",
        source: SOURCE,
        broker: plain,
        run: |stage| Box::pin(malformed(stage, "message_batch_payload_size_overrun")),
    },
    Scenario {
        name: "vector-message-batch-negative-payload-size",
        must: "survive a batch whose record has a payload_size below zero",
        source: SOURCE,
        broker: plain,
        run: |stage| Box::pin(malformed(stage, "message_batch_negative_payload_size")),
    },
    Scenario {
        name: "vector-message-metadata-size-overrun",
        must: "survive a metadata_size of 2^31-1, without memory for it",
        source: SOURCE,
        broker: plain,
        run: |stage| Box::pin(malformed(stage, "message_metadata_size_overrun")),
    },
    Scenario {
        name: "vector-message-uncompressed-size-lie",
        must: "survive a payload of a few bytes that claims to be 4 GiB uncompressed, without memory for them",
        source: SOURCE,
        broker: plain,
        run: |stage| Box::pin(malformed(stage, "message_uncompressed_size_lie")),
    },
    Scenario {
        name: "vectors-of-brokers",
        must: "ignore each response without a request, and each command about an unknown endpoint, or reconnect",
        source: "tests/wire/vectors.json, frames and captured",
        broker: plain,
        run: |stage| Box::pin(unasked(stage, "s2c")),
    },
    Scenario {
        name: "vectors-of-clients",
        must: "survive each command that only clients send",
        source: "tests/wire/vectors.json, frames",
        broker: plain,
        run: |stage| Box::pin(unasked(stage, "c2s")),
    },
];

struct Vector {
    name: &'static str,
    bytes: Bytes,
}

fn vectors() -> &'static Value {
    static PARSED: OnceLock<Value> = OnceLock::new();
    let text = include_str!("../../../tests/wire/vectors.json");
    PARSED.get_or_init(|| serde_json::from_str(text).unwrap_or_default())
}

/// Those of a list; `direction` is `c2s`, `s2c`, or for malformed ones none.
fn of_list(list: &str, direction: Option<&str>) -> Vec<Vector> {
    let all = vectors()[list].as_array().into_iter().flatten();
    let meant = all.filter(|vector| vector["direction"].as_str() == direction);
    meant
        .filter_map(|vector| Some(Vector { name: vector["name"].as_str()?, bytes: bytes(vector["hex"].as_str()?)? }))
        .collect()
}

fn bytes(hex: &str) -> Option<Bytes> {
    let pairs = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok());
    pairs.collect::<Option<Vec<_>>>().map(Bytes::from)
}

/// The entry of a MESSAGE, `None` for any other frame.
fn entry(frame: &Bytes) -> Option<Bytes> {
    let command_size = u32::from_be_bytes(frame.get(4..8)?.try_into().ok()?) as usize;
    let is_message = frame.get(8..10)? == [0x08, 0x09];
    (is_message && frame.len() >= 8 + command_size).then(|| frame.slice(8 + command_size..))
}

/// An entry takes the place of a stored one; any other vector comes between two frames.
async fn malformed(stage: &mut Stage, name: &str) -> Step {
    let vector = of_list("negative", None).into_iter().find(|vector| vector.name == name);
    let vector = vector.ok_or_else(|| Stop::glue(format!("the referee has no vector {name}")))?;
    let Some(entry) = entry(&vector.bytes) else {
        return survives(stage, &format!("the vector {name}"), vector.bytes).await;
    };
    if entry.starts_with(&[0x0e, 0x02]) {
        takes_broker_entry_metadata(stage).await?;
    }
    replaced(stage, entry).await
}

/// A broker puts its metadata before an entry only if CONNECT has the flag for it.
async fn takes_broker_entry_metadata(stage: &mut Stage) -> Step {
    stage.connect().await?;
    stage.producer("p", "persistent://public/default/other").await?;
    stage.sent_by_client("CONNECT", 1, 0, PROMPT).await?;
    let has_flag = stage.relay.look(|recording| {
        recording.commands(0).any(|(_, command)| match command {
            Command::Connect(connect) => {
                let flags = connect.feature_flags.as_ref();
                flags.is_some_and(|flags| flags.supports_broker_entry_metadata())
            }
            _ => false,
        })
    });
    if has_flag {
        Ok(())
    } else {
        Err(Stop::Unsupported("its CONNECT has no supports_broker_entry_metadata".to_owned()))
    }
}

/// Commands that take effect if their ids are those of the client, or without ids. A frame that cannot be read counts, too.
fn takes_effect(frame: &Bytes) -> bool {
    let mut rx = BytesMut::from(&frame[..]);
    let Ok(Some(run)) = crate::wire::cut(&mut rx, &crate::wire::Limits::default()) else { return true };
    let names = ["SEND_RECEIPT", "SEND_ERROR", "TOPIC_MIGRATED"];
    crate::wire::frames(run).any(|frame| frame.as_ref().map_or(true, |frame: &Frame| names.contains(&frame.name())))
}

/// Each vector of a direction; a message is stored behind each.
async fn unasked(stage: &mut Stage, direction: &'static str) -> Step {
    let mut all = of_list("frames", Some(direction));
    if direction == "s2c" {
        all.extend(of_list("captured", Some(direction)));
    }
    // AUTH_CHALLENGE to a client without credentials; commands about endpoints that the broker has not closed.
    for rule in [Rule::Handshake, Rule::AfterBrokerClose] {
        stage.waive(rule);
    }
    with_producer(stage).await?;
    for (number, vector) in all.into_iter().filter(|vector| !takes_effect(&vector.bytes)).enumerate() {
        stage.relay.inject(&format!("the vector {}", vector.name), vector.bytes);
        let id = number as u64 + 1;
        stage.send("p", id, vector.name).await.map_err(|stop| stop.behind(vector.name))?;
        stage.stored(id, RECOVERY).await.map_err(|stop| stop.behind(vector.name))?;
    }
    stage.subscribe("c", TOPIC, "exclusive", 10).await?;
    stage.expect("c", "first").await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_malformed_vector_has_its_scenario() {
        let vectors = of_list("negative", None);
        let names: BTreeSet<_> =
            vectors.iter().map(|vector| format!("vector-{}", vector.name.replace('_', "-"))).collect();
        let scenarios = SCENARIOS.iter().map(|scenario| scenario.name.to_owned());
        assert_eq!(scenarios.filter(|name| name.starts_with("vector-")).collect::<BTreeSet<_>>(), names);
    }

    #[test]
    fn vectors_of_both_directions_are_there() {
        assert!(of_list("frames", Some("c2s")).len() > 40);
        assert!(of_list("frames", Some("s2c")).len() + of_list("captured", Some("s2c")).len() > 80);
    }
}
