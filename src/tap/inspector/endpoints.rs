//! What a connection's frames do to its producers and consumers.

use std::sync::Arc;
use std::time::Duration;

use super::connection::{Connection, Context};
use super::consumers::{Consumer, ConsumerState};
use super::entry::{self, SentEntry};
use super::observation::{Answered, Endpoint, FrameObservation};
use super::producers::{Producer, ProducerState, Sent, Settled};
use super::requests::{Matched, Request};
use crate::broker::{SentFrame, is_namespace};
use crate::pb::command_ack::AckType;
use crate::pb::{self, command_subscribe::SubType};
use crate::rules::{Rule, Side};
use crate::topic::TopicName;
use crate::wire::command::Command;
use crate::wire::hot::{MessageHead, Receipt, SendHead};

/// Producers, and consumers, that one connection may name; further ones are not known.
const ENDPOINTS_MAX: usize = 20_000;

/// `request_id` of what answers no request.
const NO_REQUEST: u64 = u64::MAX;

/// The data path.
impl Connection {
    pub(super) fn on_send(
        &mut self,
        seen: &mut FrameObservation,
        head: &SendHead,
        entry: &[u8],
        cx: &mut Context<'_, '_>,
    ) {
        let id = head.producer_id;
        seen.endpoint = Some(Endpoint::Producer(id));
        seen.sequence_id = Some(head.sequence_id);
        seen.highest_sequence_id = head.highest_sequence_id.filter(|highest| *highest > head.sequence_id);
        seen.messages = u32::try_from(head.num_messages).unwrap_or(0);
        let Some(producer) = self.producers.get_mut(&id) else {
            if self.is_whole {
                let detail = || format!("SEND for an unknown producer {id}");
                self.condemn(Rule::SendWithoutProducer, cx, detail);
            }
            return;
        };
        seen.topic = Some(Arc::clone(&producer.topic));
        if self.is_whole {
            if let Some((rule, what)) = producer.judge_send(cx.sink.at, cx.config.keep_alive) {
                return self.condemn(rule, cx, || format!("{what} {id}"));
            }
        }
        let is_repeated = judge_entry(seen, producer, head, entry, cx);
        producer.send(head, cx.sink.at, is_repeated && self.is_whole);
        seen.ledger = Some(producer.ledger());
    }

    /// A rule whose breach ends the connection at a broker: what follows is not judged by what came before.
    pub(super) fn condemn(&mut self, rule: Rule, cx: &mut Context<'_, '_>, detail: impl FnOnce() -> String) {
        cx.break_rule(rule, Side::Client, detail);
        self.is_whole = false;
    }

    pub(super) fn on_receipt(&mut self, seen: &mut FrameObservation, receipt: &Receipt, cx: &mut Context<'_, '_>) {
        seen.sequence_id = Some(receipt.sequence_id);
        let highest = receipt.highest_sequence_id;
        seen.highest_sequence_id =
            Some(highest).filter(|highest| *highest > receipt.sequence_id && *highest != u64::MAX);
        seen.message_id = Some((receipt.ledger_id, receipt.entry_id));
        let Some(sent) = self.settle(seen, receipt.producer_id, receipt.sequence_id, false, cx) else { return };
        let is_stored = receipt.entry_id != u64::MAX;
        if sent.is_repeated && is_stored && cx.shared.is_whole {
            let detail =
                || format!("sequence id {} was used before for other bytes, and is stored again", sent.sequence_id);
            cx.break_rule(Rule::SequenceNotGrowing, Side::Client, detail);
        }
    }

    fn settle(
        &mut self,
        seen: &mut FrameObservation,
        id: u64,
        sequence_id: u64,
        is_error: bool,
        cx: &mut Context<'_, '_>,
    ) -> Option<Sent> {
        seen.endpoint = Some(Endpoint::Producer(id));
        let settled = match self.producers.get_mut(&id) {
            Some(producer) => {
                seen.topic = Some(Arc::clone(&producer.topic));
                let settled = producer.settle(sequence_id, is_error);
                seen.ledger = Some(producer.ledger());
                settled
            }
            None => Settled::Unknown,
        };
        let sent = match settled {
            Settled::InOrder(sent) => sent,
            Settled::OutOfOrder(sent) => {
                if self.is_whole {
                    let detail = || format!("sequence id {sequence_id} of producer {id} before earlier ones");
                    cx.break_rule(Rule::ReceiptOutOfOrder, Side::Broker, detail);
                }
                sent
            }
            Settled::Late => return None,
            Settled::Unknown => {
                if self.is_whole {
                    let detail = || format!("sequence id {sequence_id} of producer {id} does not wait for one");
                    cx.break_rule(Rule::ReceiptWithoutSend, Side::Broker, detail);
                }
                return None;
            }
        };
        let after = cx.sink.at.duration_since(sent.at).unwrap_or_default();
        seen.answers = Some(Answered { command: "SEND", after });
        Some(sent)
    }

