//! What a scenario works with: a broker, the relay before it, and the glue; and the words in which scenarios are written.

use std::net::SocketAddr;
use std::time::Duration;

use super::ClientUnderTest;
use super::glue::{Answer, Glue};
use super::protocol::{ReceivedLine, Request};
use super::relay::{By, Recording, Relay};
use super::verdict::Stop;
use crate::broker::{
    ConformanceViolation, EmbeddedBroker, EmbeddedBrokerBuilder, FaultBuilder, FaultEvent, Rule, StoredMessage,
};
use crate::wire::Frame;
use crate::{Client, Message, Producer};

/// The operation timeout that clients are given.
pub(super) const OPERATION_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a client may take for what no fault delays.
pub(super) const PROMPT: Duration = Duration::from_secs(10);

/// How long a client may take to be at work again after a fault: reconnect, back off, look up.
pub(super) const RECOVERY: Duration = Duration::from_secs(25);

/// The result of a step.
pub(super) type Step<T = ()> = Result<T, Stop>;

/// From what stages are made.
#[derive(Clone)]
pub(super) struct Bench {
    pub(super) client: ClientUnderTest,
    pub(super) listen: SocketAddr,
    /// The host of the URLs that the client gets, if it is not the address of `listen`.
    pub(super) advertise: Option<String>,
}

/// One scenario's broker, relay and glue.
pub(super) struct Stage {
    pub(super) broker: EmbeddedBroker,
    pub(super) relay: Relay,
    pub(super) glue: Glue,
    /// Rules that are broken by what this scenario does, not by the client.
    waived: Vec<Rule>,
    has_fault: bool,
    /// `receive` requests so far; each gives its message a name of its own.
    received: u64,
}

impl Bench {
    /// Starts all three; the glue need not be ready.
    pub(super) async fn start(&self, broker: EmbeddedBrokerBuilder) -> Step<Stage> {
        let broken = |error: std::io::Error| Stop::glue(format!("the referee cannot start its broker: {error}"));
        let broker = broker.start().await.map_err(broken)?;
        let relay =
            Relay::start(self.listen, self.advertise.as_deref(), &broker.broker_urls()).await.map_err(broken)?;
        let glue = Glue::start(&self.client, relay.notes())?;
        Ok(Stage { broker, relay, glue, waived: Vec::new(), has_fault: false, received: 0 })
    }
}

/// Requests to the glue. An `error` of the client fails the scenario, except in `refused`.
impl Stage {
    pub(super) async fn connect(&mut self) -> Step {
        let url = self.relay.url(0).to_owned();
        let request = connect_request(&url);
        self.done(&request, PROMPT).await
    }

    /// A plain producer: without batches, so that each message is an entry.
    pub(super) async fn producer(&mut self, name: &str, topic: &str) -> Step {
        self.done(&producer_request(name, topic), RECOVERY).await
    }

    /// A consumer from the earliest message.
    pub(super) async fn subscribe(&mut self, name: &str, topic: &str, kind: &str, queue: u32) -> Step {
        self.done(&subscribe_request(name, topic, kind, queue), RECOVERY).await
    }

    /// Hands a message over, without its result.
    pub(super) async fn send(&mut self, producer: &str, id: u64, payload: &str) -> Step {
        self.done(&Request::new("send").word(producer).word(id).word(payload), PROMPT).await
    }

    /// The result of a send: the id of the message, or the client's error.
    pub(super) async fn result(&mut self, id: u64, patience: Duration) -> Step<Result<(u64, u64), String>> {
        let late = || Stop::failed(format!("the send {id} has no result after {patience:?}"));
        self.glue.sent(id, patience).await?.ok_or_else(late)
    }

    /// That a send succeeds, with the id of a message that the broker has, or as a duplicate.
    pub(super) async fn stored(&mut self, id: u64, patience: Duration) -> Step<(u64, u64)> {
        let result = self.result(id, patience).await?;
        let (ledger, entry) = result.map_err(|error| Stop::failed(format!("the send {id} failed: {error}")))?;
        let is_it = |message: &StoredMessage| {
            (message.id.position().ledger_id, message.id.position().entry_id) == (ledger, entry)
        };
        let topics = self.broker.topics();
        let is_stored = topics.iter().any(|topic| self.broker.stored_messages(topic).iter().any(is_it));
        let is_duplicate = (ledger, entry) == (u64::MAX, u64::MAX);
        check(is_stored || is_duplicate, || {
            format!("the send {id} succeeded as {ledger}:{entry}, and the broker has no such message")
        })?;
        Ok((ledger, entry))
    }

