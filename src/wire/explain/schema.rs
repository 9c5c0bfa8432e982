//! `PulsarApi.proto` as tables: what a field number of a message is. Made by the build from `proto/pulsar.fds`.

/// A message of the schema.
#[derive(Debug)]
pub(super) struct MessageType {
    pub(super) name: &'static str,
    pub(super) fields: &'static [FieldType],
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct FieldType {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) is_repeated: bool,
    pub(super) is_required: bool,
}

/// The declared type of a field; those that the schema uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Double,
    String,
    Bytes,
    /// A place in `ENUMS`.
    Enum(usize),
    /// A place in `MESSAGES`.
    Message(usize),
}

/// Numbers and names of the values of an enum.
pub(super) type EnumType = &'static [(i32, &'static str)];

include!(concat!(env!("OUT_DIR"), "/schema_tables.rs"));

impl MessageType {
    /// The message of that name, without its package.
    ///
    /// # Panics
    /// If the schema has none.
    pub(super) fn named(name: &str) -> &'static Self {
        MESSAGES.iter().find(|message| message.name == name).expect("a message of the schema")
    }

    pub(super) fn field(&self, number: u32) -> Option<&'static FieldType> {
        self.fields.iter().find(|field| field.number == number)
    }
}

impl Kind {
    /// The wire type of one value; repeated numbers may also be packed.
    pub(super) fn wire_type(self) -> u8 {
        match self {
            Self::Bool | Self::Int32 | Self::Int64 | Self::Uint32 | Self::Uint64 | Self::Enum(_) => 0,
            Self::Double => 1,
            Self::String | Self::Bytes | Self::Message(_) => 2,
        }
    }

    pub(super) fn message(self) -> Option<&'static MessageType> {
        match self {
            Self::Message(index) => Some(&MESSAGES[index]),
            _ => None,
        }
    }
}

/// The name of a value of the enum at `index`.
pub(super) fn enum_value(index: usize, number: i32) -> Option<&'static str> {
    ENUMS[index].iter().find(|value| value.0 == number).map(|value| value.1)
}

/// All messages and the values of all enums, by the places that fields name.
#[cfg(any(test, fuzzing))]
pub(super) fn all() -> (&'static [MessageType], &'static [EnumType]) {
    (MESSAGES, ENUMS)
}
