//! What the application does with consumers and readers, and with what they receive.

use super::application::Application;
use super::*;
use crate::id::MessagePosition;
use crate::machine::Now;
use crate::machine::consumer::{Chunk, Consumer, ReadTo, ReceivedEntry, ReturnedPermits, Step};
use crate::wire::Metadata;
use crate::wire::entry::EntryError;

impl Application {
    pub(super) fn use_consumer(&mut self, choices: &mut Choices<'_>, network: &mut Network) {
        if self.consumers.is_empty() {
            return;
        }
        let (number, now) = (choices.below(self.consumers.len()), network.now);
        let endpoint = self.consumers[number].endpoint.clone();
        match choices.below(26) {
            0..=5 => self.receive(number, now),
            6..=11 => self.handle_messages(number, choices, network),
            12 => endpoint.with(Consumer::redeliver_unacknowledged_messages),
            13 | 14 => {
                let reply = self.expect("a seek", TIMEOUT, network);
                let to = options::seek(choices);
                endpoint
                    .with_deferred(network.deferred(), |consumer, deferred| consumer.seek(to, reply, now, deferred));
            }
            15 => {
                let reply = self.expect("the last message id", TIMEOUT, network);
                endpoint.with_deferred(network.deferred(), |consumer, deferred| {
                    consumer.last_message_id(reply, now, deferred)
                });
            }
            16 => {
                let reply = self.expect("statistics", TIMEOUT, network);
                endpoint.with_deferred(network.deferred(), |consumer, deferred| {
                    consumer.broker_stats(reply, now, deferred)
                });
            }
            17 => endpoint.with(Consumer::pause),
            18 => endpoint.with(Consumer::resume),
            19 => endpoint.with(Consumer::flush_acks),
            20 if choices.below(3) == 2 => {
                let (force, reply) = (choices.flag(), self.expect("an unsubscribe", TIMEOUT, network));
                endpoint.with_deferred(network.deferred(), |consumer, deferred| {
                    consumer.unsubscribe(force, reply, now, deferred)
                });
            }
            21 if choices.below(2) == 1 => {
                let reply = self.expect("the close of a consumer", 2 * TIMEOUT, network);
                endpoint
                    .with_deferred(network.deferred(), |consumer, deferred| consumer.close(Some(reply), now, deferred));
            }
            22 => self.resize(number, choices),
            23 if choices.below(4) == 3 => {
                endpoint.with_deferred(network.deferred(), Consumer::stop_receiving);
                let is_over = |consumer: &mut Consumer| consumer.is_closing() || consumer.is_finished();
                assert!(endpoint.with(|consumer| consumer.is_stopped() || is_over(consumer)));
            }
            24 => self.expire_chunks(number, now),
            25 => self.acknowledge_any(number, choices, network),
            _ => {
                self.consumers[number].requested += 1;
                endpoint.with(Consumer::request_one);
            }
        }
    }

    fn resize(&mut self, number: usize, choices: &mut Choices<'_>) {
        let part = &mut self.consumers[number];
        let (messages, max) = (choices.below(40) as u32, choices.below(80) as u32);
        if part.size == 0 || messages == 0 {
            return;
        }
        part.size = part.size.max(messages.max(max).into());
        part.endpoint.with(|consumer| consumer.set_receiver_queue_size(messages, max));
    }

    fn receive(&mut self, number: usize, now: Now) {
        let part = &mut self.consumers[number];
        let mut taken = VecDeque::new();
        let none = ReturnedPermits::default();
        let of = part.endpoint.with(|consumer| consumer.take(none, &mut taken));
        part.seek_number = of.seek_number;
        if of.attach_number != part.attach_number {
            part.held.clear();
            part.assembly.clear();
            part.attach_number = of.attach_number;
        }
        for entry in &taken {
            part.endpoint.with(|consumer| {
                consumer.on_given(entry.ledger_id, entry.entry_id, entry.redelivery_count, now);
            });
        }
        part.held.extend(taken);
    }

