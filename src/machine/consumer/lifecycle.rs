//! From the first SUBSCRIBE to the end: attaching, detaching, closing, failing.
//!
//! A consumer ends in two steps. Once it has *ended*, nothing is received any more and every call gets the reason, but
//! acknowledgements and operations may still be on their way. Once it is *finished*, its server can forget it.

use super::operations::Operation;
use super::{Consumer, Deadline, Deferred, EndpointId, Now, ReplyTo, SubscriptionType};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::connection::peer::RequestError;
use crate::machine::endpoint::outbox::Response;
use crate::machine::mutation::{self, Mutation};
use crate::pb;

/// ```text
///               subscribe_request             on_attached
///  Detached ----------------------> Opening ---------------> Attached
///     ^                                |                        |
///     +--------------------------------+------------------------+  on_detached
///
///  from every state: fail, subscribe or close timeout, closed, unsubscribed ---> Finished
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConsumerState {
    Detached,
    Opening,
    Attached,
    Finished,
}

/// The first attach, which the application waits for.
#[derive(Debug)]
struct Subscribing {
    reply: ReplyTo<()>,
    deadline: Option<Deadline>,
}

/// A close that was requested.
#[derive(Debug)]
struct Closing {
    /// Bounded by the callers that wait.
    replies: Vec<ReplyTo<()>>,
    deadline: Option<Deadline>,
    /// The number of the CLOSE_CONSUMER, once it is sent.
    sent_as: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lifecycle {
    state: ConsumerState,
    /// Until the first attach or the end.
    subscribing: Option<Subscribing>,
    closing: Option<Closing>,
    /// Why nothing is received any more.
    ended: Option<Error>,
    /// The broker has no such consumer any more, or was told so.
    is_closed_at_broker: bool,
}

impl Lifecycle {
    pub(super) fn new(subscribed: ReplyTo<()>, deadline: Option<Deadline>) -> Self {
        Self {
            state: ConsumerState::Detached,
            subscribing: Some(Subscribing { reply: subscribed, deadline }),
            closing: None,
            ended: None,
            is_closed_at_broker: false,
        }
    }

    #[inline]
    pub(super) fn is_attached(&self) -> bool {
        self.state == ConsumerState::Attached
    }

    pub(super) fn is_finished(&self) -> bool {
        self.state == ConsumerState::Finished
    }

    pub(super) fn is_closed_at_broker(&self) -> bool {
        self.is_closed_at_broker
    }

    /// Why nothing is received any more, once that is so.
    #[inline]
    pub(super) fn ended(&self) -> Option<&Error> {
        self.ended.as_ref()
    }

    /// Whether messages that arrive are for the application.
    #[inline]
    pub(super) fn is_receiving(&self) -> bool {
        self.is_attached() && self.ended.is_none()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Whether CLOSE_CONSUMER is sent: the broker does not know this consumer any more.
    pub(super) fn is_close_sent(&self) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.sent_as.is_some())
    }

    /// Notes that CLOSE_CONSUMER is sent as `number`.
    pub(super) fn set_close_sent(&mut self, number: u64) {
        if let Some(closing) = &mut self.closing {
            closing.sent_as = Some(number);
            self.is_closed_at_broker = true;
        }
    }

    /// Until when the first attach is waited for.
    pub(super) fn subscribe_deadline(&self) -> Option<Deadline> {
        self.subscribing.as_ref().and_then(|subscribing| subscribing.deadline)
    }

    /// Until when the close is waited for.
    pub(super) fn close_deadline(&self) -> Option<Deadline> {
        self.closing.as_ref().and_then(|closing| closing.deadline)
    }

    /// Ends the wait for the first attach.
    fn answer_subscribed(&mut self, result: Result<()>, deferred: &mut Deferred) {
        if let Some(subscribing) = self.subscribing.take() {
            subscribing.reply.answer(result, deferred);
        }
    }
}

impl Consumer {
    /// SUBSCRIBE, without its request id. The fields are the same each time but for `consumer_epoch`.
    pub fn subscribe_request(&mut self) -> pb::CommandSubscribe {
        if self.lifecycle.state == ConsumerState::Detached {
            self.lifecycle.state = ConsumerState::Opening;
        }
        let config = &self.config;
        let key_shared = config.subscription_type == SubscriptionType::KeyShared;
        pb::CommandSubscribe {
            topic: self.topic.as_ref().to_owned(),
            subscription: config.subscription.clone(),
            sub_type: config.subscription_type.wire().into(),
            consumer_id: self.id.0,
            request_id: 0,
            consumer_name: config.consumer_name.clone(),
            priority_level: Some(config.priority_level),
            durable: Some(true),
            start_message_id: None,
            metadata: key_values(&config.properties),
            read_compacted: Some(config.read_compacted),
            schema: None,
            initial_position: Some(config.initial_position.wire().into()),
            replicate_subscription_state: config.replicate_subscription_state,
            force_topic_creation: Some(true),
            start_message_rollback_duration_sec: None,
            key_shared_meta: key_shared.then(|| config.key_shared.wire()),
            subscription_properties: key_values(&config.subscription_properties),
            consumer_epoch: Some(self.redelivery.epoch()),
        }
    }

    /// SUBSCRIBE succeeded. Permits start anew, what is queued will come again, what waited for a connection goes out.
    pub fn on_attached(&mut self, deferred: &mut Deferred) {
        if self.lifecycle.is_finished() {
            return;
        }
        self.lifecycle.state = ConsumerState::Attached;
        self.is_dirty = true;
        self.queue.restart();
        self.acks.on_attached();
        self.redelivery.restart();
        self.lifecycle.answer_subscribed(Ok(()), deferred);
        if let Some(Operation::Seek { reply, .. }) = self.operations.on_attached() {
            self.seek.end();
            reply.answer(Ok(()), deferred);
        }
    }

