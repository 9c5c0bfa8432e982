//! Consumers: permits, acknowledgements, redelivery, reconnects.

use std::time::Duration;

use super::{TOPIC, plain};
use crate::broker::{EmbeddedBroker, FaultEvent, SubscriptionStats};
use crate::pb::command_ack::AckType;
use crate::referee::Scenario;
use crate::referee::glue::Answer;
use crate::referee::protocol::Request;
use crate::referee::relay::{By, Event, Recording, What};
use crate::referee::stage::{OPERATION_TIMEOUT, PROMPT, RECOVERY, Stage, Step, check, subscribe_request};
use crate::referee::verdict::Stop;
use crate::wire::{AckWords, Command, Frame, MessageHead};
use crate::{Message, ServerCode};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "permits-within-queue",
        must: "never allow the broker more messages than the queue has room for",
        source: "CommandFlow.messagePermits; receiverQueueSize in ConsumerConfigurationData",
        broker: plain,
        run: |stage| Box::pin(permits_within_queue(stage)),
    },
    Scenario {
        name: "queue-of-one",
        must: "receive all messages through a queue of one",
        source: "CommandFlow.messagePermits; half of one is still a permit",
        broker: plain,
        run: |stage| Box::pin(queue_of_one(stage)),
    },
    Scenario {
        name: "flow-after-reconnect",
        must: "start with the permits of an empty queue on a new connection, and receive all messages",
        source: "ConsumerImpl.connectionOpened: clears the queue, SUBSCRIBE, FLOW",
        broker: plain,
        run: |stage| Box::pin(flow_after_reconnect(stage)),
    },
    Scenario {
        name: "close-consumer",
        must: "re-attach, over the same connection, only the consumer that CLOSE_CONSUMER names, with permits anew",
        source: "CommandCloseConsumer; ClientCnx.handleCloseConsumer",
        broker: plain,
        run: |stage| Box::pin(closed_by_broker(stage)),
    },
    Scenario {
        name: "subscribe-not-ready",
        must: "try again, with a pause, when SUBSCRIBE fails with ServiceNotReady",
        source: "ServerError.ServiceNotReady; PulsarClientException.isRetriableError",
        broker: plain,
        run: |stage| Box::pin(subscribe_not_ready(stage)),
    },
    Scenario {
        name: "resubscribe-not-ready",
        must: "re-attach a consumer whose SUBSCRIBE is refused with ServiceNotReady, as often as that is",
        source: "ConsumerImpl.connectionOpened: an existing consumer retries; apache/pulsar-client-cpp#438",
        broker: plain,
        run: |stage| Box::pin(resubscribe_not_ready(stage)),
    },
    Scenario {
        name: "subscribe-busy",
        must: "fail the subscribe at once when it fails with ConsumerBusy",
        source: "ServerError.ConsumerBusy; PulsarClientException.isRetriableError",
        broker: plain,
        run: |stage| Box::pin(subscribe_busy(stage)),
    },
    Scenario {
        name: "ack-counts",
        must: "acknowledge what the application acknowledges, also when it closes at once",
        source: "CommandAck; ConsumerImpl.closeAsync flushes grouped acknowledgements",
        broker: plain,
        run: |stage| Box::pin(ack_counts(stage)),
    },
    Scenario {
        name: "ack-cumulative",
        must: "send one cumulative ACK, and get only what is behind it after a reconnect",
        source: "CommandAck.AckType.Cumulative",
        broker: plain,
        run: |stage| Box::pin(ack_cumulative(stage)),
    },
    Scenario {
        name: "ack-cumulative-shared",
        must: "refuse a cumulative acknowledgement on a Shared subscription, and send none: brokers ignore it",
        source: "ConsumerBase.acknowledgeCumulativeAsync: InvalidConfigurationException for Shared and Key_Shared",
        broker: plain,
        run: |stage| Box::pin(ack_cumulative_shared(stage)),
    },
    Scenario {
        name: "ack-batch-index",
        must: "acknowledge members of a batch one by one where that is on, and get only the others again",
        source: "MessageIdData.ack_set, PIP-54: a bit is set for what is not acknowledged",
        broker: plain,
        run: |stage| Box::pin(ack_batch_index(stage)),
    },
    Scenario {
        name: "ack-part-of-batch",
        must: "not acknowledge a batch of which only one message was acknowledged",
        source: "BatchMessageAcker: an entry is acknowledged when all of its messages are",
        broker: plain,
        run: |stage| Box::pin(ack_part_of_batch(stage)),
    },
    Scenario {
        name: "nack-redelivered",
        must: "request a message again after its negative acknowledgement, and no others",
        source: "CommandRedeliverUnacknowledgedMessages; CommandMessage.redelivery_count",
        broker: plain,
        run: |stage| Box::pin(nack_redelivered(stage)),
    },
    Scenario {
        name: "ack-timeout-redelivered",
        must: "request a message again that was not acknowledged within the ack timeout",
        source: "ackTimeoutMillis in ConsumerConfigurationData; UnAckedMessageTracker",
        broker: plain,
        run: |stage| Box::pin(ack_timeout_redelivered(stage)),
    },
    Scenario {
        name: "unacked-come-back",
        must: "receive what was not acknowledged once more after a reconnect, and keep acknowledging",
        source: "the cursor of the broker; CommandSubscribe",
        broker: plain,
        run: |stage| Box::pin(unacked_come_back(stage)),
    },
    Scenario {
        name: "ack-lost",
        must: "receive a message again whose ACK was lost with the connection, and acknowledge it",
        source: "what is acknowledged is the cursor of the broker; apache/pulsar#7683",
        broker: plain,
        run: |stage| Box::pin(ack_lost(stage)),
    },
    Scenario {
        name: "messages-twice",
        must: "take a message that the broker sends twice, and acknowledge it",
        source: "CommandMessage: at least once",
        broker: plain,
        run: |stage| Box::pin(messages_twice(stage)),
    },
    Scenario {
        name: "message-of-old-epoch",
        must: "not show a message of an epoch before its own, where it counts epochs",
        source: "CommandMessage.consumer_epoch, PIP-84",
        broker: plain,
        run: |stage| Box::pin(old_epoch(stage)),
    },
    Scenario {
        name: "consumer-closed",
        must: "close a consumer at the broker, and leave its subscription and backlog",
        source: "CommandCloseConsumer of the client; streamnative/pulsar-rs#278",
        broker: plain,
        run: |stage| Box::pin(closed(stage)),
    },
    Scenario {
        name: "consumer-closed-amid-reconnect",
        must: "leave no consumer at the broker when it is closed while SUBSCRIBE waits for its response",
        source: "ConsumerImpl.connectionOpened: closes a consumer that was closed meanwhile; apache/pulsar-client-cpp#518",
        broker: plain,
        run: |stage| Box::pin(closed_amid_reconnect(stage)),
    },
    Scenario {
        name: "subscribe-given-up",
        must: "send CLOSE_CONSUMER for a SUBSCRIBE that was not answered, so that nothing of it stays",
        source: "ConsumerImpl.connectionOpened: closes at the broker after a timeout; apache/pulsar#13161",
        broker: plain,
        run: |stage| Box::pin(given_up(stage)),
    },
    Scenario {
        name: "messages-beyond-permits",
        must: "take messages beyond the permits, as brokers send them for batches",
        source: "PersistentDispatcherSingleActiveConsumer: permits gate entries, not messages",
        broker: plain,
        run: |stage| Box::pin(beyond_permits(stage)),
    },
];

