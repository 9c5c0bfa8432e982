//! The task of one producer: sends its share of the messages and waits for every receipt.

use std::collections::VecDeque;
use std::future::pending;
use std::time::Instant;

use bytes::Bytes;
use pulsar_native::{PendingSend, Producer, SendError};

use super::Run;
use super::pace::Pace;
use super::recorder::Sampler;
use crate::{CliResult, output};

/// Most sends between two looks at the receipts. A look costs about as much as one send; a receipt is seen later by the
/// time of a burst at most, a few microseconds.
const BURST: u64 = 64;

/// What one sender has to do.
pub(super) struct Share {
    /// How many messages to send.
    pub(super) messages: u64,
    /// Most sends without a receipt at any time.
    pub(super) max_pending: usize,
    pub(super) payload: Bytes,
    /// `None`: as fast as receipts allow.
    pub(super) pace: Option<Pace>,
}

/// A message whose latency is measured.
struct Sample {
    /// Its number among those of this sender, from 0.
    number: u64,
    /// When it was sent, or was due.
    start: Instant,
}

pub(super) struct Sender {
    run: Run,
    task: usize,
    producer: Producer,
    share: Share,
    /// Sends without a receipt, oldest first. Receipts come in the order of the sends.
    pending: VecDeque<PendingSend>,
    /// The sampled ones of them, oldest first.
    samples: VecDeque<Sample>,
    sampler: Sampler,
    sent: u64,
    failed: u64,
}

impl Sender {
    pub(super) fn new(run: Run, task: usize, producer: Producer, share: Share) -> Self {
        let sampler = run.recorder.sampler();
        let (pending, samples) = (VecDeque::new(), VecDeque::new());
        Self { run, task, producer, share, pending, samples, sampler, sent: 0, failed: 0 }
    }

    /// Ends when every message has its receipt or has failed. Once the run is stopped, that is every message sent so
    /// far.
    pub(super) async fn run(mut self) -> CliResult {
        loop {
            self.take_receipts();
            if self.run.stop.is_cancelled() {
                self.share.messages = self.sent;
            }
            if self.sent == self.share.messages && self.pending.is_empty() {
                return Ok(());
            }
            match self.next_burst() {
                0 => self.wait().await,
                burst => self.send(burst).await?,
            }
        }
    }

    /// How many messages to send now: those that are due, within the capacity.
    fn next_burst(&self) -> u64 {
        let due = match &self.share.pace {
            Some(pace) => pace.due_by(Instant::now()).min(self.share.messages),
            None => self.share.messages,
        };
        let capacity = self.share.max_pending.saturating_sub(self.pending.len()) as u64;
        due.saturating_sub(self.sent).min(capacity).min(BURST)
    }

    async fn send(&mut self, burst: u64) -> Result<(), SendError> {
        for _ in 0..burst {
            if self.sampler.choose() {
                self.add_sample();
            }
            self.pending.push_back(self.producer.enqueue(self.share.payload.clone()).await?);
            self.sent += 1;
        }
        Ok(())
    }

    fn add_sample(&mut self) {
        let start = match &self.share.pace {
            Some(pace) => pace.due(self.sent),
            None => Instant::now(),
        };
        self.samples.push_back(Sample { number: self.sent, start });
    }

    /// Waits for the oldest receipt; where there is capacity for more messages, also for the next one to be due.
    async fn wait(&mut self) {
        let has_capacity = self.sent < self.share.messages && self.pending.len() < self.share.max_pending;
        let oldest = async {
            match self.pending.front_mut() {
                // The result can be read again, by `take_receipts`.
                Some(send) => drop(send.await),
                None => pending().await,
            }
        };
        match &self.share.pace {
            Some(pace) if has_capacity => tokio::select! {
                () = oldest => {}
                () = pace.wakeup() => {}
                () = self.run.stop.cancelled() => {}
            },
            _ => oldest.await,
        }
    }

    /// Removes the sends that have a result. One reading of the clock serves all sampled ones among them.
    fn take_receipts(&mut self) {
        while let Some(result) = self.pending.front().and_then(PendingSend::try_result) {
            if let Err(error) = result {
                self.on_failure(&error);
            }
            self.pending.pop_front();
        }
        let settled = self.sent - self.pending.len() as u64;
        if self.samples.front().is_some_and(|sample| sample.number < settled) {
            let now = Instant::now();
            let sampled = self.samples.partition_point(|sample| sample.number < settled);
            let latencies = self.samples.drain(..sampled).map(|sample| now.saturating_duration_since(sample.start));
            self.run.recorder.record(latencies);
        }
        let (done, pending) = (settled - self.failed, self.pending.len() as u64);
        let counters = self.run.recorder.counters(self.task);
        counters.set_done(done, done * self.share.payload.len() as u64);
        counters.set_not_done(self.failed, pending);
    }

    /// A failed send has no latency.
    #[cold]
    fn on_failure(&mut self, error: &SendError) {
        let number = self.sent - self.pending.len() as u64;
        self.samples.retain(|sample| sample.number != number);
        if self.failed == 0 {
            output::note(format_args!("the first send that failed: {error}"));
        }
        self.failed += 1;
    }
}
