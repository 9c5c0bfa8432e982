//! What a client asks on behalf of itself rather than of an endpoint: is there a broker, how many partitions are there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Supervisor, Timer};
use crate::error::{Error, RetryPolicy};
use crate::machine::connection::peer::PeerInfo;
use crate::machine::control::{ConnectionId, RequestToken};
use crate::machine::endpoint::outbox::Response;
use crate::machine::supervisor::attach::timed_out;
use crate::machine::supervisor::backoff::Backoff;
use crate::machine::supervisor::failure::Failure;
use crate::machine::supervisor::lookup::{partitions_command, read_partitions};
use crate::machine::supervisor::pool::User;
use crate::machine::{Deadline, Deferred, Now, ReplyTo};
use crate::splitmix::SplitMix64;

/// One question and who waits for its answer.
#[derive(Debug)]
pub(super) enum Question {
    /// Is there a broker that takes these credentials?
    Connect {
        /// Where the answer goes.
        reply: ReplyTo<PeerInfo>,
        /// Service hosts not dialed yet, the present one included.
        hosts_left: usize,
    },
    /// How many partitions has the topic?
    Partitions(Partitions),
}

/// ```text
/// Asking (waits for its turn, then for the answer) -- answered, refused for good --> over
///    ^  | refused for now, no answer, link lost                                       ^
///    |  v                                                                             |
/// BackingOff ------------------------------ out of time ------------------------------+
/// ```
#[derive(Debug)]
pub(super) struct Partitions {
    pub(super) topic: Arc<str>,
    pub(super) reply: ReplyTo<u32>,
    /// The question on its way.
    pub(super) ask: Option<RequestToken>,
    pub(super) last_error: Option<Error>,
    backoff: Backoff,
}

impl Partitions {
    pub(super) fn new(topic: Arc<str>, reply: ReplyTo<u32>, backoff: Backoff) -> Self {
        Self { topic, reply, ask: None, last_error: None, backoff }
    }

    /// When to ask again after a failure that may pass; an `Err` is the end.
    pub(super) fn on_failure(
        &mut self,
        failure: Failure,
        random: &mut SplitMix64,
        now: Now,
    ) -> Result<Option<Instant>, Error> {
        self.ask = None;
        if failure.is_final(false) {
            return Err(failure.error.with_topic(&self.topic));
        }
        self.last_error = Some(failure.error);
        Ok(now.at.checked_add(self.backoff.next(random)))
    }
}

impl Question {
    /// Answers with an error.
    pub(super) fn fail(self, error: Error, deferred: &mut Deferred) {
        match self {
            Self::Connect { reply, .. } => reply.answer(Err(error), deferred),
            Self::Partitions(question) => question.reply.answer(Err(error.with_topic(&question.topic)), deferred),
        }
    }

    /// Nobody waits for the answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Connect { reply, .. } => reply.is_abandoned(),
            Self::Partitions(question) => question.reply.is_abandoned(),
        }
    }
}

impl Supervisor {
    pub(super) fn connect(&mut self, reply: ReplyTo<PeerInfo>, now: Now, deferred: &mut Deferred) {
        let hosts_left = self.hosts.count();
        let patience = self.config.operation_timeout.saturating_mul(u32::try_from(hosts_left).unwrap_or(u32::MAX));
        self.question(Question::Connect { reply, hosts_left }, patience, now, deferred);
    }

    pub(super) fn partitions(&mut self, topic: Arc<str>, reply: ReplyTo<u32>, now: Now, deferred: &mut Deferred) {
        let question = Partitions::new(topic, reply, self.backoff());
        self.question(Question::Partitions(question), self.config.operation_timeout, now, deferred);
    }

    fn question(&mut self, question: Question, patience: Duration, now: Now, deferred: &mut Deferred) {
        if let Some(error) = self.closed() {
            question.fail(error, deferred);
            return;
        }
        self.next_question += 1;
        let number = self.next_question;
        self.questions.insert(number, question);
        self.timers.set(Timer::QuestionEnd(number), Deadline::after(now, patience, "question"));
        let key = self.hosts.key();
        self.brokers.join(&key, User::Question(number), now);
    }

