//! Bytes on their way between the network, the gate, the brokers and the clients, until their connection ends.

use bytes::{Bytes, BytesMut};

use super::World;
use crate::broker::machine::ConnId;
use crate::sim::gate::{Place, Up};
use crate::sim::net::{Direction, NetId};
use crate::wire::frame::{cut, frames};
use crate::wire::tx::TxBuf;

impl World {
    pub(super) fn arrive(&mut self, net: NetId, direction: Direction) {
        let now = self.now.at;
        let moved = self.net.arrive(net, direction, now);
        if moved == 0 {
            return;
        }
        match direction {
            Direction::Up => {
                self.serve_broker(net);
                // There is room in the socket again.
                self.wake_link(net);
            }
            Direction::Down => {
                self.wake_link(net);
                self.push_down(net);
            }
        }
    }

    fn wake_link(&self, net: NetId) {
        let Some(wire) = self.net.get(net) else { return };
        let unit = self.hosts.get(wire.client).and_then(|host| host.units.get(&wire.link));
        if let Some(unit) = unit {
            self.board.wake(*unit);
        }
    }

    fn place(&self, net: NetId) -> Option<(Place, ConnId)> {
        let wire = self.net.get(net)?;
        Some((Place { net, client: wire.client, broker: wire.broker }, wire.conn))
    }

    /// Hands whole frames to the broker, through the gate.
    fn serve_broker(&mut self, net: NetId) {
        let Some((place, conn)) = self.place(net) else { return };
        let limits = self.broker.limits();
        let Some(wire) = self.net.get_mut(net) else { return };
        if wire.broker_gone {
            wire.broker_rx.clear();
            return;
        }
        let run = match cut(&mut wire.broker_rx, &limits) {
            Ok(Some(run)) => run,
            Ok(None) => return,
            Err(error) => return self.violations.note("client speaks the protocol", || error.to_string()),
        };
        for frame in frames(run) {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return self.violations.note("client speaks the protocol", || error.to_string()),
            };
            self.note("up", place.client as u64, || format!("client {} {:?}: {frame:?}", place.client, place.net));
            match self.gate.up(place, frame, self.now.at, &mut self.violations) {
                Up::Forward(frame) => self.broker.handle(conn, frame, self.now),
                Up::Instead(answers) => {
                    let mut out = BytesMut::new();
                    for answer in answers {
                        self.note("instead", place.client as u64, || format!("{:?}: {answer:?}", place.net));
                        answer.encode_frame(&mut out);
                    }
                    self.send_down(net, &out);
                }
            }
            self.gate.check_permits(place, &mut self.violations);
        }
        self.flush_broker();
    }

    /// Bytes for the client, behind what waits already.
    pub(super) fn send_down(&mut self, net: NetId, bytes: &[u8]) {
        if let Some(wire) = self.net.get_mut(net) {
            wire.broker_tx.extend_from_slice(bytes);
        }
        self.push_down(net);
    }

    /// Takes what the broker has to say, through the gate.
    pub(in crate::sim) fn flush_broker(&mut self) {
        loop {
            let ready = self.broker.take_ready();
            if ready.is_empty() {
                break;
            }
            for conn in ready {
                if let Some(net) = self.net.of_conn(conn) {
                    self.push_down(net);
                }
            }
        }
    }

    /// From the broker into the socket, as much as it takes.
    fn push_down(&mut self, net: NetId) {
        let Some((place, conn)) = self.place(net) else { return };
        let now = self.now.at;
        loop {
            let Some(wire) = self.net.get_mut(net) else { return };
            if wire.broker_gone {
                return;
            }
            if wire.broker_tx.is_empty() {
                let mut tx = TxBuf::new();
                self.broker.poll_transmit(conn, &mut tx);
                let bytes = tx.take_all();
                if bytes.is_empty() {
                    break;
                }
                let out = self.pass_down(place, bytes);
                if let Some(wire) = self.net.get_mut(net) {
                    wire.broker_tx.extend_from_slice(&out);
                }
                continue;
            }
            let mut bytes: Bytes = wire.broker_tx.split().freeze();
            let taken = self.net.write(net, Direction::Down, &mut bytes, now);
            if let Some(wire) = self.net.get_mut(net) {
                wire.broker_tx.extend_from_slice(&bytes);
            }
            if taken == 0 {
                break;
            }
        }
        // A broker that closes forgets the connection at once, whatever its socket still holds.
        if self.broker.closing(conn) {
            self.broker.disconnect(conn);
            self.net.finish(net, Direction::Down, now);
            self.gate.forget(net);
            self.flush_broker();
        }
    }

    fn pass_down(&mut self, place: Place, mut bytes: Bytes) -> BytesMut {
        let mut out = BytesMut::new();
        while let Some(size) = bytes.first_chunk().map(|size| u32::from_be_bytes(*size) as usize + 4) {
            let raw = bytes.split_to(size.min(bytes.len()));
            let Some(Ok(frame)) = frames(raw.clone()).next() else { continue };
            self.note("down", place.client as u64, || format!("client {} {:?}: {frame:?}", place.client, place.net));
            self.gate.down(place, &frame, raw, self.now.at, &mut out);
        }
        out
    }

    pub(super) fn break_wire(&mut self, net: NetId) {
        self.broker_lost(net);
        self.client_lost(net);
    }

    pub(super) fn client_lost(&mut self, net: NetId) {
        if let Some(wire) = self.net.get_mut(net) {
            wire.client_eof = true;
            // The rest is read first, where it was not lost with the connection.
            wire.broker_gone = true;
        }
        self.wake_link(net);
        self.net.forget_if_over(net);
    }

    pub(super) fn broker_lost(&mut self, net: NetId) {
        let Some((_, conn)) = self.place(net) else { return };
        self.broker.disconnect(conn);
        self.gate.forget(net);
        if let Some(wire) = self.net.get_mut(net) {
            wire.broker_gone = true;
            if !wire.client_gone {
                wire.client_eof = true;
            }
        }
        self.wake_link(net);
        self.net.forget_if_over(net);
        self.flush_broker();
    }
}
