//! Messages that are sound and that this client cannot read.

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;

use super::message::ReceivedMessage;
use crate::error::Error;
use crate::id::MessageId;
use crate::wire::compress::codec_name;
use crate::wire::metadata::{Metadata, Properties, encryption_keys};

/// A valid message that this client cannot read, as the broker stored it: see
/// [`ConsumerEvent::Unreadable`](super::ConsumerEvent::Unreadable).
///
/// It can be acknowledged by [`Acker::ack`](super::Acker::ack) with [`message`](Self::message), or by its id with
/// [`Acker::ack_id`](super::Acker::ack_id), and the same for `nack`. Left as it is, it stays in the backlog of the
/// subscription, and on Shared and Key_Shared subscriptions counts as delivered to this consumer and not acknowledged. A
/// cumulative acknowledgement of a later message acknowledges it too.
///
/// ```no_run
/// # async fn example(consumer: pulsar_native::Consumer) -> Result<(), pulsar_native::Error> {
/// use pulsar_native::{ConsumerEvent, UnreadableReason};
///
/// let (acker, mut events) = (consumer.acker(), consumer.events());
/// while let Some(event) = events.recv().await {
///     let ConsumerEvent::Unreadable(message) = event else { continue };
///     eprintln!("{} by {}: {}", message.id(), message.producer_name(), message.reason());
///     if message.reason() == UnreadableReason::Encrypted {
///         acker.ack_id(&message.id())?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct UnreadableMessage {
    message: ReceivedMessage,
    reason: UnreadableReason,
    decryption_error: Option<Error>,
    fate: UnreadableFate,
}

/// What becomes of a message that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnreadableFate {
    /// The application decides.
    Open,
    Acknowledged,
    /// It goes to the dead-letter topic.
    DeadLetter,
}

impl UnreadableMessage {
    pub(super) fn new(
        message: ReceivedMessage,
        reason: UnreadableReason,
        decryption_error: Option<Error>,
        fate: UnreadableFate,
    ) -> Self {
        Self { message, reason, decryption_error, fate }
    }

    /// Why it cannot be read.
    pub fn reason(&self) -> UnreadableReason {
        self.reason
    }

    /// Why it cannot be decrypted, if that is the [reason](Self::reason): which key is missing, cannot be read or does not fit,
    /// and what to do. Of several keys the last one that was tried.
    pub fn decryption_error(&self) -> Option<&Error> {
        self.decryption_error.as_ref()
    }

    /// Whether it was acknowledged, by
    /// [`UnreadableMessagePolicy::Acknowledge`](crate::UnreadableMessagePolicy::Acknowledge) or
    /// [`ConsumerCryptoFailureAction::Discard`](crate::ConsumerCryptoFailureAction::Discard).
    pub fn is_acknowledged(&self) -> bool {
        self.fate == UnreadableFate::Acknowledged
    }

    /// Whether it goes to the dead-letter topic, by
    /// [`DeadLetterPolicy::with_unreadable`](crate::DeadLetterPolicy::with_unreadable): it is acknowledged once it is stored
    /// there.
    pub fn is_dead_letter(&self) -> bool {
        self.fate == UnreadableFate::DeadLetter
    }

    /// The message, for inspection or acknowledgement. Its payload is the stored one: encrypted, compressed, a single
    /// chunk, or a whole undivided batch. Its id names the whole entry.
    pub fn message(&self) -> &ReceivedMessage {
        &self.message
    }

    /// The id of the whole entry, including its topic.
    pub fn id(&self) -> MessageId {
        self.message.id()
    }

    /// The full name of the topic, or of the partition if the topic is partitioned.
    pub fn topic(&self) -> &str {
        self.message.topic()
    }

    /// The payload as it is stored: encrypted, compressed, a single chunk, or a whole undivided batch.
    pub fn payload(&self) -> &[u8] {
        self.message.payload()
    }

    /// [`payload`](Self::payload), shared and not copied.
    pub fn payload_shared(&self) -> Bytes {
        self.message.payload_shared()
    }

    /// The serialized `MessageMetadata` of the entry, for what has no method here.
    pub fn metadata(&self) -> &[u8] {
        self.message.metadata_bytes()
    }

    /// The key (`partition_key`) as stored: that of the first message of a batch.
    pub fn key(&self) -> Option<&str> {
        self.message.key()
    }

