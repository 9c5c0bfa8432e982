//! CONNECT, credentials while they last, and the keep-alive: what concerns a connection as a whole.

use bytes::Bytes;

use super::Rejection;
use crate::broker::authentication::token::Identity;
use crate::broker::authentication::{Conversation, Verdict};
use crate::broker::conformance::Rule;
use crate::broker::connections::ConnectionState;
use crate::broker::ids::{ConnId, NO_REQUEST};
use crate::broker::machine::{Broker, BrokerTimer};
use crate::broker::refusal::refuse;
use crate::pb::{self, ServerError};

/// The protocol version from which on clients know AUTH_CHALLENGE.
const AUTH_CHALLENGE_VERSION: i32 = 14;

const TOKEN_METHOD: &str = "token";
/// `auth_data` of an AUTH_CHALLENGE that asks for fresh credentials.
const REFRESH: &[u8] = b"PulsarAuthRefresh";

/// CONNECT.
impl Broker {
    pub(super) fn on_connect(&mut self, conn: ConnId, connect: pb::CommandConnect) {
        if self.connections.state(conn) != Some(ConnectionState::Start) || self.is_authenticating(conn) {
            return self.close_on_violation(conn, Rule::Handshake, || "CONNECT twice".to_owned());
        }
        if !self.config.authenticates() {
            return self.complete_connect(conn, &connect, None);
        }
        let Some(conversation) = Conversation::begin(&self.config, connect.auth_method_name()) else {
            let anonymous = self.config.anonymous_user_role.as_deref().map(Identity::lasting);
            return match anonymous {
                Some(anonymous) => self.complete_connect(conn, &connect, Some(anonymous)),
                None => self.refuse_credentials(conn),
            };
        };
        let data = connect.auth_data.clone().unwrap_or_default();
        let version = connect.protocol_version().min(self.config.like.protocol_version());
        let Some(connection) = self.connections.get_mut(conn) else { return };
        connection.negotiated.version = version;
        connection.credentials.conversation = Some(conversation);
        connection.credentials.connect = Some(Box::new(connect));
        self.on_credentials(conn, &data);
    }

    /// Whether the answer to a CONNECT waits for the client's next credentials.
    pub(super) fn is_authenticating(&self, conn: ConnId) -> bool {
        self.connections.get(conn).is_some_and(|connection| connection.credentials.connect.is_some())
    }

    /// The next credentials of the client, of CONNECT or AUTH_RESPONSE.
    fn on_credentials(&mut self, conn: ConnId, data: &[u8]) {
        let now_ms = self.now.wall_ms;
        let Some(connection) = self.connections.get_mut(conn) else { return };
        let credentials = &mut connection.credentials;
        let certified = credentials.certified.as_deref();
        // A client without credentials has a broker that wants none.
        let Some(conversation) = &mut credentials.conversation else { return };
        let verdict = conversation.authenticate(&self.config, certified, data, now_ms);
        match (verdict, credentials.connect.take()) {
            (Verdict::Refused, _) => self.refuse_credentials(conn),
            (Verdict::Challenge(data), connect) => {
                credentials.connect = connect;
                self.send_challenge(conn, data.into());
            }
            (Verdict::Accepted(_), Some(connect))
                if connect.original_principal.is_some() || connect.proxy_version.is_some() =>
            {
                self.send_refusal(conn, NO_REQUEST, refuse(ServerError::AuthorizationError, "Invalid roles."));
                self.connections.close(conn);
            }
            (Verdict::Accepted(identity), Some(connect)) => {
                self.complete_connect(conn, &connect, Some(identity));
                self.set_credentials_timer(conn);
            }
            (Verdict::Accepted(fresh), None) => self.refresh(conn, fresh),
        }
    }

    fn refuse_credentials(&mut self, conn: ConnId) {
        self.send_refusal(conn, NO_REQUEST, refuse(ServerError::AuthenticationError, "Failed to authenticate"));
        self.connections.close(conn);
    }

    /// Answers CONNECT. There is no identity while authentication is off.
    fn complete_connect(&mut self, conn: ConnId, connect: &pb::CommandConnect, identity: Option<Identity>) {
        let version = connect.protocol_version().min(self.config.like.protocol_version());
        let Some(connection) = self.connections.get_mut(conn) else { return };
        connection.state = ConnectionState::Connected;
        connection.negotiated.version = version;
        connection.negotiated.flags = connect.feature_flags.unwrap_or_default();
        let client_version = Some(connect.client_version.clone());
        connection.negotiated.client_version = client_version.filter(|version| !version.contains(' '));
        connection.negotiated.at_ms = self.now.wall_ms;
        connection.credentials.identity = identity;
        let connected = pb::CommandConnected {
            server_version: self.config.like.server_version(),
            protocol_version: Some(version),
            max_message_size: i32::try_from(self.config.max_message_size).ok(),
            feature_flags: self.config.like.feature_flags(),
        };
        self.connections.send(conn, connected);
    }
}

