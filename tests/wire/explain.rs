//! `explain` against the generic decoder of the schema: for each vector, and for each file of the fuzz corpora as a stream, as a
//! command and as an entry, the lines cover the input exactly once, and their values are those that prost-reflect reads.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use prost_reflect::{DynamicMessage, Kind, ReflectMessage, Value as Field};
use pulsar_native::wire::explain::{Explanation, Value, WireType, explain};

use super::vectors::{list, message_type, vectors};

/// What a field holds, by its path.
type Values = BTreeMap<String, String>;

#[test]
fn each_vector_is_covered_and_read_as_prost_reads_it() {
    let (mut frames, mut broken) = (0, 0);
    for kind in ["frames", "captured", "negative"] {
        for vector in list(&vectors()[kind]) {
            for explained in explain(&super::vectors::hex(&vector["hex"])) {
                check(&explained);
                frames += 1;
                broken += u32::from(explained.problems().count() > 0);
            }
        }
    }
    // Of the damaged ones, these read well but must not be sent.
    let sound = ["flow_zero_permits", "second_connect", "seek_without_target", "message_uncompressed_size_lie"];
    assert_eq!((frames, broken), (213, 15 - sound.len() as u32));
}

/// A published package has no corpora.
#[test]
fn each_file_of_the_corpora_is_covered_and_read_as_prost_reads_it() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let Ok(folders) = fs::read_dir(corpora) else { return };
    let (mut files, mut compared) = (0, 0);
    for folder in folders {
        for file in fs::read_dir(folder.expect("a folder").path()).expect("a corpus") {
            let path = file.expect("a file").path();
            let data = fs::read(&path).expect("it is read");
            println!("{}", path.display());
            files += 1;
            let behind = data.get(1..).unwrap_or_default();
            for input in [data.clone(), behind.to_vec(), framed(&data, &[]), framed(SEND, &data), framed(SEND, behind)]
            {
                for explained in explain(&input) {
                    compared += u32::from(check(&explained));
                }
            }
        }
    }
    assert!(files > 300 && compared > 120, "{files} files, {compared} frames without a problem");
}

/// A SEND with its two required fields.
const SEND: &[u8] = &[8, 6, 0x32, 4, 8, 0, 16, 0];

fn framed(command: &[u8], entry: &[u8]) -> Vec<u8> {
    let size = |bytes: usize| (bytes as u32).to_be_bytes();
    [&size(4 + command.len() + entry.len())[..], &size(command.len()), command, entry].concat()
}

/// Whether all of the frame could be compared.
fn check(explained: &Explanation) -> bool {
    let contents = (0..explained.contents().len()).map(Some);
    for content in std::iter::once(None).chain(contents) {
        let mut at = 0;
        for line in explained.lines.iter().filter(|line| line.content == content) {
            assert_eq!(line.bytes.start, at, "each byte once:\n{explained}");
            at = line.bytes.end;
        }
        let whole = content.map_or(explained.input(), |index| &explained.contents()[index]);
        assert_eq!(at, whole.len(), "to the last byte:\n{explained}");
    }
    let _ = (explained.to_string(), explained.to_json());
    if explained.problems().any(|(line, _)| line.path != "checksum") || pieces(explained) {
        return false;
    }
    let ours = our_values(explained);
    let mut theirs = Values::new();
    let mut sized = |path: &str, message: &str, prefix: &str| {
        let line = explained.lines.iter().find(|line| line.path == path)?;
        let Value::Uint32(size) = line.value else { panic!("{path} is a size") };
        let whole = line.content.map_or(explained.input(), |index| &explained.contents()[index]);
        read(message, &whole[line.bytes.end..line.bytes.end + size as usize], prefix, &mut theirs);
        Some(())
    };
    sized("command_size", "BaseCommand", "");
    sized("broker_entry_metadata_size", "BrokerEntryMetadata", "");
    sized("metadata_size", "MessageMetadata", "");
    let mut record = |index| {
        let prefix = format!("records[{index}].");
        sized(&format!("{prefix}metadata_size"), "SingleMessageMetadata", &prefix)
    };
    let _ = (0..).map_while(&mut record).count();
    assert_eq!(ours, theirs, "{explained}");
    true
}

