//! Connections: keep-alive, handshake, credentials, back-off.

use std::time::Duration;

use super::{TOPIC, framed, plain, still_works, with_producer};
use crate::ServerCode;
use crate::broker::{EmbeddedBroker, EmbeddedBrokerBuilder, FaultEvent};
use crate::pb;
use crate::referee::Scenario;
use crate::referee::protocol::Request;
use crate::referee::relay::{By, Recording};
use crate::referee::stage::{
    OPERATION_TIMEOUT, PROMPT, RECOVERY, Stage, Step, check, connect_request, producer_request,
};
use crate::referee::verdict::Stop;
use crate::wire::Command;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "half-open-link",
        must: "notice within two keep-alive intervals that a link is dead, and send again over a new one",
        source: "PulsarHandler.handleKeepAliveTimeout: a PING without anything received for an interval ends the connection",
        broker: that_probes_soon,
        run: |stage| Box::pin(half_open(stage)),
    },
    Scenario {
        name: "broker-stops-reading",
        must: "leave a broker that no longer reads within two keep-alive intervals, and store all messages elsewhere",
        source: "PulsarHandler.handleKeepAliveTimeout; apache/pulsar-client-cpp#480",
        broker: that_probes_soon,
        run: |stage| Box::pin(stops_reading(stage)),
    },
    Scenario {
        name: "ping-while-queue-full",
        must: "answer PING while the application takes no messages and the queue is full",
        source: "CommandPing; apache/pulsar-client-go#1310",
        broker: plain,
        run: |stage| Box::pin(ping_while_full(stage)),
    },
    Scenario {
        name: "handshake-unanswered",
        must: "fail the creation when CONNECT is never answered, and not hang",
        source: "ServerCnx and ClientCnx close a connection without a handshake after a keep-alive interval; connectionTimeoutMs",
        broker: plain,
        run: |stage| Box::pin(handshake_unanswered(stage)),
    },
    Scenario {
        name: "handshake-http",
        must: "fail the creation, without a storm of connections, where an HTTP server listens on the binary port",
        source: "the frame length is then 0x48545450 (\"HTTP\"): above the limit of PulsarDecoder; milvus-io/milvus#34419",
        broker: plain,
        run: |stage| Box::pin(handshake_http(stage)),
    },
    Scenario {
        name: "connection-shared",
        must: "use one connection for all producers and consumers at a broker, and close it in the end",
        source: "connectionsPerBroker = 1 in ClientConfigurationData",
        broker: plain,
        run: |stage| Box::pin(shared(stage)),
    },
    Scenario {
        name: "backoff-bounded",
        must: "reconnect with a growing pause while the broker refuses everything, and come back when it no longer does",
        source: "initialBackoffIntervalNanos = 100 ms, doubled, in ClientConfigurationData",
        broker: plain,
        run: |stage| Box::pin(backoff_bounded(stage)),
    },
    Scenario {
        name: "connections-refused",
        must: "reconnect with a growing pause while each connection ends at once, and come back when they no longer do",
        source: "initialBackoffIntervalNanos = 100 ms, doubled, in ClientConfigurationData",
        broker: plain,
        run: |stage| Box::pin(connections_refused(stage)),
    },
    Scenario {
        name: "token-refreshed",
        must: "answer AUTH_CHALLENGE with a fresh token while traffic goes on over the same connection",
        source: "CommandAuthChallenge, PIP-30; FeatureFlags.supports_auth_refresh",
        broker: with_tokens,
        run: |stage| Box::pin(token_refreshed(stage)),
    },
    Scenario {
        name: "token-refused",
        must: "fail the creation when the token is refused, without a storm of connections",
        source: "ServerError.AuthenticationError in response to CONNECT",
        broker: with_tokens,
        run: |stage| Box::pin(token_refused(stage)),
    },
];

/// The keep-alive interval that clients get.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// That of clients whose interval cannot be set.
const KEEP_ALIVE_DEFAULT: Duration = Duration::from_secs(30);

/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(3);

