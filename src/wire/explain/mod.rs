//! A description of frames for people: every byte, field by field, with the names of `PulsarApi.proto`, what the values mean,
//! and where the book tells more.
//!
//! For study and for bug reports, not for speed. It never fails: bytes that break the protocol are described up to the byte
//! that breaks it, with what was expected there. Each byte of the input is in exactly one [`Line`]. Of credentials only the
//! length is shown. Payloads that are compressed are opened, and described as content with offsets of its own.
//!
//! | file | what |
//! | --- | --- |
//! | `walk` | the lines and what they refer to; varints |
//! | `frame` | sizes and the command |
//! | `message` | the fields of one protobuf message |
//! | `entry` | what follows SEND and MESSAGE: checksum, metadata, payload, records of a batch |
//! | `schema` | the messages and enums of the schema as tables |
//! | `meaning`, `commands` | what values mean; each command in a phrase, and its chapter |
//! | `text`, `json` | the forms for a terminal or a book, and for programs |
//! | `generate` | none: messages of the schema for fuzz targets |

mod commands;
mod entry;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod generate;
mod json;
mod meaning;
mod message;
mod schema;
mod text;
mod time;
mod walk;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

pub use self::text::{Part, Text};
pub use self::time::date;

/// The most lines of one frame; what is behind them is one line more.
const LINES_MAX: usize = 1 << 16;

/// The most that the compressed payload of a frame is opened to, bytes.
const CONTENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How deep nested messages are followed; those of the protocol nest four deep.
const DEPTH_MAX: usize = 12;

/// Describes all frames of `input`, which starts with the `total_size` of the first.
#[must_use]
pub fn explain(input: &[u8]) -> Vec<Explanation> {
    let input = Bytes::copy_from_slice(input);
    let (mut all, mut at) = (Vec::new(), 0);
    while at < input.len() {
        let next = explain_frame(input.slice(at..), at as u64);
        at += next.input().len();
        all.push(next);
    }
    all
}

/// Describes the first frame of `input`. Where its end is unknown, the rest of `input` belongs to it.
///
/// `offset` is that of the first byte, and what the texts count from; a stream that is explained frame by frame gives how
/// much it has had.
#[must_use]
pub fn explain_frame(input: Bytes, offset: u64) -> Explanation {
    frame::explain(input, offset)
}

/// One frame and its lines. `Display` is a [`Text`] without options.
#[derive(Clone, PartialEq)]
pub struct Explanation {
    /// The bytes of the frame.
    input: Bytes,
    /// Decompressed payloads.
    contents: Vec<Bytes>,
    /// The offset of the first byte.
    pub offset: u64,
    /// The name in `BaseCommand.Type`; `UNKNOWN` for a type that the schema does not have, `None` where none can be read.
    pub command: Option<&'static str>,
    /// What is in the input, in the order of the bytes, and behind a compressed payload what is in that.
    pub lines: Vec<Line>,
}

/// One item of a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The decompressed content that the bytes are of; `None` for the frame itself.
    pub content: Option<usize>,
    /// Which bytes of the frame, or of the content, it describes. Empty where something is missing.
    pub bytes: Range<usize>,
    /// How deep the message of this field is nested.
    pub depth: usize,
    /// The field, such as `CommandSend.producer_id`, `MessageMetadata.properties[2].key` or `total_size`.
    pub path: String,
    /// How the value is encoded.
    pub wire_type: WireType,
    /// The value.
    pub value: Value,
    /// What that means.
    pub meaning: Option<Cow<'static, str>>,
    /// The place in the repository's book that tells of it, such as `docs/protocol/04-send.md`.
    pub rule: Option<&'static str>,
    /// What breaks the protocol here.
    pub problem: Option<Problem>,
}

/// What breaks the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The byte that breaks it, in the same count as [`Line::bytes`]; the end where bytes are missing.
    pub at: usize,
    /// What was expected there.
    pub expected: Cow<'static, str>,
}

