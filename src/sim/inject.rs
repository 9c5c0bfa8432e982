//! Carries out each fault.

use std::time::Duration;

use super::faults::Fault;
use super::network::{Direction, NetworkEvent, PairId};
use super::proxy::{BROKERS, OpenedKind, Proxy};
use super::world::World;

impl World {
    pub(super) fn inject(&mut self, fault: Fault) {
        self.record_event("fault", 0, || format!("{fault:?}"));
        if self.carry_out(&fault) {
            self.proxy.counts.count(&fault);
        }
    }

    /// Carries a fault out; whether it took effect. One on the next frame is armed, and counted by the proxy when it takes
    /// effect.
    fn carry_out(&mut self, fault: &Fault) -> bool {
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
                (0..BROKERS.len()).for_each(|broker| self.refuse_dials_until(broker, now + duration));
                true
            }
            Fault::DelayDial { by } => {
                self.delay_next_dial(by);
                true
            }
            Fault::Restart { down_for } => self.restart(down_for),
            Fault::LoseBroker => self.lose_broker(),
            Fault::Unload => self.unload_any(false),
            Fault::Transfer => self.unload_any(true),
            Fault::CloseProducer => self.close_any_producer(|_, _| {}),
            Fault::CloseConsumer => self.close_any_consumer(|_, _| {}),
            Fault::RefuseProducers { code, duration } => {
                let until = now + duration;
                self.close_any_producer(|proxy, topic| proxy.refuse_opens(OpenedKind::Producer, topic, code, until))
            }
            Fault::RefuseConsumers { code, duration } => {
                let until = now + duration;
                self.close_any_consumer(|proxy, topic| proxy.refuse_opens(OpenedKind::Consumer, topic, code, until))
            }
            Fault::TakeName => self.take_any_name(),
            Fault::SlowReceipts { by, duration } => {
                self.proxy.slow_receipts = Some((by, now + duration));
                true
            }
            Fault::RedirectLoop { duration } => {
                self.proxy.redirects_until = Some(now + duration);
                true
            }
            Fault::BreakTokens { how, duration } => {
                self.tokens_broken = Some((how, now + duration));
                true
            }
            Fault::ExpireTokens => {
                self.broker.expire_credentials();
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
                self.proxy.arm(fault.clone());
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

    fn restart(&mut self, down_for: Duration) -> bool {
        let broker = self.rng.below(BROKERS.len() as u64) as usize;
        if self.proxy.is_lost(broker) {
            return false;
        }
        let until = self.now.at + down_for;
        self.refuse_dials_until(broker, until);
        for id in self.network.live() {
            if self.network.get(id).is_some_and(|pair| pair.broker == broker) {
                if let Some(pair) = self.network.get_mut(id) {
                    pair.is_faulted = true;
                }
                self.network.events.push((self.now.at, NetworkEvent::Break(id)));
                if let Some(conn) = self.network.get(id).map(|pair| pair.conn) {
                    self.broker.disconnect(conn);
                }
            }
        }
        self.move_topics_of(broker);
        true
    }

    fn lose_broker(&mut self) -> bool {
        let broker = self.rng.below(BROKERS.len() as u64) as usize;
        if !self.proxy.lose(broker) {
            return false;
        }
        for id in self.network.live() {
            let Some(pair) = self.network.get_mut(id).filter(|pair| pair.broker == broker) else { continue };
            pair.broker_closed = true;
            let conn = pair.conn;
            self.network.blackhole(id, Direction::ToBroker);
            self.network.blackhole(id, Direction::ToClient);
            self.broker.disconnect(conn);
        }
        self.move_topics_of(broker);
        true
    }

    fn move_topics_of(&mut self, broker: usize) {
        for topic in self.proxy.topics_of(broker) {
            self.proxy.move_topic(&topic, self.proxy.successor(broker));
            self.broker.unload(&topic);
        }
        self.flush_broker();
    }

    fn unload_any(&mut self, names_new_owner: bool) -> bool {
        let topics = self.broker.topics();
        if topics.is_empty() {
            return false;
        }
        let topic = self.rng.pick(&topics).clone();
        let from = self.proxy.owner(&topic);
        let to = self.proxy.successor(from);
        self.proxy.move_topic(&topic, to);
        if names_new_owner {
            self.broker.transfer(&topic, BROKERS[to]);
        } else {
            self.broker.unload(&topic);
        }
        self.flush_broker();
        true
    }

    /// Closes a producer; `before` is called with its topic.
    fn close_any_producer(&mut self, before: impl FnOnce(&mut Proxy, &str)) -> bool {
        let all = self.broker.connected_producers();
        if all.is_empty() {
            return false;
        }
        let (topic, key, _) = self.rng.pick(&all).clone();
        before(&mut self.proxy, &topic);
        self.broker.close_connected_producer(&topic, key);
        self.flush_broker();
        true
    }

    fn take_any_name(&mut self) -> bool {
        let mut all = self.broker.connected_producers();
        all.retain(|(_, _, name)| self.broker.has_generated(name));
        if all.is_empty() {
            return false;
        }
        let (topic, key, name) = self.rng.pick(&all).clone();
        self.proxy.take_name(&topic, &name);
        self.broker.close_connected_producer(&topic, key);
        self.flush_broker();
        true
    }

    /// Closes a consumer; `before` is called with its topic.
    fn close_any_consumer(&mut self, before: impl FnOnce(&mut Proxy, &str)) -> bool {
        let all = self.broker.connected_consumers();
        if all.is_empty() {
            return false;
        }
        let (topic, key) = self.rng.pick(&all).clone();
        before(&mut self.proxy, &topic);
        self.broker.close_connected_consumer(key);
        self.flush_broker();
        true
    }

    /// Ends the faults that can be ended. Connections that carry nothing stay, for the client to detect; a connection that
    /// lost a receipt and works otherwise is closed, because a client cannot detect that.
    pub(super) fn clear_faults(&mut self) {
        self.proxy.clear_faults();
        self.tokens_broken = None;
        self.allow_dials();
        for id in std::mem::take(&mut self.proxy.lost_receipts) {
            let now = self.now.at;
            self.at(now, super::world::Event::Network(NetworkEvent::Break(id)));
        }
        for id in self.network.live() {
            if self.network.get(id).is_some_and(|pair| pair.is_faulted) {
                self.network.slow_down(id, Direction::ToBroker, Duration::from_millis(1), Duration::ZERO);
                self.network.slow_down(id, Direction::ToClient, Duration::from_millis(1), Duration::ZERO);
            }
        }
    }
}
