//! `perf consume`: receives and acknowledges, message by message.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use pulsar_native::Consumer;

use crate::perf::Run;
use crate::{Outcome, Subscription};

/// How long a receive waits before it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Messages between two looks at the clock and the other figures.
const MESSAGES_AT_ONCE: usize = 64;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    subscription: Subscription,
    /// Messages in all.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Messages that wait here at most.
    #[arg(long, default_value_t = 1000)]
    queue: u32,
    /// Sends each acknowledgement with the next write instead of gathering them for 100 ms.
    #[arg(long)]
    ack_each: bool,
    /// A picture of the run: latencies, and throughput over time.
    #[arg(long)]
    svg: Option<PathBuf>,
}

pub(crate) async fn run(arguments: Arguments) -> Outcome {
    let client = arguments.subscription.connect.client().await?;
    let mut builder = arguments.subscription.consumer(&client).receiver_queue_size(arguments.queue);
    if arguments.ack_each {
        builder = builder.acknowledgment_group_time(Duration::ZERO);
    }
    let consumer = builder.subscribe().await?;
    let run = Run::new();
    let outcome = run.watch(receive_all(consumer, arguments.messages, run.clone())).await;
    run.finish(&format!("consume: {}", arguments.subscription.name), arguments.svg.as_deref())?;
    outcome?;
    Ok(client.close().await?)
}

/// Latencies count from `publish_time`, the producer's clock, in milliseconds: of producers on other machines they
/// are as good as the clocks agree.
async fn receive_all(mut consumer: Consumer, messages: u64, run: Run) -> Outcome {
    let mut received = 0;
    while received < messages && !run.is_stopped() {
        let Ok(first) = tokio::time::timeout(LOOK, consumer.receive()).await else { continue };
        let mut next = Some(first?);
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut recorder = run.recorder();
        for _ in 0..MESSAGES_AT_ONCE {
            let Some(message) = next.take() else { break };
            recorder.done(now, wall.duration_since(message.publish_time()).unwrap_or_default());
            consumer.ack(&message)?;
            received += 1;
            if received == messages {
                break;
            }
            next = consumer.try_receive()?;
        }
        if let Some(message) = next {
            // The one that did not fit the round.
            recorder.done(now, wall.duration_since(message.publish_time()).unwrap_or_default());
            consumer.ack(&message)?;
            received += 1;
        }
    }
    Ok(consumer.close().await?)
}
