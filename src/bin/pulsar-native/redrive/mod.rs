//! `redrive`: sends dead letters back to the topics that they come from.
//!
//! One letter after the other, in the order of the dead-letter topic: it is sent, confirmed, acknowledged, and the
//! acknowledgement is confirmed. So of a run that is killed at most one letter of each partition of the dead-letter topic is
//! sent and not acknowledged. The next run sends it once more, under the same producer name and the same sequence id,
//! and a broker that deduplicates says that it has it.

mod letters;
mod source;
mod targets;

use clap::{Args, value_parser};
use pulsar_native::topic::TopicName;
use pulsar_native::{Client, ErrorKind, ReceivedMessage};
use tokio::time::{Duration, Instant, sleep_until};

use self::source::Source;
use self::targets::{Sent, Targets};
use crate::progress::Style;
use crate::{CliResult, Connect, Topic, output};

const LONG_ABOUT: &str = "\
Send dead letters back to the topics that they come from

Each letter goes to the topic that it names in its property REAL_TOPIC, or to the one of --to, and is acknowledged once it is
stored there. It keeps payload, key, ordering key, event time and its own properties; those that were added when it was given
up (REAL_TOPIC, REAL_SUBSCRIPTION, ORIGIN_MESSAGE_ID, ORIGIN_MESSAGE_IDY_TIME, RECONSUMETIMES, DELAY_TIME,
DEAD_LETTER_REASON) are removed, so that its deliveries and retries are counted anew. It is sent without a schema, and every
subscription of the topic gets it. A letter that names no topic, or that could not be read, is left where it is.

The command ends with the letters that were there when it began. After a failure or a kill, the same command goes on: its
subscription knows what is done. Nothing is lost. A letter that was stored, but not acknowledged before the kill, is sent once
more: at most one for each partition of the dead-letter topic, more if the broker of that topic crashed too. Where the broker
of its topic deduplicates (brokerDeduplicationEnabled, or the policy of the namespace), it is not stored twice, and is named; a
broker forgets after 6 hours by default. Where not, may_be_double counts the letters for which that cannot be excluded.

The subscription is Exclusive, and is created if it is not there, also by --dry-run. Letters that are older than the first
subscription of the dead-letter topic are not kept by a broker.";

#[derive(Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Arguments {
    #[command(flatten)]
    connect: Connect,
    /// The dead-letter topic
    #[command(flatten)]
    topic: Topic,
    /// Durable subscription that remembers what is done
    #[arg(long, value_name = "NAME", default_value = "redrive")]
    subscription: String,
    /// Send all letters to TOPIC, whatever they name
    #[arg(long, value_name = "TOPIC", value_parser = TopicName::parse)]
    to: Option<TopicName>,
    /// Count only, by topic: send nothing, acknowledge nothing
    #[arg(long)]
    dry_run: bool,
    /// Send at most N letters per second
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// End after N letters
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

pub(crate) async fn run(arguments: Arguments) -> CliResult {
    let (client, mut monitor) = arguments.connect.start(Style::Work)?;
    let source = Source::open(&client, &arguments.topic.name, &arguments.subscription);
    let mut source = monitor.opening(source).await?;
    monitor.follow_consumer(source.consumer());
    let mut redrive = Redrive::new(client.clone(), &arguments);
    let outcome = tokio::select! {
        outcome = redrive.all(&mut source) => outcome,
        never = monitor.run() => match never {},
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    drop(monitor);
    redrive.report()?;
    let closed = source.consumer().close().await;
    outcome?;
    closed?;
    Ok(client.close().await?)
}

struct Redrive<'a> {
    arguments: &'a Arguments,
    targets: Targets,
    redriven: u64,
    already_there: u64,
    left: u64,
    may_be_double: u64,
}

impl<'a> Redrive<'a> {
    fn new(client: Client, arguments: &'a Arguments) -> Self {
        let targets = Targets::new(client, &arguments.subscription, arguments.to.is_some());
        Self { arguments, targets, redriven: 0, already_there: 0, left: 0, may_be_double: 0 }
    }

    /// Cancel safe: nothing is acknowledged that is not stored.
    async fn all(&mut self, source: &mut Source) -> CliResult {
        let start = Instant::now();
        while self.arguments.limit.is_none_or(|limit| self.done() < limit) {
            let Some(letter) = source.next().await? else { break };
            let Some(topic) = letters::target(&letter, self.arguments.to.as_ref()) else {
                if source.note_left(&letter) {
                    self.leave(&letter);
                }
                continue;
            };
            if self.arguments.dry_run {
                self.targets.count(&topic);
                self.redriven += 1;
                continue;
            }
            if source.was_sent(&letter) {
                // It comes again because its acknowledgement was lost.
                acknowledge(source, &letter).await?;
                continue;
            }
            if let Some(rate) = self.arguments.rate {
                sleep_until(start + Duration::from_secs_f64(self.done() as f64 / f64::from(rate))).await;
            }
            self.send(source, &letter, &topic).await?;
        }
        Ok(())
    }

    fn done(&self) -> u64 {
        self.redriven + self.already_there
    }

    fn leave(&mut self, letter: &ReceivedMessage) {
        if self.left == 0 {
            output::note(format_args!(
                "{} is left there, as are others of its kind: it names no topic ({}; see --to), or could not be read",
                letter.id(),
                letters::REAL_TOPIC,
            ));
        }
        self.left += 1;
    }

    async fn send(&mut self, source: &mut Source, letter: &ReceivedMessage, topic: &str) -> CliResult {
        let id = letter.id();
        let sent = self.targets.send(letter, topic).await.map_err(|error| format!("{id} to {topic}: {error}"))?;
        let is_first = source.note_sent(letter);
        match sent {
            Sent::Stored { deduplicates } => {
                self.redriven += 1;
                if is_first && !deduplicates {
                    self.may_be_double += 1;
                    output::note(format_args!(
                        "{topic} does not deduplicate: if an earlier run was killed, it may have {id} twice",
                    ));
                }
            }
            Sent::AlreadyThere => {
                self.already_there += 1;
                output::note(format_args!("{topic} has {id} already: an earlier run had sent it"));
            }
        }
        acknowledge(source, letter).await
    }

    /// One line for each topic, then the sums.
    fn report(&self) -> std::io::Result<()> {
        for (topic, letters) in self.targets.counts() {
            output::print(format_args!("{topic} n={letters}"))?;
        }
        let Self { redriven, already_there, left, may_be_double, .. } = self;
        let name = if self.arguments.dry_run { "to_redrive" } else { "redriven" };
        output::print(format_args!(
            "{name}={redriven} already_there={already_there} left={left} may_be_double={may_be_double}"
        ))
    }
}

async fn acknowledge(source: &Source, letter: &ReceivedMessage) -> CliResult {
    match source.consumer().ack_confirmed(letter).await {
        // Brokers before 2.8 do not confirm.
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(source.consumer().ack(letter)?),
        confirmed => Ok(confirmed?),
    }
}
