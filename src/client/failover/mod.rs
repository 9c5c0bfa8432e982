//! Several clusters behind one client: which one is used, and what decides that.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | a cluster; the trait of what decides |
//! | `control.rs` | the switch |
//! | `auto.rs` | the next cluster when the one in use cannot be reached |
//! | `follow.rs` | the cluster that is named from outside |
//! | `controlled.rs`, `answer.rs` | the cluster that a web server names, and its answer |

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use super::auth::Authentication;
use super::dial::{ClientCertFiles, TlsSettings};

#[cfg(feature = "http")]
pub(crate) mod answer;
mod auto;
mod control;
#[cfg(feature = "http")]
mod controlled;
#[cfg(any(feature = "http", feature = "sim"))]
pub(crate) mod follow;

pub use auto::AutoClusterFailover;
pub use control::ServiceUrlControl;
pub(crate) use control::Switch;
#[cfg(feature = "http")]
pub use controlled::ControlledClusterFailover;

/// A cluster that a client can use: its service URL, and where they differ from the client's own, its credentials and
/// TLS options.
///
/// ```
/// use pulsar_native::{Cluster, Token};
///
/// let cluster = Cluster::new("pulsar+ssl://east.example.com:6651")
///     .authentication(Token::new("the token of that cluster"))
///     .ca_file("east.pem");
/// ```
#[derive(Clone)]
#[must_use = "a cluster is used once it is given to a client"]
pub struct Cluster {
    pub(super) service_url: String,
    pub(super) authentication: Option<Arc<dyn Authentication>>,
    /// `None`: those of the builder.
    pub(super) tls: Option<TlsSettings>,
    #[cfg(feature = "http")]
    pub(super) admin_url: Option<String>,
}

impl Cluster {
    /// The cluster at this service URL, of any form that [`Client::builder`](super::Client::builder) takes. What is not set
    /// here is as the client's builder has it.
    pub fn new(service_url: impl Into<String>) -> Self {
        Self {
            service_url: service_url.into(),
            authentication: None,
            tls: None,
            #[cfg(feature = "http")]
            admin_url: None,
        }
    }

    /// Where the credentials for this cluster come from. Default: those of the client's builder.
    #[doc(alias = "secondaryAuthentication")]
    pub fn authentication(self, authentication: impl Authentication) -> Self {
        self.shared_authentication(Arc::new(authentication))
    }

    pub(super) fn shared_authentication(mut self, authentication: Arc<dyn Authentication>) -> Self {
        self.authentication = Some(authentication);
        self
    }

    /// As [`ClientBuilder::ca_file`](super::ClientBuilder::ca_file), for this cluster. Default: the TLS options of the
    /// client's builder; with any TLS option here, none of those is used.
    #[doc(alias = "secondaryTlsTrustCertsFilePath")]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.get_or_insert_default().ca_file = Some(path.into());
        self
    }

    /// As [`ClientBuilder::client_cert_file`](super::ClientBuilder::client_cert_file), for this cluster. Default: as for
    /// [`ca_file`](Self::ca_file).
    pub fn client_cert_file(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let files = ClientCertFiles { certificate: certificate.into(), key: key.into() };
        self.tls.get_or_insert_default().client_cert = Some(files);
        self
    }

    /// As [`ClientBuilder::tls_config`](super::ClientBuilder::tls_config), for this cluster. Default: as for
    /// [`ca_file`](Self::ca_file).
    #[cfg(feature = "tls")]
    pub fn tls_config(mut self, config: Arc<super::rustls::ClientConfig>) -> Self {
        self.tls.get_or_insert_default().config = Some(config);
        self
    }

    /// As [`ClientBuilder::admin_url`](super::ClientBuilder::admin_url), for this cluster. Default: the service URL if it is
    /// `http://` or `https://`, else none.
    #[cfg(feature = "http")]
    pub fn admin_url(mut self, url: impl Into<String>) -> Self {
        self.admin_url = Some(url.into());
        self
    }

    /// The service URL, as it was given.
    pub fn service_url(&self) -> &str {
        &self.service_url
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = crate::machine::supervisor::service_url::shown(&self.service_url);
        write!(f, "Cluster({url})")
    }
}

/// The future of [`ServiceUrlProvider::run`].
pub type ServiceUrlFuture<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Decides which cluster a client uses: given to
/// [`ClientBuilder::service_url_provider`](super::ClientBuilder::service_url_provider). [`AutoClusterFailover`] is one, `ControlledClusterFailover`
/// (crate feature `http`) another.
///
/// ```
/// use std::time::Duration;
///
/// use pulsar_native::client::{ServiceUrlControl, ServiceUrlFuture, ServiceUrlProvider};
/// use pulsar_native::{Client, Cluster};
///
/// /// Reads the service URL from a file, once in a minute.
/// struct FromFile(std::path::PathBuf);
///
/// impl ServiceUrlProvider for FromFile {
///     fn run(&self, control: ServiceUrlControl) -> ServiceUrlFuture<'_> {
///         Box::pin(async move {
///             loop {
///                 control.sleep(Duration::from_secs(60)).await;
///                 let Ok(url) = std::fs::read_to_string(&self.0) else { continue };
///                 if url.trim() != control.current().service_url() {
///                     let _ = control.switch_to(Cluster::new(url.trim()));
///                 }
///             }
///         })
///     }
/// }
///
/// let builder = Client::builder("pulsar://localhost:6650").service_url_provider(FromFile("service-url".into()));
/// # drop(builder);
/// ```
pub trait ServiceUrlProvider: Send + Sync + 'static {
    /// Runs as a task of the client, from its start until it is closed; then the future is dropped. It may end earlier: the
    /// client stays with the cluster in use. It must not block. A panic ends it like that, too.
    fn run(&self, control: ServiceUrlControl) -> ServiceUrlFuture<'_>;
}
