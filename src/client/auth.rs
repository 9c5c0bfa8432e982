//! Sources of credentials.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::base64_text;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::control::{AuthContext, AuthData};

/// The future of [`Authentication::credentials`].
pub type CredentialsFuture<'a> = Pin<Box<dyn Future<Output = Result<AuthData>> + Send + 'a>>;

/// The future of [`Authentication::http_headers`].
pub type HttpHeadersFuture<'a> = Pin<Box<dyn Future<Output = Result<HttpHeaders>> + Send + 'a>>;

/// A source of credentials (`auth_method_name` and `auth_data` of CONNECT and AUTH_RESPONSE).
///
/// It is called before each dial, when the broker sends a challenge (AUTH_CHALLENGE), and once more after a refusal, so
/// it should return fresh credentials and not those of an expired cache. [`Token`] is the usual one.
///
/// ```
/// use pulsar_native::Error;
/// use pulsar_native::client::{AuthContext, AuthData, Authentication, CredentialsFuture};
///
/// /// Answers a challenge with the same bytes, reversed.
/// struct Reverse;
///
/// impl Authentication for Reverse {
///     fn credentials<'a>(&'a self, context: &'a AuthContext) -> CredentialsFuture<'a> {
///         Box::pin(async move {
///             match context.challenge() {
///                 None => Ok(AuthData::new("reverse", "hello")),
///                 Some(challenge) if challenge.method == "reverse" => {
///                     let answer: Vec<u8> = challenge.data.iter().rev().copied().collect();
///                     Ok(AuthData::new("reverse", answer))
///                 }
///                 Some(other) => Err(Error::authentication(format!("{} is not for us", other.method))),
///             }
///         })
///     }
/// }
/// ```
pub trait Authentication: Send + Sync + 'static {
    /// The current credentials.
    ///
    /// # Errors
    /// An error ends the dial that needed them; one after a challenge, on a connection that is up, leaves it open until
    /// the broker ends it. One that is [retriable](crate::Error::is_retriable), as
    /// [`Error::connection`](crate::Error::connection) is, is retried like a failed dial; any other, such as
    /// [`Error::authentication`](crate::Error::authentication), is final for producers and consumers that were never
    /// attached. A source that panics, or takes longer than the operation timeout, counts as
    /// retriable. Credentials above 5 MiB are refused.
    fn credentials<'a>(&'a self, context: &'a AuthContext) -> CredentialsFuture<'a>;

    /// The headers that authenticate a request to a broker's HTTP port. Default: made from the
    /// [credentials](Self::credentials) for the methods `token` and `basic`; none for others.
    ///
    /// # Errors
    /// Same as [`Self::credentials`].
    fn http_headers<'a>(&'a self, context: &'a AuthContext) -> HttpHeadersFuture<'a> {
        Box::pin(async move { Ok(HttpHeaders::from_credentials(&self.credentials(context).await?)) })
    }
}

/// The headers that authenticate an HTTP request. `Debug` shows their names and not their values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HttpHeaders(Vec<(String, String)>);

impl HttpHeaders {
    /// No headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header. Several of one name are all sent, in this order.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.push((name.into(), value.into()));
        self
    }

    /// The headers by name and value, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn from_credentials(credentials: &AuthData) -> Self {
        let value = match credentials.method.as_str() {
            "token" => format!("Bearer {}", String::from_utf8_lossy(&credentials.data)),
            "basic" => format!("Basic {}", base64_text::encode(&credentials.data)),
            _ => return Self::new(),
        };
        Self::new().with_header("Authorization", value)
    }
}

impl fmt::Debug for HttpHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, _)| (name, format_args!("<hidden>")))).finish()
    }
}

/// No authentication.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAuthentication;

impl Authentication for NoAuthentication {
    fn credentials<'a>(&'a self, _context: &'a AuthContext) -> CredentialsFuture<'a> {
        Box::pin(std::future::ready(Ok(AuthData::none())))
    }
}

