//! A method of authentication of your own, by challenge and response as SASL's mechanisms have it: the secret itself never
//! goes over the connection. Both sides are here, the broker's for the embedded one.
//!
//! ```text
//! client                                   broker
//!   CONNECT        hmac-sha-256, user        ->
//!                                            <-  AUTH_CHALLENGE  nonce
//!   AUTH_RESPONSE  HMAC(secret, nonce)       ->
//!                                            <-  CONNECTED
//! ```
//!
//! A real broker takes such a method from a class that implements its `AuthenticationProvider`, named in
//! `authenticationProviders`; `tests/real/HmacProvider.java` is this one. SASL/Kerberos itself would go the same way.
//!
//! `cargo run --example challenge_response --features broker`

use std::hash::{BuildHasher, RandomState};

use hmac::{Hmac, KeyInit, Mac};
use pulsar_native::broker::{AuthenticationProvider, AuthenticationState, AuthenticationStep, EmbeddedBroker};
use pulsar_native::client::{AuthContext, AuthData, Authentication, CredentialsFuture};
use pulsar_native::{Client, Error};
use sha2::Sha256;

const METHOD: &str = "hmac-sha-256";
/// What a broker sends as a challenge to a connection that is in use, when it wants fresh credentials of any method.
const REFRESH: &[u8] = b"PulsarAuthRefresh";

/// The client's side.
pub(crate) struct SharedSecret {
    pub(crate) user: String,
    pub(crate) secret: String,
}

impl Authentication for SharedSecret {
    fn credentials<'a>(&'a self, context: &'a AuthContext) -> CredentialsFuture<'a> {
        Box::pin(async move {
            match context.challenge() {
                // The first step, or all over again.
                None => Ok(AuthData::new(METHOD, self.user.clone())),
                Some(challenge) if challenge.data == REFRESH => Ok(AuthData::new(METHOD, self.user.clone())),
                Some(challenge) if challenge.method == METHOD => {
                    let answer = keyed(&self.secret, &challenge.data).finalize().into_bytes();
                    Ok(AuthData::new(METHOD, answer.to_vec()))
                }
                Some(other) => Err(Error::authentication(format!("a challenge of {}, not {METHOD}", other.method))),
            }
        })
    }
}

/// The broker's side: one user, whose role has its name.
pub(crate) struct KnownUser {
    pub(crate) user: String,
    pub(crate) secret: String,
}

impl AuthenticationProvider for KnownUser {
    fn auth_method_name(&self) -> &str {
        METHOD
    }

    fn new_auth_state(&self) -> Box<dyn AuthenticationState> {
        Box::new(Conversation { user: self.user.clone(), secret: self.secret.clone(), nonce: None })
    }
}

struct Conversation {
    user: String,
    secret: String,
    /// Sent, and not answered.
    nonce: Option<[u8; 16]>,
}

impl AuthenticationState for Conversation {
    fn authenticate(&mut self, data: &[u8]) -> AuthenticationStep {
        match self.nonce.take() {
            // An unknown user gets a nonce too, so that the answer does not tell which users exist.
            None => {
                let known = data == self.user.as_bytes();
                let nonce = nonce();
                self.nonce = Some(nonce);
                if !known {
                    self.secret = format!("{:?}", nonce);
                }
                AuthenticationStep::Challenge(nonce.to_vec())
            }
            // In constant time.
            Some(nonce) => match keyed(&self.secret, &nonce).verify_slice(data) {
                Ok(()) => AuthenticationStep::Authenticated { role: self.user.clone() },
                Err(_) => AuthenticationStep::Refused,
            },
        }
    }
}

fn keyed(secret: &str, nonce: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length").chain_update(nonce)
}

/// Different each time, which is enough here. A real broker takes it from a cryptographic source.
fn nonce() -> [u8; 16] {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&RandomState::new().hash_one("high").to_be_bytes());
    nonce[8..].copy_from_slice(&RandomState::new().hash_one("low").to_be_bytes());
    nonce
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let known = KnownUser { user: "admin".to_owned(), secret: "a shared secret".to_owned() };
    let broker = EmbeddedBroker::builder().authentication_provider(known).start().await?;
    let secret = SharedSecret { user: "admin".to_owned(), secret: "a shared secret".to_owned() };
    run(&broker.url(), secret).await?;
    println!("sent by a client that has proved what it knows");
    Ok(())
}

pub(crate) async fn run(url: &str, secret: SharedSecret) -> Result<(), Error> {
    let client = Client::builder(url).authentication(secret).connect().await?;
    let producer = client.producer("persistent://public/default/proved").create().await?;
    producer.send("by a known user").await?;
    client.close().await
}
