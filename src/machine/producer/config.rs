//! The options of a producer, with their defaults.

use std::time::Duration;

use super::encrypt::Encryption;
use crate::error::{Error, ErrorKind, Result};
use crate::pb;
use crate::schema::SchemaInfo;
use crate::wire::compress::Compression;
use crate::wire::hot::BATCH_MEMBERS_MAX;
use crate::wire::{MAX_UNCOMPRESSED_SIZE_DEFAULT, MAX_UNCOMPRESSED_SIZE_MAX};

/// Who else may produce to the topic: `ProducerAccessMode` of PulsarApi.proto. Pulsar knows it since 2.8, the last one since
/// 2.11; an older broker would open a shared producer, so creation fails with [`ErrorKind::Unsupported`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum AccessMode {
    /// Others may as well.
    #[default]
    Shared,
    /// Nobody else; creation fails with [`ErrorKind::Fenced`] if the topic has a producer.
    Exclusive,
    /// Nobody else; creation waits, without a time limit, until the others are gone.
    WaitForExclusive,
    /// Nobody else; the others are cut off.
    ExclusiveWithFencing,
}

impl AccessMode {
    pub(super) fn to_wire(self) -> pb::ProducerAccessMode {
        match self {
            Self::Shared => pb::ProducerAccessMode::Shared,
            Self::Exclusive => pb::ProducerAccessMode::Exclusive,
            Self::WaitForExclusive => pb::ProducerAccessMode::WaitForExclusive,
            Self::ExclusiveWithFencing => pb::ProducerAccessMode::ExclusiveWithFencing,
        }
    }
}

/// Which messages share a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
#[doc(alias = "BatcherBuilder")]
pub enum BatchingType {
    /// All, in the order of the calls.
    #[default]
    Default,
    /// Those of one key: of one ordering key (`ordering_key`), or, without one, of one key (`partition_key`). Those without
    /// any share one. A Key_Shared subscription gets a batch as a whole, by its key, so each message gets to the consumer
    /// of its key.
    #[doc(alias = "KEY_BASED")]
    KeyBased,
}

/// The options of a producer, as its machine needs them. The meaning, unit and default of each are documented
/// at its method of [`ProducerBuilder`](crate::ProducerBuilder).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the builder documents each of them")]
pub struct ProducerConfig {
    pub name: Option<String>,
    /// A broker has generated `name`, for the first partition of the topic.
    pub is_name_generated: bool,
    pub properties: Vec<(String, String)>,
    pub access_mode: AccessMode,
    pub batching: bool,
    pub batching_type: BatchingType,
    pub batching_max_messages: u32,
    pub batching_max_bytes: usize,
    pub batching_max_publish_delay: Duration,
    /// What payloads are encrypted with.
    pub encryption: Option<Encryption>,
    pub compression: Compression,
    pub compression_level: Option<i32>,
    pub compress_min_msg_body_size: usize,
    pub max_uncompressed_size: usize,
    pub chunking: bool,
    /// 0: as large as the broker takes them.
    pub chunk_max_message_size: u32,
    pub send_timeout: Duration,
    pub max_pending_messages: usize,
    pub max_pending_bytes: usize,
    pub initial_sequence_id: Option<u64>,
    pub schema: Option<SchemaInfo>,
    pub initial_subscription: Option<String>,
    pub stall_timeout: Duration,
    /// How long creating and closing may take: that of the client.
    pub operation_timeout: Duration,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            name: None,
            is_name_generated: false,
            properties: Vec::new(),
            access_mode: AccessMode::Shared,
            batching: true,
            batching_type: BatchingType::Default,
            batching_max_messages: 1000,
            batching_max_bytes: 128 * 1024,
            batching_max_publish_delay: Duration::ZERO,
            encryption: None,
            compression: Compression::None,
            compression_level: None,
            compress_min_msg_body_size: 4 * 1024,
            max_uncompressed_size: MAX_UNCOMPRESSED_SIZE_DEFAULT,
            chunking: false,
            chunk_max_message_size: 0,
            send_timeout: Duration::from_secs(30),
            max_pending_messages: 65_536,
            max_pending_bytes: usize::MAX,
            initial_sequence_id: None,
            schema: None,
            initial_subscription: None,
            stall_timeout: Duration::from_secs(10),
            operation_timeout: Duration::from_secs(30),
        }
    }
}

