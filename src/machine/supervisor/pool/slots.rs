//! Which endpoints hold a connection, and which of them may send a request over it next.

use super::{ConnectionPool, Holder, PooledState};
use crate::machine::control::{BrokerKey, ConnectionId};
use crate::machine::{Deadline, Now};

/// What a holder has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    pub(super) connection: ConnectionId,
    pub(super) state: HolderState,
}

/// What a holder of a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HolderState {
    /// Queued for a slot, with this ticket.
    Queued(u64),
    /// Has a slot: a request of it is on its way.
    Active,
    /// Attached, without a slot.
    Attached,
}

impl ConnectionPool {
    /// Queues `holder` for a slot on the connection to `key`, which is made if there is none. It leaves the one it has.
    pub(crate) fn join(&mut self, key: &BrokerKey, holder: Holder, now: Now) {
        self.leave(holder, now);
        let id = match self.pooled.get(key) {
            Some(&id) => id,
            None => self.make(key.clone(), false, None, now),
        };
        self.enqueue(id, holder);
    }

    pub(super) fn enqueue(&mut self, id: ConnectionId, holder: Holder) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        self.next_ticket += 1;
        connection.holders += 1;
        connection.queue.insert(self.next_ticket, holder);
        self.held.insert(holder, Seat { connection: id, state: HolderState::Queued(self.next_ticket) });
        self.dispatchable.insert(id);
        if connection.state != PooledState::CoolingDown {
            self.deadlines.set(id, None);
        }
    }

    /// The holder needs no connection any more, or another one.
    pub(crate) fn leave(&mut self, holder: Holder, now: Now) {
        let Some(Seat { connection: id, state }) = self.held.remove(&holder) else { return };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.holders -= 1;
        match state {
            HolderState::Queued(ticket) => {
                connection.queue.remove(&ticket);
            }
            HolderState::Active => connection.active -= 1,
            HolderState::Attached => {}
        }
        self.dispatchable.insert(id);
        if connection.holders > 0 {
            return;
        }
        if matches!(connection.state, PooledState::CoolingDown | PooledState::Draining) {
            self.disconnect(id);
        } else {
            let idle = Deadline::after(now, self.config.idle_connection_max, "idle connection");
            self.deadlines.set(id, idle);
        }
    }

    /// The holder is attached: its slot is free again, and it keeps the connection.
    pub(crate) fn on_attached(&mut self, holder: Holder) {
        let Some(seat) = self.held.get_mut(&holder) else { return };
        let Some(connection) = self.connections.get_mut(&seat.connection) else { return };
        if std::mem::replace(&mut seat.state, HolderState::Attached) == HolderState::Active {
            connection.active -= 1;
        }
        self.dispatchable.insert(seat.connection);
    }

    /// The next holder that gets a slot, on a connection that is up.
    pub(crate) fn next_slot(&mut self) -> Option<(ConnectionId, Holder)> {
        while let Some(&id) = self.dispatchable.first() {
            let next = self.connections.get_mut(&id).and_then(|connection| {
                let is_open = matches!(connection.state, PooledState::Up | PooledState::Draining);
                if !is_open || connection.active >= self.config.opens_in_flight_max.max(1) {
                    return None;
                }
                let (_, holder) = connection.queue.pop_first()?;
                connection.active += 1;
                Some(holder)
            });
            if let Some(holder) = next {
                if let Some(seat) = self.held.get_mut(&holder) {
                    seat.state = HolderState::Active;
                }
                return Some((id, holder));
            }
            self.dispatchable.remove(&id);
        }
        None
    }

    /// The connection of a holder.
    pub(crate) fn connection_of(&self, holder: Holder) -> Option<ConnectionId> {
        self.held.get(&holder).map(|seat| seat.connection)
    }

    /// Takes the holders of a connection that ends, in their order. Looks at all holders there are: connections end rarely.
    pub(super) fn take_holders(&mut self, id: ConnectionId) -> Vec<Holder> {
        let mut holders = Vec::new();
        if self.connections.get(&id).is_some_and(|connection| connection.holders > 0) {
            self.held.retain(|holder, seat| {
                let stays = seat.connection != id;
                if !stays {
                    holders.push(*holder);
                }
                stays
            });
        }
        holders
    }
}
