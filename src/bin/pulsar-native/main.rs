//! `pulsar-native`: measure a broker, publish, receive, take a frame apart, run the embedded broker.

mod broker;
mod consume;
mod explain;
mod live;
mod perf;
mod perf_consume;
mod perf_produce;
mod produce;
mod svg;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pulsar_native::{Client, ConsumerBuilder, Error, InitialPosition, SubscriptionType, Token};

/// A native Apache Pulsar client.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure throughput and latency.
    #[command(subcommand)]
    Perf(Perf),
    /// Publish messages: arguments, or the lines of the standard input.
    Produce(produce::Arguments),
    /// Receive messages and print them.
    Consume(consume::Arguments),
    /// Take a frame apart, byte by byte.
    Explain(explain::Arguments),
    /// Run the embedded broker until Ctrl-C (needs the feature `broker`).
    Broker(broker::Arguments),
}

#[derive(Subcommand)]
enum Perf {
    /// Publish, as fast as receipts allow or at a rate.
    Produce(perf_produce::Arguments),
    /// Receive and acknowledge.
    Consume(perf_consume::Arguments),
}

/// Where the broker is, who asks, and for which topic.
#[derive(Args)]
struct Connect {
    /// pulsar://host:6650 or pulsar+ssl://host:6651
    url: String,
    /// A token (JWT); better in a file, or in PULSAR_TOKEN, where other users of the machine do not see it.
    #[arg(long)]
    token: Option<String>,
    /// A file with the token.
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// A PEM file with the certificates to trust.
    #[arg(long)]
    ca_file: Option<PathBuf>,
    /// The topic.
    #[arg(long)]
    topic: String,
}

impl Connect {
    async fn client(&self) -> Result<Client, Error> {
        let mut builder = Client::builder(&self.url);
        let token = self.token.clone().or_else(|| std::env::var("PULSAR_TOKEN").ok());
        if let Some(path) = &self.token_file {
            builder = builder.auth(Token::from_file(path));
        } else if let Some(token) = token {
            builder = builder.auth(Token::new(token));
        }
        if let Some(path) = &self.ca_file {
            builder = builder.ca_file(path);
        }
        builder.connect().await
    }
}

/// What both kinds of receiving receive from.
#[derive(Args)]
struct Subscription {
    #[command(flatten)]
    connect: Connect,
    /// The subscription; made at the topic's start if there is none.
    #[arg(long = "subscription", value_name = "SUBSCRIPTION")]
    name: String,
    /// The type of the subscription.
    #[arg(long, value_enum, default_value_t = Kind::Exclusive)]
    kind: Kind,
}

impl Subscription {
    fn consumer(&self, client: &Client) -> ConsumerBuilder {
        let builder = client.consumer(&self.connect.topic, &self.name).subscription_type(self.kind.into());
        builder.initial_position(InitialPosition::Earliest)
    }
}

/// How the consumers of a subscription share its messages.
#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Exclusive,
    Shared,
    Failover,
    KeyShared,
}

impl From<Kind> for SubscriptionType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Exclusive => Self::Exclusive,
            Kind::Shared => Self::Shared,
            Kind::Failover => Self::Failover,
            Kind::KeyShared => Self::KeyShared,
        }
    }
}

/// What ends the program badly: for people to read.
type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Perf(Perf::Produce(arguments)) => perf_produce::run(arguments).await,
        Command::Perf(Perf::Consume(arguments)) => perf_consume::run(arguments).await,
        Command::Produce(arguments) => produce::run(arguments).await,
        Command::Consume(arguments) => consume::run(arguments).await,
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Broker(arguments) => broker::run(arguments).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pulsar-native: {error}");
            ExitCode::FAILURE
        }
    }
}