    /// The open failed, the connection was lost, or the broker closed this consumer. What is queued may still be
    /// taken until the next attach.
    pub fn on_detached(&mut self, deferred: &mut Deferred) {
        if self.lifecycle.is_finished() {
            return;
        }
        self.lifecycle.state = ConsumerState::Detached;
        self.is_dirty = true;
        self.redelivery.restart();
        if self.lifecycle.is_close_sent() {
            // Whichever side ended it, the broker has no such consumer any more.
            return self.finish(Ok(()), deferred);
        }
        self.finish_if_closed_while_detached(deferred);
    }

    /// Starts the close; a second one waits for the first.
    pub(super) fn begin_close(&mut self, reply: Option<ReplyTo<()>>, now: Now, deferred: &mut Deferred) {
        self.is_dirty = true;
        if let Some(closing) = &mut self.lifecycle.closing {
            closing.replies.extend(reply);
            return;
        }
        let deadline = Deadline::after(now, self.config.operation_timeout, "close of the consumer");
        self.lifecycle.closing = Some(Closing { replies: reply.into_iter().collect(), deadline, sent_as: None });
        let closed = self.closed_error();
        self.lifecycle.answer_subscribed(Err(closed.clone()), deferred);
        if mutation::is(Mutation::ForgetAcksAtClose) {
            self.acks.reset();
        }
        self.end(closed, deferred);
        self.finish_if_closed_while_detached(deferred);
    }

    pub(super) fn on_close_response(&mut self, number: u64, response: Response, deferred: &mut Deferred) {
        if self.lifecycle.closing.as_ref().is_none_or(|closing| closing.sent_as != Some(number)) {
            return;
        }
        let result = match response {
            // A connection that is gone has taken its consumers along.
            Ok(_) | Err(RequestError::Disconnected) => Ok(()),
            Err(error) => Err(error.into_error(CLOSE).with_topic(&self.topic)),
        };
        self.finish(result, deferred);
    }

    /// A detached consumer is closed at the broker already: its close is done once nothing waits to be sent.
    pub(super) fn finish_if_closed_while_detached(&mut self, deferred: &mut Deferred) {
        let is_detached = self.lifecycle.state == ConsumerState::Detached;
        let has_unsent = self.acks.has_pending() || !self.operations.is_empty();
        if self.lifecycle.is_closing() && is_detached && !has_unsent {
            self.finish(Ok(()), deferred);
        }
    }

    /// The first attach has taken too long.
    pub(super) fn on_subscribe_timeout(&mut self, deferred: &mut Deferred) {
        let why = format!("not subscribed within {:?}", self.config.operation_timeout);
        self.fail(Error::local(ErrorKind::TimedOut, why), deferred);
    }

    /// The close has taken too long.
    pub(super) fn on_close_timeout(&mut self, deferred: &mut Deferred) {
        let late = RequestError::TimedOut.into_error(CLOSE).with_topic(&self.topic);
        self.finish(Err(late), deferred);
    }

    /// Ends it with `error`, which all get that wait and all later calls.
    pub fn fail(&mut self, error: Error, deferred: &mut Deferred) {
        if self.lifecycle.is_finished() {
            return;
        }
        let error = error.with_topic(&self.topic);
        if self.lifecycle.ended.is_none() {
            self.end(error.clone(), deferred);
        }
        self.finish(Err(error), deferred);
    }

    /// The subscription was deleted, and this consumer with it: there is nothing left to close.
    pub(super) fn on_unsubscribed(&mut self, deferred: &mut Deferred) {
        self.lifecycle.is_closed_at_broker = true;
        let gone = Error::local(ErrorKind::Closed, "the subscription was deleted by unsubscribe");
        self.end(gone.with_topic(&self.topic), deferred);
        self.finish(Ok(()), deferred);
    }

    /// The first step of the end: nothing is received any more.
    fn end(&mut self, error: Error, deferred: &mut Deferred) {
        self.lifecycle.ended = Some(error);
        self.clear_queue();
        self.queue.notify(EndpointId::Consumer(self.id), deferred);
    }

    /// The second step: nothing is sent any more. `closed` is for the callers that wait for the close; all others get
    /// its error, or else the reason of the end.
    fn finish(&mut self, closed: Result<()>, deferred: &mut Deferred) {
        self.lifecycle.state = ConsumerState::Finished;
        self.is_dirty = true;
        let gone = match (&closed, &self.lifecycle.ended) {
            (Err(error), _) | (Ok(()), Some(error)) => error.clone(),
            (Ok(()), None) => self.closed_error(),
        };
        self.lifecycle.answer_subscribed(Err(gone.clone()), deferred);
        self.operations.fail_all(&gone, deferred);
        for reply in self.lifecycle.closing.take().into_iter().flat_map(|closing| closing.replies) {
            reply.answer(closed.clone(), deferred);
        }
        if self.lifecycle.ended.is_none() {
            self.end(gone, deferred);
        }
        self.acks.reset();
        self.redelivery.restart();
    }

    fn closed_error(&self) -> Error {
        Error::local(ErrorKind::Closed, "the consumer is closed").with_topic(&self.topic)
    }
}

/// What a close is called in errors.
const CLOSE: &str = "the close of the consumer";

fn key_values(pairs: &[(String, String)]) -> Vec<pb::KeyValue> {
    pairs.iter().map(|(key, value)| pb::KeyValue { key: key.clone(), value: value.clone() }).collect()
}
