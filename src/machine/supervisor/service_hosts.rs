//! Which host of a service URL is used, and which are set aside.

use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::service_url::ServiceUrl;
use crate::machine::Now;
use crate::machine::control::{BrokerKey, ClusterId};
use crate::splitmix::SplitMix64;

/// For how long a host of a service URL is set aside after a failure: `initial` at first, twice as long after each further
/// failure in a row, `max` at most. Zero: not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quarantine {
    /// The first time.
    pub initial: Duration,
    /// The longest.
    pub max: Duration,
}

impl Default for Quarantine {
    /// That of the Java client since 4.1: a minute, up to a day.
    fn default() -> Self {
        Self { initial: Duration::from_secs(60), max: Duration::from_secs(24 * 60 * 60) }
    }
}

/// A place where endpoints attach: the cluster of a service URL, or the one that a topic has migrated to. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its number.
    pub(crate) number: u32,
    /// Whose credentials and TLS options are used there.
    pub(crate) cluster: ClusterId,
}

/// A host that has failed, and did not answer since.
#[derive(Debug)]
struct SetAside {
    backoff: Backoff,
    until: Option<Instant>,
}

/// The hosts of a service URL and which of them is used at the moment.
#[derive(Debug)]
pub(crate) struct ServiceHosts {
    url: ServiceUrl,
    place: Place,
    current: usize,
    quarantine: Quarantine,
    /// One for each host.
    set_aside: Vec<Option<SetAside>>,
}

impl ServiceHosts {
    /// Starts with a host chosen by `seed`, so that many clients of one URL spread over its hosts.
    pub(crate) fn new(url: ServiceUrl, place: Place, quarantine: Quarantine, seed: u64) -> Self {
        let hosts = u64::try_from(url.hosts().len()).unwrap_or(1).max(1);
        let current = usize::try_from(seed % hosts).unwrap_or(0);
        let set_aside = url.hosts().iter().map(|_| None).collect();
        Self { url, place, current, quarantine, set_aside }
    }

    /// Where these hosts lead.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.url.hosts().len()
    }

    /// The connection to use now.
    pub(crate) fn key(&self) -> BrokerKey {
        self.key_of(self.current)
    }

    fn key_of(&self, index: usize) -> BrokerKey {
        let (tls, cluster) = (self.url.tls(), self.place.cluster);
        BrokerKey { tls, cluster, ..BrokerKey::of_host(self.url.hosts()[index].clone(), self.url.transport()) }
    }

    /// The connection failed: its host is set aside, and if it is the one in use, the next host that is not set aside takes
    /// over. If all are, that is the next one all the same.
    pub(crate) fn failed(&mut self, key: &BrokerKey, random: &mut SplitMix64, now: Now) {
        if *key != self.key() {
            return;
        }
        self.set_aside(self.current, random, now);
        let count = self.count();
        let mut others = (1..count).map(|step| (self.current + step) % count);
        let usable = others.find(|other| !self.is_set_aside(*other, now));
        if !mutation!(SameHostForever) {
            self.current = usable.unwrap_or((self.current + 1) % count);
        }
    }

    fn set_aside(&mut self, index: usize, random: &mut SplitMix64, now: Now) {
        let Quarantine { initial, max } = self.quarantine;
        if initial.is_zero() || self.count() == 1 {
            return;
        }
        let host =
            self.set_aside[index].get_or_insert_with(|| SetAside { backoff: Backoff::new(initial, max), until: None });
        host.until = now.at.checked_add(host.backoff.next(random));
    }

    fn is_set_aside(&self, index: usize, now: Now) -> bool {
        let host = self.set_aside[index].as_ref();
        host.is_some_and(|host| host.until.is_none_or(|until| until > now.at))
    }

    /// A broker has answered on this connection: the next failure of its host is a first one again.
    pub(crate) fn succeeded(&mut self, key: &BrokerKey) {
        if let Some(index) =
            (0..self.count()).find(|index| self.set_aside[*index].is_some() && self.key_of(*index) == *key)
        {
            self.set_aside[index] = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { number: 0, cluster: ClusterId(0) };

    struct Hosts {
        hosts: ServiceHosts,
        random: SplitMix64,
        now: Now,
    }

    impl Hosts {
        fn new(quarantine: Quarantine) -> Self {
            let url = ServiceUrl::parse("pulsar://a,b,c").expect("good");
            let now = Now { at: Instant::now(), wall_ms: 0 };
            Self { hosts: ServiceHosts::new(url, PLACE, quarantine, 0), random: SplitMix64::new(1), now }
        }

        /// The one in use fails after this many seconds; the next one.
        fn fail_after(&mut self, seconds: u64) -> String {
            self.now.at += Duration::from_secs(seconds);
            self.hosts.failed(&self.hosts.key(), &mut self.random, self.now);
            self.hosts.key().logical.host.to_string()
        }
    }

    #[test]
    fn a_failed_host_makes_way_for_the_next_and_only_once() {
        let mut it = Hosts::new(Quarantine { initial: Duration::ZERO, max: Duration::ZERO });
        let first = it.hosts.key();
        assert_eq!(first.logical.host.as_ref(), "a");
        it.hosts.failed(&first, &mut it.random, it.now);
        it.hosts.failed(&first, &mut it.random, it.now);
        assert_eq!(it.hosts.key().logical.host.as_ref(), "b");
        assert_eq!([it.fail_after(0), it.fail_after(0), it.fail_after(0)], ["c", "a", "b"]);
    }

    #[test]
    fn a_host_is_set_aside_longer_each_time_until_it_answers() {
        let mut it = Hosts::new(Quarantine { initial: Duration::from_secs(60), max: Duration::from_secs(240) });
        assert_eq!(it.fail_after(0), "b", "a is set aside until 60");
        assert_eq!(it.fail_after(50), "c", "b until 110");
        assert_eq!(it.fail_after(20), "a", "which is over at 70; c until 130");
        assert_eq!(it.fail_after(1), "b", "all are set aside, a until 191");
        it.hosts.succeeded(&it.hosts.key());
        assert_eq!(it.fail_after(100), "c", "at 171, a is still set aside; b until 231, as for the first time");
        assert_eq!(it.fail_after(25), "a", "at 196");
    }
}
