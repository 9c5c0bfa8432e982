//! Users that receive and acknowledge, in every way that is allowed.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use pulsar_native::sim::Rng;
use pulsar_native::{
    Client, Consumer, ConsumerEvent, Error, ErrorKind, InitialPosition, MessageId, ReceivedMessage, SubscriptionType,
};

use super::by_key::work_by_key;
use super::drains::Work;
use super::failures::{Pauses, fail};
use super::plan::{SubscriptionPlan, TopicPlan};
use super::stalls::StallChecker;
use super::told::watch_handle;
use super::users::{ByKey, Notes, Users, check_end, key, maybe};

pub(super) async fn consume(users: Users, client: Client, topic: TopicPlan, plan: SubscriptionPlan, index: usize) {
    let mut rng = users.handle.rng();
    while !users.is_over.get() {
        let builder = client
            .consumer(topic.name.as_str(), plan.name.as_str())
            .auto_update_partitions(false)
            .subscription_type(plan.kind)
            .initial_position(InitialPosition::Earliest)
            .receiver_queue_size(plan.queue)
            .batch_index_acknowledgment(plan.index_acks)
            .negative_ack_redelivery_delay(Duration::from_secs(1))
            .stall_timeout(plan.stall_timeout)
            // Of a producer that went in the midst of a message some chunks are stored. Longer than any fault lasts.
            .auto_ack_incomplete_chunked_messages(true)
            .expire_time_of_incomplete_chunked_message(Duration::from_secs(120))
            .name(format!("c{index}"));
        let builder = plan.failures.build(&users, builder);
        let consumer = match maybe(&users, &mut rng, builder.subscribe()).await {
            Some(Ok(consumer)) => consumer,
            Some(Err(error)) => {
                users.handle.trace(|| format!("consumer {}/{index} was not created: {error}", plan.name));
                users.handle.sleep(Duration::from_millis(300)).await;
                continue;
            }
            None => continue,
        };
        users.handle.trace(|| format!("consumer {}/{index} is created", plan.name));
        let name = format!("consumer {}/{index} of {}", plan.name, topic.name);
        watch_handle(&users, name, plan.consumers[index], || consumer.watch_state(), || None);
        if is_in_order(&plan) && rng.chance_per_mille(300) {
            work_by_key(&users, &mut rng, consumer, &topic, &plan).await;
        } else {
            receive_all(&users, &mut rng, consumer, &topic, &plan).await;
        }
    }
    users.notes.borrow_mut().consumers_left -= 1;
}

