//! `pulsar-native`: a command line for Pulsar. Publishes, receives, measures, shows what topics hold, sends dead letters back,
//! decodes frames, runs the embedded broker, referees other clients.

mod broker;
mod consume;
mod explain;
mod output;
mod perf;
mod produce;
mod progress;
mod redrive;
mod referee;
mod status;
mod tap;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use pulsar_native::{
    Client, ClientBuilder, ConsumerBuilder, Error, ErrorKind, InitialPosition, SubscriptionType, Token,
};

use self::progress::{Monitor, Style};

/// The environment variable with the token; its value is never shown.
const TOKEN_VARIABLE: &str = "PULSAR_TOKEN";

const AFTER_HELP: &str = "\
Messages and results go to stdout, everything else to stderr. There produce, consume, redrive and perf show on a terminal one line
with their figures, or why they are not attached to a broker; elsewhere a line for each change of that.

Environment:
  PULSAR_TOKEN  Authentication token, unless --token or --token-file is given; empty is the same as unset

Exit status:
  0  success, also when the reader of the output has gone, or after Ctrl-C
  1  failure
  2  wrong usage: an option or a value that cannot be used";

/// Command line of a native Apache Pulsar client
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
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
    Perf(perf::Command),
    /// Show backlog, subscriptions and consumers of topics
    Status(status::Arguments),
    /// Send dead letters back to the topics that they come from
    Redrive(redrive::Arguments),
    /// Take frames apart, byte by byte: of hex, dumps, raw bytes and captures (pcap, pcapng)
    Explain(explain::Arguments),
    /// Run the embedded broker, for development (needs the feature `broker`)
    Broker(broker::Arguments),
    /// Try a client in any language under faults, and judge it (needs the feature `referee`)
    Referee(referee::Arguments),
    /// Show the traffic between clients and brokers, as a proxy or from a file (needs the feature `tap`)
    Tap(Box<tap::Arguments>),
}

/// Connection.
#[derive(Args)]
struct Connect {
    /// Service URL: pulsar://host:6650, pulsar+ssl://host:6651, http://host:8080 or https://host:8443
    url: String,
    /// Authentication token; other users of this machine can see it, unlike one in --token-file or $PULSAR_TOKEN
    #[arg(long, value_name = "JWT", conflicts_with = "token_file", value_parser = NonEmptyStringValueParser::new())]
    token: Option<String>,
    /// Read the authentication token from FILE; goes before $PULSAR_TOKEN, as --token does
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Trust the CA certificates in FILE (PEM)
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// REST interface of the brokers, such as http://host:8080, for what only it tells [default: URL, if it is http(s)]
    #[arg(long, value_name = "URL")]
    admin_url: Option<String>,
    /// Show connections and events too; -vv also each step towards a broker (needs the feature `tracing`)
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

/// The topic of a command that has one.
#[derive(Args)]
struct Topic {
    /// Topic name, such as persistent://public/default/orders
    #[arg(id = "topic", long = "topic", value_name = "TOPIC")]
    name: String,
}

impl Connect {
    /// A client that connects when something is opened, and what tells of it.
    fn start(&self, style: Style) -> Result<(Client, Monitor), Box<dyn std::error::Error + Send + Sync>> {
        let client = self.builder()?.build()?;
        let monitor = Monitor::new(&client, style, self.verbose > 0);
        Ok((client, monitor))
    }

    fn builder(&self) -> Result<ClientBuilder, UsageError> {
        if self.verbose > 1 {
            #[cfg(feature = "tracing")]
            progress::trace::install();
            #[cfg(not(feature = "tracing"))]
            return Err(UsageError("-vv needs a build with the feature `tracing`".to_owned()));
        }
        let mut builder = Client::builder(&self.url);
        let variable = || std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        let token = self.token.clone().or_else(variable);
        if let Some(path) = &self.token_file {
            builder = builder.authentication(Token::from_file(path));
        } else if let Some(token) = token {
            builder = builder.authentication(Token::new(token));
        }
        if let Some(path) = &self.ca_file {
            builder = builder.ca_file(path);
        }
        match &self.admin_url {
            #[cfg(feature = "http")]
            Some(url) => builder = builder.admin_url(url),
            #[cfg(not(feature = "http"))]
            Some(_) => return Err(UsageError("--admin-url needs a build with the feature `http`".to_owned())),
            None => {}
        }
        Ok(builder)
    }
}

/// A subscription to consume from.
#[derive(Args)]
struct Subscription {
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    topic: Topic,
    /// Subscription name; a new subscription starts at the earliest message
    #[arg(long = "subscription", value_name = "NAME")]
    name: String,
    /// Subscription type
    #[arg(long = "subscription-type", value_enum, value_name = "TYPE", default_value_t = Kind::Exclusive)]
    kind: Kind,
}

impl Subscription {
    fn consumer(&self, client: &Client) -> ConsumerBuilder {
        let builder = client.consumer(&self.topic.name, &self.name).subscription_type(self.kind.into());
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
type CliResult<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    match runtime(&command).map_err(Into::into).and_then(|runtime| runtime.block_on(run(command))) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has all it wants.
        Err(error) if output::is_closed_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format_args!("pulsar-native: {error}"));
            if is_wrong_usage(&*error) { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// What clap too exits with.
const EXIT_USAGE: u8 = 2;

/// Options that do not fit each other.
#[derive(Debug)]
struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Whether a command failed because of how it was called, and not of what it met.
fn is_wrong_usage(error: &(dyn std::error::Error + 'static)) -> bool {
    let refused = error.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::InvalidArgument);
    refused || error.is::<UsageError>()
}

fn runtime(command: &Command) -> std::io::Result<tokio::runtime::Runtime> {
    let threads = match command {
        Command::Perf(perf) => perf.threads(),
        _ => None,
    };
    let mut builder = match threads {
        Some(1) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if let Some(threads) = threads {
        builder.worker_threads(threads.into());
    }
    builder.enable_all().build()
}

async fn run(command: Command) -> CliResult {
    match command {
        Command::Produce(arguments) => produce::run(arguments).await,
        Command::Consume(arguments) => consume::run(arguments).await,
        Command::Perf(command) => command.run().await,
        Command::Status(arguments) => status::run(arguments).await,
        Command::Redrive(arguments) => redrive::run(arguments).await,
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Broker(arguments) => broker::run(arguments).await,
        Command::Referee(arguments) => referee::run(arguments).await,
        Command::Tap(arguments) => tap::run(*arguments).await,
    }
}

#[cfg(test)]
mod tests;
