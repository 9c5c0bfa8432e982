//! The verbs, on a running broker.

use std::time::Duration;

use bytes::Bytes;

use crate::broker::embedded::EmbeddedBroker;
use crate::broker::faults::{Effect, Event, Fault};
use crate::error::ServerCode;

/// Scripts faults on a broker; made by [`EmbeddedBroker::faults`]. See the [module](super).
///
/// Faults stay armed when this handle is gone, until they have struck or [`clear`](Self::clear) disarms them.
#[derive(Debug, Clone, Copy)]
pub struct Faults<'a> {
    broker: &'a EmbeddedBroker,
}

impl<'a> Faults<'a> {
    pub(crate) fn new(broker: &'a EmbeddedBroker) -> Self {
        Self { broker }
    }

    /// A fault for the next event of this kind: once, on any topic and connection, unless it is said otherwise. A verb
    /// of [`When`] arms it.
    pub fn on(self, event: Event) -> When<'a> {
        When { faults: self, fault: Fault::new(event, Effect::Ignore) }
    }

    /// Disarms all faults, lets go of the answers that are held back to be reversed, and serves the connections again
    /// that were frozen or not read. Answers that are delayed still go out at their time.
    pub fn clear(self) {
        self.broker.operate(crate::broker::machine::Broker::clear_faults);
    }

    /// Events that faults struck so far: a test that waits for it knows that its fault happened.
    pub fn struck(self) -> u64 {
        self.broker.operate(|broker| broker.faults_struck())
    }

    /// Ends the connection on which the `bytes`-th byte from now on arrives, be it in the middle of a frame. The bytes
    /// of all connections count.
    pub fn cut_after_bytes_received(self, bytes: usize) {
        self.broker.operate(|broker| broker.cut_after_bytes_received(bytes));
    }

    /// Ends the connection that the `bytes`-th byte from now on is written to, right behind that byte. The bytes of all
    /// connections count.
    pub fn cut_after_bytes_sent(self, bytes: usize) {
        self.broker.operate(|broker| broker.cut_after_bytes_sent(bytes));
    }

    /// Sends these bytes on every connection, between two frames: garbage, or a frame that nobody asked for.
    pub fn send_bytes(self, bytes: &[u8]) {
        self.broker.operate(|broker| broker.send_bytes(bytes));
    }

    /// Reads no more from the connections that there are now; what the broker has to say still goes out. New
    /// connections are served as ever.
    pub fn stop_reading(self) {
        self.broker.operate(|broker| broker.stop_reading(false));
    }

    /// Leaves the connections that there are now open and dead: nothing is read, nothing is written, as behind a
    /// firewall that forgot them. New connections are served as ever.
    pub fn freeze(self) {
        self.broker.operate(|broker| broker.stop_reading(true));
    }

    /// Asks every connection for fresh credentials now (AUTH_CHALLENGE), expired or not.
    pub fn challenge(self) {
        self.broker.operate(crate::broker::machine::Broker::challenge_all);
    }

    /// Closes the producers of a topic (CLOSE_PRODUCER), with an address to go to or without.
    pub fn close_producers(self, topic: &str, url: Option<&str>) {
        self.broker.operate(|broker| broker.close_guests(topic, true, false, url));
    }

    /// Closes the consumers of a topic (CLOSE_CONSUMER), with an address to go to or without.
    pub fn close_consumers(self, topic: &str, url: Option<&str>) {
        self.broker.operate(|broker| broker.close_guests(topic, false, true, url));
    }

    /// Forgets every topic list watcher (WATCH_TOPIC_LIST) without a word: the protocol has no command by which a broker
    /// ends one. Its client gets no further update until it watches again.
    pub fn drop_topic_list_watchers(self) {
        self.broker.operate(crate::broker::machine::Broker::drop_topic_list_watchers);
    }

    /// Flips a bit of a stored entry, so that its checksum does not fit any more. `entry` counts from the first entry
    /// that the topic ever stored. False if there is no such entry.
    pub fn corrupt_entry(self, topic: &str, entry: u64) -> bool {
        self.broker.operate(|broker| broker.corrupt_entry(topic, entry))
    }

    /// Makes the payload of a stored entry unreadable, as a batch and for any codec, under a checksum that fits.
    /// `entry` counts as in [`corrupt_entry`](Self::corrupt_entry). False if there is no such entry.
    pub fn corrupt_payload(self, topic: &str, entry: u64) -> bool {
        self.broker.operate(|broker| broker.corrupt_payload(topic, entry))
    }

    /// Takes a topic over from another broker, which sends its clients here: they may come without a lookup.
    pub fn adopt(self, topic: &str) {
        self.broker.operate(|broker| broker.adopt_topic(topic));
    }
}

