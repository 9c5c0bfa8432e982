//! `produce`: publishes arguments or lines.

use clap::Args;
use pulsar_native::Message;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{Connect, Outcome};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    connect: Connect,
    /// The key of each message.
    #[arg(long)]
    key: Option<String>,
    /// A property of each message, `name=value`; may be repeated.
    #[arg(long = "property", value_parser = property)]
    properties: Vec<(String, String)>,
    /// Payloads; without any, the lines of the standard input.
    payloads: Vec<String>,
}

fn property(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or_else(|| "a property is name=value".to_owned())?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

pub(crate) async fn run(arguments: Arguments) -> Outcome {
    let client = arguments.connect.client().await?;
    let producer = client.producer(&arguments.connect.topic).create().await?;
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
            // What fails shows at the flush.
            drop(producer.enqueue(message(line)).await?);
        }
        producer.flush().await?;
    }
    for payload in &arguments.payloads {
        println!("{}", producer.send(message(payload.clone())).await?);
    }
    producer.close().await?;
    Ok(client.close().await?)
}
