//! Forms as `application/x-www-form-urlencoded` (the URL standard of WHATWG, section 5.2).

use std::fmt::Write as _;

/// The body of a form.
pub(super) fn encode(fields: &[(&str, &str)]) -> String {
    let mut body = String::new();
    for (name, value) in fields {
        if !body.is_empty() {
            body.push('&');
        }
        push(&mut body, name);
        body.push('=');
        push(&mut body, value);
    }
    body
}

fn push(body: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b' ' => body.push('+'),
            b'*' | b'-' | b'.' | b'_' => body.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => body.push(char::from(byte)),
            byte => {
                let _ = write!(body, "%{byte:02X}");
            }
        }
    }
}

/// Percent-decodes a text of a URL; `None` where two hexadecimal digits are missing.
pub(super) fn percent_decoded(text: &str) -> Option<Vec<u8>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_keeps_what_has_a_meaning_in_it() {
        let body = encode(&[("client_secret", "a&b=c+d%e"), ("scope", "a b"), ("audience", "urn:ü*-._~")]);
        assert_eq!(body, "client_secret=a%26b%3Dc%2Bd%25e&scope=a+b&audience=urn%3A%C3%BC*-._%7E");
        assert_eq!(encode(&[]), "");
    }

    #[test]
    fn percent_decoding_needs_two_digits() {
        assert_eq!(percent_decoded("a%2Bb+%c3%BC").as_deref(), Some("a+b+ü".as_bytes()));
        for bad in ["%", "%4", "%zz", "%+4"] {
            assert_eq!(percent_decoded(bad), None, "{bad}");
        }
    }
}