fn with_tokens() -> EmbeddedBrokerBuilder {
    EmbeddedBroker::builder().token_secret_key("a secret of at least 32 bytes, for HS256")
}

/// The name of a producer is free again soon after its connection has gone dead.
fn that_probes_soon() -> EmbeddedBrokerBuilder {
    EmbeddedBroker::builder().connection_liveness_check_timeout(Duration::from_millis(500))
}

/// Connects with a short keep-alive interval where the client has one; which it is.
async fn connect_short(stage: &mut Stage) -> Step<Duration> {
    let url = stage.relay.url(0).to_owned();
    let short = connect_request(&url).option("keep_alive_ms", KEEP_ALIVE.as_millis());
    match stage.done(&short, PROMPT).await {
        Ok(()) => Ok(KEEP_ALIVE),
        Err(Stop::Unsupported(_)) => stage.connect().await.map(|()| KEEP_ALIVE_DEFAULT),
        Err(stop) => Err(stop),
    }
}

/// A producer whose sends wait longer than two keep-alive intervals by default.
fn patient_producer() -> Request {
    producer_request("p", TOPIC).option("send_timeout_ms", 120_000)
}

async fn half_open(stage: &mut Stage) -> Step {
    let interval = connect_short(stage).await?;
    stage.done(&patient_producer(), RECOVERY).await?;
    stage.send_stored("p", 0, "first").await?;
    let mark = stage.relay.mark();
    stage.relay.note("the link goes dead");
    stage.broker.faults().blackhole();
    stage.send("p", 1, "over a new link").await?;
    let patience = 2 * interval + SLACK;
    let opened = |recording: &Recording| (recording.opened(mark) > 0).then_some(());
    stage.seen(patience, "a new connection", opened).await?;
    stage.stored(1, RECOVERY).await?;
    Ok(())
}

async fn stops_reading(stage: &mut Stage) -> Step {
    let interval = connect_short(stage).await?;
    stage.done(&patient_producer(), RECOVERY).await?;
    stage.send_stored("p", 0, "first").await?;
    stage.relay.note("the broker stops reading");
    stage.broker.faults().stall_reads();
    let payload = "x".repeat(50_000);
    for id in 1..=20 {
        stage.send("p", id, &payload).await?;
    }
    for id in 1..=20 {
        stage.stored(id, 2 * interval + SLACK + RECOVERY).await?;
    }
    Ok(())
}

async fn ping_while_full(stage: &mut Stage) -> Step {
    stage.publish_numbered(TOPIC, 20).await?;
    stage.connect().await?;
    stage.subscribe("c", TOPIC, "exclusive", 3).await?;
    let delivered = |recording: &Recording| {
        let messages = recording.frames(By::Broker, 0);
        (messages.filter(|(_, frame, _)| frame.name() == "MESSAGE").count() >= 3).then_some(())
    };
    stage.seen(PROMPT, "a full queue", delivered).await?;
    let mark = stage.relay.mark();
    stage.relay.inject("PING", framed(pb::CommandPing {}));
    stage.sent_by_client("PONG", 1, mark, PROMPT).await
}

async fn handshake_unanswered(stage: &mut Stage) -> Step {
    stage.fault(FaultEvent::Connect).always().drop_request();
    let url = stage.relay.url(0).to_owned();
    let connect = connect_request(&url);
    let short = connect.clone().option("connection_timeout_ms", 2_000);
    match stage.done(&short, PROMPT).await {
        Err(Stop::Unsupported(_)) => stage.done(&connect, PROMPT).await?,
        other => other?,
    }
    stage.refused(&producer_request("p", TOPIC), KEEP_ALIVE_DEFAULT + OPERATION_TIMEOUT + PROMPT).await?;
    stage.at_most_connections(30, 0)
}

async fn handshake_http(stage: &mut Stage) -> Step {
    let response = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n";
    stage.fault(FaultEvent::Connect).always().respond_with(response);
    stage.connect().await?;
    stage.refused(&producer_request("p", TOPIC), KEEP_ALIVE_DEFAULT + OPERATION_TIMEOUT + PROMPT).await?;
    stage.at_most_connections(30, 0)
}

