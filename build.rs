//! Generates the Rust types of the protocol from `proto/`, without `protoc`.
//!
//! Next to them it leaves the descriptor set, so that a test can compare what was compiled with
//! the wire facts in `tests/data/`.

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

    prost_build::Config::new()
        .bytes(["."])
        .skip_debug(MESSAGES_WITH_CREDENTIALS)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
