//! PRODUCER and SUBSCRIBE that wait until it is known whether another connection is alive.
//!
//! A name or an Exclusive subscription that another connection holds is given away only if that connection does not
//! answer a PING in time.

use crate::broker::connections::{ConsumerSlot, ProducerSlot};
use crate::broker::machine::timers::Timer;
use crate::broker::machine::{Broker, ConnId};
use crate::wire::command::Command;

/// Requests that wait at once; one more is answered as if the other side were alive.
const PARKED_MAX: usize = 10_000;

/// A request that waits for a liveness check.
#[derive(Debug)]
pub(crate) struct Parked {
    check: u64,
    target: ConnId,
    conn: ConnId,
    request: Command,
}

impl Broker {
    /// Asks `target` for a sign of life before `request` is decided. False if that cannot be.
    pub(crate) fn park(&mut self, conn: ConnId, target: ConnId, request: Command) -> bool {
        if self.parked.len() >= PARKED_MAX || conn == target {
            return false;
        }
        let Some(connection) = self.conns.get_mut(target) else { return false };
        let check = match connection.liveness_check {
            Some(check) => check,
            None => {
                self.next_check += 1;
                connection.liveness_check = Some(self.next_check);
                self.conns.ping(target);
                if let Some(at) = self.now.at.checked_add(self.config.liveness_check) {
                    self.timers.set(at, Timer::Liveness { target, check: self.next_check });
                }
                self.next_check
            }
        };
        if let Some(connection) = self.conns.get_mut(conn) {
            match &request {
                Command::Producer(producer) => {
                    connection.producers.insert(producer.producer_id, ProducerSlot::Parked);
                }
                Command::Subscribe(subscribe) => {
                    connection.consumers.insert(subscribe.consumer_id, ConsumerSlot::Parked);
                }
                _ => {}
            }
        }
        self.parked.push(Parked { check, target, conn, request });
        true
    }

    /// A frame came from a connection that was being checked.
    pub(crate) fn found_alive(&mut self, check: u64) {
        self.unpark(|parked| parked.check == check, true);
    }

    /// A connection is gone: what waited for it is decided anew.
    pub(crate) fn found_gone(&mut self, target: ConnId) {
        self.unpark(|parked| parked.target == target, false);
    }

    /// A connection stayed silent: it ends, and what it held is free.
    pub(crate) fn found_silent(&mut self, target: ConnId, check: u64) {
        let silent = self.conns.get(target).is_some_and(|connection| connection.liveness_check == Some(check));
        if silent {
            self.conns.close(target);
            self.detach_endpoints(target);
            self.found_gone(target);
        }
    }

    fn unpark(&mut self, which: impl Fn(&Parked) -> bool, alive: bool) {
        let (due, rest) = std::mem::take(&mut self.parked).into_iter().partition(which);
        self.parked = rest;
        let due: Vec<Parked> = due;
        for Parked { conn, request, .. } in due {
            let Some(connection) = self.conns.get_mut(conn) else { continue };
            match request {
                Command::Producer(producer)
                    if connection.producers.get(&producer.producer_id) == Some(&ProducerSlot::Parked) =>
                {
                    connection.producers.remove(&producer.producer_id);
                    self.on_producer(conn, producer, Some(alive));
                }
                Command::Subscribe(subscribe)
                    if connection.consumers.get(&subscribe.consumer_id) == Some(&ConsumerSlot::Parked) =>
                {
                    connection.consumers.remove(&subscribe.consumer_id);
                    self.on_subscribe(conn, subscribe, alive);
                }
                _ => {}
            }
        }
    }
}
