//! How each fault is done.

use std::time::Duration;

use super::faults::Fault;
use super::gate::BROKERS;
use super::net::{Direction, NetId};
use super::world::World;

impl World {
    pub(super) fn inject(&mut self, fault: Fault) {
        self.note("fault", 0, || format!("{fault:?}"));
        if fault.is_about_frames() {
            self.gate.arm(fault);
            return;
        }
        if self.do_fault(&fault) {
            self.gate.counts.count(&fault);
        }
    }

    /// Whether there was something to do it to.
    fn do_fault(&mut self, fault: &Fault) -> bool {
        let now = self.now.at;
        match *fault {
            Fault::Drop => self.on_any_wire(|world, net| {
                if let Some(wire) = world.net.get_mut(net) {
                    wire.is_faulted = true;
                }
                world.net.due.push((now, super::net::Due::Break(net)));
            }),
            Fault::HalfOpen(way) => self.on_any_wire(|world, net| world.net.make_hole(net, way)),
            Fault::CutAfter(way, bytes) => self.on_any_wire(|world, net| world.net.cut_after(net, way, bytes)),
            Fault::Freeze(way, time) => self.on_any_wire(|world, net| world.net.freeze(net, way, now + time)),
            Fault::Slow(way, delay, pace) => self.on_any_wire(|world, net| world.net.slow_down(net, way, delay, pace)),
            Fault::RefuseDials(time) => {
                (0..BROKERS.len()).for_each(|broker| self.away(broker, now + time));
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
                self.gate.redirects_until = Some(now + time);
                true
            }
            Fault::ExpireTokens => {
                self.broker.expire_credentials();
                true
            }
            _ => false,
        }
    }

    fn on_any_wire(&mut self, work: impl FnOnce(&mut Self, NetId)) -> bool {
        let live = self.net.live();
        if live.is_empty() {
            return false;
        }
        let net = *self.rng.pick(&live);
        work(self, net);
        true
    }

    fn restart(&mut self, time: Duration) -> bool {
        let broker = self.rng.below(BROKERS.len() as u64) as usize;
        let until = self.now.at + time;
        self.away(broker, until);
        for net in self.net.live() {
            if self.net.get(net).is_some_and(|wire| wire.broker == broker) {
                if let Some(wire) = self.net.get_mut(net) {
                    wire.is_faulted = true;
                }
                self.net.due.push((self.now.at, super::net::Due::Break(net)));
                if let Some(conn) = self.net.get(net).map(|wire| wire.conn) {
                    self.broker.disconnect(conn);
                }
            }
        }
        for topic in self.gate.topics_of(broker) {
            self.gate.move_topic(&topic, (broker + 1) % BROKERS.len());
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
        let from = self.gate.owner(&topic);
        let to = (from + 1) % BROKERS.len();
        self.gate.move_topic(&topic, to);
        if assigned {
            self.broker.transfer(&topic, BROKERS[to]);
        } else {
            self.broker.unload(&topic);
        }
        self.flush_broker();
        true
    }

    fn close_any_producer(&mut self) -> bool {
        let all = self.broker.connected_producers();
        if all.is_empty() {
            return false;
        }
        let (topic, key) = self.rng.pick(&all).clone();
        self.broker.close_connected_producer(&topic, key);
        self.flush_broker();
        true
    }

    fn close_any_consumer(&mut self) -> bool {
        let all = self.broker.connected_consumers();
        if all.is_empty() {
            return false;
        }
        let key = *self.rng.pick(&all);
        self.broker.close_connected_consumer(key);
        self.flush_broker();
        true
    }

    /// Nothing goes wrong any more. What hangs is left for the client to find, but for one thing that it cannot: a
    /// receipt that was lost on a connection that is good otherwise.
    pub(super) fn calm(&mut self) {
        self.gate.calm();
        self.open_ways();
        for net in std::mem::take(&mut self.gate.lossy) {
            let now = self.now.at;
            self.at(now, super::world::Event::Net(super::net::Due::Break(net)));
        }
        for net in self.net.live() {
            if self.net.get(net).is_some_and(|wire| wire.is_faulted) {
                self.net.slow_down(net, Direction::Up, Duration::from_millis(1), 0);
                self.net.slow_down(net, Direction::Down, Duration::from_millis(1), 0);
            }
        }
    }
}
