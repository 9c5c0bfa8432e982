//! Carries out each fault.

use std::time::Duration;

use super::clusters::SimCluster;
use super::faults::Fault;
use super::network::{Direction, NetworkEvent, PairId, SocketPair};
use super::proxy::{ADDRESSES, BROKERS, OpenedKind, Proxy};
use super::world::World;

impl World {
    pub(super) fn inject(&mut self, fault: Fault) {
        self.record_event("fault", 0, || format!("{fault:?}"));
        let cluster = match fault {
            Fault::LoseCluster { cluster, .. } if cluster >= self.clusters.len() => return,
            Fault::LoseCluster { cluster, .. } => cluster,
            Fault::NameCluster { cluster: Some(cluster) } if cluster >= self.clusters.len() => return,
            Fault::NameCluster { .. } => 0,
            Fault::Migrate if self.clusters.len() == 1 => return,
            Fault::Migrate => 0,
            _ => self.any_cluster(),
        };
        if self.carry_out(&fault, cluster) {
            self.clusters[cluster].proxy.counts.count(&fault);
        }
    }

    fn any_cluster(&mut self) -> usize {
        match self.clusters.len() {
            1 => 0,
            count => self.rng.below(count as u64) as usize,
        }
    }

    /// Carries a fault out; whether it took effect. One on the next frame is armed, and counted by the proxy when it takes
    /// effect.
    fn carry_out(&mut self, fault: &Fault, cluster: usize) -> bool {
        let now = self.now.at;
        match *fault {
            Fault::Disconnect => self.on_any_pair(|world, id| {
                if let Some(pair) = world.network.get_mut(id) {
                    pair.is_faulted = true;
                }
                world.network.events.push((now, NetworkEvent::Break(id)));
            }),
            Fault::Blackhole { direction } => self.on_any_pair(|world, id| world.network.blackhole(id, direction)),
            Fault::DisconnectAfter { direction, bytes } => {
                self.on_any_pair(|world, id| world.network.disconnect_after(id, direction, bytes))
            }
            Fault::StallReads { direction, duration } => {
                self.on_any_pair(|world, id| world.network.stall_reads(id, direction, now + duration))
            }
            Fault::Slow { direction, latency, per_byte } => {
                self.on_any_pair(|world, id| world.network.slow_down(id, direction, latency, per_byte))
            }
            Fault::RefuseDials { duration } => {
                self.clusters[cluster].dials_refused_until = [Some(now + duration); BROKERS];
                true
            }
            Fault::DelayDial { by } => {
                self.delay_next_dial(by);
                true
            }
            Fault::Restart { down_for } => self.restart(cluster, down_for),
            Fault::LoseCluster { down_for, .. } => self.lose_cluster(cluster, down_for),
            Fault::Migrate => self.migrate(),
            Fault::NameCluster { cluster: named } => {
                self.named_cluster = named;
                true
            }
            Fault::LoseBroker => self.lose_broker(cluster),
            Fault::Unload => self.unload_any(cluster, false),
            Fault::Transfer => self.unload_any(cluster, true),
            Fault::CloseProducer => self.close_any_producer(cluster, |_, _| {}),
            Fault::CloseConsumer => self.close_any_consumer(cluster, |_, _| {}),
            Fault::RefuseProducers { code, duration } => {
                let until = now + duration;
                self.close_any_producer(cluster, |proxy, topic| {
                    proxy.refuse_opens(OpenedKind::Producer, topic, code, until)
                })
            }
            Fault::RefuseConsumers { code, duration } => {
                let until = now + duration;
                self.close_any_consumer(cluster, |proxy, topic| {
                    proxy.refuse_opens(OpenedKind::Consumer, topic, code, until)
                })
            }
            Fault::TakeName => self.take_any_name(cluster),
            Fault::SlowReceipts { by, duration } => {
                self.clusters[cluster].proxy.slow_receipts = Some((by, now + duration));
                true
            }
            Fault::RedirectLoop { duration } => {
                self.clusters[cluster].proxy.redirects_until = Some(now + duration);
                true
            }
            Fault::BreakTokens { how, duration } => {
                self.tokens_broken = Some((how, now + duration));
                true
            }
            Fault::ForgetWatches => {
                self.clusters[cluster].broker.drop_topic_list_watchers();
                true
            }
            Fault::ExpireTokens => {
                self.clusters[cluster].broker.expire_credentials();
                true
            }
            Fault::RefuseRequest { .. }
            | Fault::RefuseSend { .. }
            | Fault::DropRequest
            | Fault::DropResponse
            | Fault::DelayResponse { .. }
            | Fault::DropReceipt
            | Fault::DuplicateReceipt
            | Fault::CorruptDelivery => {
                self.clusters[cluster].proxy.arm(fault.clone());
                false
            }
        }
    }

    fn on_any_pair(&mut self, work: impl FnOnce(&mut Self, PairId)) -> bool {
        let live = self.network.live();
        if live.is_empty() {
            return false;
        }
        let id = *self.rng.pick(&live);
        work(self, id);
        true
    }

    fn restart(&mut self, cluster: usize, down_for: Duration) -> bool {
        let broker = self.rng.below(BROKERS as u64) as usize;
        if self.clusters[cluster].proxy.is_lost(broker) {
            return false;
        }
        self.shut_down(cluster, broker, down_for);
        self.move_topics_of(cluster, broker);
        true
    }

