//! The public API on the embedded broker, with nothing else running.
//!
//! - `embedded`: the list in `tests/suite/`, which `tests/real/` runs on a real Pulsar as well.
//! - `older`: the same list on the embedded broker that plays older releases of Pulsar.
//! - `drain`: drains beside receives that wait on other threads.
//! - `embedded_broker`: the embedded broker in the hands of a test: assertions, several brokers.
//! - `faults`: what the client promises when everything around it fails, on a paused clock.
//! - `connect`: when a client dials, and how long it waits for a broker.
//! - `http`: `http://` and `https://` service URLs.
//! - `quickstart`, `examples`: the examples, as they are.
//! - `extremes`: options at the ends of their ranges.
//! - `mixed_batches`: batches of several keys on Key_Shared.
//! - `tapped`: the list in `tests/suite/` through a tap, and what it records.
//! - `tapped_brokers`: several brokers behind one tap.
//! - `oauth2`: tokens of an identity provider.
//! - `tls`: `pulsar+ssl://` and `https://`: certificates, redirects, tokens.
#![allow(unreachable_pub, reason = "modules of one test binary")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../suite/mod.rs"]
mod suite;

mod drain;
mod embedded;
mod embedded_broker;
mod examples;
mod extremes;
mod faults;
#[cfg(feature = "http")]
mod http;
mod mixed_batches;
#[cfg(feature = "oauth2")]
mod oauth2;
mod older;
mod quickstart;
#[cfg(feature = "tap")]
mod tapped;
#[cfg(feature = "tap")]
mod tapped_brokers;
#[cfg(feature = "tls")]
mod tls;