/// Authentication by the certificate that the client shows over TLS (auth method `tls`): the broker's
/// `AuthenticationProviderTls` takes the role from its common name (CN).
///
/// The certificate is that of [`client_cert_file`](super::ClientBuilder::client_cert_file) or
/// [`tls_config`](super::ClientBuilder::tls_config), and the service URL is `pulsar+ssl://` or `https://`: without TLS, or
/// without a certificate, a broker refuses it ([`ErrorKind::Authentication`]).
///
/// ```
/// use pulsar_native::{Client, TlsAuthentication};
///
/// let builder = Client::builder("pulsar+ssl://broker.example.com:6651")
///     .client_cert_file("/etc/pulsar/tls.crt", "/etc/pulsar/tls.key")
///     .authentication(TlsAuthentication);
/// # drop(builder);
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[doc(alias = "AuthenticationTls")]
#[doc(alias = "mTLS")]
pub struct TlsAuthentication;

impl Authentication for TlsAuthentication {
    fn credentials<'a>(&'a self, _context: &'a AuthContext) -> CredentialsFuture<'a> {
        Box::pin(std::future::ready(Ok(AuthData::new("tls", Bytes::new()))))
    }
}

/// Token authentication (auth method `token`): usually a JWT, opaque to the client.
///
/// The token is never shown in `Debug`, in an error or in a log.
///
/// ```
/// use pulsar_native::{Client, Token};
///
/// let builder = Client::builder("pulsar://localhost:6650").authentication(Token::from_file("/run/secrets/pulsar-token"));
/// # drop(builder);
/// ```
#[derive(Clone)]
pub struct Token {
    source: CredentialSource,
}

impl Token {
    /// A token that stays the same, also as `client.conf` has it (`authParams`): after `token:` the token, after `file:`
    /// the path of a file as for [`from_file`](Self::from_file), `file:///run/token` too. White space and a byte order
    /// mark around it are cut off.
    pub fn new(token: impl AsRef<str>) -> Self {
        let text = token.as_ref().trim_matches(is_padding);
        match text.strip_prefix("file:") {
            Some(path) => Self::from_file(path.strip_prefix("//").unwrap_or(path)),
            None => Self { source: CredentialSource::Fixed(plain_token(text)) },
        }
    }

    /// A file that holds the token. It is read each time credentials are needed: for a new connection, and when the broker
    /// requests fresh ones (AUTH_CHALLENGE). Its content may have the forms that [`new`](Self::new) accepts, except
    /// `file:`.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self { source: CredentialSource::File(path.into()) }
    }

    /// A function that fetches the token each time credentials are needed. What it returns may have the forms that
    /// [`new`](Self::new) accepts, except `file:`.
    ///
    /// ```
    /// use pulsar_native::Token;
    ///
    /// let token = Token::from_fn(|| async { Ok("fresh from the vault".to_owned()) });
    /// # let _ = token;
    /// ```
    #[doc(alias = "supplier")]
    pub fn from_fn<F, Fut>(fetch: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String>> + Send + 'static,
    {
        Self { source: CredentialSource::function(fetch) }
    }

    async fn fetch(&self) -> Result<Bytes> {
        self.source.fetch("token file", |text| Ok(plain_token(text))).await
    }
}

/// What editors and shells leave around a token.
fn is_padding(c: char) -> bool {
    c.is_whitespace() || c == '\u{feff}'
}

/// The token alone.
fn plain_token(text: &str) -> Bytes {
    let text = text.trim_matches(is_padding);
    let token = text.strip_prefix("token:").unwrap_or(text);
    Bytes::copy_from_slice(token.trim_matches(is_padding).as_bytes())
}

impl Authentication for Token {
    fn credentials<'a>(&'a self, _context: &'a AuthContext) -> CredentialsFuture<'a> {
        Box::pin(async {
            let data = self.fetch().await?;
            if data.is_empty() {
                return Err(Error::local(ErrorKind::Authentication, "the token is empty"));
            }
            Ok(AuthData::new("token", data))
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.source.name())
    }
}

/// A user and a password (auth method `basic`), for a broker with `AuthenticationProviderBasic`. They go over the
/// connection as they are, so it should have TLS.
///
/// The password is never shown in `Debug`, in an error or in a log.
///
/// ```
/// use pulsar_native::{Basic, Client};
///
/// let builder = Client::builder("pulsar+ssl://localhost:6651").authentication(Basic::new("alice", "her password"));
/// # drop(builder);
/// ```
#[derive(Clone)]
#[doc(alias = "AuthenticationBasic")]
pub struct Basic {
    source: CredentialSource,
}

impl Basic {
    /// A user and a password that stay the same. A user with `:` in it, or none, is an error
    /// ([`ErrorKind::Authentication`]) when credentials are needed; brokers up to Pulsar 4.0 refuse a password with `:`.
    pub fn new(user: impl AsRef<str>, password: impl AsRef<str>) -> Self {
        let text = format!("{}:{}", user.as_ref(), password.as_ref());
        let is_usable = !user.as_ref().is_empty() && !user.as_ref().contains(':');
        Self { source: CredentialSource::Fixed(if is_usable { text.into() } else { Bytes::new() }) }
    }

