//! What a test says of a broker, and the story it is told when that does not come true.

use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::panic::Location;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::sleep;

use super::EmbeddedBroker;
use crate::broker::machine::Broker;
use crate::id::MessageId;

/// How long an assertion waits by default.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something that is to become true of a broker. Awaiting it waits until it is, at most 5 s or as long as
/// [`within`](Self::within) says, and panics with what became of each message if it is not by then, or cannot become true
/// any more. Nothing is checked before.
///
/// # Cancel safety
/// Dropping the future drops the assertion, and nothing else.
#[must_use = "an assertion is checked when it is awaited"]
pub struct Assertion<'a> {
    broker: &'a EmbeddedBroker,
    patience: Duration,
    at: &'static Location<'static>,
    topic: String,
    what: String,
    check: Box<dyn Fn(&Broker) -> Verdict + Send + Sync + 'a>,
}

/// What an assertion is at the moment.
enum Verdict {
    True,
    /// It may become true. Why it is not.
    NotYet(String),
    /// It never will be. Why.
    Never(String),
}

impl Assertion<'_> {
    /// Waits as long as this. Default 5 s.
    pub fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// `Err` says why it never becomes true, or has not yet.
    fn poll_true(&self, context: &mut Context<'_>) -> Poll<Result<(), String>> {
        match self.broker.server.watch(context.waker(), |broker| (self.check)(broker)) {
            Verdict::True => Poll::Ready(Ok(())),
            Verdict::Never(why) => Poll::Ready(Err(why)),
            Verdict::NotYet(_) => Poll::Pending,
        }
    }

    async fn wait(self) {
        let mut timeout = pin!(sleep(self.patience));
        let verdict = poll_fn(|context| match self.poll_true(context) {
            Poll::Pending => timeout.as_mut().poll(context).map(|()| Err(None)),
            Poll::Ready(done) => Poll::Ready(done.map_err(Some)),
        });
        let Err(why) = verdict.await else { return };
        let why = why.unwrap_or_else(|| match self.broker.call(|broker| (self.check)(broker)) {
            Verdict::True => "it came true too late".to_owned(),
            Verdict::NotYet(why) | Verdict::Never(why) => format!("{why} after {:?}", self.patience),
        });
        let story = self.broker.story(&self.topic);
        panic!("at {}: {}: {why}\n{story}", self.at, self.what);
    }
}

impl<'a> IntoFuture for Assertion<'a> {
    type Output = ();
    type IntoFuture = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wait())
    }
}

impl fmt::Debug for Assertion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assertion").field("what", &self.what).field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// Assertions of tests. Topics may be partitioned: then the partitions count together.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use pulsar_native::{Client, InitialPosition};
/// use pulsar_native::broker::EmbeddedBroker;
///
/// let broker = EmbeddedBroker::builder().start().await?;
/// let client = Client::builder(broker.url()).connect().await?;
/// let id = client.producer("orders").create().await?.send("one").await?;
/// broker.assert_published("orders", 1).await;
///
/// let mut consumer =
///     client.consumer("orders", "billing").initial_position(InitialPosition::Earliest).subscribe().await?;
/// let message = consumer.receive().await?;
/// broker.assert_backlog("orders", "billing", 1).await;
/// consumer.ack(&message)?;
/// broker.assert_acked("orders", "billing", &id).await;
/// assert_eq!(broker.stored_messages("orders")[0].payload, "one");
/// broker.assert_no_violations();
/// # Ok(())
/// # }
/// ```
impl EmbeddedBroker {
    /// That as many messages were published to a topic, since it was created. More than that fails at once.
    #[track_caller]
    pub fn assert_published(&self, topic: &str, messages: u64) -> Assertion<'_> {
        let name = topic.to_owned();
        let check = move |broker: &Broker| match broker.total(&name, |stats| Some(stats.msg_in_counter)) {
            Some(published) if published > messages => Verdict::Never(format!("{published} were")),
            published => compared(published, messages, "no such topic"),
        };
        self.assertion(topic, format!("{messages} messages published to {topic}"), check)
    }

    /// That a subscription has so many messages that are not acknowledged, delivered or not.
    #[track_caller]
    pub fn assert_backlog(&self, topic: &str, subscription: &str, messages: u64) -> Assertion<'_> {
        let (name, sub) = (topic.to_owned(), subscription.to_owned());
        let check = move |broker: &Broker| {
            let backlog = broker.total(&name, |stats| Some(stats.subscriptions.get(&sub)?.msg_backlog));
            compared(backlog, messages, "no such subscription")
        };
        self.assertion(topic, format!("{messages} messages not acknowledged by {subscription} on {topic}"), check)
    }

    /// That a subscription has had so many messages delivered again, each time that they were. More fails at once.
    #[track_caller]
    pub fn assert_redelivered(&self, topic: &str, subscription: &str, messages: u64) -> Assertion<'_> {
        let (name, sub) = (topic.to_owned(), subscription.to_owned());
        let check = move |broker: &Broker| match broker
            .total(&name, |stats| Some(stats.subscriptions.get(&sub)?.redelivered))
        {
            Some(again) if again > messages => Verdict::Never(format!("{again} were")),
            again => compared(again, messages, "no such subscription"),
        };
        self.assertion(topic, format!("{messages} messages delivered to {subscription} on {topic} again"), check)
    }

    /// That a subscription has acknowledged a message: the whole entry, or the member of the batch that `id` names. Of a
    /// partitioned topic, `topic` is the partition, or `id` is one that names its topic, as those of received messages do.
    #[track_caller]
    pub fn assert_acked(&self, topic: &str, subscription: &str, id: &MessageId) -> Assertion<'_> {
        let name = id.topic().unwrap_or(topic).to_owned();
        let (sub, position) = (subscription.to_owned(), id.position());
        let member = u32::try_from(position.batch_index).ok();
        let check = move |broker: &Broker| match broker.is_acknowledged(
            &name,
            &sub,
            (position.ledger_id, position.entry_id),
            member,
        ) {
            Some(true) => Verdict::True,
            Some(false) => Verdict::NotYet("it is not".to_owned()),
            None => Verdict::NotYet("no such topic, subscription or message".to_owned()),
        };
        self.assertion(topic, format!("message {id} of {topic} acknowledged by {subscription}"), check)
    }

    /// That no client has broken a rule of the protocol so far.
    ///
    /// # Panics
    /// If one has; with each [violation](Self::violations).
    #[track_caller]
    pub fn assert_no_violations(&self) {
        let violations: Vec<_> = self.violations().iter().map(ToString::to_string).collect();
        assert!(violations.is_empty(), "clients broke rules of the protocol:\n{}", violations.join("\n"));
    }

    /// What has become of the messages of a topic, in lines for people: what was published, and of each subscription its
    /// consumers and the fate of the last 20 entries. It is what a failed assertion shows; its wording may change.
    #[must_use]
    pub fn story(&self, topic: &str) -> String {
        self.call(|broker| broker.story(topic))
    }

    #[track_caller]
    fn assertion<'a>(
        &'a self,
        topic: &str,
        what: String,
        check: impl Fn(&Broker) -> Verdict + Send + Sync + 'a,
    ) -> Assertion<'a> {
        let (topic, check, at) = (topic.to_owned(), Box::new(check), Location::caller());
        Assertion { broker: self, patience: PATIENCE, at, topic, what, check }
    }
}

fn compared(found: Option<u64>, expected: u64, missing: &str) -> Verdict {
    match found {
        Some(found) if found == expected => Verdict::True,
        Some(found) => Verdict::NotYet(format!("there are {found}")),
        None => Verdict::NotYet(missing.to_owned()),
    }
}
