//! The service URL: where a client enters a cluster.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::machine::control::{HostPort, Transport};

const PORT: u16 = 6650;
const PORT_TLS: u16 = 6651;
const PORT_HTTP: u16 = 80;
const PORT_HTTPS: u16 = 443;

/// `pulsar://host:6650,other:6650`, `pulsar+ssl://host:6651`, `http://host:8080` or `https://host:8443/prefix`.
///
/// The scheme decides whether TLS is spoken, with this host and with every broker a lookup names. Several hosts are
/// tried in turn: one that fails makes way for the next. Without a port, 6650 is meant, with TLS 6651; 80 for `http` and
/// 443 for `https`. With these two, topics are looked up over the REST interface of the brokers, whose paths begin behind
/// the path of the URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUrl {
    scheme: Scheme,
    hosts: Vec<HostPort>,
    /// Empty, or with a slash in front and none behind.
    path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scheme {
    transport: Transport,
    tls: bool,
}

impl Scheme {
    fn parse(scheme: &str) -> Option<Self> {
        let (transport, tls) = match scheme.to_ascii_lowercase().as_str() {
            "pulsar" => (Transport::Pulsar, false),
            "pulsar+ssl" => (Transport::Pulsar, true),
            "http" => (Transport::Http, false),
            "https" => (Transport::Http, true),
            _ => return None,
        };
        Some(Self { transport, tls })
    }

    fn name(self) -> &'static str {
        match (self.transport, self.tls) {
            (Transport::Pulsar, false) => "pulsar",
            (Transport::Pulsar, true) => "pulsar+ssl",
            (Transport::Http, false) => "http",
            (Transport::Http, true) => "https",
        }
    }

    fn default_port(self) -> u16 {
        match (self.transport, self.tls) {
            (Transport::Pulsar, false) => PORT,
            (Transport::Pulsar, true) => PORT_TLS,
            (Transport::Http, false) => PORT_HTTP,
            (Transport::Http, true) => PORT_HTTPS,
        }
    }
}

impl ServiceUrl {
    /// Reads a service URL.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], with what is wrong: an unknown scheme, a query, a user name, a bad port, no host,
    /// a path where the scheme is not `http` or `https`.
    pub fn parse(url: &str) -> Result<Self> {
        Self::read(url).map_err(|what| refused(url, &what))
    }

    fn read(url: &str) -> Result<Self, String> {
        let (scheme, rest) = split_scheme(url)?;
        let (hosts, path) = match scheme.transport {
            Transport::Http => split_path(rest)?,
            Transport::Pulsar => (rest, ""),
        };
        let hosts = hosts.split(',').map(|host| host_port(host, scheme.default_port()));
        Ok(Self { scheme, hosts: hosts.collect::<Result<_, _>>()?, path: path.to_owned() })
    }

    /// Whether TLS is spoken (`pulsar+ssl`, `https`).
    pub fn tls(&self) -> bool {
        self.scheme.tls
    }

    /// What is spoken with the hosts.
    pub fn transport(&self) -> Transport {
        self.scheme.transport
    }

    /// The path in front of the paths of the REST interface: empty, or with a slash in front and none behind.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The hosts, in the order of the URL; never empty.
    pub fn hosts(&self) -> &[HostPort] {
        &self.hosts
    }
}

impl FromStr for ServiceUrl {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Self::parse(url)
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.name())?;
        for (n, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if n == 0 { "" } else { "," })?;
        }
        f.write_str(&self.path)
    }
}

/// Reads the URL by which a broker names itself or another one. Its scheme has to be the one of `tls`, unless the broker
/// is reached through a proxy (`proxied`): then it says how the proxy reaches the broker, which is the proxy's affair.
pub(crate) fn broker_host(url: &str, tls: bool, proxied: bool) -> Result<HostPort, String> {
    let (scheme, rest) = split_scheme(url)?;
    let expected = Scheme { transport: Transport::Pulsar, tls };
    if scheme.transport != expected.transport || (scheme.tls != tls && !proxied) {
        return Err(format!("{}:// was expected", expected.name()));
    }
    host_port(rest, scheme.default_port())
}

fn refused(url: &str, what: &str) -> Error {
    Error::local(ErrorKind::InvalidArgument, format!("the service URL `{}` is not usable: {what}", shown(url)))
}

/// A URL as it may be shown, whether it is usable or not: what stands before an `@`, or in a query or fragment, may be a
/// password or a token.
pub(crate) fn shown(url: &str) -> Cow<'_, str> {
    let (user, query) = (url.rfind('@'), url.find(['?', '#']));
    match (user, query) {
        (None, None) => Cow::Borrowed(url),
        // Either may be a part of the other, and all of it secret.
        (Some(user), Some(query)) if query < user => Cow::Borrowed("..."),
        _ => {
            let (head, from) = user.map_or(("", 0), |at| ("...@", at + 1));
            let (tail, to) = query.map_or(("", url.len()), |at| ("?...", at));
            Cow::Owned(format!("{head}{}{tail}", &url[from..to]))
        }
    }
}

