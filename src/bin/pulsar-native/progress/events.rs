//! What to tell of the events of a producer or consumer.

use pulsar_native::{ConsumerEvent, ProducerEvent};

/// The line for an event: ends and unreadable messages always, the others with `-v`.
pub(super) fn of_consumer(event: &ConsumerEvent, is_verbose: bool) -> Option<String> {
    Some(match event {
        ConsumerEvent::TopicEnded { topic, error, .. } => format!("{topic} has ended: {error}"),
        ConsumerEvent::Unreadable(message) => {
            format!("unreadable message {} of {}: {}", message.id(), message.topic(), message.reason())
        }
        _ if !is_verbose => return None,
        ConsumerEvent::ActiveChanged { topic, is_active: true, .. } => {
            format!("this consumer is the active one of {topic} now")
        }
        ConsumerEvent::ActiveChanged { topic, is_active: false, .. } => {
            format!("this consumer is not the active one of {topic} now")
        }
        ConsumerEvent::EndOfTopic { topic, .. } => format!("{topic} was terminated, and all of it is acknowledged"),
        ConsumerEvent::TopicAdded { topic, .. } => format!("{topic} has joined"),
        ConsumerEvent::TopicRemoved { topic, .. } => format!("{topic} is gone"),
        ConsumerEvent::TopicNotAdded { topic, error, .. } => format!("{topic} has not joined: {error}"),
        ConsumerEvent::Stalled { topic, quiet_for, reason, .. } => {
            format!("nothing came of {topic} for {} s although there is a backlog: {reason}", quiet_for.as_secs())
        }
        other => format!("{other:?}"),
    })
}

/// The same for a producer. That one without a broker has no receipts is no news.
pub(super) fn of_producer(event: &ProducerEvent, is_verbose: bool) -> Option<String> {
    Some(match event {
        ProducerEvent::TopicEnded { topic, error, .. } => format!("{topic} has ended: {error}"),
        ProducerEvent::SendOverdue { topic, waiting, state, .. } if state.is_attached() || is_verbose => {
            format!("a message to {topic} has no receipt after {} s, {state}", waiting.as_secs())
        }
        _ if !is_verbose => return None,
        ProducerEvent::PartitionAdded { topic, .. } => format!("{topic} has joined"),
        ProducerEvent::PartitionNotAdded { topic, error, .. } => format!("{topic} has not joined: {error}"),
        other => format!("{other:?}"),
    })
}