    pub(super) fn on_message(
        &mut self,
        seen: &mut FrameObservation,
        head: &MessageHead,
        entry: &[u8],
        cx: &mut Context<'_, '_>,
    ) {
        let (id, position) = (head.consumer_id, (head.ledger_id, head.entry_id));
        let delivered = entry::delivered(entry, &head.ack_set);
        seen.endpoint = Some(Endpoint::Consumer(id));
        seen.message_id = Some(position);
        seen.messages = delivered.messages;
        seen.payload_bytes = delivered.payload_bytes;
        seen.redelivery_count = head.redelivery_count;
        let text = || format!("entry {}:{} for consumer {id}", position.0, position.1);
        if delivered.is_damaged {
            cx.break_rule(Rule::Checksum, Side::Broker, text);
        }
        let Some(consumer) = self.consumers.get_mut(&id) else {
            if self.is_whole {
                cx.break_rule(Rule::MessageWithoutConsumer, Side::Broker, text);
            }
            return;
        };
        seen.topic = Some(Arc::clone(&consumer.topic));
        match consumer.state {
            ConsumerState::Live => {}
            ConsumerState::Opening if self.is_whole && consumer.earlier.is_none() => {
                cx.break_rule(Rule::MessageBeforeResponse, Side::Broker, text);
            }
            ConsumerState::Closing => _ = consumer.deliver_late(),
            ConsumerState::ClosedByClient | ConsumerState::Unsubscribed => {
                let has_permit = consumer.deliver_late();
                if self.is_whole && !has_permit {
                    cx.break_rule(Rule::MessageWithoutConsumer, Side::Broker, text);
                }
            }
            _ => {}
        }
        cx.shared.note_delivered(consumer.delivered_index, position.0, position.1);
        if consumer.state == ConsumerState::Live {
            consumer.deliver(position, delivered.messages);
            if self.is_whole && consumer.is_overdrawn() {
                cx.break_rule(Rule::PermitsExceeded, Side::Broker, text);
            }
            seen.ledger = Some(consumer.ledger());
        }
    }
}

/// Judges what a SEND carries. Returns whether its sequence id was used before for other bytes.
fn judge_entry(
    seen: &mut FrameObservation,
    producer: &Producer,
    head: &SendHead,
    entry: &[u8],
    cx: &mut Context<'_, '_>,
) -> bool {
    let (crc32c, payload_bytes, metadata) = match entry::sent(entry) {
        SentEntry::Sound { crc32c, payload_bytes, metadata } => (crc32c, payload_bytes, metadata),
        SentEntry::Truncated => {
            let detail = || "SEND shorter than its headers".to_owned();
            cx.break_rule(Rule::UnreadableFrame, Side::Client, detail);
            return false;
        }
        SentEntry::ChecksumMismatch => {
            cx.break_rule(Rule::Checksum, Side::Client, || format!("sequence id {}", head.sequence_id));
            return false;
        }
    };
    seen.payload_bytes = payload_bytes;
    if producer.state != ProducerState::Live {
        return false;
    }
    let Some(name) = &producer.name else { return false };
    if let Some(metadata) = metadata {
        let is_same = metadata.sequence_id == head.sequence_id
            && metadata.producer_name == &**name
            && metadata.messages == seen.messages;
        if !is_same {
            let detail = || {
                let (id, sent, messages) = (head.producer_id, head.sequence_id, seen.messages);
                let (named, meant) = (metadata.producer_name, metadata.sequence_id);
                format!("SEND {id}:{sent} x {messages}, metadata {named:?}:{meant} x {}", metadata.messages)
            };
            cx.break_rule(Rule::MetadataMismatch, Side::Client, detail);
        }
    }
    let first = head.sequence_id as i64;
    let highest_sequence_id = head.highest_sequence_id.map_or(first, |highest| (highest as i64).max(first));
    let frame = SentFrame { sequence_id: first, highest_sequence_id, crc32c, is_chunk: head.is_chunk };
    !cx.shared.note_sent(producer.history, name, &frame)
}

