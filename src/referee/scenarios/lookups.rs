//! Lookups: which broker serves a topic.

use std::time::Duration;

use super::{TOPIC, dead_address, plain, still_works, two_brokers, with_producer};
use crate::ServerCode;
use crate::broker::FaultEvent;
use crate::referee::Scenario;
use crate::referee::stage::{OPERATION_TIMEOUT, PROMPT, RECOVERY, Stage, Step, check, producer_request};
use crate::wire::Command;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "lookup-redirect",
        must: "send LOOKUP to the broker of a redirect, with `authoritative` copied from the response",
        source: "CommandLookupTopicResponse.authoritative; BinaryProtoLookupService.findBroker",
        broker: two_brokers,
        run: |stage| Box::pin(redirect(stage)),
    },
    Scenario {
        name: "lookup-redirect-loop",
        must: "give up a redirect loop within the operation timeout, without a storm of LOOKUPs, and work once it is over",
        source: "maxLookupRedirects = 20 in ClientConfigurationData; apache/pulsar#7041",
        broker: two_brokers,
        run: |stage| Box::pin(redirect_loop(stage)),
    },
    Scenario {
        name: "lookup-redirect-to-dead-broker",
        must: "look the topic up again when the broker that LOOKUP redirects to cannot be reached",
        source: "ConnectionHandler.reconnectLater: each attempt begins with a lookup",
        broker: plain,
        run: |stage| Box::pin(redirect_to_dead(stage)),
    },
    Scenario {
        name: "lookup-unanswered",
        must: "fail the creation when no LOOKUP is answered for the operation timeout",
        source: "operationTimeoutMs in ClientConfigurationData",
        broker: plain,
        run: |stage| Box::pin(unanswered(stage)),
    },
    Scenario {
        name: "lookup-slow",
        must: "wait for a slow response to LOOKUP, without asking again and again",
        source: "operationTimeoutMs in ClientConfigurationData",
        broker: plain,
        run: |stage| Box::pin(slow(stage)),
    },
    Scenario {
        name: "lookup-not-ready",
        must: "send LOOKUP again, after a pause, when it fails with ServiceNotReady",
        source: "ServerError.ServiceNotReady; PulsarClientException.isRetriableError",
        broker: plain,
        run: |stage| Box::pin(not_ready(stage)),
    },
    Scenario {
        name: "lookup-not-allowed",
        must: "fail the creation at once when LOOKUP fails with AuthorizationError: asking again changes nothing",
        source: "ServerError.AuthorizationError; PulsarClientException.isRetriableError",
        broker: plain,
        run: |stage| Box::pin(not_allowed(stage)),
    },
];

async fn redirect(stage: &mut Stage) -> Step {
    let other = stage.relay.url(1).to_owned();
    stage.fault(FaultEvent::Lookup).redirect(&other, true);
    stage.connect().await?;
    stage.producer("p", TOPIC).await?;
    stage.send_stored("p", 1, "hello").await?;
    let flags = stage.relay.look(|recording| {
        let lookups = recording.commands(0).filter_map(|(_, command)| match command {
            Command::Lookup(lookup) => Some(lookup.authoritative.unwrap_or(false)),
            _ => None,
        });
        lookups.take(2).collect::<Vec<_>>()
    });
    check(flags == [false, true], || format!("`authoritative` of its LOOKUPs was {flags:?}, not [false, true]"))
}

async fn redirect_loop(stage: &mut Stage) -> Step {
    let other = stage.relay.url(1).to_owned();
    stage.fault(FaultEvent::Lookup).always().redirect(&other, false);
    stage.connect().await?;
    stage.refused(&producer_request("p", TOPIC), OPERATION_TIMEOUT + RECOVERY).await?;
    // Twenty redirects for each attempt, of which a back-off allows about seven.
    stage.at_most("LOOKUP", 400, 0)?;
    stage.broker.faults().clear();
    stage.producer("p2", TOPIC).await?;
    stage.send_stored("p2", 1, "hello").await?;
    Ok(())
}

async fn redirect_to_dead(stage: &mut Stage) -> Step {
    let dead = dead_address()?;
    with_producer(stage).await?;
    stage.fault(FaultEvent::Lookup).redirect(&dead, true);
    stage.broker.unload(TOPIC);
    still_works(stage, 1).await
}

async fn unanswered(stage: &mut Stage) -> Step {
    stage.fault(FaultEvent::Lookup).always().drop_request();
    stage.connect().await?;
    stage.refused(&producer_request("p", TOPIC), 2 * OPERATION_TIMEOUT + PROMPT).await?;
    stage.broker.faults().clear();
    stage.producer("p2", TOPIC).await?;
    stage.send_stored("p2", 1, "hello").await?;
    Ok(())
}

async fn slow(stage: &mut Stage) -> Step {
    stage.fault(FaultEvent::Lookup).times(1).delay_response(Duration::from_millis(1500));
    stage.connect().await?;
    stage.producer("p", TOPIC).await?;
    stage.at_most("LOOKUP", 2, 0)
}

async fn not_ready(stage: &mut Stage) -> Step {
    stage.fault(FaultEvent::Lookup).times(3).refuse_request(ServerCode::SERVICE_NOT_READY);
    stage.connect().await?;
    stage.producer("p", TOPIC).await?;
    stage.send_stored("p", 1, "hello").await?;
    Ok(())
}

async fn not_allowed(stage: &mut Stage) -> Step {
    stage.fault(FaultEvent::Lookup).always().refuse_request(ServerCode::AUTHORIZATION_ERROR);
    stage.connect().await?;
    stage.refused(&producer_request("p", TOPIC), OPERATION_TIMEOUT + PROMPT).await?;
    stage.at_most("LOOKUP", 3, 0)
}
