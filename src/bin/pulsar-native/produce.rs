//! `produce`: publishes messages given as arguments, or one for each line of stdin.

use std::io::IsTerminal;

use clap::Args;
use pulsar_native::{Message, Producer};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::progress::Style;
use crate::{CliResult, Connect, Topic, output};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    topic: Topic,
    /// Key of each message
    #[arg(long)]
    key: Option<String>,
    /// Property of each message; can be repeated
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
    /// Payloads to send, a message each; without any, each line of stdin is a message
    #[arg(value_name = "PAYLOAD")]
    payloads: Vec<String>,
}

fn property(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or_else(|| "expected NAME=VALUE".to_owned())?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

pub(crate) async fn run(arguments: Arguments) -> CliResult {
    // The line that is typed must not be overwritten.
    let is_typed = arguments.payloads.is_empty() && std::io::stdin().is_terminal();
    let (client, mut monitor) = arguments.connect.start(if is_typed { Style::NoFigures } else { Style::Work })?;
    let producer = monitor.opening(client.producer(&arguments.topic.name).create()).await?;
    monitor.follow_producer(&producer);
    tokio::select! {
        outcome = publish_all(&producer, &arguments) => outcome?,
        never = monitor.run() => match never {},
    }
    drop(monitor);
    Ok(client.close().await?)
}

async fn publish_all(producer: &Producer, arguments: &Arguments) -> CliResult {
    let message = |payload: String| {
        let message = Message::new(payload).with_properties(arguments.properties.clone());
        match &arguments.key {
            Some(key) => message.with_key(key),
            None => message,
        }
    };
    if arguments.payloads.is_empty() {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = lines.next_line().await? {
            // The flush below reports a failed send.
            drop(producer.enqueue(message(line)).await?);
        }
        producer.flush().await?;
    }
    for payload in &arguments.payloads {
        output::print(producer.send(message(payload.clone())).await?)?;
    }
    Ok(producer.close().await?)
}
