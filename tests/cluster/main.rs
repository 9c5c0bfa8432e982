//! What lies between a client and its broker, on two real brokers and a proxy: lookups over HTTP that are redirected from
//! one broker to the other, Pulsar's own proxy, advertised listeners, a proxy that routes by the server name of TLS. And
//! one of the brokers killed, and started again.
//!
//! `scripts/real-cluster test`
#![allow(unreachable_pub, reason = "modules of one test binary")]

use std::process::ExitCode;

#[path = "../admin/mod.rs"]
#[allow(dead_code, reason = "a part of it is in use here")]
mod admin;
#[path = "../common/mod.rs"]
mod common;
#[path = "../../examples/quickstart.rs"]
#[allow(dead_code, reason = "its `main` is not called here")]
mod quickstart;
#[path = "../suite/mod.rs"]
#[allow(dead_code, unused_macros, unused_imports, reason = "not every test runs here")]
mod suite;

mod environment;
mod listeners;
mod outage;
mod proxy;
mod redirects;
mod sni;
mod steps;
#[cfg(all(feature = "cli", feature = "tap"))]
mod tapped;

use environment::Environment;

type Test = common::runner::Test<Environment>;

macro_rules! suites {
    ($($theme:ident { $($name:ident)* })*) => {
        const OVER_HTTP: &[Test] = &[$($((
            concat!("over_http::", stringify!($theme), "::", stringify!($name)),
            |cluster| Box::pin(async move { suite::$theme::$name(&cluster.over_http().target()).await }),
        ),)*)*];
        const THROUGH_PROXY: &[Test] = &[$($((
            concat!("through_proxy::", stringify!($theme), "::", stringify!($name)),
            |cluster| Box::pin(async move { suite::$theme::$name(&cluster.through_proxy().target()).await }),
        ),)*)*];
    };
}
suite::with_every_test!(suites);

fn main() -> ExitCode {
    let mut tests = [redirects::TESTS, proxy::TESTS, listeners::TESTS, sni::TESTS].concat();
    #[cfg(all(feature = "cli", feature = "tap"))]
    tests.extend(tapped::TESTS);
    tests.extend(OVER_HTTP.iter().filter(|test| redirects::takes_of_suite(test.0)));
    tests.extend(THROUGH_PROXY.iter().filter(|test| proxy::takes_of_suite(test.0)));
    common::runner::main(&tests, outage::TESTS)
}