/// Statistics of the subscription of the scenario.
fn subscription(broker: &EmbeddedBroker) -> Option<SubscriptionStats> {
    broker.stats(TOPIC)?.subscriptions.remove("sub")
}

/// A connected client with a consumer `c`, and so many messages before it.
async fn with_consumer(stage: &mut Stage, messages: u32, kind: &str, queue: u32) -> Step<Vec<String>> {
    let payloads = stage.publish_numbered(TOPIC, messages).await?;
    stage.connect().await?;
    stage.subscribe("c", TOPIC, kind, queue).await?;
    Ok(payloads)
}

/// Permits that FLOW gave on the connection, and messages that came on it.
fn permits(recording: &Recording, connection: u64) -> (u64, u64) {
    let (mut given, mut spent) = (0, 0);
    for event in recording.events().iter().filter(|event| event.connection == connection) {
        match event {
            Event { what: What::Frame { by: By::Client, frame, .. }, .. } => {
                if let Frame::Other(Command::Flow(flow)) = &**frame {
                    given += u64::from(flow.message_permits);
                }
            }
            Event { what: What::Frame { by: By::Broker, frame, .. }, .. } if frame.name() == "MESSAGE" => spent += 1,
            _ => {}
        }
    }
    (given, spent)
}

async fn permits_within_queue(stage: &mut Stage) -> Step {
    const QUEUE: u32 = 10;
    let payloads = with_consumer(stage, 60, "exclusive", QUEUE).await?;
    let mut received = 0;
    for payload in &payloads {
        let message = stage.expect("c", payload).await?;
        stage.ack("c", &message).await?;
        received += 1;
        let (given, _) = stage.relay.look(|recording| permits(recording, 1));
        let room = received + u64::from(QUEUE);
        check(given <= room, || {
            format!("it gave {given} permits for a queue of {QUEUE} when {received} were received")
        })?;
    }
    Ok(())
}

