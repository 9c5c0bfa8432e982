//! Every metric: its name, kind, unit and meaning. `docs/observability.md` has the same table.
//!
//! Those that the Java client has too (PIP-342 and its `InstrumentProvider`) carry its names, units and attributes.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric.
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    unit: Unit,
    text: &'static str,
}

macro_rules! metrics {
    ($($constant:ident $kind:ident $unit:ident $name:literal $text:literal;)*) => {
        $(pub(super) const $constant: &str = $name;)*

        pub(super) const ALL: &[Metric] =
            &[$(Metric { name: $name, kind: Kind::$kind, unit: Unit::$unit, text: $text }),*];
    };
}

metrics! {
    CONNECTION_OPENED Counter Count "pulsar.client.connection.opened" "Connections whose handshake was done";
    CONNECTION_CLOSED Counter Count "pulsar.client.connection.closed" "Connections that were open, and have ended";
    CONNECTION_FAILED Counter Count "pulsar.client.connection.failed" "Attempts to connect that have failed";
    LOOKUP_DURATION Histogram Seconds "pulsar.client.lookup.duration" "Lookups of topics, redirects included";

    MEMORY_USAGE Gauge Bytes "pulsar.client.memory.buffer.usage" "Bytes that pending messages have reserved";
    MEMORY_LIMIT Gauge Bytes "pulsar.client.memory.buffer.limit" "The most that they may reserve";

    PRODUCER_OPENED Counter Count "pulsar.client.producer.opened" "Producers that a broker has opened for the first time";
    PRODUCER_CLOSED Counter Count "pulsar.client.producer.closed" "Of those, the ones that have ended";
    PRODUCER_ACTIVE Gauge Count "pulsar.client.producer.active" "Producers that have not ended";
    PRODUCER_DETACHED Gauge Count "pulsar.client.producer.detached" "Of those, the ones that no broker has at the moment";
    PRODUCER_RECONNECTS Counter Count "pulsar.client.producer.reconnects" "Producers that were attached again";
    PRODUCER_ERRORS Counter Count "pulsar.client.producer.errors" "Failed attaches and failed messages";
    SEND_DURATION Histogram Seconds "pulsar.client.producer.message.send.duration"
        "From the acceptance of a message to its receipt";
    SEND_COUNT Counter Count "pulsar.client.producer.message.send.count" "Messages that the broker has confirmed";
    SEND_SIZE Counter Bytes "pulsar.client.producer.message.send.size" "Their bytes, before compression";
    SEND_ENTRIES Counter Count "pulsar.client.producer.entry.send.count" "Entries that the broker has confirmed";
    SEND_FAILED Counter Count "pulsar.client.producer.message.failed.count" "Accepted messages that have failed";
    PENDING_COUNT Gauge Count "pulsar.client.producer.message.pending.count" "Messages accepted and not confirmed";
    PENDING_SIZE Gauge Bytes "pulsar.client.producer.message.pending.size" "Their bytes";

    CONSUMER_OPENED Counter Count "pulsar.client.consumer.opened" "Consumers that a broker has opened for the first time";
    CONSUMER_CLOSED Counter Count "pulsar.client.consumer.closed" "Of those, the ones that have ended";
    CONSUMER_ACTIVE Gauge Count "pulsar.client.consumer.active" "Consumers that have not ended";
    CONSUMER_DETACHED Gauge Count "pulsar.client.consumer.detached" "Of those, the ones that no broker has at the moment";
    CONSUMER_RECONNECTS Counter Count "pulsar.client.consumer.reconnects" "Consumers that were attached again";
    CONSUMER_ERRORS Counter Count "pulsar.client.consumer.errors" "Failed attaches";
    RECEIVED_COUNT Counter Count "pulsar.client.consumer.message.received.count" "Messages delivered to this client";
    RECEIVED_SIZE Counter Bytes "pulsar.client.consumer.message.received.size" "Bytes of their entries, as stored";
    RECEIVED_ENTRIES Counter Count "pulsar.client.consumer.entry.received.count" "Entries delivered to this client";
    REDELIVERED Counter Count "pulsar.client.consumer.entry.redelivered.count" "Of those, the ones that were delivered before";
    DAMAGED Counter Count "pulsar.client.consumer.entry.damaged.count" "Of those, the ones that were damaged";
    ACKS Counter Count "pulsar.client.consumer.message.ack" "Acknowledgements of single messages";
    CUMULATIVE_ACKS Counter Count "pulsar.client.consumer.message.ack.cumulative" "Cumulative acknowledgements";
    NACKS Counter Count "pulsar.client.consumer.message.nack" "Negative acknowledgements";
    ACK_TIMEOUTS Counter Count "pulsar.client.consumer.message.ack.timeout" "Entries that were not acknowledged in time";
    DEAD_LETTERS Counter Count "pulsar.client.consumer.message.dlq" "Messages that were sent to a dead-letter topic";
    QUEUE_COUNT Gauge Count "pulsar.client.consumer.receive_queue.count" "Messages that wait for the application";
    PERMITS Gauge Count "pulsar.client.consumer.permits" "Messages that the broker may still send";
    PUBLISH_DURATION Histogram Seconds "pulsar.client.consumer.message.publish.duration"
        "From the publish time of a message to its arrival, sampled";
    PROCESS_DURATION Histogram Seconds "pulsar.client.consumer.message.process.duration"
        "From the hand-out of a message to its acknowledgement, sampled";
}

/// Tells the recorder what each metric is.
pub(super) fn describe() {
    for Metric { name, kind, unit, text } in ALL {
        match kind {
            Kind::Counter => describe_counter!(*name, *unit, *text),
            Kind::Gauge => describe_gauge!(*name, *unit, *text),
            Kind::Histogram => describe_histogram!(*name, *unit, *text),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_in_the_docs_is_this_one() {
        let text = include_str!("../../../../docs/observability.md");
        let table = text.lines().skip_while(|line| !line.starts_with("| metric |")).skip(2);
        let row = |line: &str| {
            let mut cells = line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).skip(1);
            Some((cells.next()?, cells.next()?, cells.next()?))
        };
        let documented: BTreeSet<_> = table.take_while(|line| line.starts_with('|')).filter_map(row).collect();
        let row = |metric: &Metric| {
            let unit = match metric.unit {
                Unit::Seconds => "s",
                Unit::Bytes => "By",
                _ => "1",
            };
            (metric.name.to_owned(), format!("{:?}", metric.kind).to_lowercase(), unit.to_owned())
        };
        assert_eq!(documented, ALL.iter().map(row).collect::<BTreeSet<_>>());
    }
}
