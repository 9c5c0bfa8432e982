//! Producers: creation, topics that move, topics that end.

use std::time::Duration;

use super::{TOPIC, dead_address, plain, still_works, two_brokers, with_producer};
use crate::broker::{EmbeddedBroker, EmbeddedBrokerBuilder, FaultEvent};
use crate::referee::Scenario;
use crate::referee::glue::Answer;
use crate::referee::protocol::Request;
use crate::referee::stage::{OPERATION_TIMEOUT, PROMPT, RECOVERY, Stage, Step, check, producer_request};
use crate::referee::verdict::Stop;
use crate::wire::Command;
use crate::{AccessMode, ServerCode};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "producer-not-ready",
        must: "try again, with a pause, when PRODUCER fails with ServiceNotReady",
        source: "ServerError.ServiceNotReady; PulsarClientException.isRetriableError",
        broker: plain,
        run: |stage| Box::pin(not_ready(stage)),
    },
    Scenario {
        name: "producer-not-allowed",
        must: "fail the creation at once when PRODUCER fails with AuthorizationError",
        source: "ServerError.AuthorizationError; PulsarClientException.isRetriableError",
        broker: plain,
        run: |stage| Box::pin(not_allowed(stage)),
    },
    Scenario {
        name: "error-code-unknown",
        must: "re-attach a producer after an error of an unknown code",
        source: "ServerError of a later version; only codes that are known as final are not tried again",
        broker: plain,
        run: |stage| Box::pin(code_unknown(stage)),
    },
    Scenario {
        name: "producer-given-up",
        must: "send CLOSE_PRODUCER for a PRODUCER that was not answered, so that nothing of it stays",
        source: "ProducerImpl.connectionOpened: closes at the broker after a timeout; apache/pulsar#13161",
        broker: plain,
        run: |stage| Box::pin(given_up(stage)),
    },
    Scenario {
        name: "close-producer",
        must: "re-attach, over the same connection, only the producer that CLOSE_PRODUCER names",
        source: "CommandCloseProducer; ClientCnx.handleCloseProducer",
        broker: plain,
        run: |stage| Box::pin(closed_by_broker(stage)),
    },
    Scenario {
        name: "topic-moved-to-named-broker",
        must: "go to the broker that CLOSE_PRODUCER names",
        source: "CommandCloseProducer.assignedBrokerServiceUrl, PIP-307",
        broker: two_brokers,
        run: |stage| Box::pin(moved_to_named(stage)),
    },
    Scenario {
        name: "topic-moved-to-dead-broker",
        must: "look the topic up when the broker that CLOSE_PRODUCER names cannot be reached",
        source: "CommandCloseProducer.assignedBrokerServiceUrl, PIP-307; apache/pulsar-client-go#1208",
        broker: plain,
        run: |stage| Box::pin(moved_to_dead(stage)),
    },
    Scenario {
        name: "broker-dies",
        must: "look the topic up again when its broker dies, and work on at another",
        source: "ConnectionHandler.reconnectLater: lookup, then connect",
        broker: two_brokers,
        run: |stage| Box::pin(broker_dies(stage)),
    },
    Scenario {
        name: "message-too-large",
        must: "refuse a message above CommandConnected.max_message_size, and not send it",
        source: "CommandConnected.max_message_size; ProducerImpl.sendAsync",
        broker: small_messages,
        run: |stage| Box::pin(too_large(stage)),
    },
    Scenario {
        name: "topic-terminated",
        must: "fail pending sends when the topic is terminated, and try no longer",
        source: "ServerError.TopicTerminatedError; ProducerImpl.connectionFailed",
        broker: plain,
        run: |stage| Box::pin(terminated(stage)),
    },
    Scenario {
        name: "producer-fenced",
        must: "fail sends when another producer has taken an exclusive topic over, and not take it back",
        source: "CommandProducer.producer_access_mode, PIP-68; ServerError.ProducerFenced",
        broker: plain,
        run: |stage| Box::pin(fenced(stage)),
    },
    Scenario {
        name: "producer-closed-without-broker",
        must: "end a close within the operation timeout while no broker can be reached",
        source: "operationTimeoutMs in ClientConfigurationData",
        broker: plain,
        run: |stage| Box::pin(closed_without_broker(stage)),
    },
    Scenario {
        name: "producer-closed",
        must: "close a producer at the broker, with everything that was sent stored",
        source: "CommandCloseProducer of the client",
        broker: plain,
        run: |stage| Box::pin(closed(stage)),
    },
];

