//! Percent-encoding, of URLs (RFC 3986, section 2.1).

/// The bytes of a percent-encoded text; `None` where two hexadecimal digits are missing.
pub(crate) fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            bytes.push(u8::try_from(digit()? << 4 | digit()?).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

/// Writes a text with every byte encoded but letters, digits and `:/-._~`.
pub(crate) fn encode(text: &str, out: &mut impl std::fmt::Write) -> std::fmt::Result {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                out.write_char(char::from(byte))?;
            }
            _ => write!(out, "%{byte:02X}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hexadecimal_digits_are_taken() {
        assert_eq!(decoded("a%2Bb+%c3%bC").as_deref(), Some("a+b+ü".as_bytes()));
        for bad in ["%", "%4", "%+4", "%-4", "%4+", "% 4", "%g0", "%zz"] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
    }
}
