//! `perf`: measures throughput and latency. The report of a run, Ctrl-C, and the options of both directions.

mod consume;
mod pace;
mod produce;
mod recorder;
mod report;
mod sender;
mod svg;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, Subcommand, value_parser};
use tokio_util::sync::CancellationToken;

use self::recorder::Recorder;
use self::report::Report;
use crate::progress::{Monitor, ticks};
use crate::{CliResult, output};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Publish messages, as fast as the broker confirms them or at a fixed rate
    ///
    /// Latency is the time from a send to its receipt as the sending task sees it. With --rate it counts from when the
    /// message was due, so that a stall shows in every message it delays. Latency is sampled: see --sample-interval.
    Produce(produce::Arguments),
    /// Receive and acknowledge messages
    ///
    /// Latency is the time from publishing to receiving. It is as exact as the clocks of the two machines agree, and
    /// no finer than a millisecond. Latency is sampled: see --sample-interval.
    Consume(consume::Arguments),
}

impl Command {
    fn measurement(&self) -> &Measurement {
        match self {
            Self::Produce(arguments) => &arguments.measurement,
            Self::Consume(arguments) => &arguments.measurement,
        }
    }

    /// Worker threads of the runtime to run this on; `None`: one for each CPU.
    pub(crate) fn threads(&self) -> Option<u16> {
        self.measurement().threads
    }

    pub(crate) async fn run(self) -> CliResult {
        match self {
            Self::Produce(arguments) => produce::run(arguments).await,
            Self::Consume(arguments) => consume::run(arguments).await,
        }
    }
}

/// Options of both directions.
#[derive(Args)]
struct Measurement {
    /// Worker threads; 1 runs everything on one thread [default: number of CPUs]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Write a chart of latency and throughput to FILE
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// One run, shared by its tasks.
#[derive(Clone)]
struct Run {
    recorder: Arc<Recorder>,
    /// Cancelled by Ctrl-C: nothing more is sent or received, what is in flight is waited for.
    stop: CancellationToken,
}

impl Run {
    fn new(tasks: usize, sample_interval: u32) -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self { recorder: Arc::new(Recorder::new(tasks, sample_interval)?), stop: CancellationToken::new() })
    }

    /// Runs `work` to its end and reports: figures and what `monitor` sees on stderr, the result on stdout, the chart if
    /// one is wanted. The first Ctrl-C asks `work` to stop, the second one drops it.
    ///
    /// # Errors
    /// Those of `work`, after the report; and those of writing it.
    async fn measure(
        &self,
        work: impl Future<Output = CliResult>,
        title: &str,
        chart: Option<&Path>,
        mut monitor: Monitor,
    ) -> CliResult {
        let mut report = Report::new(Instant::now())?;
        let outcome = self.watch(work, &mut report, &mut monitor).await;
        drop(monitor);
        report.finish(&self.recorder, Instant::now());
        // A failed run is reported as far as it came.
        let written = chart.map_or(Ok(()), |path| {
            std::fs::write(path, svg::draw(title, &report))
                .map_err(|error| format!("cannot write {}: {error}", path.display()))
        });
        let printed = output::print(report.result_line());
        outcome?;
        written?;
        Ok(printed?)
    }

    async fn watch(
        &self,
        work: impl Future<Output = CliResult>,
        report: &mut Report,
        monitor: &mut Monitor,
    ) -> CliResult {
        let mut work = std::pin::pin!(work);
        let mut seconds = ticks();
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                _ = seconds.tick() => {
                    let now = Instant::now();
                    report.tick(&self.recorder, now);
                    if monitor.on_tick(report.counts().done, now) {
                        let mut figures = report.figures(now);
                        if let Some(queued) = monitor.queued() {
                            figures.waiting = ("queued", queued);
                        }
                        monitor.show(figures, now);
                    }
                }
                () = monitor.watch() => {}
                _ = tokio::signal::ctrl_c() => {
                    if self.stop.is_cancelled() {
                        return Err("interrupted twice: messages in flight were abandoned".into());
                    }
                    self.stop.cancel();
                    output::note("waiting for messages in flight; press Ctrl-C again to quit now");
                }
            }
        }
    }
}
