//! The compiled schema against the wire facts in `tests/wire/`, row by row in both directions.
//!
//! The facts are tables of what known brokers and clients put on the wire; this crate's `.proto`
//! files are written apart from them. Rows of the 5.0 line are left out by [`is_kept`].

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pulsar.fds"));

const FACTS: &str = include_str!("wire-schema.tsv");
const MARKER_FACTS: &str = include_str!("wire-schema-markers.tsv");
const FACTS_HEADER: &str = "kind\tparent\tname\tnumber\tlabel\ttype\tdefault\tflags\tseen_in";

const PACKAGE: &str = ".pulsar.proto.";

/// The columns that are compared: kind, parent, name, number, label, type, default, flags.
type Row = [String; 8];

fn row(columns: [&str; 8]) -> Row {
    columns.map(str::to_owned)
}

/// A row is kept if all compared sources know it, or the newest client of the 4.x line does.
/// Everything else exists in the 5.0 line only.
fn is_kept(seen_in: &str) -> bool {
    seen_in == "all" || seen_in.split(',').any(|source| source == "java4.2.4")
}

/// Kept and left-out rows of a table.
fn facts(table: &str) -> (Vec<Row>, Vec<Row>) {
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some(FACTS_HEADER));
    let rows = lines.map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [kind, parent, name, number, label, type_, default, flags, seen_in] = columns[..] else {
            panic!("nine columns expected: {line:?}");
        };
        let compared = row([kind, parent, name, number, label, type_, default, flags]);
        (compared, is_kept(seen_in))
    });
    let (kept, left_out): (Vec<_>, Vec<_>) = rows.partition(|(_, kept)| *kept);
    let strip = |rows: Vec<(Row, bool)>| rows.into_iter().map(|(row, _)| row).collect();
    (strip(kept), strip(left_out))
}

fn all_facts() -> (Vec<Row>, Vec<Row>) {
    let (mut kept, mut left_out) = facts(FACTS);
    let (marker_kept, marker_left_out) = facts(MARKER_FACTS);
    kept.extend(marker_kept);
    left_out.extend(marker_left_out);
    (kept, left_out)
}

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(DESCRIPTORS).expect("the build writes a descriptor set")
}

/// The descriptor set as rows of the same form.
fn compiled() -> Vec<Row> {
    let mut rows = Vec::new();
    for file in descriptors().file {
        assert_eq!(file.package(), "pulsar.proto");
        // Compilers leave the syntax out of a descriptor of proto2.
        assert!(matches!(file.syntax(), "" | "proto2"));
        assert!(file.extension.is_empty() && file.service.is_empty());
        for message in &file.message_type {
            push_message(&mut rows, message);
        }
        for enum_ in &file.enum_type {
            push_enum(&mut rows, "-", enum_);
        }
    }
    rows
}

fn push_message(rows: &mut Vec<Row>, message: &DescriptorProto) {
    let name = message.name();
    // The facts know neither of these; one in the schema would escape the comparison.
    assert!(message.nested_type.is_empty(), "nested message in {name}");
    assert!(message.extension_range.is_empty(), "extensions in {name}");
    rows.push(row(["message", "-", name, "-", "-", "-", "-", "-"]));
    for enum_ in &message.enum_type {
        push_enum(rows, name, enum_);
    }
    for field in &message.field {
        rows.push(field_row(message, field));
    }
}

fn push_enum(rows: &mut Vec<Row>, parent: &str, enum_: &EnumDescriptorProto) {
    let full_name = match parent {
        "-" => enum_.name().to_owned(),
        _ => format!("{parent}.{}", enum_.name()),
    };
    rows.push(row(["enum", parent, enum_.name(), "-", "-", "-", "-", "-"]));
    for value in &enum_.value {
        let deprecated = value.options.as_ref().is_some_and(|o| o.deprecated());
        let flags = if deprecated { "deprecated" } else { "-" };
        let number = value.number().to_string();
        rows.push(row(["value", &full_name, value.name(), &number, "-", "-", "-", flags]));
    }
}

