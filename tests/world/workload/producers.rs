//! Users that send, in every way that is allowed.

use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::rc::{Rc, Weak};
use std::time::Duration;

use pulsar_native::hash::java_string_hash;
use pulsar_native::sim::Rng;
use pulsar_native::{
    BatchingType, Client, Compression, Error, ErrorKind, Message, MessageId, PendingSend, Producer, SendError,
    ServerCode, TryEnqueueError,
};

use super::overdue::OverdueChecker;
use super::plan::{ProducerPlan, TopicPlan};
use super::told::watch_handle;
use super::users::{Sent, Users, check_end, maybe};

/// A producer of a topic without partitions, for the checks between two steps.
pub(super) struct LiveProducer {
    /// What its payloads start with.
    prefix: String,
    producer: Weak<Producer>,
    /// The brokers have given it its name.
    is_name_generated: bool,
    /// Since when it is not attached.
    detached_since: Option<Duration>,
    /// Another producer has had its name from the first attempt after that on.
    is_name_taken: bool,
    /// Why it was not attached at the last check.
    failure: Option<Error>,
}

/// Payloads are short: single ones stay as they are, and batches are compressed.
const SMALLEST_COMPRESSED: usize = 100;

/// One of those that are built in, none among them; no choice of the world's.
fn codec_of(plan: &ProducerPlan) -> Compression {
    let built_in: Vec<_> = Compression::ALL.into_iter().filter(|codec| codec.is_built_in()).collect();
    built_in[plan.messages as usize % built_in.len()]
}

pub(super) async fn produce(users: Users, client: Client, topic: TopicPlan, plan: ProducerPlan, name: String) {
    let mut rng = users.handle.rng();
    let (mut instance, mut names) = (0, 0);
    // Whether the name is that of a producer that was dropped, and may not be closed yet.
    let mut takes_over = false;
    let mut number = 0;
    while number < plan.messages {
        let mut builder = client
            .producer(topic.name.as_str())
            .auto_update_partitions(false)
            .batching(plan.batching)
            .batching_type(if plan.batches_by_key { BatchingType::KeyBased } else { BatchingType::Default })
            .batching_max_publish_delay(plan.batching_max_publish_delay)
            .send_timeout(plan.send_timeout)
            .max_pending_messages(plan.pending_max)
            .stall_timeout(plan.stall_timeout)
            .compression(codec_of(&plan))
            .compress_min_msg_body_size(SMALLEST_COMPRESSED)
            .chunking(plan.chunk_bytes > 0)
            .chunk_max_message_size(plan.chunk_bytes);
        if let Some(name) = &plan.name {
            // A name is reused once its producer is known to be closed: before that, the sequence ids of two producers
            // overlap, and deduplication drops messages of one.
            builder = builder.name(format!("{name}-{names}"));
        }
        let producer = match maybe(&users, &mut rng, builder.create()).await {
            Some(Ok(producer)) => producer,
            Some(Err(error)) => {
                users.handle.trace(|| format!("producer {name}.{instance} was not created: {error}"));
                if takes_over && users.closes_are_quick && error.kind() == ErrorKind::Busy {
                    users
                        .handle
                        .report_violation("a name is waited for while its producer closes", || error.to_string());
                }
                takes_over = false;
                names += 1;
                users.handle.sleep(Duration::from_millis(300)).await;
                continue;
            }
            None => {
                names += 1;
                takes_over = false;
                continue;
            }
        };
        users.handle.trace(|| format!("producer {name}.{instance} is created"));
        let producer = Rc::new(producer);
        watch_producer(&users, &plan, format!("{name}.{instance}."), &producer, topic.partitions == 0);
        if topic.partitions == 0 {
            let (prefix, producer) = (format!("{name}.{instance}."), Rc::downgrade(&producer));
            let is_name_generated = plan.name.is_none();
            let live = LiveProducer {
                prefix,
                producer,
                is_name_generated,
                detached_since: None,
                is_name_taken: false,
                failure: None,
            };
            users.notes.borrow_mut().live.push(live);
        }
        let sender = Sender { users: &users, producer: &producer, topic: &topic, plan: &plan };
        let mut ended = BTreeSet::new();
        while number < plan.messages {
            let payload = format!("{name}.{instance}.{number:04}");
            number += 1;
            ended.extend(sender.send_one(&mut rng, payload).await);
            if ended.len() >= topic.parts().len() || rng.chance_per_mille(40) {
                break;
            }
        }
        names += 1;
        takes_over = users.reuses_names && rng.chance_per_mille(700);
        if takes_over {
            names -= 1;
        } else if rng.chance_per_mille(500) {
            let closed = maybe(&users, &mut rng, producer.close()).await;
            if matches!(closed, Some(Ok(()))) {
                names -= 1;
            }
            users.handle.trace(|| format!("producer {name}.{instance} is closed: {closed:?}"));
        }
        drop(producer);
        instance += 1;
    }
    users.notes.borrow_mut().producers_left -= 1;
}

