//! Scripting faults on a running broker.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::EmbeddedBroker;
use crate::broker::faults::{FaultEffect, FaultEvent, ScriptedFault};
use crate::broker::machine::Broker;
use crate::error::ServerCode;

/// Scripts faults on a broker; created by [`EmbeddedBroker::faults`].
///
/// [`on`](Self::on) names an event, and a method of [`FaultBuilder`] the effect on it; the other methods act at once.
/// Faults stay armed when this handle is dropped, until they have taken effect or [`clear`](Self::clear) disarms them.
/// The effect of a fault on a client is never reported as a violation of that client.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use pulsar_native::broker::{EmbeddedBroker, FaultEvent};
/// use pulsar_native::{Client, ServerCode};
///
/// let broker = EmbeddedBroker::builder().start().await?;
/// let client = Client::builder(broker.url()).connect().await?;
/// // The first two attempts to open a producer are refused, and the first receipt is lost with its connection.
/// broker.faults().on(FaultEvent::Producer).times(2).refuse_request(ServerCode::SERVICE_NOT_READY);
/// broker.faults().on(FaultEvent::Send).disconnect();
///
/// let producer = client.producer("orders").create().await?;
/// producer.send("sent twice, and the application does not see it").await?;
/// assert_eq!(broker.faults().injected(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use = "a method scripts the fault"]
pub struct Faults<'a> {
    broker: &'a EmbeddedBroker,
}

impl EmbeddedBroker {
    /// The handle that scripts faults.
    pub fn faults(&self) -> Faults<'_> {
        Faults { broker: self }
    }
}

/// Faults on events.
impl<'a> Faults<'a> {
    /// A fault on the next event of this kind: once, on any topic and connection, unless the builder says
    /// otherwise. A method of [`FaultBuilder`] that names an effect arms it. At most 1,000 are armed at once; further ones
    /// are not.
    pub fn on(self, event: FaultEvent) -> FaultBuilder<'a> {
        FaultBuilder { broker: self.broker, event, topic: None, after: 0, times: Some(1) }
    }

    /// Ends the connection on which the `bytes`-th byte from now on arrives, be it in the middle of a frame. The bytes
    /// of all connections count.
    pub fn disconnect_after_bytes_received(self, bytes: usize) {
        self.broker.call(|broker| broker.disconnect_after_bytes_received(bytes));
    }

    /// Ends the connection that the `bytes`-th byte from now on is written to, right behind that byte. The bytes of all
    /// connections count.
    pub fn disconnect_after_bytes_sent(self, bytes: usize) {
        self.broker.call(|broker| broker.disconnect_after_bytes_sent(bytes));
    }

    /// Random faults on one frame in sixteen, by this seed, until [`clear`](Self::clear): answers that are refused, lost, late, of
    /// another type or sent twice, endpoints that are closed, connections that end, malformed frames, and sound ones that were not
    /// asked for. What happens to the n-th frame of the m-th connection is the same whenever the seed is.
    ///
    /// A client that keeps to the protocol loses nothing by it: no receipt is made up, no message is damaged or overtaken, and what is
    /// refused may be tried again (`ServiceNotReady`). Faults of [`on`](Self::on) go before these.
    pub fn hostile(self, seed: u64) {
        self.broker.call(|broker| broker.be_hostile(seed));
    }

    /// How often each kind of fault of [`hostile`](Self::hostile) happened, by its name; empty once it is cleared.
    #[must_use]
    pub fn hostile_counts(self) -> BTreeMap<&'static str, u64> {
        self.broker.call(|broker| broker.hostile_counts())
    }

    /// Disarms all faults, sends the responses that are held back to be reversed, and resumes the connections of
    /// [`stall_reads`](Self::stall_reads) and [`blackhole`](Self::blackhole). Delayed responses are still sent at their
    /// time.
    pub fn clear(self) {
        self.broker.call(Broker::clear_faults);
    }

    /// Events on which a fault took effect so far: a test can wait for it until its fault has happened.
    #[must_use]
    pub fn injected(self) -> u64 {
        self.broker.call(|broker| broker.faults_injected())
    }
}

/// Faults at once.
impl Faults<'_> {
    /// Sends these bytes on every connection, between two frames: garbage, or a frame that is the response to no request.
    pub fn send_bytes(self, bytes: &[u8]) {
        self.broker.call(|broker| broker.send_bytes(bytes));
    }

    /// Stops reading from the current connections; what the broker sends is still written. New connections are not
    /// affected. [`clear`](Self::clear) ends it.
    pub fn stall_reads(self) {
        self.broker.call(Broker::stall_reads);
    }

    /// Stops reading from the current connections and writing to them, and leaves them open, as a firewall that drops
    /// their packets. New connections are not affected. [`clear`](Self::clear) ends it.
    pub fn blackhole(self) {
        self.broker.call(Broker::blackhole);
    }

    /// Asks every connection for fresh credentials now (AUTH_CHALLENGE), expired or not.
    pub fn challenge(self) {
        self.broker.call(Broker::challenge_all);
    }

    /// Closes the producers of a topic (CLOSE_PRODUCER), with or without the address of another broker.
    pub fn close_producers(self, topic: &str, url: Option<&str>) {
        self.broker.call(|broker| broker.close_producers_of(topic, url));
    }

    /// Closes the consumers of a topic (CLOSE_CONSUMER), with or without the address of another broker.
    pub fn close_consumers(self, topic: &str, url: Option<&str>) {
        self.broker.call(|broker| broker.close_consumers_of(topic, url));
    }

    /// Forgets every topic list watcher (WATCH_TOPIC_LIST) without notice: the protocol has no command by which a
    /// broker ends one. Its client gets no further update until it watches again.
    pub fn drop_topic_list_watchers(self) {
        self.broker.call(Broker::drop_topic_list_watchers);
    }

    /// Flips a bit of a stored entry, so that its checksum no longer matches: every delivery of it is damaged. `entry`
    /// counts from the first entry that the topic ever stored. False if there is no such entry.
    #[must_use = "false if there is no such entry"]
    pub fn corrupt_stored_entry(self, topic: &str, entry: u64) -> bool {
        self.broker.call(|broker| broker.corrupt_stored_entry(topic, entry))
    }

    /// Makes the payload of a stored entry unreadable, as a batch and for any codec, under a checksum that matches.
    /// `entry` counts as in [`corrupt_stored_entry`](Self::corrupt_stored_entry). False if there is no such entry.
    #[must_use = "false if there is no such entry"]
    pub fn corrupt_stored_payload(self, topic: &str, entry: u64) -> bool {
        self.broker.call(|broker| broker.corrupt_stored_payload(topic, entry))
    }

    /// Takes a topic over from another broker, which sends its clients here: they may come without a lookup.
    pub fn acquire_topic(self, topic: &str) {
        self.broker.call(|broker| broker.acquire_topic(topic));
    }
}

