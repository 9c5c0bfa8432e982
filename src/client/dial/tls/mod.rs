//! TLS over a TCP connection: certificate and host name verified, roots from the system or from a PEM file.
//!
//! | file | what it does |
//! | --- | --- |
//! | `roots.rs` | reads PEM files and the system's trust roots |
//! | `verifier.rs` | verifies the peer's certificate; takes one that is itself in `ca_file` |
//! | `reason.rs` | says in a line why a certificate was not accepted |

use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, crypto};

use super::{ClientCertFiles, Socket, Target};
use crate::error::{Error, ErrorKind, Result};

mod reason;
mod roots;
mod verifier;

use roots::{Roots, read_client_cert, unusable};
use verifier::ServerVerifier;

const PLAIN_PORT: &str = "; if this is a plain port, use pulsar://, or http:// for a web port";
const NO_ROUTE: &str = "; the proxy may have no route to this name";

/// What is trusted, and what is shown to the peer. The files are read when the first connection needs them.
#[derive(Debug, Default)]
pub(crate) struct TlsOptions {
    files: Files,
    setup: OnceCell<Setup>,
}

#[derive(Debug, Clone, Default)]
struct Files {
    ca_file: Option<PathBuf>,
    client_cert: Option<ClientCertFiles>,
}

/// What the files came to.
#[derive(Debug, Clone)]
struct Setup {
    config: Arc<ClientConfig>,
    /// Certificates of `ca_file` that could not be read, for the error of a connection that may have needed them.
    unreadable: Arc<[String]>,
}

impl TlsOptions {
    /// Trusts the certificates in `ca_file` (PEM), or the system's roots without one.
    pub(crate) fn new(ca_file: Option<PathBuf>, client_cert: Option<ClientCertFiles>) -> Self {
        Self { files: Files { ca_file, client_cert }, setup: OnceCell::new() }
    }

    /// The application's own configuration, as it is.
    pub(crate) fn with_config(config: Arc<ClientConfig>) -> Self {
        let setup = Setup { config, unreadable: Arc::new([]) };
        Self { setup: OnceCell::from(setup), ..Self::default() }
    }

    pub(super) async fn connect(&self, socket: TcpStream, target: &Target) -> Result<Box<dyn Socket>> {
        let setup = self.setup().await?;
        let name = ServerName::try_from(target.server_name.to_string()).map_err(|_| {
            let what = format!("{} is not a name that a certificate can carry", target.server_name);
            Error::local(ErrorKind::InvalidArgument, what)
        })?;
        let secured = TlsConnector::from(setup.config.clone()).connect(name, socket).await;
        Ok(Box::new(secured.map_err(|error| setup.handshake_failed(error, target))?))
    }

    /// Reads the files once, on a thread that may block; after a failure again.
    async fn setup(&self) -> Result<&Setup> {
        let read = || async {
            let files = self.files.clone();
            let read = tokio::task::spawn_blocking(move || files.read()).await;
            read.map_err(|_| Error::local(ErrorKind::Closed, "the runtime shut down before the TLS files were read"))?
        };
        self.setup.get_or_try_init(read).await
    }
}

impl Files {
    fn read(&self) -> Result<Setup> {
        let roots = match &self.ca_file {
            Some(path) => Roots::of_file(path)?,
            None => Roots::of_system()?,
        };
        let provider = Arc::new(crypto::ring::default_provider());
        let verifier = ServerVerifier::new(roots.store, roots.pinned, provider.clone())?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::local(ErrorKind::Unsupported, "TLS is not available").with_source(error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match &self.client_cert {
            None => config.with_no_client_auth(),
            Some(files) => {
                let (chain, key) = read_client_cert(files)?;
                config.with_client_auth_cert(chain, key).map_err(|error| unusable(&files.key).with_source(error))?
            }
        };
        Ok(Setup { config: Arc::new(config), unreadable: roots.unreadable.into() })
    }
}

impl Setup {
    /// | the handshake ended with | hint | tried again |
    /// | --- | --- | --- |
    /// | a certificate that is not accepted | why, and what to do | no: it is not accepted a moment later either |
    /// | an end of the stream, or what is not TLS | the port may be a plain one; a proxy may have no route | yes |
    /// | anything else | none | yes |
    fn handshake_failed(&self, error: std::io::Error, target: &Target) -> Error {
        let Target { address, server_name, .. } = target;
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        let (hint, is_final) = match cause {
            Some(rustls::Error::InvalidCertificate(reason)) => (format!(": {}", self.reason(reason)), true),
            Some(rustls::Error::InvalidMessage(_)) => (PLAIN_PORT.to_owned(), false),
            _ if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                let is_direct = address.host == *server_name;
                (if is_direct { PLAIN_PORT } else { NO_ROUTE }.to_owned(), false)
            }
            _ => (String::new(), false),
        };
        let failed = Error::network(format!("no TLS connection to {address} as {server_name}{hint}"));
        let failed = if is_final { failed.with_retriable(false) } else { failed };
        failed.with_source(error)
    }

    fn reason(&self, reason: &rustls::CertificateError) -> String {
        let mut text = reason::describe(reason);
        if *reason == rustls::CertificateError::UnknownIssuer && !self.unreadable.is_empty() {
            text.push_str("; not readable, and so not trusted: ");
            text.push_str(&self.unreadable.join(", "));
        }
        text
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::path::Path;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// How long a thread waits for the other.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Opens a pipe for writing, which waits for its reader, and fills it once `may_write`; whether that was in time.
    fn fill(pipe: &Path, may_write: &mpsc::Receiver<()>) -> bool {
        let is_in_time = may_write.recv_timeout(PATIENCE).is_ok();
        let certificate = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenario/tls/ca.pem");
        std::fs::write(pipe, std::fs::read(certificate).expect("a certificate")).expect("a pipe");
        is_in_time
    }

    #[tokio::test]
    async fn files_are_read_once_while_the_other_tasks_go_on() {
        let pipe = std::env::temp_dir().join(format!("pulsar-native-ca-{}", std::process::id()));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success(), "{made}");
        let options = TlsOptions::new(Some(pipe.clone()), None);
        let (write, may_write) = mpsc::channel();
        let path = pipe.clone();
        let writer = std::thread::spawn(move || fill(&path, &may_write));
        // A second reader would wait for a second writer.
        let both = async { tokio::try_join!(options.setup(), options.setup()) };
        let go_on = async { write.send(()).is_ok() };
        let (both, _) = tokio::join!(tokio::time::timeout(PATIENCE, both), go_on);
        if both.is_err() {
            std::fs::write(&pipe, "").expect("the second reader");
        }
        std::fs::remove_file(&pipe).expect("the pipe");
        both.expect("one reader").expect("a certificate");
        assert!(writer.join().expect("no panic"), "the task was blocked");
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let path = std::env::temp_dir().join(format!("pulsar-native-late-ca-{}", std::process::id()));
        let options = TlsOptions::new(Some(path.clone()), None);
        let error = options.setup().await.expect_err("no such file");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenario/tls/ca.pem"), &path).expect("a copy");
        let read = options.setup().await.map(drop);
        std::fs::remove_file(&path).expect("the file");
        read.expect("it is there now");
    }
}
