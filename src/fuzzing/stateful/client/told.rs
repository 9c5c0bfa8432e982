//! What endpoints and the client say of themselves: counts that can be added up, and texts of one line.

use std::task::Waker;

use super::*;
use crate::machine::Endpoint;
use crate::machine::consumer::{Consumer, ConsumerStats};
use crate::machine::endpoint::attach_status::AttachState;
use crate::machine::endpoint::machine::EndpointMachine;
use crate::machine::producer::{Producer, ProducerStats};
use crate::machine::topic_list::{TopicListWatcher, TopicNews};

/// A line for a log.
pub(super) fn check_line(shown: &dyn std::fmt::Display) {
    let text = shown.to_string();
    assert!(!text.is_empty() && !text.contains('\n'), "one line: {text:?}");
}

fn check_endpoint<M: EndpointMachine>(endpoint: &Endpoint<M>) {
    check_line(&endpoint.id());
    check_line(&format!("{endpoint:?}"));
    endpoint.with(|machine: &mut M| {
        check_state(machine.attach_status().state());
        let _ = (machine.stats(), machine.subscription().map(str::len));
    });
}

fn check_state(state: &AttachState) {
    check_line(state);
    assert!(!(state.is_attached() && state.is_finished()));
}

pub(super) fn check_producer(endpoint: &Endpoint<Producer>, now: crate::machine::Now) {
    check_endpoint(endpoint);
    let (stats, oldest, shown) =
        endpoint.with(|producer| (producer.stats(), producer.oldest_pending(now), format!("{producer:?}")));
    check_line(&shown);
    assert!(oldest.is_none() || stats.pending_messages > 0);
    let settled = stats.confirmed_messages + stats.failed_messages;
    assert_eq!(settled + stats.pending_messages as u64, stats.accepted_messages, "each is one of the three");
    let mut twice = stats.clone();
    twice.merge(&stats);
    assert_eq!(twice.since(&stats).accepted_messages, stats.accepted_messages, "what was added can be taken off");
    assert_eq!(stats.since(&ProducerStats::default()).confirmed_messages, stats.confirmed_messages);
}

pub(super) fn check_consumer(endpoint: &Endpoint<Consumer>, choices: &mut Choices<'_>) {
    check_endpoint(endpoint);
    let (stats, ledger, reading) =
        endpoint.with(|consumer| (consumer.stats(), consumer.idle_ledger(), consumer.reading()));
    assert!(stats.received_messages >= stats.queued_messages, "{stats:?}");
    let mut twice = stats.clone();
    twice.merge(&stats);
    assert_eq!(twice.since(&stats).received_messages, stats.received_messages, "what was added can be taken off");
    assert_eq!(stats.since(&ConsumerStats::default()).acknowledged_messages, stats.acknowledged_messages);
    let _ = reading.map(|reading| format!("{reading:?}"));
    if let Some(reason) = ledger.reason() {
        return check_line(&reason);
    }
    let told = crate::pb::CommandConsumerStatsResponse {
        msg_backlog: Some(choices.below(3) as u64),
        unacked_messages: Some(choices.below(3) as u64),
        blocked_consumer_on_unacked_msgs: Some(choices.below(4) == 3),
        ..Default::default()
    };
    let last = choices.flag().then(|| crate::id::MessagePosition::new(choices.number(), choices.number()));
    let view = choices.flag().then(|| crate::machine::consumer::SubscriptionView {
        active_consumer: None,
        is_blocked: choices.below(4) == 3,
        delayed: choices.below(3) as u64,
        unacknowledged: choices.below(5) as u64,
        limit: choices.flag().then_some(7),
    });
    check_line(&ledger.reason_by_broker(&told, last, view.as_ref()));
}

/// A watcher: changes are told once, and each topic once among them.
pub(super) fn check_watcher(endpoint: &Endpoint<TopicListWatcher>, network: &mut Network) {
    check_endpoint(endpoint);
    let is_ready = endpoint.with_deferred(network.deferred(), |watcher, deferred| {
        watcher.poll_changed(Waker::noop(), deferred).is_ready()
    });
    let (news, again) = endpoint.with(|watcher| (watcher.take_news(), watcher.take_news()));
    match news {
        Ok(news) => {
            let names: std::collections::BTreeSet<_> = news.changes.iter().map(|(topic, _)| topic).collect();
            assert_eq!(names.len(), news.changes.len());
            assert!(again.map_or(true, |again| again == TopicNews::default()), "told once");
        }
        Err(error) => {
            assert!(is_ready, "an end is news");
            check_line(&error);
        }
    }
}