    /// Sends and waits until it is stored.
    pub(super) async fn send_stored(&mut self, producer: &str, id: u64, payload: &str) -> Step<(u64, u64)> {
        self.send(producer, id, payload).await?;
        self.stored(id, RECOVERY).await
    }

    /// The next message, or `None` if there is none within `wait`.
    pub(super) async fn receive(&mut self, consumer: &str, wait: Duration) -> Step<Option<ReceivedLine>> {
        self.received += 1;
        let name = format!("m{}", self.received);
        let request = Request::new("receive").word(consumer).word(&name).word(wait.as_millis());
        self.glue.ask(&request, wait + PROMPT).await?.into_message(&name)
    }

    /// The next message, with this payload.
    pub(super) async fn expect(&mut self, consumer: &str, payload: &str) -> Step<ReceivedLine> {
        match self.receive(consumer, RECOVERY).await? {
            Some(message) if message.payload == payload => Ok(message),
            Some(message) => Err(Stop::failed(format!("received {:?} and not {payload:?}", message.payload))),
            None => Err(Stop::failed(format!("{payload:?} was not received within {RECOVERY:?}"))),
        }
    }

    /// Receives until each of these payloads came, in any order and however often.
    pub(super) async fn expect_all(&mut self, consumer: &str, payloads: &[String]) -> Step<Vec<ReceivedLine>> {
        let mut missing: std::collections::BTreeSet<_> = payloads.iter().map(String::as_str).collect();
        let mut all = Vec::new();
        while !missing.is_empty() {
            let Some(message) = self.receive(consumer, RECOVERY).await? else {
                let list: Vec<_> = missing.into_iter().take(5).collect();
                return Err(Stop::failed(format!("not received within {RECOVERY:?}: {}", list.join(", "))));
            };
            missing.remove(message.payload.as_str());
            all.push(message);
        }
        Ok(all)
    }

    pub(super) async fn ack(&mut self, consumer: &str, message: &ReceivedLine) -> Step {
        self.done(&Request::new("ack").word(consumer).word(&message.name), PROMPT).await
    }

    pub(super) async fn close(&mut self, name: &str) -> Step {
        self.done(&Request::new("close").word(name), RECOVERY).await
    }

    /// A request that has to succeed.
    pub(super) async fn done(&mut self, request: &Request, patience: Duration) -> Step {
        match self.glue.ask(request, patience).await? {
            Answer::Error(error) => Err(Stop::failed(format!("`{request}` failed: {error}"))),
            Answer::Ok(_) | Answer::Nothing => Ok(()),
        }
    }

    /// A request that the client has to refuse or give up within `patience`.
    pub(super) async fn refused(&mut self, request: &Request, patience: Duration) -> Step<String> {
        match self.glue.ask(request, patience).await? {
            Answer::Error(error) => Ok(error),
            Answer::Ok(_) | Answer::Nothing => Err(Stop::failed(format!("`{request}` succeeded, and cannot have"))),
        }
    }
}

pub(super) fn connect_request(url: &str) -> Request {
    Request::new("connect").word(url).word(OPERATION_TIMEOUT.as_millis())
}

pub(super) fn producer_request(name: &str, topic: &str) -> Request {
    Request::new("producer").word(name).word(topic)
}

pub(super) fn subscribe_request(name: &str, topic: &str, kind: &str, queue: u32) -> Request {
    Request::new("subscribe").word(name).word(topic).word("sub").word(kind).word(queue)
}

/// What the wire shows.
impl Stage {
    /// Waits until the recording has something.
    pub(super) async fn seen<T>(
        &self,
        patience: Duration,
        what: &str,
        look: impl FnMut(&Recording) -> Option<T>,
    ) -> Step<T> {
        let found = self.relay.until(patience, look).await;
        found.ok_or_else(|| Stop::failed(format!("{what}: not within {patience:?}")))
    }

