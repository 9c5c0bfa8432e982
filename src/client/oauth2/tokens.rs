//! One token for all connections: one of them fetches it, the others wait for that.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;

use super::answer::{self, Granted, Refused};
use super::cache::{Cache, Decision};
use super::discovery::discovery;
use super::form;
use super::key_file::Key;
use super::settings::{Client, Settings};
use crate::client::clock;
use crate::client::dial::{TlsPeer, TlsSettings};
use crate::client::http::connection::Hints;
use crate::client::http::endpoint::Endpoint;
use crate::client::http::fetch::{FetchLimits, Fetcher};
use crate::client::runtime::{TokioRuntime, timeout};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::control::AuthContext;
use crate::splitmix::SplitMix64;

/// How long a refresh may take while the token that is kept is still good.
const REFRESH_LIMIT: Duration = Duration::from_secs(5);
/// The waits between two tries to answer a challenge.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(100);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);

/// The longest answer that is read, bytes: a discovery document has a few thousand.
const BODY_BYTES_MAX: usize = 256 * 1024;

const HINTS: Hints = Hints {
    not_http: "the identity provider does not speak HTTP there; a port for TLS has an https:// URL",
    closed: "the connection was closed without an HTTP answer; a port for TLS, which has an https:// URL, does so",
};

/// What all copies of one source share.
pub(super) struct Tokens {
    /// Held by the one that fetches, across its requests.
    flight: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

struct Known {
    cache: Cache,
    /// Where tokens are, once a discovery document has said so.
    token_endpoint: Option<Endpoint>,
    random: SplitMix64,
}

impl Tokens {
    pub(super) fn new(seed: u64) -> Self {
        let known = Known { cache: Cache::default(), token_endpoint: None, random: SplitMix64::new(seed) };
        Self { flight: tokio::sync::Mutex::new(()), known: Mutex::new(known) }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decide(&self, context: &AuthContext) -> Decision {
        let outdated = context.outdated().map(|outdated| &*outdated.data);
        self.lock().cache.decide(outdated, clock::now().at)
    }

    /// A token for this use. A call that comes while another one fetches waits for that, and shares its failure.
    ///
    /// # Cancel safety
    /// Dropping the future ends the request that it may have made; the next that waits makes one of its own.
    pub(super) async fn get(&self, settings: &Settings, context: &AuthContext) -> Result<String> {
        settings.check()?;
        match self.decide(context) {
            Decision::Use(token) => Ok(token),
            Decision::Refresh(token) => Ok(self.refresh(settings).await.unwrap_or(token)),
            // Nothing follows a challenge that was not answered but the end of the connection.
            Decision::Fetch if context.challenge().is_some() => self.fetch_with_retries(settings, context).await,
            Decision::Fetch => self.fetch(settings, context).await,
        }
    }

    /// A new token before the end of the one that is kept; `None` if another one fetches already, or none comes soon.
    async fn refresh(&self, settings: &Settings) -> Option<String> {
        let _flight = self.flight.try_lock().ok()?;
        match timeout(&TokioRuntime, REFRESH_LIMIT, self.request(settings)).await {
            Some(Ok(token)) => Some(token),
            Some(Err(_)) => None,
            None => {
                self.failed(&Error::network(format!("no token within {REFRESH_LIMIT:?}")));
                None
            }
        }
    }

    async fn fetch(&self, settings: &Settings, context: &AuthContext) -> Result<String> {
        let seen = self.lock().cache.failures();
        let _flight = self.flight.lock().await;
        match self.decide(context) {
            Decision::Use(token) | Decision::Refresh(token) => return Ok(token),
            Decision::Fetch => {}
        }
        let failure = self.lock().cache.failure_since(seen);
        match failure {
            Some(error) => Err(error),
            None => self.request(settings).await,
        }
    }

    /// Until the caller gives up, which the client does after its operation timeout.
    async fn fetch_with_retries(&self, settings: &Settings, context: &AuthContext) -> Result<String> {
        let mut wait = RETRY_WAIT_MIN;
        loop {
            match self.fetch(settings, context).await {
                Err(error) if error.is_retriable() => tokio::time::sleep(wait).await,
                fetched => return fetched,
            }
            wait = (wait * 2).min(RETRY_WAIT_MAX);
        }
    }

    /// Asks for a token, and keeps it. The caller holds `flight`.
    async fn request(&self, settings: &Settings) -> Result<String> {
        let asked_at = clock::now().at;
        match self.request_uncounted(settings).await {
            Ok(granted) => {
                let token = granted.token.clone();
                let Known { cache, random, .. } = &mut *self.lock();
                cache.keep(granted, settings.early_refresh, asked_at, random);
                Ok(token)
            }
            Err(error) => {
                self.failed(&error);
                Err(error)
            }
        }
    }

    fn failed(&self, error: &Error) {
        let mut known = self.lock();
        known.cache.failed(error, clock::now().at);
        // The provider may have moved it.
        known.token_endpoint = None;
    }

    async fn request_uncounted(&self, settings: &Settings) -> Result<Granted> {
        let key = match &settings.client {
            Client::Key(source) => Some(source.read().await?),
            Client::Certificate(_) => None,
        };
        let fetcher = fetcher(settings);
        let endpoint = self.token_endpoint(settings, &fetcher).await?;
        let form = token_form(settings, key.as_ref());
        let answer = fetcher.post(&endpoint, form).await.map_err(|error| no_token(&endpoint, error))?;
        let secret = key.as_ref().map(|key| &*key.client_secret);
        answer::token(answer.status, &answer.body, secret).map_err(|refused| {
            let client = client_id(settings, key.as_ref());
            let audience = settings.audience.as_ref().map(|audience| format!(" for the audience `{audience}`"));
            let what = format!("a token{} to the client `{client}`", audience.unwrap_or_default());
            refusal(&endpoint, &what, refused)
        })
    }

    async fn token_endpoint(&self, settings: &Settings, fetcher: &Fetcher) -> Result<Endpoint> {
        if let Some(endpoint) = self.lock().token_endpoint.clone() {
            return Ok(endpoint);
        }
        let discovery = discovery(&settings.issuer_url, &settings.well_known_path)?;
        let (from, answer) =
            fetcher.get(&discovery, &HeaderMap::new()).await.map_err(|error| no_token(&discovery, error))?;
        let endpoint = answer::token_endpoint(&from, answer.status, &answer.body)
            .map_err(|refused| refusal(&from, "its discovery document", refused))?;
        self.lock().token_endpoint = Some(endpoint.clone());
        Ok(endpoint)
    }
}

/// There are as many connections as expiries.
fn fetcher(settings: &Settings) -> Fetcher {
    let Settings { ca_file, client_cert, connect_timeout, read_timeout, .. } = settings.clone();
    let peer = TlsPeer::WebServer("the identity provider");
    let tls = TlsSettings { ca_file, client_cert, peer, ..Default::default() };
    Fetcher::new(&tls, FetchLimits { connect_timeout, read_timeout, body_bytes_max: BODY_BYTES_MAX }, HINTS)
}

fn client_id<'a>(settings: &'a Settings, key: Option<&'a Key>) -> &'a str {
    match (&settings.client, key) {
        (Client::Certificate(id), _) => id,
        (Client::Key(_), key) => key.map_or("", |key| &key.client_id),
    }
}

/// What is left blank is not sent, as in the Java client.
fn token_form(settings: &Settings, key: Option<&Key>) -> String {
    let mut fields = vec![("grant_type", "client_credentials"), ("client_id", client_id(settings, key))];
    fields.extend(key.map(|key| ("client_secret", &*key.client_secret)));
    for (name, value) in [("audience", &settings.audience), ("scope", &settings.scope)] {
        fields.extend(value.as_deref().map(str::trim).filter(|value| !value.is_empty()).map(|value| (name, value)));
    }
    form::encode(&fields)
}

/// A request that has no answer, with its kind and whether it is retriable.
fn no_token(at: &Endpoint, error: Error) -> Error {
    let (kind, is_retriable) = (error.kind(), error.is_retriable());
    let what = format!("no token from the identity provider at {at}");
    Error::local(kind, what).with_retriable(is_retriable).with_source(error)
}

fn refusal(at: &Endpoint, what: &str, refused: Refused) -> Error {
    match refused {
        Refused::Final(text) => {
            let text = format!("the identity provider at {at} refused {what}: {text}");
            Error::local(ErrorKind::Authentication, text)
        }
        Refused::Passing(text) => {
            Error::network(format!("the identity provider at {at} cannot give {what} at the moment: {text}"))
        }
    }
}
