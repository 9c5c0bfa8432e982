//! What every client is asked to do.

/// What the permits of a consumer are, for everyone, over all its topics; and the least for each of them: with some
/// clients the handle over all topics has a queue of that size too.
const QUEUE: u64 = 5000;
const QUEUE_MIN: u64 = 100;

/// How many producers, topics and partitions there are in the works of `growth`.
pub(crate) const COUNTS: [u64; 4] = [1, 10, 100, 1000];

/// How many works of `sink`, from the first, the README and the chart show.
pub(crate) const MAIN_WORKS: usize = 4;

/// One kind of work.
pub(crate) struct Work {
    /// Of the report.
    pub(crate) section: &'static str,
    /// By which the report knows it.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    /// Messages per batch or entry; 1: none.
    pub(crate) batch: u64,
    pub(crate) in_flight: u64,
    pub(crate) producers: u64,
    /// Of the one topic that is produced to; 0: it has none.
    pub(crate) partitions: u64,
    /// Of the one consumer.
    pub(crate) topics: u64,
    /// What payloads are compressed by; empty: nothing.
    pub(crate) codec: &'static str,
    /// Messages of the first, short run.
    pub(crate) probe: u64,
    /// Messages that there are to consume; 0: as many as asked for.
    pub(crate) backlog: u64,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Produce,
    Consume,
}

const fn produce(name: &'static str, size: u64, batch: u64) -> Work {
    Work {
        section: "sink",
        name,
        kind: Kind::Produce,
        size,
        batch,
        in_flight: 5000,
        producers: 1,
        partitions: 0,
        topics: 1,
        codec: "",
        probe: 50_000,
        backlog: 0,
    }
}

const fn consume(name: &'static str, size: u64, batch: u64) -> Work {
    Work { kind: Kind::Consume, in_flight: 0, ..produce(name, size, batch) }
}

const fn large(work: Work) -> Work {
    let in_flight = if work.in_flight > 200 { 200 } else { work.in_flight };
    Work { in_flight, probe: 5000, ..work }
}

/// All against the sink without a codec, in the order of the tables; the first four are what the targets are about.
pub(crate) const WORKS: [Work; 10] = [
    produce("produce, batches of 1,000", 100, 1000),
    produce("produce, unbatched", 100, 1),
    consume("consume, entries of 100", 100, 100),
    consume("consume, single entries", 100, 1),
    produce("produce, 1 KiB, batches of 100", 1024, 100),
    produce("produce, 1 KiB, unbatched", 1024, 1),
    consume("consume, 1 KiB, entries of 100", 1024, 100),
    consume("consume, 1 KiB, single entries", 1024, 1),
    large(produce("produce, 64 KiB, unbatched", 65_536, 1)),
    large(consume("consume, 64 KiB, single entries", 65_536, 1)),
];

/// The works of one codec: its name in the report, and the one by which the programs know it.
macro_rules! codec_works {
    ($title:literal, $codec:literal) => {
        [
            produce(concat!("produce, ", $title, ", batches of 1,000"), 100, 1000).under($codec),
            consume(concat!("consume, ", $title, ", entries of 100"), 100, 100).under($codec),
            produce(concat!("produce, ", $title, ", 1 KiB, unbatched"), 1024, 1).under($codec),
            consume(concat!("consume, ", $title, ", 1 KiB, single entries"), 1024, 1).under($codec),
            large(produce(concat!("produce, ", $title, ", 64 KiB, unbatched"), 65_536, 1).under($codec)),
            large(consume(concat!("consume, ", $title, ", 64 KiB, single entries"), 65_536, 1).under($codec)),
        ]
    };
}

/// Those of each codec.
pub(crate) const CODEC_WORKS: [[Work; 6]; 4] = [
    codec_works!("LZ4", "lz4"),
    codec_works!("Zlib", "zlib"),
    codec_works!("Zstandard", "zstd"),
    codec_works!("Snappy", "snappy"),
];

/// What grows: its title, then a work for each of [`COUNTS`], against the sink.
pub(crate) struct Axis {
    pub(crate) title: &'static str,
    pub(crate) works: [Work; COUNTS.len()],
}

macro_rules! axis {
    ($title:literal, $work:ident) => {
        Axis {
            title: $title,
            works: [
                $work(concat!($title, ": 1"), COUNTS[0]),
                $work(concat!($title, ": 10"), COUNTS[1]),
                $work(concat!($title, ": 100"), COUNTS[2]),
                $work(concat!($title, ": 1,000"), COUNTS[3]),
            ],
        }
    };
}

