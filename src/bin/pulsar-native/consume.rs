//! `consume`: prints messages, and acknowledges each once it is printed.

use clap::{Args, value_parser};
use pulsar_native::{Consumer, ReceivedMessage};

use crate::progress::Style;
use crate::{CliResult, Subscription, output};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    subscription: Subscription,
    /// Exit after N messages [default: run until Ctrl-C]
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    messages: Option<u64>,
}

pub(crate) async fn run(arguments: Arguments) -> CliResult {
    let (client, mut monitor) = arguments.subscription.connect.start(Style::Work)?;
    let mut consumer = monitor.opening(arguments.subscription.consumer(&client).subscribe()).await?;
    monitor.follow_consumer(&consumer);
    let outcome = tokio::select! {
        outcome = print_all(&mut consumer, arguments.messages) => outcome,
        never = monitor.run() => match never {},
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    drop(monitor);
    // Closed after an error too: acknowledgments of what was printed go out with it.
    let closed = consumer.close().await;
    outcome?;
    closed?;
    Ok(client.close().await?)
}

/// Cancel safe: a message that is printed is acknowledged before the next one is waited for.
async fn print_all(consumer: &mut Consumer, messages: Option<u64>) -> CliResult {
    let mut received = 0;
    while messages.is_none_or(|messages| received < messages) {
        let message = consumer.receive().await?;
        output::print(line(&message))?;
        consumer.ack(&message)?;
        received += 1;
    }
    Ok(())
}

fn line(message: &ReceivedMessage) -> String {
    let key = message.key().map(|key| format!(" key={key:?}")).unwrap_or_default();
    let properties: String = message.properties().map(|(name, value)| format!(" {name}={value:?}")).collect();
    format!("{}{key}{properties} {}", message.id(), message.to_string_lossy())
}
