//! Runs a list of tests against a real broker, or says that it does not.
//!
//! libtest decides at compile time what it ignores and hides what a passing test prints; a test that is left out for
//! want of a broker has to be seen. So this prints libtest's lines and takes those of its options that are in use:
//! a filter, `--exact`, `--skip`, `--test-threads`, `--list`.

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use crate::broker::{HOW, Real};
use crate::suite::target::Fut;
use crate::suite::*;

/// A name and what it does with the broker.
pub type Test = (&'static str, fn(Real) -> Fut<'static, ()>);

/// How many run at the same time unless `--test-threads` says so.
const THREADS: usize = 4;

struct Options {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    list: bool,
    threads: usize,
}

impl Options {
    fn from_arguments() -> Self {
        let mut options = Self { filters: vec![], skips: vec![], exact: false, list: false, threads: THREADS };
        let mut arguments = std::env::args().skip(1).flat_map(|argument| match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => vec![name.to_owned(), value.to_owned()],
            _ => vec![argument],
        });
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} takes a value"));
            match argument.as_str() {
                "--exact" => options.exact = true,
                "--list" => options.list = true,
                "--skip" => options.skips.push(value()),
                "--test-threads" => options.threads = value().parse().expect("--test-threads takes a number"),
                "--format" | "--color" | "--logfile" => drop(value()),
                option if option.starts_with('-') => {}
                _ => options.filters.push(argument),
            }
        }
        options
    }

    fn takes(&self, name: &str) -> bool {
        let fits = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(fits)) && !self.skips.iter().any(fits)
    }
}

pub fn main(tests: &[Test]) -> ExitCode {
    let options = Options::from_arguments();
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
