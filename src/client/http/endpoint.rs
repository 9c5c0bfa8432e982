//! URLs of servers that are no brokers.

use std::fmt;

use hyper::Uri;

use super::redirect::{Origin, follow};
use crate::error::Result;

/// An `http://` or `https://` URL. `Display` leaves the query out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::client) struct Endpoint {
    pub(in crate::client) origin: Origin,
    /// With the query, if there is one.
    pub(in crate::client) path: String,
}

impl Endpoint {
    /// # Errors
    /// What is wrong, in a few words: a scheme other than these two, a user name, no host.
    pub(in crate::client) fn parse(url: &str) -> Result<Self, &'static str> {
        let uri: Uri = url.trim().parse().map_err(|_| "it is not a URL")?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("it has to start with http:// or https://"),
        };
        let authority = uri.authority().ok_or("it has no host")?;
        if authority.as_str().contains('@') {
            return Err("a user name has no place in it");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err("it has no host");
        }
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => port.parse().map_err(|_| "its port is not one")?,
            _ if tls => 443,
            _ => 80,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self { origin: Origin::new(tls, host, port), path: path.to_owned() })
    }

    /// Where a redirect from here leads.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`]: no usable place, or one without TLS behind one with it.
    pub(in crate::client) fn follow(&self, location: Option<&str>) -> Result<Self> {
        let (origin, path) = follow(&self.origin, location)?;
        Ok(Self { origin, path })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{}{path}", self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown_without_their_query() {
        for (url, whole) in [
            ("https://login.example.com", "https://login.example.com:443/"),
            ("http://127.0.0.1:8080/a/token?p=hunter2", "http://127.0.0.1:8080/a/token"),
            ("HTTPS://Login.Example.com:8443/x", "https://login.example.com:8443/x"),
            ("http://[::1]/x", "http://[::1]:80/x"),
        ] {
            assert_eq!(Endpoint::parse(url).expect(url).to_string(), whole);
        }
        assert_eq!(Endpoint::parse("http://a/t?p=1").expect("a URL").path, "/t?p=1");
        for bad in
            ["", "a", "/a", "pulsar://a", "https://", "https://me:hunter2@a/", "https://a:99999/", "https://a:x/"]
        {
            Endpoint::parse(bad).expect_err(bad);
        }
    }
}
