//! Receipts: a send is over by the receipt for it, and by no other.

use std::time::Duration;

use super::{TOPIC, framed, plain, still_works, with_producer};
use crate::ServerCode;
use crate::broker::{EmbeddedBroker, EmbeddedBrokerBuilder, FaultEvent};
use crate::pb;
use crate::referee::Scenario;
use crate::referee::stage::{PROMPT, RECOVERY, Stage, Step, check, producer_request};
use crate::wire::Command;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "receipt-lost",
        must: "send a message again, byte for byte, when its receipt was lost with the connection",
        source: "ProducerImpl.resendMessages; CommandSend.sequence_id, MessageMetadata.publish_time",
        broker: plain,
        run: |stage| Box::pin(lost(stage)),
    },
    Scenario {
        name: "receipt-never-comes",
        must: "fail a send whose receipt does not come within the send timeout, and work on",
        source: "sendTimeoutMs in ProducerConfigurationData",
        broker: plain,
        run: |stage| Box::pin(never_comes(stage)),
    },
    Scenario {
        name: "receipt-from-the-future",
        must: "not take a receipt for a later sequence id as that of the send that waits",
        source: "ProducerImpl.ackReceived: a receipt above the first pending sequence id closes the connection",
        broker: plain,
        run: |stage| Box::pin(from_the_future(stage)),
    },
    Scenario {
        name: "receipt-stale",
        must: "ignore a receipt for an earlier sequence id, over the same connection",
        source: "ProducerImpl.ackReceived: a receipt below the first pending sequence id is of a send that timed out",
        broker: plain,
        run: |stage| Box::pin(stale(stage)),
    },
    Scenario {
        name: "receipt-twice",
        must: "ignore the second of two receipts for one send",
        source: "ProducerImpl.ackReceived; apache/pulsar-client-go#336",
        broker: plain,
        run: |stage| Box::pin(twice(stage)),
    },
    Scenario {
        name: "receipt-of-unknown-producer",
        must: "ignore a receipt for a producer that it does not have",
        source: "ClientCnx.handleSendReceipt: unknown producers are skipped",
        broker: plain,
        run: |stage| Box::pin(of_unknown_producer(stage)),
    },
    Scenario {
        name: "sends-in-order",
        must: "send what has no receipt again in the order of the sequence ids, when the connection is lost",
        source: "ProducerImpl.resendMessages; CommandSend.sequence_id",
        broker: plain,
        run: |stage| Box::pin(in_order(stage)),
    },
    Scenario {
        name: "sends-deduplicated",
        must: "store each message once where the broker deduplicates, whatever connections are lost",
        source: "PIP-6; CommandSend.sequence_id; a receipt with the message id -1:-1 is of a duplicate",
        broker: deduplicating,
        run: |stage| Box::pin(deduplicated(stage)),
    },
    Scenario {
        name: "batches-sent-again",
        must: "send batches without a receipt again, byte for byte and in order, when the connection is lost",
        source: "ProducerImpl.resendMessages; MessageMetadata.num_messages_in_batch",
        broker: plain,
        run: |stage| Box::pin(batches_again(stage)),
    },
    Scenario {
        name: "send-error-retried",
        must: "end a send that gets SEND_ERROR PersistenceError: by sending it again, or by an error",
        source: "ClientCnx.handleSendError; ServerError.PersistenceError",
        broker: plain,
        run: |stage| Box::pin(send_error(stage, ServerCode::PERSISTENCE_ERROR)),
    },
    Scenario {
        name: "send-error-checksum",
        must: "end a send that gets SEND_ERROR ChecksumError: by sending it again, or by an error",
        source: "ProducerImpl.recoverChecksumError",
        broker: plain,
        run: |stage| Box::pin(send_error(stage, ServerCode::CHECKSUM_ERROR)),
    },
];

fn deduplicating() -> EmbeddedBrokerBuilder {
    EmbeddedBroker::builder().broker_deduplication_enabled(true)
}

async fn lost(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    let mark = stage.relay.mark();
    stage.fault(FaultEvent::Send).disconnect();
    stage.send_stored("p", 1, "sent twice").await?;
    let sends = stage.sends(mark);
    check(sends.len() == 2, || format!("it wrote {} SENDs, not the one and its repetition", sends.len()))?;
    check(sends[0].0 != sends[1].0, || "it sent again over the old connection".to_owned())?;
    let same_id = sends[0].1 == sends[1].1;
    check(same_id, || format!("it sent again as sequence id {}, not {}", sends[1].1, sends[0].1))?;
    // The producer id may differ on the new connection; the entry is behind the command.
    check(entry_of(&sends[0].2) == entry_of(&sends[1].2), || {
        "metadata or payload of the repetition differ from the first".to_owned()
    })
}

/// What is behind the command of a frame.
fn entry_of(frame: &[u8]) -> &[u8] {
    let command = frame.get(4..8).map_or(0, |size| u32::from_be_bytes([size[0], size[1], size[2], size[3]]) as usize);
    frame.get(8 + command..).unwrap_or_default()
}

async fn never_comes(stage: &mut Stage) -> Step {
    stage.connect().await?;
    stage.done(&producer_request("p", TOPIC).option("send_timeout_ms", 2_000), RECOVERY).await?;
    stage.send_stored("p", 0, "first").await?;
    stage.fault(FaultEvent::Send).drop_response();
    stage.send("p", 1, "without a receipt").await?;
    let result = stage.result(1, Duration::from_secs(2) + PROMPT).await?;
    check(result.is_err(), || "a send without a receipt succeeded".to_owned())?;
    still_works(stage, 2).await
}

