//! Commands and fields that a release does not know: it ignores such a field, as Protobuf does, and never sends it; a
//! command of an unknown type, or an unknown value of a field that has to be there, it cannot read.

use super::{Capability, PulsarVersion};
use crate::pb::schema::Type;
use crate::pb::{self, ProducerAccessMode};
use crate::wire::command::Command;

impl PulsarVersion {
    /// A command of a client as this release reads it: without what it does not know. False if it cannot be read.
    #[must_use]
    pub(in crate::broker) fn read(self, command: &mut Command) -> bool {
        match command {
            Command::Connect(connect) if !self.can(Capability::BrokerEntryMetadata) => {
                if let Some(flags) = &mut connect.feature_flags {
                    flags.supports_broker_entry_metadata = None;
                }
            }
            Command::Producer(producer) => return self.read_producer(producer),
            Command::Subscribe(subscribe) => return self.read_subscribe(subscribe),
            Command::GetOrCreateSchema(request) => return self.knows_type(&request.schema),
            Command::Ack(ack) if !self.can(Capability::AckReceipts) => ack.request_id = None,
            Command::RedeliverUnacknowledgedMessages(request) if !self.can(Capability::ConsumerEpoch) => {
                request.consumer_epoch = None;
            }
            Command::Unsubscribe(request) if !self.can(Capability::ForcedUnsubscribe) => request.force = None,
            Command::PartitionedMetadata(request) if !self.can(Capability::MetadataWithoutCreation) => {
                request.metadata_auto_creation_enabled = None;
            }
            Command::GetTopicsOfNamespace(request) if !self.can(Capability::TopicLists) => {
                (request.topics_pattern, request.topics_hash) = (None, None);
            }
            Command::WatchTopicList(_) | Command::WatchTopicListClose(_) => return self.can(Capability::TopicLists),
            Command::TcClientConnectRequest(_) => return self.can(Capability::CoordinatorConnect),
            _ => {}
        }
        true
    }

    fn read_producer(self, producer: &mut pb::CommandProducer) -> bool {
        let mode = producer.producer_access_mode.map(ProducerAccessMode::try_from);
        let knows_mode = match mode {
            Some(Ok(ProducerAccessMode::ExclusiveWithFencing)) => self.can(Capability::Fencing),
            Some(Ok(_)) => self.can(Capability::AccessModes),
            // The field may be absent: then an unknown value counts as that.
            Some(Err(_)) => false,
            None => true,
        };
        if !knows_mode {
            producer.producer_access_mode = None;
        }
        if !self.can(Capability::AccessModes) {
            producer.topic_epoch = None;
        }
        if !self.can(Capability::InitialSubscription) {
            producer.initial_subscription_name = None;
        }
        producer.schema.as_ref().is_none_or(|schema| self.knows_type(schema))
    }

    fn read_subscribe(self, subscribe: &mut pb::CommandSubscribe) -> bool {
        if !self.can(Capability::ConsumerEpoch) {
            subscribe.consumer_epoch = None;
        }
        if !self.can(Capability::SubscriptionProperties) {
            subscribe.subscription_properties.clear();
        }
        subscribe.schema.as_ref().is_none_or(|schema| self.knows_type(schema))
    }

    /// Whether it knows the type of a schema, which has to be there.
    fn knows_type(self, schema: &pb::Schema) -> bool {
        match Type::try_from(schema.r#type) {
            Ok(Type::AutoConsume) => self.can(Capability::AutoConsumeSchema),
            Ok(Type::Instant | Type::LocalDate | Type::LocalTime | Type::LocalDateTime | Type::ProtobufNative) => {
                self.can(Capability::InstantToProtobufSchemas)
            }
            Ok(known) => (known as i32) < Type::Instant as i32,
            Err(_) => false,
        }
    }

    /// A command of the broker as this release sends it.
    pub(in crate::broker) fn written(self, mut command: Command) -> Command {
        match &mut command {
            Command::ProducerSuccess(success) if !self.can(Capability::AccessModes) => {
                (success.topic_epoch, success.producer_ready) = (None, None);
            }
            Command::GetLastMessageIdResponse(response) if !self.can(Capability::MarkDeletePosition) => {
                response.consumer_mark_delete_position = None;
            }
            Command::GetTopicsOfNamespaceResponse(response) if !self.can(Capability::TopicLists) => {
                (response.filtered, response.topics_hash, response.changed) = (None, None, None);
            }
            Command::CloseProducer(close) if !self.can(Capability::AssignedBroker) => {
                (close.assigned_broker_service_url, close.assigned_broker_service_url_tls) = (None, None);
            }
            Command::CloseConsumer(close) if !self.can(Capability::AssignedBroker) => {
                (close.assigned_broker_service_url, close.assigned_broker_service_url_tls) = (None, None);
            }
            _ => {}
        }
        command
    }

    /// What CONNECTED says of the broker's features.
    pub(in crate::broker) fn feature_flags(self) -> Option<pb::FeatureFlags> {
        let flag = |capability| self.can(capability).then_some(true);
        self.can(Capability::FeatureFlags).then(|| pb::FeatureFlags {
            supports_topic_watchers: flag(Capability::TopicLists),
            supports_get_partitioned_metadata_without_auto_creation: flag(Capability::MetadataWithoutCreation),
            supports_repl_dedup_by_lid_and_eid: flag(Capability::ReplicatorDeduplication),
            ..Default::default()
        })
    }

    /// `server_version` of CONNECTED.
    pub(in crate::broker) fn server_version(self) -> String {
        let version = if self.can(Capability::VersionInServerVersion) { self.release_text() } else { String::new() };
        format!("Pulsar Server{version} (pulsar-native embedded)")
    }

    /// The release, as a broker says it of itself over HTTP.
    pub(in crate::broker) fn release_text(self) -> String {
        match self {
            // The one whose answers were recorded.
            Self::V4_0 => "4.0.8".to_owned(),
            _ => self.to_string(),
        }
    }
}