    /// Acknowledges, or not, and returns permits.
    fn handle_messages(&mut self, number: usize, choices: &mut Choices<'_>, network: &mut Network) {
        let now = network.now;
        for _ in 0..=choices.below(8) {
            let part = &mut self.consumers[number];
            let Some(entry) = part.held.pop_front() else { break };
            let mut position = MessagePosition::new(entry.ledger_id, entry.entry_id);
            if let Some(size) = entry.batch_size().filter(|size| *size > 0) {
                position.batch_size = size as i32;
                position.batch_index = choices.below(256) as i32 % size as i32;
            }
            let endpoint = part.endpoint.clone();
            let permits = ReturnedPermits { attach_number: part.attach_number, count: entry.permits };
            if entry.body.as_ref().is_ok_and(|body| body.is_chunk) {
                self.add_chunk(number, &entry, position, now);
            }
            match choices.below(12) {
                0..=3 => drop(endpoint.with(|consumer| consumer.ack(&position, || now))),
                4 => drop(endpoint.with(|consumer| consumer.ack_cumulative(&position, || now))),
                5 => endpoint.with(|consumer| consumer.nack(&position, entry.redelivery_count, now)),
                6 => {
                    let delay = choices.time();
                    endpoint.with(|consumer| consumer.nack_after(&position, delay, now));
                }
                7 | 8 => {
                    let is_cumulative = choices.flag();
                    let reply = self.expect("a confirmed acknowledgement", TIMEOUT, network);
                    endpoint.with_deferred(network.deferred(), |consumer, deferred| {
                        consumer.ack_confirmed(&[position], is_cumulative, reply, now, deferred);
                    });
                }
                9 => {
                    let part = &self.consumers[number];
                    let read = ReadTo {
                        id: position.into(),
                        seek_number: part.seek_number,
                        attach_number: part.attach_number,
                    };
                    endpoint.with(|consumer| consumer.on_read(read, || now));
                }
                10 => {
                    let error = entry.body.as_ref().err().map_or(EntryError::Decrypt, |error| (**error).clone());
                    endpoint.with(|consumer| consumer.reject(entry.ledger_id, entry.entry_id, &error, permits));
                    // With its permits.
                    continue;
                }
                _ => {}
            }
            endpoint.with(|consumer| consumer.return_permits(permits));
        }
    }

    /// Ids of no message that was received, or several at once.
    fn acknowledge_any(&mut self, number: usize, choices: &mut Choices<'_>, network: &mut Network) {
        let (endpoint, now) = (self.consumers[number].endpoint.clone(), network.now);
        let mut ids = Vec::new();
        for _ in 0..choices.below(5) {
            let mut id = MessagePosition::new(choices.below(3) as u64, choices.number());
            id.batch_index = choices.below(5) as i32 - 1;
            id.batch_size = choices.below(140) as i32;
            ids.push(id);
        }
        let is_cumulative = choices.below(4) == 3;
        for id in &ids {
            let acked = endpoint.with(|consumer| match is_cumulative {
                true => consumer.ack_cumulative(id, || now),
                false => consumer.ack(id, || now),
            });
            if let Err(error) = acked {
                told::check_line(&error);
            }
        }
        let reply = self.expect("a confirmed acknowledgement", TIMEOUT, network);
        endpoint.with_deferred(network.deferred(), |consumer, deferred| {
            consumer.ack_confirmed(&ids, is_cumulative, reply, now, deferred);
        });
    }

    /// A chunk, which may complete a message.
    fn add_chunk(&mut self, number: usize, entry: &ReceivedEntry, position: MessagePosition, now: Now) {
        let part = &mut self.consumers[number];
        let Ok(body) = &entry.body else { return };
        let raw = &entry.raw[body.metadata()];
        let metadata = Metadata::decode(raw).expect("it was read when it arrived");
        let payload = &entry.raw[body.payload(&entry.raw)];
        let chunk = Chunk::of(&metadata, raw, position, payload).expect("it is a chunk");
        let step = part.assembly.add(&Chunk { redelivery_count: entry.redelivery_count, ..chunk }, now.at);
        part.endpoint.with(|consumer| match step {
            Step::Complete(assembled) => {
                if !consumer.on_assembled(&position, &assembled.inner) {
                    consumer.ack_copies(&assembled.inner, now);
                }
            }
            Step::Copies(positions) => consumer.ack_copies(&positions, now),
            Step::Stray => consumer.on_chunks_dropped(&[position], false, now),
            Step::Stored | Step::Known | Step::Invalid | Step::TooLarge => {}
        });
        self.expire_chunks(number, now);
    }

    fn expire_chunks(&mut self, number: usize, now: Now) {
        let part = &mut self.consumers[number];
        part.assembly.expire(now.at);
        let dropped = part.assembly.take_dropped();
        let (expires_at, acknowledges) = (part.assembly.expires_at(), part.acknowledges_incomplete);
        part.endpoint.with(|consumer| {
            dropped.iter().for_each(|dropped| consumer.on_chunks_dropped(&dropped.positions, acknowledges, now));
            consumer.set_chunks_expire_at(expires_at);
        });
    }
}