/// The producer's id on its connection.
fn producer_id(stage: &Stage) -> u64 {
    stage.relay.look(|recording| {
        let mut ids = recording.commands(0).filter_map(|(_, command)| match command {
            Command::Producer(producer) => Some(producer.producer_id),
            _ => None,
        });
        ids.next().unwrap_or_default()
    })
}

/// A made-up receipt, with a message id that no broker assigns.
fn receipt(producer_id: u64, sequence_id: u64) -> pb::CommandSendReceipt {
    pb::CommandSendReceipt {
        producer_id,
        sequence_id,
        message_id: Some(pb::MessageIdData { ledger_id: 424_242, entry_id: 424_242, ..Default::default() }),
        highest_sequence_id: Some(0),
    }
}

/// Sends `waits` while its receipt is held back, and `receipt` comes meanwhile; then that it is stored by its own.
async fn amid(stage: &mut Stage, what: &str, receipt: pb::CommandSendReceipt) -> Step {
    let mark = stage.relay.mark();
    stage.fault(FaultEvent::Send).delay_response(Duration::from_secs(1));
    stage.send("p", 1, "waits").await?;
    stage.sent_by_client("SEND", 1, mark, PROMPT).await?;
    stage.relay.inject(what, framed(receipt));
    stage.stored(1, RECOVERY).await?;
    still_works(stage, 2).await
}

async fn from_the_future(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    let receipt = receipt(producer_id(stage), 999);
    amid(stage, "a receipt for sequence id 999", receipt).await
}

async fn stale(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    let first = stage.sends(0).first().map_or(0, |(_, sequence_id, _)| *sequence_id);
    let mark = stage.relay.mark();
    let receipt = receipt(producer_id(stage), first);
    amid(stage, "a receipt for the first send", receipt).await?;
    stage.at_most_connections(0, mark)
}

async fn twice(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    let mark = stage.relay.mark();
    stage.fault(FaultEvent::Send).times(3).duplicate_response();
    for id in 1..=4 {
        stage.send("p", id, "twice").await?;
    }
    let mut ids = std::collections::BTreeSet::new();
    for id in 1..=4 {
        ids.insert(stage.stored(id, RECOVERY).await?);
    }
    check(ids.len() == 4, || "two sends got the same message id".to_owned())?;
    stage.at_most_connections(0, mark)
}

async fn of_unknown_producer(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    let mark = stage.relay.mark();
    amid(stage, "a receipt for producer 4711", receipt(4711, 1)).await?;
    stage.at_most_connections(0, mark)
}

async fn batches_again(stage: &mut Stage) -> Step {
    stage.connect().await?;
    stage.done(&producer_request("p", TOPIC).option("batching", true), RECOVERY).await?;
    stage.send_stored("p", 0, "first").await?;
    let mark = stage.relay.mark();
    let payloads = send_many(stage, 0).await?;
    let sends = stage.sends(mark);
    let first = sends.first().map_or(0, |(_, sequence_id, _)| *sequence_id);
    let mut same = sends.iter().filter(|(_, sequence_id, _)| *sequence_id == first).map(|(.., frame)| entry_of(frame));
    let (once, again) = (same.next(), same.next());
    check(once.is_some() && once == again, || {
        format!("the first batch, of sequence id {first}, was not sent again as it was")
    })?;
    check_order(stage, &payloads)
}

const SENDS: u64 = 30;

/// Sends many, while the connection is lost after some.
async fn send_many(stage: &mut Stage, after: u64) -> Step<Vec<String>> {
    stage.fault(FaultEvent::Send).after(after).disconnect();
    let mut payloads = Vec::new();
    for id in 1..=SENDS {
        let payload = format!("m{id:02}");
        stage.send("p", id, &payload).await?;
        payloads.push(payload);
    }
    for id in 1..=SENDS {
        stage.stored(id, RECOVERY).await?;
    }
    Ok(payloads)
}

async fn in_order(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    let payloads = send_many(stage, 9).await?;
    check_order(stage, &payloads)
}

/// That these are stored behind the first message in their order; each may be there more than once.
fn check_order(stage: &Stage, payloads: &[String]) -> Step {
    let stored = stage.broker.stored_messages(TOPIC);
    let mut first_times = Vec::new();
    for message in stored.iter().skip(1) {
        let payload = String::from_utf8_lossy(&message.payload).into_owned();
        if !first_times.contains(&payload) {
            first_times.push(payload);
        }
    }
    check(first_times == payloads, || format!("stored in the order {}", first_times.join(" ")))
}

async fn deduplicated(stage: &mut Stage) -> Step {
    stage.connect().await?;
    stage.done(&producer_request("p", TOPIC).option("producer_name", "once"), RECOVERY).await?;
    stage.send_stored("p", 0, "first").await?;
    send_many(stage, 9).await?;
    let stored = stage.broker.stored_messages(TOPIC).len() as u64;
    check(stored == SENDS + 1, || format!("{stored} messages are stored, and {} were sent", SENDS + 1))
}

async fn send_error(stage: &mut Stage, code: ServerCode) -> Step {
    with_producer(stage).await?;
    stage.fault(FaultEvent::Send).refuse_request(code);
    stage.send("p", 1, "refused once").await?;
    // Either is right: it is sent again, or the send fails.
    let _ = stage.result(1, RECOVERY).await?;
    still_works(stage, 2).await
}