async fn shared(stage: &mut Stage) -> Step {
    stage.connect().await?;
    for number in 0..3 {
        let topic = format!("{TOPIC}-{number}");
        stage.producer(&format!("p{number}"), &topic).await?;
        stage.subscribe(&format!("c{number}"), &topic, "exclusive", 10).await?;
        stage.send_stored(&format!("p{number}"), number, "hello").await?;
        stage.expect(&format!("c{number}"), "hello").await?;
    }
    stage.at_most_connections(1, 0)?;
    stage.glue.exit().await?;
    let ended = |recording: &Recording| (recording.open() == 0).then_some(());
    stage.seen(PROMPT, "no open connection after its end", ended).await
}

/// A pause of 100 ms that doubles allows six attempts within the window; a client that adds lookups and requests of its own is
/// far below this as well.
const STORM: usize = 40;

/// How long the broker refuses.
const REFUSAL: Duration = Duration::from_secs(5);

async fn backoff_bounded(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    let mark = stage.relay.mark();
    stage.fault(FaultEvent::Producer).always().refuse_request(ServerCode::SERVICE_NOT_READY);
    stage.broker.unload(TOPIC);
    stage.sent_by_client("PRODUCER", 2, mark, RECOVERY).await?;
    tokio::time::sleep(REFUSAL).await;
    stage.at_most("PRODUCER", STORM, mark)?;
    stage.broker.faults().clear();
    still_works(stage, 1).await
}

async fn connections_refused(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    let mark = stage.relay.mark();
    stage.fault(FaultEvent::Connect).always().disconnect();
    stage.broker.drop_connections();
    tokio::time::sleep(REFUSAL).await;
    stage.at_most_connections(STORM, mark)?;
    stage.broker.faults().clear();
    still_works(stage, 1).await
}

async fn token_refreshed(stage: &mut Stage) -> Step {
    let file = TokenFile::write(&stage.broker.token("admin"))?;
    let url = stage.relay.url(0).to_owned();
    stage.done(&connect_request(&url).option("token_file", file.path()), PROMPT).await?;
    stage.producer("p", TOPIC).await?;
    stage.send_stored("p", 0, "first").await?;
    let fresh = stage.broker.token_expiring("admin", Duration::from_secs(3600));
    file.replace(&fresh)?;
    let mark = stage.relay.mark();
    stage.relay.note("the token file changes, and the broker sends AUTH_CHALLENGE");
    stage.broker.faults().challenge();
    stage.sent_by_client("AUTH_RESPONSE", 1, mark, PROMPT).await?;
    let is_fresh = stage.relay.look(|recording| {
        recording.commands(mark).any(|(_, command)| match command {
            Command::AuthResponse(response) => {
                response.response.as_ref().and_then(|data| data.auth_data.as_deref()) == Some(fresh.as_bytes())
            }
            _ => false,
        })
    });
    check(is_fresh, || "it answered AUTH_CHALLENGE with another token than the file has".to_owned())?;
    still_works(stage, 1).await?;
    stage.at_most_connections(0, mark)
}

async fn token_refused(stage: &mut Stage) -> Step {
    let file = TokenFile::write("no.token.ofthisbroker")?;
    let url = stage.relay.url(0).to_owned();
    stage.done(&connect_request(&url).option("token_file", file.path()), PROMPT).await?;
    stage.refused(&producer_request("p", TOPIC), OPERATION_TIMEOUT + RECOVERY).await?;
    stage.at_most_connections(STORM, 0)
}

/// A file with a token, deleted when it is dropped.
struct TokenFile(std::path::PathBuf);

impl TokenFile {
    fn write(token: &str) -> Step<Self> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("pulsar-native-referee-{}-{number}", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        file.replace(token)?;
        Ok(file)
    }

    fn replace(&self, token: &str) -> Step {
        std::fs::write(&self.0, token).map_err(|error| Stop::glue(format!("the referee cannot write a token: {error}")))
    }

    fn path(&self) -> std::path::Display<'_> {
        self.0.display()
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
