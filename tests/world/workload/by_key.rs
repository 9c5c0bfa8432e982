//! A user that works on messages by key: some of the work fails, panics or is tried again, and that on one key may be stuck.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::resume_unwind;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use pulsar_native::sim::Rng;
use pulsar_native::{Acker, Consumer, Error, Outcome, ReceivedMessage};
use tokio::sync::{mpsc, oneshot};

use super::consumers::{Ends, close, note_acked, note_received};
use super::drains::Work;
use super::plan::{SubscriptionPlan, TopicPlan};
use super::users::{Key, Users, key};

/// How the work on one message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WorkEnd {
    Ack,
    Nack,
    Panic,
    Retry(Duration),
}

/// The work on one message, on its way from the pool to the user. How it ends is decided there.
struct Job {
    message: ReceivedMessage,
    end: oneshot::Sender<WorkEnd>,
}

/// What is known of one pool of workers.
#[derive(Default)]
struct PoolState {
    /// Keys of which a message is worked on.
    running: BTreeSet<String>,
    /// The message of each key that is to be tried again.
    retried: BTreeMap<String, (String, Key)>,
    /// The last message of each part and key that was worked on for the first time.
    last: BTreeMap<(String, String), Key>,
    worked: BTreeSet<(String, Key)>,
}

/// A key of a subscription on which all work is stuck until [`Users::may_unstick`] is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StuckKey {
    /// The name of the topic, as it was subscribed to.
    pub(super) topic: String,
    pub(super) subscription: String,
    pub(super) key: String,
}

/// Works until the consumer or the run ends, or for some time.
pub(super) async fn work_by_key(
    users: &Users,
    rng: &mut Rng,
    mut consumer: Consumer,
    topic: &TopicPlan,
    plan: &SubscriptionPlan,
) {
    let concurrency = rng.range_inclusive(1, 4) as usize;
    let may_be_stuck = concurrency > 1 && plan.consumers.len() == 1 && !users.is_draining.get();
    let stuck = (may_be_stuck && rng.chance_per_mille(500)).then(|| StuckKey {
        topic: topic.name.clone(),
        subscription: plan.name.clone(),
        key: format!("k{}", rng.below(5)),
    });
    users.notes.borrow_mut().stuck.extend(stuck.clone());
    users.handle.trace(|| format!("{concurrency} workers by key on {}, stuck: {stuck:?}", plan.name));
    let until = match rng.chance_per_mille(300) {
        true => users.handle.elapsed() + rng.duration(Duration::ZERO, Duration::from_secs(10)),
        false => Duration::MAX,
    };
    let mut ends = Ends::new(users, topic, plan, &consumer);
    let drained = (consumer.acker(), ends.work.clone());
    let pool = WatchedPool { users, plan, stuck: stuck.as_ref(), until, drained, state: Rc::default() };
    let ended = pool.run(rng, &mut consumer, concurrency, &mut ends).await;
    users.notes.borrow_mut().stuck.retain(|other| Some(other) != stuck.as_ref());
    match ended {
        Some(error) => {
            users.handle.trace(|| format!("workers by key on {} have ended: {error}", plan.name));
            ends.check_whole(&error);
            users.handle.sleep(Duration::from_millis(100)).await;
        }
        None => close(users, rng, &consumer, plan, &[]).await,
    }
}

/// One pool of workers, and whose it is.
struct WatchedPool<'a> {
    users: &'a Users,
    plan: &'a SubscriptionPlan,
    stuck: Option<&'a StuckKey>,
    /// The user stops then.
    until: Duration,
    drained: (Acker, Rc<Work>),
    state: Rc<RefCell<PoolState>>,
}