/// Receives until the consumer or the run ends.
async fn receive_all(users: &Users, rng: &mut Rng, mut consumer: Consumer, topic: &TopicPlan, plan: &SubscriptionPlan) {
    let mut pauses = Pauses::default();
    let mut ends = Ends::new(users, topic, plan, &consumer);
    let (work, acker) = (ends.work.clone(), consumer.acker());
    let mut held: Vec<ReceivedMessage> = Vec::new();
    let mut left: u64 = if rng.chance_per_mille(300) { rng.range_inclusive(1, 60) } else { u64::MAX };
    loop {
        if users.is_over.get() || (left == 0 && !users.is_draining.get()) {
            break;
        }
        if ends.may_start_again() {
            break;
        }
        left = left.saturating_sub(1);
        if users.is_draining.get() {
            for message in held.drain(..) {
                ack(users, plan, &consumer, &message, &work);
            }
        }
        work.may_drain((users, rng), (&acker, plan), true);
        pauses.step(users, rng, &consumer, plan);
        ends.dead_letters = acker.stats().dead_lettered_messages;
        // A pause in which messages pile up.
        if rng.chance_per_mille(60) && !users.is_draining.get() {
            users.handle.sleep(rng.duration(Duration::ZERO, Duration::from_secs(2))).await;
        }
        let wait = users.handle.sleep(Duration::from_millis(700));
        ends.stalls.borrow_mut().set_busy(false);
        let message = match first(maybe(users, rng, consumer.receive()), wait).await.flatten() {
            Some(Ok(message)) => {
                ends.stalls.borrow_mut().set_busy(true);
                message
            }
            Some(Err(error)) => {
                users.handle.trace(|| format!("consumer of {} has ended: {error}", plan.name));
                ends.check_whole(&error);
                users.handle.sleep(Duration::from_millis(100)).await;
                return;
            }
            None => continue,
        };
        note_received(users, plan, &message);
        plan.failures.check_given(users, topic, &message);
        if plan.failures.fails(&message) {
            fail(users, rng, &consumer, plan, &message).await;
            continue;
        }
        if users.is_draining.get() {
            ack(users, plan, &consumer, &message, &work);
            continue;
        }
        match rng.below(10) {
            0..=4 => ack(users, plan, &consumer, &message, &work),
            5 => confirm(users, rng, &consumer, plan, message, &mut held).await,
            6 if is_in_order(plan) => {
                note_acked(users, plan, &message, true);
                if consumer.ack_cumulative(&message).is_err() {
                    held.push(message);
                }
            }
            6 => {
                let kind = consumer.ack_cumulative(&message).err().map(|error| error.kind());
                if !matches!(kind, Some(ErrorKind::NotAllowed | ErrorKind::Closed)) {
                    users.handle.report_violation("no cumulative ack on a shared subscription", || format!("{kind:?}"));
                }
                held.push(message);
            }
            7 => drop(consumer.nack(&message)),
            8 if plan.failures.forgets(rng) => {}
            8 => held.push(message),
            _ => {
                users.notes.borrow_mut().mixed_up.insert(plan.name.clone());
                consumer.redeliver_unacknowledged_messages();
                ack(users, plan, &consumer, &message, &work);
            }
        }
    }
    work.is_aborted.set(true);
    let mut acked = Vec::new();
    for message in held.drain(..).filter(|_| rng.chance_per_mille(500)) {
        ack(users, plan, &consumer, &message, &work);
        acked.push(message);
    }
    close(users, rng, &consumer, plan, &acked).await;
}

/// Closes the consumer, mostly; `acked` was acknowledged just before.
pub(super) async fn close(
    users: &Users,
    rng: &mut Rng,
    consumer: &Consumer,
    plan: &SubscriptionPlan,
    acked: &[ReceivedMessage],
) {
    if rng.chance_per_mille(700) {
        let closed = maybe(users, rng, consumer.close()).await;
        users.handle.trace(|| format!("consumer of {} is closed: {closed:?}", plan.name));
        // Where nothing goes wrong, what was acknowledged just before the close has arrived.
        for message in acked.iter().filter(|_| users.is_clean && matches!(closed, Some(Ok(())))) {
            let id = message.id();
            let known = plan.index_acks || id.batch_size().is_none_or(|size| size == 1);
            if known && users.handle.is_acknowledged(message.topic(), &plan.name, &id) != Some(true) {
                users
                    .handle
                    .report_violation("a close sends the acknowledgements", || format!("{id} of {}", plan.name));
            }
        }
    }
}

/// The ends of the parts of one consumer.
pub(super) struct Ends<'a> {
    users: &'a Users,
    topic: &'a TopicPlan,
    plan: &'a SubscriptionPlan,
    stalls: Rc<RefCell<StallChecker>>,
    ended: BTreeSet<String>,
    pub(super) work: Rc<Work>,
    /// That the consumer has counted.
    dead_letters: u64,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.stalls.borrow_mut().finish();
        let name = (self.topic.name.clone(), self.plan.name.clone());
        *self.users.notes.borrow_mut().dead_letters.entry(name).or_default() += self.dead_letters;
    }
}