/// The largest message that [`small_messages`] takes.
const MESSAGE_BYTES_MAX: u32 = 20 * 1024;

fn small_messages() -> EmbeddedBrokerBuilder {
    EmbeddedBroker::builder().max_message_size(MESSAGE_BYTES_MAX)
}

async fn not_ready(stage: &mut Stage) -> Step {
    stage.fault(FaultEvent::Producer).times(3).refuse_request(ServerCode::SERVICE_NOT_READY);
    stage.connect().await?;
    stage.producer("p", TOPIC).await?;
    stage.send_stored("p", 1, "hello").await?;
    Ok(())
}

async fn not_allowed(stage: &mut Stage) -> Step {
    stage.fault(FaultEvent::Producer).always().refuse_request(ServerCode::AUTHORIZATION_ERROR);
    stage.connect().await?;
    stage.refused(&producer_request("p", TOPIC), OPERATION_TIMEOUT + PROMPT).await?;
    stage.at_most("PRODUCER", 3, 0)
}

async fn code_unknown(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    stage.fault(FaultEvent::Producer).refuse_request(ServerCode(4711));
    stage.broker.unload(TOPIC);
    still_works(stage, 1).await
}

async fn closed_without_broker(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    stage.fault(FaultEvent::Connect).always().disconnect();
    stage.relay.note("all connections are lost, and new ones end at once");
    stage.broker.drop_connections();
    let refused = |broker: &EmbeddedBroker| broker.faults().injected() > 0;
    stage.broker_has(RECOVERY, "an attempt to reconnect", refused).await?;
    // It may fail, since CLOSE_PRODUCER did not reach the broker.
    let _ = stage.glue.ask(&Request::new("close").word("p"), 2 * OPERATION_TIMEOUT + PROMPT).await?;
    Ok(())
}

async fn given_up(stage: &mut Stage) -> Step {
    stage.fault(FaultEvent::Producer).times(1).drop_response();
    stage.connect().await?;
    // A client may give up or try again.
    match stage.glue.ask(&producer_request("p", TOPIC), OPERATION_TIMEOUT + RECOVERY).await? {
        Answer::Error(_) => {
            let gone = |broker: &EmbeddedBroker| broker.stats(TOPIC).is_none_or(|stats| stats.publishers.is_empty());
            stage.broker_has(PROMPT, "no producer at the broker after the creation has failed", gone).await
        }
        Answer::Ok(_) | Answer::Nothing => {
            stage.send_stored("p", 1, "hello").await?;
            let publishers = stage.broker.stats(TOPIC).map_or(0, |stats| stats.publishers.len());
            check(publishers == 1, || format!("the broker has {publishers} producers of this one"))
        }
    }
}

async fn closed_by_broker(stage: &mut Stage) -> Step {
    let other = format!("{TOPIC}-beside");
    with_producer(stage).await?;
    stage.producer("beside", &other).await?;
    stage.subscribe("c", &other, "exclusive", 10).await?;
    let mark = stage.relay.mark();
    stage.broker.faults().close_producers(TOPIC, None);
    still_works(stage, 1).await?;
    stage.send_stored("beside", 2, "not disturbed").await?;
    stage.expect("c", "not disturbed").await?;
    stage.at_most_connections(0, mark)?;
    stage.at_most("SUBSCRIBE", 0, mark)?;
    let attached = stage.relay.look(|recording| {
        let topics = recording.commands(mark).filter_map(|(_, command)| match command {
            Command::Producer(producer) => Some(producer.topic.clone()),
            _ => None,
        });
        topics.collect::<Vec<_>>()
    });
    check(attached.iter().all(|topic| topic == TOPIC), || format!("it re-attached {}", attached.join(", ")))
}

