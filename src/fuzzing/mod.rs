//! The bodies of the fuzz targets. They take any bytes and panic if this crate contradicts itself or prost,
//! or exceeds its limits. `fuzz/` calls them, and `cargo test` runs them over the stored corpora.
//!
//! | file | what is read |
//! | --- | --- |
//! | `frames` | streams of frames, commands |
//! | `entries` | entries, batches, compressed payloads |
//! | `chunks` | chunked messages |
//! | `ids` | message ids and checkpoints |
//! | `answers` | answers over HTTP, certificates, keys |
//! | `served` | what the embedded broker and the referee are given |
//! | `captures` | captured traffic |
//! | `stateful/` | scripts that drive machines and worlds in virtual time |

mod answers;
mod captures;
mod chunks;
mod entries;
mod frames;
mod ids;
#[cfg(any(feature = "broker", feature = "referee"))]
mod served;
pub mod stateful;
#[cfg(test)]
mod tests;

pub use answers::*;
pub use captures::*;
pub use chunks::*;
pub use entries::*;
pub use frames::*;
pub use ids::*;
#[cfg(any(feature = "broker", feature = "referee"))]
pub use served::*;
