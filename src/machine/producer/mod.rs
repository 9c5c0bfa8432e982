//! The producer's machine.
use std::sync::Arc;

use super::control::{PeerInfo, Violation};
use super::outbox::{More, Op, Outbox, Outcome};
use super::{Deadline, Machine, Now, ReplyTo, Wakes};
use crate::error::{Error, ServerError};
use crate::pb;
use crate::wire::hot::Receipt;

/// Placeholder.
#[derive(Debug)]
pub struct Producer {
    topic: Arc<str>,
}
/// What the session does after a SEND_ERROR.
#[derive(Debug, PartialEq, Eq)]
pub enum AfterSendError {
    /// Nothing.
    Stay,
    /// Attach it afresh.
    Reattach,
}
#[derive(Debug)]
#[doc(hidden)]
pub struct SealJob;
#[derive(Debug)]
#[doc(hidden)]
pub struct Sealed;
#[doc(hidden)]
impl SealJob {
    pub fn run(self) -> Sealed {
        Sealed
    }
}
impl Machine for Producer {
    fn take_dirty(&mut self) -> bool {
        false
    }
}
#[doc(hidden)]
impl Producer {
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }
    pub fn open_request(&mut self, _: Now) -> pb::CommandProducer {
        Default::default()
    }
    pub fn on_attached(&mut self, _: &pb::CommandProducerSuccess, _: &PeerInfo, _: Now, _: &mut Wakes) {}
    pub fn on_detached(&mut self, _: Now, _: &mut Wakes) {}
    pub fn on_receipts(&mut self, _: &[Receipt], _: &mut Wakes) -> Result<(), Violation> {
        Ok(())
    }
    pub fn on_send_error(&mut self, _: u64, _: ServerError, _: Now, _: &mut Wakes) -> AfterSendError {
        AfterSendError::Stay
    }
    pub fn on_answer(&mut self, _: Op, _: Outcome, _: Now, _: &mut Wakes) {}
    pub fn fail(&mut self, _: Error, _: &mut Wakes) {}
    pub fn close(&mut self, _: Option<ReplyTo<()>>, _: Now, _: &mut Wakes) {}
    pub fn take_seal(&mut self, _: Now) -> Option<SealJob> {
        None
    }
    pub fn put_sealed(&mut self, _: Sealed, _: Now, _: &mut Wakes) {}
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
