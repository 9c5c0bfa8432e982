//! The schema that a producer writes by, or a consumer reads by, as the application hands it in.
//!
//! This library passes it on and looks at no payload: the application serialises, and the broker compares schemas.

use bytes::Bytes;

use crate::pb;
use crate::wire::MAX_MESSAGE_SIZE_DEFAULT;

/// How values are encoded (`Schema.type`). Plain bytes have no variant: they are what a producer or consumer without a
/// schema has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SchemaType {
    /// UTF-8 text.
    String,
    /// JSON text; the definition is an Avro schema in JSON.
    Json,
    /// Protobuf; the definition is an Avro schema in JSON that describes the message.
    Protobuf,
    /// Avro; the definition is an Avro schema in JSON.
    Avro,
    /// One byte: 0 or 1.
    Bool,
    /// 8 bits.
    Int8,
    /// 16 bits, big-endian.
    Int16,
    /// 32 bits, big-endian.
    Int32,
    /// 64 bits, big-endian.
    Int64,
    /// 32 bits of IEEE 754, big-endian.
    Float,
    /// 64 bits of IEEE 754, big-endian.
    Double,
    /// Milliseconds since 1970 in 64 bits.
    Date,
    /// Milliseconds since midnight in 64 bits.
    Time,
    /// Milliseconds since 1970 in 64 bits.
    Timestamp,
    /// A key and a value, each with a schema of its own. The definition is both definitions, each behind its length in 32
    /// bits; it must not be empty.
    KeyValue,
    /// Seconds and nanoseconds since 1970.
    Instant,
    /// A date without a time zone.
    LocalDate,
    /// A time of day without a time zone.
    LocalTime,
    /// A date and a time of day without a time zone.
    LocalDateTime,
    /// Protobuf; the definition names the message and holds its file descriptors. Pulsar 2.6 does not know this type, nor
    /// those from `Instant` on, and closes the connection.
    ProtobufNative,
    /// Whatever schema a message has: for consumers only. Brokers before Pulsar 3.0 do not know it, and are not told.
    AutoConsume,
    /// Kept in a registry outside of Pulsar (PIP-420). Brokers before 4.1 do not know it, and close the connection.
    External,
}

impl SchemaType {
    fn to_wire(self) -> pb::schema::Type {
        use pb::schema::Type;
        match self {
            Self::String => Type::String,
            Self::Json => Type::Json,
            Self::Protobuf => Type::Protobuf,
            Self::Avro => Type::Avro,
            Self::Bool => Type::Bool,
            Self::Int8 => Type::Int8,
            Self::Int16 => Type::Int16,
            Self::Int32 => Type::Int32,
            Self::Int64 => Type::Int64,
            Self::Float => Type::Float,
            Self::Double => Type::Double,
            Self::Date => Type::Date,
            Self::Time => Type::Time,
            Self::Timestamp => Type::Timestamp,
            Self::KeyValue => Type::KeyValue,
            Self::Instant => Type::Instant,
            Self::LocalDate => Type::LocalDate,
            Self::LocalTime => Type::LocalTime,
            Self::LocalDateTime => Type::LocalDateTime,
            Self::ProtobufNative => Type::ProtobufNative,
            Self::AutoConsume => Type::AutoConsume,
            Self::External => Type::External,
        }
    }
}

/// A schema (`Schema` of PulsarApi.proto; the Java client's `SchemaInfo`), for
/// [`ProducerBuilder::schema`](crate::ProducerBuilder::schema) and
/// [`ConsumerBuilder::schema`](crate::ConsumerBuilder::schema).
///
/// ```
/// use pulsar_native::{SchemaInfo, SchemaType};
///
/// let definition = r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"int"}]}"#;
/// let schema = SchemaInfo::new("Order", SchemaType::Json, definition).with_property("owner", "billing");
/// assert_eq!(schema.data, definition);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemaInfo {
    /// Its name (`name`). The broker keeps the topic's name instead.
    pub name: String,
    /// How values are encoded (`type`).
    pub schema_type: SchemaType,
    /// The definition (`schema_data`), in the form that the type asks for; empty for types that need none. At most 5 MiB.
    pub data: Bytes,
    /// Kept by the broker with the schema (`properties`).
    pub properties: Vec<(String, String)>,
}

impl SchemaInfo {
    /// A schema without properties.
    #[must_use]
    pub fn new(name: impl Into<String>, schema_type: SchemaType, data: impl Into<Bytes>) -> Self {
        Self { name: name.into(), schema_type, data: data.into(), properties: Vec::new() }
    }

    /// Adds a property.
    #[must_use]
    pub fn with_property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push((key.into(), value.into()));
        self
    }

    /// Why no broker can take it, if so.
    pub(crate) fn refused(&self) -> Option<&'static str> {
        if self.data.is_empty() && self.schema_type == SchemaType::KeyValue {
            // Brokers up to 4.0.8 never answer.
            return Some("schema: the type KeyValue needs a definition");
        }
        (self.data.len() > MAX_MESSAGE_SIZE_DEFAULT as usize).then_some("schema: the definition is larger than 5 MiB")
    }

    /// Why no producer may have it, if so.
    pub(crate) fn refused_in_producer(&self) -> Option<&'static str> {
        if self.schema_type == SchemaType::AutoConsume {
            return Some("schema: the type AutoConsume is for consumers only");
        }
        self.refused()
    }

    pub(crate) fn to_wire(&self) -> pb::Schema {
        pb::Schema {
            name: self.name.clone(),
            schema_data: self.data.clone(),
            r#type: self.schema_type.to_wire().into(),
            properties: pb::key_values(&self.properties),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_travels_as_it_is() {
        let schema = SchemaInfo::new("n", SchemaType::ProtobufNative, &b"\x00\xff"[..]).with_property("k", "v");
        let wire = schema.to_wire();
        assert_eq!((wire.name.as_str(), wire.r#type, &wire.schema_data[..]), ("n", 20, &b"\x00\xff"[..]));
        assert_eq!(wire.properties, [pb::KeyValue { key: "k".into(), value: "v".into() }]);
    }

    #[test]
    fn what_no_broker_takes_is_refused_here() {
        let schema = |schema_type, bytes| SchemaInfo::new("n", schema_type, vec![b'x'; bytes]);
        assert_eq!(schema(SchemaType::String, 0).refused_in_producer(), None);
        assert_eq!(schema(SchemaType::AutoConsume, 0).refused(), None);
        assert!(schema(SchemaType::AutoConsume, 0).refused_in_producer().is_some());
        assert!(schema(SchemaType::KeyValue, 0).refused().is_some());
        assert!(schema(SchemaType::Json, 5 * 1024 * 1024 + 1).refused().is_some());
        assert_eq!(schema(SchemaType::Json, 5 * 1024 * 1024).refused(), None);
    }
}
