//! Tokens of an identity provider, by the client credentials grant of OAuth 2.0 (RFC 6749, section 4.4).
//!
//! | file | what |
//! | --- | --- |
//! | `settings.rs` | what an application sets, and the same as JSON |
//! | `key_file.rs` | the client's id and secret |
//! | `discovery.rs`, `form.rs`, `answer.rs` | URLs, forms and answers, without I/O |
//! | `cache.rs` | how long a token is used, without I/O and clock |
//! | `tokens.rs` | one request at a time, shared by all that wait |

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::key_file::KeySource;
use self::settings::{Client, DEFAULT_CLIENT_ID, Settings};
use self::tokens::Tokens;
use super::auth::{Authentication, CredentialsFuture};
use super::dial::ClientCertFiles;
use crate::error::Result;
use crate::machine::control::{AuthContext, AuthData};
use crate::machine::supervisor::service_url::shown;

mod answer;
mod cache;
mod discovery;
mod form;
mod key_file;
mod settings;
mod tokens;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

/// OAuth 2.0: tokens that an identity provider gives for the client credentials of a service account, as hosted Pulsar
/// has it. It is shown to brokers as a [`Token`](super::Token) is (auth method `token`).
///
/// ```
/// use pulsar_native::{Client, OAuth2};
///
/// let oauth2 = OAuth2::client_credentials("https://auth.streamnative.cloud", "/path/to/key-file.json")
///     .audience("urn:sn:pulsar:o-example:instance");
/// let builder = Client::builder("pulsar+ssl://cluster.o-example.streamnative.cloud:6651").authentication(oauth2);
/// # drop(builder);
/// ```
///
/// The discovery document of the issuer (`/.well-known/openid-configuration`) names the token endpoint; that it names
/// the same issuer is not checked, as in the Java client. Redirects are followed to the document, not with the secret:
/// an endpoint that redirects the request for a token is an error. No secret goes to `http://` where the issuer is
/// `https://`.
///
/// **One token serves all connections of all copies of a source.** It is asked for when the first connection needs it, and
/// again once a broker says that it has expired (AUTH_CHALLENGE), or a new connection is made after its end by this
/// process's monotonic clock: the wall clock does not count. Connections that need one at the same time make one request. In
/// the last part of its lifetime ([`early_refresh`](Self::early_refresh)) a new connection gets a new token; if none comes
/// within 5 s, the old one. There is no task in between: a source that nothing asks sends nothing.
///
/// **Failures.** What the provider refuses (`invalid_client` ...) is an error of kind
/// [`Authentication`](crate::ErrorKind::Authentication), final, in one line with the provider's own words. A provider that
/// cannot be reached, or answers with status 408, 429 or 5xx, is an error of kind [`Connection`](crate::ErrorKind::Connection),
/// tried again with back-off: by the client for a new connection, by this source for a challenge, until the
/// [operation timeout](super::ClientBuilder::operation_timeout). The key file and certificates are read for each request,
/// so those that are replaced are seen. Needs the crate feature `oauth2`; an `https://` issuer also `tls`.
///
/// No secret and no token is shown in `Debug`, in an error or in a log.
#[doc(alias("AuthenticationOAuth2", "AuthenticationFactoryOAuth2", "oidc"))]
#[derive(Clone)]
#[must_use = "it asks for nothing before a client has it"]
pub struct OAuth2 {
    settings: Settings,
    tokens: Arc<Tokens>,
}

impl OAuth2 {
    /// Id and secret are in a key file, JSON with `client_id` and `client_secret`, as consoles of hosted Pulsar give it; other
    /// fields are ignored. It is named by its path, also as `file:///path`, or is itself a
    /// `data:application/json;base64,...` URL. It is read when a token is needed, and may have 64 KiB.
    #[doc(alias = "credentialsUrl")]
    #[doc(alias = "privateKey")]
    pub fn client_credentials(issuer_url: impl Into<String>, key_file: impl AsRef<str>) -> Self {
        Self::with_settings(Settings::new(issuer_url.into(), Client::Key(KeySource::new(key_file.as_ref()))))
    }

    /// The certificate of the connection to the token endpoint stands for a secret (`tls_client_auth`, RFC 8705): PEM files
    /// with it and its private key. There is no key file; the id is that of [`client_id`](Self::client_id).
    #[doc(alias = "tokenEndpointAuthMethod")]
    pub fn tls_client_auth(
        issuer_url: impl Into<String>,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        let settings = Settings::new(issuer_url.into(), Client::Certificate(DEFAULT_CLIENT_ID.to_owned()));
        Self::with_settings(settings).client_cert_file(certificate, key)
    }

