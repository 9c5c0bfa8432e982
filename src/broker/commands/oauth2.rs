//! The identity provider beside the broker: a discovery document, and tokens that this broker takes for the credentials of
//! a client (OAuth 2.0, the client credentials grant). It says no in the words of RFC 6749 and RFC 8707.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::broker::authentication::token;
use crate::broker::machine::Broker;
use crate::broker::rest::{RestAnswer, parameter};

/// Where tokens are, behind the URL of the REST interface.
const TOKEN_PATH: &str = "/oauth2/token";

/// The clients that get tokens.
#[derive(Clone)]
pub(in crate::broker) struct IdentityProvider {
    /// By their id; without any there is no provider.
    pub(in crate::broker) clients: BTreeMap<String, OAuth2Client>,
    /// The only one there are tokens for; `None`: any, or none.
    pub(in crate::broker) audience: Option<String>,
    pub(in crate::broker) token_lifetime: Duration,
}

#[derive(Clone)]
pub(in crate::broker) struct OAuth2Client {
    pub(in crate::broker) secret: String,
    pub(in crate::broker) role: String,
}

impl Default for IdentityProvider {
    fn default() -> Self {
        Self { clients: BTreeMap::new(), audience: None, token_lifetime: Duration::from_secs(3600) }
    }
}

impl fmt::Debug for IdentityProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clients.keys()).finish()
    }
}

impl Broker {
    /// Answers what is asked of the provider; `None` for anything else. `issuer` is the URL of the REST interface as it was
    /// reached, `form` the body of a POST.
    pub(in crate::broker) fn oauth2(&mut self, issuer: &str, path: &str, form: Option<&[u8]>) -> Option<RestAnswer> {
        if !self.has_identity_provider() {
            return None;
        }
        match (path, form) {
            ("/.well-known/openid-configuration", None) => Some(RestAnswer::from(json!({
                "issuer": issuer,
                "token_endpoint": format!("{issuer}{TOKEN_PATH}"),
                "grant_types_supported": ["client_credentials"],
                "token_endpoint_auth_methods_supported": ["client_secret_post"],
            }))),
            (TOKEN_PATH, Some(form)) => Some(self.oauth2_token(issuer, &String::from_utf8_lossy(form))),
            _ => None,
        }
    }

    fn oauth2_token(&mut self, issuer: &str, form: &str) -> RestAnswer {
        self.token_requests += 1;
        // In a form a space is a plus sign.
        let form = form.replace('+', " ");
        let field = |name| parameter(&form, name).unwrap_or_default();
        let IdentityProvider { clients, audience, token_lifetime } = &self.config.identity_provider;
        if field("grant_type") != "client_credentials" {
            return refused(400, "unsupported_grant_type", "unsupported grant_type requested");
        }
        let client = clients.get(&field("client_id")).filter(|client| client.secret == field("client_secret"));
        let (Some(client), Some(key)) = (client, &self.config.token_secret_key) else {
            return refused(401, "invalid_client", "client authentication failed");
        };
        let asked = field("audience");
        if audience.as_ref().is_some_and(|known| *known != asked) {
            return refused(400, "invalid_target", "the audience is missing, or unknown");
        }
        let seconds = token_lifetime.as_secs_f64().ceil() as u64;
        let now = self.now.wall_ms / 1000;
        let mut claims = json!({ "iss": issuer, "sub": client.role, "iat": now, "exp": now.saturating_add(seconds) });
        if !asked.is_empty() {
            claims["aud"] = json!(asked);
        }
        let token = token::signed(key, &claims);
        RestAnswer::from(json!({ "access_token": token, "token_type": "Bearer", "expires_in": seconds }))
    }

    pub(in crate::broker) fn has_identity_provider(&self) -> bool {
        !self.config.identity_provider.clients.is_empty()
    }

    /// How often a token was asked for.
    pub(in crate::broker) fn oauth2_token_requests(&self) -> u64 {
        self.token_requests
    }
}

fn refused(status: u16, error: &str, description: &str) -> RestAnswer {
    let body: Value = json!({ "error": error, "error_description": description });
    RestAnswer::failed(status, &body)
}
