//! The producers on the topics that letters go to.

use std::collections::{BTreeMap, HashMap};

use pulsar_native::{Client, Error, Producer, ReceivedMessage};

use super::letters;
use crate::CliResult;

/// Producers that are open at a time: letters may name any number of topics.
const OPEN_MAX: usize = 64;

/// What became of a letter.
pub(super) enum Sent {
    /// It is stored. `deduplicates`: by a broker that would have noticed it if it had been there before.
    Stored { deduplicates: bool },
    /// An earlier run had stored it.
    AlreadyThere,
}

/// See the module.
pub(super) struct Targets {
    client: Client,
    /// The end of the names of all producers: runs that do the same have the same.
    name: String,
    open: HashMap<Way, Target>,
    /// Letters that each topic got.
    counts: BTreeMap<String, u64>,
    partitions: HashMap<String, u32>,
}

/// A producer numbers the letters of one topic or partition, because only those have an order.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Way {
    from: String,
    /// The topic; for a letter without a key the partition, if there are some.
    to: String,
    is_keyed: bool,
}

struct Target {
    producer: Producer,
    /// Whether the broker remembers what this producer has sent; `None`: not known, as nothing was sent.
    deduplicates: Option<bool>,
}

impl Targets {
    /// `elsewhere`: letters do not go where they come from.
    pub(super) fn new(client: Client, subscription: &str, elsewhere: bool) -> Self {
        let how = if elsewhere { "redrive-to" } else { "redrive" };
        let name = format!("{subscription}-{how}");
        Self { client, name, open: HashMap::new(), counts: BTreeMap::new(), partitions: HashMap::new() }
    }

    /// Counts a letter to `topic`.
    pub(super) fn count(&mut self, topic: &str) {
        *self.counts.entry(topic.to_owned()).or_default() += 1;
    }

    pub(super) fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    /// Sends a letter to `topic` and waits until it is stored.
    ///
    /// # Errors
    /// It is not stored, or not confirmed. No letter behind it may be sent to this topic then: a broker that deduplicates
    /// would take this one for a double when it is sent again.
    ///
    /// # Cancel safety
    /// If the future is dropped, the letter may be stored.
    pub(super) async fn send(&mut self, letter: &ReceivedMessage, topic: &str) -> CliResult<Sent> {
        let id = letter.id();
        let number = letters::sequence_id(&id).ok_or("its id is too large for a sequence id")?;
        let way = self.way(letter, topic, number).await?;
        self.open(&way).await?;
        let target = self.open.get_mut(&way).expect("it is open");
        let stored = target.producer.send(letters::message(letter).with_sequence_id(number)).await?;
        if stored.ledger_id().is_none() {
            target.deduplicates = Some(true);
            return Ok(Sent::AlreadyThere);
        }
        let deduplicates = match target.deduplicates {
            Some(deduplicates) => deduplicates,
            None => {
                // What a new producer of this name is told says whether the broker remembers.
                target.producer.close().await?;
                target.producer = create(&self.client, &self.name, &way).await?;
                *target.deduplicates.insert(target.producer.last_sequence_id().is_some())
            }
        };
        self.count(topic);
        Ok(Sent::Stored { deduplicates })
    }

    /// In each run the same for a letter, so that it meets the number that it had.
    async fn way(&mut self, letter: &ReceivedMessage, topic: &str, number: u64) -> Result<Way, Error> {
        let (from, is_keyed) = (letter.topic().to_owned(), letter.key().is_some());
        let partitions = match self.partitions.get(topic) {
            Some(partitions) => *partitions,
            None => self.client.partitions(topic).await?,
        };
        if self.partitions.len() >= OPEN_MAX {
            self.partitions.clear();
        }
        self.partitions.insert(topic.to_owned(), partitions);
        let to = match partitions {
            0 => topic.to_owned(),
            _ if is_keyed => topic.to_owned(),
            _ => format!("{topic}-partition-{}", spread(number) % u64::from(partitions)),
        };
        Ok(Way { from, to, is_keyed })
    }

    async fn open(&mut self, way: &Way) -> Result<(), Error> {
        if !self.open.contains_key(way) {
            if self.open.len() >= OPEN_MAX {
                for (_, target) in self.open.drain() {
                    target.producer.close().await?;
                }
            }
            let producer = create(&self.client, &self.name, way).await?;
            let deduplicates = producer.last_sequence_id().map(|_| true);
            self.open.insert(way.clone(), Target { producer, deduplicates });
        }
        Ok(())
    }
}

async fn create(client: &Client, name: &str, way: &Way) -> Result<Producer, Error> {
    let kind = if way.is_keyed { "keyed" } else { "plain" };
    client.producer(&way.to).name(format!("{}-{name}-{kind}", way.from)).batching(false).create().await
}

/// Spreads numbers whose low bits are all the same.
fn spread(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}
