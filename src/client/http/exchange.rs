//! Requests over HTTP: connections that are kept, credentials, redirects.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Request};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::connection::{Answer, Hints, HttpConnection, NoAnswer};
use super::kept::Kept;
use super::redirect::{Origin, REDIRECTS_MAX, Trust, follow};
use super::request::{self, RestRequest};
use super::response;
use crate::client::auth::HttpHeaders;
use crate::client::clock;
use crate::client::dial::{Target, dial};
use crate::client::driver::{DialConfig, fetch_credentials};
use crate::client::runtime::{Runtime, timeout};
use crate::client::user_code::{Panicked, catch_panic};
use crate::error::{Error, ErrorKind, Result, ServerCode};
use crate::machine::connection::error::RequestError;
use crate::machine::control::{AuthContext, AuthData, BrokerKey, CloseReason};
use crate::wire::command::Command;

/// Requests to one host at the same time; each has a connection of its own. Those that are kept are as many.
const REQUESTS_MAX: usize = 8;

/// The service URL names the wrong port, as a rule.
const HINTS: Hints = Hints {
    not_http: "the peer does not speak HTTP: the service URL has to name a web port (8080, with https:// and TLS 8443); \
               for the port of the binary protocol (6650, with TLS 6651) it is a pulsar:// or pulsar+ssl:// URL",
    closed: "the connection was closed without an HTTP answer; the port of the binary protocol (6650, with TLS 6651), \
             whose URL is pulsar:// or pulsar+ssl://, does so, and a port for TLS, whose URL is https://",
};

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// It alone failed.
    Request(RequestError),
    /// The host cannot be reached any more.
    Host(CloseReason),
}

impl From<RequestError> for Failed {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

/// A host of the service URL.
pub(super) struct Exchange<R> {
    runtime: R,
    config: Arc<DialConfig>,
    key: BrokerKey,
    origin: Origin,
    trust: Trust,
    slots: Semaphore,
    kept: Mutex<Kept<HttpConnection>>,
    shown: Mutex<Shown>,
}

/// The credentials of the requests.
#[derive(Default)]
struct Shown {
    /// Fetched for the first request, and again after a refusal.
    headers: Option<HeaderMap>,
    /// The token that was refused.
    refused: Option<AuthData>,
}

/// What the steps of one request have in common.
struct Hop {
    origin: Origin,
    path: String,
    /// Set until a redirect leads to a host that gets no credentials; they are not shown to any host after it.
    headers: Option<HeaderMap>,
}

impl<R: Runtime> Exchange<R> {
    pub(super) fn new(runtime: R, config: Arc<DialConfig>, key: BrokerKey) -> Self {
        let service = config.service_hosts.iter().map(|host| Origin::new(key.tls, &host.host, host.port)).collect();
        let trust = Trust { service, hosts: config.http.redirect_hosts.clone() };
        let origin = Origin::of_key(&key);
        let kept = Mutex::new(Kept::new(REQUESTS_MAX, config.keep_alive_interval));
        let slots = Semaphore::new(REQUESTS_MAX);
        Self { runtime, config, key, origin, trust, slots, kept, shown: Mutex::default() }
    }

    /// Whether a broker answers here and takes the credentials, within `limit`.
    pub(super) async fn handshake(&self, limit: Duration) -> Result<(), CloseReason> {
        let limit = limit.min(self.config.operation_timeout);
        let request = request::handshake();
        let asked = async {
            let answer = self.get(&request).await?;
            response::accepts(answer.status, &answer.body).map_err(Failed::Request)
        };
        match timeout(&self.runtime, limit, asked).await {
            Some(Ok(())) => Ok(()),
            Some(Err(Failed::Host(reason))) => Err(reason),
            Some(Err(Failed::Request(RequestError::Server(refused)))) => Err(CloseReason::Broker(refused)),
            Some(Err(Failed::Request(error))) => Err(CloseReason::Dial(error.into_error("the first HTTP request"))),
            None => Err(CloseReason::Silent { after: limit }),
        }
    }

    /// The answer to `command`, within the operation timeout.
    pub(super) async fn ask(&self, command: &Command) -> Result<Command, Failed> {
        let read = |answer: &Answer| response::read(command, answer.status, &answer.body);
        self.ask_rest(&RestRequest::of(command)?, read).await
    }

    /// The JSON at a path of the admin API, within the operation timeout.
    pub(super) async fn read_json(&self, path: &str) -> Result<Value, Failed> {
        self.ask_rest(&RestRequest::admin(path), |answer| response::json(answer.status, &answer.body)).await
    }

    /// `host:port`, for errors.
    pub(super) fn address(&self) -> Arc<str> {
        self.key.logical.to_string().into()
    }

