//! The verbs that script faults on a running broker.

use std::time::Duration;

use bytes::Bytes;

use super::EmbeddedBroker;
use crate::broker::faults::{FaultEffect, FaultEvent, ScriptedFault};
use crate::broker::machine::Broker;
use crate::error::ServerCode;

/// Scripts faults on a broker; made by [`EmbeddedBroker::faults`].
///
/// [`on`](Self::on) names an event and a verb of [`FaultBuilder`] what goes wrong with it; the other methods act at
/// once. Faults stay armed when this handle is gone, until they have taken effect or [`clear`](Self::clear) disarms
/// them. What a fault does to a client is never reported as a violation of that client.
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
/// broker.faults().on(FaultEvent::Producer).next(2).refuse(ServerCode::SERVICE_NOT_READY);
/// broker.faults().on(FaultEvent::Send).cut();
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
    /// otherwise. A verb of [`FaultBuilder`] arms it. At most 1,000 are armed at once; further ones are not.
    pub fn on(self, event: FaultEvent) -> FaultBuilder<'a> {
        FaultBuilder { broker: self.broker, event, topic: None, after: 0, times: Some(1) }
    }

    /// Ends the connection on which the `bytes`-th byte from now on arrives, be it in the middle of a frame. The bytes
    /// of all connections count.
    pub fn cut_after_bytes_received(self, bytes: usize) {
        self.broker.call(|broker| broker.cut_after_bytes_received(bytes));
    }

    /// Ends the connection that the `bytes`-th byte from now on is written to, right behind that byte. The bytes of all
    /// connections count.
    pub fn cut_after_bytes_sent(self, bytes: usize) {
        self.broker.call(|broker| broker.cut_after_bytes_sent(bytes));
    }

    /// Disarms all faults, sends the answers that are held back to be reversed, and serves the connections again that
    /// were frozen or not read. Answers that are delayed still go out at their time.
    pub fn clear(self) {
        self.broker.call(Broker::clear_faults);
    }

    /// Events on which a fault took effect so far: a test that waits for it knows that its fault happened.
    #[must_use]
    pub fn injected(self) -> u64 {
        self.broker.call(|broker| broker.faults_injected())
    }
}

/// Faults at once.
impl Faults<'_> {
    /// Sends these bytes on every connection, between two frames: garbage, or a frame that answers no request.
    pub fn send_bytes(self, bytes: &[u8]) {
        self.broker.call(|broker| broker.send_bytes(bytes));
    }

    /// Reads no more from the connections that there are now; what the broker sends still goes out. New
    /// connections are served as before.
    pub fn stop_reading(self) {
        self.broker.call(Broker::pause_reads);
    }

    /// Leaves the connections that there are now open and dead: nothing is read, nothing is written, as behind a
    /// firewall that forgot them. New connections are served as before.
    pub fn freeze(self) {
        self.broker.call(Broker::pause_reads_and_writes);
    }

    /// Asks every connection for fresh credentials now (AUTH_CHALLENGE), expired or not.
    pub fn challenge(self) {
        self.broker.call(Broker::challenge_all);
    }

    /// Closes the producers of a topic (CLOSE_PRODUCER), with an address to go to or without.
    pub fn close_producers(self, topic: &str, url: Option<&str>) {
        self.broker.call(|broker| broker.close_producers_of(topic, url));
    }

    /// Closes the consumers of a topic (CLOSE_CONSUMER), with an address to go to or without.
    pub fn close_consumers(self, topic: &str, url: Option<&str>) {
        self.broker.call(|broker| broker.close_consumers_of(topic, url));
    }

    /// Forgets every topic list watcher (WATCH_TOPIC_LIST) without notice: the protocol has no command by which a
    /// broker ends one. Its client gets no further update until it watches again.
    pub fn drop_topic_list_watchers(self) {
        self.broker.call(Broker::drop_topic_list_watchers);
    }

    /// Flips a bit of a stored entry, so that its checksum does not fit any more. `entry` counts from the first entry
    /// that the topic ever stored. False if there is no such entry.
    #[must_use = "false if there is no such entry"]
    pub fn corrupt_entry(self, topic: &str, entry: u64) -> bool {
        self.broker.call(|broker| broker.corrupt_entry(topic, entry))
    }

    /// Makes the payload of a stored entry unreadable, as a batch and for any codec, under a checksum that fits.
    /// `entry` counts as in [`corrupt_entry`](Self::corrupt_entry). False if there is no such entry.
    #[must_use = "false if there is no such entry"]
    pub fn corrupt_payload(self, topic: &str, entry: u64) -> bool {
        self.broker.call(|broker| broker.corrupt_payload(topic, entry))
    }

    /// Takes a topic over from another broker, which sends its clients here: they may come without a lookup.
    pub fn adopt(self, topic: &str) {
        self.broker.call(|broker| broker.adopt_topic(topic));
    }
}

