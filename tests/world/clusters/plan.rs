//! The plan of one world of two clusters.

use std::time::Duration;

use pulsar_native::SubscriptionType;
use pulsar_native::broker::BrokerConfig;
use pulsar_native::sim::{Fault, Rng};

/// What moves the clients from one cluster to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Theme {
    /// `AutoClusterFailover`, as clusters are lost and come back.
    Failover,
    /// What names the cluster to use, as `ControlledClusterFailover` asks it.
    Named,
    /// The application.
    Switches,
    /// The first cluster migrates to the second one.
    Migration,
}

/// A cluster is gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outage {
    pub(super) cluster: usize,
    pub(super) from: Duration,
    pub(super) to: Duration,
}

#[derive(Clone)]
pub(super) struct Plan {
    pub(super) theme: Theme,
    pub(super) brokers: [BrokerConfig; 2],
    pub(super) clients: usize,
    pub(super) topics: Vec<TopicPlan>,
    pub(super) check_interval: Duration,
    pub(super) failover_delay: Duration,
    pub(super) switch_back_delay: Duration,
    pub(super) outages: Vec<Outage>,
    /// From when on which cluster is named, and `None` no one; before, the first.
    pub(super) names: Vec<(Duration, Option<usize>)>,
    /// When each client is moved to which cluster.
    pub(super) switches: Vec<(Duration, usize)>,
    /// Faults that are no outages, and the migration.
    pub(super) faults: Vec<(Duration, Fault)>,
    pub(super) ends_at: Duration,
}

#[derive(Clone)]
pub(super) struct TopicPlan {
    pub(super) name: String,
    pub(super) kind: SubscriptionType,
    pub(super) producers: Vec<ProducerPlan>,
    /// The client of each.
    pub(super) consumers: Vec<usize>,
    pub(super) ack_group_time: Duration,
}

#[derive(Clone)]
pub(super) struct ProducerPlan {
    pub(super) client: usize,
    pub(super) messages: u32,
    pub(super) batching: bool,
    pub(super) send_timeout: Duration,
    pub(super) pace: Duration,
}

const SECOND: Duration = Duration::from_secs(1);

