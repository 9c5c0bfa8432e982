//! Methods of authentication that the embedded broker's user brings along.

/// The broker's side of a method of authentication, for
/// [`EmbeddedBrokerBuilder::authentication_provider`](crate::broker::EmbeddedBrokerBuilder::authentication_provider). The
/// client's side is an [`Authentication`](crate::client::Authentication).
///
/// It is called under the lock of the whole broker, so it must not wait. `examples/challenge_response.rs` has both sides.
///
/// ```
/// use pulsar_native::broker::{AuthenticationProvider, AuthenticationState, AuthenticationStep};
///
/// /// Asks for a word, and takes `sesame`.
/// struct Door;
///
/// struct Conversation {
///     is_asked: bool,
/// }
///
/// impl AuthenticationProvider for Door {
///     fn auth_method_name(&self) -> &str {
///         "door"
///     }
///
///     fn new_auth_state(&self) -> Box<dyn AuthenticationState> {
///         Box::new(Conversation { is_asked: false })
///     }
/// }
///
/// impl AuthenticationState for Conversation {
///     fn authenticate(&mut self, data: &[u8]) -> AuthenticationStep {
///         match (std::mem::replace(&mut self.is_asked, true), data) {
///             (false, _) => AuthenticationStep::Challenge(b"the word?".to_vec()),
///             (true, b"sesame") => AuthenticationStep::Authenticated { role: "admin".to_owned() },
///             (true, _) => AuthenticationStep::Refused,
///         }
///     }
/// }
/// ```
pub trait AuthenticationProvider: Send + Sync + 'static {
    /// The name of the method, as clients send it (`auth_method_name` of CONNECT). One that the broker has itself, such as
    /// `token`, is taken from it.
    fn auth_method_name(&self) -> &str;

    /// A conversation with one client: called for each CONNECT that names the method.
    fn new_auth_state(&self) -> Box<dyn AuthenticationState>;
}

/// A conversation with one client, as long as its connection.
pub trait AuthenticationState: Send + 'static {
    /// The next step on what the client has sent: the `auth_data` of CONNECT, then of each AUTH_RESPONSE. Also of those to
    /// a challenge of [`Faults::challenge`](crate::broker::Faults::challenge) while the connection is in use.
    fn authenticate(&mut self, data: &[u8]) -> AuthenticationStep;
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthenticationStep {
    /// The client is asked further: `auth_data` of AUTH_CHALLENGE.
    Challenge(Vec<u8>),
    /// The client has this role.
    Authenticated {
        /// Of [`super_user_roles`](crate::broker::EmbeddedBrokerBuilder::super_user_roles), or one without rights.
        role: String,
    },
    /// The client gets `AuthenticationError`, and the connection ends.
    Refused,
}