    async fn ask_rest<T>(
        &self,
        request: &RestRequest,
        read: impl Fn(&Answer) -> Result<T, RequestError>,
    ) -> Result<T, Failed> {
        let asked = async {
            // Never closed.
            let _slot = self.slots.acquire().await;
            let first = read(&self.get(request).await?);
            if !first.as_ref().is_err_and(refuses_credentials) {
                return Ok(first?);
            }
            // The token may have expired since it was fetched.
            self.lock_shown().refuse();
            Ok(read(&self.get(request).await?)?)
        };
        let answered = timeout(&self.runtime, self.config.operation_timeout, asked).await;
        answered.unwrap_or(Err(Failed::Request(RequestError::TimedOut)))
    }

    /// One GET, with the redirects that follow.
    async fn get(&self, request: &RestRequest) -> Result<Answer, Failed> {
        let path = format!("{}{}", self.config.http.base_path, request.path);
        let mut hop = Hop { origin: self.origin.clone(), path, headers: Some(self.headers().await?) };
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.get_once(&hop, request.body_bytes_max).await?;
            if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                self.check_trust(&hop, request, answer.status).await?;
                return Ok(answer);
            }
            (hop.origin, hop.path) =
                follow(&hop.origin, answer.location.as_deref()).map_err(RequestError::Transport)?;
            if !self.trust.includes(&hop.origin) {
                hop.headers = None;
            }
        }
        let text = format!(
            "the HTTP request was redirected more than {REDIRECTS_MAX} times, at last to {}: what the brokers, or a load \
                 balancer in front of them, redirect to leads in a circle",
            hop.origin
        );
        Err(RequestError::Transport(Error::local(ErrorKind::NotReady, text)).into())
    }

    /// Whether an answer may be believed. The broker that a lookup names gets the credentials in CONNECT: the answer has
    /// to come from an origin that may have them itself, unless there are none.
    async fn check_trust(&self, hop: &Hop, request: &RestRequest, status: u16) -> Result<(), Failed> {
        if hop.headers.is_some() {
            return Ok(());
        }
        if status == 401 {
            return Err(without_credentials(&hop.origin, "it wants some").into());
        }
        if request.is_lookup && status == 200 && self.has_credentials().await? {
            let why = "the broker that it names would get them";
            return Err(without_credentials(&hop.origin, why).into());
        }
        Ok(())
    }

    /// Whether there are credentials, also those of a method that has no headers over HTTP.
    async fn has_credentials(&self) -> Result<bool, Failed> {
        if !self.headers().await?.is_empty() {
            return Ok(true);
        }
        let context = AuthContext::new(self.key.logical.clone());
        let fetch = || self.config.authentication.credentials(&context);
        let limit = self.config.operation_timeout;
        let fetched = fetch_credentials(&self.runtime, limit, "Authentication::credentials", fetch).await;
        Ok(fetched.map_err(RequestError::Transport)? != AuthData::none())
    }

    /// One GET without redirects, over a kept connection if there is one. A kept one may have been closed by its peer
    /// meanwhile; then a new one is made.
    async fn get_once(&self, hop: &Hop, body_bytes_max: usize) -> Result<Answer, Failed> {
        let failed = |error| self.failure(&hop.origin, error);
        let kept = self.lock_kept().take(&hop.origin, clock::now().at);
        if let Some(connection) = kept {
            match self.get_over(connection, hop, body_bytes_max).await {
                Err(NoAnswer::Lost(_)) => {}
                answered => return answered.map_err(failed),
            }
        }
        let connection = self.dial(&hop.origin).await.map_err(failed)?;
        self.get_over(connection, hop, body_bytes_max).await.map_err(failed)
    }

    async fn get_over(
        &self,
        mut connection: HttpConnection,
        hop: &Hop,
        body_bytes_max: usize,
    ) -> Result<Answer, NoAnswer> {
        let request = self.request(hop)?;
        let answer = catch_panic(|| connection.send(request, body_bytes_max)).await.map_err(socket_panicked)??;
        if connection.is_reusable() {
            self.lock_kept().put(hop.origin.clone(), connection, clock::now().at);
        }
        Ok(answer)
    }

    fn lock_kept(&self) -> MutexGuard<'_, Kept<HttpConnection>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn dial(&self, origin: &Origin) -> Result<HttpConnection, NoAnswer> {
        let is_service = *origin == self.origin;
        let key = if is_service { self.key.clone() } else { origin.key() };
        let limit = self.config.connection_timeout.min(self.config.share_of(&key));
        let target = Target::from_key(&key);
        let dialed = dial(&self.runtime, &*self.config.dialer, &target, limit).await;
        let socket = dialed.map_err(|error| match error.is_retriable() {
            true => NoAnswer::Lost(error),
            false => NoAnswer::Wrong(error),
        })?;
        catch_panic(|| HttpConnection::new(socket, HINTS)).await.map_err(socket_panicked)?
    }

    /// A loss of the host itself ends the connection to it, so that another host of the service URL gets its turn.
    fn failure(&self, origin: &Origin, error: NoAnswer) -> Failed {
        match error {
            NoAnswer::Lost(error) if *origin == self.origin => Failed::Host(CloseReason::Dial(error)),
            NoAnswer::Lost(error) | NoAnswer::Wrong(error) => Failed::Request(RequestError::Transport(error)),
        }
    }

    fn request(&self, hop: &Hop) -> Result<Request<Full<Bytes>>, NoAnswer> {
        let unusable = || NoAnswer::Wrong(Error::protocol(format!("a path at {} is not usable", hop.origin)));
        let mut request = Request::get(&hop.path).body(Full::default()).map_err(|_| unusable())?;
        let headers = request.headers_mut();
        headers.extend(hop.headers.clone().unwrap_or_default());
        headers.insert(HOST, HeaderValue::try_from(hop.origin.host_header()).map_err(|_| unusable())?);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::try_from(&self.config.client_version).map_err(|_| unusable())?);
        Ok(request)
    }

    fn lock_shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The headers with the credentials.
    async fn headers(&self) -> Result<HeaderMap, Failed> {
        let refused = {
            let shown = self.lock_shown();
            if let Some(headers) = &shown.headers {
                return Ok(headers.clone());
            }
            shown.refused.clone()
        };
        let context = AuthContext::new(self.key.logical.clone());
        let context = refused.into_iter().fold(context, AuthContext::with_outdated);
        let fetch = || self.config.authentication.http_headers(&context);
        let limit = self.config.operation_timeout;
        let fetched = fetch_credentials(&self.runtime, limit, "Authentication::http_headers", fetch).await;
        let address = self.key.logical.to_string().into();
        let fetched = fetched.map_err(|error| RequestError::Transport(error.with_address(&address)))?;
        let headers = header_map(&fetched).map_err(RequestError::Transport)?;
        self.lock_shown().headers = Some(headers.clone());
        Ok(headers)
    }
}

