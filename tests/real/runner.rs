//! Runs a list of tests against a real broker, or says that it does not.
//!
//! libtest decides at compile time what it ignores and hides what a passing test prints; a test that is left out for
//! want of a broker has to be seen. So this prints libtest's lines and takes those of its options that are in use.

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use crate::broker::{HOW, Real};
use crate::common::arguments::Arguments;
use crate::suite::target::Fut;
use crate::suite::*;

/// A name and what it does with the broker.
pub type Test = (&'static str, fn(Real) -> Fut<'static, ()>);

/// How many run at the same time unless `--test-threads` says so.
const THREADS: usize = 4;

pub fn main(tests: &[Test]) -> ExitCode {
    let options = Arguments::of_process(THREADS);
    let (chosen, others): (Vec<&Test>, Vec<_>) = tests.iter().partition(|test| options.takes(test.0));
    if options.list {
        chosen.iter().for_each(|test| println!("{}: test", test.0));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let required = std::env::var_os("PULSAR_REQUIRED").is_some();
    let (mut failed, mut ignored) = (Vec::new(), 0);
    match Real::from_environment() {
        Some(real) => failed = run_all(&chosen, &real, options.threads.max(1)),
        None if required => failed = chosen.iter().map(|test| test.0).collect(),
        None => ignored = chosen.len(),
    }
    if ignored > 0 {
        chosen.iter().for_each(|test| println!("test {} ... ignored, needs a real Pulsar", test.0));
        println!("\nnothing ran, there is {HOW}");
    }
    if required && Real::from_environment().is_none() {
        println!("PULSAR_REQUIRED is set, but there is {HOW}");
    }
    failed.iter().for_each(|name| println!("failed: {name}"));
    let (result, code) = if failed.is_empty() { ("ok", ExitCode::SUCCESS) } else { ("FAILED", ExitCode::FAILURE) };
    let passed = chosen.len() - failed.len() - ignored;
    let (failed, filtered) = (failed.len(), others.len());
    println!("\ntest result: {result}. {passed} passed; {failed} failed; {ignored} ignored; {filtered} filtered out\n");
    code
}

/// Runs the tests and gives the names of those that failed.
fn run_all(tests: &[&Test], real: &Real, threads: usize) -> Vec<&'static str> {
    let (done, outcomes) = mpsc::channel();
    let mut waiting = tests.iter();
    let mut failed = Vec::new();
    let mut running = 0;
    loop {
        for &&(name, body) in waiting.by_ref().take(threads - running) {
            let (real, done) = (real.clone(), done.clone());
            running += 1;
            // A thread of its own bears the name of the test, which is what the message of a panic shows.
            let run = move || {
                let started = Instant::now();
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                let run = move || runtime.expect("a runtime").block_on(body(real));
                let ok = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_ok();
                done.send((name, ok, started.elapsed())).expect("the runner waits");
            };
            thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread");
        }
        if running == 0 {
            return failed;
        }
        let (name, ok, time) = outcomes.recv().expect("a sender is held here");
        running -= 1;
        println!("test {name} ... {} ({:.1} s)", if ok { "ok" } else { "FAILED" }, time.as_secs_f32());
        if !ok {
            failed.push(name);
        }
    }
}
