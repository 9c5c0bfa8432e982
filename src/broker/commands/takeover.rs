//! PRODUCER and SUBSCRIBE for what another connection holds: a producer name, or an Exclusive subscription.
//!
//! It is taken over only if that connection has ended, which is checked by a PING:
//!
//! ```text
//!   PRODUCER, SUBSCRIBE ──held by another──► PING to the holder, the request waits
//!                                                  │
//!             a frame of the holder in time: Alive │ its connection ends, or stays silent: Gone
//!                                                  ▼
//!                                       the request is decided again
//! ```

use crate::broker::connections::{ConsumerSlot, ProducerSlot};
use crate::broker::ids::{ConnId, ConsumerKey, ProducerKey};
use crate::broker::like::Capability;
use crate::broker::machine::{Broker, BrokerTimer, PendingTakeover};
use crate::wire::command::Command;

/// What is known of the connection that holds the name or subscription of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HolderState {
    /// The request has just come in.
    NotChecked,
    /// It answered the check.
    Alive,
    /// It is gone. By now another connection may hold the same.
    Gone,
}

impl Broker {
    /// Checks whether `holder` is alive before the request is decided. False if that cannot be, or if the release played
    /// makes no such check: the request is decided as if it were.
    pub(super) fn await_takeover(&mut self, conn: ConnId, holder: ConnId, request: Command) -> bool {
        if self.takeovers.is_full() || conn == holder || !self.can(Capability::LivenessCheck) {
            return false;
        }
        let Some(check) = self.start_liveness_check(holder) else { return false };
        match &request {
            Command::Producer(producer) => {
                let key = ProducerKey { conn, id: producer.producer_id };
                self.connections.set_producer(key, ProducerSlot::PendingTakeover);
            }
            Command::Subscribe(subscribe) => {
                let key = ConsumerKey { conn, id: subscribe.consumer_id };
                self.connections.set_consumer(key, ConsumerSlot::PendingTakeover);
            }
            _ => {}
        }
        self.takeovers.push(PendingTakeover { check, holder, conn, request });
        true
    }

    /// Sends a PING, unless a check is under way already; returns the number of the check.
    fn start_liveness_check(&mut self, holder: ConnId) -> Option<u64> {
        let connection = self.connections.get_mut(holder)?;
        if let Some(check) = connection.liveness.check {
            return Some(check);
        }
        let check = self.takeovers.next_check();
        connection.liveness.check = Some(check);
        self.connections.send_ping(holder);
        let after = self.config.connection_liveness_check_timeout;
        self.set_timer(after, BrokerTimer::LivenessCheck { conn: holder, check });
        Some(check)
    }

    /// A frame was received from a connection that was being checked.
    pub(in crate::broker) fn on_holder_alive(&mut self, check: u64) {
        self.decide_takeovers(|takeover| takeover.check == check, HolderState::Alive);
    }

    /// A connection is gone: the takeovers that waited for it are decided.
    pub(in crate::broker) fn on_holder_gone(&mut self, holder: ConnId) {
        self.decide_takeovers(|takeover| takeover.holder == holder, HolderState::Gone);
    }

    /// The time of a liveness check is over. A connection that stayed silent ends, and what it held is free.
    pub(in crate::broker) fn on_holder_silent(&mut self, holder: ConnId, check: u64) {
        let is_silent = self.connections.get(holder).is_some_and(|found| found.liveness.check == Some(check));
        if is_silent {
            self.connections.close(holder);
            self.detach_endpoints(holder);
            self.on_holder_gone(holder);
        }
    }

    /// Serves requests that have waited, unless their client closed the endpoint meanwhile or has disconnected.
    fn decide_takeovers(&mut self, is_decided: impl Fn(&PendingTakeover) -> bool, holder: HolderState) {
        for PendingTakeover { conn, request, .. } in self.takeovers.take(is_decided) {
            match &request {
                Command::Producer(producer) => {
                    let key = ProducerKey { conn, id: producer.producer_id };
                    if self.connections.producer(key) == Some(&ProducerSlot::PendingTakeover) {
                        self.connections.remove_producer(key);
                        self.handle_command(conn, &request, holder);
                    }
                }
                Command::Subscribe(subscribe) => {
                    let key = ConsumerKey { conn, id: subscribe.consumer_id };
                    if self.connections.consumer(key) == Some(&ConsumerSlot::PendingTakeover) {
                        self.connections.remove_consumer(key);
                        self.handle_command(conn, &request, holder);
                    }
                }
                _ => {}
            }
        }
    }
}
