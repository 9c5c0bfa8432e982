//! Many topics that are made and deleted under the patterns of consumers while brokers are killed.
//!
//! Two consumers: one of a namespace that brokers announce the topics of, and one of a namespace whose name is longer than any
//! pattern that a broker takes, so that it asks for the list at an interval. A broker is killed (`kill -9`) and started again
//! while topics are made, the other one while they are deleted: once both are back, each consumer has to have the topics that the
//! brokers have. Then, with the brokers at peace, some more come and some go, which has to be noticed within two seconds where it
//! is announced, else within the interval and the two seconds that attaching may take. What was deleted must not come back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pulsar_native::{Client, Consumer, HandleState, Token, Topics};
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::common::cluster_admin::ClusterAdmin;
use crate::common::within::look_until;
use crate::report::say;

/// The namespaces, and how often their lists are asked for.
const NAMESPACES: [(&str, Duration); 2] =
    [("public/many", Duration::from_secs(3600)), ("public/a-namespace-with-a-name-longer-than-a-pattern", INTERVAL)];
const INTERVAL: Duration = Duration::from_secs(5);
/// Within which a change is noticed that is announced.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);
/// A broker that was killed is back, and what was attached to it.
const SETTLE_MAX: Duration = Duration::from_secs(90);
/// How long deleted topics must stay away.
const QUIET: Duration = Duration::from_secs(10);
const REQUESTS_AT_ONCE: usize = 8;
/// How often a request is repeated while brokers change.
const ASK_EVERY: Duration = Duration::from_millis(100);
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// A consumer, and the topics that it has to have.
struct Side {
    namespace: &'static str,
    noticed_within: Duration,
    consumer: Consumer,
    topics: BTreeSet<String>,
}

struct Run {
    cluster: Cluster,
    sides: Vec<Side>,
    problems: Vec<String>,
}

/// `count`: topics that are there at a time, in each namespace.
pub(crate) async fn run(cluster: Cluster, count: usize) -> bool {
    let mut run = Run { cluster, sides: Vec::new(), problems: Vec::new() };
    let done = run.all_steps(count).await;
    run.problems.extend(done.err());
    let result = if run.problems.is_empty() { "ok" } else { "FAILED" };
    run.problems.iter().for_each(|problem| println!("  {problem}"));
    println!("test topics ... {result}, {count} in each of two namespaces");
    run.problems.is_empty()
}

impl Run {
    async fn all_steps(&mut self, count: usize) -> Result<(), String> {
        let builder = Client::builder(&self.cluster.service_url).authentication(Token::new(&self.cluster.admin.token));
        let builder = builder.keep_alive_interval(KEEP_ALIVE).max_backoff_interval(BACKOFF_MAX);
        let client = builder.connect().await.map_err(crate::text)?;
        for (namespace, period) in NAMESPACES {
            let pattern = Topics::pattern(format!("persistent://{namespace}/t-.*"));
            let builder = client.consumer(pattern, "s").pattern_auto_discovery_period(period);
            let consumer = builder.subscribe().await.map_err(crate::text)?;
            let noticed_within = if period == INTERVAL { INTERVAL + NOTICED_WITHIN } else { NOTICED_WITHIN };
            self.sides.push(Side { namespace, noticed_within, consumer, topics: BTreeSet::new() });
        }
        let few = (count / 20).max(2);
        self.make(0..count / 2).await?;
        self.cluster.broker(1, "kill").await?;
        say("broker 2 is killed while topics are made");
        self.make(count / 2..count - few).await?;
        self.cluster.broker(1, "start").await?;
        self.settles("after those that were made").await;
        self.make(count - few..count).await?;
        self.notices("those that come").await;
        self.delete(0..count / 4).await?;
        self.cluster.broker(0, "kill").await?;
        say("broker 1 is killed while topics are deleted");
        self.delete(count / 4..count / 2).await?;
        self.cluster.broker(0, "start").await?;
        self.settles("after those that were deleted").await;
        self.delete(count / 2..count / 2 + few).await?;
        self.notices("those that go").await;
        self.stays_quiet().await;
        self.nothing_comes_back().await?;
        self.delete(count / 2 + few..count).await?;
        self.notices("the last that go").await;
        self.nothing_comes_back().await?;
        tokio::time::timeout(SETTLE_MAX, client.close())
            .await
            .map_err(|_| "the close does not end")?
            .map_err(crate::text)
    }

    async fn make(&mut self, numbers: std::ops::Range<usize>) -> Result<(), String> {
        self.each(numbers.clone(), "PUT", "", "status 409").await?;
        for side in &mut self.sides {
            let namespace = side.namespace;
            side.topics.extend(numbers.clone().map(|number| name(namespace, number)));
        }
        Ok(())
    }

    async fn delete(&mut self, numbers: std::ops::Range<usize>) -> Result<(), String> {
        self.each(numbers.clone(), "DELETE", "?force=true", "status 404").await?;
        for side in &mut self.sides {
            let namespace = side.namespace;
            let gone: BTreeSet<_> = numbers.clone().map(|number| name(namespace, number)).collect();
            side.topics.retain(|topic| !gone.contains(topic));
        }
        Ok(())
    }