impl WatchedPool<'_> {
    /// Runs it until the consumer ends, which gives the error, or the user stops.
    async fn run(
        &self,
        rng: &mut Rng,
        consumer: &mut Consumer,
        concurrency: usize,
        ends: &mut Ends<'_>,
    ) -> Option<Error> {
        let (jobs, mut taken) = mpsc::unbounded_channel();
        let mut working = pin!(consumer.process_by_key(concurrency, move |message| work(jobs.clone(), message)));
        loop {
            let mut pause = pin!(self.users.handle.sleep(Duration::from_millis(700)));
            let step = std::future::poll_fn(|cx| {
                if let Poll::Ready(Some(job)) = taken.poll_recv(cx) {
                    return Poll::Ready(Step::Job(job));
                }
                if let Poll::Ready(result) = working.as_mut().poll(cx) {
                    return Poll::Ready(Step::Ended(result));
                }
                pause.as_mut().poll(cx).map(|()| Step::Pause)
            });
            match step.await {
                Step::Job(job) => self.begin(rng, job),
                Step::Ended(result) => return result.err(),
                Step::Pause => {}
            }
            let (acker, work) = &self.drained;
            if self.stops(ends) {
                work.is_aborted.set(true);
                return None;
            }
            work.may_drain((self.users, rng), (acker, self.plan), self.stuck.is_none());
        }
    }

    fn stops(&self, ends: &mut Ends<'_>) -> bool {
        let is_draining = self.users.is_draining.get();
        let is_late = !is_draining && self.users.handle.elapsed() >= self.until;
        // A stuck key waits for all messages of the others: also for those of a part that has ended.
        let waits_for_ended = is_draining && self.stuck.is_some() && ends.has_ended();
        self.users.is_over.get() || is_late || waits_for_ended || ends.may_start_again()
    }

    /// Checks and begins the work on one message.
    fn begin(&self, rng: &mut Rng, job: Job) {
        let of_key = job.message.key().expect("each message has a key").to_owned();
        if !self.check_begin(&job.message, &of_key) {
            note_received(self.users, self.plan, &job.message);
        }
        let is_draining = self.users.is_draining.get();
        let end = match rng.below(10) {
            0 if !is_draining => WorkEnd::Nack,
            1 if !is_draining => WorkEnd::Panic,
            2 if !is_draining => WorkEnd::Retry(rng.duration(Duration::ZERO, Duration::from_secs(2))),
            _ => WorkEnd::Ack,
        };
        let takes = match rng.chance_per_mille(500) {
            true => Duration::ZERO,
            false => rng.duration(Duration::ZERO, Duration::from_secs(1)),
        };
        let is_stuck = self.stuck.is_some_and(|stuck| stuck.key == of_key);
        let (users, state, plan) = (self.users.clone(), self.state.clone(), self.plan.clone());
        let work = self.drained.1.clone();
        work.running.set(work.running.get() + 1);
        self.users.handle.spawn(async move {
            users.handle.sleep(takes).await;
            let may_end = || users.may_unstick.get() || users.is_over.get() || work.is_over.get();
            while is_stuck && !may_end() && !job.end.is_closed() {
                users.handle.sleep(Duration::from_millis(300)).await;
            }
            users.handle.trace(|| format!("work on {} of {of_key} ends: {end:?}", job.message.id()));
            if end == WorkEnd::Ack {
                note_acked(&users, &plan, &job.message, false);
                work.acknowledged(&plan, &job.message);
            }
            work.running.set(work.running.get() - 1);
            let mut state = state.borrow_mut();
            if let WorkEnd::Retry(_) = end {
                state.retried.insert(of_key.clone(), (job.message.topic().to_owned(), key(&job.message.id())));
            }
            state.running.remove(&of_key);
            let _pool_is_gone = job.end.send(end);
        });
    }

    /// Checks that no other message of its key is worked on, and that it is the next one of its key, unless it comes again.
    /// Says whether it is tried again in place.
    fn check_begin(&self, message: &ReceivedMessage, of_key: &str) -> bool {
        let (part, id) = (message.topic().to_owned(), key(&message.id()));
        let mut state = self.state.borrow_mut();
        let retried = state.retried.remove(of_key);
        if let Some(retried) = &retried {
            if *retried != (part.clone(), id) {
                let what = || format!("{id:?} of {of_key} in {part} before {retried:?}");
                self.users.handle.report_violation("a key waits for what is tried again", what);
            }
        }
        if !state.running.insert(of_key.to_owned()) {
            self.users.handle.report_violation("one message of a key at a time", || format!("{id:?} of {of_key}"));
        }
        // After a damaged delivery it comes again, behind others.
        let was_damaged = self.users.handle.delivery_was_corrupted(&part, &self.plan.name, &message.id());
        if state.worked.insert((part.clone(), id)) && !was_damaged {
            let last = state.last.insert((part.clone(), of_key.to_owned()), id);
            if last.is_some_and(|last| last > id) {
                let what = || format!("{id:?} of {of_key} in {part} after {last:?}");
                self.users.handle.report_violation("a key in the order of delivery", what);
            }
        }
        retried.is_some()
    }
}

enum Step {
    Job(Job),
    Ended(Result<(), Error>),
    Pause,
}

/// The work: the user does it.
async fn work(jobs: mpsc::UnboundedSender<Job>, message: ReceivedMessage) -> Outcome {
    let (end, ended) = oneshot::channel();
    let _pool_is_gone = jobs.send(Job { message, end });
    match ended.await {
        Ok(WorkEnd::Ack) => Outcome::Ack,
        Ok(WorkEnd::Nack) => Outcome::Nack,
        Ok(WorkEnd::Retry(after)) => Outcome::Retry(after),
        // Without the panic hook, which would print it.
        Ok(WorkEnd::Panic) => resume_unwind(Box::new("this panic is part of the test")),
        Err(_) => Outcome::Keep,
    }
}
