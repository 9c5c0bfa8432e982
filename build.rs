//! Generates the Rust types of the protocol from `proto/pulsar.fds`, the compiled form of the `.proto` files beside it.
//!
//! The set is checked in so that a build needs no Protobuf compiler, neither `protoc` nor one in Rust. A build stops when
//! the `.proto` files have changed since `proto/compile` made it.

use std::{env, error::Error, fs, path::Path, path::PathBuf};

use prost::Message as _;
use prost_types::FileDescriptorSet;

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
    fs::write(out_dir.join("explain_fields.rs"), names(&set))?;
    // For the tests that compare the schema with other sources.
    fs::write(out_dir.join(DESCRIPTOR_SET), encoded)?;

    prost_build::Config::new().bytes(["."]).skip_debug(MESSAGES_WITH_CREDENTIALS).compile_fds(set)?;
    Ok(())
}

/// Names of fields and of enum values, as two tables of Rust source: (message, number, field, type) and
/// (enum, number, value). Types are named without their package.
fn names(set: &FileDescriptorSet) -> String {
    let (mut fields, mut values) = (String::new(), String::new());
    for file in &set.file {
        for message in &file.message_type {
            names_of_message(message, &mut fields, &mut values);
        }
        for kind in &file.enum_type {
            names_of_enum(kind, &mut values);
        }
    }
    format!(
        "static FIELDS: &[(&str, u32, &str, &str)] = &[{fields}];\nstatic ENUM_VALUES: &[(&str, i32, &str)] = \
         &[{values}];\n"
    )
}

fn names_of_message(message: &prost_types::DescriptorProto, fields: &mut String, values: &mut String) {
    for field in &message.field {
        let last = field.type_name().rsplit('.').next().unwrap_or_default();
        let is_bool = field.r#type() == prost_types::field_descriptor_proto::Type::Bool;
        let kind = if is_bool { "bool" } else { last };
        fields.push_str(&format!("({:?}, {}, {:?}, {kind:?}),", message.name(), field.number(), field.name()));
    }
    message.nested_type.iter().for_each(|nested| names_of_message(nested, fields, values));
    message.enum_type.iter().for_each(|kind| names_of_enum(kind, values));
}

fn names_of_enum(kind: &prost_types::EnumDescriptorProto, values: &mut String) {
    for value in &kind.value {
        values.push_str(&format!("({:?}, {}, {:?}),", kind.name(), value.number(), value.name()));
    }
}