/// An outage, and the time between two, are longer than an interval by this, so that a probe sees each.
const SEEN: Duration = Duration::from_millis(100);

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0xc105_7e25);
        let rng = &mut rng;
        let theme = match rng.below(10) {
            0..=4 => Theme::Failover,
            5..=6 => Theme::Switches,
            _ => Theme::Migration,
        };
        // By a number of its own, so that the other worlds are those that they were before there was this theme.
        let theme = if Rng::new(seed ^ 0x0a3e_d000).chance_per_mille(200) { Theme::Named } else { theme };
        let clients = rng.range_inclusive(1, 2) as usize;
        let topics = (0..rng.range_inclusive(1, 2)).map(|number| TopicPlan::of(rng, number, clients)).collect();
        let check_interval = rng.duration(SECOND, 4 * SECOND);
        let failover_delay = rng.duration(Duration::ZERO, 5 * SECOND);
        let switch_back_delay = rng.duration(Duration::ZERO, 6 * SECOND);
        let mut outages = Vec::new();
        if theme == Theme::Failover {
            let count = rng.range_inclusive(1, 3);
            Self::add_outages(rng, &mut outages, 0, count, check_interval + SEEN);
            let count = rng.below(4).saturating_sub(1);
            Self::add_outages(rng, &mut outages, 1, count, check_interval + SEEN);
        }
        let mut switches = Vec::new();
        if theme == Theme::Switches {
            let count = rng.range_inclusive(1, 6);
            switches.extend((0..count).map(|_| (rng.duration(SECOND, 20 * SECOND), rng.below(2) as usize)));
            switches.sort_unstable();
        }
        let names = if theme == Theme::Named { Self::names(rng, check_interval + SEEN) } else { Vec::new() };
        let mut faults = Self::noise(rng);
        if theme == Theme::Migration {
            // Once every subscription is there: a consumer that comes first later is sent to the other cluster at once.
            faults.push((rng.duration(SECOND, 15 * SECOND), Fault::Migrate));
        }
        let last = outages.iter().map(|outage| outage.to).chain(faults.iter().map(|(at, _)| *at));
        let last = last.chain(switches.iter().map(|(at, _)| *at)).chain(names.iter().map(|(at, _)| *at));
        let last = last.max().unwrap_or_default();
        let ends_at = last + 2 * SECOND;
        let brokers = Self::brokers(rng, theme);
        Self {
            theme,
            brokers,
            clients,
            topics,
            check_interval,
            failover_delay,
            switch_back_delay,
            outages,
            names,
            switches,
            faults,
            ends_at,
        }
    }

    /// With keys of their own, but in a migration: its clients show the same token in both.
    fn brokers(rng: &mut Rng, theme: Theme) -> [BrokerConfig; 2] {
        let tokens = rng.chance_per_mille(500);
        let deduplication = rng.chance_per_mille(300);
        let index_acks = rng.chance_per_mille(700);
        let config = |key: &[u8]| {
            let mut config = BrokerConfig::default();
            config.token_secret_key = tokens.then(|| key.to_vec());
            config.broker_deduplication_enabled = deduplication;
            config.acknowledgment_at_batch_index_level_enabled = index_acks;
            config
        };
        let (first, second) =
            (b"a secret of the first cluster, long enough", b"a secret of the other cluster, long enough");
        [config(first), config(if theme == Theme::Migration { first } else { second })]
    }

    fn add_outages(rng: &mut Rng, outages: &mut Vec<Outage>, cluster: usize, count: u64, least: Duration) {
        let mut from = rng.duration(2 * SECOND, 8 * SECOND);
        for _ in 0..count {
            let (longest, pause) = (*rng.pick(&[2, 8, 15]) * SECOND, *rng.pick(&[1, 6, 12]) * SECOND);
            let to = from + rng.duration(least, least + longest);
            outages.push(Outage { cluster, from, to });
            from = to + rng.duration(least, least + pause);
        }
    }

    /// Each lasts so long that a question sees it, as do some that are no change.
    fn names(rng: &mut Rng, least: Duration) -> Vec<(Duration, Option<usize>)> {
        let mut at = Duration::ZERO;
        let count = rng.range_inclusive(2, 6);
        let named = (0..count).map(|_| {
            at += rng.duration(least, least + 4 * SECOND);
            (at, *rng.pick(&[Some(0), Some(1), Some(1), None]))
        });
        named.collect()
    }

    /// What is named at this time, and since when.
    pub(super) fn named(&self, now: Duration) -> (Duration, Option<usize>) {
        self.names.iter().rfind(|(at, _)| *at <= now).copied().unwrap_or((Duration::ZERO, Some(0)))
    }

    /// None of these ends anything, or refuses a dial.
    fn noise(rng: &mut Rng) -> Vec<(Duration, Fault)> {
        let all = [
            Fault::Disconnect,
            Fault::Disconnect,
            Fault::Unload,
            Fault::Transfer,
            Fault::CloseProducer,
            Fault::CloseConsumer,
            Fault::DropReceipt,
            Fault::DelayResponse { by: 3 * SECOND },
            Fault::DelayResponse { by: SECOND / 20 },
        ];
        let count = if rng.chance_per_mille(500) { rng.range_inclusive(1, 10) } else { 0 };
        (0..count).map(|_| (rng.duration(Duration::ZERO, 25 * SECOND), rng.pick(&all).clone())).collect()
    }

    /// Since when a cluster has been down (`true`) or up at this time.
    pub(super) fn since(&self, cluster: usize, is_down: bool, now: Duration) -> Option<Duration> {
        let mut down = self.outages.iter().filter(|outage| outage.cluster == cluster);
        let current = down.clone().find(|outage| outage.from <= now && now < outage.to);
        match (current, is_down) {
            (Some(outage), true) => Some(outage.from),
            (None, false) => {
                Some(down.by_ref().map(|outage| outage.to).filter(|to| *to <= now).max().unwrap_or_default())
            }
            _ => None,
        }
    }
}

impl TopicPlan {
    fn of(rng: &mut Rng, number: u64, clients: usize) -> Self {
        let any_client = |rng: &mut Rng| rng.below(clients as u64) as usize;
        let kind = *rng.pick(&[SubscriptionType::Exclusive, SubscriptionType::Failover, SubscriptionType::Shared]);
        let consumers = if kind == SubscriptionType::Exclusive { 1 } else { rng.range_inclusive(1, 2) };
        let producers = (0..rng.range_inclusive(1, 2)).map(|_| ProducerPlan {
            client: any_client(rng),
            messages: rng.range_inclusive(10, 40) as u32,
            batching: rng.chance_per_mille(500),
            send_timeout: *rng.pick(&[Duration::ZERO, 30 * SECOND]),
            pace: Duration::from_millis(*rng.pick(&[100, 1000, 2500])),
        });
        Self {
            name: format!("persistent://public/default/t{number}"),
            kind,
            producers: producers.collect(),
            consumers: (0..consumers).map(|_| any_client(rng)).collect(),
            ack_group_time: Duration::from_millis(*rng.pick(&[0, 100, 3000])),
        }
    }
}
