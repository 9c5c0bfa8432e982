//! Which release of Pulsar the broker plays, and what of the protocol that release does not have.
//!
//! The versions and fields were read from the jars of `pulsar-common` and `pulsar-broker` 2.6.4, 2.7.5, 2.8, 2.9.2, 2.10.4,
//! 2.11, 3.0.7, 3.3.2 and 4.0.8; only 4.0.8 was seen running. Commands and fields that a release has not are in
//! [`fields`]; the rest of the broker asks for a [`Capability`], never for the version.

mod fields;

use std::fmt;
use std::str::FromStr;

/// A release of Apache Pulsar, each in its last patch.
///
/// ```
/// use pulsar_native::broker::PulsarVersion;
///
/// assert_eq!("2.10".parse(), Ok(PulsarVersion::V2_10));
/// assert_eq!("2.10.4".parse(), Ok(PulsarVersion::V2_10));
/// let error = "1.22".parse::<PulsarVersion>().expect_err("older than any that is played");
/// assert!(error.to_string().contains("1.22"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum PulsarVersion {
    /// 2.6: protocol version 15.
    V2_6,
    /// 2.7: protocol version 15; confirms acknowledgements, although it does not say so.
    V2_7,
    /// 2.8: protocol version 17; exclusive producers.
    V2_8,
    /// 2.9: protocol version 19; broker entry metadata for consumers.
    V2_9,
    /// 2.10: protocol version 19; consumer epochs.
    V2_10,
    /// 2.11: protocol version 19, feature flags; topic list watchers, fencing by a new exclusive producer.
    V2_11,
    /// 3.0: protocol version 21; AUTO_CONSUME schemas, liveness checks.
    V3_0,
    /// 3.3: protocol version 21; the new owner in CLOSE_PRODUCER and CLOSE_CONSUMER, forced unsubscribe.
    V3_3,
    /// 4.0: protocol version 21.
    #[default]
    V4_0,
}

/// Version, name, highest protocol version.
const RELEASES: [(PulsarVersion, &str, i32); 9] = [
    (PulsarVersion::V2_6, "2.6", 15),
    (PulsarVersion::V2_7, "2.7", 15),
    (PulsarVersion::V2_8, "2.8", 17),
    (PulsarVersion::V2_9, "2.9", 19),
    (PulsarVersion::V2_10, "2.10", 19),
    (PulsarVersion::V2_11, "2.11", 19),
    (PulsarVersion::V3_0, "3.0", 21),
    (PulsarVersion::V3_3, "3.3", 21),
    (PulsarVersion::V4_0, "4.0", 21),
];

/// What a release can do and those before it cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capability {
    /// ACK with a `request_id` is answered by ACK_RESPONSE.
    AckReceipts,
    /// GET_LAST_MESSAGE_ID tells `consumer_mark_delete_position`.
    MarkDeletePosition,
    /// Schemas of the types from Instant to ProtobufNative.
    InstantToProtobufSchemas,
    /// `server_version` ends with the version.
    VersionInServerVersion,
    /// `producer_access_mode` of PRODUCER, its topic epoch, waiting for exclusivity.
    AccessModes,
    /// Clients get broker entry metadata, where the setting says so.
    BrokerEntryMetadata,
    /// TC_CLIENT_CONNECT_REQUEST.
    CoordinatorConnect,
    /// `initial_subscription_name` of PRODUCER.
    InitialSubscription,
    /// `consumer_epoch` of SUBSCRIBE, REDELIVER_UNACKNOWLEDGED_MESSAGES and MESSAGE.
    ConsumerEpoch,
    /// `subscription_properties` of SUBSCRIBE.
    SubscriptionProperties,
    /// Feature flags in CONNECTED.
    FeatureFlags,
    /// The commands of topic list watchers; pattern and hash of GET_TOPICS_OF_NAMESPACE.
    TopicLists,
    /// The access mode ExclusiveWithFencing.
    Fencing,
    /// The schema type AUTO_CONSUME.
    AutoConsumeSchema,
    /// `message_id` of SEND, for replicators.
    SendWithMessageId,
    /// `metadata_auto_creation_enabled` of PARTITIONED_METADATA, and its feature flag.
    MetadataWithoutCreation,
    /// A connection that holds a wanted name or subscription is asked whether it is alive.
    LivenessCheck,
    /// The new owner's address in CLOSE_PRODUCER and CLOSE_CONSUMER.
    AssignedBroker,
    /// `force` of UNSUBSCRIBE.
    ForcedUnsubscribe,
    /// The feature flag of replicators' deduplication.
    ReplicatorDeduplication,
    /// `listenerName` of a lookup over HTTP.
    HttpListenerName,
    /// On Key_Shared, messages without a key are spread over the consumers; before they all have one key.
    KeylessAreSpread,
}

