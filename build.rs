//! Generates the Rust types of the protocol from `proto/pulsar.fds`, the compiled form of the `.proto` files beside it.
//!
//! The set is checked in so that a build needs no Protobuf compiler, neither `protoc` nor one in Rust. A build stops when
//! the `.proto` files have changed since `proto/compile` made it.

use std::{env, error::Error, fs, path::Path, path::PathBuf};

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

#[path = "proto/checksums.rs"]
mod checksums;

use checksums::{CHECKSUMS, COMMAND, DESCRIPTOR_SET, PROTO_FILES, checksums};

const PROTO_DIR: &str = "proto";

/// Messages that hold a credential: `src/pb.rs` writes their `Debug` by hand.
const MESSAGES_WITH_CREDENTIALS: [&str; 4] = [
    ".pulsar.proto.AuthData",
    ".pulsar.proto.CommandConnect",
    ".pulsar.proto.CommandLookupTopic",
    ".pulsar.proto.CommandPartitionedTopicMetadata",
];

fn main() -> Result<(), Box<dyn Error>> {
    let proto_dir = Path::new(PROTO_DIR);
    println!("cargo::rerun-if-changed=build.rs");
    for name in PROTO_FILES.iter().chain(&[DESCRIPTOR_SET, CHECKSUMS, "checksums.rs"]) {
        println!("cargo::rerun-if-changed={PROTO_DIR}/{name}");
    }
    if fs::read_to_string(proto_dir.join(CHECKSUMS))? != checksums(proto_dir)? {
        println!("cargo::error=the .proto files no longer match {PROTO_DIR}/{DESCRIPTOR_SET}; run `{COMMAND}`");
        return Ok(());
    }

    let encoded = fs::read(proto_dir.join(DESCRIPTOR_SET))?;
    let set = FileDescriptorSet::decode(&encoded[..])?;
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out_dir.join("schema_tables.rs"), tables(&set))?;
    // For the tests that compare the schema with other sources.
    fs::write(out_dir.join(DESCRIPTOR_SET), encoded)?;

    prost_build::Config::new().bytes(["."]).skip_debug(MESSAGES_WITH_CREDENTIALS).compile_fds(set)?;
    Ok(())
}

/// The messages and enums as two tables of Rust source, for `src/wire/explain/schema.rs`. A type is a place in them, and its
/// name is without the package.
fn tables(set: &FileDescriptorSet) -> String {
    let (mut messages, mut enums) = (Vec::new(), Vec::new());
    for file in &set.file {
        let package = format!(".{}.", file.package());
        file.message_type.iter().for_each(|message| collect(&package, message, &mut messages, &mut enums));
        enums.extend(file.enum_type.iter().map(|kind| (format!("{package}{}", kind.name()), kind)));
    }
    let message_names: Vec<&str> = messages.iter().map(|(name, _)| name.as_str()).collect();
    let enum_names: Vec<&str> = enums.iter().map(|(name, _)| name.as_str()).collect();
    let index = |names: &[&str], name: &str| names.iter().position(|known| *known == name).expect("a type of the set");
    let kind = |field: &prost_types::FieldDescriptorProto| match field.r#type() {
        Type::Message => format!("Message({})", index(&message_names, field.type_name())),
        Type::Enum => format!("Enum({})", index(&enum_names, field.type_name())),
        scalar => format!("{scalar:?}"),
    };
    let local = |name: &str| name.split_once(".proto.").map_or(name, |(_, name)| name).to_owned();
    let mut source = String::from("static MESSAGES: &[MessageType] = &[");
    for (name, message) in &messages {
        source.push_str(&format!("MessageType {{ name: {:?}, fields: &[", local(name)));
        for field in &message.field {
            let (is_repeated, is_required) = (field.label() == Label::Repeated, field.label() == Label::Required);
            source.push_str(&format!(
                "FieldType {{ number: {}, name: {:?}, kind: Kind::{}, is_repeated: {is_repeated}, is_required: \
                 {is_required} }},",
                field.number(),
                field.name(),
                kind(field)
            ));
        }
        source.push_str("] },");
    }
    source.push_str("];\nstatic ENUMS: &[EnumType] = &[");
    for (_, kind) in &enums {
        let values: String =
            kind.value.iter().map(|value| format!("({}, {:?}),", value.number(), value.name())).collect();
        source.push_str(&format!("&[{values}],"));
    }
    source.push_str("];\n");
    source
}

/// A message and what is declared inside it, by full names.
fn collect<'a>(
    scope: &str,
    message: &'a DescriptorProto,
    messages: &mut Vec<(String, &'a DescriptorProto)>,
    enums: &mut Vec<(String, &'a EnumDescriptorProto)>,
) {
    let name = format!("{scope}{}", message.name());
    let inner = format!("{name}.");
    message.nested_type.iter().for_each(|nested| collect(&inner, nested, messages, enums));
    enums.extend(message.enum_type.iter().map(|kind| (format!("{inner}{}", kind.name()), kind)));
    messages.push((name, message));
}
