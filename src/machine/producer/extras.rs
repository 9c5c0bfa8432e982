//! What few messages have beside their payload and number.

use std::time::Duration;

use bytes::Bytes;

/// Messages with longer keys are not batched: the metadata of a batch repeats the key of its first message, in the
/// little room that a frame has beside the payload.
const BATCHED_KEY_BYTES_MAX: usize = 4096;

/// The most that the number and the length of a field take, bytes.
const FIELD_HEAD_BYTES_MAX: usize = 8;

/// All but the payload and the number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Extras {
    pub(super) properties: Vec<(String, String)>,
    pub(super) key: Option<String>,
    pub(super) key_b64: bool,
    pub(super) ordering_key: Option<Bytes>,
    pub(super) event_time_ms: u64,
    pub(super) delivery: Delivery,
    pub(super) null_value: bool,
    /// See [`Message::with_batching`](super::Message::with_batching).
    pub(super) unbatched: bool,
    rare: Rare,
    /// See [`Message::refused`](super::Message::refused).
    pub(super) refused: Option<&'static str>,
}

pub(super) static NO_EXTRAS: Extras = Extras {
    properties: Vec::new(),
    key: None,
    key_b64: false,
    ordering_key: None,
    event_time_ms: 0,
    delivery: Delivery::AtOnce,
    null_value: false,
    unbatched: false,
    rare: Rare(None),
    refused: None,
};

/// [`RareFields`], if there are any: where there are none, dropping them is one branch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rare(Option<Box<RareFields>>);

impl Drop for Rare {
    #[inline]
    fn drop(&mut self) {
        if let Some(fields) = self.0.take() {
            drop_fields(fields);
        }
    }
}

#[cold]
fn drop_fields(_: Box<RareFields>) {}

/// What hardly any message has. A message that has it is never batched: members of a batch have no fields for most of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RareFields {
    pub(super) replicate_to: Vec<String>,
    pub(super) schema_id: Option<Bytes>,
    /// Unless it has a key.
    pub(super) null_key: bool,
}

static NO_RARE_FIELDS: RareFields = RareFields { replicate_to: Vec::new(), schema_id: None, null_key: false };

/// When consumers on Shared and Key_Shared subscriptions get it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Delivery {
    #[default]
    AtOnce,
    /// Milliseconds since 1970.
    At(i64),
    After(Duration),
}

impl Extras {
    pub(super) fn may_be_batched(&self) -> bool {
        !self.unbatched
            && self.delivery == Delivery::AtOnce
            && self.rare.0.is_none()
            && self.key_bytes() <= BATCHED_KEY_BYTES_MAX
    }

    #[inline]
    pub(super) fn rare_if_any(&self) -> Option<&RareFields> {
        self.rare.0.as_deref()
    }

    pub(super) fn rare(&self) -> &RareFields {
        self.rare_if_any().unwrap_or(&NO_RARE_FIELDS)
    }

    /// Where nothing is left it has no box for them: that it is there keeps the message out of batches.
    pub(super) fn change_rare(&mut self, change: impl FnOnce(&mut RareFields)) {
        let mut fields = self.rare.0.take().unwrap_or_default();
        change(&mut fields);
        if *fields != NO_RARE_FIELDS {
            self.rare.0 = Some(fields);
        }
    }

    fn key_bytes(&self) -> usize {
        self.key.as_ref().map_or(0, String::len) + self.ordering_key.as_ref().map_or(0, Bytes::len)
    }

    /// What they count against the bounds on pending bytes.
    pub(super) fn size_bytes(&self) -> usize {
        let properties: usize = self.properties.iter().map(|(key, value)| key.len() + value.len()).sum();
        properties + self.key_bytes() + self.rare_if_any().map_or(0, RareFields::size_bytes)
    }
}

impl RareFields {
    /// At least what they take in the metadata.
    fn size_bytes(&self) -> usize {
        let clusters = self.replicate_to.iter().map(|cluster| cluster.len() + FIELD_HEAD_BYTES_MAX).sum::<usize>();
        clusters + self.schema_id.as_ref().map_or(0, |id| id.len() + FIELD_HEAD_BYTES_MAX)
    }
}