/// Credentials that expire.
impl Broker {
    /// The answer to a challenge, in the handshake or later. A bad one ends the connection with an error.
    pub(super) fn on_auth_response(
        &mut self,
        conn: ConnId,
        response: &pb::CommandAuthResponse,
    ) -> Result<(), Rejection> {
        let data = response.response.as_ref().filter(|data| data.auth_method_name.is_some());
        let Some(data) = data.and_then(|data| data.auth_data.as_ref()) else {
            return Err(Rejection::violation(Rule::IncompleteRequest, "AUTH_RESPONSE without auth_data"));
        };
        self.on_credentials(conn, data);
        Ok(())
    }

    /// Fresh credentials are not answered. Those of another role end the connection without an error.
    fn refresh(&mut self, conn: ConnId, fresh: Identity) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        let credentials = &mut connection.credentials;
        if credentials.identity.as_ref().is_some_and(|known| known.role != fresh.role) {
            self.connections.close(conn);
        } else {
            credentials.is_challenged = false;
            credentials.identity = Some(fresh);
        }
    }

    /// Expired credentials are challenged; the connection ends if the next check finds them still expired, or if the
    /// client does not know the challenge.
    pub(in crate::broker) fn on_credentials_check(&mut self, conn: ConnId) {
        let now_ms = self.now.wall_ms;
        let Some(connection) = self.connections.get(conn) else { return };
        if connection.state != ConnectionState::Connected {
            return;
        }
        let (credentials, negotiated) = (&connection.credentials, &connection.negotiated);
        if credentials.identity.as_ref().is_some_and(|identity| identity.is_expired(now_ms)) {
            let can_refresh = negotiated.version >= AUTH_CHALLENGE_VERSION && negotiated.flags.supports_auth_refresh();
            if credentials.is_challenged || !can_refresh {
                return self.connections.close(conn);
            }
            self.challenge(conn);
        }
        self.set_credentials_timer(conn);
    }

    /// Asks for fresh credentials.
    pub(in crate::broker) fn challenge(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.state != ConnectionState::Connected {
            return;
        }
        connection.credentials.is_challenged = true;
        self.send_challenge(conn, Bytes::from_static(REFRESH));
    }

    fn send_challenge(&mut self, conn: ConnId, data: Bytes) {
        let Some(connection) = self.connections.get(conn) else { return };
        let method = connection.credentials.conversation.as_ref().map(|conversation| conversation.method.clone());
        let challenge = pb::CommandAuthChallenge {
            server_version: None,
            challenge: Some(pb::AuthData {
                auth_method_name: Some(method.unwrap_or_else(|| TOKEN_METHOD.to_owned())),
                auth_data: Some(data),
            }),
            protocol_version: Some(connection.negotiated.version),
        };
        self.connections.send(conn, challenge);
    }

    fn set_credentials_timer(&mut self, conn: ConnId) {
        self.set_timer(self.config.authentication_refresh_check, BrokerTimer::CredentialsCheck(conn));
    }
}

/// Keep-alive.
impl Broker {
    /// One tick: a handshake or a PING that took a whole interval ends the connection, else a PING goes out.
    pub(in crate::broker) fn on_keep_alive(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        match connection.state {
            ConnectionState::Closing => return,
            // The client's frames are not read, so their absence proves nothing.
            _ if connection.reads_paused() => return self.set_keep_alive_timer(conn),
            ConnectionState::Start => return self.connections.close(conn),
            ConnectionState::Connected if connection.liveness.is_pinged => {
                let detail = || "nothing came since the last PING".to_owned();
                return self.close_on_violation(conn, Rule::PongMissing, detail);
            }
            ConnectionState::Connected => connection.liveness.is_pinged = true,
        }
        self.connections.send_ping(conn);
        self.set_keep_alive_timer(conn);
    }

    pub(in crate::broker) fn set_keep_alive_timer(&mut self, conn: ConnId) {
        self.set_timer(self.config.keep_alive_interval, BrokerTimer::KeepAlive(conn));
    }
}
