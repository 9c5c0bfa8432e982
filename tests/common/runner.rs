//! Runs a list of tests against something real, or says that it does not.
//!
//! libtest decides at compile time what it ignores and hides what a passing test prints; a test that is left out for
//! want of a broker has to be seen. So this prints libtest's lines and takes those of its options that are in use.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use super::arguments::Arguments;

/// What the tests run against.
pub(crate) trait Environment: Clone + Send + 'static {
    /// What it is, in a few words: "a real Pulsar".
    const WHAT: &'static str;
    /// What is missing without it, and how to get it.
    const HOW: &'static str;
    /// The variable that makes a missing one a failure.
    const REQUIRED: &'static str;

    /// `None` without one.
    fn find() -> Option<Self>;
}

/// A name and what it does.
pub(crate) type Test<E> = (&'static str, fn(E) -> Pin<Box<dyn Future<Output = ()> + Send>>);

/// How many run at the same time unless `--test-threads` says so.
const THREADS: usize = 4;

/// `alone` are run after all others, one by one: they do to the environment what others could not bear.
pub(crate) fn main<E: Environment>(tests: &[Test<E>], alone: &[Test<E>]) -> ExitCode {
    let options = Arguments::of_process(THREADS);
    let (chosen, others): (Vec<&Test<E>>, Vec<_>) = tests.iter().chain(alone).partition(|test| options.takes(test.0));
    let (alone, together): (Vec<&Test<E>>, Vec<_>) =
        chosen.iter().partition(|test| alone.iter().any(|other| other.0 == test.0));
    if options.list {
        chosen.iter().for_each(|test| println!("{}: test", test.0));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let required = std::env::var_os(E::REQUIRED).is_some();
    let (mut failed, mut ignored) = (Vec::new(), 0);
    let environment = E::find();
    match &environment {
        Some(environment) => {
            failed = run_all(&together, environment, options.threads.max(1));
            failed.extend(run_all(&alone, environment, 1));
        }
        None if required => failed = chosen.iter().map(|test| (test.0, format!("needs {}", E::WHAT))).collect(),
        None => ignored = chosen.len(),
    }
    if ignored > 0 {
        chosen.iter().for_each(|test| println!("test {} ... ignored, needs {}", test.0, E::WHAT));
        println!("\nnothing ran, there is {}", E::HOW);
    }
    if required && environment.is_none() {
        println!("{} is set, but there is {}", E::REQUIRED, E::HOW);
    }
    // Again at the end, without the traces: of a long output that may be all that is seen.
    failed.iter().for_each(|(name, why)| println!("failed: {name}: {why}"));
    let (result, code) = if failed.is_empty() { ("ok", ExitCode::SUCCESS) } else { ("FAILED", ExitCode::FAILURE) };
    let passed = chosen.len() - failed.len() - ignored;
    let (failed, filtered) = (failed.len(), others.len());
    println!("\ntest result: {result}. {passed} passed; {failed} failed; {ignored} ignored; {filtered} filtered out\n");
    code
}

/// Runs the tests and gives those that failed, each with the message of its panic.
fn run_all<E: Environment>(tests: &[&Test<E>], environment: &E, threads: usize) -> Vec<(&'static str, String)> {
    let (done, outcomes) = mpsc::channel();
    let mut waiting = tests.iter();
    let mut failed = Vec::new();
    let mut running = 0;
    loop {
        for &&(name, body) in waiting.by_ref().take(threads - running) {
            let (environment, done) = (environment.clone(), done.clone());
            running += 1;
            // A thread of its own bears the name of the test, which is what the message of a panic shows.
            let run = move || {
                let started = Instant::now();
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                let run = move || runtime.expect("a runtime").block_on(body(environment));
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
                done.send((name, ended.map_err(message_of), started.elapsed())).expect("the runner waits");
            };
            thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread");
        }
        if running == 0 {
            return failed;
        }
        let (name, ended, time) = outcomes.recv().expect("a sender is held here");
        running -= 1;
        println!("test {name} ... {} ({:.1} s)", if ended.is_ok() { "ok" } else { "FAILED" }, time.as_secs_f32());
        failed.extend(ended.err().map(|why| (name, why)));
    }
}

fn message_of(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a text").to_owned()
}
