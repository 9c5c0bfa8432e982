//! Worlds of a reader that reads a topic with partitions while they are added, under faults; now and then it is stopped, and
//! another one begins at its checkpoint, or it reads up to what there is at the moment. Of each partition it has to read what
//! is stored: all of it, once, in that order.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use pulsar_native::sim::{Fault, Handle, InvariantViolation, Rng, Simulation};
use pulsar_native::{Checkpoint, Client, Error, Message, ReadUntil, Reader, ReaderStart, ReceivedMessage, SeekTo};

use crate::growth::fault;
use crate::harness;
use crate::workload::{SETTLES_WITHIN, SeedReport, first};

/// One seed in so many is such a world.
const ONE_IN: u64 = 16;

const TOPIC: &str = "persistent://public/default/read";

/// How often partitions are looked for.
const INTERVAL: Duration = Duration::from_secs(2);

/// Whether a seed is that of a reader.
pub(crate) fn is_of(seed: u64) -> bool {
    seed % ONE_IN == 5
}

struct Plan {
    partitions: u32,
    /// When there are so many.
    growth: (Duration, u32),
    faults: Vec<(Duration, Fault)>,
    /// The last fault is before it.
    ends_at: Duration,
    batch: Option<u32>,
    queue: u32,
    /// Before anything is sent, so that it reads the same as from the beginning.
    starts_at_end: bool,
    /// Of a thousand steps of the reader, how many stop it, and how many read up to an end.
    stops: u64,
    streams: u64,
    /// Before the first messages: a reader that began at the end may lose its connection until then.
    quiet: Duration,
    /// Between messages.
    pause: Duration,
}

impl Plan {
    fn of(seed: u64) -> Self {
        let rng = &mut Rng::new(seed ^ 0x8ead);
        let partitions = rng.range_inclusive(1, 3) as u32;
        let ends_at = rng.duration(Duration::from_secs(5), Duration::from_secs(20));
        let mut faults = Vec::new();
        for _ in 0..rng.range_inclusive(2, 14) {
            faults.push((rng.duration(Duration::from_millis(100), ends_at), fault(rng)));
        }
        Self {
            partitions,
            growth: (rng.duration(Duration::from_secs(1), ends_at), partitions + rng.below(3) as u32),
            faults,
            ends_at: ends_at + Duration::from_secs(1),
            batch: rng.chance_per_mille(700).then(|| rng.range_inclusive(2, 6) as u32),
            queue: *rng.pick(&[1, 2, 20, 1000]),
            starts_at_end: rng.chance_per_mille(500),
            stops: *rng.pick(&[0, 20, 100]),
            streams: *rng.pick(&[0, 50]),
            quiet: *rng.pick(&[Duration::ZERO, Duration::from_secs(4)]),
            pause: *rng.pick(&[Duration::from_millis(20), Duration::from_millis(400), Duration::from_secs(2)]),
        }
    }

    fn parts(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.growth.1).map(|index| format!("{TOPIC}-partition-{index}"))
    }
}

#[derive(Clone)]
struct Users {
    handle: Handle,
    plan: Rc<Plan>,
    /// By partition, in the order of reading.
    read: Rc<RefCell<BTreeMap<String, Vec<String>>>>,
    /// When the last message that was read was published.
    published: Rc<Cell<Option<SystemTime>>>,
    is_reading: Rc<Cell<bool>>,
    /// What has no result yet.
    pending: Rc<Cell<usize>>,
    /// No more is sent.
    is_draining: Rc<Cell<bool>>,
    is_over: Rc<Cell<bool>>,
}

/// Runs one seed from start to end.
pub(crate) fn run(seed: u64, trace: bool) -> SeedReport {
    let plan = Rc::new(Plan::of(seed));
    harness::run_seed(seed, trace, |sim| run_plan(sim, &plan, seed), plan.parts())
}