fn field_row(message: &DescriptorProto, field: &FieldDescriptorProto) -> Row {
    let label = match field.label() {
        Label::Required => "required",
        Label::Optional => "optional",
        Label::Repeated => "repeated",
    };
    let default = field.default_value.as_deref().unwrap_or("-");
    row([
        "field",
        message.name(),
        field.name(),
        &field.number().to_string(),
        label,
        &type_name(field),
        default,
        &field_flags(message, field),
    ])
}

fn field_flags(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let mut flags = Vec::new();
    if let Some(options) = &field.options {
        if options.packed() {
            flags.push("packed".to_owned());
        }
        if options.deprecated() {
            flags.push("deprecated".to_owned());
        }
    }
    if let Some(index) = field.oneof_index {
        let index = usize::try_from(index).expect("an index");
        flags.push(format!("oneof={}", message.oneof_decl[index].name()));
    }
    match flags.is_empty() {
        true => "-".to_owned(),
        false => flags.join(","),
    }
}

fn type_name(field: &FieldDescriptorProto) -> String {
    let scalar = match field.r#type() {
        Type::Message | Type::Enum => {
            let full_name = field.type_name();
            return full_name
                .strip_prefix(PACKAGE)
                .unwrap_or_else(|| panic!("{full_name} is outside of the package"))
                .to_owned();
        }
        Type::Bool => "bool",
        Type::Bytes => "bytes",
        Type::String => "string",
        Type::Double => "double",
        Type::Int32 => "int32",
        Type::Int64 => "int64",
        Type::Uint32 => "uint32",
        Type::Uint64 => "uint64",
        other => panic!("the protocol has no {other:?} field: {}", field.name()),
    };
    scalar.to_owned()
}

/// Rows as a set; a row given twice would hide in it.
fn unique(rows: Vec<Row>) -> BTreeSet<Row> {
    let count = rows.len();
    let set: BTreeSet<Row> = rows.into_iter().collect();
    assert_eq!(set.len(), count, "duplicate rows");
    set
}

#[test]
fn schema_and_wire_facts_agree_in_both_directions() {
    let (kept, _) = all_facts();
    let (facts, compiled) = (unique(kept), unique(compiled()));
    let missing: Vec<_> = facts.difference(&compiled).collect();
    let surplus: Vec<_> = compiled.difference(&facts).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "in the facts, not in the schema: {missing:#?}\n\
         in the schema, not in the facts: {surplus:#?}"
    );
}

/// The comparison is only worth as much as the tables: a truncated one, or a rule that drops too
/// much, shows here.
#[test]
fn kept_and_left_out_rows_are_as_many_as_known() {
    let (kept, left_out) = facts(FACTS);
    assert_eq!((kept.len(), left_out.len()), (672, 133));
    let (kept, left_out) = facts(MARKER_FACTS);
    assert_eq!((kept.len(), left_out.len()), (28, 0));
}

#[test]
fn commands_of_the_5_0_line_are_left_out() {
    let (_, left_out) = all_facts();
    let numbers: BTreeSet<i32> = left_out
        .iter()
        .filter(|row| row[0] == "value" && row[1] == "BaseCommand.Type")
        .map(|row| row[3].parse().expect("a number"))
        .collect();
    assert_eq!(numbers, (70..=81).collect());
}

#[test]
fn body_of_each_command_has_the_number_of_its_type() {
    let set = descriptors();
    let base = set
        .file
        .iter()
        .flat_map(|file| &file.message_type)
        .find(|message| message.name() == "BaseCommand")
        .expect("BaseCommand");
    let squash = |name: &str| name.replace('_', "").to_lowercase();
    let types: BTreeMap<i32, String> =
        base.enum_type[0].value.iter().map(|value| (value.number(), squash(value.name()))).collect();
    let bodies: BTreeMap<i32, String> = base
        .field
        .iter()
        .filter(|field| field.name() != "type")
        .map(|field| (field.number(), squash(field.name())))
        .collect();

    assert!(types.keys().eq(bodies.keys()));
    for (number, type_) in &types {
        // The protocol abbreviates two names on one side only.
        let expected = match type_.as_str() {
            "partitionedmetadata" => "partitionmetadata",
            "partitionedmetadataresponse" => "partitionmetadataresponse",
            "lookup" => "lookuptopic",
            "lookupresponse" => "lookuptopicresponse",
            name => name,
        };
        assert_eq!(bodies[number], expected, "number {number}");
    }
}