    /// The settings as `client.conf` has them (`authParams` of the Java client's `AuthenticationOAuth2`): a JSON object with
    /// `issuerUrl`, `privateKey`, `audience`, `scope`, `connectTimeout`, `readTimeout`, `trustCertsFilePath`, `tlsCertFile`,
    /// `tlsKeyFile`, `wellKnownMetadataPath`, `earlyTokenRefreshPercent`, `tokenEndpointAuthMethod` and `clientId`. Also
    /// taken are `issuer_url` and `private_key`, as the Python client has them; others are ignored.
    ///
    /// ```
    /// use pulsar_native::OAuth2;
    ///
    /// let params = r#"{"issuerUrl":"https://issuer.example.com","privateKey":"file:///key.json","audience":"urn:pulsar"}"#;
    /// let oauth2 = OAuth2::from_params(params).expect("good parameters");
    /// # drop(oauth2);
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument): not JSON, a missing or an unusable value.
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): certificates in a build without `tls`.
    pub fn from_params(params: impl AsRef<str>) -> Result<Self> {
        Ok(Self::with_settings(Settings::from_params(params.as_ref())?))
    }

    fn with_settings(settings: Settings) -> Self {
        Self { settings, tokens: Arc::new(Tokens::new(super::builder::random_seed())) }
    }

    /// The resource that the token is for (`audience` of the request), a URN or a URL that the operator of the brokers
    /// names. Default: none is sent.
    pub fn audience(self, audience: impl Into<String>) -> Self {
        self.with(|settings| settings.audience = Some(audience.into()))
    }

    /// What the token is to allow (`scope` of the request): names with spaces between. Default: none is sent.
    pub fn scope(self, scope: impl Into<String>) -> Self {
        self.with(|settings| settings.scope = Some(scope.into()))
    }

    /// The id of the client where its certificate is the secret ([`tls_client_auth`](Self::tls_client_auth)). Default:
    /// `pulsar-client`. Without effect where there is a key file, which has the id.
    pub fn client_id(self, id: impl Into<String>) -> Self {
        self.with(|settings| {
            if let Client::Certificate(own) = &mut settings.client {
                *own = id.into();
            }
        })
    }

    /// A PEM file with the certificates to trust for the identity provider. Default: the system's trust roots; what the
    /// brokers' certificates are verified with does not count.
    #[doc(alias = "trustCertsFilePath")]
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        self.with(|settings| settings.ca_file = Some(path.into()))
    }

    /// PEM files with the certificate that is shown to the identity provider, and with its private key. Default: none is
    /// shown.
    #[doc(alias("tlsCertFile", "tlsKeyFile"))]
    pub fn client_cert_file(self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let files = ClientCertFiles { certificate: certificate.into(), key: key.into() };
        self.with(|settings| settings.client_cert = Some(files))
    }

    /// How long one connection to the identity provider may take, TLS included. Default: 10 s. Both time-outs are within the
    /// client's [operation timeout](super::ClientBuilder::operation_timeout).
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        self.with(|settings| settings.connect_timeout = timeout)
    }

    /// How long one answer of the identity provider may take, to its last byte. Default: 30 s.
    pub fn read_timeout(self, timeout: Duration) -> Self {
        self.with(|settings| settings.read_timeout = timeout)
    }

    /// The part of a token's lifetime (`expires_in`), above 0 and at most 1, after which a new connection gets a new token.
    /// Up to a tenth of the lifetime is taken off at random, so that many clients do not ask at once. Default: 0.9; with 1
    /// a token is used to its end, which is the Java client's default.
    #[doc(alias = "earlyTokenRefreshPercent")]
    pub fn early_refresh(self, part: f64) -> Self {
        self.with(|settings| settings.early_refresh = part)
    }

    /// Where the discovery document is: a path that starts with `/.well-known/`. It is put in front of the issuer's path, as
    /// RFC 8414 has it, for instance `/.well-known/oauth-authorization-server`. Default:
    /// `/.well-known/openid-configuration`, which is appended to the issuer's path.
    #[doc(alias = "wellKnownMetadataPath")]
    pub fn well_known_metadata_path(self, path: impl Into<String>) -> Self {
        self.with(|settings| settings.well_known_path = path.into())
    }

    /// A source with other settings has tokens of its own.
    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.settings;
        change(&mut settings);
        Self::with_settings(settings)
    }
}

impl Authentication for OAuth2 {
    fn credentials<'a>(&'a self, context: &'a AuthContext) -> CredentialsFuture<'a> {
        Box::pin(async move { Ok(AuthData::token(self.tokens.get(&self.settings, context).await?)) })
    }
}

impl fmt::Debug for OAuth2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { issuer_url, client, audience, scope, ca_file, client_cert, .. } = &self.settings;
        f.debug_struct("OAuth2")
            .field("issuer_url", &shown(issuer_url))
            .field("client", client)
            .field("audience", audience)
            .field("scope", scope)
            .field("ca_file", ca_file)
            .field("client_cert", client_cert)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
