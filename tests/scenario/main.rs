//! The public API on the embedded broker, with nothing else running.
//!
//! - `embedded`: the list in `tests/suite/`, which `tests/real/` runs on a real Pulsar as well.
//! - `faults`: what the client promises when everything around it fails, on a paused clock.
//! - `quickstart`: the example, as it is.
#![allow(unreachable_pub, reason = "modules of one test binary")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../suite/mod.rs"]
mod suite;

mod embedded;
mod faults;
mod quickstart;