    /// Waits until the client has sent so many frames of this name since `mark`.
    pub(super) async fn sent_by_client(&self, name: &str, count: usize, mark: usize, patience: Duration) -> Step {
        let what = format!("{count} {name} of the client");
        self.seen(patience, &what, |recording| (recording.count(name, mark) >= count).then_some(())).await
    }

    /// That the client sent at most so many frames of this name since `mark`.
    pub(super) fn at_most(&self, name: &str, count: usize, mark: usize) -> Step {
        let sent = self.relay.look(|recording| recording.count(name, mark));
        check(sent <= count, || format!("it sent {sent} {name}, and at most {count} are in order"))
    }

    /// That the client opened at most so many connections since `mark`.
    pub(super) fn at_most_connections(&self, count: usize, mark: usize) -> Step {
        let opened = self.relay.look(|recording| recording.opened(mark));
        check(opened <= count, || format!("it opened {opened} connections, and at most {count} are in order"))
    }

    /// The frames of SEND that the client wrote since `mark`, as bytes.
    pub(super) fn sends(&self, mark: usize) -> Vec<(u64, u64, bytes::Bytes)> {
        self.relay.look(|recording| {
            let sends = recording.frames(By::Client, mark);
            sends
                .filter_map(|(connection, frame, bytes)| match frame {
                    Frame::Send { head, .. } => Some((connection, head.sequence_id, bytes.clone())),
                    _ => None,
                })
                .collect()
        })
    }

    /// Waits until something is true of the broker.
    pub(super) async fn broker_has(
        &self,
        patience: Duration,
        what: &str,
        is_true: impl Fn(&EmbeddedBroker) -> bool,
    ) -> Step {
        let until = tokio::time::Instant::now() + patience;
        while !is_true(&self.broker) {
            check(tokio::time::Instant::now() < until, || format!("{what}: not within {patience:?}"))?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

/// The other side of a topic: a client of this crate, straight at the broker.
impl Stage {
    pub(super) async fn helper(&self) -> Step<Client> {
        Client::builder(self.broker.url()).connect().await.map_err(|error| Stop::glue(error.to_string()))
    }

    pub(super) async fn helper_producer(&self, topic: &str) -> Step<Producer> {
        let producer = self.helper().await?.producer(topic).batching(false).create().await;
        producer.map_err(|error| Stop::glue(error.to_string()))
    }

    /// Publishes these, each an entry of its own.
    pub(super) async fn publish(&self, topic: &str, payloads: &[&str]) -> Step {
        let producer = self.helper_producer(topic).await?;
        for payload in payloads {
            let message = Message::new((*payload).to_owned());
            producer.send(message).await.map_err(|error| Stop::glue(error.to_string()))?;
        }
        Ok(())
    }

    /// A topic whose subscription `sub` is there before its messages.
    pub(super) async fn publish_numbered(&self, topic: &str, count: u32) -> Step<Vec<String>> {
        let payloads: Vec<_> = (0..count).map(|number| format!("m{number}")).collect();
        let all: Vec<_> = payloads.iter().map(String::as_str).collect();
        self.publish(topic, &all).await?;
        Ok(payloads)
    }
}

/// What goes wrong.
impl Stage {
    /// A fault on an event; a scenario in which it has no effect fails.
    pub(super) fn fault(&mut self, event: FaultEvent) -> FaultBuilder<'_> {
        self.has_fault = true;
        self.broker.faults().on(event)
    }

    /// That the faults took effect: a client that does nothing passes no scenario.
    pub(super) fn check_faults(&self) -> Step {
        let is_idle = self.has_fault && self.broker.faults().injected() == 0 || self.relay.has_replacements();
        check(!is_idle, || "it never did what this scenario is about, so its fault had no effect".to_owned())
    }
}

/// The judge.
impl Stage {
    /// The scenario itself makes clients break this rule.
    pub(super) fn waive(&mut self, rule: Rule) {
        self.waived.push(rule);
    }

    pub(super) fn violations(&self) -> Vec<ConformanceViolation> {
        let all = self.broker.violations().into_iter();
        all.filter(|violation| !self.waived.contains(&violation.rule)).collect()
    }
}

/// Fails the scenario unless something is true.
pub(super) fn check(is_true: bool, why: impl FnOnce() -> String) -> Step {
    if is_true { Ok(()) } else { Err(Stop::failed(why())) }
}
