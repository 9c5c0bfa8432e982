//! How large a payload may be, as far as that is known before it is compressed.

use super::chunks::CHUNKED_BYTES_MAX;
use super::{Message, ProducerConfig};
use crate::error::{Error, ErrorKind};
use crate::wire::MAX_MESSAGE_SIZE_DEFAULT;
use crate::wire::compress::Compression;

/// The limits on what is accepted, bytes; that of the broker is not known before the first attach.
///
/// | producer | a message by itself | the records of a batch |
/// | --- | --- | --- |
/// | without compression | `max_message_size` of the broker | the same |
/// | with compression | `max_uncompressed_size`: what the broker compares is known once a job has compressed it | the lower one |
/// | with chunks | what `total_chunk_msg_size` can say; with compression `max_uncompressed_size` as well | as without chunks |
///
/// Where the producer encrypts, tag and keys are taken off what the broker takes.
///
/// What passes here is compared with the broker's limit again when it is framed.
#[derive(Debug)]
pub(super) struct PayloadLimits {
    message_bytes_max: usize,
    batch_bytes_max: usize,
    bound: Bound,
}

/// What the limit on a message comes from.
#[derive(Debug, Clone, Copy)]
enum Bound {
    Broker,
    Compression,
    Chunks,
}

impl PayloadLimits {
    pub(super) fn new(config: &ProducerConfig, max_message_size: Option<u32>) -> Self {
        let compresses = config.compression != Compression::None;
        let uncompressed_bytes_max = if compresses { config.max_uncompressed_size } else { usize::MAX };
        let overhead_bytes = config.encryption.as_ref().map_or(0, |encryption| encryption.overhead_bytes());
        let batch_bytes_max =
            (max_message_size.unwrap_or(MAX_MESSAGE_SIZE_DEFAULT) as usize).saturating_sub(overhead_bytes);
        let (message_bytes_max, bound) = match (compresses, config.chunking) {
            (true, _) => (uncompressed_bytes_max, Bound::Compression),
            (false, true) => (CHUNKED_BYTES_MAX, Bound::Chunks),
            (false, false) => {
                let limit = max_message_size.unwrap_or(u32::MAX / 2) as usize;
                (limit.saturating_sub(overhead_bytes), Bound::Broker)
            }
        };
        Self { message_bytes_max, batch_bytes_max: batch_bytes_max.min(uncompressed_bytes_max), bound }
    }

    /// Whether a message may be accepted.
    #[inline]
    pub(super) fn admits(&self, message: &Message) -> bool {
        message.payload.len() <= self.message_bytes_max
    }

    /// Whether records of this size may share a batch.
    #[inline]
    pub(super) fn fits_batch(&self, record_bytes: usize) -> bool {
        record_bytes <= self.batch_bytes_max
    }

    /// Refuses a message that is too large.
    ///
    /// # Errors
    /// [`ErrorKind::MessageTooLarge`], with both sizes.
    pub(super) fn check(&self, message: &Message) -> Result<(), Error> {
        if self.admits(message) {
            return Ok(());
        }
        let (bytes, limit) = (message.payload.len(), self.message_bytes_max);
        let what = match self.bound {
            Bound::Compression => {
                format!("{bytes} bytes before compression are more than max_uncompressed_size, which is {limit}")
            }
            Bound::Chunks => format!("{bytes} bytes are more than a chunked message may have, which is {limit}"),
            Bound::Broker => format!("{bytes} bytes are more than the broker's limit of {limit}, and chunking is off"),
        };
        Err(Error::local(ErrorKind::MessageTooLarge, what))
    }
}
