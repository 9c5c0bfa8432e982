//! How far the application of a reader has read a part.
//!
//! What was handed out last is known from the entry that was opened last, so that a message costs nothing more. It is noted
//! where that entry makes room for the next, and told to the endpoint with permits that are returned.

use super::Source;
use crate::id::{MessageId, MessagePosition};
use crate::machine::consumer::{Consumer, ReadTo, SeekTo};

/// See the module.
#[derive(Default)]
pub(super) struct Progress {
    /// The last message that was handed out, or entry that gives none.
    last: Option<MessagePosition>,
    /// The seek that it was read after.
    seek_number: u32,
    /// What the endpoint knows.
    told: Option<MessageId>,
    /// The first chunk of the oldest message that was not complete when everything was to be delivered again, and `last`
    /// then: it counts until something behind that is read.
    interrupted: Option<(MessagePosition, MessagePosition)>,
}

impl Source {
    /// The last message handed out of the entry that was opened last, if it is not noted yet; of a batch that is done, or a
    /// single message, its entry.
    fn last_of_opened(&self) -> Option<MessagePosition> {
        let opened = self.opened.as_ref().map(|opened| opened.position())?;
        let last = match &self.batch {
            None => opened,
            Some(batch) if mutation!(ReaderForgetsBatchIndex) && batch.cursor.index() > 0 => opened,
            // Sizes of batches are bounded far below 2^31.
            Some(batch) => MessagePosition { batch_index: batch.cursor.index().checked_sub(1)? as i32, ..opened },
        };
        (last != MessagePosition::EARLIEST).then_some(last)
    }

    /// The last message that was handed out, or entry that gives none.
    fn last_read(&self) -> Option<MessagePosition> {
        self.last_of_opened().or(self.progress.as_ref()?.last)
    }

    /// The entry that was opened last is about to be forgotten.
    #[inline]
    pub(super) fn note_read(&mut self) {
        if self.progress.is_some() {
            let last = self.last_of_opened();
            if let (Some(progress), Some(last)) = (&mut self.progress, last) {
                progress.last = Some(last);
            }
        }
    }

    /// An entry gives no message, or not yet.
    pub(super) fn note_passed(&mut self, entry: MessagePosition) {
        if let Some(progress) = &mut self.progress {
            let place = |position: &MessagePosition| (position.ledger_id as i64, position.entry_id as i64);
            // A chunk may be delivered again although what follows it was read.
            if progress.last.is_none_or(|last| place(&last) <= place(&entry)) {
                progress.last = Some(entry);
            }
            // What was handed out before it is noted, and lies before it.
            self.opened = None;
        }
    }

    /// Chunks, and the open batch unless it is kept, are about to be forgotten, because they are delivered again.
    pub(super) fn note_interrupted(&mut self, keeps_batch: bool) {
        if self.progress.is_none() {
            return;
        }
        self.note_read();
        let first = self.first_chunk();
        if let Some(progress) = &mut self.progress {
            progress.interrupted = first.zip(progress.last);
        }
        if !keeps_batch {
            // Without its batch it would count as read whole.
            self.opened = None;
        }
    }

    /// The first chunk of the oldest message that is not complete.
    fn first_chunk(&self) -> Option<MessagePosition> {
        let progress = self.progress.as_ref()?;
        let interrupted = progress.interrupted.filter(|(_, last)| Some(*last) == self.last_read());
        self.chunks
            .as_ref()
            .and_then(|chunks| chunks.first_pending())
            .into_iter()
            .chain(interrupted.map(|(first, _)| first))
            .min()
    }

    /// How far the application has read, if the endpoint does not know it yet.
    pub(super) fn take_read(&mut self) -> Option<ReadTo> {
        self.note_read();
        let id = self.read_id()?;
        let progress = self.progress.as_mut()?;
        let is_known = progress.told.as_ref().is_some_and(|told| *told == id && told.first_chunk() == id.first_chunk());
        let read =
            ReadTo { id: id.clone(), seek_number: progress.seek_number, attach_number: self.permits.attach_number };
        progress.told = Some(id);
        (!is_known).then_some(read)
    }

    fn read_id(&self) -> Option<MessageId> {
        let last = self.last_read()?;
        let id = MessageId::from_position(last);
        let first_chunk = self.first_chunk().filter(|first| *first <= last);
        Some(match first_chunk {
            Some(first) => id.with_first_chunk(&MessageId::from_position(first)),
            None => id,
        })
    }

    /// The queue was taken after so many seeks.
    #[inline]
    pub(super) fn set_seek_number(&mut self, seek_number: u32) {
        if let Some(progress) = self.progress.as_mut().filter(|progress| progress.seek_number != seek_number) {
            **progress = Progress { seek_number, ..Progress::default() };
            // What it was says nothing of the new position.
            self.opened = None;
        }
    }

    /// The last message that the application of a reader was given of this part, if any.
    pub(in crate::client::receive) fn last_given(&self) -> Option<MessageId> {
        match self.reading_position() {
            SeekTo::Message { id, inclusive: false } => Some(id),
            _ => None,
        }
    }

    /// The position of the reader in this part: the next SUBSCRIBE names it.
    pub(in crate::client::receive) fn reading_position(&self) -> SeekTo {
        let Some((from, seek_number)) = self.part.read(Consumer::reading) else { return SeekTo::Latest };
        let is_current = self.progress.as_ref().is_some_and(|progress| progress.seek_number == seek_number);
        // The first chunk of the message that it begins behind, or at, may be delivered alone.
        match self.read_id().filter(|id| is_current && !from.is_beyond(&id.position())) {
            Some(id) => SeekTo::Message { id, inclusive: false },
            None => from,
        }
    }
}