/// Commands of the client.
impl Connection {
    pub(super) fn on_client_command(
        &mut self,
        seen: &mut FrameObservation,
        command: &Command,
        cx: &mut Context<'_, '_>,
    ) {
        match command {
            Command::Producer(request) => self.on_producer(request, cx),
            Command::Subscribe(request) => self.on_subscribe(request, cx),
            Command::CloseProducer(request) => {
                if let Some(producer) = self.producers.get_mut(&request.producer_id) {
                    producer.closed_by_client();
                }
            }
            Command::CloseConsumer(request) => {
                if let Some(consumer) = self.consumers.get_mut(&request.consumer_id) {
                    consumer.close(ConsumerState::Closing);
                }
            }
            Command::Flow(flow) => self.on_flow(flow, cx),
            Command::Ack(ack) => self.on_ack(ack, cx),
            Command::RedeliverUnacknowledgedMessages(request) => {
                self.check_closed(request.consumer_id, "REDELIVER", cx);
                if let Some(consumer) = self.consumers.get_mut(&request.consumer_id) {
                    consumer.give_back(&request.message_ids);
                }
            }
            Command::Unsubscribe(request) => self.check_closed(request.consumer_id, "UNSUBSCRIBE", cx),
            Command::GetLastMessageId(request) => self.check_closed(request.consumer_id, "GET_LAST_MESSAGE_ID", cx),
            Command::ConsumerStats(request) => self.check_closed(request.consumer_id, "CONSUMER_STATS", cx),
            Command::Seek(request) => {
                self.check_closed(request.consumer_id, "SEEK", cx);
                let is_open = self.consumers.get(&request.consumer_id).is_some_and(Consumer::is_open);
                if is_open && request.message_id.is_none() && request.message_publish_time.is_none() {
                    let detail = || "SEEK without a target".to_owned();
                    cx.break_rule(Rule::IncompleteRequest, Side::Client, detail);
                }
            }
            _ => {}
        }
        if let Some(name) = incomplete(command) {
            self.condemn(Rule::IncompleteRequest, cx, || {
                format!("{name} lacks what it needs, or has it in no usable form")
            });
        }
        self.look_up(seen);
        self.ask(seen, command, cx);
    }

    /// The topic and the ledger of the endpoint that a command names.
    fn look_up(&self, seen: &mut FrameObservation) {
        match seen.endpoint {
            Some(Endpoint::Producer(id)) => {
                let Some(producer) = self.producers.get(&id) else { return };
                seen.topic.get_or_insert_with(|| Arc::clone(&producer.topic));
                seen.ledger = Some(producer.ledger());
            }
            Some(Endpoint::Consumer(id)) => {
                let Some(consumer) = self.consumers.get(&id) else { return };
                seen.topic.get_or_insert_with(|| Arc::clone(&consumer.topic));
                seen.ledger = Some(consumer.ledger());
            }
            _ => {}
        }
    }

    fn ask(&mut self, seen: &FrameObservation, command: &Command, cx: &mut Context<'_, '_>) {
        let (Some(id), Some(response)) = (command.request_id(), command.response_type()) else { return };
        let request = Request {
            command: command.name(),
            response,
            at: cx.sink.at,
            endpoint: seen.endpoint,
            topic: seen.topic.clone(),
        };
        let before = self.requests.ask(id, request);
        // What an answer that cannot be told would have opened looks as if it were not open.
        self.is_whole &= !self.requests.is_forgetful();
        if let Some(before) = before.filter(|_| self.is_whole) {
            let detail = || format!("{} has the id {id} of a {before} that waits", command.name());
            cx.break_rule(Rule::RequestIdReused, Side::Client, detail);
        }
    }

