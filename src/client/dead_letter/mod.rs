//! Messages that could not be processed: to the retry topic when the application says so, to the dead-letter topic after
//! too many deliveries. Client-side only: to a broker these are topics like others.
//!
//! ```text
//!  delivered more often than the policy allows --> queue --> producer --confirmed--> acknowledged
//!                                                    |           |
//!                                                    | full      | refused
//!                                                    v           v
//!                                            negatively acknowledged, and an event
//! ```
//!
//! | file | what it does |
//! | --- | --- |
//! | `mod.rs` | the queue of dead letters, the task that sends them, retries |
//! | `policy.rs` | the options: when, and which topics |
//! | `letter.rs` | the message that is sent, with the properties of Java's |
//! | `held.rs` | the messages whose letters are on their way |
//! | `producers.rs` | the producers, created when they are needed |
//! | `topics.rs` | which topics, and whether those of an older name exist |

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::clock;
use super::drain::InHand;
use super::events::{ConsumerEvent, EventQueue};
use super::interceptors::ConsumerInterceptors;
use super::message::ReceivedMessage;
use crate::base64_text;
use crate::error::{Error, ErrorKind, Result, SendError};
use crate::id::MessageId;

mod held;
mod letter;
mod policy;
mod producers;
mod topics;

pub use policy::{DeadLetterNames, DeadLetterPolicy};

use held::{HeldLetter, HeldLetters};
use policy::LetterKind;
pub(super) use producers::Producers;
pub(super) use topics::LetterTopics;

/// Dead letters that wait to be sent. Beyond it they are negatively acknowledged, and come again.
const LETTERS_MAX: usize = 1000;

/// What a consumer with a dead-letter policy shares with the task that sends its dead letters.
pub(super) struct DeadLetters {
    topics: LetterTopics,
    subscription: String,
    producers: Producers,
    events: Arc<EventQueue<ConsumerEvent>>,
    interceptors: Option<Arc<ConsumerInterceptors>>,
    queue: mpsc::Sender<Letter>,
    /// Letters that are not stored and not given back.
    held: Arc<HeldLetters>,
}

/// A message on its way to the dead-letter topic.
#[derive(Clone)]
struct Letter {
    message: ReceivedMessage,
    /// Why, if the application said so.
    reason: Option<String>,
    /// Its payload is that of the stored entry.
    is_unreadable: bool,
    /// With its own properties alone, because it was too large with those that are added.
    is_bare: bool,
    _held: Arc<HeldLetter>,
}

/// The receiving half, for [`DeadLetters::forward`].
pub(super) struct LetterQueue(mpsc::Receiver<Letter>);

impl DeadLetters {
    pub(super) fn new(
        topics: LetterTopics,
        subscription: String,
        producers: Producers,
        events: Arc<EventQueue<ConsumerEvent>>,
        interceptors: Option<Arc<ConsumerInterceptors>>,
    ) -> (Arc<Self>, LetterQueue) {
        let (queue, letters) = mpsc::channel(LETTERS_MAX);
        let held = Arc::default();
        let dead_letters = Self { topics, subscription, producers, events, interceptors, queue, held };
        (Arc::new(dead_letters), LetterQueue(letters))
    }

    /// The most redeliveries of a message that is still given to the application.
    pub(super) fn max_redeliver_count(&self) -> u32 {
        self.topics.policy.max_redeliver_count + u32::from(mutation!(GivenUpLate))
    }

