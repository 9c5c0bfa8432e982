//! The hashes that all clients and brokers must compute alike: key to partition, key to consumer, topic list.
//!
//! **Internals, unstable**: may change in any release before 1.0.
//!
//! A producer chooses the partition of a keyed message by one of the two key hashes, modulo the number of
//! partitions. A different hash or mask would send the same key to another partition and break its order.

/// Masks a hash to the range of a positive `i32`, as the Java client does before it takes the modulus.
const POSITIVE: u32 = i32::MAX as u32;

/// Java's `String.hashCode` of `key`, without its sign bit: `hashingScheme` JavaStringHash, the default.
///
/// Hashes UTF-16 code units, as in Java. The C++ and Go clients hash UTF-8 bytes, so they choose
/// other partitions for non-ASCII keys; Go also keeps the sign bit.
#[must_use]
pub fn java_string_hash(key: &str) -> u32 {
    let step = |hash: u32, unit: u32| hash.wrapping_mul(31).wrapping_add(unit);
    let hash = if key.is_ascii() {
        key.bytes().fold(0, |hash, byte| step(hash, u32::from(byte)))
    } else {
        key.encode_utf16().fold(0, |hash, unit| step(hash, u32::from(unit)))
    };
    hash & POSITIVE
}

/// Murmur3 (x86, 32 bits, seed 0) of `key`, without its sign bit: `hashingScheme` Murmur3_32Hash.
///
/// The broker uses the same function to distribute keys over the consumers of a Key_Shared subscription.
#[must_use]
pub fn murmur3_32(key: &[u8]) -> u32 {
    const C1: u32 = 0xcc9e_2d51;
    const C2: u32 = 0x1b87_3593;
    let scramble = |word: u32| word.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2);
    let little_endian = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));

    let mut chunks = key.chunks_exact(4);
    let mut hash = chunks.by_ref().fold(0u32, |hash, chunk| {
        let mixed = (hash ^ scramble(little_endian(chunk))).rotate_left(13);
        mixed.wrapping_mul(5).wrapping_add(0xe654_6b64)
    });
    // An empty rest scrambles to zero and changes nothing.
    hash ^= scramble(little_endian(chunks.remainder()));
    hash ^= key.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    (hash ^ hash >> 16) & POSITIVE
}

/// The fingerprint of a list of topics: field `topics_hash` of CommandGetTopicsOfNamespace and
/// CommandWatchTopicList.
///
/// CRC-32C of the sorted names joined by commas, its four bytes in little-endian order as eight hex
/// digits. The order of `topics` does not matter.
#[must_use]
pub fn topics_hash<S: AsRef<str>>(topics: &[S]) -> String {
    let mut names: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
    names.sort_unstable();
    let mut crc = 0;
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            crc = crc32c::crc32c_append(crc, b",");
        }
        crc = crc32c::crc32c_append(crc, name.as_bytes());
    }
    format!("{:08x}", crc.swap_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key, Murmur3 masked, Java masked: computed by the official Java classes.
    const HASHES: [(&str, u32, u32); 13] = [
        ("", 0, 0),
        ("k1", 2_110_152_746, 3366),
        ("k2", 1_479_966_664, 3367),
        ("key1", 462_881_061, 3_288_498),
        ("key2", 1_936_800_180, 3_288_499),
        ("key01", 39_696_932, 101_943_456),
        ("key02", 751_761_803, 101_943_457),
        ("hello", 613_153_351, 99_162_322),
        ("test", 980_144_659, 3_556_498),
        ("keykeykeykeykey1", 19_350_382, 434_058_482),
        // Negative in Java before the mask.
        ("keykeykey2", 304_171_170, 42_978_643),
        ("é", 269_551_495, 233),
        ("キー", 1_030_492_959, 398_831),
    ];

    #[test]
    fn key_hashes_equal_those_of_java() {
        for (key, murmur, java) in HASHES {
            assert_eq!(murmur3_32(key.as_bytes()), murmur, "{key}");
            assert_eq!(java_string_hash(key), java, "{key}");
        }
    }

    #[test]
    fn a_key_outside_the_basic_plane_counts_as_two_units() {
        // U+1F600 is the surrogate pair d83d de00.
        assert_eq!(java_string_hash("\u{1f600}"), (0xd83d * 31 + 0xde00) & POSITIVE);
    }

    #[test]
    fn topic_lists_hash_as_at_the_broker() {
        let (a, b) = ("persistent://public/default/a", "persistent://public/default/b");
        assert_eq!(topics_hash::<&str>(&[]), "00000000");
        assert_eq!(topics_hash(&[a]), "e4a876e3");
        assert_eq!(topics_hash(&[b, a]), "c7559e98");
        assert_eq!(topics_hash(&[a, b]), "c7559e98");
    }
}
