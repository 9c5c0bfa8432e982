//! What authenticates a connection, and what it is asked for.

use std::fmt;

use bytes::Bytes;

use super::control::HostPort;
use crate::pb;

/// What authenticates a connection: `auth_method_name` and `auth_data` of CONNECT, AUTH_CHALLENGE and AUTH_RESPONSE.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthData {
    /// `none`, `token`, `basic` ...
    pub method: String,
    /// The credential. `Debug` does not show it.
    pub data: Bytes,
}

impl AuthData {
    /// Credentials of any method that the broker has a provider for.
    pub fn new(method: impl Into<String>, data: impl Into<Bytes>) -> Self {
        Self { method: method.into(), data: data.into() }
    }

    /// No authentication.
    pub fn none() -> Self {
        Self::new("none", Bytes::new())
    }

    /// A token (auth method `token`), a JWT as a rule.
    pub fn token(token: impl Into<String>) -> Self {
        Self::new("token", token.into())
    }

    /// A user and a password (auth method `basic`).
    pub fn basic(user: &str, password: &str) -> Self {
        Self::new("basic", format!("{user}:{password}"))
    }

    pub(crate) fn from_wire(data: pb::AuthData) -> Self {
        Self::new(data.auth_method_name.unwrap_or_default(), data.auth_data.unwrap_or_default())
    }
}

impl fmt::Debug for AuthData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthData({}, <{} bytes>)", self.method, self.data.len())
    }
}

/// What credentials are for: the broker that requires them, and its challenge if it sent one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthContext {
    broker: HostPort,
    challenge: Option<AuthData>,
    outdated: Option<AuthData>,
}

impl AuthContext {
    /// A connection to `broker` is about to be made.
    pub fn new(broker: HostPort) -> Self {
        Self { broker, challenge: None, outdated: None }
    }

    /// The broker sent this challenge.
    #[must_use]
    pub fn with_challenge(mut self, challenge: AuthData) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// The broker does not take these any more, or never did.
    #[must_use]
    pub fn with_outdated(mut self, credentials: AuthData) -> Self {
        self.outdated = Some(credentials);
        self
    }

    /// The broker by its own address, also where a proxy stands between.
    pub fn broker(&self) -> &HostPort {
        &self.broker
    }

    /// The broker's challenge (`CommandAuthChallenge.challenge`), with the method it is meant for. `None` before the
    /// first credentials of a connection. Where credentials have expired and any fresh ones will do, its data is the
    /// text `PulsarAuthRefresh`.
    pub fn challenge(&self) -> Option<&AuthData> {
        self.challenge.as_ref()
    }

    /// The credentials that others are to take the place of: those which the connection showed last, where the broker
    /// challenges it, and those which the broker refused a moment ago. `None` where no connection has shown any, and where
    /// it is not known which. A cache that holds the same ones fetches others; one that holds others has them already.
    pub fn outdated(&self) -> Option<&AuthData> {
        self.outdated.as_ref()
    }
}
