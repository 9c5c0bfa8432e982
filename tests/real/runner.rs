//! The runner of all tests here, on one real broker.

use std::process::ExitCode;

use crate::broker::{HOW, Real};
use crate::common::runner::{self, Environment};

pub type Test = runner::Test<Real>;

impl Environment for Real {
    const WHAT: &'static str = "a real Pulsar";
    const HOW: &'static str = HOW;
    const REQUIRED: &'static str = "PULSAR_REQUIRED";

    fn find() -> Option<Self> {
        Self::from_environment()
    }
}

/// `alone`: after all others.
pub fn main(tests: &[Test], alone: &[Test]) -> ExitCode {
    runner::main(tests, alone)
}
