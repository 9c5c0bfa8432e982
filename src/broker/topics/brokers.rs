//! The brokers of the cluster that one machine plays, and which of them owns which topic.
//!
//! They share all topics, as real brokers share BookKeeper; a connection belongs to one of them. A LOOKUP goes the way of a
//! cluster with a central load manager:
//!
//! | the topic | asked | answer |
//! | --- | --- | --- |
//! | is owned | any broker | Connect to its owner |
//! | is not | any but the leader | Redirect to the leader |
//! | is not | the leader | its candidate: Connect to itself, or Redirect there, authoritative |
//! | is not | any, authoritative | Connect to itself, which owns it from now on |
//!
//! The leader is the first broker that runs; the candidate is picked by a hash of the name among those that run. Real
//! brokers own bundles of topics; here each topic goes by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::hash::murmur3_32;

/// Brokers of one cluster.
pub(crate) const BROKERS_MAX: usize = 16;

/// Topics whose owner is remembered; further ones stay with their candidate.
const OWNED_MAX: usize = 100_000;

/// One broker.
#[derive(Debug)]
struct Member {
    url: String,
    is_running: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Brokers {
    /// At least one.
    all: Vec<Member>,
    /// By topic or partition.
    owners: BTreeMap<Arc<str>, usize>,
}

/// Where the answer to a LOOKUP sends its client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Directions<'a> {
    /// To the broker that serves the topic.
    Connect(&'a str),
    /// To one that is to be asked next.
    Redirect { url: &'a str, authoritative: bool },
}

impl Brokers {
    /// The URLs in the answers to LOOKUP.
    pub(crate) fn new(first: String) -> Self {
        Self { all: vec![Member { url: first, is_running: true }], owners: BTreeMap::new() }
    }

    pub(crate) fn is_standalone(&self) -> bool {
        self.all.len() == 1
    }

    pub(crate) fn add(&mut self, url: String) {
        self.all.push(Member { url, is_running: true });
    }

    /// Answers a LOOKUP that the broker `asked` got.
    pub(crate) fn look_up(&mut self, asked: usize, topic: &str, authoritative: bool) -> Directions<'_> {
        if self.is_standalone() {
            return Directions::Connect(&self.all[0].url);
        }
        if let Some(owner) = self.owner(topic) {
            return Directions::Connect(&self.all[owner].url);
        }
        let (leader, candidate) = (self.leader(), self.candidate(topic));
        if authoritative || (asked == leader && candidate == asked) {
            self.assign(topic, asked);
            return Directions::Connect(&self.all[asked].url);
        }
        let (next, authoritative) = if asked == leader { (candidate, true) } else { (leader, false) };
        Directions::Redirect { url: &self.all[next].url, authoritative }
    }

    /// The owner of a topic, found now if it has none: what the lookup over HTTP answers, which is that of all brokers.
    pub(crate) fn find_owner(&mut self, topic: &str) -> &str {
        let owner = self.owner(topic).unwrap_or_else(|| self.candidate(topic));
        self.assign(topic, owner);
        &self.all[owner].url
    }

    /// The broker that owns a topic; `None` for one that no LOOKUP was answered for since its owner stopped.
    pub(crate) fn owner(&self, topic: &str) -> Option<usize> {
        let is_full = self.owners.len() >= OWNED_MAX;
        self.owners.get(topic).copied().or_else(|| is_full.then(|| self.candidate(topic)))
    }

    /// Whether requests for a topic are served by this broker.
    pub(crate) fn serves(&self, broker: usize, topic: &str) -> bool {
        self.is_standalone() || self.owner(topic) == Some(broker)
    }

    pub(crate) fn assign(&mut self, topic: &str, to: usize) {
        if self.is_standalone() {
            return;
        }
        if self.owners.len() < OWNED_MAX || self.owners.contains_key(topic) {
            self.owners.insert(Arc::from(topic), to);
        }
    }

    /// Its topics have no owner any more. False if it does not run, or is the last one that does.
    pub(crate) fn stop(&mut self, broker: usize) -> bool {
        let running = self.all.iter().filter(|one| one.is_running).count();
        if running < 2 || !self.is_running(broker) {
            return false;
        }
        self.all[broker].is_running = false;
        self.owners.retain(|_, owner| *owner != broker);
        true
    }

    /// False if it runs, or there is no such broker.
    pub(crate) fn start(&mut self, broker: usize) -> bool {
        let Some(found) = self.all.get_mut(broker).filter(|found| !found.is_running) else { return false };
        found.is_running = true;
        true
    }

    pub(crate) fn is_running(&self, broker: usize) -> bool {
        self.all.get(broker).is_some_and(|found| found.is_running)
    }

    pub(crate) fn url(&self, broker: usize) -> Option<&str> {
        self.all.get(broker).map(|found| found.url.as_str())
    }

    fn leader(&self) -> usize {
        self.all.iter().position(|one| one.is_running).unwrap_or(0)
    }

    fn candidate(&self, topic: &str) -> usize {
        let running: Vec<_> = (0..self.all.len()).filter(|broker| self.is_running(*broker)).collect();
        let at = murmur3_32(topic.as_bytes()) as usize % running.len().max(1);
        running.get(at).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "persistent://public/default/t";

    fn two() -> Brokers {
        let mut brokers = Brokers::new("pulsar://a".to_owned());
        brokers.add("pulsar://b".to_owned());
        brokers
    }

    /// A topic whose candidate is this broker.
    fn topic_of(brokers: &Brokers, candidate: usize) -> String {
        let mut names = (0..).map(|number| format!("{TOPIC}-{number}"));
        names.find(|name| brokers.candidate(name) == candidate).expect("one in two")
    }

    #[test]
    fn a_topic_gets_its_owner_by_the_leader() {
        let mut brokers = two();
        let topic = topic_of(&brokers, 1);
        assert_eq!(brokers.look_up(1, &topic, false), Directions::Redirect { url: "pulsar://a", authoritative: false });
        assert_eq!(brokers.look_up(0, &topic, false), Directions::Redirect { url: "pulsar://b", authoritative: true });
        assert!(!brokers.serves(1, &topic));
        assert_eq!(brokers.look_up(1, &topic, true), Directions::Connect("pulsar://b"));
        assert_eq!(brokers.look_up(0, &topic, false), Directions::Connect("pulsar://b"));
        assert!(brokers.serves(1, &topic) && !brokers.serves(0, &topic));
    }

    #[test]
    fn what_a_stopped_broker_owned_goes_to_one_that_runs() {
        let mut brokers = two();
        let topic = topic_of(&brokers, 0);
        assert_eq!(brokers.look_up(0, &topic, false), Directions::Connect("pulsar://a"));
        assert!(brokers.stop(0) && !brokers.stop(0));
        assert!(!brokers.stop(1), "one has to run");
        assert_eq!(brokers.look_up(1, &topic, false), Directions::Connect("pulsar://b"));
        assert!(brokers.start(0) && !brokers.start(0));
        assert_eq!(brokers.look_up(0, &topic, false), Directions::Connect("pulsar://b"));
    }

    #[test]
    fn one_broker_owns_everything() {
        let mut brokers = Brokers::new("pulsar://a".to_owned());
        assert!(brokers.serves(0, TOPIC));
        assert_eq!(brokers.look_up(0, TOPIC, false), Directions::Connect("pulsar://a"));
        assert!(!brokers.stop(0));
    }
}
