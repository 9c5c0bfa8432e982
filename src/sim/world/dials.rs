//! Dials of the simulated brokers, from the first packet to a connection.

use std::time::{Duration, Instant};

use super::World;
use crate::sim::network::PairId;
use crate::sim::proxy::ADDRESSES;

/// More connections than a client makes in a minute, unless it replaces those that work.
const CONNECTIONS_MAX: u32 = 200;

/// A dial in progress.
pub(in crate::sim) struct Dial {
    pub(in crate::sim) cluster: usize,
    pub(in crate::sim) broker: usize,
    pub(in crate::sim) ends_at: Instant,
    pub(in crate::sim) is_refused: bool,
}

impl World {
    pub(in crate::sim) fn begin_dial(&mut self, client: usize, host: &str) -> Dial {
        let (cluster, broker) = broker_at(host);
        self.record_event("dial", client as u64, || format!("client {client}: {host}"));
        self.forbid_in_audit("no lost wake-up", || format!("client {client} had a dial to begin"));
        self.count_dial(client, (cluster, broker));
        let (now, rng) = (self.now.at, &mut self.rng);
        let takes = self.next_dial_takes.take();
        let takes = takes.unwrap_or_else(|| rng.duration(Duration::from_micros(100), Duration::from_millis(3)));
        let is_refused = self.clusters[cluster].dials_refused_until[broker].is_some_and(|until| until > now);
        Dial { cluster, broker, ends_at: now + takes, is_refused }
    }

    pub(in crate::sim) fn finish_dial(&mut self, client: usize, dial: &Dial) -> PairId {
        let Dial { cluster, broker, .. } = *dial;
        self.failed_dials.remove(&(client, (cluster, broker)));
        self.count_connection(client);
        let conn = self.clusters[cluster].broker.connect(self.now);
        let pair = self.network.open(client, (cluster, conn), broker, self.now.at);
        let address = ADDRESSES[cluster][broker];
        self.record_event("connected", client as u64, || format!("client {client}: {address}, {pair:?}"));
        pair
    }

    /// Checks that the client does not replace its connections again and again.
    fn count_connection(&mut self, client: usize) {
        let now = self.now.at;
        let (count, since) = self.connections_made.entry(client).or_insert((0, now));
        if now - *since > Duration::from_secs(60) {
            (*count, *since) = (0, now);
        }
        *count += 1;
        if *count > CONNECTIONS_MAX {
            self.violations.report("connections without end", || format!("client {client} has made {CONNECTIONS_MAX}"));
        }
    }

    /// Checks that the intervals between failed dials of one broker grow.
    fn count_dial(&mut self, client: usize, broker: (usize, usize)) {
        // What probes a cluster keeps to an interval of its own.
        if self.clusters.len() > 1 {
            return;
        }
        let now = self.now.at;
        let (count, since) = self.failed_dials.entry((client, broker)).or_insert((0, now));
        *count += 1;
        // From 100 ms on, doubling up to 5 s, each at least half of it.
        let (count, lasted) = (*count, now - *since);
        let mut least = Duration::ZERO;
        let mut step = Duration::from_millis(100);
        for _ in 1..count.saturating_sub(1) {
            least += step / 2;
            step = (step * 2).min(Duration::from_secs(5));
        }
        if count > 3 && lasted < least {
            let what = || format!("client {client} dialed broker {} {count} times in {lasted:?}", broker.1);
            self.violations.report("dial back-off", what);
        }
    }
}

/// The cluster and the broker at this host.
fn broker_at(host: &str) -> (usize, usize) {
    let all = ADDRESSES.iter().enumerate();
    let all = all.flat_map(|(cluster, brokers)| brokers.iter().enumerate().map(move |(at, url)| ((cluster, at), url)));
    all.into_iter().find(|(_, url)| url.contains(host)).map_or((0, 0), |(at, _)| at)
}