async fn queue_of_one(stage: &mut Stage) -> Step {
    let payloads = with_consumer(stage, 8, "exclusive", 1).await?;
    for payload in &payloads {
        let message = stage.expect("c", payload).await?;
        stage.ack("c", &message).await?;
    }
    Ok(())
}

async fn flow_after_reconnect(stage: &mut Stage) -> Step {
    const QUEUE: u32 = 10;
    let payloads = with_consumer(stage, 30, "exclusive", QUEUE).await?;
    let mut acked = 0;
    for payload in &payloads[..3] {
        let message = stage.expect("c", payload).await?;
        stage.ack("c", &message).await?;
        acked += 1;
    }
    let left = move |broker: &EmbeddedBroker| subscription(broker).is_some_and(|sub| sub.msg_backlog == 30 - acked);
    stage.broker_has(PROMPT, "three acknowledged messages", left).await?;
    let mark = stage.relay.mark();
    stage.relay.note("all connections are lost");
    stage.broker.drop_connections();
    stage.sent_by_client("FLOW", 1, mark, RECOVERY).await?;
    let (connection, first) = stage.relay.look(|recording| {
        let mut flows = recording.commands(mark).filter_map(|(connection, command)| match command {
            Command::Flow(flow) => Some((connection, flow.message_permits)),
            _ => None,
        });
        flows.next().unwrap_or_default()
    });
    check(first <= QUEUE, || format!("its first FLOW of the new connection was {first} for a queue of {QUEUE}"))?;
    let received = stage.expect_all("c", &payloads[3..]).await?;
    let (given, _) = stage.relay.look(|recording| permits(recording, connection));
    let room = received.len() as u64 + u64::from(QUEUE);
    check(given <= room, || format!("it gave {given} permits when {} were received", received.len()))
}

async fn closed_by_broker(stage: &mut Stage) -> Step {
    const QUEUE: u32 = 5;
    let payloads = with_consumer(stage, 12, "exclusive", QUEUE).await?;
    let other = format!("{TOPIC}-beside");
    stage.producer("p", &other).await?;
    stage.subscribe("beside", &other, "exclusive", 5).await?;
    let first = stage.expect("c", &payloads[0]).await?;
    stage.ack("c", &first).await?;
    let mark = stage.relay.mark();
    stage.broker.faults().close_consumers(TOPIC, None);
    stage.sent_by_client("SUBSCRIBE", 1, mark, RECOVERY).await?;
    stage.expect_all("c", &payloads[1..]).await?;
    stage.send_stored("p", 1, "not disturbed").await?;
    stage.expect("beside", "not disturbed").await?;
    stage.at_most_connections(0, mark)?;
    stage.at_most("PRODUCER", 0, mark)?;
    let attached = stage.relay.look(|recording| {
        let topics = recording.commands(mark).filter_map(|(_, command)| match command {
            Command::Subscribe(subscribe) => Some(subscribe.topic.clone()),
            _ => None,
        });
        topics.collect::<Vec<_>>()
    });
    check(attached.iter().all(|topic| topic == TOPIC), || format!("it re-attached {}", attached.join(", ")))
}