    fn on_producer(&mut self, request: &pb::CommandProducer, cx: &mut Context<'_, '_>) {
        let id = request.producer_id;
        let earlier = self.producers.get(&id).map(|producer| producer.state);
        // One that opens or is open is not opened again.
        if matches!(earlier, Some(ProducerState::Opening | ProducerState::Queued | ProducerState::Live)) {
            return;
        }
        let topic: Arc<str> = request.topic.as_str().into();
        let history = cx.shared.topic(&topic);
        let mut producer = Producer::new(topic, history, request.request_id, cx.shared.kept.share());
        producer.name = request.producer_name.as_deref().map(Arc::from);
        producer.epoch = request.epoch();
        producer.is_chosen = request.user_provided_producer_name();
        if let Some(earlier) = self.producers.remove(&id) {
            producer = producer.reopened(earlier);
        }
        if self.has_room(self.producers.len(), cx) {
            producer.charge();
            self.producers.insert(id, producer);
        }
    }

    fn on_subscribe(&mut self, request: &pb::CommandSubscribe, cx: &mut Context<'_, '_>) {
        let Some(sub_type) = sub_type(request) else {
            return self.condemn(Rule::UnreadableFrame, cx, || "unknown enum value in SUBSCRIBE".to_owned());
        };
        let id = request.consumer_id;
        let earlier = self.consumers.get(&id).map(|consumer| consumer.state);
        if matches!(earlier, Some(ConsumerState::Opening | ConsumerState::Live)) {
            return;
        }
        let topic: Arc<str> = request.topic.as_str().into();
        let index = cx.shared.subscription(&topic, &request.subscription.as_str().into());
        let mut consumer = Consumer::new(topic, Some(sub_type), request.request_id, index, cx.shared.kept.share());
        consumer.earlier = self.consumers.remove(&id).map(|earlier| earlier.state);
        if self.has_room(self.consumers.len(), cx) {
            consumer.charge();
            self.consumers.insert(id, consumer);
        }
    }

    /// Whether one more endpoint can be known besides so many. If not, frames about it cannot be told from those about none.
    fn has_room(&mut self, known: usize, cx: &mut Context<'_, '_>) -> bool {
        let has_room = known < ENDPOINTS_MAX && !cx.shared.kept.is_full();
        self.is_whole &= has_room;
        cx.shared.is_whole &= has_room;
        has_room
    }

    /// A command after a CLOSE_CONSUMER or UNSUBSCRIBE.
    fn check_closed(&self, id: u64, command: &str, cx: &mut Context<'_, '_>) {
        use ConsumerState::{ClosedByClient, Closing, Unsubscribed};
        let state = self.consumers.get(&id).map(|consumer| consumer.state);
        let is_exempt = state == Some(Unsubscribed) && command == "ACK";
        if self.is_whole && !is_exempt && matches!(state, Some(Closing | ClosedByClient | Unsubscribed)) {
            cx.break_rule(Rule::AfterClose, Side::Client, || format!("{command} for consumer {id}"));
        }
    }

    fn on_flow(&mut self, flow: &pb::CommandFlow, cx: &mut Context<'_, '_>) {
        let (id, permits) = (flow.consumer_id, flow.message_permits);
        self.check_closed(id, "FLOW", cx);
        let Some(consumer) = self.consumers.get_mut(&id).filter(|consumer| consumer.is_open()) else { return };
        let is_lost = self.is_whole && consumer.state == ConsumerState::Opening;
        if is_lost {
            let detail = || format!("FLOW for consumer {id} before SUCCESS: lost");
            cx.break_rule(Rule::BeforeResponse, Side::Client, detail);
        }
        let is_valid = (1..=i32::MAX as u32).contains(&permits);
        if is_valid {
            consumer.grant(permits);
        } else if !is_lost {
            self.condemn(Rule::FlowPermits, cx, || format!("{permits} permits"));
        }
    }

