//! Carries out each fault.

use std::time::Duration;

use super::faults::Fault;
use super::network::{Direction, NetworkEvent, PairId};
use super::proxy::BROKERS;
use super::world::World;
use crate::broker::machine::Broker;

impl World {
    pub(super) fn inject(&mut self, fault: Fault) {
        self.note("fault", 0, || format!("{fault:?}"));
        if fault.is_about_frames() {
            self.proxy.arm(fault);
            return;
        }
        if self.do_fault(&fault) {
            self.proxy.counts.count(&fault);
        }
    }

    /// Carries the fault out; whether there was a connection, topic or endpoint for it.
    fn do_fault(&mut self, fault: &Fault) -> bool {
        let now = self.now.at;
        match *fault {
            Fault::Drop => self.on_any_pair(|world, id| {
                if let Some(pair) = world.network.get_mut(id) {
                    pair.is_faulted = true;
                }
                world.network.events.push((now, NetworkEvent::Break(id)));
            }),
            Fault::HalfOpen(way) => self.on_any_pair(|world, id| world.network.make_hole(id, way)),
            Fault::CutAfter(way, bytes) => self.on_any_pair(|world, id| world.network.cut_after(id, way, bytes)),
            Fault::Freeze(way, time) => self.on_any_pair(|world, id| world.network.freeze(id, way, now + time)),
            Fault::Slow(way, delay, pace) => {
                self.on_any_pair(|world, id| world.network.slow_down(id, way, delay, pace))
            }
            Fault::RefuseDials(time) => {
                (0..BROKERS.len()).for_each(|broker| self.set_away(broker, now + time));
                true
            }
            Fault::DelayDial(time) => {
                self.delay_next_dial(time);
                true
            }
            Fault::Restart(time) => self.restart(time),
            Fault::Unload(assigned) => self.unload_any(assigned),
            Fault::CloseProducer => self.close_any_producer(),
            Fault::CloseConsumer => self.close_any_consumer(),
            Fault::RedirectLoop(time) => {
                self.proxy.redirects_until = Some(now + time);
                true
            }
            Fault::ExpireTokens => {
                self.broker.expire_identities();
                true
            }
            _ => false,
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

    fn restart(&mut self, time: Duration) -> bool {
        let broker = self.rng.below(BROKERS.len() as u64) as usize;
        let until = self.now.at + time;
        self.set_away(broker, until);
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
        for topic in self.proxy.topics_of(broker) {
            self.proxy.move_topic(&topic, (broker + 1) % BROKERS.len());
            self.broker.unload(&topic);
        }
        self.flush_broker();
        true
    }

    fn unload_any(&mut self, assigned: bool) -> bool {
        let topics = self.broker.topics();
        if topics.is_empty() {
            return false;
        }
        let topic = self.rng.pick(&topics).clone();
        let from = self.proxy.owner(&topic);
        let to = (from + 1) % BROKERS.len();
        self.proxy.move_topic(&topic, to);
        if assigned {
            self.broker.transfer(&topic, BROKERS[to]);
        } else {
            self.broker.unload(&topic);
        }
        self.flush_broker();
        true
    }

    fn close_any_producer(&mut self) -> bool {
        let all: Vec<_> = self
            .broker
            .topics
            .iter()
            .flat_map(|(name, topic)| topic.producers.keys().map(move |key| (name.clone(), *key)))
            .collect();
        if all.is_empty() {
            return false;
        }
        let (topic, key) = self.rng.pick(&all).clone();
        self.broker.close_producer(&topic, key, None);
        self.flush_broker();
        true
    }

    fn close_any_consumer(&mut self) -> bool {
        let mut all = Vec::new();
        for (name, topic) in &self.broker.topics {
            for (subscription, found) in &topic.subscriptions {
                all.extend(found.consumers.iter().map(|consumer| (name.clone(), subscription.clone(), consumer.key)));
            }
        }
        if all.is_empty() {
            return false;
        }
        let (topic, subscription, key) = self.rng.pick(&all).clone();
        self.broker.close_consumer(key, None);
        self.broker.remove_consumer(&topic, &subscription, key);
        self.flush_broker();
        true
    }

    /// Takes back what can be taken back. Connections that hang are left for the client to find, except for one kind that
    /// it cannot: a connection that lost a receipt and is good otherwise breaks.
    pub(super) fn heal(&mut self) {
        self.proxy.heal();
        self.allow_dials();
        for id in std::mem::take(&mut self.proxy.lossy) {
            let now = self.now.at;
            self.at(now, super::world::Event::Network(NetworkEvent::Break(id)));
        }
        for id in self.network.live() {
            if self.network.get(id).is_some_and(|pair| pair.is_faulted) {
                self.network.slow_down(id, Direction::Up, Duration::from_millis(1), 0);
                self.network.slow_down(id, Direction::Down, Duration::from_millis(1), 0);
            }
        }
    }
}

impl Broker {
    /// The token of every connection expires now.
    pub(crate) fn expire_identities(&mut self) {
        let wall_ms = self.now.wall_ms;
        for (_, connection) in self.conns.iter_mut() {
            if let Some(identity) = &mut connection.identity {
                identity.expires_ms = Some(wall_ms);
            }
        }
    }
}
