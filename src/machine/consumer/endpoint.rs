//! The consumer as an endpoint: what the session and the supervisor ask of it. The methods lie in the files of their
//! subjects; those of the same name are called by their path, `Consumer::fail(self, ..)`.

use std::convert::Infallible;
use std::sync::Arc;

use super::Consumer;
use crate::error::Error;
use crate::machine::connection::error::RequestError;
use crate::machine::connection::peer::PeerInfo;
use crate::machine::endpoint::attach_status::AttachStatus;
use crate::machine::endpoint::machine::{AfterNotification, DataRoute, Dirty, EndpointMachine, EndpointStats};
use crate::machine::endpoint::outbox::{More, Op, Outbox, Response};
use crate::machine::{Deadline, Deferred, Endpoint, Now, ReplyTo};
use crate::wire::command::Command;

impl EndpointMachine for Consumer {
    type Job = Infallible;
    type Done = Infallible;

    fn subject(&self) -> Arc<str> {
        self.topic().clone()
    }

    fn open_description(&self) -> &'static str {
        "the subscription"
    }

    fn stats(&self) -> EndpointStats {
        EndpointStats::Consumer(Box::new(Self::stats(self)))
    }

    fn subscription(&self) -> Option<&str> {
        Some(&self.config.subscription)
    }

    fn take_dirty(&mut self) -> Dirty {
        std::mem::take(&mut self.dirty)
    }

    fn open_request(&mut self, _peer: &PeerInfo, now: Now) -> Result<Command, RequestError> {
        Ok(self.subscribe_request(now).into())
    }

    fn on_attached(&mut self, _response: &Command, _peer: &PeerInfo, now: Now, deferred: &mut Deferred) {
        Consumer::on_attached(self, deferred);
        self.watch_for_stalls(now);
    }

    fn on_detached(&mut self, _now: Now, deferred: &mut Deferred) {
        Consumer::on_detached(self, deferred);
    }

    fn on_cluster_changed(&mut self, deferred: &mut Deferred) {
        Consumer::on_cluster_changed(self, deferred);
    }

    fn attach_status(&mut self) -> &mut AttachStatus {
        &mut self.attach_status
    }

    fn on_response(&mut self, op: Op, response: Response, _now: Now, deferred: &mut Deferred) {
        Consumer::on_response(self, op, response, deferred);
    }

    fn on_notification(&mut self, command: Command, _now: Now, deferred: &mut Deferred) -> AfterNotification {
        match command {
            Command::ActiveConsumerChange(change) => self.on_active_change(change.is_active(), deferred),
            Command::ReachedEndOfTopic(_) => self.on_end_of_topic(deferred),
            _ => {}
        }
        AfterNotification::Stay
    }

    fn run_job(job: Infallible) -> Infallible {
        job
    }

    fn put_job(&mut self, done: Infallible, _now: Now, _deferred: &mut Deferred) {
        match done {}
    }

    fn poll_transmit(&mut self, out: &mut Outbox<'_>, now: Now) -> More {
        Consumer::poll_transmit(self, out, now)
    }

    fn poll_deadline(&self) -> Option<Deadline> {
        Consumer::poll_deadline(self)
    }

    fn handle_deadline(&mut self, now: Now, deferred: &mut Deferred) {
        Consumer::handle_deadline(self, now, deferred);
    }

    fn fail(&mut self, error: Error, deferred: &mut Deferred) {
        Consumer::fail(self, error, deferred);
    }

    fn close(&mut self, reply: Option<ReplyTo<()>>, now: Now, deferred: &mut Deferred) {
        Consumer::close(self, reply, now, deferred);
    }

    fn is_attached(&self) -> bool {
        Consumer::is_attached(self)
    }

    fn is_closing(&self) -> bool {
        Consumer::is_closing(self)
    }

    fn is_finished(&self) -> bool {
        Consumer::is_finished(self)
    }

    fn is_closed_at_broker(&self) -> bool {
        Consumer::is_closed_at_broker(self)
    }

    fn data_route(endpoint: Arc<Endpoint<Self>>) -> DataRoute {
        DataRoute::Consumer(endpoint)
    }
}
