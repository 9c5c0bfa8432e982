//! The service URL: where a client enters a cluster.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::machine::control::{BrokerKey, HostPort};

const PORT: u16 = 6650;
const PORT_TLS: u16 = 6651;

/// `pulsar://host:6650,other:6650` or `pulsar+ssl://host:6651`.
///
/// The scheme decides whether TLS is spoken, with this host and with every broker a lookup names. Several hosts are
/// tried in turn: one that fails makes way for the next. Without a port, 6650 is meant, with TLS 6651.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUrl {
    tls: bool,
    hosts: Vec<HostPort>,
}

impl ServiceUrl {
    /// Reads a service URL.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], with what is wrong: an unknown scheme, an HTTP address, a path, a user name, a
    /// bad port, no host.
    pub fn parse(url: &str) -> Result<Self> {
        let (tls, rest) = split_scheme(url).map_err(|what| refused(url, &what))?;
        let hosts = rest
            .split(',')
            .map(|host| host_port(host, if tls { PORT_TLS } else { PORT }))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|what| refused(url, &what))?;
        Ok(Self { tls, hosts })
    }

    /// Whether TLS is spoken (`pulsar+ssl`).
    pub fn tls(&self) -> bool {
        self.tls
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
        f.write_str(if self.tls { "pulsar+ssl://" } else { "pulsar://" })?;
        for (n, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Reads the URL by which a broker names itself or another one; its scheme has to be the one of `tls`.
pub(crate) fn broker_host(url: &str, tls: bool) -> Result<HostPort, String> {
    let (is_tls, rest) = split_scheme(url)?;
    if is_tls != tls {
        return Err(format!("{} was expected", if tls { "pulsar+ssl://" } else { "pulsar://" }));
    }
    host_port(rest, if tls { PORT_TLS } else { PORT })
}

fn refused(url: &str, what: &str) -> Error {
    // Whatever stands before an `@` may be a password.
    let shown = match url.rsplit_once('@') {
        Some((_, host)) => format!("...@{host}"),
        None => url.to_owned(),
    };
    Error::local(ErrorKind::InvalidArgument, format!("the service URL `{shown}` is not usable: {what}"))
}

fn split_scheme(url: &str) -> Result<(bool, &str), String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err("it has to start with pulsar:// or pulsar+ssl://".to_owned());
    };
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "pulsar" => false,
        "pulsar+ssl" => true,
        "http" | "https" => {
            return Err("this is the address of the admin API; use the broker service URL (pulsar://host:6650 or \
                        pulsar+ssl://host:6651)"
                .to_owned());
        }
        other => return Err(format!("the scheme is `{other}`, not pulsar or pulsar+ssl")),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err("a user name has no place in it; credentials are given to the client builder".to_owned());
    }
    if rest.contains(['/', '?', '#']) {
        return Err("it has no path, query or fragment".to_owned());
    }
    Ok((tls, rest))
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

/// The hosts of a service URL and which of them is used at the moment.
#[derive(Debug)]
pub(crate) struct ServiceHosts {
    url: ServiceUrl,
    current: usize,
}

impl ServiceHosts {
    /// Starts with a host chosen by `seed`, so that many clients of one URL spread over its hosts.
    pub(crate) fn new(url: ServiceUrl, seed: u64) -> Self {
        let hosts = u64::try_from(url.hosts.len()).unwrap_or(1).max(1);
        let current = usize::try_from(seed % hosts).unwrap_or(0);
        Self { url, current }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.url.hosts.len()
    }

    /// Whether TLS is spoken.
    pub(crate) fn tls(&self) -> bool {
        self.url.tls
    }

    /// The connection to use now.
    pub(crate) fn key(&self) -> BrokerKey {
        let host = self.url.hosts[self.current].clone();
        BrokerKey { logical: host.clone(), physical: host, tls: self.url.tls, index: 0 }
    }

    /// The connection failed: if it is the one in use, the next host takes over.
    pub(crate) fn failed(&mut self, key: &BrokerKey) {
        if *key == self.key() {
            self.current = (self.current + 1) % self.url.hosts.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        ServiceUrl::parse(url).expect("a good URL").to_string()
    }

    fn why_not(url: &str) -> String {
        let error = ServiceUrl::parse(url).expect_err("a bad URL");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        error.to_string()
    }

    #[test]
    fn ports_have_defaults_by_scheme() {
        assert_eq!(shown("pulsar://localhost"), "pulsar://localhost:6650");
        assert_eq!(shown("pulsar+ssl://localhost/"), "pulsar+ssl://localhost:6651");
        assert_eq!(shown("PULSAR://a:1,b,[::1]:7000,[::2]"), "pulsar://a:1,b:6650,[::1]:7000,[::2]:6650");
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(why_not("http://localhost:8080").contains("broker service URL"));
        assert!(why_not("localhost:6650").contains("start with pulsar://"));
        assert!(why_not("kafka://localhost").contains("`kafka`"));
        assert!(why_not("pulsar://host:6650/tenant").contains("no path"));
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
    }

    #[test]
    fn a_broker_has_to_keep_to_the_scheme() {
        assert_eq!(broker_host("pulsar://b:1", false).expect("good").to_string(), "b:1");
        assert!(broker_host("pulsar://b:1", true).expect_err("not TLS").contains("pulsar+ssl://"));
        assert!(broker_host("", false).is_err());
        assert!(broker_host("pulsar://a,b", false).is_err());
    }

    #[test]
    fn a_failed_host_makes_way_for_the_next_and_only_once() {
        let mut hosts = ServiceHosts::new(ServiceUrl::parse("pulsar://a,b,c").expect("good"), 5);
        let third = hosts.key();
        assert_eq!(third.logical.host.as_ref(), "c");
        hosts.failed(&third);
        hosts.failed(&third);
        assert_eq!(hosts.key().logical.host.as_ref(), "a");
    }
}
