//! A user and a password, checked as Pulsar's `AuthenticationProviderBasic` does.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::token::Identity;

/// `user:password`, of which neither has another `:`.
pub(super) fn check(users: &BTreeMap<String, String>, data: &[u8]) -> Option<Identity> {
    let (user, password) = std::str::from_utf8(data).ok()?.split_once(':')?;
    let is_good = !password.contains(':') && users.get(user).is_some_and(|known| known == password);
    is_good.then(|| Identity::lasting(user))
}

/// The header `Authorization` of a request.
pub(super) fn check_header(users: &BTreeMap<String, String>, authorization: &str) -> Option<Identity> {
    check(users, &STANDARD.decode(authorization.strip_prefix("Basic ")?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_needs_the_whole_password() {
        let users = BTreeMap::from([("Aladdin".to_owned(), "open sesame".to_owned())]);
        assert_eq!(check(&users, b"Aladdin:open sesame"), Some(Identity::lasting("Aladdin")));
        for bad in [&b"Aladdin:open"[..], b"Aladdin:", b"Aladdin", b":open sesame", b"Aladdin:open sesame:", b"\xff:"] {
            assert_eq!(check(&users, bad), None, "{bad:?}");
        }
        let header = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        assert_eq!(check_header(&users, header), Some(Identity::lasting("Aladdin")));
        for bad in ["Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Basic", "Basic ?", ""] {
            assert_eq!(check_header(&users, bad), None, "{bad}");
        }
    }
}
