//! The consumer's machine.
use std::sync::Arc;

use bytes::Bytes;

use super::control::PeerInfo;
use super::outbox::{More, Op, Outbox, Outcome};
use super::{Deadline, Machine, Now, ReplyTo, Wakes};
use crate::error::Error;
use crate::pb;
use crate::wire::hot::MessageHead;

/// Placeholder.
#[derive(Debug)]
pub struct Consumer {
    topic: Arc<str>,
}
/// Placeholder.
#[derive(Debug)]
pub struct Entry;
#[doc(hidden)]
impl Entry {
    pub fn read(_: MessageHead, _: Bytes) -> Self {
        Self
    }
}
impl Machine for Consumer {
    fn take_dirty(&mut self) -> bool {
        false
    }
}
#[doc(hidden)]
impl Consumer {
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }
    pub fn subscribe_request(&mut self, _: Now) -> pb::CommandSubscribe {
        Default::default()
    }
    pub fn on_attached(&mut self, _: &PeerInfo, _: Now, _: &mut Wakes) {}
    pub fn on_detached(&mut self, _: Now, _: &mut Wakes) {}
    pub fn on_entries(&mut self, _: &mut Vec<Entry>, _: Now, _: &mut Wakes) {}
    pub fn on_active_change(&mut self, _: bool) {}
    pub fn on_end_of_topic(&mut self) {}
    pub fn on_answer(&mut self, _: Op, _: Outcome, _: Now, _: &mut Wakes) {}
    pub fn fail(&mut self, _: Error, _: &mut Wakes) {}
    pub fn close(&mut self, _: Option<ReplyTo<()>>, _: Now, _: &mut Wakes) {}
    pub fn poll_transmit(&mut self, _: &mut Outbox<'_>, _: Now) -> More {
        More::No
    }
    pub fn poll_deadline(&self) -> Option<Deadline> {
        None
    }
    pub fn handle_deadline(&mut self, _: Now, _: &mut Wakes) {}
    pub fn is_finished(&self) -> bool {
        false
    }
    pub fn is_closed_at_broker(&self) -> bool {
        false
    }
}
