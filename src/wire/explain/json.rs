//! A frame as JSON, for programs.

use std::fmt::Write as _;

use super::{Explanation, Line, Value};

impl Explanation {
    /// The frame as one JSON object on one line.
    ///
    /// Members: `offset`, `size`, `command`, `phrase`, `rule`, and `lines`, each with `offset`, `size`, `hex`, `depth`, `path`,
    /// `wire_type`, `value`, `meaning`, `rule`, `problem` (`at`, `expected`) and `content` (the number of the opened payload that
    /// it is in, from 0). What there is none of is `null`. Offsets of lines count from the start of the frame, or of the content.
    ///
    /// Integers of 64 bits are strings, as in the JSON of protobuf; an enum is `{"number", "name"}`, bytes are `{"hex"}`, a nested
    /// message `{"message", "size"}`. Of a secret there is `{"secret_size"}` alone, and no `hex`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        let _ = write!(out, "{{\"offset\":{},\"size\":{},\"command\":", self.offset, self.input.len());
        put_text(&mut out, self.command);
        out.push_str(",\"phrase\":");
        put_text(&mut out, self.phrase());
        out.push_str(",\"rule\":");
        put_text(&mut out, self.chapter());
        out.push_str(",\"lines\":[");
        for (index, line) in self.lines.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            self.put_line(&mut out, line);
        }
        out.push_str("]}");
        out
    }

    fn put_line(&self, out: &mut String, line: &Line) {
        let _ = write!(out, "{{\"offset\":{},\"size\":{},\"hex\":", line.bytes.start, line.bytes.len());
        match line.is_secret() {
            true => out.push_str("null"),
            false => put_hex(out, self.bytes_of(line)),
        }
        let _ = write!(out, ",\"depth\":{},\"path\":", line.depth);
        put_text(out, Some(&line.path));
        out.push_str(",\"wire_type\":");
        put_text(out, Some(line.wire_type.name()));
        out.push_str(",\"value\":");
        put_value(out, &line.value);
        out.push_str(",\"meaning\":");
        put_text(out, line.meaning.as_deref());
        out.push_str(",\"rule\":");
        put_text(out, line.rule);
        out.push_str(",\"problem\":");
        match &line.problem {
            Some(problem) => {
                let _ = write!(out, "{{\"at\":{},\"expected\":", problem.at);
                put_text(out, Some(&problem.expected));
                out.push('}');
            }
            None => out.push_str("null"),
        }
        out.push_str(",\"content\":");
        let _ = match line.content {
            Some(index) => write!(out, "{index}}}"),
            None => write!(out, "null}}"),
        };
    }
}

fn put_value(out: &mut String, value: &Value) {
    let _ = match value {
        Value::None => write!(out, "null"),
        Value::Bool(set) => write!(out, "{set}"),
        Value::Int32(number) => write!(out, "{number}"),
        Value::Uint32(number) => write!(out, "{number}"),
        Value::Int64(number) => write!(out, "\"{number}\""),
        Value::Uint64(number) => write!(out, "\"{number}\""),
        // JSON has neither infinity nor NaN.
        Value::Double(number) if number.is_finite() => write!(out, "{number:?}"),
        Value::Double(number) => write!(out, "\"{number}\""),
        Value::Hex(number) => write!(out, "\"{number:#x}\""),
        Value::Enum { number, name } => {
            let _ = write!(out, "{{\"number\":{number},\"name\":");
            put_text(out, *name);
            write!(out, "}}")
        }
        Value::Text(text) => {
            put_text(out, Some(text));
            Ok(())
        }
        Value::Bytes(bytes) => {
            out.push_str("{\"hex\":");
            put_hex(out, bytes);
            write!(out, "}}")
        }
        Value::Message { name, size } => write!(out, "{{\"message\":\"{name}\",\"size\":{size}}}"),
        Value::PackedList { size } => write!(out, "{{\"packed_size\":{size}}}"),
        Value::Secret { size } => write!(out, "{{\"secret_size\":{size}}}"),
    };
}

fn put_hex(out: &mut String, bytes: &[u8]) {
    out.push('"');
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out.push('"');
}

/// A string of JSON, or `null`.
fn put_text(out: &mut String, text: Option<&str>) {
    let Some(text) = text else { return out.push_str("null") };
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            // U+2028 and U+2029 end a line in older JavaScript.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
