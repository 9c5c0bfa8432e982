//! Acknowledgements that the broker confirms: an ACK of their own, with a `request_id`.

use super::{AckTarget, Acks};
use crate::error::{Error, ErrorKind, Result};
use crate::id::MessagePosition;
use crate::machine::consumer::position::EntryPosition;
use crate::wire::{AckId, AckWords};

impl Acks {
    /// The ids of an ACK: those of `ids` that it must contain.
    ///
    /// A cumulative one is that of [`resolve_cumulative`](Self::resolve_cumulative). Of individual ones,
    ///
    /// | an id names | the ACK has |
    /// | --- | --- |
    /// | an entry, or the last unacknowledged member of a batch | the entry |
    /// | another member, with index acknowledgement | the set of the batch, once for members that follow each other |
    /// | another member, without | nothing; the member is noted |
    ///
    /// All of them count as acknowledged here from now on; [`restore_members`](Self::restore_members) takes that back.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for an id that cannot be used. Then none of them is noted.
    pub(in crate::machine::consumer) fn resolve(
        &mut self,
        ids: &[MessagePosition],
        cumulative: bool,
    ) -> Result<Vec<AckId>> {
        if cumulative {
            let [id] = ids else {
                let why = "a cumulative acknowledgement takes exactly one id";
                return Err(Error::local(ErrorKind::InvalidArgument, why));
            };
            let (ack, _) = self.resolve_cumulative(id)?;
            return Ok(vec![ack.position.ack_id(ack.ack_set)]);
        }
        for id in ids {
            if let AckTarget::Member { size: 0, .. } = AckTarget::of(id)? {
                self.partial(EntryPosition::of(id), 0)?;
            }
        }
        let mut acks: Vec<AckId> = Vec::new();
        for id in ids {
            let Some(ack) = self.resolve_individual(id)? else { continue };
            match acks.last_mut() {
                // The set of a batch holds what earlier ids of it cleared.
                Some(last) if EntryPosition::of_ack(last) == EntryPosition::of_ack(&ack) => *last = ack,
                _ => acks.push(ack),
            }
        }
        Ok(acks)
    }

    fn resolve_individual(&mut self, id: &MessagePosition) -> Result<Option<AckId>> {
        let position = EntryPosition::of(id);
        let AckTarget::Member { index, size } = AckTarget::of(id)? else {
            self.partials.remove(position);
            return Ok(Some(position.ack_id(AckWords::NONE)));
        };
        if self.clear_member(position, index, size)? {
            return Ok(Some(position.ack_id(AckWords::NONE)));
        }
        if !self.policy.index_acks {
            return Ok(None);
        }
        Ok(self.partials.find(position).map(|partial| position.ack_id(partial.set.to_words().into())))
    }

    /// An ACK of `acks`, made of the ids `members`, failed, and it is not known whether the broker has it. What was noted
    /// here in advance has to hold in both cases:
    ///
    /// | a member of `members` is of | what is done |
    /// | --- | --- |
    /// | no batch | Nothing: an entry that is not acknowledged is not noted. |
    /// | a batch that stays open | Nothing: the next set of the batch that is sent says it again. |
    /// | a batch that the ACK finished | The batch has these members unacknowledged again: the others were acknowledged before, and the entry is finished by acknowledging these once more. |
    ///
    /// A batch of the last kind may have been delivered and acknowledged in part meanwhile, which stays so.
    pub(in crate::machine::consumer) fn restore_members(&mut self, acks: &[AckId], members: &[MessagePosition]) {
        for batch in members.chunk_by(|a, b| EntryPosition::of(a) == EntryPosition::of(b)) {
            let Ok(AckTarget::Member { size: size @ 1.., .. }) = AckTarget::of(&batch[0]) else { continue };
            let position = EntryPosition::of(&batch[0]);
            let is_finished = |ack: &AckId| ack.ack_set.is_empty() && EntryPosition::of_ack(ack) == position;
            if !acks.iter().any(is_finished) {
                continue;
            }
            let mut open = vec![0i64; size.div_ceil(64) as usize];
            for index in batch.iter().filter_map(|id| usize::try_from(id.batch_index).ok()) {
                if let Some(word) = open.get_mut(index / 64) {
                    *word |= 1 << (index % 64);
                }
            }
            self.exclude_acknowledged(position, size, &mut open.into());
        }
    }

    /// The broker has confirmed a cumulative acknowledgement: what it covers needs none of its own. Not before, or a
    /// refusal would take those along that were made before it.
    pub(in crate::machine::consumer) fn on_cumulative_confirmed(&mut self, ack: &AckId) {
        let position = EntryPosition::of_ack(ack);
        self.remove_covered(if ack.ack_set.is_empty() { position } else { position.previous() });
    }
}
