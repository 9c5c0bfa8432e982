//! Requests to an identity provider: one connection each, of which there are as many as expiries.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request};

use super::endpoint::Endpoint;
use super::settings::Settings;
use crate::client::dial::{Target, TcpDialer, dial};
use crate::client::http::connection::{Answer, Hints, HttpConnection, NoAnswer};
use crate::client::runtime::{TokioRuntime, timeout};
use crate::error::{Error, ErrorKind, Result};

/// The longest answer that is read, bytes: a discovery document has a few thousand.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// Redirects that a request for the discovery document follows.
const REDIRECTS_MAX: u32 = 5;

const CLIENT_VERSION: &str = concat!("Pulsar-Rust-native-v", env!("CARGO_PKG_VERSION"));

const HINTS: Hints = Hints {
    not_http: "the identity provider does not speak HTTP there; a port for TLS has an https:// URL",
    closed: "the connection was closed without an HTTP answer; a port for TLS, which has an https:// URL, does so",
};

/// What makes the connections. The files of the TLS options are read anew with each one of these, so that certificates that
/// were replaced are seen.
pub(super) struct Exchange {
    dialer: TcpDialer,
    connect_timeout: Duration,
    read_timeout: Duration,
}

impl Exchange {
    pub(super) fn new(settings: &Settings) -> Self {
        let dialer = TcpDialer::new(
            #[cfg(feature = "tls")]
            crate::client::dial::TlsOptions::new(&crate::client::dial::TlsSettings {
                ca_file: settings.ca_file.clone(),
                client_cert: settings.client_cert.clone(),
                ..Default::default()
            }),
            settings.connect_timeout,
        );
        Self { dialer, connect_timeout: settings.connect_timeout, read_timeout: settings.read_timeout }
    }

    /// The answer to a GET, behind the redirects that there are.
    pub(super) async fn get(&self, url: &Endpoint) -> Result<(Endpoint, Answer)> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.send(&url, Method::GET, String::new()).await?;
            if !is_redirect(answer.status) {
                return Ok((url, answer));
            }
            url = url.follow(answer.location.as_deref())?;
        }
        Err(Error::protocol(format!("it redirects more than {REDIRECTS_MAX} times, at last to {url}")))
    }

    /// The answer to a form.
    ///
    /// # Errors
    /// Also a redirect: the secret in the form would go along.
    pub(super) async fn post(&self, url: &Endpoint, form: String) -> Result<Answer> {
        let answer = self.send(url, Method::POST, form).await?;
        if is_redirect(answer.status) {
            let text = "it redirects elsewhere, where the client's secret does not go";
            return Err(Error::local(ErrorKind::Authentication, text));
        }
        Ok(answer)
    }

    async fn send(&self, url: &Endpoint, method: Method, form: String) -> Result<Answer> {
        let request = request(url, method, form)?;
        let target = Target::from_key(&url.origin.key());
        let socket = dial(&TokioRuntime, &self.dialer, &target, self.connect_timeout).await?;
        let exchange = async { HttpConnection::new(socket, HINTS).await?.send(request, BODY_BYTES_MAX).await };
        match timeout(&TokioRuntime, self.read_timeout, exchange).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(NoAnswer::Lost(error) | NoAnswer::Wrong(error))) => Err(error),
            None => Err(Error::network(format!("no answer within {:?}", self.read_timeout))),
        }
    }
}

fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

fn request(url: &Endpoint, method: Method, form: String) -> Result<Request<Full<Bytes>>> {
    let unusable = || Error::protocol("its path is not usable");
    let is_form = method == Method::POST;
    let mut request = Request::new(Full::new(Bytes::from(form)));
    *request.method_mut() = method;
    *request.uri_mut() = url.path.parse().map_err(|_| unusable())?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::try_from(url.origin.host_header()).map_err(|_| unusable())?);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(CLIENT_VERSION));
    if is_form {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    }
    Ok(request)
}