fn watch_producer(users: &Users, plan: &ProducerPlan, prefix: String, producer: &Rc<Producer>, is_whole: bool) {
    let weak = Rc::downgrade(producer);
    let is_connected = move || weak.upgrade().map(|producer| producer.is_connected());
    watch_handle(users, format!("producer {prefix}"), plan.client, || producer.watch_state(), is_connected);
    let events = producer.events();
    let checker = OverdueChecker::new(prefix, Rc::downgrade(producer), events, plan.stall_timeout, is_whole);
    users.notes.borrow_mut().told.overdue.push(checker);
}

/// How one producer is used.
struct Sender<'a> {
    users: &'a Users,
    producer: &'a Producer,
    topic: &'a TopicPlan,
    plan: &'a ProducerPlan,
}

impl Sender<'_> {
    /// Sends one message in a random way. Returns the part that it was for if that has ended.
    async fn send_one(&self, rng: &mut Rng, payload: String) -> Option<String> {
        let (users, producer) = (self.users, self.producer);
        let padding = match rng.below(20) {
            0 => 20_000,
            1..=3 => rng.below(3000) as usize,
            _ => 0,
        };
        let key = format!("k{}", rng.below(5));
        let part = self.part_of(&key);
        let mut message = Message::new(format!("{payload}|{key}|{:padding$}", "")).with_key(key);
        if self.plan.delays && rng.chance_per_mille(100) {
            message = message.with_deliver_after(rng.duration(Duration::from_secs(5), Duration::from_secs(40)));
        }
        if self.plan.batches_by_key && rng.chance_per_mille(150) {
            message = message.with_batching(false);
        }
        let note = |sent: Sent| note_sent(users, &payload, sent);
        let refused = match rng.below(10) {
            0..=3 => match maybe(users, rng, producer.enqueue(message)).await {
                Some(Ok(pending)) => self.watch(&payload, pending),
                Some(Err(error)) => Some(error),
                // Dropped before it was accepted: not sent.
                None => {
                    note(Sent::Failed { may_be_stored: false });
                    None
                }
            },
            4..=5 => match maybe(users, rng, producer.send(message)).await {
                Some(Ok(id)) => {
                    note(Sent::Stored);
                    users.notes.borrow_mut().ids.insert(payload.clone(), id);
                    None
                }
                Some(Err(error)) => Some(error),
                None => {
                    note(Sent::Unknown);
                    None
                }
            },
            6..=7 => {
                note(Sent::Pending);
                let (callbacks, name) = (users.callbacks.clone(), payload.clone());
                let panics = rng.chance_per_mille(50);
                let callback = move |result| {
                    callbacks.lock().expect("not poisoned").push((name, result));
                    if panics {
                        // Without the panic hook, which would print it.
                        resume_unwind(Box::new("this panic is part of the test"));
                    }
                };
                match maybe(users, rng, producer.enqueue_with(message, callback)).await {
                    Some(Ok(())) => {
                        note_accepted(users, &payload);
                        None
                    }
                    Some(Err(error)) => Some(error),
                    None => {
                        note(Sent::Failed { may_be_stored: false });
                        None
                    }
                }
            }
            _ => match producer.try_enqueue(message) {
                Ok(pending) => self.watch(&payload, pending),
                Err(TryEnqueueError::Full { .. }) => {
                    note(Sent::Failed { may_be_stored: false });
                    None
                }
                Err(TryEnqueueError::Refused(error)) => Some(error),
                Err(other) => unreachable!("{other}"),
            },
        };
        if let Some(error) = &refused {
            note(failed(users, &payload, error));
        }
        if rng.chance_per_mille(100) {
            let flushed = maybe(users, rng, producer.flush()).await;
            users.handle.trace(|| format!("flush: {flushed:?}"));
        }
        if !self.plan.pace.is_zero() && !users.is_draining.get() {
            let pause = rng.duration(Duration::ZERO, self.plan.pace);
            users.handle.sleep(pause).await;
        }
        refused.filter(|error| self.has_ended(&part, error)).map(|_| part)
    }

    fn watch(&self, payload: &str, pending: PendingSend) -> Option<SendError> {
        note_sent(self.users, payload, Sent::Pending);
        note_accepted(self.users, payload);
        let (users, payload) = (self.users.clone(), payload.to_owned());
        self.users.handle.spawn(async move {
            let result = pending.await;
            settle(&users, &payload, &result);
        });
        None
    }

    /// The topic or partition that a message with this key goes to.
    fn part_of(&self, key: &str) -> String {
        let mut parts = self.topic.parts();
        let index = java_string_hash(key) as usize % parts.len();
        parts.swap_remove(index)
    }

    /// Whether the part that a message was for has ended, after this error of the send. A quota, and a generated name that
    /// was taken, fail what is pending and not the producer.
    fn has_ended(&self, part: &str, error: &SendError) -> bool {
        let kind = error.error().kind();
        let passing = [
            ErrorKind::TimedOut,
            ErrorKind::QueueFull,
            ErrorKind::MessageTooLarge,
            ErrorKind::BacklogQuotaExceeded,
            ErrorKind::Busy,
        ];
        if kind == ErrorKind::Busy && self.plan.name.is_some() {
            let what = || format!("{part}: {error}");
            self.users.handle.report_violation("a name that the application chose is kept", what);
        }
        // Sound bytes that were refused as damaged, twice: the message fails alone.
        let is_refused_alone = code_of(Some(error.error())) == Some(ServerCode::CHECKSUM_ERROR);
        let has_ended = !passing.contains(&kind) && !is_refused_alone;
        if has_ended && kind != ErrorKind::NotAllowed {
            check_end(self.users, part, error.error());
        }
        has_ended
    }
}