    fn on_ack(&mut self, ack: &pb::CommandAck, cx: &mut Context<'_, '_>) {
        let Ok(ack_type) = AckType::try_from(ack.ack_type) else {
            return self.condemn(Rule::UnreadableFrame, cx, || "unknown ack_type".to_owned());
        };
        let id = ack.consumer_id;
        self.check_closed(id, "ACK", cx);
        let is_whole = self.is_whole;
        let Some(consumer) = self.consumers.get_mut(&id).filter(|consumer| consumer.is_open()) else { return };
        if ack_type == AckType::Cumulative {
            let [last] = ack.message_id.as_slice() else {
                let detail = || format!("with {} ids", ack.message_id.len());
                return cx.break_rule(Rule::CumulativeAck, Side::Client, detail);
            };
            if !consumer.is_single_active() {
                let detail = || format!("on {}", consumer.sub_type.map_or("Exclusive", |kind| kind.as_str_name()));
                return cx.break_rule(Rule::CumulativeAck, Side::Client, detail);
            }
            judge_ack(consumer, last, is_whole, cx);
            return consumer.acknowledge_cumulatively(last);
        }
        for acknowledged in &ack.message_id {
            judge_ack(consumer, acknowledged, is_whole, cx);
            consumer.acknowledge(acknowledged);
        }
    }
}

/// The type of a SUBSCRIBE whose enums all have values that exist.
fn sub_type(request: &pb::CommandSubscribe) -> Option<SubType> {
    let position = request.initial_position.map(pb::command_subscribe::InitialPosition::try_from).transpose();
    let mode =
        request.key_shared_meta.as_ref().map(|meta| pb::KeySharedMode::try_from(meta.key_shared_mode)).transpose();
    SubType::try_from(request.sub_type).ok().filter(|_| position.is_ok() && mode.is_ok())
}

/// What a request lacks, or has in a form that nobody can carry out.
fn incomplete(command: &Command) -> Option<&'static str> {
    let is_bad = match command {
        Command::AuthResponse(response) => {
            let data = response.response.as_ref().filter(|data| data.auth_method_name.is_some());
            data.is_none_or(|data| data.auth_data.is_none())
        }
        Command::EndTxn(request) => request.txn_action.is_none(),
        Command::GetTopicsOfNamespace(request) => !is_namespace(&request.namespace),
        Command::WatchTopicList(request) => !is_namespace(&request.namespace),
        Command::GetOrCreateSchema(request) => TopicName::parse(&request.topic).is_err(),
        _ => false,
    };
    is_bad.then(|| command.name())
}

/// Whether what is acknowledged may have been delivered. Nothing is known of entry -1, which is before a ledger, and of topics that
/// store nothing.
fn judge_ack(consumer: &Consumer, id: &pb::MessageIdData, is_whole: bool, cx: &mut Context<'_, '_>) {
    let is_before_ledger = (id.entry_id as i64) < 0;
    let is_transient = consumer.topic.starts_with("non-persistent:");
    let is_live = consumer.state == ConsumerState::Live;
    if !is_whole || !cx.shared.is_whole || is_before_ledger || is_transient || !is_live {
        return;
    }
    let (ledger, entry) = (id.ledger_id, id.entry_id);
    if consumer.holds((ledger, entry)) {
        return;
    }
    let Some(delivered) = cx.shared.delivered(consumer.delivered_index) else { return };
    if !delivered.may_have(ledger, entry) {
        let detail = || format!("{ledger}:{entry} was not delivered");
        cx.break_rule(Rule::AckNotDelivered, Side::Client, detail);
    }
}

/// Commands of the broker.
impl Connection {
    pub(super) fn on_broker_command(
        &mut self,
        seen: &mut FrameObservation,
        command: &Command,
        cx: &mut Context<'_, '_>,
    ) {
        match command {
            Command::SendError(error) => {
                seen.sequence_id = Some(error.sequence_id);
                self.settle(seen, error.producer_id, error.sequence_id, true, cx);
                return;
            }
            Command::CloseProducer(close) => {
                if let Some(producer) = self.producers.get_mut(&close.producer_id) {
                    producer.closed_by_broker(cx.sink.at);
                }
                return self.look_up(seen);
            }
            Command::CloseConsumer(close) => {
                if let Some(consumer) = self.consumers.get_mut(&close.consumer_id) {
                    consumer.close(ConsumerState::ClosedByBroker);
                }
                return self.look_up(seen);
            }
            Command::ActiveConsumerChange(_) | Command::ReachedEndOfTopic(_) | Command::TopicMigrated(_) => {
                return self.look_up(seen);
            }
            _ => {}
        }
        let Some(id) = command.request_id().filter(|id| *id != NO_REQUEST) else { return };
        let is_last = !matches!(command, Command::ProducerSuccess(success) if !success.producer_ready());
        match self.requests.answer(id, command.command_type(), is_last) {
            Matched::Answers(request) => self.on_response(seen, &request, command, cx),
            Matched::Again if self.is_whole => {
                let detail = || format!("{} to request {id}, which is answered", command.name());
                cx.break_rule(Rule::ResponseTwice, Side::Broker, detail);
            }
            Matched::Unknown if self.is_whole => {
                let detail = || format!("{} to request {id}", command.name());
                cx.break_rule(Rule::ResponseToNoRequest, Side::Broker, detail);
            }
            Matched::Again | Matched::Unknown | Matched::Forgotten => {}
        }
    }

