//! The settings of connections: TLS, authentication, keep-alive, and the identity provider beside the broker.

#[cfg(feature = "tls")]
use std::net::SocketAddr;
#[cfg(feature = "tls")]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "tls")]
use tokio_rustls::rustls::ServerConfig;

use super::EmbeddedBrokerBuilder;
use crate::broker::authentication::AuthenticationProvider;
use crate::broker::commands::OAuth2Client;
#[cfg(feature = "tls")]
use crate::broker::embedded::tls::TlsIdentity;

/// TLS: any one of `tls_config`, `tls_cert_file` and `tls_self_signed` turns it on; the last call counts. The broker then
/// listens for it beside the plain address, and lookups name both. The clients' side is
/// [`ClientBuilder::ca_file`](crate::ClientBuilder::ca_file).
#[cfg(feature = "tls")]
impl EmbeddedBrokerBuilder {
    /// Serves TLS by a configuration of rustls, [`client::rustls`](crate::client::rustls), as it is: certificate, client
    /// certificates, versions. Default no TLS.
    pub fn tls_config(mut self, config: Arc<ServerConfig>) -> Self {
        self.listeners.tls_identity = Some(TlsIdentity::Config(config));
        self
    }

    /// Serves TLS with a certificate, followed by those that sign it, and its key, both PEM. Default no TLS.
    /// [`start`](Self::start) reads the files.
    #[doc(alias("tlsCertificateFilePath", "tlsKeyFilePath"))]
    pub fn tls_cert_file(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.listeners.tls_identity = Some(TlsIdentity::Files { certificate: certificate.into(), key: key.into() });
        self
    }

    /// Serves TLS with a certificate made by [`start`](Self::start), for `localhost`, the loopback addresses and the
    /// address of [`listen`](Self::listen); [`EmbeddedBroker::ca_pem`](crate::broker::EmbeddedBroker::ca_pem) is the authority
    /// to trust. Default no TLS.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use pulsar_native::Client;
    /// use pulsar_native::broker::EmbeddedBroker;
    ///
    /// let broker = EmbeddedBroker::builder().tls_self_signed().start().await?;
    /// let ca_file = std::env::temp_dir().join(format!("ca-{}.pem", std::process::id()));
    /// std::fs::write(&ca_file, broker.ca_pem().expect("made by the broker"))?;
    /// let url = broker.tls_url().expect("TLS is on");
    /// let client = Client::builder(url).ca_file(&ca_file).connect().await?;
    /// client.producer("orders").create().await?.send("one").await?;
    /// # std::fs::remove_file(ca_file)?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "self-signed")]
    pub fn tls_self_signed(mut self) -> Self {
        self.listeners.tls_identity = Some(TlsIdentity::SelfSigned);
        self
    }

    /// The authorities, PEM, whose certificates clients may show over TLS. A client with another one, or one that has
    /// expired, is not let in; one without is, unless
    /// [`tls_require_trusted_client_cert_on_connect`](Self::tls_require_trusted_client_cert_on_connect) is set. Default
    /// none: no client is asked for a certificate. Without effect beside [`tls_config`](Self::tls_config), which says itself
    /// whose certificates it takes. [`start`](Self::start) reads the file.
    #[doc(alias = "tlsTrustCertsFilePath")]
    pub fn tls_trust_certs_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.listeners.clients.trust_certs_file = Some(path.into());
        self
    }

    /// Whether a client needs a certificate to be let in over TLS. Default false.
    #[doc(alias = "tlsRequireTrustedClientCertOnConnect")]
    pub fn tls_require_trusted_client_cert_on_connect(mut self, required: bool) -> Self {
        self.listeners.clients.are_required = required;
        self
    }

    /// Whether clients may authenticate by the certificate that they show over TLS (method `tls`, as with
    /// `AuthenticationProviderTls`): the role is its common name (CN). Default false.
    pub fn tls_authentication(mut self, enabled: bool) -> Self {
        self.config.tls_authentication = enabled;
        self
    }

    /// Where to listen for TLS if that is on. Default a free port of the address of [`listen`](Self::listen).
    pub fn tls_listen(mut self, address: SocketAddr) -> Self {
        self.listeners.tls = Some(address);
        self
    }

    /// Where to listen for HTTPS if [`http`](Self::http) and TLS are on. Default a free port of the address of
    /// [`listen`](Self::listen).
    pub fn https_listen(mut self, address: SocketAddr) -> Self {
        self.listeners.https = Some(address);
        self
    }
}