impl<'a> Ends<'a> {
    pub(super) fn new(users: &'a Users, topic: &'a TopicPlan, plan: &'a SubscriptionPlan, consumer: &Consumer) -> Self {
        let has_one_topic = topic.partitions == 0 && !plan.failures.has_retries();
        let must_tell = users.is_clean && !is_in_order(plan);
        let (acker, events) = (consumer.acker(), consumer.events());
        let name = plan.name.clone();
        let stalls =
            StallChecker::new(users, name, acker, events, plan.stall_timeout, (topic, has_one_topic), must_tell);
        let stalls = Rc::new(RefCell::new(stalls));
        users.notes.borrow_mut().told.stalls.push(stalls.clone());
        Self { users, topic, plan, stalls, ended: BTreeSet::new(), work: Rc::default(), dead_letters: 0 }
    }

    pub(super) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Notes and checks the ends that were reported.
    fn take_reported(&mut self) {
        let next = |stalls: &RefCell<StallChecker>| stalls.borrow_mut().next_other(self.users);
        while let Some(event) = next(&self.stalls) {
            let ConsumerEvent::TopicEnded { topic, error, .. } = event else { continue };
            let topic = topic.to_string();
            self.users.handle.trace(|| format!("consumer {} of {topic} has ended: {error}", self.plan.name));
            check_end(self.users, &topic, &error);
            self.work.has_ended_parts.set(true);
            if !self.ended.insert(topic.clone()) {
                self.users.handle.report_violation("the end of a part is reported once", || topic);
            }
        }
    }

    /// Whether some part has ended, and those that are left have no messages: then the user starts again, with all of them.
    pub(super) fn may_start_again(&mut self) -> bool {
        self.take_reported();
        if self.ended.is_empty() || !self.users.is_draining.get() {
            return false;
        }
        let mut others = self.topic.parts().into_iter().filter(|part| !self.ended.contains(part));
        others.all(|part| {
            let stats = self.users.handle.stats(&part);
            stats
                .is_none_or(|stats| stats.subscriptions.get(&self.plan.name).is_none_or(|found| found.msg_backlog == 0))
        })
    }

    /// Checks that the consumer ends with its last part. A drain ends the others, and reports no end.
    pub(super) fn check_whole(&mut self, error: &Error) {
        self.take_reported();
        let parts = self.topic.parts();
        if error.kind() != ErrorKind::Closed && !self.work.is_drained.get() && self.ended.len() < parts.len() {
            let what = || format!("only {:?} of {parts:?}: {error}", self.ended);
            self.users.handle.report_violation("a consumer ends with its last part", what);
        }
    }
}

fn is_in_order(plan: &SubscriptionPlan) -> bool {
    matches!(plan.kind, SubscriptionType::Exclusive | SubscriptionType::Failover)
}

