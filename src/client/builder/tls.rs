//! TLS in the configuration of a client.

use std::path::PathBuf;
#[cfg(feature = "tls")]
use std::sync::Arc;

use super::ClientBuilder;
use crate::client::dial::ClientCertFiles;

/// TLS: for `pulsar+ssl://` and `https://`, to brokers, proxies and the REST interface alike.
///
/// The cryptography is that which the application has installed for its process
/// ([`CryptoProvider::install_default`](crate::client::rustls::crypto::CryptoProvider::install_default)); without it, that of the
/// crate feature `ring`, which is on by default, or of `aws-lc-rs` where that one is off.
#[cfg_attr(not(feature = "tls"), allow(rustdoc::broken_intra_doc_links, reason = "rustls is not there"))]
impl ClientBuilder {
    /// A PEM file with the certificates to trust. Default: the system's trust roots, read once for a client. The peer's
    /// certificate is always verified, and its host name unless
    /// [`danger_skip_hostname_verification`](Self::danger_skip_hostname_verification) is called. Needs the crate feature
    /// `tls`.
    ///
    /// The file is read for each new connection, so that one that is replaced is in use from the next connection on. While
    /// what it holds then is not usable, its former content stays in use: that is a warning of the crate feature `tracing`,
    /// and is added to the error of a connection that fails. The first time, a certificate in it that cannot be read is
    /// skipped, and named in the error of a connection that may have needed it. A broker may show a certificate of this file
    /// as its own, also one of an authority (CA:TRUE), as `openssl req -x509` makes it.
    #[doc(alias = "tlsTrustCertsFilePath")]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.ca_file = Some(path.into());
        self
    }

    /// PEM files with the certificate that the client shows to a broker (its own first, then those of the authorities
    /// between it and the root), and with its private key. Default: none is shown. Needs the crate feature `tls`.
    ///
    /// A broker with `AuthenticationProviderTls` takes the client's role from the certificate's common name (CN), if the
    /// client says so: [`TlsAuthentication`](crate::client::TlsAuthentication). Without that the certificate only lets in, and tokens
    /// or a password authenticate it.
    ///
    /// The files are read for each new connection, as those of [`ca_file`](Self::ca_file): a certificate that is renewed
    /// beside a running client, with its key, is in use from the next connection on. Connections that are up stay. While
    /// the two do not belong together or one of them is half written, the former pair stays in use.
    ///
    /// ```
    /// use pulsar_native::{Client, TlsAuthentication};
    ///
    /// let builder = Client::builder("pulsar+ssl://broker.example.com:6651")
    ///     .ca_file("/etc/pulsar/ca.crt")
    ///     .client_cert_file("/etc/pulsar/tls.crt", "/etc/pulsar/tls.key")
    ///     .authentication(TlsAuthentication);
    /// # drop(builder);
    /// ```
    #[doc(alias = "tlsCertificateFilePath")]
    #[doc(alias = "tlsKeyFilePath")]
    pub fn client_cert_file(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls.client_cert = Some(ClientCertFiles { certificate: certificate.into(), key: key.into() });
        self
    }

    /// Takes a certificate of the peer for any host. **What is lost:** each holder of a certificate that a trusted authority
    /// has signed, for whatever host, can stand between the client and the broker and read and change everything,
    /// credentials included. With the system's trust roots that is anyone. The chain and its validity are still verified,
    /// so with a [`ca_file`](Self::ca_file) of an authority that signs nothing but brokers it is those brokers.
    ///
    /// Default: the host name is verified. The Java client leaves it out by default (`enableTlsHostnameVerification` is
    /// false). Better where the names do not fit: a certificate with the right ones, or another listener of the broker
    /// ([`listener_name`](Self::listener_name)). Needs the crate feature `tls`.
    #[doc(alias = "enableTlsHostnameVerification")]
    #[doc(alias = "tlsHostnameVerificationEnable")]
    pub fn danger_skip_hostname_verification(mut self) -> Self {
        self.tls.skips_host_name = true;
        self
    }

    /// The whole TLS configuration for `pulsar+ssl://`, instead of [`ca_file`](Self::ca_file),
    /// [`client_cert_file`](Self::client_cert_file) and
    /// [`danger_skip_hostname_verification`](Self::danger_skip_hostname_verification). Its type is that of rustls 0.23,
    /// re-exported as [`client::rustls`](crate::client::rustls). It is used as it is, and nothing is read anew. Default:
    /// made from those options.
    ///
    /// What has no option here goes this way: a key in a hardware module, other versions of TLS, certificates that are not
    /// verified at all (`tlsAllowInsecureConnection` of the Java client, for tests only).
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use pulsar_native::Client;
    /// use pulsar_native::client::rustls::crypto::ring;
    /// use pulsar_native::client::rustls::{ClientConfig, RootCertStore, version};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
    ///     .with_protocol_versions(&[&version::TLS13])?
    ///     .with_root_certificates(RootCertStore::empty())
    ///     .with_no_client_auth();
    /// let builder = Client::builder("pulsar+ssl://broker.example.com:6651").tls_config(Arc::new(config));
    /// # drop(builder);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls_config(mut self, config: Arc<crate::client::rustls::ClientConfig>) -> Self {
        self.tls.config = Some(config);
        self
    }
}
