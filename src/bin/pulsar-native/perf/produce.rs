//! `perf produce`: publishes a number of equal messages.

use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum, value_parser};
use pulsar_native::{Client, Compression, Producer, ProducerBuilder};
use tokio::task::JoinSet;

use super::recorder::SAMPLE_INTERVAL;
use super::sender::{Sender, Share};
use super::{Measurement, Run, pace};
use crate::progress::Style;
use crate::{CliResult, Connect, Topic, UsageError};

/// The largest payload, more than any broker takes: it is in memory as a whole.
const SIZE_MAX: i64 = 1 << 30;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    topic: Topic,
    /// Number of messages to send
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = value_parser!(u64).range(1..))]
    messages: u64,
    /// Payload size in bytes; the payload is one byte repeated, which compresses well
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = value_parser!(u32).range(..=SIZE_MAX))]
    size: u32,
    /// Messages per second, all producers together [default: as fast as the broker confirms them]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Most messages in flight, all producers together
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = value_parser!(u32).range(1..))]
    max_pending_messages: u32,
    /// Most messages in a batch; 1 sends each message on its own
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u32).range(1..=4_194_304))]
    batching_max_messages: u32,
    /// How long a batch waits to fill, in milliseconds; 0 sends it as soon as the connection can take it
    #[arg(long, value_name = "MS", default_value_t = 0)]
    batching_max_publish_delay: u32,
    /// Number of producers, all on one connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=100_000))]
    producers: u32,
    /// Compression of payloads, by what this build has
    #[arg(long, value_enum, default_value_t = Codec::None)]
    compression: Codec,
    /// Level of the compression, of a codec with levels [default: the codec's]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    compression_level: Option<i32>,
    /// Measure the latency of one message in N; 1 measures every message [default: 61; with --rate: 1]
    ///
    /// Reading the clock for every message would cost a good part of what the client itself costs. Throughput and
    /// failures count every message. Latency percentiles and the highest latency are those of the sampled messages.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    sample_interval: Option<u32>,
    #[command(flatten)]
    pub(super) measurement: Measurement,
}

#[derive(Clone, Copy, ValueEnum)]
enum Codec {
    None,
    #[cfg(feature = "lz4")]
    Lz4,
    #[cfg(feature = "zlib")]
    Zlib,
    #[cfg(feature = "zstd")]
    Zstd,
    #[cfg(feature = "snappy")]
    Snappy,
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::None => Self::None,
            #[cfg(feature = "lz4")]
            Codec::Lz4 => Self::Lz4,
            #[cfg(feature = "zlib")]
            Codec::Zlib => Self::Zlib,
            #[cfg(feature = "zstd")]
            Codec::Zstd => Self::Zstd,
            #[cfg(feature = "snappy")]
            Codec::Snappy => Self::Snappy,
        }
    }
}

pub(super) async fn run(arguments: Arguments) -> CliResult {
    let senders = arguments.producers;
    // A share of less than one message would send nothing.
    if arguments.max_pending_messages < senders {
        let max = arguments.max_pending_messages;
        return Err(UsageError(format!("--max-pending-messages {max} is not enough for --producers {senders}")).into());
    }
    let (client, mut monitor) = arguments.connect.start(Style::Measurement)?;
    let mut producers = Vec::new();
    for _ in 0..senders {
        producers.push(monitor.opening(builder(&client, &arguments).create()).await?);
    }
    // All of them are on the same topic and the same connections: one stands for all.
    monitor.follow_producer(&producers[0]);
    // Messages sent at a rate are few enough to measure all of them.
    let sample_interval_default = if arguments.rate.is_some() { 1 } else { SAMPLE_INTERVAL };
    let run = Run::new(producers.len(), arguments.sample_interval.unwrap_or(sample_interval_default))?;
    let title = format!(
        "produce: {} bytes, batches of at most {}, producers: {senders}",
        arguments.size, arguments.batching_max_messages
    );
    let work = send_all(&run, producers, &arguments);
    run.measure(work, &title, arguments.measurement.svg.as_deref(), monitor).await?;
    Ok(client.close().await?)
}

/// A producer's part of the messages in flight.
fn max_pending(arguments: &Arguments) -> usize {
    (arguments.max_pending_messages / arguments.producers) as usize
}

fn builder(client: &Client, arguments: &Arguments) -> ProducerBuilder {
    let builder = client.producer(&arguments.topic.name);
    let builder = match arguments.compression_level {
        Some(level) => builder.compression_level(level),
        None => builder,
    };
    builder
        .compression(arguments.compression.into())
        .batching(arguments.batching_max_messages > 1)
        .batching_max_messages(arguments.batching_max_messages)
        .batching_max_publish_delay(Duration::from_millis(arguments.batching_max_publish_delay.into()))
        .max_pending_messages(max_pending(arguments))
}

async fn send_all(run: &Run, producers: Vec<Producer>, arguments: &Arguments) -> CliResult {
    let senders = arguments.producers;
    let mut paces = match arguments.rate {
        Some(rate) => pace::start(rate, arguments.messages, senders, run.stop.clone())?,
        None => Vec::new(),
    }
    .into_iter();
    // Of static lifetime, so that a send does not count references to it.
    let payload = Bytes::from_static(Vec::leak(vec![b'x'; arguments.size as usize]));
    let mut tasks = JoinSet::new();
    for (task, producer) in producers.into_iter().enumerate() {
        let extra = u64::from((task as u64) < arguments.messages % u64::from(senders));
        let messages = arguments.messages / u64::from(senders) + extra;
        let max_pending = max_pending(arguments);
        let share = Share { messages, max_pending, payload: payload.clone(), pace: paces.next() };
        tasks.spawn(Sender::new(run.clone(), task, producer, share).run());
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}