async fn subscribe_not_ready(stage: &mut Stage) -> Step {
    let payloads = stage.publish_numbered(TOPIC, 1).await?;
    stage.fault(FaultEvent::Subscribe).times(3).refuse_request(ServerCode::SERVICE_NOT_READY);
    stage.connect().await?;
    stage.subscribe("c", TOPIC, "exclusive", 10).await?;
    stage.expect("c", &payloads[0]).await?;
    Ok(())
}

async fn resubscribe_not_ready(stage: &mut Stage) -> Step {
    let payloads = with_consumer(stage, 1, "exclusive", 10).await?;
    let first = stage.expect("c", &payloads[0]).await?;
    stage.ack("c", &first).await?;
    stage.fault(FaultEvent::Subscribe).times(3).refuse_request(ServerCode::SERVICE_NOT_READY);
    stage.broker.faults().close_consumers(TOPIC, None);
    stage.publish(TOPIC, &["behind"]).await?;
    // m0 may come again: its ACK may have been on its way.
    stage.expect_all("c", &["behind".to_owned()]).await?;
    Ok(())
}

async fn subscribe_busy(stage: &mut Stage) -> Step {
    let helper = stage.helper().await?;
    let taken = helper.consumer(TOPIC, "sub").subscribe().await;
    let _taken = taken.map_err(|error| Stop::glue(error.to_string()))?;
    stage.connect().await?;
    let request = subscribe_request("c", TOPIC, "exclusive", 10);
    stage.refused(&request, OPERATION_TIMEOUT + PROMPT).await?;
    stage.at_most("SUBSCRIBE", 3, 0)
}

async fn ack_counts(stage: &mut Stage) -> Step {
    let payloads = with_consumer(stage, 5, "shared", 10).await?;
    for payload in &payloads {
        let message = stage.expect("c", payload).await?;
        stage.ack("c", &message).await?;
    }
    stage.close("c").await?;
    let acked = |broker: &EmbeddedBroker| subscription(broker).is_some_and(|sub| sub.msg_backlog == 0);
    stage.broker_has(PROMPT, "no backlog after the consumer was closed", acked).await
}

async fn ack_cumulative(stage: &mut Stage) -> Step {
    let payloads = with_consumer(stage, 5, "exclusive", 10).await?;
    let mut last = stage.expect("c", &payloads[0]).await?;
    for payload in &payloads[1..3] {
        last = stage.expect("c", payload).await?;
    }
    stage.done(&Request::new("ack_cumulative").word("c").word(&last.name), PROMPT).await?;
    let acked = |broker: &EmbeddedBroker| subscription(broker).is_some_and(|sub| sub.msg_backlog == 2);
    stage.broker_has(PROMPT, "three messages acknowledged", acked).await?;
    let individual = stage.relay.look(|recording| {
        recording
            .commands(0)
            .any(|(_, command)| matches!(command, Command::Ack(ack) if ack.ack_type() == AckType::Individual))
    });
    check(!individual, || "it sent an individual ACK for a cumulative one".to_owned())?;
    stage.broker.drop_connections();
    stage.expect_all("c", &payloads[3..]).await?;
    Ok(())
}

async fn ack_cumulative_shared(stage: &mut Stage) -> Step {
    let payloads = with_consumer(stage, 3, "shared", 10).await?;
    let message = stage.expect("c", &payloads[0]).await?;
    stage.refused(&Request::new("ack_cumulative").word("c").word(&message.name), PROMPT).await?;
    Ok(())
}