pub(crate) async fn first<T>(future: impl Future<Output = T>, other: impl Future<Output = ()>) -> Option<T> {
    let (mut future, mut other) = (pin!(future), pin!(other));
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => other.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Notes what the application has acknowledged, before it does so.
pub(super) fn note_acked(users: &Users, plan: &SubscriptionPlan, message: &ReceivedMessage, cumulative: bool) {
    let key = key(&message.id());
    let mut notes = users.notes.borrow_mut();
    let (acked, up_to) = notes.acked.entry((message.topic().to_owned(), plan.name.clone())).or_default();
    acked.insert(key);
    if cumulative {
        *up_to = (*up_to).max(Some(key));
    }
}

fn ack(users: &Users, plan: &SubscriptionPlan, consumer: &Consumer, message: &ReceivedMessage, work: &Work) {
    note_acked(users, plan, message, false);
    let result = consumer.ack(message);
    if result.is_ok() {
        work.acknowledged(plan, message);
    }
    users.handle.trace(|| format!("ack {}: {result:?}", message.id()));
}

async fn confirm(
    users: &Users,
    rng: &mut Rng,
    consumer: &Consumer,
    plan: &SubscriptionPlan,
    message: ReceivedMessage,
    held: &mut Vec<ReceivedMessage>,
) {
    let cumulative = plan.kind == SubscriptionType::Exclusive && rng.chance_per_mille(300);
    note_acked(users, plan, &message, cumulative);
    let acker = consumer.acker();
    let asked = async {
        if cumulative { acker.ack_cumulative_confirmed(&message).await } else { acker.ack_confirmed(&message).await }
    };
    let result = maybe(users, rng, asked).await;
    let id = message.id();
    users.handle.trace(|| format!("confirmed {id}: {result:?}"));
    if !matches!(result, Some(Ok(()))) {
        held.push(message);
        return;
    }
    // Without index acknowledgement the rest of its batch decides.
    if !plan.index_acks && id.batch_size().is_some_and(|size| size > 1) {
        return;
    }
    if users.handle.is_acknowledged(message.topic(), &plan.name, &id) != Some(true) {
        users.handle.report_violation("confirmed is acknowledged", || format!("{id} of {}", plan.name));
    }
    let at = users.handle.elapsed();
    let subscription = (message.topic().to_owned(), plan.name.clone());
    users.notes.borrow_mut().confirmed.entry(subscription).or_default().insert(key(&id), at);
}

pub(super) fn note_received(users: &Users, plan: &SubscriptionPlan, message: &ReceivedMessage) {
    let id = message.id();
    let text = message.to_string_lossy();
    users.handle.trace(|| format!("received {id} on {}: {}", plan.name, text.split('|').next().unwrap_or_default()));
    let subscription = (message.topic().to_owned(), plan.name.clone());
    let deliveries = users.handle.deliveries(message.topic(), &plan.name, &id);
    let mut notes = users.notes.borrow_mut();
    let times = notes.received.entry(subscription.clone()).or_default().entry(key(&id)).or_default();
    *times += 1;
    if *times > deliveries.len() {
        let (times, sent) = (*times, deliveries.len());
        users
            .handle
            .report_violation("received as often as delivered", || format!("{id}: {times} times, sent {sent} times"));
    }
    // What is retried waits for its delay in a topic of its own.
    if plan.kind == SubscriptionType::KeyShared && message.property("RECONSUMETIMES").is_none() {
        check_key_order(users, &mut notes, &subscription, &text, &id);
    }
    let confirmed = notes.confirmed.get(&subscription).and_then(|confirmed| confirmed.get(&key(&id)));
    if let Some(at) = confirmed {
        if deliveries.last().is_some_and(|sent| sent > at) {
            users.handle.report_violation("confirmed does not come back", || format!("{id} of {}", plan.name));
        }
    }
}

/// Checks that what a Key_Shared subscription is given for the first time is behind all of its key before it, whichever of its
/// consumers gets it. Not where nothing happens: messages are delayed there, and come when they are due; nor where all that is
/// not acknowledged is asked for again, because newer ones are on their way then; nor behind a damaged delivery, which may have
/// been the first of a message that was sent twice.
fn check_key_order(users: &Users, notes: &mut Notes, subscription: &(String, String), text: &str, id: &MessageId) {
    let mut fields = text.split('|');
    let (payload, of_key) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
    let Some((instance, _)) = payload.rsplit_once('.').filter(|_| !users.is_clean) else { return };
    if notes.mixed_up.contains(&subscription.1) {
        return;
    }
    let ByKey { all, last } = notes.by_key.entry(subscription.clone()).or_default();
    if !all.insert(payload.to_owned()) {
        return;
    }
    let before = last.insert((instance.to_owned(), of_key.to_owned()), payload.to_owned());
    let up_to = id.clone().with_first_chunk(&MessageId::new(0, 0));
    let was_damaged = || users.handle.delivery_was_corrupted(&subscription.0, &subscription.1, &up_to);
    if before.as_deref().is_some_and(|before| before > payload) && !was_damaged() {
        let what = || format!("{payload} of {of_key} after {before:?} on {}", subscription.1);
        users.handle.report_violation("a Key_Shared subscription gets a key in order", what);
    }
}
