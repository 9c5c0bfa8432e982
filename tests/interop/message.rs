//! A message as both sides describe it, and as JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Stands for the cluster that a message is sent to.
pub const LOCAL_CLUSTER: &str = "__local__";

/// What is compared; `None` is unset.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Described {
    /// `None` is a null value.
    pub payload: Option<Vec<u8>>,
    pub key: Option<String>,
    pub key_bytes: Option<Vec<u8>>,
    pub ordering_key: Option<Vec<u8>>,
    pub properties: BTreeMap<String, String>,
    pub event_time: Option<u64>,
    /// The clusters to replicate to; `__local__`: replication is disabled.
    pub replicate_to: Vec<String>,
}

/// Large payloads by their size and checksum.
impl std::fmt::Debug for Described {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let payload = self.payload.as_ref().map(|bytes| match bytes.len() {
            ..=100 => String::from_utf8_lossy(bytes).into_owned(),
            len => format!("{len} bytes, CRC-32C {:08x}", crc32c::crc32c(bytes)),
        });
        f.debug_struct("Described")
            .field("payload", &payload)
            .field("key", &self.key)
            .field("key_bytes", &self.key_bytes)
            .field("ordering_key", &self.ordering_key)
            .field("properties", &self.properties)
            .field("event_time", &self.event_time)
            .field("replicate_to", &self.replicate_to)
            .finish()
    }
}

impl Described {
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: Some(payload.into()), ..Self::default() }
    }

    /// The names, as in `lacks`, of what a client must be able to express.
    pub fn needs(&self) -> Vec<&'static str> {
        let is_empty = self.payload.as_deref().is_some_and(<[u8]>::is_empty);
        let needs = [
            ("null", self.payload.is_none()),
            ("empty", is_empty),
            ("key_bytes", self.key_bytes.is_some()),
            ("replicate_to", !self.replicate_to.is_empty()),
        ];
        needs.into_iter().filter(|(_, is_needed)| *is_needed).map(|(name, _)| name).collect()
    }

    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("payload".into(), self.payload.as_deref().map(hex).into());
        for (name, bytes) in [("key_bytes", &self.key_bytes), ("ordering_key", &self.ordering_key)] {
            if let Some(bytes) = bytes {
                object.insert(name.into(), hex(bytes).into());
            }
        }
        if let Some(key) = &self.key {
            object.insert("key".into(), key.as_str().into());
        }
        if let Some(time) = self.event_time {
            object.insert("event_time".into(), time.into());
        }
        if !self.properties.is_empty() {
            object.insert("properties".into(), json!(self.properties));
        }
        if !self.replicate_to.is_empty() {
            object.insert("replicate_to".into(), json!(self.replicate_to));
        }
        Value::Object(object)
    }

    pub fn from_json(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let properties = value["properties"].as_object();
        let clusters = value["replicate_to"].as_array().into_iter().flatten();
        let pair = |(key, value): (&String, &Value)| (key.clone(), value.as_str().unwrap_or_default().to_owned());
        Self {
            payload: value["payload"].as_str().map(unhex),
            key: text("key"),
            key_bytes: text("key_bytes").map(|text| unhex(&text)),
            ordering_key: text("ordering_key").map(|text| unhex(&text)),
            properties: properties.map(|all| all.iter().map(pair).collect()).unwrap_or_default(),
            event_time: value["event_time"].as_u64(),
            replicate_to: clusters.map(|name| name.as_str().unwrap_or_default().to_owned()).collect(),
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len() / 2).map(|at| digit(2 * at)).collect()
}