fn note_sent(users: &Users, payload: &str, sent: Sent) {
    users.handle.trace(|| format!("send {payload}: {sent:?}"));
    users.notes.borrow_mut().sends.insert(payload.to_owned(), sent);
}

fn note_accepted(users: &Users, payload: &str) {
    users.notes.borrow_mut().accepted.insert(payload.to_owned(), users.handle.elapsed());
}

pub(super) fn settle(users: &Users, payload: &str, result: &Result<MessageId, SendError>) {
    let sent = match result {
        Ok(id) => {
            users.notes.borrow_mut().ids.insert(payload.to_owned(), id.clone());
            Sent::Stored
        }
        Err(error) => failed(users, payload, error),
    };
    users.handle.trace(|| format!("settled {payload}: {sent:?}"));
    let before = users.notes.borrow_mut().sends.insert(payload.to_owned(), sent);
    if before != Some(Sent::Pending) {
        users.handle.report_violation("a send resolves once", || format!("{payload}: {sent:?} after {before:?}"));
    }
}

fn failed(users: &Users, payload: &str, error: &SendError) -> Sent {
    if error.error().kind() == ErrorKind::TimedOut {
        check_time_out(users, payload, error);
    }
    let code = error.error().server_error().map(|refused| refused.code);
    if error.error().kind() == ErrorKind::BacklogQuotaExceeded && code != Some(QUOTA_EXCEPTION) {
        users.handle.report_violation("a quota error holds what is pending", || error.to_string());
    }
    Sent::Failed { may_be_stored: error.may_be_stored() }
}

