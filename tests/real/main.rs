//! The client and a real Pulsar: the list in `tests/suite/`, which `tests/scenario/` runs on the embedded broker, and
//! what only the real one offers: TLS, its web port, and the Java client of its distribution.
//!
//! `scripts/real-pulsar run cargo test --all-features --test real`
#![allow(unreachable_pub, reason = "modules of one test binary")]

use std::process::ExitCode;

#[path = "../common/mod.rs"]
mod common;
#[path = "../suite/mod.rs"]
mod suite;

mod admin;
mod broker;
mod http;
mod interop;
mod refusals;
mod runner;
mod schemas;
mod tls;
mod unreadable;

macro_rules! tests {
    ($($theme:ident { $($name:ident)* })*) => {
        const SUITE: &[runner::Test] = &[
            $($((
                concat!(stringify!($theme), "::", stringify!($name)),
                |real| Box::pin(async move { suite::$theme::$name(&real.target()).await }),
            ),)*)*
        ];
    };
}
suite::with_every_test!(tests);

fn main() -> ExitCode {
    let lists = [SUITE, tls::TESTS, http::TESTS, interop::TESTS, refusals::TESTS, schemas::TESTS, unreadable::TESTS];
    runner::main(&lists.concat())
}
