//! Ties `pulsar.fds`, the descriptor set, to the `.proto` files it was compiled from: `proto/compile` records a checksum
//! of each file, the build script compares. A guard against a forgotten recompilation, so FNV-1a does.

use std::{fs, io, path::Path};

/// The schema, in the order of compilation.
pub(crate) const PROTO_FILES: [&str; 2] = ["PulsarApi.proto", "PulsarMarkers.proto"];

/// `PROTO_FILES` compiled: a `FileDescriptorSet` with comments.
pub(crate) const DESCRIPTOR_SET: &str = "pulsar.fds";

/// What [`checksums`] gave when the set was compiled.
pub(crate) const CHECKSUMS: &str = "checksums";

/// Refreshes the set and its checksums.
pub(crate) const COMMAND: &str = "cargo run --manifest-path proto/compile/Cargo.toml";

/// A line for each file of the schema and for the set: checksum, two spaces, name.
pub(crate) fn checksums(proto_dir: &Path) -> io::Result<String> {
    let mut lines = String::new();
    for name in PROTO_FILES.iter().chain([&DESCRIPTOR_SET]) {
        let sum = fnv1a(&fs::read(proto_dir.join(name))?);
        lines.push_str(&format!("{sum:016x}  {name}\n"));
    }
    Ok(lines)
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