    fn on_response(
        &mut self,
        seen: &mut FrameObservation,
        request: &Request,
        command: &Command,
        cx: &mut Context<'_, '_>,
    ) {
        let after = cx.sink.at.duration_since(request.at).unwrap_or(Duration::ZERO);
        seen.answers = Some(Answered { command: request.command, after });
        seen.endpoint = seen.endpoint.or(request.endpoint);
        if seen.topic.is_none() {
            seen.topic.clone_from(&request.topic);
        }
        let is_error = matches!(command, Command::Error(_));
        if !is_error && command.command_type() != request.response as i32 {
            let detail = || format!("{} to a {}", command.name(), request.command);
            cx.break_rule(Rule::WrongResponse, Side::Broker, detail);
            return;
        }
        match request.endpoint {
            Some(Endpoint::Producer(id)) => self.on_producer_response(id, request, command, cx),
            Some(Endpoint::Consumer(id)) => self.on_consumer_response(id, request, command.request_id(), is_error),
            _ => {}
        }
        self.look_up(seen);
    }

    fn on_producer_response(&mut self, id: u64, request: &Request, command: &Command, cx: &mut Context<'_, '_>) {
        let Some(producer) = self.producers.get_mut(&id) else { return };
        let is_opening = matches!(producer.state, ProducerState::Opening | ProducerState::Queued);
        if request.command != "PRODUCER" || command.request_id() != Some(producer.request_id) || !is_opening {
            return;
        }
        let Command::ProducerSuccess(success) = command else {
            // The SENDs that follow have no producer.
            if !producer.refused() {
                self.producers.remove(&id);
            }
            return;
        };
        if !success.producer_ready() {
            producer.state = ProducerState::Queued;
            return;
        }
        producer.state = ProducerState::Live;
        let asked = producer.name.take();
        let name: Arc<str> = success.producer_name.as_str().into();
        producer.name = Some(Arc::clone(&name));
        producer.charge();
        let (history, epoch, is_chosen) = (producer.history, producer.epoch, producer.is_chosen);
        match cx.shared.epoch(history, &name) {
            Some(last) if asked.is_some() && (epoch > 0 || !is_chosen) => {
                cx.shared.raise_epoch(history, &name, epoch);
                if epoch <= last && self.is_whole && cx.shared.is_whole {
                    let detail = || format!("{name}: epoch {epoch} after {last}");
                    cx.break_rule(Rule::EpochNotGrowing, Side::Client, detail);
                }
            }
            _ => cx.shared.start(history, name, epoch),
        }
    }

    fn on_consumer_response(&mut self, id: u64, request: &Request, request_id: Option<u64>, is_error: bool) {
        let Some(consumer) = self.consumers.get_mut(&id) else { return };
        let opened = request_id == Some(consumer.request_id);
        match (request.command, consumer.state) {
            ("SUBSCRIBE", ConsumerState::Opening) if !opened => {}
            // It is as closed as it was before.
            ("SUBSCRIBE", ConsumerState::Opening) if is_error && consumer.refused() => {}
            ("SUBSCRIBE", ConsumerState::Opening) if is_error => {
                self.consumers.remove(&id);
            }
            ("SUBSCRIBE", ConsumerState::Opening) => consumer.state = ConsumerState::Live,
            ("CLOSE_CONSUMER", ConsumerState::Closing) if !is_error => consumer.state = ConsumerState::ClosedByClient,
            ("UNSUBSCRIBE", ConsumerState::Live) if !is_error => consumer.close(ConsumerState::Unsubscribed),
            _ => {}
        }
    }
}
