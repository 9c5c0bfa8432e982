//! The exchanges that the chapters show.
//!
//! | file | chapters |
//! | --- | --- |
//! | `connecting` | frames, handshake, lookup |
//! | `sending` | send, batching, chunking, encryption |
//! | `receiving` | flow, acknowledgement, redelivery |
//! | `changing` | reconnect, schemas, transactions, topic watch, migration |

mod changing;
mod connecting;
mod receiving;
mod sending;

use pulsar_native::wire::MetadataFields;

use super::frames::Blocks;

/// The producer of all exchanges.
const PRODUCER: &str = "p";

/// All blocks of the book.
pub(super) fn all() -> Blocks {
    let mut blocks = Blocks::default();
    connecting::blocks(&mut blocks);
    sending::blocks(&mut blocks);
    receiving::blocks(&mut blocks);
    changing::blocks(&mut blocks);
    blocks
}

/// The metadata of a message of that producer.
fn metadata(sequence_id: u64) -> MetadataFields<'static> {
    MetadataFields {
        producer_name: PRODUCER,
        sequence_id,
        publish_time_ms: 1_700_000_000_000,
        ..MetadataFields::default()
    }
}
