//! Scenarios and a judge for Pulsar clients in any language.
//!
//! The referee starts an [embedded broker](crate::broker) with a relay before it for each [`Scenario`], and the client under test
//! behind a *glue*: a small program that reads requests from its stdin (`producer p my-topic`, `send p 1 hello`) and writes
//! answers to its stdout. `docs/referee.md` describes the lines; `examples/other_languages/referee` has some glues.
//! While the client works, something goes wrong: a receipt is lost, a topic moves, an entry is damaged. What the client must do
//! then, and where that rule comes from, is part of the scenario. It passes if the client does it and breaks no
//! [`Rule`](crate::broker::Rule) meanwhile.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use pulsar_native::referee::{ClientUnderTest, Referee};
//!
//! let client = ClientUnderTest::command(["python3", "glue.py"]);
//! let report = Referee::new(client).scenario("receipt-lost")?.run(|verdict| println!("{verdict}")).await;
//! assert!(report.is_good(), "{report}");
//! # Ok(())
//! # }
//! ```
//!
//! # Inside
//! `protocol` (lines, pure) and `glue` (a process and its deadlines), `relay` (the wire: records, rewrites addresses, injects),
//! `stage` (broker, relay and glue of one scenario, and the words in which scenarios are written), `scenarios` (what goes wrong,
//! and what must happen), `verdict` and `report` (the results). The broker stays as it is: faults are those that
//! [`Faults`](crate::broker::Faults) scripts, or bytes that the relay puts between.

mod glue;
mod protocol;
mod relay;
mod report;
mod scenarios;
mod stage;
#[cfg(test)]
mod tests;
mod verdict;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

#[cfg(any(test, fuzzing))]
pub(crate) use self::protocol::{Line, check_line};
pub use self::report::Report;
use self::stage::{Bench, Stage, Step};
use self::verdict::Stop;
pub use self::verdict::{Outcome, Verdict};
use crate::broker::EmbeddedBrokerBuilder;

/// How long one scenario may take by default: a client that pings every 30 s notices a dead link within 60 s.
const SCENARIO_TIMEOUT: Duration = Duration::from_secs(120);

/// Scenarios at once by default. They wait more than they work.
const JOBS: usize = 4;

/// Something that goes wrong, and what a client must do then.
pub struct Scenario {
    /// Words and hyphens.
    pub name: &'static str,
    /// What the client must do.
    pub must: &'static str,
    /// Where that rule comes from: a command and field, a PIP, or a file of Pulsar.
    pub source: &'static str,
    broker: fn() -> EmbeddedBrokerBuilder,
    run: for<'a> fn(&'a mut Stage) -> Pin<Box<dyn Future<Output = Step> + Send + 'a>>,
}

impl Scenario {
    /// All of them, by subject: lookups, connections, frames, producers, receipts, consumers, entries, golden vectors.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        scenarios::ALL.iter().flat_map(|subject| subject.iter())
    }
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scenario").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A name that no scenario has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownScenario {
    /// The name.
    pub name: String,
}

impl fmt::Display for UnknownScenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Scenario::all().map(|scenario| scenario.name).collect();
        write!(f, "there is no scenario {}, only {}", protocol::shown(&self.name, 60), names.join(", "))
    }
}

impl std::error::Error for UnknownScenario {}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What starts the glue of the client under test, once for each scenario.
#[derive(Clone)]
#[non_exhaustive]
pub enum ClientUnderTest {
    /// A program and its arguments, found in `PATH`. Its streams are the glue's; it is killed when the scenario is over.
    Command(Vec<String>),
    /// A task with the other end of both streams.
    Task(Arc<dyn Fn(DuplexStream) -> Task + Send + Sync>),
}

impl ClientUnderTest {
    /// A program and its arguments.
    pub fn command<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        Self::Command(command.into_iter().map(Into::into).collect())
    }

    /// A glue in this process: it reads requests from the stream, and writes answers to it.
    pub fn task<F>(start: impl Fn(DuplexStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::Task(Arc::new(move |stream| Box::pin(start(stream))))
    }
}

impl fmt::Debug for ClientUnderTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command) => f.debug_tuple("Command").field(command).finish(),
            Self::Task(_) => f.debug_tuple("Task").finish_non_exhaustive(),
        }
    }
}