/// How a value is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WireType {
    /// Two bytes, big-endian: a magic number.
    U16,
    /// Four bytes, big-endian: the sizes and the checksum.
    U32,
    /// Protobuf's varint, behind its tag.
    Varint,
    /// Protobuf's eight bytes, little-endian, behind their tag.
    Fixed64,
    /// Protobuf's length and bytes, behind their tag. Of a nested message, and of packed numbers, tag and length alone.
    Length,
    /// Protobuf's four bytes, little-endian, behind their tag.
    Fixed32,
    /// One of several numbers that are packed: a varint without a tag.
    Packed,
    /// Bytes as they are.
    Raw,
}

impl WireType {
    /// Its name in texts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::Varint => "varint",
            Self::Fixed64 => "fixed64",
            Self::Length => "length",
            Self::Fixed32 => "fixed32",
            Self::Packed => "packed",
            Self::Raw => "raw",
        }
    }
}

/// The value of a line.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// None: bytes that are broken or not read, a field that is missing.
    None,
    /// `bool`.
    Bool(bool),
    /// `int32`.
    Int32(i32),
    /// `int64`.
    Int64(i64),
    /// `uint32`, and the sizes of a frame.
    Uint32(u32),
    /// `uint64`; a field that the schema does not have.
    Uint64(u64),
    /// `double`.
    Double(f64),
    /// A magic number or a checksum: shown in hexadecimal.
    Hex(u32),
    /// An enum.
    Enum {
        /// The number.
        number: i32,
        /// Its name, if the schema has it.
        name: Option<&'static str>,
    },
    /// `string`.
    Text(String),
    /// `bytes`, and payloads.
    Bytes(Bytes),
    /// A nested message, whose fields are the next lines.
    Message {
        /// The type of the message.
        name: &'static str,
        /// Its size by its length field, bytes.
        size: usize,
    },
    /// Numbers without tags of their own, which are the next lines.
    PackedList {
        /// Their size, bytes.
        size: usize,
    },
    /// A secret, which is not shown.
    Secret {
        /// Its size, bytes.
        size: usize,
    },
}

impl Explanation {
    /// The bytes of the frame, up to the end of the input or to what its `total_size` says.
    #[must_use]
    pub fn input(&self) -> &Bytes {
        &self.input
    }

    /// The payloads that were decompressed, which lines refer to by [`Line::content`].
    #[must_use]
    pub fn contents(&self) -> &[Bytes] {
        &self.contents
    }

    /// The bytes of one of its lines. Those of a secret are among them.
    #[must_use]
    pub fn bytes_of(&self, line: &Line) -> &[u8] {
        let whole = match line.content {
            None => Some(&self.input),
            Some(index) => self.contents.get(index),
        };
        whole.and_then(|whole| whole.get(line.bytes.clone())).unwrap_or_default()
    }

    /// What breaks the protocol in this frame.
    pub fn problems(&self) -> impl Iterator<Item = (&Line, &Problem)> {
        self.lines.iter().filter_map(|line| Some((line, line.problem.as_ref()?)))
    }

    /// The command in a phrase: what it is for and who sends it.
    #[must_use]
    pub fn phrase(&self) -> Option<&'static str> {
        commands::of_name(self.command?).map(|command| command.phrase)
    }

    /// The chapter of the repository's book that tells of the command.
    #[must_use]
    pub fn chapter(&self) -> Option<&'static str> {
        commands::of_name(self.command?).map(|command| command.chapter)
    }

    /// The frame as text, with options.
    #[must_use]
    pub fn text(&self) -> Text<'_> {
        Text::new(self)
    }
}

impl Line {
    /// The last part of the path, such as `producer_id` or `properties[2]`; of the parts of a record, such as
    /// `records[1].payload`, all of it.
    #[must_use]
    pub fn name(&self) -> &str {
        let is_of_record = self.path.starts_with("records[") && self.path.matches('.').count() == 1;
        if is_of_record { &self.path } else { self.path.rsplit('.').next().unwrap_or_default() }
    }

    /// Whether its bytes are not to be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self.value, Value::Secret { .. })
    }
}

impl std::fmt::Debug for Explanation {
    /// Does not show the frame, which may hold a credential.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { input: _, contents: _, offset, command, lines } = self;
        f.debug_struct("Explanation")
            .field("offset", offset)
            .field("command", command)
            .field("lines", lines)
            .finish_non_exhaustive()
    }
}
