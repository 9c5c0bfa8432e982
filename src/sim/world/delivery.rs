//! Moves bytes between the network, the proxy, the brokers and the clients, and ends their connections.

use std::task::Waker;

use bytes::{Bytes, BytesMut};

use super::World;
use crate::broker::machine::ConnId;
use crate::sim::network::{ClientEnd, Direction, PairId, SocketPair};
use crate::sim::proxy::{Origin, Upstream};
use crate::wire::frame::{cut, frames};
use crate::wire::tx::TxBuf;

impl World {
    pub(super) fn arrive(&mut self, id: PairId, direction: Direction) {
        let now = self.now.at;
        let moved = self.network.arrive(id, direction, now);
        if moved == 0 {
            return;
        }
        match direction {
            Direction::ToBroker => {
                self.pass_up(id);
                // The client's socket takes bytes again.
                self.wake_client(id, SocketPair::take_writer);
            }
            Direction::ToClient => {
                self.wake_client(id, SocketPair::take_reader);
                self.flush_to_client(id);
            }
        }
    }

    fn wake_client(&mut self, id: PairId, waker: impl FnOnce(&mut SocketPair) -> Option<Waker>) {
        let waker = self.network.get_mut(id).and_then(waker);
        self.wakers.extend(waker);
    }

    fn origin(&self, id: PairId) -> Option<(Origin, ConnId)> {
        let pair = self.network.get(id)?;
        let (cluster, conn) = pair.conn;
        Some((
            Origin { pair: id, is_faulted: pair.is_faulted, client: pair.client, cluster, broker: pair.broker },
            conn,
        ))
    }

    /// Passes the whole frames that have arrived through the proxy to the broker.
    fn pass_up(&mut self, id: PairId) {
        let Some((origin, conn)) = self.origin(id) else { return };
        let limits = self.clusters[origin.cluster].broker.limits();
        let Some(pair) = self.network.get_mut(id) else { return };
        if pair.broker_closed {
            pair.broker_rx.clear();
            return;
        }
        let run = match cut(&mut pair.broker_rx, &limits) {
            Ok(Some(run)) => run,
            Ok(None) => return,
            Err(error) => return self.violations.report("client speaks the protocol", || error.to_string()),
        };
        let mut whole = Vec::new();
        for frame in frames(run) {
            match frame {
                Ok(frame) => whole.push(frame),
                Err(error) => self.violations.report("client speaks the protocol", || error.to_string()),
            }
        }
        #[cfg(pulsar_mutations)]
        let whole = self.mutate_up(origin, whole);
        for frame in whole {
            self.record_event("up", origin.client as u64, || {
                format!("client {} {:?}: {frame:?}", origin.client, origin.pair)
            });
            let cluster = &mut self.clusters[origin.cluster];
            match cluster.proxy.up(origin, frame, self.now.at, &mut self.violations) {
                Upstream::Forward(frame) => cluster.broker.handle(conn, frame, self.now),
                Upstream::Respond(responses) => {
                    let mut out = BytesMut::new();
                    for response in responses {
                        self.record_event("instead", origin.client as u64, || {
                            format!("{:?}: {response:?}", origin.pair)
                        });
                        response.encode_frame(&mut out);
                    }
                    self.send_down(id, &out);
                }
            }
            self.clusters[origin.cluster].proxy.check_permits(origin, &mut self.violations);
        }
        self.flush_broker();
    }

    /// Queues bytes for the client, behind those that are queued already.
    pub(in crate::sim) fn send_down(&mut self, id: PairId, bytes: &[u8]) {
        if let Some(pair) = self.network.get_mut(id) {
            pair.broker_tx.extend_from_slice(bytes);
        }
        self.flush_to_client(id);
    }

    /// Passes what the brokers have to send through the proxy to the network.
    pub(in crate::sim) fn flush_broker(&mut self) {
        for cluster in 0..self.clusters.len() {
            loop {
                let ready = self.clusters[cluster].broker.take_ready();
                if ready.is_empty() {
                    break;
                }
                for conn in ready {
                    if let Some(id) = self.network.of_conn((cluster, conn)) {
                        self.flush_to_client(id);
                    }
                }
            }
        }
    }