fn split_scheme(url: &str) -> Result<(Scheme, &str), String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err("it has to start with pulsar://, pulsar+ssl://, http:// or https://".to_owned());
    };
    let Some(scheme) = Scheme::parse(scheme) else {
        // With an `@`, a query or a fragment behind it, it may be a part of a password.
        let scheme = if url.contains(['@', '?', '#']) { "..." } else { scheme };
        return Err(format!("the scheme is `{scheme}`, not pulsar, pulsar+ssl, http or https"));
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err("a user name has no place in it; credentials are given to the client builder".to_owned());
    }
    if rest.contains(['?', '#']) {
        return Err("it has no query or fragment".to_owned());
    }
    if scheme.transport == Transport::Pulsar && rest.contains('/') {
        return Err("it has no path".to_owned());
    }
    Ok((scheme, rest))
}

/// Hosts, and the path of a proxy.
fn split_path(rest: &str) -> Result<(&str, &str), String> {
    let (hosts, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = path.trim_end_matches('/');
    if !path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\')) {
        return Err(format!("`{path}` is not a path: other characters than those of a URL have to be percent-encoded"));
    }
    Ok((hosts, path))
}

fn host_port(text: &str, port: u16) -> Result<HostPort, String> {
    let (host, port_text) = if let Some(bracketed) = text.strip_prefix('[') {
        let Some((host, rest)) = bracketed.split_once(']') else {
            return Err(format!("`{text}` lacks the closing bracket"));
        };
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(format!("`{text}` has something other than a port behind the bracket")),
        }
    } else {
        match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => {
                return Err(format!("`{text}`: an IPv6 address stands in brackets, like [::1]:6650"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return Err("a host is missing".to_owned());
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '[' | ']' | ',')) {
        return Err(format!("`{host}` is not a host name"));
    }
    let port = match port_text {
        None => port,
        // `parse` takes a plus sign, a port does not.
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse() {
            Ok(0) | Err(_) => return Err(format!("`{digits}` is not a port")),
            Ok(port) => port,
        },
        Some(other) => return Err(format!("`{other}` is not a port")),
    };
    Ok(HostPort { host: Arc::from(host), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(url: &str) -> String {
        ServiceUrl::parse(url).expect("a good URL").to_string()
    }

    fn why_not(url: &str) -> String {
        let error = ServiceUrl::parse(url).expect_err("a bad URL");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        error.to_string()
    }

    #[test]
    fn ports_have_defaults_by_scheme() {
        assert_eq!(printed("pulsar://localhost"), "pulsar://localhost:6650");
        assert_eq!(printed("pulsar+ssl://localhost/"), "pulsar+ssl://localhost:6651");
        assert_eq!(printed("PULSAR://a:1,b,[::1]:7000,[::2]"), "pulsar://a:1,b:6650,[::1]:7000,[::2]:6650");
        assert_eq!(printed("http://a,b:8080/"), "http://a:80,b:8080");
    }

    #[test]
    fn an_http_url_may_have_the_path_of_a_proxy() {
        let url = ServiceUrl::parse("https://a,b:8443/clusters/one/").expect("a good URL");
        assert_eq!((url.transport(), url.tls(), url.path()), (Transport::Http, true, "/clusters/one"));
        assert_eq!(url.to_string(), "https://a:443,b:8443/clusters/one");
        assert_eq!(ServiceUrl::parse("http://a//").expect("a good URL").path(), "");
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(why_not("localhost:6650").contains("start with pulsar://"));
        assert!(why_not("kafka://localhost").contains("`kafka`"));
        assert!(why_not("pulsar://host:6650/tenant").contains("no path"));
        assert!(why_not("http://host:8080?token=x").contains("no query"));
        assert!(why_not("https://host/a b").contains("percent-encoded"));
        assert!(why_not("pulsar://").contains("host is missing"));
        assert!(why_not("pulsar://a,,b").contains("host is missing"));
        assert!(why_not("pulsar://a:0").contains("`0` is not a port"));
        assert!(why_not("pulsar://a:+1").contains("`+1` is not a port"));
        assert!(why_not("pulsar://a:65536").contains("not a port"));
        assert!(why_not("pulsar://::1").contains("brackets"));
        assert!(why_not("pulsar://[::1").contains("closing bracket"));
        assert!(why_not("pulsar://a b").contains("not a host name"));
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_shown() {
        let text = why_not("pulsar://me:hunter2@host:6650");
        assert!(text.contains("user name") && !text.contains("hunter2"), "{text}");
        for url in ["pulsar://host:6650?token=hunter2", "https://host/#hunter2", "pulsar://hunter2@host?hunter2"] {
            let text = why_not(url);
            assert!(text.contains("host") && !text.contains("hunter2"), "{text}");
        }
        for url in ["http://host?token=a@hunter2", "host?token=hunter2&u=kafka://a", "hunter2@kafka://a"] {
            let text = why_not(url);
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_broker_has_to_keep_to_the_scheme() {
        let straight = |url, tls| broker_host(url, tls, false);
        assert_eq!(straight("pulsar://b:1", false).expect("good").to_string(), "b:1");
        assert!(straight("pulsar://b:1", true).expect_err("not TLS").contains("pulsar+ssl://"));
        assert!(straight("", false).is_err());
        assert!(straight("https://b:1", true).expect_err("a web port").contains("pulsar+ssl://"));
        assert!(straight("pulsar://a,b", false).is_err());
    }

    #[test]
    fn behind_a_proxy_a_broker_has_the_scheme_between_the_two() {
        assert_eq!(broker_host("pulsar://b", true, true).expect("plain").to_string(), "b:6650");
        assert_eq!(broker_host("pulsar+ssl://b", false, true).expect("with TLS").to_string(), "b:6651");
        assert!(broker_host("http://b:1", false, true).expect_err("a web port").contains("pulsar://"));
    }
}
