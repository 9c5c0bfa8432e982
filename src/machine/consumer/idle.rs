//! Why nothing comes: what the consumer's own ledger and the broker's statistics say together.

use std::fmt;

use super::Consumer;
use super::config::SubscriptionType;
use super::position::EntryPosition;
use crate::error::Error;
use crate::id::MessagePosition;
use crate::machine::endpoint::attach_status::AttachState;
use crate::pb::CommandConsumerStatsResponse;

/// Why the application gets no message of one topic or partition.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum IdleReason {
    /// No broker has the consumer, or it has ended: the state says since when, why, and when the next attempt is made.
    NotAttached(AttachState),
    /// The application does not receive: messages wait here, or have used up what the broker may send.
    #[non_exhaustive]
    NotReceiving {
        /// Messages that wait in this client.
        queued_messages: u64,
    },
    /// The consumer is paused, and what the broker might still have sent has come.
    Paused,
    /// Failover: the broker gives the messages to another consumer, or has not chosen one yet.
    #[non_exhaustive]
    NotActive {
        /// The name of the active consumer, where the REST interface says it.
        active_consumer: Option<String>,
    },
    /// The broker has stopped delivering because too many messages are not acknowledged.
    #[non_exhaustive]
    BlockedOnUnacknowledged {
        /// Messages delivered to this consumer and not acknowledged.
        unacknowledged: u64,
        /// From how many on the broker stops (`maxUnackedMessagesOnConsumer`, or `...OnSubscription` if that is what was
        /// reached), where the REST interface says it.
        limit: Option<u64>,
    },
    /// Everything in the topic is acknowledged.
    NoBacklog,
    /// Everything is acknowledged, and the topic was terminated: nothing comes any more.
    EndOfTopic,
    /// Everything in the backlog was delivered to this consumer, and waits for its acknowledgement.
    #[non_exhaustive]
    AwaitingAcknowledgement {
        /// Entries that are not acknowledged.
        backlog: u64,
    },
    /// There is a backlog that the broker keeps back although this consumer could take it: messages are delayed, or lie
    /// with other consumers, or their keys do.
    #[non_exhaustive]
    Withheld {
        /// Entries that are not acknowledged.
        backlog: u64,
        /// Messages whose delivery time has not come, where the REST interface says it.
        delayed: Option<u64>,
        /// Messages that other consumers have and have not acknowledged, where the REST interface says it. On a
        /// Key_Shared subscription they hold back the messages behind them that have the same key.
        held_elsewhere: Option<u64>,
    },
    /// The broker did not say: it refused to tell, or did not answer.
    #[non_exhaustive]
    NoAnswer {
        /// Why.
        error: Error,
    },
}

impl fmt::Display for IdleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAttached(state) => write!(f, "{state}"),
            Self::NotReceiving { queued_messages } => {
                write!(f, "the application does not receive: {queued_messages} messages wait in this client")
            }
            Self::Paused => f.write_str("the consumer is paused"),
            Self::NotActive { active_consumer: None } => f.write_str("another consumer is the active one"),
            Self::NotActive { active_consumer: Some(name) } => {
                write!(f, "another consumer is the active one: {name:?}")
            }
            Self::BlockedOnUnacknowledged { unacknowledged, limit } => {
                write!(f, "blocked: {unacknowledged} messages are not acknowledged")?;
                match limit {
                    Some(limit) => write!(f, ", and the broker's limit is {limit}"),
                    None => f.write_str(", which reaches the broker's limit"),
                }
            }
            Self::NoBacklog => f.write_str("no backlog: everything is acknowledged"),
            Self::EndOfTopic => f.write_str("the topic was terminated, and everything in it is acknowledged"),
            Self::AwaitingAcknowledgement { backlog } => {
                write!(f, "all of the backlog ({backlog} entries) was delivered, and waits for acknowledgement")
            }
            Self::Withheld { backlog, delayed, held_elsewhere } => {
                write!(f, "the broker keeps back a backlog of {backlog} entries: ")?;
                match (delayed, held_elsewhere) {
                    (Some(delayed), Some(held)) => {
                        write!(f, "{delayed} messages are delayed, {held} lie with other consumers")
                    }
                    _ => f.write_str("they are delayed, or they or their keys lie with other consumers"),
                }
            }
            Self::NoAnswer { error } => write!(f, "the broker did not say why: {error}"),
        }
    }
}