    pub(super) fn question_turn(&mut self, link: ConnectionId, number: u64, now: Now, deferred: &mut Deferred) {
        let user = User::Question(number);
        let command = match self.questions.get(&number) {
            Some(Question::Partitions(question)) if !question.reply.is_abandoned() => {
                partitions_command(&question.topic)
            }
            _ => {
                let peer = self.brokers.peer(link).cloned();
                if let (Some(Question::Connect { reply, .. }), Some(peer)) = (self.forget_question(number, now), peer) {
                    reply.answer(Ok(peer), deferred);
                }
                return;
            }
        };
        let asked = self.ask(link, user, command);
        if let Some(Question::Partitions(question)) = self.questions.get_mut(&number) {
            question.ask = Some(asked);
        }
    }

    pub(super) fn on_partitions(
        &mut self,
        link: ConnectionId,
        number: u64,
        outcome: Response,
        now: Now,
        deferred: &mut Deferred,
    ) {
        let answer = read_partitions(outcome);
        self.judge(link, matches!(&answer, Err(failure) if failure.blames_link), now);
        match answer {
            Ok(partitions) => {
                if let Some(Question::Partitions(question)) = self.forget_question(number, now) {
                    question.reply.answer(Ok(partitions), deferred);
                }
            }
            Err(failure) => {
                let failure = self.at_link(link, failure);
                self.question_failed(number, failure, now, deferred);
            }
        }
    }

    pub(super) fn question_failed(&mut self, number: u64, failure: Failure, now: Now, deferred: &mut Deferred) {
        let user = User::Question(number);
        let is_abandoned = self.questions.get(&number).is_none_or(Question::is_abandoned);
        if is_abandoned {
            self.forget_question(number, now);
            return;
        }
        let end = match self.questions.get_mut(&number) {
            Some(Question::Connect { hosts_left, .. }) => {
                *hosts_left = hosts_left.saturating_sub(1);
                if *hosts_left > 0 && failure.retry_policy != RetryPolicy::Terminal {
                    let key = self.hosts.key();
                    self.brokers.join(&key, user, now);
                    return;
                }
                failure.error
            }
            Some(Question::Partitions(question)) => {
                if let Some(ask) = question.ask {
                    self.asks.remove(&ask);
                }
                match question.on_failure(failure, &mut self.random, now) {
                    Ok(at) => {
                        self.brokers.leave(user, now);
                        self.set_retry(user, at);
                        return;
                    }
                    Err(error) => error,
                }
            }
            None => return,
        };
        if let Some(question) = self.forget_question(number, now) {
            question.fail(end, deferred);
        }
    }

    pub(super) fn question_timed_out(&mut self, number: u64, now: Now, deferred: &mut Deferred) {
        let address = self.brokers.link_of(User::Question(number)).and_then(|link| self.brokers.address(link)).cloned();
        let Some(question) = self.forget_question(number, now) else { return };
        let error = match &question {
            Question::Connect { .. } => timed_out("the client did not connect in time", None, address.as_ref()),
            Question::Partitions(question) => timed_out(
                "the number of partitions was not learned in time",
                question.last_error.as_ref(),
                address.as_ref(),
            ),
        };
        question.fail(error, deferred);
    }

    pub(super) fn forget_question(&mut self, number: u64, now: Now) -> Option<Question> {
        let question = self.questions.remove(&number)?;
        if let Question::Partitions(Partitions { ask: Some(ask), .. }) = &question {
            self.asks.remove(ask);
        }
        self.timers.set(Timer::QuestionEnd(number), None);
        self.timers.set(Timer::Retry(User::Question(number)), None);
        self.brokers.leave(User::Question(number), now);
        Some(question)
    }
}