fn run_plan(sim: &Simulation, plan: &Rc<Plan>, seed: u64) -> Result<(), InvariantViolation> {
    let users = Users {
        handle: sim.handle(),
        plan: plan.clone(),
        read: Rc::default(),
        published: Rc::default(),
        is_reading: Rc::default(),
        pending: Rc::default(),
        is_draining: Rc::default(),
        is_over: Rc::default(),
    };
    assert!(sim.cluster(0).create_partitioned_topic(TOPIC, plan.partitions));
    for (at, fault) in &plan.faults {
        sim.inject_at(*at, fault.clone());
    }
    let grower = users.clone();
    sim.spawn(async move {
        let (at, partitions) = grower.plan.growth;
        grower.handle.sleep(at).await;
        if partitions > grower.plan.partitions {
            assert!(grower.handle.cluster(0).create_partitioned_topic(TOPIC, partitions));
        }
    });
    let application = users.clone();
    sim.spawn(async move { work(application, seed).await });
    sim.run_until(plan.ends_at, || false)?;
    sim.clear_faults();
    users.is_draining.set(true);
    // Reading back what is stored takes long.
    let next_check = Cell::new(Duration::ZERO);
    let is_settled = sim.run_until(SETTLES_WITHIN, || {
        let is_due = users.handle.elapsed() >= next_check.get();
        if is_due {
            next_check.set(users.handle.elapsed() + Duration::from_secs(1));
        }
        is_due && check(&users)
    })?;
    if !is_settled {
        let read = users.read.borrow();
        let seen = |part: String| format!("{part}: {} of {:?}", read_of(&read, &part).len(), users.stored(&part));
        let seen: Vec<_> = plan.parts().map(seen).collect();
        users.handle.report_violation("everything stored is read", || seen.join("; "));
    }
    sim.run_for(Duration::ZERO)?;
    harness::end(sim, &users.handle, &users.is_over)
}

impl Users {
    /// What is stored in a partition, in order.
    fn stored(&self, part: &str) -> Vec<String> {
        let text = |payload: &[u8]| String::from_utf8_lossy(payload).into_owned();
        self.handle.cluster(0).stored_messages(part).iter().map(|message| text(&message.payload)).collect()
    }

    /// What was read.
    fn note(&self, message: &ReceivedMessage) {
        self.handle.trace(|| format!("read {} of {:?}", message.to_string_lossy(), message.id()));
        self.published.set(Some(message.publish_time()));
        let text = message.to_string_lossy().into_owned();
        self.read.borrow_mut().entry(message.topic().to_owned()).or_default().push(text);
    }

    /// The reader has ended.
    fn on_end(&self, error: &Error) {
        if !self.is_over.get() {
            self.handle.report_violation("no part ends", || error.to_string());
        }
    }
}

fn read_of<'a>(read: &'a BTreeMap<String, Vec<String>>, part: &str) -> &'a [String] {
    read.get(part).map_or(&[], |read| read)
}

/// What was read is what is stored, up to there. Whether all of it was.
fn check(users: &Users) -> bool {
    let read = users.read.borrow();
    let mut is_all = users.pending.get() == 0;
    for part in users.plan.parts() {
        let (stored, read) = (users.stored(&part), read_of(&read, &part));
        if !stored.starts_with(read) {
            let at = stored.iter().zip(read).take_while(|(stored, read)| stored == read).count();
            users.handle.report_violation("a reader reads each message once, in order", || {
                format!("{part}: {:?} at {at}, where {:?} is stored", read.get(at), stored.get(at))
            });
        }
        is_all &= stored.len() == read.len();
    }
    is_all
}

async fn work(users: Users, seed: u64) {
    let client = harness::connect(&users.handle).await;
    let (reader, reading) = (users.clone(), client.clone());
    users.handle.spawn(async move { read_all(reader, reading, seed).await });
    while !users.is_reading.get() {
        users.handle.sleep(Duration::from_millis(50)).await;
    }
    send_all(&users, &client).await;
    harness::close_at_end(&users.handle, &client, &users.is_over).await;
}

/// `None`: it is over.
async fn begin(users: &Users, client: &Client, start: &ReaderStart) -> Option<Reader> {
    while !users.is_over.get() {
        let builder = client.reader(TOPIC, start.clone()).receiver_queue_size(users.plan.queue);
        // Generated names differ from run to run.
        let builder = builder.subscription_name("reader").reader_name("r").auto_update_partitions_interval(INTERVAL);
        match builder.create().await {
            Ok(reader) => return Some(reader),
            Err(error) => users.handle.trace(|| format!("no reader: {error}")),
        }
        users.handle.sleep(Duration::from_millis(300)).await;
    }
    None
}

async fn read_all(users: Users, client: Client, seed: u64) {
    let rng = &mut Rng::new(seed ^ 0x57e9);
    let start = if users.plan.starts_at_end { SeekTo::Latest } else { SeekTo::Earliest };
    let Some(mut reader) = begin(&users, &client, &start.into()).await else { return };
    users.is_reading.set(true);
    let mut before = Checkpoint::new();
    while !users.is_over.get() {
        let looks = rng.chance_per_mille(200);
        if looks {
            look(&users, &mut reader).await;
        }
        if rng.chance_per_mille(users.plan.stops * if looks { 3 } else { 1 }) {
            before = checkpoint(&users, &mut reader, &before);
            drop(reader);
            let Some(next) = begin(&users, &client, &(&before).into()).await else { return };
            reader = next;
        }
        if rng.chance_per_mille(users.plan.streams) && !read_to_an_end(&users, &mut reader, rng).await {
            return;
        }
        match first(reader.read_next(), users.handle.sleep(Duration::from_millis(100))).await {
            Some(Ok(message)) => users.note(&message),
            Some(Err(error)) => return users.on_end(&error),
            None => {}
        }
    }
}