/// A fault that a verb will arm; made by [`Faults::on`].
#[derive(Debug, Clone)]
#[must_use = "a verb arms the fault"]
pub struct When<'a> {
    faults: Faults<'a>,
    fault: Fault,
}

impl When<'_> {
    /// Only events of this topic. Producers' and consumers' events are of the topic they are attached to.
    pub fn of(mut self, topic: &str) -> Self {
        self.fault = self.fault.of(topic);
        self
    }

    /// Lets so many pass first.
    pub fn after(mut self, events: u64) -> Self {
        self.fault = self.fault.after(events);
        self
    }

    /// Strikes so many in a row. Default: one.
    pub fn next(mut self, events: u64) -> Self {
        self.fault = self.fault.times(Some(events));
        self
    }

    /// Strikes all of them, until [`Faults::clear`].
    pub fn always(mut self) -> Self {
        self.fault = self.fault.times(None);
        self
    }

    /// Answers with this error code, any number, and does not carry the request out. CONNECT and AUTH_RESPONSE end the
    /// connection with it; what has no answer is dropped.
    pub fn refuse(self, code: ServerCode) {
        self.arm(Effect::Refuse(code));
    }

    /// Answers LOOKUP with Redirect to this URL. Other events are not changed.
    pub fn redirect(self, url: &str, authoritative: bool) {
        self.arm(Effect::Redirect { url: url.to_owned(), authoritative });
    }

    /// Does not carry it out and does not answer.
    pub fn ignore(self) {
        self.arm(Effect::Ignore);
    }

    /// Does not carry it out and sends these bytes instead of an answer: garbage, or what an HTTP server says.
    pub fn answer_with(self, bytes: impl Into<Bytes>) {
        self.arm(Effect::AnswerWith(bytes.into()));
    }

    /// Carries it out and never answers.
    pub fn withhold(self) {
        self.arm(Effect::Withhold);
    }

    /// Carries it out and answers so much later.
    pub fn delay(self, by: Duration) {
        self.arm(Effect::Delay(by));
    }

    /// Carries it out and answers twice; a MESSAGE goes out twice, and both cost permits.
    pub fn duplicate(self) {
        self.arm(Effect::Duplicate);
    }

    /// Carries them out, holds back as many answers as [`next`](Self::next) said, at least two, then sends them last
    /// first.
    pub fn reverse(self) {
        let count = self.fault.times.and_then(|times| usize::try_from(times).ok()).unwrap_or(2).max(2);
        self.arm(Effect::Reverse(count));
    }

    /// Carries it out, then closes the producer or consumer it is of (CLOSE_PRODUCER, CLOSE_CONSUMER).
    pub fn close(self) {
        self.arm(Effect::Close { url: None });
    }

    /// The same, with an address to go to without a lookup (`assignedBrokerServiceUrl`).
    pub fn close_to(self, url: &str) {
        self.arm(Effect::Close { url: Some(url.to_owned()) });
    }

    /// Carries it out, then ends the connection without a word; what had not gone out yet, the answer included, is
    /// lost.
    pub fn cut(self) {
        self.arm(Effect::Cut);
    }

    fn arm(mut self, effect: Effect) {
        self.fault.effect = effect;
        let fault = self.fault;
        self.faults.broker.operate(|broker| broker.arm_fault(fault));
    }
}
