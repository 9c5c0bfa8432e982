//! Encoding and decoding of frames. No state between frames, no I/O, no clock. It never panics on bytes
//! of a peer and never allocates for an unchecked length.
//!
//! **Internals, unstable**: may change in any release before 1.0.
//!
//! ```text
//! total_size: u32        everything after this field, at most max_message_size + 10236
//! command_size: u32
//! [command_size]         BaseCommand, protobuf
//! ----------------------- only in SEND and MESSAGE: the "entry", which a broker stores unchanged
//! [0x0e02 u32 n [n]]     broker entry metadata, only in MESSAGE and only if the broker adds it
//! [0x0e01 u32 crc]       CRC-32C of all that follows; a sender may leave it out
//! metadata_size: u32
//! [metadata_size]        MessageMetadata, protobuf
//! [rest]                 payload: one message, or a batch of records
//! ```
//!
//! Fixed integers are big-endian and unsigned. The first bytes on a connection are a frame.
//!
//! | file | what |
//! | --- | --- |
//! | [`frame`] | splits runs of frames off a read buffer and decodes them |
//! | [`command`] | every command as one enum, from one table |
//! | [`hot`] | SEND, SEND_RECEIPT, MESSAGE, ACK, decoded and encoded by hand |
//! | `send_template` | SEND frames of small messages; time and checksum are set when they are sent |
//! | [`tx`] | bytes that wait to be written, large payloads without a copy |
//! | [`entry`] | everything after the command: checksum, metadata, payload |
//! | [`metadata`] | MessageMetadata and SingleMessageMetadata, decoded to offsets |
//! | `metadata_fields` | the same two, encoded from borrowed fields |
//! | [`batch`] | the records of a batch |
//! | [`mod@compress`] | compression of payloads, with a limit on the decompressed size |
//! | [`ack_set`] | which messages of a batch are still unacknowledged |
//! | `codec` | frames for `tokio_util::codec::Framed` (feature `client`) |
//! | [`mod@explain`] | frames byte by byte, for people |
//! | [`error`] | why bytes cannot be decoded, and where |
//! | `proto` | protobuf fields, decoded and encoded |
//! | `required` | which fields must be present |

pub mod ack_set;
pub mod batch;
#[cfg(feature = "client")]
pub mod codec;
pub mod command;
pub mod compress;
pub mod encryption;
pub mod entry;
pub mod error;
pub mod explain;
pub mod frame;
pub mod hot;
pub mod metadata;
mod metadata_fields;
pub(crate) mod proto;
pub(crate) mod required;
pub(crate) mod send_template;
pub mod tx;

pub use ack_set::{AckSet, AckWords};
pub use batch::{BatchCursor, Record, put_plain_record, put_record, record_len};
pub use command::{Command, Sender};
pub use compress::{CompressError, Compression, compress, decompress};
pub use entry::{
    BrokerEntryMetadata, EntryError, EntryParts, entry_len, put_broker_entry_metadata, put_entry, seal, seal_apart,
    seal_copied,
};
pub use error::{DecodeError, DecodeErrorKind};
pub use frame::{Frame, Frames, InboundFrame, Limits, cut, frames, missing};
pub use hot::{
    AckFrame, AckId, MessageHead, Receipt, SendHead, put_ack, put_flow, put_message, put_ping, put_pong, put_receipt,
    put_send_head,
};
pub use metadata::{
    ChunkFields, ChunkInfo, EncryptionFields, Metadata, MetadataFields, Properties, SingleFields, SingleMetadata,
    TxnBits, message_properties, single_properties,
};
pub use tx::{CHAIN_MIN_BYTES, SealedFrame, TxBuf};

/// `max_message_size` if CONNECTED names none, bytes.
pub const MAX_MESSAGE_SIZE_DEFAULT: u32 = 5 * 1024 * 1024;

/// How much larger than `max_message_size` a frame may be, for its command and metadata, bytes.
pub const FRAME_PADDING_BYTES: u32 = 10 * 1024;

/// What the payload of an entry may take before compression, unless the application sets another limit, bytes: sixteen
/// messages of the largest default size. The protocol has no such limit; each side has its own.
pub const MAX_UNCOMPRESSED_SIZE_DEFAULT: usize = 16 * MAX_MESSAGE_SIZE_DEFAULT as usize;

/// The largest such limit, bytes: other clients read `uncompressed_size` as a signed number.
pub const MAX_UNCOMPRESSED_SIZE_MAX: usize = i32::MAX as usize;

/// The magic number that starts the checksum block of an entry.
pub const MAGIC_CRC32C: u16 = 0x0e01;

/// The magic number that starts the broker entry metadata of an entry.
pub const MAGIC_BROKER_ENTRY_METADATA: u16 = 0x0e02;
