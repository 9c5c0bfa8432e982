//! What the broker and the referee read.

/// Two Avro schemas, a line each: what reads itself, and both ways between them.
#[cfg(feature = "broker")]
pub fn avro(data: &[u8]) {
    use crate::broker::avro::{AvroSchema, check_read};
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let schemas = [lines.next().unwrap_or_default(), lines.next().unwrap_or_default()].map(AvroSchema::parse);
    for schema in schemas.iter().flatten() {
        assert_eq!(check_read(schema, schema), Ok(()), "a schema reads itself");
    }
    if let [Ok(one), Ok(other)] = &schemas {
        let _ = (check_read(one, other), check_read(other, one));
    }
}

/// A line of a glue, as the referee reads it.
#[cfg(feature = "referee")]
pub fn referee_line(data: &[u8]) {
    use crate::referee::{Line, check_line};

    let Ok(text) = std::str::from_utf8(data) else { return };
    for line in text.lines() {
        match Line::parse(line) {
            Ok(read) => check_line(line, &read),
            Err(lacks) => assert!(!lacks.is_empty()),
        }
    }
}
