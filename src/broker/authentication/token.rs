//! JSON Web Tokens signed with HS256: minting and checking, against a shared secret.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

/// Longest token that is looked at, bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Claim `sub`.
    pub(crate) role: String,
    /// Claim `exp` in ms since 1970; `None` never expires.
    pub(crate) expires_ms: Option<u64>,
}

impl Identity {
    /// That of credentials which do not expire.
    pub(crate) fn lasting(role: &str) -> Self {
        Self { role: role.to_owned(), expires_ms: None }
    }

    pub(crate) fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms)
    }
}

/// Makes a token for `subject`; `expires_ms` is rounded up to whole seconds.
pub(crate) fn mint(key: &[u8], subject: &str, expires_ms: Option<u64>) -> String {
    signed(
        key,
        &match expires_ms {
            Some(expires_ms) => json!({ "sub": subject, "exp": expires_ms.div_ceil(1000) }),
            None => json!({ "sub": subject }),
        },
    )
}

/// Makes a token for `subject` that is issued, and good, at `starts_ms` only, rounded up to whole seconds.
pub(crate) fn mint_early(key: &[u8], subject: &str, starts_ms: u64) -> String {
    let starts = starts_ms.div_ceil(1000);
    signed(key, &json!({ "sub": subject, "iat": starts, "nbf": starts }))
}

/// A token with these claims.
pub(crate) fn signed(key: &[u8], claims: &Value) -> String {
    let header = URL_SAFE_NO_PAD.encode(json!({ "alg": "HS256" }).to_string());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = signer(key).chain_update(&signed).finalize().into_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Checks signature, algorithm, `exp` and `nbf`; `None` for anything that is not a good token now.
pub(crate) fn check(key: &[u8], token: &[u8], now_ms: u64) -> Option<Identity> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let token = std::str::from_utf8(token).ok()?;
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    signer(key).chain_update(signed).verify_slice(&URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
    if part(header)?.get("alg")? != "HS256" {
        return None;
    }
    let claims = part(claims)?;
    let role = claims.get("sub")?.as_str()?.to_owned();
    let ms = |name| claims.get(name).map(|claim| claim.as_f64().map(|seconds| (seconds * 1000.0) as u64));
    let expires_ms = match ms("exp") {
        Some(at) => Some(at?),
        None => None,
    };
    if let Some(not_before) = ms("nbf") {
        if now_ms < not_before? {
            return None;
        }
    }
    let identity = Identity { role, expires_ms };
    (!identity.is_expired(now_ms)).then_some(identity)
}

fn part(text: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

fn signer(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"a secret for tests, thirty-two bytes at least";

    #[test]
    fn a_minted_token_names_its_role_until_it_expires() {
        let token = mint(KEY, "admin", Some(5_000));
        let identity = check(KEY, token.as_bytes(), 4_999).expect("good token");
        assert_eq!(identity, Identity { role: "admin".into(), expires_ms: Some(5_000) });
        assert_eq!(check(KEY, token.as_bytes(), 5_000), None);
        assert_eq!(check(KEY, mint(KEY, "x", None).as_bytes(), u64::MAX).map(|found| found.expires_ms), Some(None));
    }

    #[test]
    fn other_keys_algorithms_and_shapes_are_refused() {
        let token = mint(KEY, "admin", None);
        assert_eq!(check(b"another key", token.as_bytes(), 0), None);
        for bad in ["", ".", "..", "a.b", "a.b.c", &token[1..], &token[..token.len() - 1]] {
            assert_eq!(check(KEY, bad.as_bytes(), 0), None, "{bad}");
        }
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"admin"}"#);
        assert_eq!(check(KEY, format!("{none}.{claims}.").as_bytes(), 0), None);
    }

    #[test]
    fn a_token_of_another_implementation_is_read() {
        // The example of RFC 7515, appendix A.1, has no `sub`: the signature holds, the claims do not.
        let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let key = URL_SAFE_NO_PAD.decode(key).expect("base64url");
        let signed = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                      eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = URL_SAFE_NO_PAD.decode("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").expect("base64url");
        assert!(signer(&key).chain_update(signed).verify_slice(&signature).is_ok());
    }
}
