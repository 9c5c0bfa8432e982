//! `pulsar-native`: a command line for Pulsar. Publishes, receives, measures, decodes frames, runs the embedded broker.

mod broker;
mod consume;
mod explain;
mod live;
mod output;
mod perf;
mod perf_consume;
mod perf_produce;
mod produce;
mod svg;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pulsar_native::{Client, ConsumerBuilder, Error, InitialPosition, SubscriptionType, Token};

/// Command line of a native Apache Pulsar client
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Publish messages given as arguments or on stdin
    Produce(produce::Arguments),
    /// Receive messages and print them
    Consume(consume::Arguments),
    /// Measure throughput and latency
    #[command(subcommand)]
    Perf(Perf),
    /// Decode frames of the binary protocol, byte by byte
    Explain(explain::Arguments),
    /// Run the embedded broker, for development (needs the feature `broker`)
    Broker(broker::Arguments),
}

#[derive(Subcommand)]
enum Perf {
    /// Publish messages, as fast as the broker confirms them or at a fixed rate
    Produce(perf_produce::Arguments),
    /// Receive and acknowledge messages
    Consume(perf_consume::Arguments),
}

/// Connection and topic.
#[derive(Args)]
struct Connect {
    /// Service URL: pulsar://host:6650 or pulsar+ssl://host:6651
    url: String,
    /// Authentication token; other users of this machine can see it, unlike one in --token-file or $PULSAR_TOKEN
    #[arg(long, value_name = "JWT")]
    token: Option<String>,
    /// Read the authentication token from FILE
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Trust the CA certificates in FILE (PEM)
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Topic name, such as persistent://public/default/orders
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

/// A subscription to consume from.
#[derive(Args)]
struct Subscription {
    #[command(flatten)]
    connect: Connect,
    /// Subscription name; a new subscription starts at the earliest message
    #[arg(long = "subscription", value_name = "NAME")]
    name: String,
    /// Subscription type
    #[arg(long = "subscription-type", value_enum, value_name = "TYPE", default_value_t = Kind::Exclusive)]
    kind: Kind,
}

impl Subscription {
    fn consumer(&self, client: &Client) -> ConsumerBuilder {
        let builder = client.consumer(&self.connect.topic, &self.name).subscription_type(self.kind.into());
        builder.initial_position(InitialPosition::Earliest)
    }
}

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

/// An error ends the command; its text goes to stderr.
type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has all it wants.
        Err(error) if output::is_closed_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format_args!("pulsar-native: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Outcome {
    match command {
        Command::Produce(arguments) => produce::run(arguments).await,
        Command::Consume(arguments) => consume::run(arguments).await,
        Command::Perf(Perf::Produce(arguments)) => perf_produce::run(arguments).await,
        Command::Perf(Perf::Consume(arguments)) => perf_consume::run(arguments).await,
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Broker(arguments) => broker::run(arguments).await,
    }
}