/// What a consumer knows by itself, of one moment.
#[derive(Debug, Clone)]
pub(crate) struct IdleLedger {
    pub(crate) state: AttachState,
    pub(crate) queued_messages: u64,
    /// The broker may send something, or is about to be told that it may.
    pub(crate) has_permits: bool,
    pub(crate) is_paused: bool,
    pub(crate) subscription_type: SubscriptionType,
    pub(crate) is_active: Option<bool>,
    pub(crate) has_reached_end: bool,
    /// The newest entry that was delivered in the present attach.
    newest: Option<EntryPosition>,
}

/// What the REST interface adds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SubscriptionView {
    pub(crate) active_consumer: Option<String>,
    pub(crate) is_blocked: bool,
    pub(crate) delayed: u64,
    /// Of all consumers.
    pub(crate) unacknowledged: u64,
    /// The limit of unacknowledged messages that was reached.
    pub(crate) limit: Option<u64>,
}

impl IdleLedger {
    /// What is plain without the broker.
    ///
    /// | the consumer | reason |
    /// | --- | --- |
    /// | is not attached | `NotAttached` |
    /// | is paused, and has neither messages nor permits that the broker could use | `Paused` |
    /// | has messages, or no permits that the broker could use | `NotReceiving` |
    /// | is of a Failover subscription, and was not told that it is the active one | `NotActive` |
    pub(crate) fn reason(&self) -> Option<IdleReason> {
        if !self.state.is_attached() {
            return Some(IdleReason::NotAttached(self.state.clone()));
        }
        if self.is_paused && self.queued_messages == 0 && !self.has_permits {
            return Some(IdleReason::Paused);
        }
        if self.queued_messages > 0 || !self.has_permits {
            return Some(IdleReason::NotReceiving { queued_messages: self.queued_messages });
        }
        let is_failover = self.subscription_type == SubscriptionType::Failover;
        (is_failover && self.is_active != Some(true)).then_some(IdleReason::NotActive { active_consumer: None })
    }

    /// What the broker's statistics show, of a consumer that could take messages. The first case that applies:
    ///
    /// | the broker | reason |
    /// | --- | --- |
    /// | has blocked the consumer, or the subscription | `BlockedOnUnacknowledged` |
    /// | has no backlog | `EndOfTopic` or `NoBacklog` |
    /// | has delivered all of it to this consumer: its last entry was here, and nobody else has any | `AwaitingAcknowledgement` |
    /// | has any other backlog | `Withheld` |
    pub(crate) fn reason_by_broker(
        &self,
        stats: &CommandConsumerStatsResponse,
        last: Option<MessagePosition>,
        view: Option<&SubscriptionView>,
    ) -> IdleReason {
        let (backlog, unacknowledged) = (stats.msg_backlog(), stats.unacked_messages());
        if stats.blocked_consumer_on_unacked_msgs() || view.is_some_and(|view| view.is_blocked) {
            return IdleReason::BlockedOnUnacknowledged { unacknowledged, limit: view.and_then(|view| view.limit) };
        }
        if backlog == 0 {
            return if self.has_reached_end { IdleReason::EndOfTopic } else { IdleReason::NoBacklog };
        }
        let delayed = view.map(|view| view.delayed);
        let held_elsewhere = view.map(|view| view.unacknowledged.saturating_sub(unacknowledged));
        let has_seen_last =
            last.is_some_and(|last| self.newest.is_some_and(|newest| newest >= EntryPosition::of(&last)));
        let is_alone = self.subscription_type.is_in_order() || unacknowledged > 0;
        let is_held = delayed.unwrap_or(0) > 0 || held_elsewhere.unwrap_or(0) > 0;
        if has_seen_last && is_alone && !is_held {
            return IdleReason::AwaitingAcknowledgement { backlog };
        }
        IdleReason::Withheld { backlog, delayed, held_elsewhere }
    }
}