/// A fault to be armed by one of its effects; created by [`Faults::on`].
#[derive(Debug, Clone)]
#[must_use = "the method of an effect arms the fault"]
pub struct FaultBuilder<'a> {
    broker: &'a EmbeddedBroker,
    event: FaultEvent,
    topic: Option<String>,
    after: u64,
    times: Option<u64>,
}

/// Which events.
impl FaultBuilder<'_> {
    /// Only events of this topic. Producers' and consumers' events are of the topic they are attached to.
    pub fn on_topic(mut self, topic: &str) -> Self {
        self.topic = Some(topic.to_owned());
        self
    }

    /// Skips the first `events` events. Default: none.
    pub fn after(mut self, events: u64) -> Self {
        self.after = events;
        self
    }

    /// Takes effect on this many events in a row. Default: one.
    pub fn times(mut self, events: u64) -> Self {
        self.times = Some(events);
        self
    }

    /// Takes effect on all events, until [`Faults::clear`].
    pub fn always(mut self) -> Self {
        self.times = None;
        self
    }
}

/// The effects.
impl FaultBuilder<'_> {
    /// Responds with this error code, any number, and does not carry the request out. CONNECT and AUTH_RESPONSE end
    /// the connection with it; a request that has no response is dropped.
    pub fn refuse_request(self, code: ServerCode) {
        self.arm(FaultEffect::RefuseRequest { code });
    }

    /// Responds to LOOKUP with Redirect to this URL. Other events are not changed.
    pub fn redirect(self, url: &str, authoritative: bool) {
        self.arm(FaultEffect::Redirect { url: url.to_owned(), authoritative });
    }

    /// Does not carry the request out and does not respond.
    pub fn drop_request(self) {
        self.arm(FaultEffect::DropRequest);
    }

    /// Does not carry the request out and sends these bytes instead of a response: garbage, or the response of an HTTP
    /// server.
    pub fn respond_with(self, bytes: impl Into<Bytes>) {
        self.arm(FaultEffect::RespondWith { bytes: bytes.into() });
    }

    /// Carries the request out and does not respond.
    pub fn drop_response(self) {
        self.arm(FaultEffect::DropResponse);
    }

    /// Carries the request out and delays the response by `by`.
    pub fn delay_response(self, by: Duration) {
        self.arm(FaultEffect::DelayResponse { by });
    }

    /// Carries the request out and responds twice; a MESSAGE is sent twice, and both cost permits.
    pub fn duplicate_response(self) {
        self.arm(FaultEffect::DuplicateResponse);
    }

    /// Carries the next `count` requests out, at least two, holds their responses back until all of them are there, then
    /// sends them in reverse order. Instead of [`times`](Self::times); with [`always`](Self::always) each further
    /// `count` likewise.
    pub fn reverse(mut self, count: usize) {
        let count = count.max(2);
        self.times = self.times.and(u64::try_from(count).ok());
        self.arm(FaultEffect::ReverseResponses { count });
    }

    /// Carries the request out, then closes its producer or consumer (CLOSE_PRODUCER, CLOSE_CONSUMER), or forgets its
    /// topic list watcher.
    pub fn close(self) {
        self.arm(FaultEffect::Close { url: None });
    }

    /// The same, with an address to go to without a lookup (`assignedBrokerServiceUrl`, or `assignedBrokerServiceUrlTls` for
    /// a `pulsar+ssl://` URL).
    pub fn close_to(self, url: &str) {
        self.arm(FaultEffect::Close { url: Some(url.to_owned()) });
    }

    /// Carries the request out, then ends the connection without a CLOSE; what was not written yet, the response
    /// included, is lost.
    pub fn disconnect(self) {
        self.arm(FaultEffect::Disconnect);
    }

    fn arm(self, effect: FaultEffect) {
        let fault = ScriptedFault::new(self.event, effect).after(self.after);
        let fault = match self.times {
            Some(times) => fault.times(times),
            None => fault.always(),
        };
        let fault = match &self.topic {
            Some(topic) => fault.on_topic(topic),
            None => fault,
        };
        self.broker.call(|broker| broker.arm_fault(fault));
    }
}
