//! The messages of `PulsarApi.proto` and `PulsarMarkers.proto` as Rust types.
//!
//! **Internals, unstable**: may change in any release before 1.0.
//!
//! Generated at build time from the files in `proto/`, whose comments are the documentation of
//! the types below. Every command travels inside a [`BaseCommand`], whose
//! [`type`](BaseCommand::type) says which of its members to read. `bytes` fields are
//! [`bytes::Bytes`]: decoded from a `Bytes` they are slices of it, not copies.
//!
//! Enum fields hold the raw `i32` of the wire; the generated getter of the same name turns a
//! number this crate does not know into the default of the field, so code that must tell the two
//! apart uses `TryFrom<i32>` on the raw field.
//!
//! Decoding does not check that `required` fields were present: an absent one reads as its default,
//! which for an absent [`BaseCommand::type`] is CONNECT. Code for which absence matters must
//! inspect the bytes. Strings that are not UTF-8 are a decode error.
//!
//! Messages that carry a credential ([`CommandConnect`], [`AuthData`], [`CommandLookupTopic`],
//! [`CommandPartitionedTopicMetadata`]) print its length in `Debug`, never its bytes. The same
//! holds for every message around them.

use std::fmt;

pub use generated::*;

mod generated {
    #![allow(missing_docs, clippy::all, clippy::pedantic, clippy::too_many_lines)]

    include!(concat!(env!("OUT_DIR"), "/pulsar.proto.rs"));
}

/// Stands for a credential in `Debug`: prints `<n bytes>`.
struct Redacted(usize);

impl Redacted {
    fn from_secret(secret: Option<&impl AsRef<[u8]>>) -> Option<Self> {
        secret.map(|secret| Self(secret.as_ref().len()))
    }
}

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0)
    }
}

// Each impl below takes the message apart without `..`, so that a field added to the schema does
// not compile until it is decided whether it is a secret.

impl fmt::Debug for AuthData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { auth_method_name, auth_data } = self;
        f.debug_struct("AuthData")
            .field("auth_method_name", auth_method_name)
            .field("auth_data", &Redacted::from_secret(auth_data.as_ref()))
            .finish()
    }
}

impl fmt::Debug for CommandConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client_version,
            auth_method,
            auth_data,
            protocol_version,
            auth_method_name,
            proxy_to_broker_url,
            original_principal,
            original_auth_data,
            original_auth_method,
            feature_flags,
            proxy_version,
        } = self;
        f.debug_struct("CommandConnect")
            .field("client_version", client_version)
            .field("auth_method", auth_method)
            .field("auth_data", &Redacted::from_secret(auth_data.as_ref()))
            .field("protocol_version", protocol_version)
            .field("auth_method_name", auth_method_name)
            .field("proxy_to_broker_url", proxy_to_broker_url)
            .field("original_principal", original_principal)
            .field("original_auth_data", &Redacted::from_secret(original_auth_data.as_ref()))
            .field("original_auth_method", original_auth_method)
            .field("feature_flags", feature_flags)
            .field("proxy_version", proxy_version)
            .finish()
    }
}

impl fmt::Debug for CommandLookupTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            topic,
            request_id,
            authoritative,
            original_principal,
            original_auth_data,
            original_auth_method,
            advertised_listener_name,
            properties,
        } = self;
        f.debug_struct("CommandLookupTopic")
            .field("topic", topic)
            .field("request_id", request_id)
            .field("authoritative", authoritative)
            .field("original_principal", original_principal)
            .field("original_auth_data", &Redacted::from_secret(original_auth_data.as_ref()))
            .field("original_auth_method", original_auth_method)
            .field("advertised_listener_name", advertised_listener_name)
            .field("properties", properties)
            .finish()
    }
}

impl fmt::Debug for CommandPartitionedTopicMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            topic,
            request_id,
            original_principal,
            original_auth_data,
            original_auth_method,
            metadata_auto_creation_enabled,
        } = self;
        f.debug_struct("CommandPartitionedTopicMetadata")
            .field("topic", topic)
            .field("request_id", request_id)
            .field("original_principal", original_principal)
            .field("original_auth_data", &Redacted::from_secret(original_auth_data.as_ref()))
            .field("original_auth_method", original_auth_method)
            .field("metadata_auto_creation_enabled", metadata_auto_creation_enabled)
            .finish()
    }
}