impl Capability {
    /// The first release that has it.
    const fn since(self) -> PulsarVersion {
        match self {
            Self::AckReceipts | Self::MarkDeletePosition | Self::InstantToProtobufSchemas => PulsarVersion::V2_7,
            Self::VersionInServerVersion | Self::AccessModes | Self::HttpListenerName => PulsarVersion::V2_8,
            Self::BrokerEntryMetadata | Self::CoordinatorConnect => PulsarVersion::V2_9,
            Self::InitialSubscription | Self::ConsumerEpoch | Self::SubscriptionProperties => PulsarVersion::V2_10,
            Self::FeatureFlags | Self::TopicLists | Self::Fencing => PulsarVersion::V2_11,
            Self::AutoConsumeSchema | Self::SendWithMessageId | Self::MetadataWithoutCreation | Self::LivenessCheck => {
                PulsarVersion::V3_0
            }
            Self::AssignedBroker | Self::ForcedUnsubscribe => PulsarVersion::V3_3,
            Self::ReplicatorDeduplication | Self::KeylessAreSpread => PulsarVersion::V4_0,
        }
    }
}

impl PulsarVersion {
    /// Every version that is played, oldest first.
    pub fn all() -> impl Iterator<Item = Self> {
        RELEASES.into_iter().map(|(version, ..)| version)
    }

    /// The highest version of the binary protocol that it speaks.
    #[must_use]
    pub fn protocol_version(self) -> i32 {
        self.release().2
    }

    pub(in crate::broker) fn can(self, capability: Capability) -> bool {
        self >= capability.since()
    }

    fn release(self) -> &'static (Self, &'static str, i32) {
        let found = RELEASES.iter().find(|(version, ..)| *version == self);
        found.unwrap_or(&RELEASES[RELEASES.len() - 1])
    }
}

impl fmt::Display for PulsarVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.release().1)
    }
}

/// The text names no version that is played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPulsarVersion(String);

impl fmt::Display for UnknownPulsarVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = RELEASES.iter().map(|(_, name, _)| *name).collect();
        write!(f, "`{}` is not a version of Pulsar that is played: {}", self.0, names.join(", "))
    }
}

impl std::error::Error for UnknownPulsarVersion {}

/// `2.10`, or with any patch: `2.10.4`.
impl FromStr for PulsarVersion {
    type Err = UnknownPulsarVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |name: &str| match text.strip_prefix(name) {
            Some("") => true,
            Some(patch) => patch.strip_prefix('.').is_some_and(|patch| patch.parse::<u16>().is_ok()),
            None => false,
        };
        let found = RELEASES.iter().find(|(_, name, _)| fits(name)).map(|(version, ..)| *version);
        found.ok_or_else(|| UnknownPulsarVersion(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_shown_and_others_refused_by_name() {
        for version in PulsarVersion::all() {
            assert_eq!(version.to_string().parse(), Ok(version));
            assert_eq!(format!("{version}.7").parse(), Ok(version));
        }
        for text in ["", "2", "2.1", "2.12", "2.100", "2.10.", "2.10.x", "v2.10", "3.0.7-rc", "5.0"] {
            let error = text.parse::<PulsarVersion>().expect_err(text);
            assert!(error.to_string().starts_with(&format!("`{text}` is not")), "{error}");
        }
    }

    #[test]
    fn releases_stand_in_order_and_the_default_is_the_one_that_was_seen() {
        assert!(RELEASES.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].2 <= pair[1].2));
        assert_eq!(PulsarVersion::default().to_string(), "4.0");
    }
}