impl Consumer {
    /// What it knows by itself about why nothing comes.
    pub(crate) fn idle_ledger(&self) -> IdleLedger {
        IdleLedger {
            state: self.attach_status.state().clone(),
            queued_messages: self.queue.messages(),
            has_permits: self.queue.outstanding_permits() > 0 || (self.queue.is_flow_due() && !self.is_paused),
            is_paused: self.is_paused,
            subscription_type: self.config.subscription_type,
            is_active: self.topic_status.is_active,
            has_reached_end: self.topic_status.has_reached_end,
            newest: self.counters.newest(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn ledger(subscription_type: SubscriptionType) -> IdleLedger {
        IdleLedger {
            state: AttachState::Attached { broker: "b:1".into(), since: SystemTime::UNIX_EPOCH },
            queued_messages: 0,
            has_permits: true,
            is_paused: false,
            subscription_type,
            is_active: None,
            has_reached_end: false,
            newest: Some(EntryPosition { ledger_id: 1, entry_id: 5 }),
        }
    }

    fn at(entry_id: u64) -> MessagePosition {
        MessagePosition::new(1, entry_id)
    }

    fn stats(backlog: u64, unacked: u64) -> CommandConsumerStatsResponse {
        CommandConsumerStatsResponse {
            msg_backlog: Some(backlog),
            unacked_messages: Some(unacked),
            ..Default::default()
        }
    }

    #[test]
    fn the_ledger_alone() {
        let shared = ledger(SubscriptionType::Shared);
        assert_eq!(shared.reason(), None);
        let full = IdleLedger { queued_messages: 3, ..shared.clone() };
        assert_eq!(full.reason(), Some(IdleReason::NotReceiving { queued_messages: 3 }));
        let spent = IdleLedger { has_permits: false, ..shared.clone() };
        assert_eq!(spent.reason(), Some(IdleReason::NotReceiving { queued_messages: 0 }));
        let paused = IdleLedger { is_paused: true, ..spent };
        assert_eq!(paused.reason(), Some(IdleReason::Paused));
        let gone = AttachState::Finished { error: None };
        let ended = IdleLedger { state: gone.clone(), ..shared };
        assert_eq!(ended.reason(), Some(IdleReason::NotAttached(gone)));
        let failover = ledger(SubscriptionType::Failover);
        assert_eq!(failover.reason(), Some(IdleReason::NotActive { active_consumer: None }));
        assert_eq!(IdleLedger { is_active: Some(true), ..failover }.reason(), None);
    }

    #[test]
    fn with_the_brokers_statistics() {
        let (exclusive, shared) = (ledger(SubscriptionType::Exclusive), ledger(SubscriptionType::Shared));
        let ended = IdleLedger { has_reached_end: true, ..exclusive.clone() };
        let view = |delayed, unacknowledged| SubscriptionView { delayed, unacknowledged, ..Default::default() };
        let withheld = |delayed, held| IdleReason::Withheld { backlog: 4, delayed, held_elsewhere: held };
        let awaiting = IdleReason::AwaitingAcknowledgement { backlog: 4 };
        for (case, ledger, told, last, view, expected) in [
            ("nothing", &exclusive, stats(0, 0), Some(at(5)), None, IdleReason::NoBacklog),
            ("terminated", &ended, stats(0, 0), Some(at(5)), None, IdleReason::EndOfTopic),
            ("all here", &exclusive, stats(4, 0), Some(at(5)), None, awaiting.clone()),
            ("more in the topic", &exclusive, stats(4, 0), Some(at(6)), None, withheld(None, None)),
            ("all here, shared", &shared, stats(4, 4), Some(at(5)), None, awaiting.clone()),
            ("others have it", &shared, stats(4, 0), Some(at(5)), None, withheld(None, None)),
            ("others have some", &shared, stats(4, 1), Some(at(5)), Some(view(0, 3)), withheld(Some(0), Some(2))),
            ("delayed", &shared, stats(4, 0), Some(at(5)), Some(view(4, 0)), withheld(Some(4), Some(0))),
            ("all here, told so", &shared, stats(4, 4), Some(at(5)), Some(view(0, 4)), awaiting),
        ] {
            assert_eq!(ledger.reason_by_broker(&told, last, view.as_ref()), expected, "{case}");
        }
        let blocked = CommandConsumerStatsResponse { blocked_consumer_on_unacked_msgs: Some(true), ..stats(9, 7) };
        let reached = SubscriptionView { limit: Some(7), ..Default::default() };
        for (view, limit) in [(None, None), (Some(&reached), Some(7))] {
            let expected = IdleReason::BlockedOnUnacknowledged { unacknowledged: 7, limit };
            assert_eq!(shared.reason_by_broker(&blocked, None, view), expected);
        }
    }
}
