//! The suite on a real Pulsar broker, and what only a real one offers: TLS.
//!
//! `scripts/real-pulsar run cargo test --all-features --test real_pulsar`
#![allow(unreachable_pub, reason = "the suite is a module of several test crates")]

use std::process::ExitCode;

mod real;
mod suite;
mod tls;

macro_rules! tests {
    ($($theme:ident { $($name:ident)* })*) => {
        const SUITE: &[real::runner::Test] = &[
            $($((
                concat!(stringify!($theme), "::", stringify!($name)),
                |real| Box::pin(async move { suite::$theme::$name(&real.target()).await }),
            ),)*)*
        ];
    };
}
suite::with_every_test!(tests);

fn main() -> ExitCode {
    let tests: Vec<_> = SUITE.iter().chain(tls::TESTS).copied().collect();
    real::runner::main(&tests)
}
