//! The cluster that a web server names.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::answer::Answer;
use super::follow::{NamesCluster, follow};
use super::{Cluster, ServiceUrlControl, ServiceUrlFuture, ServiceUrlProvider};
use crate::client::dial::{TlsPeer, TlsSettings};
use crate::client::http::connection::Hints;
use crate::client::http::endpoint::Endpoint;
use crate::client::http::fetch::{FetchLimits, Fetcher};
use crate::client::observe;
use crate::client::user_code::catch_panic;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::supervisor::service_url::shown;

/// What bounds a request: the times are those of the Java client.
const LIMITS: FetchLimits = FetchLimits {
    connect_timeout: Duration::from_secs(10),
    read_timeout: Duration::from_secs(30),
    body_bytes_max: 64 * 1024,
};

const HINTS: Hints = Hints {
    not_http: "it does not speak HTTP; a port for TLS has an https:// URL",
    closed: "the connection was closed without an HTTP answer; a port for TLS, which has an https:// URL, does so",
};

type OnError = dyn Fn(&Error) + Send + Sync;

/// Uses the cluster that a web server names: a [`ServiceUrlProvider`] with the rules of the Java client's
/// `ControlledClusterFailover` (PIP-121).
///
/// The client begins with the cluster of its builder. After each [interval](Self::check_interval) it asks the server by a
/// GET, whose answer is a JSON object, and [switches](ServiceUrlControl::switch_to) when that differs from the one
/// before:
///
/// | member | what |
/// | --- | --- |
/// | `serviceUrl` | the service URL to use |
/// | `tlsTrustCertsFilePath` | the PEM file of [`ClientBuilder::ca_file`](crate::client::ClientBuilder::ca_file), on the client's machine |
/// | `authPluginClassName`, `authParamsString` | a method of authentication by its name in the Java client, and its parameters as `client.conf` has them: `AuthenticationToken`, `AuthenticationBasic`, `AuthenticationTls`, `oauth2.AuthenticationOAuth2` (crate feature `oauth2`) or `AuthenticationDisabled`, behind `org.apache.pulsar.client.impl.auth.` |
/// | `token` | a token, in place of these two; the Java client does not know it |
///
/// What is missing or blank, and one of the two in the third line without the other, is as the client's builder has it.
/// Other members are ignored. (The Java client keeps what an earlier answer has set.) The first answer changes nothing
/// if it names the cluster of the builder.
///
/// Where there is no answer, or no usable one, the client stays with its cluster, and asks again after the interval:
/// [`on_error`](Self::on_error) is told, and the crate feature `tracing` has a warning for each new failure. A connection
/// may take 10 s, an answer 30 s and 64 KiB. Up to five redirects are followed, none from `https://` to `http://`; the
/// [headers](Self::header) go to the server of the URL alone. The client's
/// [dialer](crate::client::ClientBuilder::dialer) is not used for it.
///
/// **The server is trusted with the client's credentials**, which go to the brokers that it names: it should be reached by
/// `https://`. Neither the credentials of an answer nor the headers are shown in `Debug`, in an error or in a log. Needs the
/// crate feature `http`, and for `https://` also `tls`.
///
/// ```
/// use std::time::Duration;
///
/// use pulsar_native::{Client, ControlledClusterFailover};
///
/// # fn main() -> Result<(), pulsar_native::Error> {
/// let failover = ControlledClusterFailover::new("http://clusters.example.com/current")?
///     .header("Authorization", "Bearer of this application")?
///     .check_interval(Duration::from_secs(10))
///     .on_error(|error| eprintln!("{error}"));
/// let builder = Client::builder("pulsar://east:6650").service_url_provider(failover);
/// # drop(builder);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "it works once it is given to a client's builder"]
pub struct ControlledClusterFailover {
    url: Endpoint,
    headers: HeaderMap,
    ca_file: Option<PathBuf>,
    check_interval: Duration,
    on_error: Option<Arc<OnError>>,
}

impl ControlledClusterFailover {
    /// With the `http://` or `https://` URL of the server's answer.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: it is no such URL.
    /// - [`ErrorKind::Unsupported`]: an `https://` URL in a build without `tls`.
    #[doc(alias = "urlProvider")]
    pub fn new(url: impl AsRef<str>) -> Result<Self> {
        let url = Endpoint::parse(url.as_ref()).map_err(|what| {
            let text =
                format!("the URL `{}` of the provider of service URLs is not usable: {what}", shown(url.as_ref()));
            Error::local(ErrorKind::InvalidArgument, text)
        })?;
        if url.origin.tls {
            TlsSettings::needs_tls("an https:// URL of a provider of service URLs")?;
        }
        Ok(Self {
            url,
            headers: HeaderMap::new(),
            ca_file: None,
            check_interval: Duration::from_secs(30),
            on_error: None,
        })
    }