impl Shown {
    fn refuse(&mut self) {
        let refused = self.headers.take();
        let text = refused.as_ref().and_then(|headers| headers.get(AUTHORIZATION)?.to_str().ok());
        self.refused = text.and_then(|text| text.strip_prefix("Bearer ")).map(AuthData::token);
    }
}

/// The connection is lost with its socket.
fn socket_panicked(panicked: Panicked) -> NoAnswer {
    NoAnswer::Lost(panicked.into_error(ErrorKind::Connection, "a socket of the Dialer"))
}

fn refuses_credentials(error: &RequestError) -> bool {
    matches!(error, RequestError::Server(refused) if refused.code == ServerCode::AUTHENTICATION_ERROR)
}

fn without_credentials(origin: &Origin, why: &str) -> RequestError {
    let text = format!(
        "the redirect to {origin} was followed without the credentials, and {why}: if this host may have them, \
         name `{}` in ClientBuilder::http_redirect_hosts",
        origin.address.host
    );
    RequestError::Transport(Error::local(ErrorKind::Authentication, text))
}

fn header_map(headers: &HttpHeaders) -> Result<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in headers.iter() {
        let unusable = || {
            let text = "the credentials cannot be sent as an HTTP header: they have characters that none may have";
            Error::local(ErrorKind::Authentication, text)
        };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| unusable())?;
        value.set_sensitive(true);
        map.append(name, value);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_headers_of_one_name_are_all_sent() {
        let headers =
            HttpHeaders::new().with_header("X-Role", "a").with_header("Other", "b").with_header("x-role", "c");
        let map = header_map(&headers).expect("headers");
        let roles: Vec<_> = map.get_all("x-role").iter().map(|value| value.to_str().expect("text")).collect();
        assert_eq!((roles, map.len()), (vec!["a", "c"], 3));
    }

    #[test]
    fn a_token_that_was_refused_is_known_to_be_outdated() {
        let mut shown = Shown::default();
        for (value, token) in [("Bearer secret", Some("secret")), ("Basic dTpw", None)] {
            shown.headers = Some(header_map(&HttpHeaders::new().with_header("Authorization", value)).expect("headers"));
            shown.refuse();
            assert_eq!((&shown.refused, shown.headers.is_none()), (&token.map(AuthData::token), true), "{value}");
        }
    }
}
