//! Which endpoints hold a connection, and which of them may send a request over it next.

use super::{ConnectionPool, Holder, PooledState};
use crate::machine::control::{BrokerKey, ConnectionId};
use crate::machine::{Deadline, Now};

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
        connection.holders.insert(holder, HolderState::Queued(self.next_ticket));
        connection.queue.insert(self.next_ticket, holder);
        self.held.insert(holder, id);
        self.dispatchable.insert(id);
        if connection.state != PooledState::CoolingDown {
            self.deadlines.set(id, None);
        }
    }

    /// The holder needs no connection any more, or another one.
    pub(crate) fn leave(&mut self, holder: Holder, now: Now) {
        let Some(id) = self.held.remove(&holder) else { return };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match connection.holders.remove(&holder) {
            Some(HolderState::Queued(ticket)) => {
                connection.queue.remove(&ticket);
            }
            Some(HolderState::Active) => connection.active -= 1,
            Some(HolderState::Attached) | None => {}
        }
        self.dispatchable.insert(id);
        if !connection.holders.is_empty() {
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
        let Some(&id) = self.held.get(&holder) else { return };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.holders.insert(holder, HolderState::Attached) == Some(HolderState::Active) {
            connection.active -= 1;
        }
        self.dispatchable.insert(id);
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
                connection.holders.insert(holder, HolderState::Active);
                connection.active += 1;
                Some((id, holder))
            });
            if next.is_some() {
                return next;
            }
            self.dispatchable.remove(&id);
        }
        None
    }

    /// The connection of a holder.
    pub(crate) fn connection_of(&self, holder: Holder) -> Option<ConnectionId> {
        self.held.get(&holder).copied()
    }
}
