//! Where a redirect may lead, and where the credentials may go with it.

use std::sync::Arc;

use hyper::Uri;

use crate::error::{Error, ErrorKind, Result};
use crate::machine::control::{BrokerKey, HostPort, Transport};

/// Redirects that one request follows.
pub(super) const REDIRECTS_MAX: u32 = 20;

/// Scheme, host and port: what credentials are given to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::client) struct Origin {
    pub(in crate::client) tls: bool,
    /// The host in lower case.
    pub(in crate::client) address: HostPort,
}

impl Origin {
    pub(in crate::client) fn new(tls: bool, host: &str, port: u16) -> Self {
        Self { tls, address: HostPort { host: Arc::from(host.to_ascii_lowercase()), port } }
    }

    pub(super) fn of_key(key: &BrokerKey) -> Self {
        Self::new(key.tls, &key.physical.host, key.physical.port)
    }

    /// How to dial it.
    pub(in crate::client) fn key(&self) -> BrokerKey {
        let host = self.address.clone();
        BrokerKey { tls: self.tls, ..BrokerKey::of_host(host, Transport::Http) }
    }

    /// The value of the header `Host`.
    pub(in crate::client) fn host_header(&self) -> String {
        let text = self.address.to_string();
        match text.strip_suffix(if self.tls { ":443" } else { ":80" }) {
            Some(host) => host.to_owned(),
            None => text,
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }
}

/// The hosts beside those of the service URL that get the credentials when a redirect leads there: `host` or `*.suffix`.
#[derive(Debug, Clone, Default)]
pub(crate) struct RedirectHosts(Vec<String>);

impl RedirectHosts {
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for what is not a host name, nor one behind `*.`.
    pub(crate) fn parse(hosts: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut patterns = Vec::new();
        for host in hosts {
            let name = host.strip_prefix("*.").unwrap_or(&host);
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
            let is_address = name.parse::<std::net::Ipv6Addr>().is_ok();
            if name.is_empty() || !name.bytes().all(is_name) || (name.contains(':') && !is_address) {
                let what = format!("http_redirect_hosts: `{host}` is not a host name, and not one behind `*.`");
                return Err(Error::local(ErrorKind::InvalidArgument, what));
            }
            patterns.push(host.to_ascii_lowercase());
        }
        Ok(Self(patterns))
    }

    fn contains(&self, host: &str) -> bool {
        self.0.iter().any(|pattern| match pattern.strip_prefix('*') {
            // The dot stays: `*.example.com` is neither `example.com` nor `notexample.com`.
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == pattern,
        })
    }
}

/// The origins that credentials are sent to.
#[derive(Debug)]
pub(super) struct Trust {
    /// The hosts of the service URL.
    pub(super) service: Vec<Origin>,
    pub(super) hosts: RedirectHosts,
}

impl Trust {
    pub(super) fn includes(&self, origin: &Origin) -> bool {
        self.service.contains(origin) || self.hosts.contains(&origin.address.host)
    }
}

/// Where the header `Location` of an answer of `from` leads: the origin, and the path with its query.
pub(in crate::client) fn follow(from: &Origin, location: Option<&str>) -> Result<(Origin, String)> {
    let Some(location) = location else {
        return Err(Error::protocol("the answer is a redirect without a Location"));
    };
    let unusable = || Error::protocol(format!("the answer is a redirect to a place that is not usable, from {from}"));
    let uri: Uri = location.parse().map_err(|_| unusable())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let Some(authority) = uri.authority() else {
        // Only a path: the same host.
        return if path.starts_with('/') && !path.starts_with("//") {
            Ok((from.clone(), path))
        } else {
            Err(unusable())
        };
    };
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(unusable()),
    };
    if authority.as_str().contains('@') {
        return Err(unusable());
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let origin = Origin::new(tls, host, authority.port_u16().unwrap_or(if tls { 443 } else { 80 }));
    if from.tls && !tls {
        let what = format!("{from} redirects to {origin}: from https:// to http:// no redirect is followed");
        return Err(Error::protocol(what));
    }
    Ok((origin, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(tls: bool, host: &str, port: u16) -> Origin {
        Origin::new(tls, host, port)
    }

    fn trust(hosts: &[&str]) -> Trust {
        let hosts = RedirectHosts::parse(hosts.iter().map(|&host| host.to_owned())).expect("good hosts");
        Trust { service: vec![origin(false, "Service", 8080)], hosts }
    }

    #[test]
    fn credentials_go_to_the_origins_of_the_service_url() {
        let trust = trust(&[]);
        assert!(trust.includes(&origin(false, "service", 8080)));
        for other in [origin(true, "service", 8080), origin(false, "service", 80), origin(false, "thief", 8080)] {
            assert!(!trust.includes(&other), "{other}");
        }
    }

    #[test]
    fn credentials_go_to_hosts_that_are_named() {
        let trust = trust(&["broker-1.other.org", "*.Example.com", "::1"]);
        for host in ["broker-1.other.org", "a.example.com", "a.b.EXAMPLE.com", "::1"] {
            assert!(trust.includes(&origin(false, host, 1)), "{host}");
        }
        for host in
            ["example.com", "notexample.com", "broker-2.other.org", "example.com.thief.org", "x.broker-1.other.org"]
        {
            assert!(!trust.includes(&origin(false, host, 1)), "{host}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for host in ["", "*", "*.", "http://a", "a:80", "a/b", "a.*.b", "a b"] {
            let error = RedirectHosts::parse([host.to_owned()]).expect_err(host);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
    }

    #[test]
    fn redirects_lead_to_an_origin_and_a_path() {
        let from = origin(false, "a", 8080);
        let (to, path) = follow(&from, Some("http://[::1]:81/x/y?authoritative=true")).expect("usable");
        assert_eq!((to.to_string().as_str(), path.as_str()), ("http://[::1]:81", "/x/y?authoritative=true"));
        assert_eq!(follow(&from, Some("/x?y")).expect("usable"), (from.clone(), "/x?y".to_owned()));
        assert_eq!(follow(&from, Some("https://B/")).expect("usable").0.to_string(), "https://b:443");
        for bad in ["", "x", "ftp://a/", "http://u:hunter2@b/", "http://", "//b/x"] {
            let error = follow(&from, Some(bad)).expect_err(bad);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        assert!(follow(&from, None).is_err());
    }

    #[test]
    fn no_redirect_ends_tls() {
        let error = follow(&origin(true, "a", 443), Some("http://a/")).expect_err("TLS is kept");
        assert!(error.to_string().contains("from https:// to http://"), "{error}");
    }

    #[test]
    fn the_host_header_omits_the_usual_port() {
        assert_eq!(origin(false, "a", 80).host_header(), "a");
        assert_eq!(origin(true, "a", 443).host_header(), "a");
        assert_eq!(origin(false, "a", 8080).host_header(), "a:8080");
        assert_eq!(origin(true, "::1", 80).host_header(), "[::1]:80");
    }
}