    /// Whether no message is given up at the moment, so that none which comes has a letter on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.held.count().count() == 0
    }

    /// Whether a message that comes again has a letter on its way. What becomes of that decides about it.
    pub(super) fn holds(&self, message: &ReceivedMessage) -> bool {
        !self.is_idle() && self.held.contains(message)
    }

    /// Gives a message up: it goes to the dead-letter topic, and is acknowledged once it is stored there.
    pub(super) fn push(&self, message: &ReceivedMessage, reason: Option<String>) {
        self.queue_new(message, reason, false);
    }

    /// Whether what cannot be read goes there too.
    pub(super) fn takes_unreadable(&self) -> bool {
        self.topics.policy.takes_unreadable
    }

    /// The same of a message that cannot be read: the whole entry, as it is stored.
    pub(super) fn push_unreadable(&self, message: &ReceivedMessage, reason: String) {
        self.queue_new(message, Some(reason), true);
    }

    fn queue_new(&self, message: &ReceivedMessage, reason: Option<String>, is_unreadable: bool) {
        let Some(held) = self.held.hold(message) else { return };
        if mutation!(AckBeforeLetterIsConfirmed) {
            let _ = message.part().endpoint.with(|consumer| consumer.ack(&message.position(), clock::now));
        }
        self.try_queue(Letter { message: message.clone(), reason, is_unreadable, is_bare: false, _held: held });
    }

    /// Letters that are not stored and not given back.
    pub(super) fn in_hand(&self) -> &InHand {
        self.held.count()
    }

    fn try_queue(&self, letter: Letter) {
        if let Err(refused) = self.queue.try_send(letter) {
            let letter = match refused {
                mpsc::error::TrySendError::Full(letter) | mpsc::error::TrySendError::Closed(letter) => letter,
            };
            let what = format!("{LETTERS_MAX} dead letters wait for their topic already");
            self.give_back(&letter, &Error::local(ErrorKind::QueueFull, what));
        }
    }

    /// Sends what is queued, in its order, for as long as it is polled.
    pub(super) async fn forward(self: Arc<Self>, mut queue: LetterQueue) {
        while let Some(letter) = queue.0.recv().await {
            self.send(letter).await;
        }
    }

    async fn send(self: &Arc<Self>, letter: Letter) {
        let topic = self.topics.dead_letter_topic(letter.message.topic(), &self.subscription);
        let producer = match self.producers.get(LetterKind::Dead, &topic, &self.topics.policy).await {
            Ok(producer) => producer,
            Err(error) => return self.give_back(&letter, &error),
        };
        let message = match letter.is_bare {
            true => letter.message.to_message(letter.message.properties()),
            false => {
                let mut properties = letter::origin(&letter.message, &self.subscription);
                if let Some(reason) = &letter.reason {
                    properties.insert(letter::REASON.to_owned(), reason.clone());
                }
                if letter.is_unreadable {
                    let metadata = base64_text::encode(letter.message.metadata_bytes());
                    properties.insert(letter::UNREADABLE_METADATA.to_owned(), metadata);
                }
                letter.message.to_message(properties)
            }
        };
        let (letters, sent, sent_to) = (self.clone(), letter.clone(), topic.clone());
        let refused = producer.enqueue_with(message, move |result| letters.on_sent(sent, &sent_to, result)).await;
        if let Err(error) = refused {
            self.on_sent(letter, &topic, Err(error));
        }
    }

    /// | the dead-letter topic has | then |
    /// | --- | --- |
    /// | stored it | The message is acknowledged. If that is refused, it comes again, and then stands there twice. |
    /// | refused it as too large, with the added properties | It is sent once more with its own alone. |
    /// | refused it, or not confirmed it | It is negatively acknowledged, and comes again. |
    fn on_sent(&self, letter: Letter, topic: &str, result: std::result::Result<MessageId, SendError>) {
        let error = match result {
            Ok(_) => {
                let part = letter.message.part();
                let acked = part.endpoint.with(|consumer| {
                    consumer.count_dead_letter();
                    if mutation!(LetterCountedTwice) {
                        consumer.count_dead_letter();
                    }
                    consumer.ack(&letter.message.position(), clock::now)
                });
                if let Some(interceptors) = &self.interceptors {
                    interceptors.on_acknowledge(&[letter.message.id()], &acked);
                }
                return;
            }
            Err(error) => error,
        };
        if error.error().kind() == ErrorKind::MessageTooLarge && !letter.is_bare {
            return self.try_queue(Letter { is_bare: true, ..letter });
        }
        self.producers.failed(topic, error.error());
        self.give_back(&letter, error.error());
    }

    /// The message comes again after its delay, and says why.
    fn give_back(&self, letter: &Letter, error: &Error) {
        let message = &letter.message;
        if mutation!(FailedLetterIsForgotten) {
            return;
        }
        message.part().endpoint.with(|consumer| {
            consumer.nack(&message.position(), message.redelivery_count(), clock::now());
        });
        self.events.push(ConsumerEvent::DeadLetterFailed { message: message.id(), error: error.clone() });
    }

    /// Sends a message to the retry topic, to be delivered after `delay`, or to the dead-letter topic if it was there as
    /// often as the policy allows. It is not acknowledged here.
    pub(super) async fn retry(
        &self,
        message: &ReceivedMessage,
        own: impl IntoIterator<Item = (String, String)>,
        delay: Duration,
    ) -> Result<()> {
        let Some(retry_topic) = self.topics.retry_topic() else {
            let what = "the consumer has no retry topic: see ConsumerBuilder::retry_enabled";
            return Err(Error::local(ErrorKind::InvalidArgument, what).with_topic(&message.part().topic));
        };
        let mut properties = letter::origin(message, &self.subscription);
        properties.extend(own);
        let times = letter::count_retry(&mut properties, delay);
        let is_dead = times > self.max_redeliver_count();
        let (kind, topic) = match is_dead {
            true => (LetterKind::Dead, self.topics.dead_letter_topic(message.topic(), &self.subscription)),
            false => (LetterKind::Retry, retry_topic.to_owned()),
        };
        let producer = self.producers.get(kind, &topic, &self.topics.policy).await?;
        let mut letter = message.to_message(properties);
        if !is_dead && !delay.is_zero() {
            letter = letter.with_deliver_after(delay);
        }
        if let Err(error) = producer.send(letter).await {
            self.producers.failed(&topic, error.error());
            return Err(error.into());
        }
        if is_dead {
            message.part().endpoint.with(|consumer| consumer.count_dead_letter());
        }
        Ok(())
    }
}
