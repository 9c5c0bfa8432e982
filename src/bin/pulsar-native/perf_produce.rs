//! `perf produce`: sends, each with its future.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use pulsar_native::{Compression, PendingSend, Producer};
use tokio::task::JoinSet;

use crate::perf::Run;
use crate::{Connect, Outcome, output};

/// Sends between two looks at what is settled.
const SENDS_AT_ONCE: u64 = 64;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    connect: Connect,
    /// Messages in all.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Payload bytes of each.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Messages per batch at most; 1: no batches.
    #[arg(long, default_value_t = 1000)]
    batch: u32,
    /// Messages per second, over all producers; without it: as fast as receipts allow.
    #[arg(long)]
    rate: Option<u64>,
    /// Sends without a receipt at most, over all producers.
    #[arg(long, default_value_t = 5000)]
    in_flight: u64,
    /// Producers on the one connection.
    #[arg(long, default_value_t = 1)]
    producers: u64,
    /// How payloads are compressed.
    #[arg(long, value_enum, default_value_t = Codec::None)]
    compression: Codec,
    /// A picture of the run: latencies, and throughput over time.
    #[arg(long)]
    svg: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Codec {
    None,
    #[cfg(feature = "lz4")]
    Lz4,
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::None => Self::None,
            #[cfg(feature = "lz4")]
            Codec::Lz4 => Self::Lz4,
        }
    }
}

/// One producer's share.
struct Share {
    messages: u64,
    size: usize,
    in_flight: usize,
    /// The time between two messages.
    gap: Option<Duration>,
}

pub(crate) async fn run(arguments: Arguments) -> Outcome {
    let producers = arguments.producers.max(1);
    let client = arguments.connect.client().await?;
    let in_flight = (arguments.in_flight / producers).max(1) as usize;
    let mut handles = Vec::new();
    for _ in 0..producers {
        let builder = client.producer(&arguments.connect.topic).compression(arguments.compression.into());
        let builder = builder.batching(arguments.batch > 1).batching_max_messages(arguments.batch.max(1));
        handles.push(builder.max_pending_messages(in_flight).create().await?);
    }
    let run = Run::new();
    let gap = arguments.rate.map(|rate| Duration::from_secs(1).mul_f64(producers as f64 / rate.max(1) as f64));
    let work = async {
        let mut tasks = JoinSet::new();
        for (number, producer) in handles.into_iter().enumerate() {
            let extra = u64::from((number as u64) < arguments.messages % producers);
            let messages = arguments.messages / producers + extra;
            tasks.spawn(send_all(producer, Share { messages, size: arguments.size, in_flight, gap }, run.clone()));
        }
        while let Some(task) = tasks.join_next().await {
            task??;
        }
        Ok(())
    };
    let outcome = run.watch(work).await;
    let title = format!("produce: {} B, batches of {}, {producers} producers", arguments.size, arguments.batch);
    run.finish(&title, arguments.svg.as_deref())?;
    outcome?;
    Ok(client.close().await?)
}

async fn send_all(producer: Producer, share: Share, run: Run) -> Outcome {
    let payload = bytes::Bytes::from(vec![b'x'; share.size]);
    let mut pending: VecDeque<(Instant, PendingSend)> = VecDeque::with_capacity(share.in_flight);
    let start = Instant::now();
    let (mut sent, mut shown) = (0, 0);
    loop {
        settle(&mut pending, &mut shown, &run);
        let is_over = sent == share.messages || run.is_stopped();
        if is_over && pending.is_empty() {
            break;
        }
        let mut next_due = None;
        for _ in 0..SENDS_AT_ONCE {
            if is_over || sent == share.messages || pending.len() >= share.in_flight {
                break;
            }
            let now = Instant::now();
            // Latencies count from when a message was due, so that a stall shows in all that it held up.
            let due = share.gap.map_or(now, |gap| start + gap.mul_f64(sent as f64));
            if due > now {
                next_due = Some(due);
                break;
            }
            pending.push_back((due, producer.enqueue(payload.clone()).await?));
            sent += 1;
        }
        let is_full = pending.len() >= share.in_flight;
        match (next_due, pending.front_mut()) {
            (Some(due), Some((_, oldest))) => {
                tokio::select! {
                    () = tokio::time::sleep_until(due.into()) => {}
                    // It is looked at again above.
                    _ = &mut *oldest => {}
                }
            }
            (Some(due), None) => tokio::time::sleep_until(due.into()).await,
            (None, Some((_, oldest))) if is_full || is_over || sent == share.messages => drop(oldest.await),
            (None, _) => {}
        }
    }
    Ok(producer.close().await?)
}

/// Takes what is settled off the front: receipts come in the order of the sends. `shown` is this producer's part of
/// what the run shows as pending.
fn settle(pending: &mut VecDeque<(Instant, PendingSend)>, shown: &mut u64, run: &Run) {
    let now = Instant::now();
    let mut recorder = run.recorder();
    while let Some((due, send)) = pending.front() {
        match send.try_result() {
            Some(Ok(_)) => recorder.done(now, now.saturating_duration_since(*due)),
            Some(Err(error)) => {
                if recorder.failed == 0 {
                    output::note(format_args!("the first failure: {error}"));
                }
                recorder.failed += 1;
            }
            None => break,
        }
        pending.pop_front();
    }
    let left = pending.len() as u64;
    recorder.pending = recorder.pending + left - std::mem::replace(shown, left);
}