/// Publishes the messages of one batch.
async fn publish_batch(stage: &Stage, payloads: &[&str]) -> Step {
    let glue = |error: crate::Error| Stop::glue(error.to_string());
    let builder = stage.helper().await?.producer(TOPIC);
    let builder = builder.batching_max_messages(payloads.len() as u32);
    let producer = builder.batching_max_publish_delay(Duration::from_secs(5)).create().await.map_err(glue)?;
    let mut pending = Vec::new();
    for payload in payloads {
        let sent = producer.enqueue(Message::new((*payload).to_owned())).await;
        pending.push(sent.map_err(|error| Stop::glue(error.to_string()))?);
    }
    for sent in pending {
        sent.await.map_err(|error| Stop::glue(error.to_string()))?;
    }
    Ok(())
}

async fn ack_batch_index(stage: &mut Stage) -> Step {
    publish_batch(stage, &["b0", "b1", "b2"]).await?;
    stage.connect().await?;
    let request = subscribe_request("c", TOPIC, "shared", 10).option("batch_index_ack", true);
    stage.done(&request, RECOVERY).await?;
    let mut all = Vec::new();
    for payload in ["b0", "b1", "b2"] {
        all.push(stage.expect("c", payload).await?);
    }
    stage.ack("c", &all[1]).await?;
    let acked = |broker: &EmbeddedBroker| subscription(broker).is_some_and(|sub| sub.msg_backlog == 2);
    stage.broker_has(PROMPT, "one message of the batch acknowledged", acked).await?;
    let words = stage.relay.look(|recording| {
        let mut acks = recording.commands(0).filter_map(|(_, command)| match command {
            Command::Ack(ack) => ack.message_id.first().map(|id| id.ack_set.clone()),
            _ => None,
        });
        acks.next().unwrap_or_default()
    });
    check(words == [0b101], || format!("the ack_set of its ACK was {words:?}, not [5]"))?;
    stage.broker.drop_connections();
    stage.expect("c", "b0").await?;
    stage.expect("c", "b2").await?;
    Ok(())
}

async fn ack_part_of_batch(stage: &mut Stage) -> Step {
    publish_batch(stage, &["b0", "b1", "b2"]).await?;
    stage.connect().await?;
    stage.subscribe("c", TOPIC, "shared", 10).await?;
    let first = stage.expect("c", "b0").await?;
    stage.expect("c", "b1").await?;
    stage.expect("c", "b2").await?;
    stage.ack("c", &first).await?;
    stage.close("c").await?;
    let left = subscription(&stage.broker).map_or(0, |sub| sub.msg_backlog);
    check(left >= 2, || format!("one of three messages was acknowledged, and {left} are left"))?;
    stage.subscribe("again", TOPIC, "shared", 10).await?;
    stage.expect_all("again", &["b1".to_owned(), "b2".to_owned()]).await?;
    Ok(())
}

async fn nack_redelivered(stage: &mut Stage) -> Step {
    let payloads = stage.publish_numbered(TOPIC, 3).await?;
    stage.connect().await?;
    let request = subscribe_request("c", TOPIC, "shared", 10).option("nack_delay_ms", 1_000);
    stage.done(&request, RECOVERY).await?;
    let mut all = Vec::new();
    for payload in &payloads {
        all.push(stage.expect("c", payload).await?);
    }
    stage.done(&Request::new("nack").word("c").word(&all[1].name), PROMPT).await?;
    stage.ack("c", &all[0]).await?;
    let again = stage.expect("c", &payloads[1]).await?;
    let count = again.redelivery_count;
    check(count == 1, || format!("the message came with redelivery_count {count}, not 1"))?;
    stage.ack("c", &again).await?;
    match stage.receive("c", Duration::from_secs(2)).await? {
        None => Ok(()),
        Some(other) => check(false, || format!("{:?} came again without a request for it", other.payload)),
    }
}