    /// What [`from_file`](Self::from_file) reads.
    ///
    /// # Errors
    /// [`ErrorKind::Authentication`]: it is neither of these forms.
    #[cfg(feature = "http")]
    pub(super) fn from_params(text: &str) -> Result<Self> {
        Ok(Self { source: CredentialSource::Fixed(with_user(user_and_password(text)?)?) })
    }

    /// A file that holds `user:password`, or the JSON that the Java client takes as `authParams`,
    /// `{"userId":"user","password":"password"}` (this one needs the crate feature `http`). White space around it does not
    /// count. It is read each time credentials are needed.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self { source: CredentialSource::File(path.into()) }
    }

    /// A function that fetches what [`from_file`](Self::from_file) reads, each time credentials are needed.
    ///
    /// ```
    /// use pulsar_native::Basic;
    ///
    /// let basic = Basic::from_fn(|| async { Ok("alice:fresh from the vault".to_owned()) });
    /// # let _ = basic;
    /// ```
    pub fn from_fn<F, Fut>(fetch: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String>> + Send + 'static,
    {
        Self { source: CredentialSource::function(fetch) }
    }
}

impl Authentication for Basic {
    fn credentials<'a>(&'a self, _context: &'a AuthContext) -> CredentialsFuture<'a> {
        Box::pin(async {
            let data = self.source.fetch("file of user and password", user_and_password).await?;
            Ok(AuthData::new("basic", with_user(data)?))
        })
    }
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Basic({})", self.source.name())
    }
}

const NOT_BASIC: &str = "basic authentication needs a user, without `:` in it, and a password, as in user:password";

/// `user:password`, if there is a user.
fn with_user(data: Bytes) -> Result<Bytes> {
    match data.iter().position(|byte| *byte == b':') {
        None | Some(0) => Err(Error::local(ErrorKind::Authentication, NOT_BASIC)),
        Some(_) => Ok(data),
    }
}

/// `user:password` of either form.
fn user_and_password(text: &str) -> Result<Bytes> {
    let text = text.trim_matches(is_padding);
    if !text.starts_with('{') {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    }
    #[cfg(feature = "http")]
    {
        let parsed = serde_json::from_str::<serde_json::Value>(text).ok();
        let field = |name| parsed.as_ref().and_then(|parsed| parsed.get(name)?.as_str());
        match (field("userId"), field("password")) {
            (Some(user), Some(password)) if !user.contains(':') => Ok(format!("{user}:{password}").into()),
            // The parser's error could show what it has read.
            _ => Err(Error::local(ErrorKind::Authentication, NOT_BASIC)),
        }
    }
    #[cfg(not(feature = "http"))]
    Err(Error::local(ErrorKind::Unsupported, "user and password as JSON need the crate feature `http`"))
}

type Fetch = dyn Fn() -> Pin<Box<dyn Future<Output = Result<String>> + Send>> + Send + Sync;

/// Where the text of a credential comes from.
#[derive(Clone)]
enum CredentialSource {
    Fixed(Bytes),
    File(PathBuf),
    Function(Arc<Fetch>),
}

impl CredentialSource {
    fn function<F, Fut>(fetch: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String>> + Send + 'static,
    {
        Self::Function(Arc::new(move || Box::pin(fetch())))
    }

    /// What it is, for `Debug`.
    fn name(&self) -> &'static str {
        match self {
            Self::Fixed(_) => "<fixed>",
            Self::File(_) => "<file>",
            Self::Function(_) => "<function>",
        }
    }