    /// One more header of the request, such as `Authorization`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`]: the name or the value has characters that none may have. The value is not in it.
    #[doc(alias = "urlProviderHeader")]
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Result<Self> {
        let unusable = |what: &str| {
            let text = format!("a header for the provider of service URLs has a {what} that none may have");
            Error::local(ErrorKind::InvalidArgument, text)
        };
        let name = HeaderName::from_bytes(name.as_ref().as_bytes()).map_err(|_| unusable("name"))?;
        let mut value = HeaderValue::from_str(value.as_ref()).map_err(|_| unusable("value"))?;
        value.set_sensitive(true);
        self.headers.append(name, value);
        Ok(self)
    }

    /// A PEM file with the certificates to trust for an `https://` URL. Default: the system's trust roots; what the brokers'
    /// certificates are verified with does not count.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// How long after an answer the server is asked again. Default: 30 s. An interval of less than a millisecond counts as
    /// one.
    pub fn check_interval(mut self, interval: Duration) -> Self {
        self.check_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Is called after each interval without a usable answer, and when the cluster that is named cannot be used. It must not
    /// block. A panic in it has no effect. Default: nothing is called.
    pub fn on_error(mut self, told: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(told));
        self
    }

    async fn tell(&self, error: &Error) {
        if let Some(told) = &self.on_error {
            let _ = catch_panic(|| async { told(error) }).await;
        }
    }
}

impl ServiceUrlProvider for ControlledClusterFailover {
    fn run(&self, control: ServiceUrlControl) -> ServiceUrlFuture<'_> {
        Box::pin(async move {
            let peer = TlsPeer::WebServer("the provider of service URLs");
            let tls = TlsSettings { ca_file: self.ca_file.clone(), peer, ..Default::default() };
            let fetcher = Fetcher::new(&tls, LIMITS, HINTS);
            let used = Answer::of_url(control.current().service_url());
            let mut asked = Asked { failover: self, fetcher, last_failure: None };
            follow(&mut asked, &control, self.check_interval, used).await;
        })
    }
}

/// The web server, as one client asks it.
struct Asked<'a> {
    failover: &'a ControlledClusterFailover,
    fetcher: Fetcher,
    /// Why the last question had no usable answer.
    last_failure: Option<String>,
}

impl NamesCluster for Asked<'_> {
    type Answer = Answer;

    async fn ask(&mut self) -> Result<Answer> {
        let (_, answer) = self.fetcher.get(&self.failover.url, &self.failover.headers).await?;
        Answer::read(answer.status, &answer.body)
    }

    fn cluster(&self, answer: &Answer, control: &ServiceUrlControl) -> Result<Cluster> {
        answer.cluster(control.tls())
    }

    async fn told(&mut self, result: Result<()>) {
        let Err(error) = result else {
            self.last_failure = None;
            return;
        };
        let (kind, is_retriable) = (error.kind(), error.is_retriable());
        let what = format!("the provider of service URLs at {} gives no cluster to use", self.failover.url);
        let error = Error::local(kind, what).with_retriable(is_retriable).with_source(error);
        let text = error.to_string();
        if self.last_failure.as_ref() != Some(&text) {
            observe::no_cluster_to_use(&text);
        }
        self.last_failure = Some(text);
        self.failover.tell(&error).await;
    }
}

impl fmt::Debug for ControlledClusterFailover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlledClusterFailover")
            .field("url", &format_args!("{}", self.url))
            .field("ca_file", &self.ca_file)
            .field("check_interval", &self.check_interval)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let failover = ControlledClusterFailover::new("http://a/b?key=hunter2").expect("a URL");
        let failover = failover.header("Authorization", "hunter2").expect("a header");
        let text = format!("{failover:?}");
        assert!(text.contains("http://a:80/b") && !text.contains("hunter2"), "{text}");
        for (name, value) in [("a b", "hunter2"), ("a", "hunter2\n")] {
            let error = failover.clone().header(name, value).expect_err("no header");
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        for url in ["", "pulsar://a", "http://me:hunter2@a/", "hunter2?hunter2"] {
            let error = ControlledClusterFailover::new(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
        let error = ControlledClusterFailover::new("http://me:hunter2@a/").expect_err("a user");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
