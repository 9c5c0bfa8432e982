//! Bytes as base64 text (RFC 4648): too little to depend on a crate for.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The standard alphabet with padding, as the other clients write it.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0, |group, at| group << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let is_padding = at > chunk.len();
            text.push(if is_padding { '=' } else { char::from(ALPHABET[(group >> (18 - 6 * at)) as usize & 63]) });
        }
    }
    text
}

/// The bytes of a text, with or without padding; `None` if it is not base64.
#[cfg(any(feature = "client", feature = "capture"))]
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for digit in digits {
        let value = ALPHABET.iter().position(|known| known == digit)?;
        // At most six bits are left over from the digits before.
        (bits, count) = (bits << 6 | u32::try_from(value).ok()?, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    // A single digit behind whole groups is no byte.
    (digits.len() % 4 != 1).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_every_length_is_padded() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"fooba", "Zm9vYmE="),
            (b"foobar", "Zm9vYmFy"),
            (b"\xfb\xff", "+/8="),
            (b"\xff\xfe\xfd", "//79"),
        ] {
            assert_eq!(encode(bytes), text);
            #[cfg(any(feature = "client", feature = "capture"))]
            assert_eq!(decode(text).as_deref(), Some(bytes));
        }
    }

    #[cfg(any(feature = "client", feature = "capture"))]
    #[test]
    fn what_is_no_base64_is_not_decoded() {
        for text in ["Z", "Zm9vY", "Zm 9", "Zm9\u{fc}", "Zm=v"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
