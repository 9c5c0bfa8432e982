//! Applications that fail: messages that nothing can be done with, to the retry and the dead-letter topic; messages that are
//! forgotten, which their timeout brings again; consumers that are paused.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pulsar_native::sim::{Rng, Simulation};
use pulsar_native::{Consumer, ConsumerBuilder, DeadLetterPolicy, ProducerBuilder, ReceivedMessage, SubscriptionType};

use super::plan::{SubscriptionPlan, TopicPlan};
use super::users::{Users, maybe};

/// What goes wrong in the application of one subscription.
#[derive(Clone, Default)]
pub(super) struct Failures {
    /// The redeliveries until a message is given up.
    redeliveries: Option<u32>,
    retries: bool,
    ack_timeout: Option<Duration>,
    pauses: bool,
}

impl Failures {
    pub(super) fn of(rng: &mut Rng, kind: SubscriptionType) -> Self {
        let mut failures = Self::default();
        let has_counts = matches!(kind, SubscriptionType::Shared | SubscriptionType::KeyShared);
        if has_counts && rng.chance_per_mille(400) {
            failures.redeliveries = Some(rng.range_inclusive(1, 3) as u32);
            failures.retries = rng.chance_per_mille(400);
        }
        if rng.chance_per_mille(250) {
            failures.ack_timeout = Some(Duration::from_secs(rng.range_inclusive(1, 5)));
        }
        failures.pauses = rng.chance_per_mille(400);
        failures
    }

    pub(super) fn has_retries(&self) -> bool {
        self.retries
    }

    pub(super) fn build(&self, users: &Users, mut builder: ConsumerBuilder) -> ConsumerBuilder {
        if let Some(redeliveries) = self.redeliveries {
            // By default their names are random, and then no run is the same.
            let names = users.letter_producers.clone();
            let named = move |builder: ProducerBuilder| {
                builder.name(format!("letters-{}", names.fetch_add(1, Ordering::Relaxed)))
            };
            let policy = DeadLetterPolicy::new(redeliveries).with_dead_letter_producer(named.clone());
            builder = builder.dead_letter_policy(policy.with_retry_letter_producer(named)).retry_enabled(self.retries);
        }
        match self.ack_timeout {
            Some(timeout) => builder.ack_timeout(timeout),
            None => builder,
        }
    }

    /// Whether the application forgets a message that it was given: its timeout brings it again.
    pub(super) fn forgets(&self, rng: &mut Rng) -> bool {
        self.ack_timeout.is_some() && rng.chance_per_mille(700)
    }

    /// Whether nothing can be done with a message.
    pub(super) fn fails(&self, message: &ReceivedMessage) -> bool {
        let sum = |text: &str| text.bytes().map(u32::from).sum::<u32>();
        self.redeliveries.is_some() && sum(&payload(&message.to_string_lossy())) % 5 == 0
    }

    /// Checks that a message is given to the application no more often than the policy says.
    pub(super) fn check_given(&self, users: &Users, topic: &TopicPlan, message: &ReceivedMessage) {
        if self.redeliveries.is_some_and(|most| message.redelivery_count() > most) {
            users.handle.report_violation("given up after n redeliveries", || format!("{message:?}"));
        }
        if self.retries && message.topic().ends_with("-RETRY") {
            let is_of_topic = message.property("REAL_TOPIC") == Some(&topic.name);
            if !is_of_topic || message.property("ORIGIN_MESSAGE_ID").is_none() {
                let what = || format!("{message:?}: {:?}", message.properties().collect::<Vec<_>>());
                users.handle.report_violation("a retry says where it comes from", what);
            }
        }
    }
}

