//! The bodies of the fuzz targets. They take any bytes and panic if this crate contradicts itself or prost,
//! or exceeds its limits. `fuzz/` calls them, and `cargo test` runs them over the stored corpora.
//!
//! | file | what is read |
//! | --- | --- |
//! | `frames` | streams of frames, commands, the codec of `tokio_util` |
//! | `entries` | entries, batches, compressed payloads |
//! | `built` | frames and entries that are made by the schema, to get behind lengths, types and checksums |
//! | `chunks` | chunked messages |
//! | `ids` | message ids and checkpoints |
//! | `names` | names of topics, service URLs, contexts of traces, hashes |
//! | `answers` | answers over HTTP, certificates, keys |
//! | `written` | what this crate writes, by its own decoders and by prost |
//! | `models` | small machines, beside a model of each |
//! | `served` | what the embedded broker and the referee are given |
//! | `captures` | captured traffic |
//! | `stateful/` | scripts that drive machines and worlds in virtual time |

#[cfg(test)]
mod allocations;
mod answers;
mod built;
mod captures;
mod chunks;
mod entries;
mod frames;
mod ids;
#[cfg(test)]
mod inputs;
mod models;
#[cfg(all(test, pulsar_mutations))]
mod mutations;
mod names;
#[cfg(any(feature = "broker", feature = "referee"))]
mod served;
pub mod stateful;
#[cfg(test)]
mod tests;
mod written;

pub use answers::*;
pub use built::*;
pub use captures::*;
pub use chunks::*;
pub use entries::*;
pub use frames::*;
pub use ids::*;
pub use models::*;
pub use names::*;
#[cfg(any(feature = "broker", feature = "referee"))]
pub use served::*;
pub use written::*;

/// A target: its name in `fuzz/`, and its body.
pub type FuzzTarget = (&'static str, fn(&[u8]));

/// All stateless targets of this build.
pub const TARGETS: &[FuzzTarget] = &[
    ("frame", frame),
    #[cfg(feature = "client")]
    ("codec", codec),
    ("command", command),
    ("built_stream", built_stream),
    ("entry", entry),
    ("built_entry", built_entry),
    ("batch", batch),
    ("written", written),
    ("ack_set", ack_set),
    ("auto_failover", auto_failover),
    ("assembly", assembly),
    ("decompress", decompress),
    ("decompress_lz4", decompress_lz4),
    ("decompress_zlib", decompress_zlib),
    ("decompress_zstd", decompress_zstd),
    ("decompress_snappy", decompress_snappy),
    #[cfg(feature = "encryption")]
    ("encrypted", encrypted),
    ("message_id", message_id),
    ("checkpoint", checkpoint),
    ("topic", topic),
    ("service_url", service_url),
    ("trace_context", trace_context),
    ("hash", hash),
    #[cfg(feature = "http")]
    ("http_answer", http_answer),
    #[cfg(feature = "http")]
    ("cluster_answer", cluster_answer),
    #[cfg(feature = "oauth2")]
    ("oauth2", oauth2),
    ("certificate", certificate),
    #[cfg(feature = "broker")]
    ("avro", avro),
    #[cfg(feature = "broker")]
    ("token", token),
    #[cfg(feature = "broker")]
    ("admin", admin),
    #[cfg(feature = "referee")]
    ("referee_line", referee_line),
    ("explain", explain),
    #[cfg(feature = "capture")]
    ("dump", dump),
    #[cfg(feature = "capture")]
    ("dump_forms", dump_forms),
    #[cfg(feature = "capture")]
    ("capture", capture),
    #[cfg(feature = "capture")]
    ("recording", recording),
];
