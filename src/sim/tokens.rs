//! Where the clients of a simulation get their tokens from.

use std::sync::{Mutex, PoisonError};

use super::faults::TokenFault;
use super::world::SharedWorld;
use crate::client::{AuthContext, AuthData, Authentication, CredentialsFuture, clock};
use crate::error::Error;

/// How long a token is valid, ms.
const VALID_MS: u64 = 3_600_000;

/// The source of one client. A fault makes it fail.
pub(super) struct Tokens {
    key: Vec<u8>,
    subject: String,
    world: SharedWorld,
    /// With [`RefusedTokenForever`](crate::mutation::Mutation): what the brokers took no more, which is shown from then on.
    outdated: Mutex<Option<AuthData>>,
}

impl Tokens {
    pub(super) fn new(key: Vec<u8>, subject: String, world: SharedWorld) -> Self {
        Self { key, subject, world, outdated: Mutex::default() }
    }

    fn outdated(&self, context: &AuthContext) -> Option<AuthData> {
        let mut outdated = self.outdated.lock().unwrap_or_else(PoisonError::into_inner);
        if mutation!(RefusedTokenForever) && outdated.is_none() && context.challenge().is_none() {
            *outdated = context.outdated().cloned();
        }
        outdated.clone()
    }

    fn broken(&self) -> Option<TokenFault> {
        let world = self.world.lock();
        world.tokens_broken.filter(|(_, until)| *until > world.now.at).map(|(how, _)| how)
    }
}

impl Authentication for Tokens {
    fn credentials<'a>(&'a self, context: &'a AuthContext) -> CredentialsFuture<'a> {
        let expires_ms = clock::wall_ms() + VALID_MS;
        let token = crate::broker::mint_token(&self.key, &self.subject, Some(expires_ms));
        let (broken, outdated) = (self.broken(), self.outdated(context));
        Box::pin(async move {
            match (broken, outdated) {
                (None, Some(outdated)) => Ok(outdated),
                (None, None) => Ok(AuthData::token(token)),
                (Some(TokenFault::Wrong), _) => Ok(AuthData::token("not.a.token")),
                (Some(TokenFault::Fail), _) => Err(Error::connection("simulated: no token")),
                (Some(TokenFault::Panic), _) => std::panic::resume_unwind(Box::new("simulated")),
                (Some(TokenFault::Hang), _) => std::future::pending().await,
            }
        })
    }
}
