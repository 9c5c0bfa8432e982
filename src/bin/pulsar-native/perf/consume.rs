//! `perf consume`: receives messages and acknowledges each of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, value_parser};
use pulsar_native::{Consumer, ReceivedMessage};

use super::recorder::{Recorder, SAMPLE_INTERVAL};
use super::{Measurement, Run};
use crate::progress::Style;
use crate::{CliResult, Subscription};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    subscription: Subscription,
    /// Number of messages to receive
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = value_parser!(u64).range(1..))]
    messages: u64,
    /// Most messages that wait here to be received; 0 asks the broker for one at a time [default: 1000, and more while that holds
    /// the application up]
    #[arg(long, value_name = "N")]
    receiver_queue_size: Option<u32>,
    /// How long acknowledgments are collected before they are sent, in milliseconds; 0 sends them at once
    #[arg(long, value_name = "MS", default_value_t = 100)]
    acknowledgment_group_time: u32,
    /// Measure the latency of one message in N; 1 measures every message
    ///
    /// Reading the clock for every message would cost a good part of what the client itself costs. Throughput counts
    /// every message. Latency percentiles and the highest latency are those of the sampled messages.
    #[arg(long, value_name = "N", default_value_t = SAMPLE_INTERVAL, value_parser = value_parser!(u32).range(1..))]
    sample_interval: u32,
    #[command(flatten)]
    pub(super) measurement: Measurement,
}

pub(super) async fn run(arguments: Arguments) -> CliResult {
    let (client, mut monitor) = arguments.subscription.connect.start(Style::Measurement)?;
    let group_time = Duration::from_millis(arguments.acknowledgment_group_time.into());
    let mut builder = arguments.subscription.consumer(&client).acknowledgment_group_time(group_time);
    if let Some(messages) = arguments.receiver_queue_size {
        builder = builder.receiver_queue_size(messages);
    }
    let consumer = monitor.opening(builder.subscribe()).await?;
    monitor.follow_consumer(&consumer);
    let run = Run::new(1, arguments.sample_interval)?;
    // On a worker of the runtime, beside the connection's task, so that one wakes the other without a system call.
    let mut task = tokio::spawn(receive(consumer, arguments.messages, run.clone()));
    let title = format!("consume: subscription {}", arguments.subscription.name);
    run.measure(async { (&mut task).await? }, &title, arguments.measurement.svg.as_deref(), monitor).await?;
    Ok(client.close().await?)
}

async fn receive(mut consumer: Consumer, messages: u64, run: Run) -> CliResult {
    tokio::select! {
        outcome = receive_all(&mut consumer, messages, &run.recorder) => outcome?,
        // Dropping a receive loses no message, and a received one is acknowledged before the next receive.
        () = run.stop.cancelled() => {}
    }
    Ok(consumer.close().await?)
}

async fn receive_all(consumer: &mut Consumer, messages: u64, recorder: &Recorder) -> CliResult {
    let (mut sampler, counters) = (recorder.sampler(), recorder.counters(0));
    let mut bytes = 0;
    for done in 1..=messages {
        let message = consumer.receive().await?;
        if sampler.choose() {
            recorder.record([latency(&message)]);
        }
        bytes += message.payload().len() as u64;
        consumer.ack(&message)?;
        counters.set_done(done, bytes);
    }
    Ok(())
}

/// The time since the producer published the message, by the clocks of both machines.
fn latency(message: &ReceivedMessage) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(message.publish_time().duration_since(std::time::UNIX_EPOCH).unwrap_or_default())
}
