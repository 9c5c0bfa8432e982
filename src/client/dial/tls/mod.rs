//! TLS over a connection: certificate and host name verified, roots from the system or from a PEM file.
//!
//! | file | what it does |
//! | --- | --- |
//! | `files.rs` | reads the PEM files anew for each connection |
//! | `roots.rs` | takes PEM apart; the system's trust roots |
//! | `verifier.rs` | verifies the peer's certificate; takes one that is itself in `ca_file` |
//! | `socket.rs` | the connection, which tells a refused client certificate from a lost connection |
//! | `reason.rs` | says in a line why a certificate was not accepted |

use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, AlertDescription};

use super::{Socket, Target, TlsPeer, TlsSettings};
use crate::client::observe;
use crate::error::{Error, ErrorKind, Result};

mod files;
mod reason;
mod roots;
mod socket;
mod verifier;

use files::{Setup, TlsFiles};
use socket::SecuredSocket;

const NO_ROUTE: &str = "; the proxy may have no route to this name";

/// What is trusted, and what is shown to the peer.
#[derive(Debug, Clone)]
pub(crate) struct TlsOptions {
    source: Source,
    peer: TlsPeer,
}

#[derive(Debug, Clone)]
enum Source {
    /// Read anew for each connection.
    Files(Arc<TlsFiles>),
    /// The application's own configuration, as it is.
    Config(Arc<rustls::ClientConfig>),
}

impl TlsOptions {
    pub(crate) fn new(settings: &TlsSettings) -> Self {
        let TlsSettings { ca_file, client_cert, skips_host_name, config, peer } = settings.clone();
        let source = match config {
            Some(config) => Source::Config(config),
            None => Source::Files(Arc::new(TlsFiles::new(ca_file, client_cert, skips_host_name))),
        };
        Self { source, peer }
    }

    pub(crate) async fn connect(&self, socket: impl Socket, target: &Target) -> Result<Box<dyn Socket>> {
        let setup = self.setup().await?;
        if let Some(why) = setup.trouble.as_deref().filter(|_| setup.is_news) {
            observe::tls_files_unusable(why);
        }
        let name = ServerName::try_from(target.server_name.to_string()).map_err(|_| {
            let what = format!("{} is not a name that a certificate can carry", target.server_name);
            Error::local(ErrorKind::InvalidArgument, what)
        })?;
        let shows_certificate = setup.config.client_auth_cert_resolver.has_certs();
        let secured = TlsConnector::from(setup.config.clone()).connect(name, socket).await;
        let secured = secured.map_err(|error| setup.handshake_failed(error, target, self.peer))?;
        Ok(Box::new(SecuredSocket::new(secured, self.peer, shows_certificate, setup.trouble)))
    }

    /// Reads the files on a thread that may block.
    async fn setup(&self) -> Result<Setup> {
        match &self.source {
            Source::Config(config) => {
                Ok(Setup { config: config.clone(), unreadable: Arc::new([]), trouble: None, is_news: false })
            }
            Source::Files(files) => {
                let files = files.clone();
                let read = tokio::task::spawn_blocking(move || files.setup()).await;
                let gone = "the runtime shut down before the TLS files were read";
                read.map_err(|_| Error::local(ErrorKind::Closed, gone))?
            }
        }
    }
}

impl Setup {
    /// | the handshake ended with | hint | tried again |
    /// | --- | --- | --- |
    /// | a certificate that is not accepted, of either side | why, and what to do | no: it is not accepted a moment later either |
    /// | an end of the stream, or what is not TLS | the port may be a plain one; a proxy may have no route | yes |
    /// | anything else | none | yes |
    fn handshake_failed(&self, error: std::io::Error, target: &Target, peer: TlsPeer) -> Error {
        let Target { address, server_name, .. } = target;
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        let (hint, is_final) = match cause {
            Some(rustls::Error::InvalidCertificate(reason)) => (format!(": {}", self.reason(reason, peer)), true),
            Some(rustls::Error::AlertReceived(alert)) => {
                let shows_certificate = self.config.client_auth_cert_resolver.has_certs();
                match reason::describe_refusal(*alert, shows_certificate, peer) {
                    Some(refusal) => {
                        return reason::refused(&refusal, peer, self.trouble.as_deref()).with_source(error);
                    }
                    None if *alert == AlertDescription::HandshakeFailure && !shows_certificate => {
                        let wants = format!("; {peer} may want a client's certificate, which `client_cert_file` names");
                        (wants, false)
                    }
                    None => (String::new(), false),
                }
            }
            Some(rustls::Error::InvalidMessage(_)) => (reason::plain_port(peer).to_owned(), false),
            _ if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                let is_direct = address.host == *server_name;
                (if is_direct { reason::plain_port(peer) } else { NO_ROUTE }.to_owned(), false)
            }
            _ => (String::new(), false),
        };
        let outdated = reason::outdated(self.trouble.as_deref());
        let failed = Error::network(format!("no TLS connection to {address} as {server_name}{hint}{outdated}"));
        let failed = if is_final { failed.with_retriable(false) } else { failed };
        failed.with_source(error)
    }

    fn reason(&self, reason: &rustls::CertificateError, peer: TlsPeer) -> String {
        let mut text = reason::describe(reason, peer);
        if *reason == rustls::CertificateError::UnknownIssuer && !self.unreadable.is_empty() {
            text.push_str("; not readable, and so not trusted: ");
            text.push_str(&self.unreadable.join(", "));
        }
        text
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// How long a thread waits for the other.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn options(ca_file: PathBuf) -> TlsOptions {
        TlsOptions::new(&TlsSettings { ca_file: Some(ca_file), ..TlsSettings::default() })
    }

    /// Opens a pipe for writing, which waits for its reader, and fills it once `may_write`; whether that was in time.
    fn fill(pipe: &Path, may_write: &mpsc::Receiver<()>) -> bool {
        let is_in_time = may_write.recv_timeout(PATIENCE).is_ok();
        let certificate = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenario/tls/ca.pem");
        std::fs::write(pipe, std::fs::read(certificate).expect("a certificate")).expect("a pipe");
        is_in_time
    }

    #[tokio::test]
    async fn files_are_read_while_the_other_tasks_go_on() {
        let pipe = std::env::temp_dir().join(format!("pulsar-native-ca-{}", std::process::id()));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success(), "{made}");
        let options = options(pipe.clone());
        let (write, may_write) = mpsc::channel();
        let path = pipe.clone();
        let writer = std::thread::spawn(move || fill(&path, &may_write));
        let go_on = async { write.send(()).is_ok() };
        let (read, _) = tokio::join!(tokio::time::timeout(PATIENCE, options.setup()), go_on);
        std::fs::remove_file(&pipe).expect("the pipe");
        read.expect("in time").expect("a certificate");
        assert!(writer.join().expect("no panic"), "the task was blocked");
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let path = std::env::temp_dir().join(format!("pulsar-native-late-ca-{}", std::process::id()));
        let options = options(path.clone());
        let error = options.setup().await.expect_err("no such file");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenario/tls/ca.pem"), &path).expect("a copy");
        let read = options.setup().await.map(drop);
        std::fs::remove_file(&path).expect("the file");
        read.expect("it is there now");
    }
}