async fn ack_timeout_redelivered(stage: &mut Stage) -> Step {
    let payloads = stage.publish_numbered(TOPIC, 2).await?;
    stage.connect().await?;
    // The shortest that the C++ client takes.
    let request = subscribe_request("c", TOPIC, "shared", 10).option("ack_timeout_ms", 10_000);
    stage.done(&request, RECOVERY).await?;
    let first = stage.expect("c", &payloads[0]).await?;
    stage.expect("c", &payloads[1]).await?;
    stage.ack("c", &first).await?;
    let again = stage.expect("c", &payloads[1]).await?;
    stage.ack("c", &again).await
}

async fn unacked_come_back(stage: &mut Stage) -> Step {
    let payloads = with_consumer(stage, 6, "shared", 10).await?;
    for payload in &payloads {
        let message = stage.expect("c", payload).await?;
        if payload == "m0" {
            stage.ack("c", &message).await?;
        }
    }
    let acked = |broker: &EmbeddedBroker| subscription(broker).is_some_and(|sub| sub.msg_backlog == 5);
    stage.broker_has(PROMPT, "one acknowledged message", acked).await?;
    stage.relay.note("all connections are lost");
    stage.broker.drop_connections();
    let again = stage.expect_all("c", &payloads[1..]).await?;
    for message in &again {
        check(message.payload != "m0", || "m0 came again, and was acknowledged".to_owned())?;
        stage.ack("c", message).await?;
    }
    let acked = |broker: &EmbeddedBroker| subscription(broker).is_some_and(|sub| sub.msg_backlog == 0);
    stage.broker_has(PROMPT, "all messages acknowledged", acked).await
}

async fn ack_lost(stage: &mut Stage) -> Step {
    let payloads = with_consumer(stage, 2, "shared", 10).await?;
    stage.fault(FaultEvent::Ack).drop_request();
    for payload in &payloads {
        let message = stage.expect("c", payload).await?;
        stage.ack("c", &message).await?;
    }
    let lost = |broker: &EmbeddedBroker| broker.faults().injected() > 0;
    stage.broker_has(PROMPT, "an ACK of the client", lost).await?;
    stage.relay.note("all connections are lost");
    stage.broker.drop_connections();
    let backlog = |broker: &EmbeddedBroker| subscription(broker).map_or(0, |sub| sub.msg_backlog);
    let until = tokio::time::Instant::now() + RECOVERY;
    while backlog(&stage.broker) > 0 {
        let left = backlog(&stage.broker);
        check(tokio::time::Instant::now() < until, || {
            format!("{left} messages are neither acknowledged nor sent again")
        })?;
        if let Some(message) = stage.receive("c", Duration::from_secs(1)).await? {
            stage.ack("c", &message).await?;
        }
    }
    Ok(())
}

async fn messages_twice(stage: &mut Stage) -> Step {
    stage.fault(FaultEvent::Delivery).times(3).duplicate_response();
    let payloads = with_consumer(stage, 3, "shared", 10).await?;
    for message in stage.expect_all("c", &payloads).await? {
        stage.ack("c", &message).await?;
    }
    while let Some(message) = stage.receive("c", Duration::from_secs(1)).await? {
        stage.ack("c", &message).await?;
    }
    let acked = |broker: &EmbeddedBroker| subscription(broker).is_some_and(|sub| sub.msg_backlog == 0);
    stage.broker_has(PROMPT, "all messages acknowledged", acked).await?;
    stage.at_most_connections(1, 0)
}

