//! A frame as text: offset, bytes in hexadecimal, field and value, meaning.

use std::fmt;

use super::{Explanation, Line, Value, WireType};

/// Bytes in one row.
const ROW_BYTES_DEFAULT: usize = 12;

/// The most characters of a text, unless all is shown.
const TEXT_CHARS_MAX: usize = 60;

/// A part of a text that can be given a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The command and its size.
    Heading,
    /// The offset of a line.
    Offset,
    /// The bytes of a line.
    Hex,
    /// The name of a field.
    Name,
    /// The value of a field.
    Value,
    /// What it means.
    Meaning,
    /// What breaks the protocol.
    Problem,
}

/// What is written before and behind a part.
type Paint = fn(Part) -> (&'static str, &'static str);

/// The text of an [`Explanation`], which `Display` prints: a heading, and a line for each item.
///
/// ```text
/// FLOW, 18 bytes: the client lets the broker send more messages to a consumer [docs/protocol/06-flow.md#flow]
///      0  00 00 00 0e                             total_size = 14  (bytes of the frame behind this field)
/// ```
#[derive(Debug, Clone)]
pub struct Text<'a> {
    explanation: &'a Explanation,
    shows_all: bool,
    row_bytes: usize,
    paint: Paint,
}

impl<'a> Text<'a> {
    pub(super) fn new(explanation: &'a Explanation) -> Self {
        Self { explanation, shows_all: false, row_bytes: ROW_BYTES_DEFAULT, paint: |_| ("", "") }
    }

    /// How many bytes a row shows, at least one; twelve by default.
    #[must_use]
    pub fn row_bytes(mut self, count: usize) -> Self {
        self.row_bytes = count.max(1);
        self
    }

    /// Whether each byte and all of a text is shown; by default one row of a line and sixty characters of a text.
    #[must_use]
    pub fn all_bytes(mut self, shows_all: bool) -> Self {
        self.shows_all = shows_all;
        self
    }

    /// What to write before and behind each part, such as the escape sequences of a terminal's colours. Nothing by default.
    #[must_use]
    pub fn painted(mut self, paint: Paint) -> Self {
        self.paint = paint;
        self
    }

    fn put(&self, f: &mut fmt::Formatter<'_>, part: Part, text: fmt::Arguments<'_>) -> fmt::Result {
        let (before, behind) = (self.paint)(part);
        write!(f, "{before}{text}{behind}")
    }

    fn heading(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let explained = self.explanation;
        let (name, size) = (explained.command.unwrap_or("no command"), explained.input.len());
        let (phrase, chapter) = (explained.phrase(), explained.chapter());
        self.put(f, Part::Heading, format_args!("{name}, {}", bytes_of_size(size)))?;
        if explained.offset > 0 {
            write!(f, " at {}", explained.offset)?;
        }
        if let (Some(phrase), Some(chapter)) = (phrase, chapter) {
            write!(f, ": {phrase} [{chapter}]")?;
        }
        writeln!(f)
    }

    fn line(&self, f: &mut fmt::Formatter<'_>, line: &Line) -> fmt::Result {
        let bytes = self.explanation.bytes_of(line);
        let mut rows = bytes.chunks(self.row_bytes);
        let first = rows.next().unwrap_or_default();
        let base = if line.content.is_some() { 0 } else { self.explanation.offset };
        let offset = base + line.bytes.start as u64;
        self.row(f, offset, first, bytes.len() > first.len() && !self.shows_all, line.is_secret())?;
        write!(f, "  {:indent$}", "", indent = 2 * line.depth)?;
        self.item(f, line)?;
        if self.shows_all && !line.is_secret() {
            for (index, row) in rows.enumerate() {
                self.row(f, offset + ((index + 1) * self.row_bytes) as u64, row, false, false)?;
                writeln!(f)?;
            }
        }
        if let Some(problem) = &line.problem {
            write!(f, "{:>6}  ", "!")?;
            let at = base + problem.at as u64;
            self.put(f, Part::Problem, format_args!("broken at {at}: expected {}", problem.expected))?;
            writeln!(f)?;
        }
        Ok(())
    }

    fn row(&self, f: &mut fmt::Formatter<'_>, offset: u64, bytes: &[u8], is_cut: bool, is_secret: bool) -> fmt::Result {
        // Two dots where there are more.
        let width = 3 * self.row_bytes + 2;
        let mut hex = String::with_capacity(width);
        if is_secret {
            hex.push_str("**");
        } else {
            bytes.iter().for_each(|byte| hex.push_str(&format!("{byte:02x} ")));
        }
        if is_cut && !is_secret {
            hex.push_str("..");
        }
        self.put(f, Part::Offset, format_args!("{offset:>6}"))?;
        f.write_str("  ")?;
        self.put(f, Part::Hex, format_args!("{hex:<width$}"))
    }

    /// Name, value and meaning, and the end of the row.
    fn item(&self, f: &mut fmt::Formatter<'_>, line: &Line) -> fmt::Result {
        self.put(f, Part::Name, format_args!("{}", line.name()))?;
        match &line.value {
            Value::None => {}
            Value::Message { name, size } => {
                f.write_str(": ")?;
                self.put(f, Part::Value, format_args!("{name}, {}", bytes_of_size(*size)))?;
            }
            Value::PackedList { size } => {
                f.write_str(": ")?;
                self.put(f, Part::Value, format_args!("packed, {}", bytes_of_size(*size)))?;
            }
            value => {
                f.write_str(" = ")?;
                let value = value_text(value, line.wire_type, self.shows_all);
                self.put(f, Part::Value, format_args!("{value}"))?;
            }
        }
        if let Some(meaning) = &line.meaning {
            f.write_str("  ")?;
            self.put(f, Part::Meaning, format_args!("({meaning})"))?;
        }
        writeln!(f)
    }
}

fn bytes_of_size(size: usize) -> String {
    format!("{size} byte{}", if size == 1 { "" } else { "s" })
}

fn value_text(value: &Value, wire_type: WireType, shows_all: bool) -> String {
    match value {
        Value::None => String::new(),
        Value::Bool(set) => set.to_string(),
        Value::Int32(number) => number.to_string(),
        Value::Int64(number) => number.to_string(),
        Value::Uint32(number) => number.to_string(),
        Value::Uint64(number) => number.to_string(),
        Value::Double(number) => format!("{number:?}"),
        Value::Hex(number) if wire_type == WireType::U16 => format!("{number:#06x}"),
        Value::Hex(number) => format!("{number:#010x}"),
        Value::Enum { number, name } => format!("{number} {}", name.unwrap_or("(unknown)")),
        Value::Text(text) => quoted(text, shows_all),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if !bytes.is_empty() && !text.contains(char::is_control) => quoted(text, shows_all),
            _ => bytes_of_size(bytes.len()),
        },
        Value::Message { size, .. } | Value::PackedList { size } => bytes_of_size(*size),
        Value::Secret { size } => format!("<{}>", bytes_of_size(*size)),
    }
}

fn quoted(text: &str, shows_all: bool) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) if !shows_all => format!("{:?}..", &text[..end]),
        _ => format!("{text:?}"),
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.heading(f)?;
        let mut shown = None;
        for line in &self.explanation.lines {
            if let Some(index) = line.content.filter(|_| line.content != shown) {
                let size = self.explanation.contents.get(index).map_or(0, |content| content.len());
                writeln!(f, "        in the opened payload of {}:", bytes_of_size(size))?;
            }
            shown = line.content;
            self.line(f, line)?;
        }
        Ok(())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(f)
    }
}
