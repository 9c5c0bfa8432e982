//! Names and URLs, and the hashes of names, of which there is a second implementation here.

use crate::hash::{java_string_hash, murmur3_32, topics_hash};
use crate::machine::supervisor::service_url::ServiceUrl;
use crate::topic::TopicName;
use crate::trace_context::TraceContext;

/// The name of a topic: what is shown is read, and its parts are those of the whole.
pub fn topic(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let topic = match TopicName::parse(text) {
        Ok(topic) => topic,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(topic.as_str().ends_with(text), "a short name is completed in front");
    assert_eq!(TopicName::parse(topic.as_str()).as_ref(), Ok(&topic), "what is shown is read");
    let domain = if topic.is_persistent() { "persistent" } else { "non-persistent" };
    assert_eq!(format!("{domain}://{}/{}", topic.namespace(), topic.local_name()), topic.as_str());
    assert_eq!(topic.namespace().split_once('/').map(|(tenant, _)| tenant), Some(topic.tenant()));
    let part = topic.partition(7);
    assert_eq!((part.partition_index(), TopicName::parse(part.as_str()).as_ref()), (Some(7), Ok(&part)));
    assert_eq!(part.base().as_str(), topic.partition_index().map_or(topic.clone(), |_| topic.base()).as_str());
    match topic.partition_index() {
        Some(index) => {
            assert_eq!(topic.partition(index), topic);
            assert_eq!(format!("{}-partition-{index}", topic.base()), topic.as_str());
        }
        None => assert_eq!(topic.base(), topic),
    }
}

/// A service URL: what is shown is read, and an error is one that can be shown.
pub fn service_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match ServiceUrl::parse(text) {
        Ok(url) => {
            assert!(!url.hosts().is_empty());
            assert!(url.hosts().iter().all(|host| !host.host.is_empty() && !host.host.contains(['/', '@', '?', '#'])));
            assert!(url.path().is_empty() || url.path().starts_with('/') && !url.path().ends_with('/'));
            let shown = url.to_string();
            assert_eq!(ServiceUrl::parse(&shown).as_ref().ok(), Some(&url), "what is shown is read: {shown}");
        }
        Err(error) => {
            // What stands before an `@`, or in a query or fragment, may be a password.
            let (from, to) = (text.rfind('@').unwrap_or(0), text.find(['?', '#']).unwrap_or(text.len()));
            let is_secret = !text.get(from..to).unwrap_or_default().contains("hunter2");
            let error = error.to_string();
            assert!(!is_secret || !error.contains("hunter2"), "{error}");
        }
    }
}

/// Version, ids and flags of `traceparent`.
const TRACEPARENT_BYTES: usize = 55;

/// The context of a trace, `traceparent` and `tracestate` a line each.
pub fn trace_context(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (parent, state) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(context) = TraceContext::new(parent) else { return };
    assert_eq!(TraceContext::new(context.traceparent()).as_ref(), Ok(&context));
    // What a later version adds behind the flags is passed on as it is.
    let known = &context.traceparent()[..TRACEPARENT_BYTES];
    assert!(!known.contains(char::is_uppercase));
    if let Ok(context) = context.with_tracestate(state) {
        // Empty members are none.
        let members = |state: &str| state.split(',').filter(|member| !member.trim().is_empty()).count();
        assert!(context.tracestate().is_none_or(|state| state.is_ascii() && members(state) <= 32));
    }
}

/// The hashes of keys and of lists of names, against their definitions.
pub fn hash(data: &[u8]) {
    assert_eq!(murmur3_32(data), murmur3_by_definition(data) & 0x7fff_ffff);
    let text = String::from_utf8_lossy(data);
    assert_eq!(java_string_hash(&text), java_hash_by_definition(&text) & 0x7fff_ffff);
    let mut names: Vec<_> = text.lines().collect();
    let hash = topics_hash(&names);
    names.sort_unstable_by(|one, other| other.cmp(one));
    assert_eq!(topics_hash(&names), hash, "the order does not matter");
    names.reverse();
    let crc = crc32c_by_definition(names.join(",").as_bytes());
    assert_eq!(hash, crc.to_le_bytes().map(|byte| format!("{byte:02x}")).concat());
}

/// MurmurHash3_x86_32 with seed 0: one step for each block of four bytes that starts in the key, a last one that is not whole
/// without rotation and addition.
fn murmur3_by_definition(key: &[u8]) -> u32 {
    let mut state = 0_u64;
    let low = |value: u64| value & 0xffff_ffff;
    let rotated = |value: u64, by: u32| low(value << by) | value >> (32 - by);
    for start in (0..key.len()).step_by(4) {
        let block = (start..key.len().min(start + 4)).map(|at| u64::from(key[at]) << (8 * (at - start))).sum::<u64>();
        state ^= low(rotated(low(block * 0xcc9e_2d51), 15) * 0x1b87_3593);
        if start + 4 <= key.len() {
            state = low(rotated(state, 13) * 5 + 0xe654_6b64);
        }
    }
    state ^= low(key.len() as u64);
    state ^= state >> 16;
    state = low(state * 0x85eb_ca6b);
    state ^= state >> 13;
    state = low(state * 0xc2b2_ae35);
    (state ^ state >> 16) as u32
}

/// `s[0] * 31^(n-1) + s[1] * 31^(n-2) + ... + s[n-1]`, summed up from the end.
fn java_hash_by_definition(key: &str) -> u32 {
    let units: Vec<u16> = key.encode_utf16().collect();
    let powers = std::iter::successors(Some(1_u64), |power| Some(power * 31 % (1 << 32)));
    let terms = units.iter().rev().zip(powers).map(|(unit, power)| u64::from(*unit) * power % (1 << 32));
    terms.fold(0, |sum, term| (sum + term) % (1 << 32)) as u32
}

/// CRC-32C bit by bit.
fn crc32c_by_definition(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc: u32, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