async fn old_epoch(stage: &mut Stage) -> Step {
    stage.publish_numbered(TOPIC, 1).await?;
    stage.connect().await?;
    let request = subscribe_request("c", TOPIC, "exclusive", 10).option("nack_delay_ms", 500);
    stage.done(&request, RECOVERY).await?;
    stage.sent_by_client("SUBSCRIBE", 1, 0, PROMPT).await?;
    let counts = stage.relay.look(|recording| {
        recording.commands(0).any(|(_, command)| match command {
            Command::Subscribe(subscribe) => subscribe.consumer_epoch.is_some(),
            _ => false,
        })
    });
    if !counts {
        return Err(Stop::Unsupported("its SUBSCRIBE has no consumer_epoch".to_owned()));
    }
    let message = stage.expect("c", "m0").await?;
    let mark = stage.relay.mark();
    stage.done(&Request::new("nack").word("c").word(&message.name), PROMPT).await?;
    stage.sent_by_client("REDELIVER_UNACKNOWLEDGED_MESSAGES", 1, mark, PROMPT).await?;
    let head = MessageHead {
        consumer_id: 0,
        ledger_id: 4711,
        entry_id: 0,
        partition: -1,
        redelivery_count: 0,
        ack_set: AckWords::NONE,
        consumer_epoch: Some(0),
    };
    let mut out = bytes::BytesMut::new();
    Frame::Message { head, entry: super::entries::entry(&super::entries::metadata(), b"of epoch 0") }.encode(&mut out);
    stage.relay.inject("a MESSAGE of epoch 0", out.freeze());
    let again = stage.expect("c", "m0").await?;
    stage.ack("c", &again).await?;
    match stage.receive("c", Duration::from_secs(1)).await? {
        Some(message) if message.payload == "of epoch 0" => {
            check(false, || "it showed the message of epoch 0".to_owned())
        }
        _ => Ok(()),
    }
}

async fn closed(stage: &mut Stage) -> Step {
    let payloads = with_consumer(stage, 3, "exclusive", 10).await?;
    stage.expect("c", &payloads[0]).await?;
    stage.close("c").await?;
    let gone = |broker: &EmbeddedBroker| subscription(broker).is_some_and(|sub| sub.consumers.is_empty());
    stage.broker_has(PROMPT, "the subscription without a consumer", gone).await?;
    stage.at_most("UNSUBSCRIBE", 0, 0)?;
    let left = subscription(&stage.broker).map_or(0, |sub| sub.msg_backlog);
    check(left == 3, || format!("{left} of 3 messages are left without an acknowledgement"))
}

async fn closed_amid_reconnect(stage: &mut Stage) -> Step {
    with_consumer(stage, 3, "exclusive", 10).await?;
    let mark = stage.relay.mark();
    stage.fault(FaultEvent::Subscribe).times(1).delay_response(Duration::from_millis(1500));
    stage.broker.faults().close_consumers(TOPIC, None);
    stage.sent_by_client("SUBSCRIBE", 1, mark, RECOVERY).await?;
    // A client may refuse to close what is not attached, as long as nothing stays.
    let _ = stage.glue.ask(&Request::new("close").word("c"), RECOVERY).await?;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let gone = |broker: &EmbeddedBroker| subscription(broker).is_none_or(|sub| sub.consumers.is_empty());
    stage.broker_has(PROMPT, "no consumer at the broker after it was closed", gone).await
}

async fn given_up(stage: &mut Stage) -> Step {
    stage.publish_numbered(TOPIC, 1).await?;
    stage.fault(FaultEvent::Subscribe).times(1).drop_response();
    stage.connect().await?;
    let request = subscribe_request("c", TOPIC, "exclusive", 10);
    match stage.glue.ask(&request, OPERATION_TIMEOUT + RECOVERY).await? {
        Answer::Error(_) => {
            let gone = |broker: &EmbeddedBroker| subscription(broker).is_none_or(|sub| sub.consumers.is_empty());
            stage.broker_has(PROMPT, "no consumer at the broker after the subscribe has failed", gone).await
        }
        _ => stage.expect("c", "m0").await.map(drop),
    }
}

async fn beyond_permits(stage: &mut Stage) -> Step {
    publish_batch(stage, &["b0", "b1", "b2", "b3", "b4"]).await?;
    publish_batch(stage, &["d0", "d1", "d2", "d3", "d4"]).await?;
    stage.connect().await?;
    stage.subscribe("c", TOPIC, "exclusive", 2).await?;
    for payload in ["b0", "b1", "b2", "b3", "b4", "d0", "d1", "d2", "d3", "d4"] {
        let message = stage.expect("c", payload).await?;
        stage.ack("c", &message).await?;
    }
    let acked = |broker: &EmbeddedBroker| subscription(broker).is_some_and(|sub| sub.msg_backlog == 0);
    stage.broker_has(PROMPT, "all messages acknowledged", acked).await
}
