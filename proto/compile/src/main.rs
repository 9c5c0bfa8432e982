//! Compiles `proto/*.proto` into `proto/pulsar.fds`, the descriptor set that the build script of `pulsar-native` makes
//! its Rust types from, and records the checksums that tie the two together.
//!
//! With `--check` nothing is written: it fails unless the files that are there equal a fresh compilation.

use std::{env, error::Error, fs, path::Path, process::ExitCode};

#[path = "../../checksums.rs"]
mod checksums;

use checksums::{CHECKSUMS, COMMAND, DESCRIPTOR_SET, PROTO_FILES, checksums};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let proto_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let fresh = compile(&proto_dir)?;
    match env::args().nth(1).as_deref() {
        None => write(&proto_dir, &fresh),
        Some("--check") => check(&proto_dir, &fresh),
        Some(_) => Err("usage: pulsar-native-proto [--check]".into()),
    }
}

/// With comments, which become the documentation of the types.
fn compile(proto_dir: &Path) -> Result<Vec<u8>, protox::Error> {
    let mut compiler = protox::Compiler::new([proto_dir])?;
    compiler.include_source_info(true).open_files(PROTO_FILES)?;
    Ok(compiler.encode_file_descriptor_set())
}

fn write(proto_dir: &Path, fresh: &[u8]) -> Result<ExitCode, Box<dyn Error>> {
    fs::write(proto_dir.join(DESCRIPTOR_SET), fresh)?;
    fs::write(proto_dir.join(CHECKSUMS), checksums(proto_dir)?)?;
    println!("wrote {DESCRIPTOR_SET} ({} bytes) and {CHECKSUMS}", fresh.len());
    Ok(ExitCode::SUCCESS)
}

fn check(proto_dir: &Path, fresh: &[u8]) -> Result<ExitCode, Box<dyn Error>> {
    let set_is_fresh = fs::read(proto_dir.join(DESCRIPTOR_SET))? == fresh;
    let sums_are_right = fs::read_to_string(proto_dir.join(CHECKSUMS))? == checksums(proto_dir)?;
    if set_is_fresh && sums_are_right {
        println!("{DESCRIPTOR_SET} is what the .proto files compile to");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{DESCRIPTOR_SET} or {CHECKSUMS} does not match the .proto files; run `{COMMAND}`");
    Ok(ExitCode::FAILURE)
}