/// Whether there is more: what is stored before the question is there to be read, and what is not after the answer is not.
async fn look(users: &Users, reader: &mut Reader) {
    // Counted, because reading back what is stored takes long.
    let stored = |part: &str| users.handle.stats(part).map_or(0, |stats| stats.msg_in_counter);
    let has_unread = |part: &str| stored(part) > read_of(&users.read.borrow(), part).len() as u64;
    let joined: Vec<_> = reader.state().parts.into_iter().filter(|part| part.state.is_attached()).collect();
    let before = joined.iter().any(|part| has_unread(&part.topic));
    let found = first(reader.has_next(), users.handle.sleep(Duration::from_secs(5))).await;
    users.handle.trace(|| format!("has next: {found:?}"));
    let after = users.plan.parts().any(|part| has_unread(&part));
    if let Some(Ok(found)) = found {
        if (before && !found) || (!after && found) {
            let which = || format!("{found}, where {before} was, and {after} is");
            users.handle.report_violation("has_next says whether there is more", which);
        }
    }
}

/// Where the reader is; not before where it was.
fn checkpoint(users: &Users, reader: &mut Reader, before: &Checkpoint) -> Checkpoint {
    let checkpoint = reader.checkpoint();
    let has_all = before.positions().all(|(topic, _)| checkpoint.position(topic).is_some());
    if !has_all || checkpoint < *before {
        users.handle.report_violation("a checkpoint goes on", || format!("{checkpoint} after {before}"));
    }
    users.handle.trace(|| format!("stops at {checkpoint}"));
    Checkpoint::from_bytes(&checkpoint.to_bytes()).expect("its bytes")
}

/// Reads up to the present end, or up to a time, unless it loses patience. Whether the reader goes on.
async fn read_to_an_end(users: &Users, reader: &mut Reader, rng: &mut Rng) -> bool {
    let end = match users.published.get().filter(|_| rng.chance_per_mille(500)) {
        Some(published) => ReadUntil::PublishTime(published + rng.duration(Duration::ZERO, Duration::from_secs(1))),
        None => ReadUntil::Now,
    };
    // A partition that joins may be given up for now, and joins later.
    let joined = reader.state().parts.into_iter().filter(|part| part.state.is_attached());
    let stored: Vec<_> = joined.map(|part| (users.stored(&part.topic).len(), part.topic)).collect();
    let begun = first(reader.until(end.clone()), users.handle.sleep(Duration::from_secs(5))).await;
    let Some(Ok(mut messages)) = begun else { return true };
    loop {
        if rng.chance_per_mille(20) {
            return true;
        }
        match first(messages.next(), users.handle.sleep(Duration::from_secs(20))).await {
            Some(Some(Ok(message))) => users.note(&message),
            Some(Some(Err(error))) => {
                users.on_end(&error);
                return false;
            }
            Some(None) => break,
            None => return true,
        }
    }
    let read = users.read.borrow();
    for (count, part) in stored.into_iter().filter(|_| end == ReadUntil::Now) {
        let seen = read_of(&read, &part).len();
        if seen < count {
            let short = || format!("{seen} of {count} of {part}");
            users.handle.report_violation("a stream up to now has what was stored", short);
        }
    }
    true
}

/// Without a send timeout none fails; what is sent again is stored again, and read again.
async fn send_all(users: &Users, client: &Client) {
    let builder = client.producer(TOPIC).send_timeout(Duration::ZERO).batching(users.plan.batch.is_some());
    let builder = builder.batching_max_messages(users.plan.batch.unwrap_or(1));
    let builder = builder.auto_update_partitions_interval(INTERVAL);
    let producer = harness::retried(&users.handle, "not created", async || builder.clone().create().await).await;
    users.handle.sleep(users.plan.quiet).await;
    let mut number = 0;
    while !users.is_draining.get() {
        for _ in 0..8 {
            let message = Message::new(number.to_string()).with_key(format!("key-{}", number % 7));
            number += 1;
            let Ok(pending) = producer.enqueue(message).await else { continue };
            users.pending.set(users.pending.get() + 1);
            let users = users.clone();
            users.handle.clone().spawn(async move {
                let _ = pending.await;
                users.pending.set(users.pending.get() - 1);
            });
        }
        users.handle.sleep(users.plan.pause).await;
    }
}
