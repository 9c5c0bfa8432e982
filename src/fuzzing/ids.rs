//! Ids and checkpoints that an application has stored.

use prost::Message as _;

use crate::checkpoint::Checkpoint;
use crate::id::MessageId;
use crate::pb;

/// The bytes or the text of a message id, as an application has stored it.
pub fn message_id(data: &[u8]) {
    if let Ok(id) = MessageId::from_bytes(data) {
        let stored = id.to_bytes();
        assert!(stored.len() <= 2 * 61 + 2, "at most eleven bytes for each of five numbers, twice");
        assert_same_id(&MessageId::from_bytes(&stored).expect("what was written is read"), &id);
        // What prost refuses lies in fields that are skipped here.
        if let Ok(theirs) = pb::MessageIdData::decode(data) {
            let at = id.position();
            assert_eq!((at.ledger_id, at.entry_id), (theirs.ledger_id, theirs.entry_id));
            assert_eq!(id.partition(), u32::try_from(theirs.partition()).ok());
            assert_eq!(id.batch_index(), u32::try_from(theirs.batch_index()).ok());
            let size = u32::try_from(theirs.batch_size()).ok().filter(|size| *size > 0);
            assert_eq!(id.batch_size(), size.filter(|_| theirs.batch_index() >= 0));
            assert_eq!(id.first_chunk().is_some(), theirs.first_chunk_message_id.is_some());
        }
        assert_eq!(id.to_string().parse().as_ref(), Ok(&id), "what is shown is read");
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(id) = text.parse::<MessageId>() {
        assert_same_id(&id.to_string().parse().expect("what is shown is read"), &id);
    }
}

/// The bytes or the text of a checkpoint, as an application has stored it.
pub fn checkpoint(data: &[u8]) {
    if let Ok(checkpoint) = Checkpoint::from_bytes(data) {
        check_checkpoint(&checkpoint);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(checkpoint) = text.parse::<Checkpoint>() {
        check_checkpoint(&checkpoint);
    }
}

fn check_checkpoint(checkpoint: &Checkpoint) {
    assert_eq!(checkpoint.to_string().parse().as_ref(), Ok(checkpoint), "what is shown is read");
    let stored = checkpoint.to_bytes();
    let again = Checkpoint::from_bytes(&stored).expect("what was written is read");
    assert_eq!((&again, again.to_bytes()), (checkpoint, stored));
    let mut merged = Checkpoint::new();
    assert!(merged <= *checkpoint);
    merged.merge(checkpoint);
    assert_eq!(merged, *checkpoint);
}

/// Equal also in what equality leaves out.
fn assert_same_id(left: &MessageId, right: &MessageId) {
    let whole = |id: &MessageId| (id.position(), id.batch_size(), id.first_chunk());
    assert_eq!(whole(left), whole(right));
}
