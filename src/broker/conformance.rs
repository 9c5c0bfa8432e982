//! Records what a client did that the protocol does not allow, whether or not a real broker would notice.
//!
//! A violation changes no response. Tests assert that [`EmbeddedBroker::violations`](super::EmbeddedBroker::violations)
//! is empty after a scenario.

use std::fmt;
use std::sync::Arc;

use crate::broker::ids::ConnId;

/// Most violations that are kept; later ones are dropped.
const VIOLATIONS_MAX: usize = 1_000;

/// One rule broken by one client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConformanceViolation {
    /// The connection, numbered from 1 in order of arrival.
    pub connection: u64,
    /// The rule.
    pub rule: Rule,
    /// The name of the producer, where the rule is about the epochs or sequence ids of one.
    pub producer_name: Option<Arc<str>>,
    /// Ids and numbers, for people. Its wording may change.
    pub detail: String,
}

impl fmt::Display for ConformanceViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}: {:?}: {}", self.connection, self.rule, self.detail)
    }
}

/// The rules that are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A frame that cannot be read, an unknown command or an unknown enum value.
    UnreadableFrame,
    /// A command other than CONNECT, PING, PONG before CONNECTED, or a second CONNECT.
    Handshake,
    /// A command that only a broker sends.
    ServerOnlyCommand,
    /// A command of a protocol version above the negotiated one.
    AboveVersion,
    /// No frame at all for a keep-alive interval after a PING.
    PongMissing,
    /// PRODUCER or SUBSCRIBE for a topic that no client looked up since it was created.
    LookupMissing,
    /// `epoch` of PRODUCER did not grow with a further PRODUCER of the same producer.
    EpochNotGrowing,
    /// SEND for a producer that this connection does not have, or that waits or was fenced out.
    SendWithoutProducer,
    /// SEND or FLOW before the response to PRODUCER or SUBSCRIBE was written.
    BeforeResponse,
    /// A command for a producer or consumer id after the client's CLOSE of it; for a consumer, but for ACK, also after UNSUBSCRIBE.
    AfterClose,
    /// SEND for a producer that the broker closed longer ago than a keep-alive interval.
    AfterBrokerClose,
    /// A `sequence_id` that does not grow, on a frame that is not a byte-identical re-send, where there is no deduplication.
    SequenceNotGrowing,
    /// SEND and its `MessageMetadata` disagree about the sequence id, the producer or the number of messages.
    MetadataMismatch,
    /// A checksum that does not match.
    Checksum,
    /// ACK of an entry that was never delivered to this consumer.
    AckNotDelivered,
    /// A cumulative ACK on Shared or Key_Shared, or one without exactly one id.
    CumulativeAck,
    /// FLOW with 0 permits or with 2^31 and more.
    FlowPermits,
    /// A batch with messages of several keys, sent to a consumer of a Key_Shared subscription, which is the one that is
    /// named: it gets all of them by the key of the first. Its producer needs key-based batches, or none.
    MixedBatchOnKeyShared,
    /// A request that lacks what its command needs: SEEK without a target, AUTH_RESPONSE without data.
    IncompleteRequest,
}

/// What clients did wrong, in order.
#[derive(Debug, Default)]
pub(crate) struct Conformance {
    violations: Vec<ConformanceViolation>,
}

impl Conformance {
    pub(crate) fn record(&mut self, conn: ConnId, rule: Rule, detail: impl FnOnce() -> String) {
        self.push(conn, rule, None, detail);
    }

    /// Records a violation of a rule about the epochs or sequence ids of one producer.
    pub(crate) fn record_of_producer(
        &mut self,
        conn: ConnId,
        rule: Rule,
        producer: &str,
        detail: impl FnOnce() -> String,
    ) {
        self.push(conn, rule, Some(producer), || format!("{producer}: {}", detail()));
    }

    fn push(&mut self, conn: ConnId, rule: Rule, producer: Option<&str>, detail: impl FnOnce() -> String) {
        if self.violations.len() < VIOLATIONS_MAX {
            let producer_name = producer.map(Arc::from);
            self.violations.push(ConformanceViolation { connection: conn.0, rule, producer_name, detail: detail() });
        }
    }

    pub(crate) fn violations(&self) -> &[ConformanceViolation] {
        &self.violations
    }

    pub(crate) fn clear(&mut self) {
        self.violations.clear();
    }
}
