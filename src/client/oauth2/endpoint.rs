//! URLs of an identity provider.

use std::fmt;

use hyper::Uri;

use crate::client::http::redirect::{Origin, follow};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::supervisor::service_url::shown;

/// Where a discovery document lies below its issuer (OpenID Connect Discovery 1.0, section 4).
pub(super) const OPENID_CONFIGURATION: &str = "/.well-known/openid-configuration";

/// An `http://` or `https://` URL. `Display` leaves the query out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) origin: Origin,
    /// With the query, if there is one.
    pub(super) path: String,
}

impl Endpoint {
    /// # Errors
    /// What is wrong, in a few words: a scheme other than these two, a user name, no host.
    pub(super) fn parse(url: &str) -> Result<Self, &'static str> {
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

    /// Where the discovery document of this issuer is. `well_known` is appended to the issuer's path if it is that of
    /// OpenID, and otherwise put in front of it (RFC 8414, section 3.1).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`]: the issuer is not usable, or `well_known` does not start with `/.well-known/`.
    pub(super) fn discovery(issuer: &str, well_known: &str) -> Result<Self> {
        let unusable = |what: &str| {
            let text = format!("the issuer URL `{}` is not usable: {what}", shown(issuer));
            Error::local(ErrorKind::InvalidArgument, text)
        };
        let Self { origin, path } = Self::parse(issuer).map_err(unusable)?;
        if path.contains('?') {
            return Err(unusable("it has no query"));
        }
        if !well_known.starts_with("/.well-known/") || well_known.parse::<Uri>().is_err() {
            let text = format!("the well-known path `{}` has to start with /.well-known/", shown(well_known));
            return Err(Error::local(ErrorKind::InvalidArgument, text));
        }
        let path = path.trim_end_matches('/');
        let path = match well_known {
            OPENID_CONFIGURATION => format!("{path}{well_known}"),
            _ => format!("{well_known}{path}"),
        };
        Ok(Self { origin, path })
    }

    /// Where a redirect from here leads.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`]: no usable place, or one without TLS behind one with it.
    pub(super) fn follow(&self, location: Option<&str>) -> Result<Self> {
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

    #[test]
    fn the_discovery_document_lies_below_the_issuer() {
        let discovery = |issuer, well_known| Endpoint::discovery(issuer, well_known).expect(issuer).to_string();
        assert_eq!(discovery("http://a", OPENID_CONFIGURATION), "http://a:80/.well-known/openid-configuration");
        assert_eq!(discovery("http://a/", OPENID_CONFIGURATION), "http://a:80/.well-known/openid-configuration");
        assert_eq!(discovery("http://a/b/", OPENID_CONFIGURATION), "http://a:80/b/.well-known/openid-configuration");
        let standard = "/.well-known/oauth-authorization-server";
        assert_eq!(discovery("http://a", standard), "http://a:80/.well-known/oauth-authorization-server");
        assert_eq!(discovery("http://a/b", standard), "http://a:80/.well-known/oauth-authorization-server/b");
    }

    #[test]
    fn an_unusable_issuer_is_named_without_its_secrets() {
        for bad in ["login.example.com", "https://me:hunter2@login.example.com", "https://a/?token=hunter2"] {
            let error = Endpoint::discovery(bad, OPENID_CONFIGURATION).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            let text = error.to_string();
            assert!(text.contains("issuer URL") && !text.contains("hunter2"), "{text}");
        }
        for bad in ["", "/custom", "well-known/x", "/.well-known/a b"] {
            let error = Endpoint::discovery("https://a", bad).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        }
    }
}
