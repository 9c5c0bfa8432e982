//! Who may ask: the person who was shown the URL, from pages of this server alone.

use std::net::SocketAddr;

use hyper::header::{COOKIE, HOST, HeaderMap, HeaderValue, ORIGIN};

/// What the browser may do on a page of this server: run its own scripts, use its own styles, ask it; nothing else, nothing inline,
/// and no text that becomes markup.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
    trusted-types 'none'";

/// Of every answer.
pub(super) const HEADERS: [(&str, &str); 7] = [
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
];

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Guard {
    token: String,
    port: u16,
    /// The values of `Host` that name this server.
    hosts: [String; 4],
}

/// Why a request is refused: a status and a text for people.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) u16, pub(super) &'static str);

impl Guard {
    pub(super) fn new(address: SocketAddr, token: String) -> Self {
        let port = address.port();
        let [a, b, c] = ["127.0.0.1", "localhost", "[::1]"].map(|host| format!("{host}:{port}"));
        Self { token, port, hosts: [address.to_string(), a, b, c] }
    }

    /// Cookies know no ports: each server has a name for its own.
    fn cookie_name(&self) -> String {
        format!("pulsar-native-tap-{}", self.port)
    }

    /// What the first page gives, so that what it loads is let in. No script can read it, and no page of another site has it sent.
    pub(super) fn cookie(&self) -> String {
        format!("{}={}; Path=/; HttpOnly; SameSite=Strict", self.cookie_name(), self.token)
    }

    /// Whether a query is `token=` and the token.
    pub(super) fn has_token(&self, query: &str) -> bool {
        query.split('&').filter_map(|pair| pair.strip_prefix("token=")).any(|token| is_same(token, &self.token))
    }

    /// The checks that the first page passes too: the name of the server is one that no other site's name can be bound to, and a
    /// page that asks is its own.
    pub(super) fn check_site(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let text = |value: Option<&HeaderValue>| value.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let host = text(headers.get(HOST)).unwrap_or_default();
        if !self.hosts.contains(&host) {
            return Err(Refused(421, "This server answers to its address and to localhost alone."));
        }
        let is_own = |origin: &HeaderValue| origin.to_str().is_ok_and(|origin| origin == format!("http://{host}"));
        if !headers.get_all(ORIGIN).iter().all(is_own) {
            return Err(Refused(403, "Pages of other sites get nothing here."));
        }
        Ok(())
    }

    /// The cookie of [`cookie`](Self::cookie), and nothing that another site asks for.
    pub(super) fn check_person(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
        if matches!(site, Some("cross-site" | "same-site")) {
            return Err(Refused(403, "Pages of other sites get nothing here."));
        }
        let name = self.cookie_name();
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut cookies = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        match cookies.any(|(known, token)| known == name && is_same(token, &self.token)) {
            true => Ok(()),
            false => Err(Refused(403, "Open the address with the token that `pulsar-native tap` printed.")),
        }
    }
}

/// Takes as long wherever the texts differ.
fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (hyper::header::HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn another_host_another_origin_and_no_token_get_nothing() {
        let guard = Guard::new("127.0.0.1:7000".parse().expect("an address"), "secret".to_owned());
        let site = |pairs: &[(&'static str, &str)]| guard.check_site(&headers(pairs)).map_err(|refused| refused.0);
        assert_eq!(site(&[("host", "127.0.0.1:7000")]), Ok(()));
        assert_eq!(site(&[("host", "localhost:7000"), ("origin", "http://localhost:7000")]), Ok(()));
        assert_eq!(site(&[("host", "127.0.0.2:7000")]), Err(421));
        assert_eq!(site(&[]), Err(421));
        assert_eq!(site(&[("host", "evil.example:7000")]), Err(421));
        assert_eq!(site(&[("host", "127.0.0.1:7001")]), Err(421));
        for origin in ["null", "http://evil.example", "http://127.0.0.1:7001", "https://127.0.0.1:7000"] {
            assert_eq!(site(&[("host", "127.0.0.1:7000"), ("origin", origin)]), Err(403), "{origin}");
        }

        let other = Guard::new("127.0.0.2:7000".parse().expect("an address"), "secret".to_owned());
        assert_eq!(other.check_site(&headers(&[("host", "127.0.0.2:7000")])), Ok(()));

        let person = |pairs: &[(&'static str, &str)]| guard.check_person(&headers(pairs)).is_ok();
        let cookie = ("cookie", "a=b; pulsar-native-tap-7000=secret");
        assert!(person(&[cookie]) && person(&[cookie, ("sec-fetch-site", "same-origin")]));
        assert!(!person(&[cookie, ("sec-fetch-site", "cross-site")]));
        assert!(!person(&[("cookie", "pulsar-native-tap-7001=secret")]));
        assert!(!person(&[("cookie", "pulsar-native-tap-7000=secreT")]) && !person(&[]));
        assert!(guard.has_token("a=b&token=secret") && !guard.has_token("token=secre") && !guard.has_token(""));
    }
}
