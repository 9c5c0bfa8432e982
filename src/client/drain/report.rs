//! What a drain has left.

use std::fmt;

use crate::error::Error;

/// What a drain has left undone, of one handle or of a whole client; by [`Consumer::drain`](crate::Consumer::drain),
/// [`Acker::drain`](crate::Acker::drain), [`Producer::drain`](crate::Producer::drain) and
/// [`Client::drain`](crate::Client::drain). Nothing is lost by what is left: messages come again, or their sends have failed.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
#[must_use = "it says whether the drain is complete"]
pub struct DrainReport {
    /// Messages that the application was still working on: those of worker pools, and one for each consumer whose
    /// receive had returned a message and was not called again. They are delivered again.
    pub in_hand: usize,
    /// Messages on their way to the dead-letter topic. They are delivered again, and may stand there too.
    pub dead_letters: usize,
    /// Acknowledgements that the broker may not have, at most: entries, and members of batches of which others are not
    /// acknowledged. Their messages may be delivered again.
    pub unconfirmed_acks: u64,
    /// Messages accepted for sending that were neither confirmed nor failed. They may be stored or not.
    pub pending_sends: usize,
    /// Messages accepted for sending that have failed since the drain began, each with its own error.
    pub failed_sends: u64,
    /// Producers and consumers that were not closed in time; the client itself counts as one.
    pub open: usize,
    /// The first failure of a close.
    pub error: Option<Error>,
}

impl DrainReport {
    /// Whether nothing was left.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let counts = [self.in_hand, self.dead_letters, self.pending_sends, self.open];
        counts == [0; 4] && (self.unconfirmed_acks, self.failed_sends) == (0, 0) && self.error.is_none()
    }

    /// Adds that of another handle.
    pub(super) fn add(&mut self, other: Self) {
        self.in_hand += other.in_hand;
        self.dead_letters += other.dead_letters;
        self.unconfirmed_acks += other.unconfirmed_acks;
        self.pending_sends += other.pending_sends;
        self.failed_sends += other.failed_sends;
        self.open += other.open;
        self.error = self.error.take().or(other.error);
    }
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_complete() {
            return f.write_str("drained");
        }
        let counts = [
            (self.in_hand as u64, "messages in hand"),
            (self.dead_letters as u64, "dead letters not confirmed"),
            (self.unconfirmed_acks, "acknowledgements not confirmed"),
            (self.pending_sends as u64, "sends pending"),
            (self.failed_sends, "sends failed"),
            (self.open as u64, "handles not closed in time"),
        ];
        f.write_str("left by the drain: ")?;
        let mut separator = "";
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{separator}{count} {what}")?;
            separator = ", ";
        }
        match &self.error {
            Some(error) => write!(f, "{separator}{error}"),
            None => Ok(()),
        }
    }
}
