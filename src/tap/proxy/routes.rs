//! The brokers that were met, and the listener in front of each.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use tokio::net::TcpListener;

use super::rewrite::NamedBroker;
use crate::machine::control::HostPort;
use crate::machine::supervisor::service_url::{ServiceUrl, broker_host};

/// Brokers that get a listener; those that are met beyond it keep their addresses, and clients go past the tap.
const BROKERS_MAX: usize = 1_000;

/// The addresses of one broker, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) plain: Option<HostPort>,
    pub(super) tls: Option<HostPort>,
    pub(super) web: Option<HostPort>,
    pub(super) web_tls: Option<HostPort>,
}

impl Upstream {
    fn of(named: &NamedBroker) -> Self {
        let broker = |url: &Option<String>, tls| broker_host(url.as_deref()?, tls, false).ok();
        let web = |url: &Option<String>| Some(ServiceUrl::parse(url.as_deref()?).ok()?.hosts().first()?.clone());
        Self {
            plain: broker(&named.plain, false),
            tls: broker(&named.tls, true),
            web: web(&named.web),
            web_tls: web(&named.web_tls),
        }
    }

    /// Whether both are one broker: of the addresses that both have, at least one, none differs. Brokers may share one
    /// address, as that of a load balancer for HTTP.
    fn is_same_broker(&self, other: &Self) -> bool {
        let pairs = [
            (&self.plain, &other.plain),
            (&self.tls, &other.tls),
            (&self.web, &other.web),
            (&self.web_tls, &other.web_tls),
        ];
        let mut known = pairs.iter().filter_map(|(one, other)| Some(one.as_ref()? == other.as_ref()?)).peekable();
        known.peek().is_some() && known.all(|is_same| is_same)
    }

    /// What is known of the same broker from elsewhere.
    fn learn(&mut self, other: &Self) {
        for (known, told) in [
            (&mut self.plain, &other.plain),
            (&mut self.tls, &other.tls),
            (&mut self.web, &other.web),
            (&mut self.web_tls, &other.web_tls),
        ] {
            if known.is_none() {
                known.clone_from(told);
            }
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn name(&self) -> String {
        let all = [&self.plain, &self.tls, &self.web, &self.web_tls];
        all.into_iter().flatten().next().map(ToString::to_string).unwrap_or_default()
    }
}

#[derive(Debug)]
struct Route {
    upstream: Upstream,
    port: u16,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Routes {
    ip: IpAddr,
    /// The host that clients are told.
    host: String,
    routes: Mutex<Vec<Route>>,
}

/// A broker that was met first, and the listener to serve.
pub(super) struct Met {
    pub(super) index: usize,
    pub(super) listener: TcpListener,
    pub(super) name: String,
    pub(super) address: String,
}

impl Routes {
    pub(super) fn new(listen: SocketAddr, host: String, first: Upstream) -> Self {
        let first = Route { upstream: first, port: listen.port() };
        Self { ip: listen.ip(), host, routes: Mutex::new(vec![first]) }
    }

    pub(super) fn upstream(&self, index: usize) -> Upstream {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.get(index).map(|route| route.upstream.clone()).unwrap_or_default()
    }

    /// The URLs of the listener in front of a broker, and the listener if it is a new one. Those of a broker that cannot be
    /// read, or for which there is no port, stay.
    pub(super) fn rewrite(&self, named: &NamedBroker) -> (NamedBroker, Option<Met>) {
        let upstream = Upstream::of(named);
        if upstream.is_empty() {
            return (named.clone(), None);
        }
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = routes.iter_mut().find(|route| route.upstream.is_same_broker(&upstream)) {
            route.upstream.learn(&upstream);
            return (self.urls(named, route.port), None);
        }
        let Some(listener) = self.bind().filter(|_| routes.len() < BROKERS_MAX) else { return (named.clone(), None) };
        let Ok(address) = listener.local_addr() else { return (named.clone(), None) };
        let met = Met { index: routes.len(), listener, name: upstream.name(), address: self.authority(address.port()) };
        routes.push(Route { upstream, port: address.port() });
        (self.urls(named, address.port()), Some(met))
    }

    fn bind(&self) -> Option<TcpListener> {
        let listener = std::net::TcpListener::bind((self.ip, 0)).ok()?;
        listener.set_nonblocking(true).ok()?;
        TcpListener::from_std(listener).ok()
    }

    pub(super) fn authority(&self, port: u16) -> String {
        HostPort { host: self.host.as_str().into(), port }.to_string()
    }

    fn urls(&self, named: &NamedBroker, port: u16) -> NamedBroker {
        let authority = self.authority(port);
        // An empty URL says that there is none.
        let url = |url: &Option<String>, scheme: &str| {
            url.as_ref().map(|url| if url.is_empty() { String::new() } else { format!("{scheme}://{authority}") })
        };
        NamedBroker {
            plain: url(&named.plain, "pulsar"),
            tls: url(&named.tls, "pulsar+ssl"),
            web: url(&named.web, "http"),
            web_tls: url(&named.web_tls, "https"),
        }
    }
}
