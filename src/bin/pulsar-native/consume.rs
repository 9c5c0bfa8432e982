//! `consume`: prints messages, and acknowledges them once they are printed.

use std::io::Write;

use clap::Args;
use pulsar_native::{InitialPosition, ReceivedMessage};

use crate::{Connect, Kind, Outcome};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    connect: Connect,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// The subscription; made at the topic's start if there is none.
    #[arg(long)]
    subscription: String,
    /// The type of the subscription.
    #[arg(long, value_enum, default_value_t = Kind::Exclusive)]
    kind: Kind,
    /// Ends after so many messages; without it: at Ctrl-C.
    #[arg(long)]
    messages: Option<u64>,
}

pub(crate) async fn run(arguments: Arguments) -> Outcome {
    let client = arguments.connect.client().await?;
    let builder = client.consumer(&arguments.topic, &arguments.subscription).subscription_type(arguments.kind.into());
    let mut consumer = builder.initial_position(InitialPosition::Earliest).subscribe().await?;
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
    format!("{}{key}{properties} {}", message.id(), message.text())
}