/// The first attempt after six seconds is made by then, where each one before was refused.
const NAME_KEPT_MAX: Duration = Duration::from_secs(15);

const QUOTA_EXCEPTION: ServerCode = ServerCode::PRODUCER_BLOCKED_QUOTA_EXCEEDED_EXCEPTION;

/// Checks that the time-out of a send says why its producer is not attached.
fn check_time_out(users: &Users, payload: &str, error: &SendError) {
    let notes = users.notes.borrow();
    let Some(live) = notes.live.iter().find(|live| payload.starts_with(&live.prefix)) else { return };
    let Some(producer) = live.producer.upgrade() else { return };
    // Both the failure before this moment and one that comes in it are right; none that it is attached by now.
    if let (Some(before), Some(now)) = (&live.failure, producer.connection_error()) {
        let text = error.to_string();
        if !text.contains(&before.to_string()) && !text.contains(&now.to_string()) {
            users.handle.report_violation("a time-out says why", || format!("{text}, and not: {now}"));
        }
    }
}

/// Checks the producers in use. To be called whenever no task is woken.
pub(super) fn check_live(users: &Users) {
    let mut live = std::mem::take(&mut users.notes.borrow_mut().live);
    live.retain_mut(|live| {
        let Some(producer) = live.producer.upgrade() else { return false };
        let failure = producer.connection_error();
        let before = std::mem::replace(&mut live.failure, failure);
        let quota = quota_exception(live.failure.as_ref());
        if quota.is_some() && quota != quota_exception(before.as_ref()) {
            check_none_is_held(users, live);
        }
        check_name(users, live);
        true
    });
    users.notes.borrow_mut().live = live;
}

/// Checks that a quota exception fails, at the moment when it comes, what had been accepted before.
fn check_none_is_held(users: &Users, live: &LiveProducer) {
    let (now, notes) = (users.handle.elapsed(), users.notes.borrow());
    let all = notes.sends.range(live.prefix.clone()..).take_while(|(name, _)| name.starts_with(&live.prefix));
    let is_held = |name: &String, sent: Sent| {
        sent == Sent::Pending && notes.accepted.get(name).is_some_and(|accepted| *accepted < now)
    };
    if let Some((name, _)) = all.into_iter().find(|(name, sent)| is_held(name, **sent)) {
        users.handle.report_violation("a quota exception fails what is pending", || name.clone());
    }
}

/// Checks that a generated name is given up soon after six seconds in which another producer had it.
fn check_name(users: &Users, live: &mut LiveProducer) {
    let now = users.handle.elapsed();
    if live.failure.is_none() {
        (live.detached_since, live.is_name_taken) = (None, true);
        return;
    }
    let since = *live.detached_since.get_or_insert(now);
    // The broker has closed it; the first attempt has not ended.
    let is_first = code_of(live.failure.as_ref()).is_none();
    let is_busy = code_of(live.failure.as_ref()) == Some(ServerCode::PRODUCER_BUSY);
    live.is_name_taken &= is_first || is_busy;
    let is_late = is_busy && live.is_name_taken && now - since > NAME_KEPT_MAX;
    let has_name =
        live.is_name_generated && live.producer.upgrade().is_some_and(|producer| !producer.name().is_empty());
    if is_late && has_name && users.has_refusals_only {
        users.handle.report_violation("a taken name is given up", || live.prefix.clone());
    }
}

/// The text of the quota exception that an attempt to attach failed with; that of a SEND_ERROR names no request.
fn quota_exception(failure: Option<&Error>) -> Option<&str> {
    let refused = failure?.server_error().filter(|refused| refused.code == QUOTA_EXCEPTION)?;
    Some(refused.message.as_str()).filter(|text| text.contains("request"))
}

fn code_of(error: Option<&Error>) -> Option<ServerCode> {
    error?.server_error().map(|refused| refused.code)
}
