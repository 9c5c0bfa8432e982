//! Why a consumer gets nothing: asked of its ledger, of the broker, and of the REST interface where that is at hand.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use super::clock;
use super::consumer_shared::ConsumerShared;
use super::parts::Part;
use crate::error::Result;
use crate::machine::consumer::{Consumer as Machine, IdleReason, SubscriptionView};
use crate::machine::{Deferred, Reply, ReplyTo};

/// Why the application gets no message: one reason for each topic and partition. Its `Display` is a line for each.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct WhyIdle {
    /// In the order of [`Consumer::state`](super::Consumer::state).
    pub parts: Vec<PartIdle>,
}

/// Why nothing comes of one topic or partition.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PartIdle {
    /// The full name of the topic, or of the partition.
    pub topic: Arc<str>,
    /// Why nothing comes.
    pub reason: IdleReason,
}

impl fmt::Display for WhyIdle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for PartIdle { topic, reason } in &self.parts {
            write!(f, "{separator}{topic}: {reason}")?;
            separator = "\n";
        }
        Ok(())
    }
}

impl ConsumerShared {
    pub(super) async fn why_idle(&self) -> WhyIdle {
        let mut parts = Vec::new();
        for part in self.parts.iter() {
            parts.push(PartIdle { topic: part.topic.clone(), reason: self.why_part_is_idle(&part).await });
        }
        WhyIdle { parts }
    }

    async fn why_part_is_idle(&self, part: &Part<Machine>) -> IdleReason {
        let ledger = part.read(Machine::idle_ledger);
        match ledger.reason() {
            Some(IdleReason::NotActive { .. }) => {
                let active_consumer = self.view(part).await.and_then(|view| view.active_consumer);
                return IdleReason::NotActive { active_consumer };
            }
            Some(reason) => return reason,
            None => {}
        }
        let asked = async {
            let stats =
                ask(part, |consumer, reply, deferred| consumer.broker_stats(reply, clock::now(), deferred)).await?;
            if stats.msg_backlog() == 0 {
                return Ok(ledger.reason_by_broker(&stats, None, None));
            }
            let last = ask(part, |consumer, reply, deferred| consumer.last_message_id(reply, clock::now(), deferred));
            // A topic that does not say is one whose last message is not known.
            let last = last.await.ok().map(|last| last.id);
            Ok(ledger.reason_by_broker(&stats, last, self.view(part).await.as_ref()))
        };
        match self.while_attached(part, asked).await {
            Ok(reason) => reason,
            Err(error) => part.read(Machine::idle_ledger).reason().unwrap_or(IdleReason::NoAnswer { error }),
        }
    }

    /// The answer, unless the part loses its broker meanwhile: a request waits for the next one, and that it has none is
    /// answer enough.
    async fn while_attached(
        &self,
        part: &Part<Machine>,
        asked: impl Future<Output = Result<IdleReason>>,
    ) -> Result<IdleReason> {
        let (mut asked, signal, mut seen) = (pin!(asked), self.parts.state_signal(), 0);
        poll_fn(|cx| {
            if let Poll::Ready(answer) = asked.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            while signal.poll_changed(&mut seen, cx).is_ready() {
                let state = part.read(Machine::idle_ledger).state;
                if !state.is_attached() {
                    return Poll::Ready(Ok(IdleReason::NotAttached(state)));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// What the REST interface says of this subscription; `None` where there is none, or the role may not ask it.
    #[cfg(feature = "http")]
    async fn view(&self, part: &Part<Machine>) -> Option<SubscriptionView> {
        super::http::admin::subscription_view(&*self.client().admin.get()?, &part.topic, &self.config.subscription)
            .await
    }

    #[cfg(not(feature = "http"))]
    #[expect(clippy::unused_async, reason = "it asks, where the feature is on")]
    async fn view(&self, _part: &Part<Machine>) -> Option<SubscriptionView> {
        None
    }
}

async fn ask<T>(part: &Part<Machine>, ask: impl FnOnce(&mut Machine, ReplyTo<T>, &mut Deferred)) -> Result<T> {
    let (to, reply) = Reply::pair();
    part.endpoint.with_deferred(&mut Deferred::new(), |machine, deferred| ask(machine, to, deferred));
    reply.await
}
