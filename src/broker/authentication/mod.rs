//! The methods of authentication that a broker serves: each gives the role of a client.
//!
//! | method | on with | the role |
//! | --- | --- | --- |
//! | `token` | `token_secret_key` | the claim `sub` |
//! | `tls` | `tls_authentication` | the common name (CN) of the certificate that the client has shown over TLS |
//! | `basic` | `basic_user` | the user |
//! | others | `authentication_provider` | what the provider says |

mod basic;
mod provider;
pub(crate) mod token;

use std::sync::Arc;

pub use provider::{AuthenticationProvider, AuthenticationState, AuthenticationStep};

use self::token::Identity;
use super::config::BrokerConfig;

/// Where a client's conversation about its credentials stands, from CONNECT to the end of the connection.
pub(crate) struct Conversation {
    pub(crate) method: String,
    /// Of a method of the application's own.
    state: Option<Box<dyn AuthenticationState>>,
}

/// What the broker does with credentials.
pub(crate) enum Verdict {
    Accepted(Identity),
    /// It asks further.
    Challenge(Vec<u8>),
    Refused,
}

impl Conversation {
    /// `None` if the broker has no such method.
    pub(crate) fn begin(config: &BrokerConfig, method: &str) -> Option<Self> {
        let provider = config.authentication_providers.iter().find(|provider| provider.auth_method_name() == method);
        let is_built_in = match method {
            "token" => config.token_secret_key.is_some(),
            "tls" => config.tls_authentication,
            "basic" => !config.basic_users.is_empty(),
            _ => false,
        };
        let state = provider.map(|provider| provider.new_auth_state());
        (state.is_some() || is_built_in).then(|| Self { method: method.to_owned(), state })
    }

    /// The verdict on these credentials of a client whose certificate has this common name.
    pub(crate) fn authenticate(
        &mut self,
        config: &BrokerConfig,
        certified: Option<&str>,
        data: &[u8],
        now_ms: u64,
    ) -> Verdict {
        if let Some(state) = &mut self.state {
            return match state.authenticate(data) {
                AuthenticationStep::Authenticated { role } => Verdict::Accepted(Identity { role, expires_ms: None }),
                AuthenticationStep::Challenge(data) => Verdict::Challenge(data),
                AuthenticationStep::Refused => Verdict::Refused,
            };
        }
        let identity = match (self.method.as_str(), &config.token_secret_key) {
            ("token", Some(key)) => token::check(key, data, now_ms),
            ("tls", _) => certified.map(Identity::lasting),
            ("basic", _) => basic::check(&config.basic_users, data),
            _ => None,
        };
        identity.map_or(Verdict::Refused, Verdict::Accepted)
    }
}

/// The identity behind an HTTP request: of its header `Authorization`, or of the client's certificate. As at a real broker,
/// each method is tried. Methods of the application's own are not for HTTP.
pub(crate) fn of_request(
    config: &BrokerConfig,
    certified: Option<&str>,
    authorization: Option<&str>,
    now_ms: u64,
) -> Option<Identity> {
    let token = || {
        let token = authorization?.strip_prefix("Bearer ")?;
        token::check(config.token_secret_key.as_ref()?, token.as_bytes(), now_ms)
    };
    let basic = || basic::check_header(&config.basic_users, authorization?);
    let tls = || certified.filter(|_| config.tls_authentication).map(Identity::lasting);
    token().or_else(basic).or_else(tls)
}

/// Providers of the application's own, by their names in `Debug`.
#[derive(Clone, Default)]
pub(crate) struct Providers(Vec<Arc<dyn AuthenticationProvider>>);

impl Providers {
    pub(crate) fn add(&mut self, provider: Arc<dyn AuthenticationProvider>) {
        self.0.push(provider);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<dyn AuthenticationProvider>> {
        self.0.iter()
    }
}
