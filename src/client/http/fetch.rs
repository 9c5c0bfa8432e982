//! Requests to servers that are no brokers: an identity provider, a provider of service URLs. Each has a connection of its
//! own.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
#[cfg(feature = "oauth2")]
use hyper::header::CONTENT_TYPE;
use hyper::header::{ACCEPT, HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request};

use super::connection::{Answer, Hints, HttpConnection, NoAnswer};
use super::endpoint::Endpoint;
use crate::client::dial::{Target, TcpDialer, TlsSettings, dial};
use crate::client::runtime::{TokioRuntime, timeout};
use crate::error::{Error, Result};

/// Redirects that a GET follows.
const REDIRECTS_MAX: u32 = 5;

const CLIENT_VERSION: &str = concat!("Pulsar-Rust-native-v", env!("CARGO_PKG_VERSION"));

/// What bounds a request.
#[derive(Debug, Clone, Copy)]
pub(in crate::client) struct FetchLimits {
    /// For a connection, TLS included.
    pub(in crate::client) connect_timeout: Duration,
    /// From there to the last byte of the answer.
    pub(in crate::client) read_timeout: Duration,
    /// The longest answer that is read.
    pub(in crate::client) body_bytes_max: usize,
}

/// What makes the connections. The files of the TLS options are read anew with each one of these, so that certificates that
/// were replaced are seen.
pub(in crate::client) struct Fetcher {
    dialer: TcpDialer,
    limits: FetchLimits,
    hints: Hints,
}

impl Fetcher {
    #[cfg_attr(not(feature = "tls"), allow(unused_variables, reason = "a build without TLS has no options of it"))]
    pub(in crate::client) fn new(tls: &TlsSettings, limits: FetchLimits, hints: Hints) -> Self {
        let dialer = TcpDialer::new(
            #[cfg(feature = "tls")]
            crate::client::dial::TlsOptions::new(tls),
            limits.connect_timeout,
        );
        Self { dialer, limits, hints }
    }

    /// The answer to a GET, behind the redirects that there are: these headers go to the origin of the URL alone.
    pub(in crate::client) async fn get(&self, url: &Endpoint, headers: &HeaderMap) -> Result<(Endpoint, Answer)> {
        let (mut url, mut headers) = (url.clone(), headers.clone());
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.send(&url, Method::GET, headers.clone(), Bytes::new()).await?;
            if !is_redirect(answer.status) {
                return Ok((url, answer));
            }
            let next = url.follow(answer.location.as_deref())?;
            if next.origin != url.origin {
                headers.clear();
            }
            url = next;
        }
        Err(Error::protocol(format!("it redirects more than {REDIRECTS_MAX} times, at last to {url}")))
    }

    /// The answer to a form.
    ///
    /// # Errors
    /// Also a redirect: the secret in the form would go along.
    #[cfg(feature = "oauth2")]
    pub(in crate::client) async fn post(&self, url: &Endpoint, form: String) -> Result<Answer> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let answer = self.send(url, Method::POST, headers, form.into()).await?;
        if is_redirect(answer.status) {
            let text = "it redirects elsewhere, where the client's secret does not go";
            return Err(Error::local(crate::error::ErrorKind::Authentication, text));
        }
        Ok(answer)
    }

    async fn send(&self, url: &Endpoint, method: Method, headers: HeaderMap, body: Bytes) -> Result<Answer> {
        let request = request(url, method, headers, body)?;
        let target = Target::from_key(&url.origin.key());
        let FetchLimits { connect_timeout, read_timeout, body_bytes_max } = self.limits;
        let socket = dial(&TokioRuntime, &self.dialer, &target, connect_timeout).await?;
        let exchange = async { HttpConnection::new(socket, self.hints).await?.send(request, body_bytes_max).await };
        match timeout(&TokioRuntime, read_timeout, exchange).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(NoAnswer::Lost(error) | NoAnswer::Wrong(error))) => Err(error),
            None => Err(Error::network(format!("no answer within {read_timeout:?}"))),
        }
    }
}

fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// What every request has is added to these headers, where they do not say it themselves.
fn request(url: &Endpoint, method: Method, headers: HeaderMap, body: Bytes) -> Result<Request<Full<Bytes>>> {
    let unusable = || Error::protocol("its path is not usable");
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = url.path.parse().map_err(|_| unusable())?;
    *request.headers_mut() = headers;
    let headers = request.headers_mut();
    let host = HeaderValue::try_from(url.origin.host_header()).map_err(|_| unusable())?;
    headers.entry(HOST).or_insert(host);
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(CLIENT_VERSION));
    Ok(request)
}