    /// The same request for topics of both namespaces, again and again until it succeeds or has been carried out before:
    /// while a broker dies, that is not known.
    async fn each(&self, numbers: std::ops::Range<usize>, method: &str, query: &str, done: &str) -> Result<(), String> {
        let started = Instant::now();
        let sides = self.sides.iter().map(|side| side.namespace);
        let mut names: Vec<_> = numbers.flat_map(|number| sides.clone().map(move |side| name(side, number))).collect();
        let count = names.len();
        let mut running = JoinSet::new();
        while !names.is_empty() || !running.is_empty() {
            while running.len() < REQUESTS_AT_ONCE {
                let Some(topic) = names.pop() else { break };
                let path = format!("/admin/v2/{}{query}", topic.replacen("://", "/", 1));
                let (admin, method, done) = (self.cluster.admin.clone(), method.to_owned(), done.to_owned());
                running.spawn(async move { until_done(&admin, &method, &path, &done).await });
            }
            if let Some(done) = running.join_next().await {
                done.map_err(|error| error.to_string())??;
            }
        }
        say(format_args!("{method} of {count} topics took {:.1} s", started.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Each consumer comes to have the topics that there are.
    async fn settles(&mut self, what: &str) {
        for side in &self.sides {
            match has(side, SETTLE_MAX).await {
                Ok(took) => say(format_args!("{}: {what}: {:.2} s", side.namespace, took.as_secs_f64())),
                Err(error) => self.problems.push(format!("{what}: {error}")),
            }
        }
    }

    /// The same in time.
    async fn notices(&mut self, what: &str) {
        // Side by side, since the time of each counts from here.
        let [announced, listed] = &self.sides[..] else { return };
        let both = tokio::join!(has(announced, SETTLE_MAX), has(listed, SETTLE_MAX));
        for (side, took) in self.sides.iter().zip([both.0, both.1]) {
            match took {
                Ok(took) if took <= side.noticed_within => {
                    say(format_args!("{}: {what}: {:.2} s", side.namespace, took.as_secs_f64()));
                }
                Ok(took) => self.problems.push(format!("{}: {what}: {took:?}", side.namespace)),
                Err(error) => self.problems.push(format!("{what}: {error}")),
            }
        }
    }

    /// No consumer finds a topic again that was deleted.
    async fn stays_quiet(&mut self) {
        let [announced, listed] = &self.sides[..] else { return };
        let (one, other) = tokio::join!(finds_deleted(announced, QUIET), finds_deleted(listed, QUIET));
        self.problems.extend(one.into_iter().chain(other).map(|topic| format!("{topic} was deleted and is found")));
    }

    /// The brokers have no other topics than those that were made and not deleted.
    async fn nothing_comes_back(&mut self) -> Result<(), String> {
        for side in &self.sides {
            let path = format!("/admin/v2/persistent/{}", side.namespace);
            let list = self.cluster.admin.ask("GET", &path, "").await?;
            let list: BTreeSet<String> = serde_json::from_str(&list).map_err(|error| error.to_string())?;
            let prefix = format!("persistent://{}/t-", side.namespace);
            let list = list.into_iter().filter(|topic| topic.starts_with(&prefix));
            let back: Vec<_> = list.filter(|topic| !side.topics.contains(topic)).collect();
            if !back.is_empty() {
                self.problems.push(format!("{} deleted topics are back: {back:.3?}", back.len()));
            }
        }
        Ok(())
    }
}

fn name(namespace: &str, number: usize) -> String {
    format!("persistent://{namespace}/t-{number:05}")
}

async fn until_done(admin: &ClusterAdmin, method: &str, path: &str, done: &str) -> Result<(), String> {
    let is_done = |answer: &Result<String, String>| answer.as_ref().err().is_none_or(|error| error.contains(done));
    let answer = look_until(SETTLE_MAX, ASK_EVERY, || admin.ask(method, path, ""), is_done).await;
    answer.map_or_else(|last| last.map(drop), |_| Ok(()))
}

/// Waits until the consumer has its topics, all of them attached, and says for how long.
async fn has(side: &Side, limit: Duration) -> Result<Duration, String> {
    let started = Instant::now();
    let mut states = side.consumer.watch_state();
    let all = async {
        while let Some(state) = states.changed().await {
            let is_attached = state.parts.iter().all(|part| part.state.is_attached());
            if is_attached && topics(&state) == side.topics {
                return Ok(started.elapsed());
            }
        }
        Err(format!("{}: the consumer has ended", side.namespace))
    };
    tokio::time::timeout(limit, all).await.unwrap_or_else(|_| {
        let state = side.consumer.state();
        let (parts, attached) = (topics(&state), state.parts.iter().filter(|part| part.state.is_attached()).count());
        let (missing, more) = (side.topics.difference(&parts).count(), parts.difference(&side.topics).count());
        let counts = format!("{missing} are missing, {more} are too many, {attached} are attached");
        Err(format!("{}: of {} topics {counts}", side.namespace, side.topics.len()))
    })
}

/// Watches the consumer for so long; the first topic that it finds and that was deleted.
async fn finds_deleted(side: &Side, time: Duration) -> Option<String> {
    let mut states = side.consumer.watch_state();
    let found = async {
        loop {
            // Without another change nothing is found any more.
            let Some(state) = states.changed().await else { return std::future::pending().await };
            if let Some(back) = topics(&state).into_iter().find(|topic| !side.topics.contains(topic)) {
                return back;
            }
        }
    };
    tokio::time::timeout(time, found).await.ok()
}

fn topics(state: &HandleState) -> BTreeSet<String> {
    state.parts.iter().map(|part| part.topic.to_string()).collect()
}