    /// The properties in the order in which they were set. Those of the members of a batch are in its payload.
    pub fn properties(&self) -> Properties<'_> {
        self.message.properties()
    }

    /// The name of the producer.
    pub fn producer_name(&self) -> &str {
        self.message.producer_name()
    }

    /// When it was published, by the producer's clock, to the millisecond.
    pub fn publish_time(&self) -> SystemTime {
        self.message.publish_time()
    }

    /// The number of `CompressionType`: 0 none, 1 LZ4, 2 ZLIB, 3 ZSTD, 4 SNAPPY.
    pub fn codec(&self) -> i32 {
        self.parsed().compression
    }

    /// The size of the payload before it was compressed, bytes, as the producer declared it
    /// (`uncompressed_size`); 0 if it declared none. Some clients declare it without compression too.
    pub fn uncompressed_size(&self) -> u32 {
        self.parsed().uncompressed_size
    }

    /// How many messages the batch holds (`num_messages_in_batch`), as the producer declared it; `None` if it is none.
    pub fn batch_size(&self) -> Option<u32> {
        self.parsed().num_messages_in_batch.and_then(|size| u32::try_from(size).ok())
    }

    /// The names of the keys that it is encrypted for (`encryption_keys`): any one of them opens it. Empty if it is not
    /// encrypted.
    pub fn encryption_key_names(&self) -> impl Iterator<Item = &str> {
        encryption_keys(self.metadata()).map(|key| key.name())
    }

    /// Which chunk of a larger message it is; `None` if it is whole.
    pub fn chunk(&self) -> Option<UnreadableChunk<'_>> {
        UnreadableChunk::of(&self.parsed(), self.metadata())
    }

    /// The metadata. Cannot fail: it was parsed when the entry arrived.
    fn parsed(&self) -> Metadata {
        Metadata::decode(self.metadata()).unwrap_or_default()
    }
}

impl fmt::Debug for UnreadableMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnreadableMessage")
            .field("id", &format_args!("{}", self.message.id()))
            .field("topic", &self.message.topic())
            .field("reason", &self.reason)
            .field("decryption_error", &self.decryption_error)
            .field("fate", &self.fate)
            .finish_non_exhaustive()
    }
}

/// The place of a chunk in its message, as the producer declared it: see [`UnreadableMessage::chunk`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnreadableChunk<'a> {
    /// What all chunks of the message have in common (`uuid`).
    pub uuid: &'a str,
    /// Its place among them, counted from 0 (`chunk_id`).
    pub index: i32,
    /// How many there are (`num_chunks_from_msg`).
    pub count: i32,
    /// The payload of all of them together, bytes (`total_chunk_msg_size`).
    pub total_bytes: i32,
}

/// Why a valid message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnreadableReason {
    /// It is encrypted end to end, and the consumer has no
    /// [`crypto_key_reader`](super::ConsumerBuilder::crypto_key_reader), or the build no feature `encryption`.
    Encrypted,
    /// It is encrypted end to end, and none of its keys opens it: see
    /// [`decryption_error`](UnreadableMessage::decryption_error).
    DecryptionFailed,
    /// It is a chunk of a larger message, and what it says of that contradicts itself, or the chunks before it.
    InvalidChunk,
    /// It is a chunk of a message that is larger than
    /// [`ConsumerBuilder::max_chunked_message_size`](super::ConsumerBuilder::max_chunked_message_size).
    #[non_exhaustive]
    ChunkedMessageTooLarge {
        /// The declared size of the whole message, bytes.
        total_bytes: usize,
        /// The limit, bytes.
        limit_bytes: usize,
    },
    /// It is compressed by a codec that this build does not have.
    #[non_exhaustive]
    Codec {
        /// The number of `CompressionType`.
        number: i32,
    },
    /// Its payload before compression is larger than
    /// [`ConsumerBuilder::max_uncompressed_size`](super::ConsumerBuilder::max_uncompressed_size).
    #[non_exhaustive]
    TooLarge {
        /// Its declared size, bytes.
        uncompressed_bytes: usize,
        /// The limit, bytes.
        limit_bytes: usize,
    },
    /// It is a batch of more messages than the protocol can acknowledge one by one.
    #[non_exhaustive]
    TooManyMessages {
        /// How many it holds.
        messages: u32,
        /// The limit: 4,194,304.
        limit: u32,
    },
}

impl fmt::Display for UnreadableReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encrypted if cfg!(feature = "encryption") => {
                f.write_str("it is encrypted end to end, and the consumer has no crypto_key_reader")
            }
            Self::Encrypted => {
                f.write_str("it is encrypted end to end, and this build lacks the crate feature `encryption`")
            }
            Self::DecryptionFailed => f.write_str("it is encrypted end to end, and none of its keys opens it"),
            Self::InvalidChunk => f.write_str("it is a chunk, and contradicts itself or the chunks before it"),
            Self::ChunkedMessageTooLarge { total_bytes, limit_bytes } => write!(
                f,
                "it is a chunk of a message of {total_bytes} bytes, more than max_chunked_message_size, which is {limit_bytes}"
            ),
            Self::Codec { number } => {
                write!(f, "this build has no compression codec {number}")?;
                let Some(name) = codec_name(*number) else { return Ok(()) };
                write!(f, " ({name}), which is the crate feature `{}`", name.to_lowercase())
            }
            Self::TooLarge { uncompressed_bytes, limit_bytes } => write!(
                f,
                "decompressed it has {uncompressed_bytes} bytes, more than max_uncompressed_size, which is {limit_bytes}"
            ),
            Self::TooManyMessages { messages, limit } => {
                write!(f, "it is a batch of {messages} messages, more than {limit}")
            }
        }
    }
}