/// Authentication and liveness.
impl EmbeddedBrokerBuilder {
    /// The secret that HS256 tokens are signed with, of any length (method `token`). Default none. Authentication is on
    /// where there is at least one method, here or by the calls below; each client then has to use one of them.
    #[doc(alias = "tokenSecretKey")]
    pub fn token_secret_key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.config.token_secret_key = Some(key.into());
        self
    }

    /// A user that may authenticate with this password (method `basic`, as with `AuthenticationProviderBasic`); its role is
    /// its name. May be called for each user. Default none.
    #[doc(alias = "basicAuthConf")]
    pub fn basic_user(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.config.basic_users.insert(user.into(), password.into());
        self
    }

    /// A method of authentication of your own, of one step or by challenges (AUTH_CHALLENGE). May be called for each
    /// method. Default none. Over HTTP there are none but the broker's own.
    #[doc(alias = "authenticationProviders")]
    pub fn authentication_provider(mut self, provider: impl AuthenticationProvider) -> Self {
        self.config.authentication_providers.add(Arc::new(provider));
        self
    }

    /// The roles that may do everything, until
    /// [`EmbeddedBroker::set_super_user_roles`](crate::broker::EmbeddedBroker::set_super_user_roles) changes them. Any other may do
    /// what policies grant it ([`PolicySet::grant`](crate::broker::PolicySet::grant)), and is refused all else. Default `admin`
    /// alone. Without effect while authentication is off.
    #[doc(alias = "superUserRoles")]
    pub fn super_user_roles<R: Into<String>>(mut self, roles: impl IntoIterator<Item = R>) -> Self {
        self.config.super_user_roles = roles.into_iter().map(Into::into).collect();
        self
    }

    /// The role of clients that bring no credentials, or those of a method that is off; it may do what policies grant it. Default
    /// none: they are not let in.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use pulsar_native::broker::{AuthAction, EmbeddedBroker};
    /// use pulsar_native::{Client, ErrorKind};
    ///
    /// let broker = EmbeddedBroker::builder()
    ///     .token_secret_key("a secret")
    ///     .anonymous_user_role("anyone")
    ///     .namespace_policies("public/default", |policies| policies.grant("anyone", [AuthAction::Consume]))
    ///     .start()
    ///     .await?;
    /// let client = Client::builder(broker.url()).connect().await?;
    /// client.consumer("orders", "s").subscribe().await?;
    /// let error = client.producer("orders").create().await.expect_err("may only consume");
    /// assert_eq!(error.kind(), ErrorKind::Authorization);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "anonymousUserRole")]
    pub fn anonymous_user_role(mut self, role: impl Into<String>) -> Self {
        self.config.anonymous_user_role = Some(role.into());
        self
    }

    /// Time between checks for expired credentials. Default 60 s.
    #[doc(alias = "authenticationRefreshCheckSeconds")]
    pub fn authentication_refresh_check(mut self, interval: Duration) -> Self {
        self.config.authentication_refresh_check = interval;
        self.refuse_zero("authentication_refresh_check", interval)
    }

    /// Time between PINGs, and how long a handshake may take. Default 30 s.
    #[doc(alias = "keepAliveIntervalSeconds")]
    pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
        self.config.keep_alive_interval = interval;
        self.refuse_zero("keep_alive_interval", interval)
    }

    /// How long a connection may stay silent when another one asks for the name of its producer, or its Exclusive
    /// subscription; after it they are free. Default 5 s.
    #[doc(alias = "connectionLivenessCheckTimeoutMillis")]
    pub fn connection_liveness_check_timeout(mut self, timeout: Duration) -> Self {
        self.config.connection_liveness_check_timeout = timeout;
        self
    }
}