/// Whether a message comes in pieces, which prost puts together.
fn pieces(explained: &Explanation) -> bool {
    let nested = explained.lines.iter().filter(|line| matches!(line.value, Value::Message { .. }));
    let mut paths: Vec<_> = nested.map(|line| &line.path).collect();
    paths.sort();
    paths.windows(2).any(|pair| pair[0] == pair[1])
}

/// The fields of the schema; of a field that comes twice the last counts.
fn our_values(explained: &Explanation) -> Values {
    let of_message = explained.lines.iter().filter(|line| {
        let is_field = !matches!(line.wire_type, WireType::Raw | WireType::U16 | WireType::U32);
        is_field && !line.name().starts_with(|c: char| c.is_ascii_digit())
    });
    let value = |value: &Value| match value {
        Value::Bool(value) => format!("{value}"),
        Value::Int32(value) => format!("i32 {value}"),
        Value::Int64(value) => format!("i64 {value}"),
        Value::Uint32(value) => format!("u32 {value}"),
        Value::Uint64(value) => format!("u64 {value}"),
        Value::Double(value) => format!("f64 {:x}", value.to_bits()),
        Value::Enum { number, .. } => format!("enum {number}"),
        Value::Text(text) => format!("{text:?}"),
        Value::Bytes(bytes) => format!("bytes {bytes:?}"),
        Value::Message { name, .. } => format!("message {name}"),
        Value::Secret { size } => format!("secret of {size}"),
        other => panic!("{other:?} is no value of a field"),
    };
    of_message
        .filter(|line| !matches!(line.value, Value::PackedList { .. }))
        .map(|line| (line.path.clone(), value(&line.value)))
        .collect()
}

fn read(message: &str, bytes: &[u8], prefix: &str, values: &mut Values) {
    let message = DynamicMessage::decode(message_type(message), bytes).expect("what has no problem, prost reads");
    flatten(&message, &format!("{prefix}{}", message.descriptor().name()), values);
}

fn flatten(message: &DynamicMessage, prefix: &str, values: &mut Values) {
    for (field, value) in message.fields() {
        let path = format!("{prefix}.{}", field.name());
        let is_secret = field.name().ends_with("auth_data");
        match value {
            Field::List(list) => {
                for (index, value) in list.iter().enumerate() {
                    put(&field.kind(), value, format!("{path}[{index}]"), is_secret, values);
                }
            }
            value => put(&field.kind(), value, path, is_secret, values),
        }
    }
}

fn put(kind: &Kind, value: &Field, path: String, is_secret: bool, values: &mut Values) {
    let text = match value {
        Field::String(text) if is_secret => format!("secret of {}", text.len()),
        Field::Bytes(bytes) if is_secret => format!("secret of {}", bytes.len()),
        Field::Bool(value) => format!("{value}"),
        Field::I32(value) => format!("i32 {value}"),
        Field::I64(value) => format!("i64 {value}"),
        Field::U32(value) => format!("u32 {value}"),
        Field::U64(value) => format!("u64 {value}"),
        Field::F64(value) => format!("f64 {:x}", value.to_bits()),
        Field::EnumNumber(number) => format!("enum {number}"),
        Field::String(text) => format!("{text:?}"),
        Field::Bytes(bytes) => format!("bytes {bytes:?}"),
        Field::Message(message) => {
            let name = message.descriptor().name().to_owned();
            // The body of a command is named by its type.
            let inner = if path.starts_with("BaseCommand.") { name.clone() } else { path.clone() };
            flatten(message, &inner, values);
            format!("message {name}")
        }
        other => panic!("no field of the schema holds {other:?}, a {kind:?}"),
    };
    values.insert(path, text);
}