/// Runs scenarios against one client.
#[derive(Debug)]
#[must_use = "`run` runs the scenarios"]
pub struct Referee {
    client: ClientUnderTest,
    scenarios: Vec<&'static Scenario>,
    timeout: Duration,
    listen: SocketAddr,
    advertise: Option<String>,
    jobs: usize,
}

impl Referee {
    /// All scenarios, unless some are named.
    pub fn new(client: ClientUnderTest) -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { client, scenarios: Vec::new(), timeout: SCENARIO_TIMEOUT, listen, advertise: None, jobs: JOBS }
    }

    /// Only this scenario, and others that are named.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn scenario(mut self, name: &str) -> Result<Self, UnknownScenario> {
        let found = Scenario::all().find(|scenario| scenario.name == name);
        self.scenarios.push(found.ok_or_else(|| UnknownScenario { name: name.to_owned() })?);
        Ok(self)
    }

    /// How long one scenario may take. Default: 120 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Where the client's broker listens. The port is that of the first broker of a scenario, and has to be 0 where several run at
    /// once. An address for all interfaces needs [`advertise`](Self::advertise). Default: 127.0.0.1 and free ports.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// The host in the URLs that the client gets, with the ports of [`listen`](Self::listen): a name or an address, without a port.
    /// For a client in a container or on another machine. Default: the address of `listen`, of all interfaces that of loopback.
    pub fn advertise(mut self, host: impl Into<String>) -> Self {
        self.advertise = Some(host.into());
        self
    }

    /// How many scenarios run at once, at least one. Default: 4.
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs.max(1);
        self
    }

    /// Runs them, and calls `on_verdict` as each ends.
    ///
    /// # Cancel safety
    /// Dropping the future ends all scenarios and kills their glues.
    pub async fn run(self, mut on_verdict: impl FnMut(&Verdict)) -> Report {
        let scenarios = if self.scenarios.is_empty() { Scenario::all().collect() } else { self.scenarios };
        let bench = Bench { client: self.client, listen: self.listen, advertise: self.advertise };
        let (slots, timeout) = (Arc::new(Semaphore::new(self.jobs)), self.timeout);
        let mut running = JoinSet::new();
        for (number, scenario) in scenarios.iter().copied().enumerate() {
            let (bench, slots) = (bench.clone(), Arc::clone(&slots));
            running.spawn(async move {
                let _slot = slots.acquire().await;
                (number, run_one(scenario, &bench, timeout).await)
            });
        }
        let mut verdicts = Vec::new();
        while let Some(ended) = running.join_next().await {
            let (number, verdict) = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            on_verdict(&verdict);
            verdicts.push((number, verdict));
        }
        verdicts.sort_by_key(|(number, _)| *number);
        Report { verdicts: verdicts.into_iter().map(|(_, verdict)| verdict).collect() }
    }
}

async fn run_one(scenario: &'static Scenario, bench: &Bench, patience: Duration) -> Verdict {
    let started = Instant::now();
    let mut verdict = Verdict {
        scenario: scenario.name,
        client: String::new(),
        outcome: Outcome::Passed,
        took: Duration::ZERO,
        violations: Vec::new(),
        story: String::new(),
        stderr: String::new(),
    };
    match bench.start((scenario.broker)()).await {
        Err(stop) => verdict.outcome = stop.into(),
        Ok(mut stage) => {
            let played = timeout(patience, play(scenario, &mut stage)).await;
            verdict.client = stage.glue.client().to_owned();
            let late = || match &*verdict.client {
                "" => Err(Stop::glue(format!("it has not written `ready NAME VERSION` within {patience:?}"))),
                _ => Err(Stop::Late(format!("not over within {patience:?}"))),
            };
            verdict.violations = stage.violations();
            if let Err(stop) = played.unwrap_or_else(|_| late()) {
                verdict.outcome = stop.into();
                verdict.story = stage.relay.look(relay::Recording::story);
                verdict.stderr = stage.glue.into_stderr().await;
            }
        }
    }
    verdict.took = started.elapsed();
    verdict
}

/// A scenario, an orderly end of the client, and the rules that it broke.
async fn play(scenario: &Scenario, stage: &mut Stage) -> Step {
    stage.glue.ready().await?;
    (scenario.run)(stage).await?;
    stage.check_faults()?;
    stage.glue.exit().await?;
    match stage.violations().first() {
        None => Ok(()),
        Some(violation) => Err(Stop::failed(format!("it broke a rule of the protocol: {violation}"))),
    }
}