/// Nothing can be done with the message: it is to come again, from its topic or from the retry topic.
pub(super) async fn fail(
    users: &Users,
    rng: &mut Rng,
    consumer: &Consumer,
    plan: &SubscriptionPlan,
    message: &ReceivedMessage,
) {
    if plan.failures.retries && rng.chance_per_mille(500) {
        let delay = rng.duration(Duration::ZERO, Duration::from_secs(2));
        let result = maybe(users, rng, consumer.reconsume_later(message, delay)).await;
        users.handle.trace(|| format!("retry of {} after {delay:?}: {result:?}", message.id()));
        if matches!(result, Some(Ok(()))) {
            return;
        }
    }
    drop(consumer.nack(message));
}

/// The name of a message.
pub(super) fn payload(text: &str) -> String {
    text.split('|').next().unwrap_or_default().to_owned()
}

/// The retry and dead-letter topics of a subscription.
fn letter_topics(topic: &TopicPlan, plan: &SubscriptionPlan) -> Vec<String> {
    let name = |suffix| format!("{}-{}-{suffix}", topic.name, plan.name);
    match plan.failures.redeliveries {
        Some(_) => vec![name("DLQ"), name("RETRY")],
        None => Vec::new(),
    }
}

/// The names of the messages that stand in the retry and the dead-letter topic.
pub(super) fn letters(sim: &Simulation, topic: &TopicPlan, plan: &SubscriptionPlan) -> BTreeSet<String> {
    let topics = letter_topics(topic, plan).into_iter();
    let stored = topics.flat_map(|topic| sim.stored_messages(&topic));
    stored.map(|message| payload(&String::from_utf8_lossy(&message.payload))).collect()
}

/// Whether no retry waits for its delay or for an acknowledgement.
pub(super) fn has_no_retries(sim: &Simulation, topic: &TopicPlan) -> bool {
    topic.subscriptions.iter().filter(|plan| plan.failures.retries).all(|plan| {
        let stats = sim.stats(&format!("{}-{}-RETRY", topic.name, plan.name));
        let found = stats.and_then(|mut stats| stats.subscriptions.remove(&plan.name));
        found.is_none_or(|found| found.msg_backlog == 0)
    })
}

/// Checks that no dead letter is counted which is not there.
pub(super) fn check_counts(sim: &Simulation, users: &Users, topic: &TopicPlan) {
    for plan in topic.subscriptions.iter().filter(|plan| plan.failures.redeliveries.is_some()) {
        let name = (topic.name.clone(), plan.name.clone());
        let counted = users.notes.borrow().dead_letters.get(&name).copied().unwrap_or(0);
        let stored = sim.stored_messages(&format!("{}-{}-DLQ", topic.name, plan.name)).len() as u64;
        if counted > stored {
            users
                .handle
                .report_violation("a dead letter is counted once", || format!("{counted} of {stored}, {name:?}"));
        }
    }
}

/// A consumer that is paused now and then, for a while.
#[derive(Default)]
pub(super) struct Pauses {
    /// With how many permits granted, at the most.
    paused: Option<u64>,
}

impl Pauses {
    /// Pauses or resumes the consumer, or checks that it does not ask for more than it had asked for.
    pub(super) fn step(&mut self, users: &Users, rng: &mut Rng, consumer: &Consumer, plan: &SubscriptionPlan) {
        let granted = consumer.stats().available_permits;
        match self.paused {
            None if plan.failures.pauses && !users.is_draining.get() && rng.chance_per_mille(60) => {
                users.handle.trace(|| format!("consumer of {} is paused", plan.name));
                consumer.pause();
                self.paused = Some(granted);
            }
            None => {}
            Some(_) if users.is_draining.get() || rng.chance_per_mille(80) => {
                users.handle.trace(|| format!("consumer of {} is resumed", plan.name));
                consumer.resume();
                self.paused = None;
            }
            Some(least) => {
                if granted > least {
                    let what = || format!("{granted} are granted, {least} before");
                    users.handle.report_violation("a paused consumer asks for nothing", what);
                }
                self.paused = Some(granted.min(least));
            }
        }
    }
}
