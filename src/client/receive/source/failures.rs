//! Entries that give no message, or one that is not decrypted.
//!
//! | entry | what becomes of it |
//! | --- | --- |
//! | damaged | acknowledged with its validation error, or a dead letter |
//! | not decrypted | given as it is, acknowledged, or as one that is unreadable: as `crypto_failure_action` says |
//! | unreadable | reported; acknowledged only if the policy says so, or a dead letter |

use std::sync::Arc;

use bytes::Bytes;

use super::{Source, place, time_entry};
use crate::client::clock;
use crate::client::dead_letter::DeadLetters;
use crate::client::encryption::{ConsumerCryptoFailureAction, Undecrypted};
use crate::client::events::{ConsumerEvent, EventQueue};
use crate::client::message::{DecodedEntry, ReceivedMessage};
use crate::client::receive::decode::DecodeFailure;
use crate::client::unreadable::{UnreadableFate, UnreadableMessage, UnreadableReason};
use crate::error::Error;
use crate::id::MessagePosition;
use crate::machine::consumer::{EntryBody, ReturnedPermits, UnreadableMessagePolicy};
use crate::wire::entry::EntryError;

impl Source {
    /// Whether the application gets an entry as it is stored.
    pub(super) fn gives_encrypted(&self, failure: &DecodeFailure) -> bool {
        matches!(failure, DecodeFailure::Undecrypted(_))
            && self.decryption.action() == ConsumerCryptoFailureAction::Consume
    }

    /// An entry that cannot be decrypted, as one message: nothing in it can be told apart.
    pub(super) fn give_encrypted(
        &mut self,
        position: MessagePosition,
        raw: Bytes,
        body: &EntryBody,
        redelivery_count: u32,
        permits: u32,
    ) -> ReceivedMessage {
        self.on_given(position, redelivery_count);
        let opened_at = time_entry(&mut self.untimed_entries);
        let opened = place(&mut self.opened, &self.part, |opened| {
            opened.fill(position, raw, body, None, redelivery_count, opened_at);
        });
        let message = ReceivedMessage::single(opened.clone());
        self.return_permits(permits);
        message
    }

    /// A whole entry that gives no messages: to the dead-letter topic if that takes it, else rejected as damaged, or
    /// reported.
    pub(super) fn on_failure(
        &mut self,
        stored: DecodedEntry,
        permits: u32,
        failure: DecodeFailure,
        events: &EventQueue<ConsumerEvent>,
    ) {
        let message = ReceivedMessage::single(Arc::new(stored));
        let letters = self.dead_letters.clone().filter(|letters| letters.takes_unreadable());
        match (failure, letters) {
            (DecodeFailure::Damaged(error), None) => {
                let MessagePosition { ledger_id, entry_id, .. } = message.position();
                self.reject(ledger_id, entry_id, permits, &error);
            }
            (DecodeFailure::Damaged(error), Some(letters)) => {
                self.return_permits(permits);
                letters.push_unreadable(&message, error.to_string());
            }
            (DecodeFailure::Unreadable(reason), letters) => {
                self.return_permits(permits);
                self.report_unreadable(message, reason, None, letters.as_deref(), events);
            }
            (DecodeFailure::Undecrypted(undecrypted), None)
                if self.decryption.action() == ConsumerCryptoFailureAction::Discard =>
            {
                let MessagePosition { ledger_id, entry_id, .. } = message.position();
                self.reject(ledger_id, entry_id, permits, &EntryError::Decrypt);
                let Undecrypted { reason, error } = *undecrypted;
                push_unreadable(message, reason, Some(error), UnreadableFate::Acknowledged, events);
            }
            (DecodeFailure::Undecrypted(undecrypted), letters) => {
                self.return_permits(permits);
                let Undecrypted { reason, error } = *undecrypted;
                self.report_unreadable(message, reason, Some(error), letters.as_deref(), events);
            }
        }
    }

    /// Damaged: acknowledged with the reason, so that it is not delivered again.
    pub(super) fn reject(&mut self, ledger_id: u64, entry_id: u64, permits: u32, error: &EntryError) {
        let permits = ReturnedPermits { attach_number: self.permits.attach_number, count: permits };
        self.part.endpoint.with(|consumer| {
            consumer.reject(ledger_id, entry_id, error, permits);
        });
    }

    /// Sound, but not for this client to read: reported, and not acknowledged unless the policy says so, or a dead letter
    /// of it is stored. The application can decide, or a client that can read it gets it.
    fn report_unreadable(
        &self,
        message: ReceivedMessage,
        reason: UnreadableReason,
        error: Option<Error>,
        letters: Option<&DeadLetters>,
        events: &EventQueue<ConsumerEvent>,
    ) {
        let fate = match (letters, self.config.unreadable_message_policy) {
            (Some(letters), _) => {
                let why = error.as_ref().map_or(reason.to_string(), |error| format!("{reason}: {error}"));
                letters.push_unreadable(&message, why);
                UnreadableFate::DeadLetter
            }
            // If it is refused, the entry comes again.
            (None, UnreadableMessagePolicy::Acknowledge) => {
                self.on_given(message.position(), message.redelivery_count());
                let acked = self.part.endpoint.with(|consumer| consumer.ack(&message.position(), clock::now));
                if acked.is_ok() { UnreadableFate::Acknowledged } else { UnreadableFate::Open }
            }
            (None, UnreadableMessagePolicy::Report) => {
                self.on_given(message.position(), message.redelivery_count());
                UnreadableFate::Open
            }
        };
        push_unreadable(message, reason, error, fate, events);
    }
}

fn push_unreadable(
    message: ReceivedMessage,
    reason: UnreadableReason,
    error: Option<Error>,
    fate: UnreadableFate,
    events: &EventQueue<ConsumerEvent>,
) {
    let payload_bytes = message.payload().len();
    let unreadable = UnreadableMessage::new(message, reason, error, fate);
    events.push_with_payload(ConsumerEvent::Unreadable(unreadable), payload_bytes);
}
