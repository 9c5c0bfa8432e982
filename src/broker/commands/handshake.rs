//! CONNECT, credentials while they last, and the keep-alive: what concerns a connection as a whole.

use bytes::Bytes;

use crate::broker::conformance::Rule;
use crate::broker::connections::State;
use crate::broker::connections::token::{self as auth, Identity};
use crate::broker::machine::timers::Timer;
use crate::broker::machine::{Broker, ConnId};
use crate::pb::{self, ServerError};

/// The highest protocol version this broker speaks.
pub(crate) const PROTOCOL_VERSION: i32 = 21;

/// The request id of an error or a close that answers no request.
pub(crate) const NO_REQUEST: u64 = u64::MAX;

const SERVER_VERSION: &str = "Pulsar Server4.0.8 (pulsar-native embedded)";
const TOKEN_METHOD: &str = "token";
/// `auth_data` of an AUTH_CHALLENGE that asks for fresh credentials.
const REFRESH: &[u8] = b"PulsarAuthRefresh";

impl Broker {
    pub(crate) fn on_connect(&mut self, conn: ConnId, connect: pb::CommandConnect) {
        if self.conns.get(conn).is_none_or(|connection| connection.state != State::Start) {
            return self.fail(conn, Rule::Handshake, || "CONNECT twice".to_owned());
        }
        let identity = match self.authenticate(&connect) {
            Ok(identity) => identity,
            Err((error, text)) => {
                self.error(conn, NO_REQUEST, error, text);
                return self.conns.close(conn);
            }
        };
        let version = connect.protocol_version().min(PROTOCOL_VERSION);
        let superuser = identity.as_ref().is_none_or(|identity| identity.role == self.config.superuser);
        let Some(connection) = self.conns.get_mut(conn) else { return };
        connection.state = State::Connected;
        connection.version = version;
        connection.flags = connect.feature_flags.unwrap_or_default();
        connection.superuser = superuser;
        connection.identity = identity;
        connection.connected_at_ms = self.now.wall_ms;
        let connected = pb::CommandConnected {
            server_version: SERVER_VERSION.to_owned(),
            protocol_version: Some(version),
            max_message_size: i32::try_from(self.config.max_message_size).ok(),
            feature_flags: Some(pb::FeatureFlags {
                supports_topic_watchers: Some(true),
                supports_get_partitioned_metadata_without_auto_creation: Some(true),
                supports_repl_dedup_by_lid_and_eid: Some(true),
                ..Default::default()
            }),
        };
        self.conns.send(conn, &connected.into());
        if self.config.token_key.is_some() {
            self.arm_auth_refresh(conn);
        }
    }

    fn authenticate(&self, connect: &pb::CommandConnect) -> Result<Option<Identity>, (ServerError, &'static str)> {
        let Some(key) = &self.config.token_key else { return Ok(None) };
        let data = connect.auth_data.as_deref().unwrap_or_default();
        let identity = (connect.auth_method_name() == TOKEN_METHOD)
            .then(|| auth::check(key, data, self.now.wall_ms))
            .flatten()
            .ok_or((ServerError::AuthenticationError, "Failed to authenticate"))?;
        if connect.original_principal.is_some() || connect.proxy_version.is_some() {
            return Err((ServerError::AuthorizationError, "Invalid roles."));
        }
        Ok(Some(identity))
    }

    /// A good answer is not answered. Another role ends the connection, and so does a bad credential, with an error.
    pub(crate) fn on_auth_response(&mut self, conn: ConnId, response: pb::CommandAuthResponse) {
        let data = response.response.filter(|data| data.auth_method_name.is_some()).and_then(|data| data.auth_data);
        let Some(data) = data else {
            return self.fail(conn, Rule::IncompleteRequest, || "AUTH_RESPONSE without auth_data".to_owned());
        };
        let Some(key) = &self.config.token_key else { return };
        let Some(fresh) = auth::check(key, &data, self.now.wall_ms) else {
            self.error(conn, NO_REQUEST, ServerError::AuthenticationError, "Failed to authenticate");
            return self.conns.close(conn);
        };
        let Some(connection) = self.conns.get_mut(conn) else { return };
        if connection.identity.as_ref().is_some_and(|known| known.role != fresh.role) {
            return self.conns.close(conn);
        }
        connection.challenged = false;
        connection.identity = Some(fresh);
    }

    /// The check for expired credentials: challenge first, close at the next check without an answer.
    pub(crate) fn refresh_auth(&mut self, conn: ConnId) {
        let Some(connection) = self.conns.get_mut(conn).filter(|found| found.state == State::Connected) else { return };
        let expired = connection.identity.as_ref().is_some_and(|identity| identity.is_expired(self.now.wall_ms));
        if expired {
            if connection.challenged || connection.version < 14 || !connection.flags.supports_auth_refresh() {
                return self.conns.close(conn);
            }
            self.challenge(conn);
        }
        self.arm_auth_refresh(conn);
    }

    /// Asks for fresh credentials.
    pub(crate) fn challenge(&mut self, conn: ConnId) {
        let Some(connection) = self.conns.get_mut(conn).filter(|found| found.state == State::Connected) else { return };
        connection.challenged = true;
        let challenge = pb::CommandAuthChallenge {
            server_version: None,
            challenge: Some(pb::AuthData {
                auth_method_name: Some(TOKEN_METHOD.to_owned()),
                auth_data: Some(Bytes::from_static(REFRESH)),
            }),
            protocol_version: Some(connection.version),
        };
        self.conns.send(conn, &challenge.into());
    }

    /// One tick: a handshake or a PING that took a whole interval ends the connection, else a PING goes out.
    pub(crate) fn keep_alive_interval(&mut self, conn: ConnId) {
        let Some(connection) = self.conns.get_mut(conn) else { return };
        match connection.state {
            State::Closing => return,
            // What was sent lies unread, so nothing is known.
            _ if connection.deaf => return self.arm_keep_alive(conn),
            State::Start => return self.conns.close(conn),
            State::Connected if connection.pinged => {
                return self.fail(conn, Rule::PongMissing, || "nothing came since the last PING".to_owned());
            }
            State::Connected => connection.pinged = true,
        }
        self.conns.ping(conn);
        self.arm_keep_alive(conn);
    }

    pub(crate) fn arm_keep_alive(&mut self, conn: ConnId) {
        if let Some(at) = self.now.at.checked_add(self.config.keep_alive_interval) {
            self.timers.set(at, Timer::KeepAlive(conn));
        }
    }

    fn arm_auth_refresh(&mut self, conn: ConnId) {
        if let Some(at) = self.now.at.checked_add(self.config.authentication_refresh_check) {
            self.timers.set(at, Timer::AuthRefresh(conn));
        }
    }
}