    /// The credential, which `read` takes from the text of a file or function; `what` names the file in an error.
    async fn fetch(&self, what: &str, read: impl FnOnce(&str) -> Result<Bytes>) -> Result<Bytes> {
        match self {
            Self::Fixed(credential) => Ok(credential.clone()),
            Self::Function(fetch) => read(&fetch().await?),
            Self::File(path) => {
                let file = path.clone();
                let text = tokio::task::spawn_blocking(move || std::fs::read_to_string(file)).await;
                let closed = || Error::local(ErrorKind::Closed, "the runtime shut down before a file was read");
                let text = text.map_err(|_| closed())?.map_err(|error| {
                    let what = format!("cannot read the {what} {}", path.display());
                    Error::local(ErrorKind::Authentication, what).with_source(error)
                })?;
                read(&text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn headers(source: &dyn Authentication) -> HttpHeaders {
        let context = AuthContext::new(crate::client::HostPort { host: "a".into(), port: 8080 });
        source.http_headers(&context).await.expect("headers")
    }

    #[tokio::test]
    async fn headers_are_made_of_tokens_and_passwords_and_show_neither() {
        let token = headers(&Token::new("secret")).await;
        assert_eq!(token.iter().collect::<Vec<_>>(), [("Authorization", "Bearer secret")]);
        assert_eq!(format!("{token:?}"), r#"{"Authorization": <hidden>}"#);
        let basic = headers(&Basic::new("Aladdin", "open sesame")).await;
        // The example of RFC 7617.
        assert_eq!(basic.iter().collect::<Vec<_>>(), [("Authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")]);
        assert_eq!(headers(&NoAuthentication).await, HttpHeaders::new());
        assert_eq!(headers(&TlsAuthentication).await, HttpHeaders::new());
    }

    #[tokio::test]
    async fn users_and_passwords_are_read_as_people_have_them() {
        let path = std::env::temp_dir().join(format!("pulsar-native-basic-{}", std::process::id()));
        let context = AuthContext::new(crate::client::HostPort { host: "a".into(), port: 1 });
        let json = r#"{"userId":"alice","password":"p:q"}"#;
        for (text, wanted) in [
            ("alice:p:q", Some("alice:p:q")),
            ("\u{feff}alice:p q\r\n", Some("alice:p q")),
            (json, cfg!(feature = "http").then_some("alice:p:q")),
            (r#"{"userId":"a:b","password":"secret"}"#, None),
            (r#"{"userId":"alice","password":"secret""#, None),
            ("secret", None),
            (":secret", None),
            ("", None),
        ] {
            std::fs::write(&path, text).expect("a file can be written");
            for basic in [Basic::from_file(&path), Basic::from_fn(move || std::future::ready(Ok(text.to_owned())))] {
                match (basic.credentials(&context).await, wanted) {
                    (Ok(read), Some(wanted)) => assert_eq!(read, AuthData::new("basic", wanted)),
                    (Err(error), None) => assert!(!format!("{error:?}").contains("secret"), "{error:?}"),
                    (read, wanted) => panic!("{text}: {read:?} and not {wanted:?}"),
                }
            }
        }
        std::fs::remove_file(&path).expect("the file is there");
        for user in ["", "a:b"] {
            let error = Basic::new(user, "secret").credentials(&context).await.expect_err("no user");
            assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
        }
        assert_eq!(format!("{:?}", Basic::new("alice", "secret")), "Basic(<fixed>)");
    }

    #[tokio::test]
    async fn tokens_are_read_as_people_have_them() {
        let path = std::env::temp_dir().join(format!("pulsar-native-token-{}", std::process::id()));
        for text in ["secret", " secret\r\n", "\u{feff}secret\n", "token:secret", "\u{feff}token: secret\r\n"] {
            std::fs::write(&path, text).expect("a file can be written");
            let supplied = text.to_owned();
            for token in [
                Token::new(text),
                Token::from_file(&path),
                Token::from_fn(move || std::future::ready(Ok(supplied.clone()))),
                Token::new(format!("file:{}", path.display())),
                Token::new(format!("file://{}\n", path.display())),
            ] {
                assert_eq!(token.fetch().await.expect("a token"), "secret", "{text:?} by {token:?}");
            }
        }
        std::fs::remove_file(&path).expect("the file is there");
    }
}