    /// Moves bytes from the broker into the socket, as many as it takes.
    fn flush_to_client(&mut self, id: PairId) {
        let Some((origin, conn)) = self.origin(id) else { return };
        let now = self.now.at;
        loop {
            let Some(pair) = self.network.get_mut(id) else { return };
            if pair.broker_closed {
                return;
            }
            if pair.broker_tx.is_empty() {
                let mut tx = TxBuf::new();
                self.clusters[origin.cluster].broker.poll_transmit(conn, &mut tx);
                let bytes = tx.take_all();
                if bytes.is_empty() {
                    break;
                }
                let out = self.pass_down(origin, bytes);
                if let Some(pair) = self.network.get_mut(id) {
                    pair.broker_tx.extend_from_slice(&out);
                }
                continue;
            }
            let mut bytes: Bytes = pair.broker_tx.split().freeze();
            let taken = self.network.write(id, Direction::ToClient, &mut bytes, now);
            if let Some(pair) = self.network.get_mut(id) {
                pair.broker_tx.extend_from_slice(&bytes);
            }
            if taken == 0 {
                break;
            }
        }
        // A broker that closes removes the connection at once, whatever its socket still holds.
        let cluster = &mut self.clusters[origin.cluster];
        if cluster.broker.closing(conn) {
            cluster.broker.disconnect(conn);
            cluster.proxy.forget(id);
            self.network.finish(id, Direction::ToClient, now);
            self.flush_broker();
        }
    }

    fn pass_down(&mut self, origin: Origin, mut bytes: Bytes) -> BytesMut {
        let mut out = BytesMut::new();
        while let Some(size) = bytes.first_chunk().map(|size| u32::from_be_bytes(*size) as usize + 4) {
            let raw = bytes.split_to(size.min(bytes.len()));
            let Some(Ok(frame)) = frames(raw.clone()).next() else { continue };
            self.record_event("down", origin.client as u64, || {
                format!("client {} {:?}: {frame:?}", origin.client, origin.pair)
            });
            self.clusters[origin.cluster].proxy.down(origin, &frame, raw, self.now.at, &mut out);
        }
        #[cfg(pulsar_mutations)]
        let out = self.mutator.down(origin, out);
        out
    }

    /// Sends the frames that the proxy has held back and that are due.
    pub(super) fn release(&mut self, id: PairId) {
        let Some((origin, _)) = self.origin(id) else { return };
        let mut out = BytesMut::new();
        self.clusters[origin.cluster].proxy.release(id, self.now.at, &mut out);
        #[cfg(pulsar_mutations)]
        let out = self.mutator.down(origin, out);
        self.send_down(origin.pair, &out);
    }

    /// The connection breaks: the broker is notified, and the client's socket ends with an error, or as if closed.
    pub(super) fn break_pair(&mut self, id: PairId) {
        let end = if self.rng.chance_per_mille(500) { ClientEnd::Reset } else { ClientEnd::Closed };
        self.end_client(id, end);
        self.on_client_disconnected(id);
        self.on_broker_disconnected(id);
    }

    /// The client is notified that the broker has closed its end. It reads what has arrived first.
    pub(super) fn on_broker_disconnected(&mut self, id: PairId) {
        if let Some(pair) = self.network.get_mut(id) {
            pair.broker_closed = true;
        }
        self.end_client(id, ClientEnd::Closed);
        self.network.remove_if_closed(id);
    }

    /// The broker is notified that the client has closed its end.
    pub(super) fn on_client_disconnected(&mut self, id: PairId) {
        let Some((origin, conn)) = self.origin(id) else { return };
        let cluster = &mut self.clusters[origin.cluster];
        cluster.broker.disconnect(conn);
        cluster.proxy.forget(id);
        if let Some(pair) = self.network.get_mut(id) {
            pair.broker_closed = true;
        }
        self.end_client(id, ClientEnd::Closed);
        self.network.remove_if_closed(id);
        self.flush_broker();
    }

    fn end_client(&mut self, id: PairId, end: ClientEnd) {
        if let Some(pair) = self.network.get_mut(id) {
            pair.end_client(end);
        }
        self.wake_client(id, SocketPair::take_reader);
        self.wake_client(id, SocketPair::take_writer);
    }

    /// The client has dropped its socket.
    pub(in crate::sim) fn close_socket(&mut self, id: PairId) {
        self.network.finish(id, Direction::ToBroker, self.now.at);
        self.network.remove_if_closed(id);
        self.schedule_network();
    }
}