async fn moved_to_named(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    let owner = stage.broker.owner(TOPIC).unwrap_or(0);
    let moved = stage.broker.move_topic(TOPIC, 1 - owner);
    check(moved, || "the referee cannot move the topic".to_owned())?;
    still_works(stage, 1).await?;
    let now = stage.broker.owner(TOPIC);
    check(now == Some(1 - owner), || "the topic is not where it was moved to".to_owned())
}

async fn moved_to_dead(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    let dead = dead_address()?;
    stage.broker.faults().close_producers(TOPIC, Some(&dead));
    still_works(stage, 1).await
}

async fn broker_dies(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    let owner = stage.broker.owner(TOPIC).unwrap_or(0);
    let url = format!("{},{}", stage.relay.url(0), stage.relay.url(1).trim_start_matches("pulsar://"));
    // A client with both brokers in its service URL.
    stage.done(&super::super::stage::connect_request(&url), PROMPT).await?;
    stage.producer("p", TOPIC).await?;
    stage.send_stored("p", 1, "before").await?;
    check(stage.broker.stop_broker(owner).await, || "the referee cannot stop the broker".to_owned())?;
    still_works(stage, 2).await
}

async fn too_large(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    let mark = stage.relay.mark();
    let payload = "x".repeat(3 * MESSAGE_BYTES_MAX as usize);
    let refused = stage.glue.ask(&Request::new("send").word("p").word(1).word(&payload), PROMPT).await?;
    if !matches!(refused, Answer::Error(_)) {
        let result = stage.result(1, RECOVERY).await?;
        let too_large = || format!("{} bytes were stored where {MESSAGE_BYTES_MAX} are allowed", payload.len());
        check(result.is_err(), too_large)?;
    }
    stage.at_most("SEND", 0, mark)?;
    still_works(stage, 2).await?;
    stage.at_most_connections(0, mark)
}

async fn terminated(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    stage.fault(FaultEvent::Send).always().drop_request();
    stage.send("p", 1, "pending").await?;
    let pending = |broker: &EmbeddedBroker| broker.faults().injected() > 0;
    stage.broker_has(PROMPT, "a send that has no receipt", pending).await?;
    let mark = stage.relay.mark();
    stage.relay.note("the topic is terminated");
    stage.broker.terminate(TOPIC);
    let result = stage.result(1, PROMPT).await?;
    check(result.is_err(), || "a send to a terminated topic succeeded".to_owned())?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.at_most("PRODUCER", 5, mark)
}

async fn fenced(stage: &mut Stage) -> Step {
    stage.connect().await?;
    let exclusive = producer_request("p", TOPIC).option("access_mode", "exclusive");
    stage.done(&exclusive, RECOVERY).await?;
    stage.send_stored("p", 0, "first").await?;
    let helper = stage.helper().await?;
    let fencing = helper.producer(TOPIC).access_mode(AccessMode::ExclusiveWithFencing).create().await;
    let fencing = fencing.map_err(|error| Stop::glue(error.to_string()))?;
    // A fenced producer gets CLOSE_PRODUCER or the end of its connection, and may have sent before.
    stage.waive(crate::broker::Rule::SendWithoutProducer);
    let mark = stage.relay.mark();
    let sent = stage.glue.ask(&Request::new("send").word("p").word(1).word("late"), PROMPT).await?;
    if !matches!(sent, Answer::Error(_)) {
        let result = stage.result(1, RECOVERY).await?;
        check(result.is_err(), || "a fenced producer stored a message".to_owned())?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.at_most("PRODUCER", 5, mark)?;
    let sent = fencing.send("still the only one").await;
    check(sent.is_ok(), || "it took the topic back".to_owned())
}

async fn closed(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    for id in 1..=10 {
        stage.send("p", id, "hello").await?;
    }
    for id in 1..=10 {
        stage.stored(id, RECOVERY).await?;
    }
    let mark = stage.relay.mark();
    stage.close("p").await?;
    stage.sent_by_client("CLOSE_PRODUCER", 1, mark, PROMPT).await?;
    let gone = |broker: &EmbeddedBroker| broker.stats(TOPIC).is_some_and(|stats| stats.publishers.is_empty());
    stage.broker_has(PROMPT, "no producer at the broker", gone).await
}