/// An identity provider beside the broker, for clients with [OAuth2](crate::client) credentials:
/// [`oauth2_client`](Self::oauth2_client) turns it on.
impl EmbeddedBrokerBuilder {
    /// Lets a client get tokens of `role` for this id and secret, over HTTP at
    /// [`EmbeddedBroker::issuer_url`](crate::broker::EmbeddedBroker::issuer_url): a discovery
    /// document (`/.well-known/openid-configuration`) and a token endpoint (`client_secret_post`). Turns [`http`](Self::http)
    /// on, and authentication: without a [`token_secret_key`](Self::token_secret_key) there is a random one. May be called
    /// for several clients. Default: none, and no provider.
    ///
    /// ```
    /// # #[cfg(feature = "oauth2")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use pulsar_native::broker::EmbeddedBroker;
    /// use pulsar_native::{Client, OAuth2};
    ///
    /// let broker = EmbeddedBroker::builder().oauth2_client("billing", "a secret", "admin").start().await?;
    /// let issuer = broker.issuer_url().expect("there is a client");
    /// let key_file = r#"data:application/json,{"client_id":"billing","client_secret":"a secret"}"#;
    /// let oauth2 = OAuth2::client_credentials(issuer, key_file);
    /// let client = Client::builder(broker.url()).authentication(oauth2).connect().await?;
    /// client.producer("orders").create().await?.send("one").await?;
    /// assert_eq!(broker.oauth2_token_requests(), 1);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "oauth2"))]
    /// # fn main() {}
    /// ```
    pub fn oauth2_client(
        mut self,
        client_id: impl Into<String>,
        client_secret: impl Into<String>,
        role: impl Into<String>,
    ) -> Self {
        let client = OAuth2Client { secret: client_secret.into(), role: role.into() };
        self.config.identity_provider.clients.insert(client_id.into(), client);
        self.config.token_secret_key.get_or_insert_with(random_key);
        self.http(true)
    }

    /// The audience that a request for a token has to name; any other is refused (`invalid_target`). Default: any, or none.
    pub fn oauth2_audience(mut self, audience: impl Into<String>) -> Self {
        self.config.identity_provider.audience = Some(audience.into());
        self
    }

    /// How long a token is good (`expires_in`), rounded up to a whole second. Default 1 hour.
    pub fn oauth2_token_lifetime(mut self, lifetime: Duration) -> Self {
        self.config.identity_provider.token_lifetime = lifetime;
        self
    }
}

/// The certificate and its key, for [`setting`](Self::setting), which hears of them one by one.
#[cfg(feature = "tls")]
impl EmbeddedBrokerBuilder {
    pub(in super::super) fn tls_certificate_file(mut self, path: PathBuf) -> Self {
        let (_, key) = self.tls_files();
        self.listeners.tls_identity = Some(TlsIdentity::Files { certificate: path, key });
        self
    }

    pub(in super::super) fn tls_key_file(mut self, path: PathBuf) -> Self {
        let (certificate, _) = self.tls_files();
        self.listeners.tls_identity = Some(TlsIdentity::Files { certificate, key: path });
        self
    }

    /// Those named so far; empty paths for none.
    fn tls_files(&mut self) -> (PathBuf, PathBuf) {
        match self.listeners.tls_identity.take() {
            Some(TlsIdentity::Files { certificate, key }) => (certificate, key),
            _ => (PathBuf::new(), PathBuf::new()),
        }
    }
}

/// 32 bytes of the random keys that the standard library has for its hash tables.
fn random_key() -> Vec<u8> {
    use std::hash::{BuildHasher, Hasher};
    let word = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    (0..4).flat_map(|_| word().to_be_bytes()).collect()
}