    /// The broker ends its connections, and takes none for a time.
    fn shut_down(&mut self, cluster: usize, broker: usize, down_for: Duration) {
        self.clusters[cluster].dials_refused_until[broker] = Some(self.now.at + down_for);
        for id in self.network.live() {
            let is_its = |pair: &&mut SocketPair| pair.conn.0 == cluster && pair.broker == broker;
            let Some(pair) = self.network.get_mut(id).filter(is_its) else { continue };
            pair.is_faulted = true;
            let conn = pair.conn.1;
            self.network.events.push((self.now.at, NetworkEvent::Break(id)));
            self.clusters[cluster].broker.disconnect(conn);
        }
    }

    fn lose_cluster(&mut self, cluster: usize, down_for: Duration) -> bool {
        (0..BROKERS).for_each(|broker| self.shut_down(cluster, broker, down_for));
        let broker = &mut self.clusters[cluster].broker;
        for topic in broker.topics() {
            broker.unload(&topic);
        }
        self.flush_broker();
        true
    }

    fn migrate(&mut self) -> bool {
        self.clusters[0].broker.migrate(Some(ADDRESSES[1][0]), None);
        self.flush_broker();
        true
    }

    fn lose_broker(&mut self, cluster: usize) -> bool {
        let broker = self.rng.below(BROKERS as u64) as usize;
        if !self.clusters[cluster].proxy.lose(broker) {
            return false;
        }
        for id in self.network.live() {
            let is_its = |pair: &&mut SocketPair| pair.conn.0 == cluster && pair.broker == broker;
            let Some(pair) = self.network.get_mut(id).filter(is_its) else { continue };
            pair.broker_closed = true;
            let conn = pair.conn.1;
            self.network.blackhole(id, Direction::ToBroker);
            self.network.blackhole(id, Direction::ToClient);
            self.clusters[cluster].broker.disconnect(conn);
        }
        self.move_topics_of(cluster, broker);
        true
    }

    fn move_topics_of(&mut self, cluster: usize, broker: usize) {
        let SimCluster { broker: brokers, proxy, .. } = &mut self.clusters[cluster];
        for topic in proxy.topics_of(broker) {
            proxy.move_topic(&topic, proxy.successor(broker));
            brokers.unload(&topic);
        }
        self.flush_broker();
    }

    fn unload_any(&mut self, cluster: usize, names_new_owner: bool) -> bool {
        let SimCluster { broker, proxy, .. } = &mut self.clusters[cluster];
        let topics = broker.topics();
        if topics.is_empty() {
            return false;
        }
        let topic = self.rng.pick(&topics).clone();
        let from = proxy.owner(&topic);
        let to = proxy.successor(from);
        proxy.move_topic(&topic, to);
        if names_new_owner {
            broker.transfer(&topic, proxy.address(to));
        } else {
            broker.unload(&topic);
        }
        self.flush_broker();
        true
    }

    /// Closes a producer; `before` is called with its topic.
    fn close_any_producer(&mut self, cluster: usize, before: impl FnOnce(&mut Proxy, &str)) -> bool {
        let SimCluster { broker, proxy, .. } = &mut self.clusters[cluster];
        let all = broker.connected_producers();
        if all.is_empty() {
            return false;
        }
        let (topic, key, _) = self.rng.pick(&all).clone();
        before(proxy, &topic);
        broker.close_connected_producer(&topic, key);
        self.flush_broker();
        true
    }

    fn take_any_name(&mut self, cluster: usize) -> bool {
        let SimCluster { broker, proxy, .. } = &mut self.clusters[cluster];
        let mut all = broker.connected_producers();
        all.retain(|(_, _, name)| broker.has_generated(name));
        if all.is_empty() {
            return false;
        }
        let (topic, key, name) = self.rng.pick(&all).clone();
        proxy.take_name(&topic, &name);
        broker.close_connected_producer(&topic, key);
        self.flush_broker();
        true
    }

    /// Closes a consumer; `before` is called with its topic.
    fn close_any_consumer(&mut self, cluster: usize, before: impl FnOnce(&mut Proxy, &str)) -> bool {
        let SimCluster { broker, proxy, .. } = &mut self.clusters[cluster];
        let all = broker.connected_consumers();
        if all.is_empty() {
            return false;
        }
        let (topic, key) = self.rng.pick(&all).clone();
        before(proxy, &topic);
        broker.close_connected_consumer(key);
        self.flush_broker();
        true
    }

    /// Ends the faults that can be ended. Connections that carry nothing stay, for the client to detect; a connection that
    /// lost a receipt and works otherwise is closed, because a client cannot detect that.
    pub(super) fn clear_faults(&mut self) {
        self.tokens_broken = None;
        self.allow_dials();
        for cluster in 0..self.clusters.len() {
            let proxy = &mut self.clusters[cluster].proxy;
            proxy.clear_faults();
            for id in std::mem::take(&mut proxy.lost_receipts) {
                let now = self.now.at;
                self.at(now, super::world::Event::Network(NetworkEvent::Break(id)));
            }
        }
        for id in self.network.live() {
            if self.network.get(id).is_some_and(|pair| pair.is_faulted) {
                self.network.slow_down(id, Direction::ToBroker, Duration::from_millis(1), Duration::ZERO);
                self.network.slow_down(id, Direction::ToClient, Duration::from_millis(1), Duration::ZERO);
            }
        }
    }
}
