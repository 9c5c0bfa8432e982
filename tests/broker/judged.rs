//! The inspector of captured traffic, beside the broker's own judge: what it sees on the wire is what the broker records.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pulsar_native::broker::Rule;
use pulsar_native::broker::machine::ConnId;
use pulsar_native::capture::{Direction, Segment, SegmentEvent};
use pulsar_native::rules::Side;
use pulsar_native::tap::{Inspector, InspectorConfig, Observation, ObservedEvent};

/// Everything that went over the connections of one broker.
pub(crate) struct Wire {
    inspector: Inspector,
    /// The number of each connection.
    numbers: BTreeMap<ConnId, u64>,
    seen: Vec<Observation>,
}

impl Wire {
    pub(crate) fn new() -> Self {
        let inspector = Inspector::new(InspectorConfig::default());
        Self { inspector, numbers: BTreeMap::new(), seen: Vec::new() }
    }

    pub(crate) fn push(&mut self, conn: ConnId, since_start: Duration, direction: Direction, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let at = SystemTime::UNIX_EPOCH + since_start;
        let next = self.numbers.len() as u64 + 1;
        let number = *self.numbers.entry(conn).or_insert(next);
        let mut inspect = |event| self.inspector.inspect(&Segment { connection: number, at, event }, &mut self.seen);
        if number == next {
            let address = "127.0.0.1:6650".parse().expect("an address");
            inspect(SegmentEvent::Opened { client: address, broker: address, is_partial: false });
        }
        inspect(SegmentEvent::Bytes { direction, bytes });
    }

    /// Compares what was broken since the last call with what the broker says, and holds the broker to its own rules.
    #[track_caller]
    pub(crate) fn compare(&mut self, broker: &[Rule]) {
        let mut ours = Vec::new();
        for seen in self.seen.drain(..) {
            let ObservedEvent::Violation(violation) = seen.event else { continue };
            assert_eq!(violation.by, Side::Client, "{violation}");
            ours.push(violation.rule);
        }
        for rule in Rule::ALL.iter().copied().filter(|rule| rule.broken_by() != Side::Broker) {
            let [seen, recorded] =
                [&ours[..], broker].map(|rules| rules.iter().filter(|found| **found == rule).count());
            match Self::visible(rule) {
                Visible::Always => assert_eq!(seen, recorded, "{rule}: on the wire {ours:?}, at the broker {broker:?}"),
                Visible::AtTimes => assert!(seen <= recorded, "{rule}: on the wire {ours:?}, at the broker {broker:?}"),
                Visible::IfAtAll => {
                    assert_eq!(seen > 0, recorded > 0, "{rule}: on the wire {ours:?}, at the broker {broker:?}");
                }
                Visible::Otherwise => {}
                Visible::Never => assert_eq!(seen, 0, "{rule}"),
                Visible::MoreOnTheWire => {
                    assert!(seen >= recorded, "{rule}: on the wire {ours:?}, at the broker {broker:?}")
                }
            }
        }
    }

    fn visible(rule: Rule) -> Visible {
        match rule {
            // What the broker knows from elsewhere, and what needs its clock.
            Rule::LookupMissing | Rule::MixedBatchOnKeyShared | Rule::PongMissing => Visible::Never,
            // The broker knows what it dispatched to whom, the wire what any consumer of the subscription was sent; random clients
            // acknowledge what is on its way.
            Rule::AckNotDelivered => Visible::Otherwise,
            // How often depends on what became of a SUBSCRIBE that waited for another consumer to leave.
            Rule::AfterClose => Visible::IfAtAll,
            // Told with the receipt, which not every test reads.
            Rule::SequenceNotGrowing => Visible::AtTimes,
            // A request for a consumer that is not there, and the version of a schema, end the connection.
            Rule::IncompleteRequest => Visible::AtTimes,
            // What older releases cannot read, and chunks where the broker deduplicates.
            Rule::UnreadableFrame => Visible::AtTimes,
            // The broker does not mind; of a consumer that waits for another one to leave, it does not look at FLOW.
            Rule::RequestIdReused | Rule::BeforeResponse => Visible::MoreOnTheWire,
            _ => Visible::Always,
        }
    }
}

/// Whether the breach of a rule shows on the wire.
enum Visible {
    Always,
    AtTimes,
    IfAtAll,
    Otherwise,
    Never,
    MoreOnTheWire,
}
