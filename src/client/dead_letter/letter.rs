//! The message that stands for another one on a retry or dead-letter topic, with the properties that Java writes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::message::ReceivedMessage;
use crate::topic::TopicName;

/// The topic that the message was first received from; of a partition, the partitioned topic.
const REAL_TOPIC: &str = "REAL_TOPIC";
/// The subscription that gave it up.
const REAL_SUBSCRIPTION: &str = "REAL_SUBSCRIPTION";
/// Its id there, as text. Under both names: the first is a slip of early releases that tools read to this day.
const ORIGIN_MESSAGE_IDS: [&str; 2] = ["ORIGIN_MESSAGE_IDY_TIME", "ORIGIN_MESSAGE_ID"];
/// How often it was sent to the retry topic.
const RECONSUME_TIMES: &str = "RECONSUMETIMES";
/// How long it was to wait the last time, in milliseconds.
const DELAY_TIME: &str = "DELAY_TIME";

/// Why the application gave it up, where it said so. Only this client writes it.
pub(super) const REASON: &str = "DEAD_LETTER_REASON";
/// Of a message that cannot be read: its serialized metadata, base64. Only this client writes it.
pub(super) const UNREADABLE_METADATA: &str = "UNREADABLE_METADATA";

/// The properties of a letter, sorted by name as Java sends them.
pub(super) type Properties = BTreeMap<String, String>;

/// Those of a dead letter: of the message, and where it comes from. What an earlier retry noted stays.
pub(super) fn origin(message: &ReceivedMessage, subscription: &str) -> Properties {
    let mut properties = Properties::new();
    for (key, value) in message.properties().filter(|_| !mutation!(LetterLosesProperties)) {
        properties.insert(key.to_owned(), value.to_owned());
    }
    let topic = TopicName::parse(message.topic()).map_or(message.topic().to_owned(), |name| name.base().to_string());
    // Java's text of an id has no topic.
    let id = message.id().to_string();
    let added = [(REAL_TOPIC, topic), (REAL_SUBSCRIPTION, subscription.to_owned())];
    let ids = ORIGIN_MESSAGE_IDS.map(|name| (name, id.clone()));
    for (name, value) in added.into_iter().chain(ids) {
        properties.entry(name.to_owned()).or_insert(value);
    }
    properties
}

/// Notes one more retry after `delay`, and returns how many there are with it.
pub(super) fn count_retry(properties: &mut Properties, delay: Duration) -> u32 {
    // What is not a number was not written by a client of Pulsar's: counting starts anew.
    let before = properties.get(RECONSUME_TIMES).and_then(|times| times.parse::<u32>().ok()).unwrap_or(0);
    let times = before.saturating_add(1);
    properties.insert(RECONSUME_TIMES.to_owned(), times.to_string());
    properties.insert(DELAY_TIME.to_owned(), delay.as_millis().to_string());
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_counted_on_from_what_is_there() {
        let mut properties = Properties::new();
        assert_eq!(count_retry(&mut properties, Duration::from_millis(1500)), 1);
        assert_eq!(count_retry(&mut properties, Duration::ZERO), 2);
        assert_eq!(properties.get(DELAY_TIME).map(String::as_str), Some("0"));
        for (text, times) in [("7", 8), ("x", 1), ("-3", 1), ("4294967295", u32::MAX)] {
            properties.insert(RECONSUME_TIMES.to_owned(), text.to_owned());
            assert_eq!(count_retry(&mut properties, Duration::ZERO), times, "{text}");
        }
    }
}