impl ProducerConfig {
    /// Checks the options against each other.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming the option that cannot be used; [`ErrorKind::Unsupported`] for a codec
    /// that this build leaves out.
    pub fn validate(&self) -> Result<()> {
        self.compression.check_built().map_err(|error| Error::local(ErrorKind::Unsupported, error.to_string()))?;
        self.check_level()?;
        let complaint = if self.name.as_deref().is_some_and(|name| name.trim().is_empty()) {
            "name must not be blank: leave it out to have one made"
        } else if self.initial_subscription.as_deref().is_some_and(|name| name.trim().is_empty()) {
            "initial_subscription must not be blank"
        } else if self.batching_type != BatchingType::Default && !self.batching {
            "batching_type needs batching(true)"
        } else if self.batching_max_messages == 0 || self.batching_max_messages > BATCH_MEMBERS_MAX {
            "batching_max_messages must be from 1 to 4,194,304"
        } else if self.batching_max_bytes == 0 {
            "batching_max_bytes must be at least 1"
        } else if self.max_uncompressed_size == 0 || self.max_uncompressed_size > MAX_UNCOMPRESSED_SIZE_MAX {
            "max_uncompressed_size must be from 1 to 2^31 - 1"
        } else if self.chunk_max_message_size > 0 && !self.chunking {
            "chunk_max_message_size needs chunking(true)"
        } else if self.chunk_max_message_size > 0 && self.batching {
            "chunk_max_message_size needs batching(false): a batch is not split into chunks"
        } else if self.max_pending_messages == 0 {
            "max_pending_messages must be at least 1"
        } else if self.max_pending_bytes == 0 {
            "max_pending_bytes must be at least 1"
        } else if self.stall_timeout.is_zero() {
            "stall_timeout must be longer than zero"
        } else if self.operation_timeout.is_zero() {
            "operation_timeout must be longer than zero"
        } else if !self.send_timeout.is_zero() && self.batching_max_publish_delay >= self.send_timeout {
            "batching_max_publish_delay must be shorter than send_timeout"
        } else if self.initial_sequence_id.is_some_and(|id| id >= super::SEQUENCE_ID_MAX) {
            "initial_sequence_id must be below 2^63 - 1"
        } else if let Some(complaint) = self.schema.as_ref().and_then(SchemaInfo::refused_in_producer) {
            complaint
        } else {
            return Ok(());
        };
        Err(Error::local(ErrorKind::InvalidArgument, complaint))
    }

    pub(super) fn batches_by_key(&self) -> bool {
        self.batching && self.batching_type == BatchingType::KeyBased
    }

    fn check_level(&self) -> Result<()> {
        let Some(level) = self.compression_level else { return Ok(()) };
        let codec = self.compression;
        let complaint = match codec.levels() {
            Some(levels) if levels.contains(&level) => return Ok(()),
            Some(levels) => {
                format!(
                    "compression_level must be from {} to {} with {codec:?}, not {level}",
                    levels.start(),
                    levels.end()
                )
            }
            None => format!("compression_level must be left out with {codec:?}, which has no levels"),
        };
        Err(Error::local(ErrorKind::InvalidArgument, complaint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codec_that_is_not_built_in_is_refused_with_the_name_of_its_feature() {
        for compression in Compression::ALL {
            let valid = ProducerConfig { compression, ..Default::default() }.validate();
            if compression.is_built_in() {
                assert_eq!(valid, Ok(()));
                continue;
            }
            let error = valid.expect_err("not built in");
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let feature = format!("feature `{}`", format!("{compression:?}").to_lowercase());
            assert!(error.to_string().contains(&feature), "{error}");
        }
    }

    #[test]
    fn a_level_that_the_codec_does_not_have_is_refused() {
        for compression in Compression::ALL.into_iter().filter(|codec| codec.is_built_in()) {
            let valid = |level| {
                let config = ProducerConfig { compression, compression_level: Some(level), ..Default::default() };
                config.validate()
            };
            let levels = compression.levels();
            let bad = match &levels {
                Some(levels) => [levels.start() - 1, levels.end() + 1],
                None => [1, 6],
            };
            assert!(levels.into_iter().flatten().all(|level| valid(level) == Ok(())), "{compression:?}");
            for level in bad {
                let error = valid(level).expect_err("no such level");
                assert_eq!(error.kind(), ErrorKind::InvalidArgument);
                let text = error.to_string();
                assert!(text.starts_with("compression_level") && text.contains(&format!("{compression:?}")), "{text}");
            }
        }
    }

    #[test]
    fn the_defaults_are_valid_and_bad_options_are_named() {
        assert_eq!(ProducerConfig::default().validate(), Ok(()));
        let bad = [
            (ProducerConfig { name: Some(String::new()), ..Default::default() }, "name"),
            (ProducerConfig { name: Some(" ".into()), ..Default::default() }, "name"),
            (
                ProducerConfig { batching: false, batching_type: BatchingType::KeyBased, ..Default::default() },
                "batching_type",
            ),
            (ProducerConfig { batching_max_messages: 0, ..Default::default() }, "batching_max_messages"),
            (ProducerConfig { batching_max_messages: 4_194_305, ..Default::default() }, "batching_max_messages"),
            (ProducerConfig { max_uncompressed_size: 0, ..Default::default() }, "max_uncompressed_size"),
            (ProducerConfig { max_uncompressed_size: 1 << 31, ..Default::default() }, "max_uncompressed_size"),
            (ProducerConfig { max_pending_bytes: 0, ..Default::default() }, "max_pending_bytes"),
            (
                ProducerConfig { batching_max_publish_delay: Duration::from_secs(30), ..Default::default() },
                "batching_max_publish_delay",
            ),
            (ProducerConfig { initial_sequence_id: Some(u64::MAX), ..Default::default() }, "initial_sequence_id"),
        ];
        for (config, option) in bad {
            let error = config.validate().expect_err(option);
            assert!(error.kind() == ErrorKind::InvalidArgument && error.to_string().starts_with(option), "{error}");
        }
    }
}
