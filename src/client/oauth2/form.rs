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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_keeps_what_has_a_meaning_in_it() {
        let body = encode(&[("client_secret", "a&b=c+d%e"), ("scope", "a b"), ("audience", "urn:ü*-._~")]);
        assert_eq!(body, "client_secret=a%26b%3Dc%2Bd%25e&scope=a+b&audience=urn%3A%C3%BC*-._%7E");
        assert_eq!(encode(&[]), "");
    }
}
