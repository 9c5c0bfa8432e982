//! The producer as an endpoint: what the session and the supervisor ask of it. The methods lie in the files of their
//! subjects; those of the same name are called by their path, `Producer::fail(self, ..)`.

use std::sync::Arc;
use std::time::Duration;

use super::{Producer, SealJob, Sealed};
use crate::error::{Error, ServerError};
use crate::machine::connection::error::RequestError;
use crate::machine::connection::peer::PeerInfo;
use crate::machine::endpoint::attach_status::AttachStatus;
use crate::machine::endpoint::machine::{AfterNotification, DataRoute, Dirty, EndpointMachine, EndpointStats};
use crate::machine::endpoint::outbox::{More, Op, Outbox, Response};
use crate::machine::{Deadline, Deferred, Endpoint, Now, ReplyTo};
use crate::wire::command::Command;

impl EndpointMachine for Producer {
    type Job = SealJob;
    type Done = Sealed;

    fn subject(&self) -> Arc<str> {
        self.topic().clone()
    }

    fn open_description(&self) -> &'static str {
        "the creation of the producer"
    }

    fn stats(&self) -> EndpointStats {
        EndpointStats::Producer(Box::new(Self::stats(self)))
    }

    fn send_timeout(&self) -> Option<Duration> {
        Producer::send_timeout(self)
    }

    fn is_in_use(&self) -> bool {
        Producer::is_in_use(self)
    }

    fn take_dirty(&mut self) -> Dirty {
        std::mem::take(&mut self.dirty)
    }

    fn open_request(&mut self, peer: &PeerInfo, now: Now) -> Result<Command, RequestError> {
        self.note_broker(peer);
        Ok(Producer::open_request(self, now).into())
    }

    fn on_attached(&mut self, response: &Command, peer: &PeerInfo, now: Now, deferred: &mut Deferred) {
        // PRODUCER is answered by PRODUCER_SUCCESS only, see the table of commands.
        if let Command::ProducerSuccess(opened) = response {
            Producer::on_attached(self, opened, peer, now, deferred);
        }
    }

    fn on_cluster_changed(&mut self, _deferred: &mut Deferred) {
        Producer::on_cluster_changed(self);
    }

    fn on_detached(&mut self, now: Now, deferred: &mut Deferred) {
        Producer::on_detached(self, now, deferred);
    }

    fn on_attach_failed(&mut self, error: &Error, now: Now, deferred: &mut Deferred) {
        Producer::on_attach_failed(self, error, now, deferred);
    }

    fn attach_status(&mut self) -> &mut AttachStatus {
        &mut self.attach_status
    }

    fn on_response(&mut self, op: Op, response: Response, now: Now, deferred: &mut Deferred) {
        Producer::on_response(self, op, response, now, deferred);
    }

    fn on_notification(&mut self, command: Command, now: Now, deferred: &mut Deferred) -> AfterNotification {
        match command {
            Command::SendError(refused) => {
                let error = ServerError::new(refused.error, refused.message);
                self.on_send_error(refused.sequence_id, error, now, deferred)
            }
            // `producer_ready = false`: it waits for exclusive access, and the answer to its request is to come.
            Command::ProducerSuccess(_) => {
                self.on_queued();
                AfterNotification::Stay
            }
            _ => AfterNotification::Stay,
        }
    }

    fn take_job(&mut self, now: Now) -> Option<SealJob> {
        Producer::take_job(self, now)
    }

    fn run_job(job: SealJob) -> Sealed {
        job.run()
    }

    fn put_job(&mut self, sealed: Sealed, now: Now, deferred: &mut Deferred) {
        Producer::put_job(self, sealed, now, deferred);
    }

    fn poll_transmit(&mut self, out: &mut Outbox<'_>, now: Now) -> More {
        Producer::poll_transmit(self, out, now)
    }

    fn poll_deadline(&self) -> Option<Deadline> {
        Producer::poll_deadline(self)
    }

    fn handle_deadline(&mut self, now: Now, deferred: &mut Deferred) {
        Producer::handle_deadline(self, now, deferred);
    }

    fn take_wants_reconnect(&mut self) -> bool {
        Producer::take_wants_reconnect(self)
    }

    fn fail(&mut self, error: Error, deferred: &mut Deferred) {
        Producer::fail(self, error, deferred);
    }

    fn close(&mut self, reply: Option<ReplyTo<()>>, now: Now, deferred: &mut Deferred) {
        Producer::close(self, reply, now, deferred);
    }

    fn is_attached(&self) -> bool {
        Producer::is_attached(self)
    }

    fn is_closing(&self) -> bool {
        Producer::is_closing(self)
    }

    fn is_finished(&self) -> bool {
        Producer::is_finished(self)
    }

    fn is_closed_at_broker(&self) -> bool {
        Producer::is_closed_at_broker(self)
    }

    fn data_route(endpoint: Arc<Endpoint<Self>>) -> DataRoute {
        DataRoute::Producer(endpoint)
    }
}
