//! A fifth of the keys fails for a while: their messages are tried again in place, and the others go on.
//!
//! The load is small, and the keys fail until all of the others is done. With `FAILING_KEYS_FULL` in the environment it is that of
//! docs/performance.md: 5,000 messages a second over 1,000 keys, and a fifth of these fails for ten seconds. With `--show-output` it
//! prints its figures.

use super::*;
use pulsar_native::Outcome;
use tokio::time::MissedTickBehavior;

const TICK: Duration = Duration::from_millis(10);
const CONCURRENCY: usize = 8;
const FAILS_ONE_IN: usize = 5;

struct Load {
    keys: usize,
    messages: usize,
    per_second: usize,
    /// For so long the keys fail; `None`: until the others are done.
    failing: Option<Duration>,
    retry_after: Duration,
}

/// Those of the keys that fail are more than the queue of the consumer holds.
const SMALL: Load =
    Load { keys: 50, messages: 6_000, per_second: 100_000, failing: None, retry_after: Duration::from_millis(20) };
const FULL: Load = Load {
    keys: 1_000,
    messages: 60_000,
    per_second: 5_000,
    failing: Some(Duration::from_secs(10)),
    retry_after: Duration::from_millis(500),
};

/// What was sent, and what the work has seen.
struct Seen {
    started: Instant,
    /// The number of the next message of each key that is not done.
    next: Vec<usize>,
    /// What was not the next one of its key, or comes again.
    wrong: Vec<String>,
    tries: usize,
    /// Messages of keys that do not fail.
    others_sent: usize,
    others_done: usize,
    /// These two when the failing keys recovered.
    while_failing: Option<(usize, usize)>,
}

impl Seen {
    fn work(&mut self, message: &ReceivedMessage, load: &Load) -> Outcome {
        let key: usize = message.key().expect("a key").parse().expect("a number");
        let number: usize = message.to_string_lossy().parse().expect("a number");
        if number != self.next[key] || message.redelivery_count() > 0 {
            self.wrong.push(format!("{message:?}: {number} of {key}, not {}", self.next[key]));
        }
        let fails = key % FAILS_ONE_IN == 0;
        if fails && self.while_failing.is_none() {
            self.tries += 1;
            return Outcome::Retry(load.retry_after);
        }
        self.next[key] += 1;
        self.others_done += usize::from(!fails);
        self.note_recovery(load);
        Outcome::Ack
    }

    fn note_recovery(&mut self, load: &Load) {
        let is_over = match load.failing {
            Some(failing) => self.started.elapsed() >= failing,
            None => self.others_done == load.messages / FAILS_ONE_IN * (FAILS_ONE_IN - 1),
        };
        if self.while_failing.is_none() && is_over {
            self.while_failing = Some((self.others_sent, self.others_done));
        }
    }
}

/// The order of each key stays exact, and the others are worked on at 80 % of their rate or more.
pub async fn the_others_go_on(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("failing-keys");
    let builder = client.consumer(&topic, "s").subscription_type(SubscriptionType::KeyShared);
    let mut consumer = subscribed(builder).await;
    let producer = created(client.producer(&topic).batching(false)).await;
    let load = if std::env::var_os("FAILING_KEYS_FULL").is_some() { &FULL } else { &SMALL };
    let seen = Arc::new(Mutex::new(Seen {
        started: Instant::now(),
        next: vec![0; load.keys],
        wrong: Vec::new(),
        tries: 0,
        others_sent: 0,
        others_done: 0,
        while_failing: None,
    }));
    let noting = seen.clone();
    let pool = tokio::spawn(async move {
        let work = move |message: ReceivedMessage| std::future::ready(noting.lock().unwrap().work(&message, load));
        consumer.process_by_key(CONCURRENCY, work).await
    });
    send_all_of(load, &producer, &seen).await;
    let sent_after = seen.lock().unwrap().started.elapsed();
    drained(target, &topic, "s").await;
    let drained_after = seen.lock().unwrap().started.elapsed();
    pool.abort();
    let seen = seen.lock().unwrap();
    assert!(seen.wrong.is_empty(), "{:?}", seen.wrong);
    assert_eq!(seen.next.iter().sum::<usize>(), load.messages, "each is done once");
    let (others_sent, others_done) = seen.while_failing.expect("they have recovered");
    println!(
        "{} sent in {sent_after:?}, all done after {drained_after:?}; while a fifth of the keys failed, {} tries, and of the \
         others {others_done} done of {others_sent} sent",
        load.messages, seen.tries
    );
    assert!(others_done * 10 >= others_sent * 8, "{others_done} of {others_sent}");
}

async fn send_all_of(load: &Load, producer: &Producer, seen: &Mutex<Seen>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let per_tick = load.per_second / 100;
    for number in 0..load.messages {
        if number % per_tick == 0 {
            ticks.tick().await;
        }
        let key = number % load.keys;
        let message = Message::new((number / load.keys).to_string()).with_key(key.to_string());
        drop(within("room", producer.enqueue(message)).await.expect("accepted"));
        let mut seen = seen.lock().unwrap();
        seen.others_sent += usize::from(key % FAILS_ONE_IN != 0);
    }
    within("the receipts", producer.flush()).await.expect("stored");
}
