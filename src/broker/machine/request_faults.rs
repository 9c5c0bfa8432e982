//! Faults on the frames of clients and on the responses to them.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{Broker, BrokerTimer};
use crate::broker::connections::{ConsumerSlot, ProducerSlot};
use crate::broker::faults::{DeferredFault, FaultEffect, FaultEvent, HostileAct};
use crate::broker::ids::{ConnId, ConsumerKey, NO_REQUEST, ProducerKey};
use crate::broker::topics::WatcherKey;
use crate::error::ServerCode;
use crate::pb::{self, command_lookup_topic_response::LookupType};
use crate::topic::TopicName;
use crate::wire::command::{Command, Refusal};
use crate::wire::frame::Frame;

const REFUSED: &str = "refused by a scripted fault";

/// The producer, consumer or topic list watcher of a frame.
#[derive(Debug, Clone, Copy)]
enum AffectedEndpoint {
    Producer(ProducerKey),
    Consumer(ConsumerKey),
    Watcher(WatcherKey),
}

/// Requests.
impl Broker {
    /// The effect of a fault on a received frame.
    pub(super) fn request_fault(&mut self, conn: ConnId, frame: &Frame) -> Option<FaultEffect> {
        if self.connections.faults.is_idle() {
            return None;
        }
        let topic = self.topic_of(conn, frame);
        let event = FaultEvent::of(frame);
        let scripted = self.connections.faults.take_effect(event, topic.as_deref());
        scripted.or_else(|| self.hostile_fault(conn, event, frame))
    }

    fn hostile_fault(&mut self, conn: ConnId, event: Option<FaultEvent>, frame: &Frame) -> Option<FaultEffect> {
        let command = if let Frame::Other(command) = frame { Some(command) } else { None };
        match self.connections.faults.hostile_act(conn, event, command)? {
            HostileAct::Effect(effect) => Some(effect),
            HostileAct::SendFirst(bytes) => {
                self.connections.send_raw(conn, &bytes);
                None
            }
            HostileAct::Break(bytes) => {
                self.connections.send_raw(conn, &bytes);
                self.connections.close(conn);
                Some(FaultEffect::DropRequest)
            }
        }
    }

    /// Handles a frame on which a fault takes effect: instead of it, on its response, or after it.
    pub(super) fn handle_with_fault(&mut self, conn: ConnId, frame: Frame, effect: FaultEffect) {
        match effect {
            FaultEffect::DropRequest => {}
            FaultEffect::RespondWith { bytes } => self.connections.send_raw(conn, &bytes),
            FaultEffect::RefuseRequest { code } => self.refuse(conn, &frame, code),
            FaultEffect::Redirect { url, authoritative } => match frame {
                Frame::Other(Command::Lookup(request)) => self.redirect(conn, request.request_id, url, authoritative),
                other => self.handle_frame(conn, other),
            },
            FaultEffect::DropResponse
            | FaultEffect::DelayResponse { .. }
            | FaultEffect::DuplicateResponse
            | FaultEffect::ReverseResponses { .. } => {
                let queued = self.connections.queued_bytes(conn);
                self.handle_frame(conn, frame);
                let responses = self.connections.take_responses(conn, queued);
                self.send_responses_with_fault(conn, responses, &effect);
            }
            FaultEffect::Close { url } => {
                let endpoint = endpoint_of(conn, &frame);
                self.handle_frame(conn, frame);
                if let Some(endpoint) = endpoint {
                    self.close_endpoint(endpoint, url.as_deref());
                }
            }
            FaultEffect::Disconnect => {
                self.handle_frame(conn, frame);
                self.connections.cut(conn);
            }
        }
    }

    fn redirect(&mut self, conn: ConnId, request_id: u64, url: String, authoritative: bool) {
        let (plain, tls) = if url.starts_with("pulsar+ssl:") { (None, Some(url)) } else { (Some(url), None) };
        let response = pb::CommandLookupTopicResponse {
            broker_service_url: plain,
            broker_service_url_tls: tls,
            response: Some(LookupType::Redirect.into()),
            request_id,
            authoritative: Some(authoritative),
            ..Default::default()
        };
        self.connections.send(conn, response);
    }

    fn send_responses_with_fault(&mut self, conn: ConnId, responses: Bytes, effect: &FaultEffect) {
        if responses.is_empty() {
            return;
        }
        match effect {
            FaultEffect::DelayResponse { by } => self.send_later(conn, responses, *by),
            FaultEffect::DuplicateResponse => {
                self.connections.send_raw(conn, &responses);
                self.connections.send_raw(conn, &responses);
            }
            FaultEffect::ReverseResponses { count } => {
                for (conn, response) in self.connections.faults.hold(conn, responses, *count) {
                    self.connections.send_raw(conn, &response);
                }
            }
            _ => {}
        }
    }

    fn send_later(&mut self, conn: ConnId, bytes: Bytes, by: Duration) {
        self.set_timer(by, BrokerTimer::DelayedByFault { conn, bytes });
    }

    fn refuse(&mut self, conn: ConnId, frame: &Frame, code: ServerCode) {
        let error = code.0;
        let command = match frame {
            Frame::Send { head, .. } => {
                return self.send_error(conn, head, Refusal { code: error, message: REFUSED.to_owned() });
            }
            Frame::Other(command) => command,
            _ => return,
        };
        if let Command::Connect(_) | Command::AuthResponse(_) = command {
            let message = REFUSED.to_owned();
            self.connections.send(conn, pb::CommandError { request_id: NO_REQUEST, error, message });
            return self.connections.close(conn);
        }
        let refusal = Refusal { code: error, message: REFUSED.to_owned() };
        let Some(response) = command.refused(&refusal) else { return };
        self.connections.send(conn, response);
    }
}

