//! Payloads that compress somewhat, as records of an application do.

/// How many different ones there are before they come again.
pub(crate) const TEXTS: u64 = 1024;

/// The payload of that number: names that repeat, values that do not.
pub(crate) fn text(number: u64, size: usize) -> Vec<u8> {
    let mut state = number % TEXTS + 1;
    let mut out = Vec::with_capacity(size + 32);
    while out.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(format!("field=\"{state:016x}\" ").as_bytes());
    }
    out.truncate(size);
    out
}
