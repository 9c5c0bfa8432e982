//! CONNECT, credentials while they last, and the keep-alive: what concerns a connection as a whole.

use bytes::Bytes;

use super::Rejection;
use crate::broker::conformance::Rule;
use crate::broker::connections::ConnectionState;
use crate::broker::connections::token::{self, Identity};
use crate::broker::ids::{ConnId, NO_REQUEST};
use crate::broker::machine::{Broker, BrokerTimer};
use crate::broker::refusal::refuse;
use crate::pb::{self, ServerError};
use crate::wire::command::Refusal;

/// The protocol version from which on clients know AUTH_CHALLENGE.
const AUTH_CHALLENGE_VERSION: i32 = 14;

const TOKEN_METHOD: &str = "token";
/// `auth_data` of an AUTH_CHALLENGE that asks for fresh credentials.
const REFRESH: &[u8] = b"PulsarAuthRefresh";

/// CONNECT.
impl Broker {
    pub(super) fn on_connect(&mut self, conn: ConnId, connect: pb::CommandConnect) {
        if self.connections.state(conn) != Some(ConnectionState::Start) {
            return self.close_on_violation(conn, Rule::Handshake, || "CONNECT twice".to_owned());
        }
        let identity = match self.authenticate(&connect) {
            Ok(identity) => identity,
            Err(refusal) => {
                self.send_refusal(conn, NO_REQUEST, refusal);
                return self.connections.close(conn);
            }
        };
        let version = connect.protocol_version().min(self.config.like.protocol_version());
        let is_superuser =
            identity.as_ref().is_none_or(|identity| self.config.super_user_roles.contains(&identity.role));
        let Some(connection) = self.connections.get_mut(conn) else { return };
        connection.state = ConnectionState::Connected;
        connection.negotiated.version = version;
        connection.negotiated.flags = connect.feature_flags.unwrap_or_default();
        connection.negotiated.client_version = Some(connect.client_version).filter(|version| !version.contains(' '));
        connection.negotiated.at_ms = self.now.wall_ms;
        connection.credentials.is_superuser = is_superuser;
        connection.credentials.identity = identity;
        let connected = pb::CommandConnected {
            server_version: self.config.like.server_version(),
            protocol_version: Some(version),
            max_message_size: i32::try_from(self.config.max_message_size).ok(),
            feature_flags: self.config.like.feature_flags(),
        };
        self.connections.send(conn, connected);
        if self.config.token_secret_key.is_some() {
            self.set_credentials_timer(conn);
        }
    }

    /// The identity of the client; `None` while authentication is off.
    fn authenticate(&self, connect: &pb::CommandConnect) -> Result<Option<Identity>, Refusal> {
        let Some(key) = &self.config.token_secret_key else { return Ok(None) };
        let data = connect.auth_data.as_deref().unwrap_or_default();
        let identity = (connect.auth_method_name() == TOKEN_METHOD)
            .then(|| token::check(key, data, self.now.wall_ms))
            .flatten()
            .ok_or_else(bad_credentials)?;
        if connect.original_principal.is_some() || connect.proxy_version.is_some() {
            return Err(refuse(ServerError::AuthorizationError, "Invalid roles."));
        }
        Ok(Some(identity))
    }
}

/// Credentials that expire.
impl Broker {
    /// Fresh credentials are not answered. A bad one ends the connection with an error, another role without.
    pub(super) fn on_auth_response(
        &mut self,
        conn: ConnId,
        response: &pb::CommandAuthResponse,
    ) -> Result<(), Rejection> {
        let data = response.response.as_ref().filter(|data| data.auth_method_name.is_some());
        let Some(data) = data.and_then(|data| data.auth_data.as_ref()) else {
            return Err(Rejection::violation(Rule::IncompleteRequest, "AUTH_RESPONSE without auth_data"));
        };
        let Some(key) = &self.config.token_secret_key else { return Ok(()) };
        let Some(fresh) = token::check(key, data, self.now.wall_ms) else {
            self.send_refusal(conn, NO_REQUEST, bad_credentials());
            self.connections.close(conn);
            return Ok(());
        };
        let Some(connection) = self.connections.get_mut(conn) else { return Ok(()) };
        let credentials = &mut connection.credentials;
        if credentials.identity.as_ref().is_some_and(|known| known.role != fresh.role) {
            self.connections.close(conn);
        } else {
            credentials.is_challenged = false;
            credentials.identity = Some(fresh);
        }
        Ok(())
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
        let challenge = pb::CommandAuthChallenge {
            server_version: None,
            challenge: Some(pb::AuthData {
                auth_method_name: Some(TOKEN_METHOD.to_owned()),
                auth_data: Some(Bytes::from_static(REFRESH)),
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
            _ if connection.reads_paused => return self.set_keep_alive_timer(conn),
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

fn bad_credentials() -> Refusal {
    refuse(ServerError::AuthenticationError, "Failed to authenticate")
}
