//! Where an endpoint is attached, or why it is not: what its time-outs say.

use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::machine::Now;

/// What is known of the last attach.
#[derive(Debug, Default)]
pub struct AttachStatus {
    /// The broker that has the endpoint, and since when.
    attached: Option<(Arc<str>, Instant)>,
    /// Why the last attempt failed. `None` while attached, and before the first attempt has failed.
    last_failure: Option<Error>,
}

impl AttachStatus {
    pub(crate) fn on_attached(&mut self, address: &Arc<str>, now: Now) {
        self.attached = Some((address.clone(), now.at));
        self.last_failure = None;
    }

    pub(crate) fn on_detached(&mut self) {
        self.attached = None;
    }

    pub(crate) fn on_failure(&mut self, error: &Error) {
        self.last_failure = Some(error.clone());
    }

    /// Why it is not attached, as far as that is known.
    pub(crate) fn last_failure(&self) -> Option<&Error> {
        self.last_failure.as_ref()
    }

    /// `what` has not happened in time.
    ///
    /// | endpoint | the error adds |
    /// | --- | --- |
    /// | attached | the broker, and for how long it has had the endpoint |
    /// | not attached, an attempt has failed | that failure, as its source |
    /// | not attached, no attempt has failed | that it is not attached |
    pub(crate) fn timed_out(&self, what: &str, now: Now) -> Error {
        let error = |text: String| Error::local(ErrorKind::TimedOut, text);
        match (&self.attached, &self.last_failure) {
            (Some((address, since)), _) => {
                let seconds = now.at.saturating_duration_since(*since).as_secs();
                error(format!("{what}; attached to {address} for {seconds} s")).with_address(address)
            }
            (None, Some(failure)) => {
                let late = error(format!("{what}; not attached to a broker")).with_source(failure.clone());
                match failure.address() {
                    Some(address) => late.with_address(&Arc::from(address)),
                    None => late,
                }
            }
            (None, None) => error(format!("{what}; not attached to a broker, and no attempt has failed yet")),
        }
    }
}
