//! The client and a real Pulsar: the list in `tests/suite/`, which `tests/scenario/` runs on the embedded broker, over the
//! binary protocol and with lookups over HTTP (`over_http::`), and what only the real one offers: TLS, its web port, and the
//! Java client of its distribution.
//!
//! `scripts/real-pulsar run cargo test --all-features --test real`; `scripts/real-oauth2` for those of OAuth2
#![allow(unreachable_pub, reason = "modules of one test binary")]

use std::process::ExitCode;

#[path = "../admin/mod.rs"]
mod admin;
#[path = "../common/mod.rs"]
mod common;
#[path = "../../src/fuzzing/inputs.rs"]
mod inputs;
#[path = "../suite/mod.rs"]
mod suite;

use common::random::splitmix;

mod broker;
mod encryption;
mod examples;
mod frames;
mod growth;
mod http;
mod interop;
mod memory;
#[cfg(feature = "oauth2")]
mod oauth2;
mod patterns;
mod readers;
#[cfg(feature = "cli")]
mod redrive;
mod refusals;
mod runner;
mod schemas;
mod table_view;
#[cfg(feature = "tap")]
mod tapped;
mod tls;
mod unreadable;

macro_rules! list {
    ($prefix:literal $real:ident $target:expr; $($theme:ident { $($name:ident)* })*) => {
        &[$($((
            concat!($prefix, stringify!($theme), "::", stringify!($name)),
            |$real| Box::pin(async move { suite::$theme::$name(&$target).await }),
        ),)*)*]
    };
}

macro_rules! over_the_binary_protocol {
    ($($list:tt)*) => { list!("" real real.target(); $($list)*) };
}

macro_rules! over_http {
    ($($list:tt)*) => { list!("over_http::" real real.over_http().target(); $($list)*) };
}

const SUITE: &[runner::Test] = suite::with_every_test!(over_the_binary_protocol);
const BINARY: &[runner::Test] = suite::with_every_test_of_the_binary_protocol!(over_the_binary_protocol);
const OVER_HTTP: &[runner::Test] = suite::with_every_test!(over_http);

fn main() -> ExitCode {
    let beside = [
        tls::TESTS,
        http::TESTS,
        examples::TESTS,
        frames::TESTS,
        growth::TESTS,
        interop::TESTS,
        readers::TESTS,
        refusals::TESTS,
        schemas::TESTS,
        table_view::TESTS,
        unreadable::TESTS,
        encryption::TESTS,
        memory::TESTS,
        patterns::TESTS,
    ];
    let lists = [SUITE, BINARY, OVER_HTTP].into_iter().chain(beside);
    #[cfg(feature = "oauth2")]
    let lists = lists.chain([oauth2::tests()]);
    #[cfg(feature = "cli")]
    let lists = lists.chain([redrive::TESTS]);
    #[cfg(feature = "tap")]
    let lists = lists.chain([tapped::TESTS]);
    let lists = lists.collect::<Vec<_>>();
    runner::main(&lists.concat(), patterns::ALONE)
}