/// Pairs of the application as the protocol carries them.
pub(crate) fn key_values(pairs: &[(String, String)]) -> Vec<KeyValue> {
    pairs.iter().map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::*;

    /// Appears in no field name and no other value of the messages below.
    const SECRET: &str = "zq-credential-zq";

    /// Neither as text nor as the list of numbers that `Debug` of a byte slice could give.
    fn assert_secret_absent(shown: &str) {
        let numbers = format!("{:?}", SECRET.as_bytes());
        let numbers = numbers.trim_matches(['[', ']']);
        assert!(!shown.contains(SECRET), "{shown}");
        assert!(!shown.contains(numbers), "{shown}");
    }

    fn assert_redacted(message: &impl fmt::Debug) {
        let shown = format!("{message:?}");
        assert_secret_absent(&shown);
        assert_secret_absent(&format!("{message:#?}"));
        assert!(shown.contains("<16 bytes>"), "{shown}");
    }

    fn command(r#type: base_command::Type) -> BaseCommand {
        BaseCommand { r#type: r#type.into(), ..Default::default() }
    }

    #[test]
    fn debug_of_connect_shows_no_credential() {
        let connect = CommandConnect {
            client_version: "test".into(),
            auth_method_name: Some("token".into()),
            auth_data: Some(Bytes::from_static(SECRET.as_bytes())),
            original_auth_data: Some(SECRET.into()),
            ..Default::default()
        };
        assert_redacted(&connect);
        assert_redacted(&BaseCommand { connect: Some(connect), ..command(base_command::Type::Connect) });
    }

    #[test]
    fn debug_of_auth_exchange_shows_no_credential() {
        let data =
            AuthData { auth_method_name: Some("token".into()), auth_data: Some(Bytes::from_static(SECRET.as_bytes())) };
        assert_redacted(&data);
        assert_redacted(&BaseCommand {
            auth_response: Some(CommandAuthResponse { response: Some(data.clone()), ..Default::default() }),
            ..command(base_command::Type::AuthResponse)
        });
        assert_redacted(&BaseCommand {
            auth_challenge: Some(CommandAuthChallenge { challenge: Some(data), ..Default::default() }),
            ..command(base_command::Type::AuthChallenge)
        });
    }

    #[test]
    fn debug_of_lookups_shows_no_forwarded_credential() {
        assert_redacted(&BaseCommand {
            lookup_topic: Some(CommandLookupTopic {
                topic: "t".into(),
                original_auth_data: Some(SECRET.into()),
                ..Default::default()
            }),
            ..command(base_command::Type::Lookup)
        });
        assert_redacted(&BaseCommand {
            partition_metadata: Some(CommandPartitionedTopicMetadata {
                topic: "t".into(),
                original_auth_data: Some(SECRET.into()),
                ..Default::default()
            }),
            ..command(base_command::Type::PartitionedMetadata)
        });
    }

    #[test]
    fn absent_credentials_print_as_none() {
        let shown = format!("{:?}", AuthData::default());
        assert_eq!(shown, "AuthData { auth_method_name: None, auth_data: None }");
    }

    #[test]
    fn absent_required_fields_decode_as_defaults() {
        let empty = BaseCommand::decode(&[][..]).expect("no field is checked");
        assert_eq!(empty.r#type(), base_command::Type::Connect);
    }

    #[test]
    fn ack_set_is_written_unpacked_and_read_both_ways() {
        let id = MessageIdData { ledger_id: 1, entry_id: 2, ack_set: vec![5, 1], ..Default::default() };
        let unpacked = [0x08, 1, 0x10, 2, 0x28, 5, 0x28, 1];
        let packed = [0x08, 1, 0x10, 2, 0x2a, 2, 5, 1];
        assert_eq!(id.encode_to_vec(), unpacked);
        assert_eq!(MessageIdData::decode(&unpacked[..]), Ok(id.clone()));
        assert_eq!(MessageIdData::decode(&packed[..]), Ok(id));
    }
}
