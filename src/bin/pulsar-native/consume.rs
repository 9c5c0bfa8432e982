//! `consume`: prints messages, and acknowledges them once they are printed.

use std::io::Write;

use clap::Args;
use pulsar_native::ReceivedMessage;

use crate::{Outcome, Subscription};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    subscription: Subscription,
    /// Ends after so many messages; without it: at Ctrl-C.
    #[arg(long)]
    messages: Option<u64>,
}

pub(crate) async fn run(arguments: Arguments) -> Outcome {
    let client = arguments.subscription.connect.client().await?;
    let mut consumer = arguments.subscription.consumer(&client).subscribe().await?;
    let mut received = 0;
    while arguments.messages.is_none_or(|messages| received < messages) {
        tokio::select! {
            message = consumer.receive() => {
                let message = message?;
                writeln!(std::io::stdout(), "{}", line(&message))?;
                consumer.ack(&message)?;
                received += 1;
            }
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    consumer.close().await?;
    Ok(client.close().await?)
}

fn line(message: &ReceivedMessage) -> String {
    let key = message.key().map(|key| format!(" key={key:?}")).unwrap_or_default();
    let properties: String = message.properties().map(|(name, value)| format!(" {name}={value:?}")).collect();
    format!("{}{key}{properties} {}", message.id(), message.to_string_lossy())
}