/// A fault that a verb will arm; made by [`Faults::on`].
#[derive(Debug, Clone)]
#[must_use = "a verb arms the fault"]
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
    pub fn of(mut self, topic: &str) -> Self {
        self.topic = Some(topic.to_owned());
        self
    }

    /// Lets so many pass first. Default: none.
    pub fn after(mut self, events: u64) -> Self {
        self.after = events;
        self
    }

    /// Takes effect on so many in a row. Default: one.
    pub fn next(mut self, events: u64) -> Self {
        self.times = Some(events);
        self
    }

    /// Takes effect on all of them, until [`Faults::clear`].
    pub fn always(mut self) -> Self {
        self.times = None;
        self
    }
}

/// What goes wrong.
impl FaultBuilder<'_> {
    /// Answers with this error code, any number, and does not carry the request out. CONNECT and AUTH_RESPONSE end the
    /// connection with it; what has no answer is dropped.
    pub fn refuse(self, code: ServerCode) {
        self.arm(FaultEffect::Refuse(code));
    }

    /// Answers LOOKUP with Redirect to this URL. Other events are not changed.
    pub fn redirect(self, url: &str, authoritative: bool) {
        self.arm(FaultEffect::Redirect { url: url.to_owned(), authoritative });
    }

    /// Does not carry it out and does not answer.
    pub fn ignore(self) {
        self.arm(FaultEffect::Ignore);
    }

    /// Does not carry it out and sends these bytes instead of an answer: garbage, or what an HTTP server says.
    pub fn answer_with(self, bytes: impl Into<Bytes>) {
        self.arm(FaultEffect::AnswerWith(bytes.into()));
    }

    /// Carries it out and never answers.
    pub fn withhold(self) {
        self.arm(FaultEffect::Withhold);
    }

    /// Carries it out and answers so much later.
    pub fn delay(self, by: Duration) {
        self.arm(FaultEffect::Delay(by));
    }

    /// Carries it out and answers twice; a MESSAGE goes out twice, and both cost permits.
    pub fn duplicate(self) {
        self.arm(FaultEffect::Duplicate);
    }

    /// Carries them out, holds back as many answers as [`next`](Self::next) said, at least two, then sends them in
    /// reverse order.
    pub fn reverse(self) {
        let count = self.times.and_then(|times| usize::try_from(times).ok()).unwrap_or(2).max(2);
        self.arm(FaultEffect::Reverse(count));
    }

    /// Carries it out, then closes the producer or consumer it is of (CLOSE_PRODUCER, CLOSE_CONSUMER), or forgets the
    /// topic list watcher.
    pub fn close(self) {
        self.arm(FaultEffect::Close { url: None });
    }

    /// The same, with an address to go to without a lookup (`assignedBrokerServiceUrl`).
    pub fn close_to(self, url: &str) {
        self.arm(FaultEffect::Close { url: Some(url.to_owned()) });
    }

    /// Carries it out, then ends the connection without a CLOSE; what was not written yet, the answer included, is
    /// lost.
    pub fn cut(self) {
        self.arm(FaultEffect::Cut);
    }

    fn arm(self, effect: FaultEffect) {
        let mut fault = ScriptedFault::new(self.event, effect).after(self.after).times(self.times);
        if let Some(topic) = &self.topic {
            fault = fault.of(topic);
        }
        self.broker.call(|broker| broker.arm_fault(fault));
    }
}
