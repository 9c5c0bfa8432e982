//! What has become of the messages of a topic, told for a person whose test failed.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::broker::machine::Broker;
use crate::broker::storage::Log;
use crate::broker::subscription::{EntryFate, Subscription};
use crate::broker::topics::Topic;

/// Entries of one subscription that are told of, the last ones.
const ENTRIES_TOLD: u64 = 20;

impl Broker {
    /// What has become of the messages of a topic, in lines for people; of a partitioned topic, of each partition. The
    /// wording may change.
    pub fn story(&self, topic: &str) -> String {
        let mut told = String::new();
        for name in self.topics.resolve(topic) {
            if let Some(found) = self.topics.get(&name) {
                self.tell_topic(&mut told, &name, found);
            }
        }
        if told.is_empty() {
            let known = self.topics.names();
            let _ = writeln!(told, "{topic} does not exist; there are {} topics: {}", known.len(), listed(known));
        }
        for violation in self.violations() {
            let _ = writeln!(told, "a client broke a rule: {violation}");
        }
        told
    }

    fn tell_topic(&self, told: &mut String, name: &str, topic: &Topic) {
        let _ = writeln!(
            told,
            "{name}: {} messages published, {} entries stored, {}, {}",
            topic.published.messages,
            topic.log.len(),
            match topic.producers.names().count() {
                0 => "no producer connected".to_owned(),
                _ => format!("producers {}", listed(topic.producers.names().map(ToString::to_string))),
            },
            if topic.is_terminated { "terminated" } else { "open" },
        );
        if topic.subscriptions.is_empty() {
            let _ = writeln!(told, "  no subscription");
        }
        for (name, sub) in &topic.subscriptions {
            self.tell_subscription(told, name, sub, &topic.log);
        }
    }

    fn tell_subscription(&self, told: &mut String, name: &Arc<str>, sub: &Subscription, log: &Log) {
        let _ = writeln!(
            told,
            "  subscription {name} ({}): {} messages not acknowledged, {} delivered, of these {} again",
            sub.sub_type().as_str_name(),
            sub.backlog_messages(log),
            sub.msg_out(),
            sub.redelivered(),
        );
        for consumer in &sub.consumers {
            let _ = writeln!(
                told,
                "    consumer {} on connection {}: {} permits, {} messages not acknowledged{}",
                consumer.name,
                consumer.key.conn,
                consumer.permits,
                consumer.unacked,
                if consumer.blocked_on_unacked { ", too many to get more" } else { "" },
            );
        }
        let first = log.end().saturating_sub(ENTRIES_TOLD).max(log.first());
        if first > log.first() {
            let _ = writeln!(told, "    {} entries before these", first - log.first());
        }
        for offset in first..log.end() {
            let Some(entry) = log.get(offset) else { continue };
            let position = entry.position;
            let _ = write!(told, "    {}:{}", position.ledger, position.entry);
            if let Some(members) = entry.info.batch {
                let _ = write!(told, ", {} of {members} messages left", sub.cursor.left(offset, members));
            }
            let _ = writeln!(told, ": {}", self.fate_in_words(&sub.fate(offset)));
        }
    }

    fn fate_in_words(&self, fate: &EntryFate) -> String {
        match fate {
            EntryFate::Acknowledged => "acknowledged".to_owned(),
            EntryFate::Held { consumer, again: false } => format!("sent to {consumer}"),
            EntryFate::Held { consumer, again: true } => format!("sent again, to {consumer}"),
            EntryFate::Delayed { due_ms } => {
                format!("delayed, due in {} ms", due_ms.saturating_sub(self.now.wall_ms))
            }
            EntryFate::Waiting { again: false } => "not sent yet".to_owned(),
            EntryFate::Waiting { again: true } => "to be sent again".to_owned(),
        }
    }
}

fn listed(names: impl IntoIterator<Item = String>) -> String {
    names.into_iter().take(ENTRIES_TOLD as usize).collect::<Vec<_>>().join(", ")
}
