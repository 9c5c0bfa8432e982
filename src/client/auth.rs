//! Where credentials come from.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::machine::control::AuthData;

/// The future of [`Authentication::credentials`].
pub type CredentialsFuture<'a> = Pin<Box<dyn Future<Output = Result<AuthData>> + Send + 'a>>;

/// A source of credentials (`auth_method_name` and `auth_data` of CONNECT and AUTH_RESPONSE).
///
/// It is asked before each dial, when the broker wants a refresh (AUTH_CHALLENGE), and once more after a refusal, so
/// a source that fetches should not answer from a cache it cannot renew.
pub trait Authentication: Send + Sync + 'static {
    /// The credentials as of now. An error ends the dial it was asked for, and is retried like a failed dial.
    fn credentials(&self) -> CredentialsFuture<'_>;
}

/// No authentication.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAuthentication;

impl Authentication for NoAuthentication {
    fn credentials(&self) -> CredentialsFuture<'_> {
        Box::pin(std::future::ready(Ok(AuthData::none())))
    }
}

type Supplier = dyn Fn() -> Pin<Box<dyn Future<Output = Result<String>> + Send>> + Send + Sync;

/// Token authentication (auth method `token`): usually a JWT, opaque to the client.
///
/// The token never shows in `Debug`, in an error or in a log.
#[derive(Clone)]
pub struct Token {
    source: Source,
}

#[derive(Clone)]
enum Source {
    Fixed(Bytes),
    File(PathBuf),
    Supplier(Arc<Supplier>),
}

impl Token {
    /// A token that stays the same. White space around it is cut off.
    pub fn new(token: impl AsRef<str>) -> Self {
        Self { source: Source::Fixed(Bytes::copy_from_slice(token.as_ref().trim().as_bytes())) }
    }

    /// A file that holds the token and is read anew each time credentials are wanted.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self { source: Source::File(path.into()) }
    }

    /// A function that fetches the token each time credentials are wanted.
    ///
    /// ```
    /// use pulsar_native::Token;
    ///
    /// let token = Token::supplier(|| async { Ok("fresh from the vault".to_owned()) });
    /// # let _ = token;
    /// ```
    pub fn supplier<F, Fut>(fetch: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String>> + Send + 'static,
    {
        Self { source: Source::Supplier(Arc::new(move || Box::pin(fetch()))) }
    }

    async fn fetch(&self) -> Result<Bytes> {
        match &self.source {
            Source::Fixed(token) => Ok(token.clone()),
            Source::Supplier(fetch) => Ok(Bytes::from(fetch().await?.trim().to_owned())),
            Source::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || {
                    std::fs::read_to_string(&path).map_err(|error| {
                        let what = format!("cannot read the token file {}", path.display());
                        Error::local(ErrorKind::Authentication, what).with_source(error)
                    })
                });
                let text = read.await.map_err(|_| closed())??;
                Ok(Bytes::from(text.trim().to_owned()))
            }
        }
    }
}

fn closed() -> Error {
    Error::local(ErrorKind::Closed, "the runtime shut down before the token file was read")
}

impl Authentication for Token {
    fn credentials(&self) -> CredentialsFuture<'_> {
        Box::pin(async {
            let data = self.fetch().await?;
            if data.is_empty() {
                return Err(Error::local(ErrorKind::Authentication, "the token is empty"));
            }
            Ok(AuthData { method: "token".to_owned(), data })
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source {
            Source::Fixed(_) => "Token(<fixed>)",
            Source::File(_) => "Token(<file>)",
            Source::Supplier(_) => "Token(<supplier>)",
        })
    }
}
