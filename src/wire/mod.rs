//! Bytes to frames and back. No state over frames, no I/O, no clock; it never panics on what a peer
//! sends and never allocates for a length that is not checked.
//!
//! **Internals, unstable**: may change in any release before 1.0.
//!
//! ```text
//! total_size: u32        everything behind this field, at most max_message_size + 10236
//! command_size: u32
//! [command_size]         BaseCommand, protobuf
//! ----------------------- only SEND and MESSAGE go on: the "entry", which a broker stores as it is
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
//! | [`frame`] | cut runs of frames off a read buffer, read them |
//! | [`command`] | every command as one enum, from one table |
//! | [`hot`] | SEND, SEND_RECEIPT, MESSAGE, ACK by hand |
//! | `send_run` | SEND frames of small messages, their time and sum set as they leave |
//! | [`tx`] | what waits to be written, large payloads without a copy |
//! | [`entry`] | all behind the command: checksum, metadata, payload |
//! | [`metadata`] | MessageMetadata and SingleMessageMetadata as offsets, written by hand |
//! | [`batch`] | the records of a batch |
//! | [`mod@compress`] | payloads, the size of what comes out bounded |
//! | [`ack_set`] | which messages of a batch are still unacknowledged |
//! | `codec` | frames for `tokio_util::codec::Framed` (feature `client`) |
//! | `explain` | a frame byte by byte, for readers (feature `cli`) |
//! | [`error`] | what is wrong with bytes, and where |
//! | `proto` | protobuf fields walked and written |
//! | `required` | which fields must be there |

pub mod ack_set;
pub mod batch;
#[cfg(feature = "client")]
pub mod codec;
pub mod command;
pub mod compress;
pub mod entry;
pub mod error;
#[cfg(any(feature = "cli", test))]
pub mod explain;
pub mod frame;
pub mod hot;
pub mod metadata;
mod new_metadata;
pub(crate) mod proto;
pub(crate) mod required;
pub(crate) mod send_run;
pub mod tx;

pub use ack_set::AckSet;
pub use batch::{BatchCursor, Record, put_record, put_record_fast, record_len};
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
    ChunkInfo, Metadata, NewChunk, NewMetadata, NewSingle, Properties, SingleMetadata, TxnBits, message_properties,
    single_properties,
};
pub use tx::{CHAIN_MIN_BYTES, SealedFrame, TxBuf};

/// `max_message_size` until CONNECTED names another, bytes.
pub const MAX_MESSAGE_SIZE_DEFAULT: u32 = 5 * 1024 * 1024;

/// What a frame may be larger than `max_message_size`, for its command and metadata, bytes.
pub const FRAME_PADDING_BYTES: u32 = 10 * 1024;

/// Starts the checksum block of an entry.
pub const MAGIC_CRC32C: u16 = 0x0e01;

/// Starts the broker entry metadata of an entry.
pub const MAGIC_BROKER_ENTRY_METADATA: u16 = 0x0e02;
