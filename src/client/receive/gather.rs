//! Messages by the batch: as many as a policy says.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Receiver;
use crate::client::clock;
use crate::client::message::ReceivedMessage;
use crate::client::runtime::AsyncTimer;
use crate::error::{Error, Result};

/// When [`Consumer::receive_batch`](crate::Consumer::receive_batch) has enough: as soon as one of its limits is reached.
/// Java: `BatchReceivePolicy`, with the same defaults.
///
/// ```
/// use std::time::Duration;
///
/// use pulsar_native::BatchReceivePolicy;
///
/// let policy = BatchReceivePolicy::default().with_messages_max(500).with_timeout(Duration::from_secs(1));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a policy does nothing until messages are received with it"]
pub struct BatchReceivePolicy {
    messages_max: usize,
    bytes_max: usize,
    timeout: Duration,
}

impl Default for BatchReceivePolicy {
    /// Any number of messages, 10 MiB, 100 ms.
    fn default() -> Self {
        Self { messages_max: usize::MAX, bytes_max: 10 * 1024 * 1024, timeout: Duration::from_millis(100) }
    }
}

impl BatchReceivePolicy {
    /// The most messages; 0 counts as 1. Default: any number.
    pub const fn with_messages_max(mut self, messages: usize) -> Self {
        self.messages_max = messages;
        self
    }

    /// From how many bytes of payload on it is enough: the message that reaches them is the last. Default: 10 MiB.
    pub const fn with_bytes_max(mut self, bytes: usize) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// How long to wait, from the call on; [`Duration::MAX`] is for as long as it takes. Default: 100 ms.
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// Gathers messages; dropped before it is done, it puts them back.
pub(in crate::client) struct Gather<'a> {
    receiver: &'a mut Receiver,
    policy: &'a BatchReceivePolicy,
    messages: Vec<ReceivedMessage>,
    bytes: usize,
    /// Not set where the time has no end.
    timer: Option<Box<dyn AsyncTimer>>,
}

impl<'a> Gather<'a> {
    pub(in crate::client) fn new(
        receiver: &'a mut Receiver,
        policy: &'a BatchReceivePolicy,
        mut timer: Box<dyn AsyncTimer>,
    ) -> Self {
        let timer = clock::now().at.checked_add(policy.timeout).map(|at| {
            timer.reset(at);
            timer
        });
        Self { receiver, policy, messages: Vec::new(), bytes: 0, timer }
    }

    /// Takes what is here. True if it is enough.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> std::result::Result<bool, Error> {
        while let Poll::Ready(received) = self.receiver.poll(cx) {
            let message = received?;
            self.bytes = self.bytes.saturating_add(message.payload().len());
            self.messages.push(message);
            if self.messages.len() >= self.policy.messages_max || self.bytes >= self.policy.bytes_max {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Future for Gather<'_> {
    type Output = Result<Vec<ReceivedMessage>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let is_enough = match self.poll_receive(cx) {
            Ok(is_enough) => is_enough,
            Err(error) if self.messages.is_empty() => return Poll::Ready(Err(error)),
            // The next call gets the error that ends the consumer.
            Err(_) => true,
        };
        let is_late = !is_enough && self.timer.as_mut().is_some_and(|timer| timer.poll(cx).is_ready());
        match is_enough || is_late {
            true => Poll::Ready(Ok(std::mem::take(&mut self.messages))),
            false => Poll::Pending,
        }
    }
}

impl Drop for Gather<'_> {
    fn drop(&mut self) {
        if !self.messages.is_empty() {
            self.receiver.put_back(std::mem::take(&mut self.messages));
        }
    }
}
