//! The kinds of work, the same for the baseline and for the client.

/// The part of the messages that is sent before measuring starts: one in this number.
pub(crate) const WARM_UP_DIVISOR: u64 = 10;

/// Publishing.
#[derive(Debug, Clone)]
pub(crate) struct Produce {
    pub(crate) messages: u64,
    /// Payload bytes.
    pub(crate) size: usize,
    /// Messages per batch; 1: no batching.
    pub(crate) batch: u64,
    /// Sends in flight, at most.
    pub(crate) in_flight: u64,
    /// Producers on the one connection, each on a topic of its own.
    pub(crate) producers: usize,
    /// Keys, in turn; 0: messages without a key.
    pub(crate) keys: u64,
    /// How long a batch may wait for more messages, milliseconds.
    pub(crate) fill_ms: u64,
    /// A batch for each key.
    pub(crate) by_key: bool,
}

/// Receiving, every message acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Consume {
    pub(crate) messages: u64,
    /// Payload bytes.
    pub(crate) size: usize,
    /// Messages per entry; 0: messages outside batches.
    pub(crate) members: u64,
    /// Permits, of each topic.
    pub(crate) queue: u32,
    /// Topics, each with its share of the messages.
    pub(crate) topics: u64,
}

impl Consume {
    /// The topics by which the sink knows what to feed.
    pub(crate) fn topics(&self) -> impl Iterator<Item = String> {
        let (members, size) = (self.members, self.size);
        let entries = self.messages / members.max(1) / self.topics;
        (0..self.topics)
            .map(move |number| format!("persistent://public/default/{number}-feed-{members}-{size}-{entries}"))
    }
}