pub(crate) const GROWTH: [Axis; 4] = [
    axis!("producers, unbatched", unbatched_producers),
    axis!("producers, batches of 100", batching_producers),
    axis!("partitions of a producer", partitions),
    axis!("topics of a consumer", topics),
];

const fn unbatched_producers(name: &'static str, producers: u64) -> Work {
    Work { section: "growth", producers, ..produce(name, 100, 1) }
}

const fn batching_producers(name: &'static str, producers: u64) -> Work {
    Work { section: "growth", producers, in_flight: 20_000, ..produce(name, 100, 100) }
}

const fn partitions(name: &'static str, partitions: u64) -> Work {
    Work { section: "growth", partitions, ..produce(name, 100, 1) }
}

const fn topics(name: &'static str, topics: u64) -> Work {
    Work { section: "growth", topics, ..consume(name, 100, 1) }
}

/// Those against a real broker.
pub(crate) const BROKER_WORKS: [Work; 4] = [
    Work { section: "broker", ..produce("produce, batches of 1,000", 100, 1000) },
    Work { section: "broker", ..produce("produce, unbatched", 100, 1) },
    Work { section: "broker", backlog: 2_000_000, ..consume("drain, batches of 1,000", 100, 1000) },
    Work { section: "broker", backlog: 400_000, ..consume("drain, single entries", 100, 1) },
];

impl Work {
    const fn under(self, codec: &'static str) -> Self {
        Self { section: "codecs", codec, ..self }
    }

    /// Permits are given back from the first half of the queue on: a queue of large messages is smaller.
    fn queue(&self) -> u64 {
        if self.size > 10_000 { 200 } else { (QUEUE / self.topics).max(QUEUE_MIN) }
    }

    /// What a program is told; `messages` follow the warm-up.
    pub(crate) fn words(
        &self,
        url: &str,
        runtime: &str,
        subscription: u64,
        warm_up: u64,
        messages: u64,
    ) -> Vec<String> {
        let (what, topic) = match self.kind {
            Kind::Produce if self.partitions > 0 => ("produce", format!("partitions-{}-", self.partitions)),
            Kind::Produce => ("produce", format!("{}-", self.section)),
            Kind::Consume if self.backlog > 0 => ("consume", self.backlog_topic() + "0"),
            Kind::Consume => ("consume", self.feed(warm_up + messages)),
        };
        let words = format!(
            "{what} {url} topic=persistent://public/default/{topic} subscription=s{subscription} messages={messages} \
             warm_up={warm_up} size={} batch={} in_flight={} producers={} partitions={} topics={} queue={} codec={} \
             runtime={runtime}",
            self.size,
            self.batch,
            self.in_flight,
            self.producers,
            self.partitions,
            self.topics,
            self.queue(),
            self.codec,
        );
        words.split(' ').map(str::to_owned).collect()
    }

    /// Where the backlog is, as its producer is told: that appends its number, 0.
    fn backlog_topic(&self) -> String {
        format!("backlog-{}-", self.batch)
    }

    /// Has a program fill the backlog.
    pub(crate) fn fill(&self, url: &str) -> Vec<String> {
        let words = format!(
            "produce {url} topic=persistent://public/default/{} messages={} size={} batch={} in_flight=5000",
            self.backlog_topic(),
            self.backlog,
            self.size,
            self.batch,
        );
        words.split(' ').map(str::to_owned).collect()
    }

    /// The topic by which the sink knows what to feed.
    fn feed(&self, messages: u64) -> String {
        let members = if self.batch > 1 { self.batch } else { 0 };
        let entries = messages / self.batch / self.topics;
        format!("feed-{members}-{}-{entries}-{}", self.size, self.codec)
    }

    /// Whether there is a limit to compare with: one producer or consumer of the sink, nothing compressed.
    pub(crate) fn has_baseline(&self) -> bool {
        self.section == "sink"
    }
}

/// Why a client has no part in a work.
pub(crate) fn leaves_out(work: &Work, subject: &str) -> Option<&'static str> {
    match subject {
        "magnetar" if !work.codec.is_empty() && work.batch > 1 => Some(
            "compresses the messages of a batch one by one, where Pulsar compresses the batch: it reads no other \
             client's compressed batches, nor they its",
        ),
        "pulsar-rs" if work.codec == "snappy" => Some(
            "writes and reads Snappy's framing format, where Pulsar has raw blocks: it reads no other client's \
             messages, nor they its",
        ),
        _ => None,
    }
}