/// Frames that the broker sends on its own.
impl Broker {
    /// Sends a WATCH_TOPIC_UPDATE about a topic, with the effect that a fault has on it.
    pub(in crate::broker) fn send_topic_list_update(
        &mut self,
        conn: ConnId,
        name: &TopicName,
        update: pb::CommandWatchTopicUpdate,
    ) {
        let effect = self.connections.faults.take_effect(Some(FaultEvent::TopicListUpdate), Some(name.as_str()));
        let (queued, watcher) = (self.connections.queued_bytes(conn), WatcherKey { conn, id: update.watcher_id });
        self.connections.send(conn, update);
        match effect {
            None | Some(FaultEffect::RefuseRequest { .. } | FaultEffect::Redirect { .. }) => {}
            Some(FaultEffect::Close { .. }) => self.watchers.remove(watcher),
            Some(FaultEffect::Disconnect) => self.connections.cut(conn),
            Some(FaultEffect::RespondWith { bytes }) => {
                self.connections.take_responses(conn, queued);
                self.connections.send_raw(conn, &bytes);
            }
            Some(effect) => {
                let update = self.connections.take_responses(conn, queued);
                self.send_responses_with_fault(conn, update, &effect);
            }
        }
    }

    /// Runs what faults on deliveries have deferred.
    pub(super) fn run_deferred_faults(&mut self) {
        while let Some(fault) = self.connections.faults.next_deferred() {
            match fault {
                DeferredFault::SendLater { conn, bytes, by } => self.send_later(conn, bytes, by),
                DeferredFault::CloseConsumer { key, url } => self.evict_consumer(key, url.as_deref()),
                DeferredFault::Disconnect { conn } => self.connections.cut(conn),
            }
        }
    }
}

/// Limits on bytes, across frames and connections.
impl Broker {
    /// Drops the received bytes behind the last one of a limit; true if the connection is to end behind that byte.
    pub(super) fn inject_into_received(&mut self, rx: &mut BytesMut) -> bool {
        let last = self.connections.faults.end_received(rx.len());
        if let Some(last) = last {
            rx.truncate(last);
        }
        last.is_some()
    }

    /// Drops the output behind the last byte of a limit, and ends the connection.
    pub(super) fn inject_into_sent(&mut self, conn: ConnId, out: &mut Bytes) {
        if let Some(last) = self.connections.faults.end_sent(out.len()) {
            out.truncate(last);
            self.connections.cut(conn);
        }
    }
}

/// The endpoint and topic of a frame.
impl Broker {
    fn close_endpoint(&mut self, endpoint: AffectedEndpoint, url: Option<&str>) {
        match endpoint {
            AffectedEndpoint::Producer(key) => {
                if let Some(ProducerSlot::Live { topic, .. }) = self.connections.producer(key) {
                    let topic = Arc::clone(topic);
                    self.close_producer(&topic, key, url);
                }
            }
            AffectedEndpoint::Consumer(key) => self.evict_consumer(key, url),
            AffectedEndpoint::Watcher(key) => self.watchers.remove(key),
        }
    }

    /// The topic that a frame names, or that of its producer or consumer.
    fn topic_of(&self, conn: ConnId, frame: &Frame) -> Option<Arc<str>> {
        if let Frame::Other(command) = frame {
            let named = match command {
                Command::PartitionedMetadata(request) => Some(&request.topic),
                Command::Lookup(request) => Some(&request.topic),
                Command::Producer(request) => Some(&request.topic),
                Command::Subscribe(request) => Some(&request.topic),
                _ => None,
            };
            if let Some(named) = named {
                return TopicName::parse(named).ok().map(|name| Arc::from(name.as_str()));
            }
        }
        match endpoint_of(conn, frame)? {
            AffectedEndpoint::Producer(key) => self.connections.producer(key)?.topic().map(Arc::clone),
            AffectedEndpoint::Consumer(key) => {
                self.connections.consumer(key).and_then(ConsumerSlot::subscription).map(|(topic, _)| topic)
            }
            AffectedEndpoint::Watcher(_) => None,
        }
    }
}

fn endpoint_of(conn: ConnId, frame: &Frame) -> Option<AffectedEndpoint> {
    let producer = |id| Some(AffectedEndpoint::Producer(ProducerKey { conn, id }));
    let consumer = |id| Some(AffectedEndpoint::Consumer(ConsumerKey { conn, id }));
    let watcher = |id| Some(AffectedEndpoint::Watcher(WatcherKey { conn, id }));
    match frame {
        Frame::Send { head, .. } => producer(head.producer_id),
        Frame::Other(command) => match command {
            Command::Producer(request) => producer(request.producer_id),
            Command::CloseProducer(request) => producer(request.producer_id),
            Command::Subscribe(request) => consumer(request.consumer_id),
            Command::CloseConsumer(request) => consumer(request.consumer_id),
            Command::Unsubscribe(request) => consumer(request.consumer_id),
            Command::Flow(request) => consumer(request.consumer_id),
            Command::Ack(request) => consumer(request.consumer_id),
            Command::RedeliverUnacknowledgedMessages(request) => consumer(request.consumer_id),
            Command::Seek(request) => consumer(request.consumer_id),
            Command::GetLastMessageId(request) => consumer(request.consumer_id),
            Command::ConsumerStats(request) => consumer(request.consumer_id),
            Command::WatchTopicList(request) => watcher(request.watcher_id),
            Command::WatchTopicListClose(request) => watcher(request.watcher_id),
            _ => None,
        },
        _ => None,
    }
}
