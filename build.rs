//! Generates the Rust types of the protocol from `proto/`, without `protoc`.
//!
//! Next to them it leaves the descriptor set, so that a test can compare what was compiled with
//! the wire facts in `tests/wire/`.

use std::{env, error::Error, fs, path::PathBuf};

const PROTO_DIR: &str = "proto";
const PROTO_FILES: [&str; 2] = ["PulsarApi.proto", "PulsarMarkers.proto"];

/// Messages that hold a credential: `src/pb.rs` writes their `Debug` by hand.
const MESSAGES_WITH_CREDENTIALS: [&str; 4] = [
    ".pulsar.proto.AuthData",
    ".pulsar.proto.CommandConnect",
    ".pulsar.proto.CommandLookupTopic",
    ".pulsar.proto.CommandPartitionedTopicMetadata",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={PROTO_DIR}");

    let mut compiler = protox::Compiler::new([PROTO_DIR])?;
    compiler.include_source_info(true);
    compiler.open_files(PROTO_FILES)?;

    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out_dir.join("pulsar.fds"), compiler.encode_file_descriptor_set())?;

    fs::write(out_dir.join("explain_fields.rs"), names(compiler.file_descriptor_set()))?;

    prost_build::Config::new()
        .bytes(["."])
        .skip_debug(MESSAGES_WITH_CREDENTIALS)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// Names of fields and of enum values, as two tables of Rust source: (message, number, field, type) and
/// (enum, number, value). Types are named without their package.
fn names(set: prost_types::FileDescriptorSet) -> String {
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
