//! Producers, consumers and watchers: each step of attaching one; and what a lost connection means for all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{Span, debug, debug_span, error, info, trace};

use super::refusals::{Refusal, Shown, refusal};
use super::{ENDPOINT, ms, ms_since, tell};
use crate::error::{Error, ErrorKind};
use crate::machine::supervisor::notice::EndpointNotice;
use crate::machine::{EndpointId, Now};

/// The endpoints of one client.
pub(super) struct EndpointTraces {
    client: Span,
    /// Bounded by the endpoints of the client.
    endpoints: BTreeMap<EndpointId, Traced>,
    outage: Option<Outage>,
    shown: Shown,
}

/// A producer, consumer or watcher that has not ended.
struct Traced {
    /// `attach`, while an attempt is made.
    span: Option<Span>,
    /// Since when it is attached, or is not.
    since: Instant,
    lookup_sent: Instant,
    failed_attempts: u32,
    /// What has refused it since it was attached, each once.
    refusals: Vec<Refusal>,
}

impl Traced {
    fn new(now: Now) -> Self {
        Self { span: None, since: now.at, lookup_sent: now.at, failed_attempts: 0, refusals: Vec::new() }
    }

    /// The span of the present attempt.
    fn attempt(&mut self, id: EndpointId, topic: &str, client: &Span) -> &Span {
        let attempt = self.failed_attempts.saturating_add(1);
        self.span.get_or_insert_with(
            || debug_span!(target: ENDPOINT, parent: client, "attach", endpoint = %id, topic, attempt),
        )
    }
}

/// Connections were lost, and not all that was attached to them is attached again.
struct Outage {
    since: Instant,
    /// What is not attached again, and was not refused.
    waiting: BTreeSet<EndpointId>,
    /// What is attached again.
    attached: usize,
    /// What was refused, which has lines of its own.
    refused: usize,
}

impl EndpointTraces {
    pub(super) fn new(client: Span) -> Self {
        Self { client, endpoints: BTreeMap::new(), outage: None, shown: Shown::default() }
    }

    pub(super) fn on_notice(&mut self, id: EndpointId, topic: &Arc<str>, event: &EndpointNotice, now: Now) {
        let client = &self.client;
        let traced = self.endpoints.entry(id).or_insert_with(|| Traced::new(now));
        match event {
            EndpointNotice::LookupSent => {
                traced.lookup_sent = now.at;
                let span = traced.attempt(id, topic, client);
                trace!(target: ENDPOINT, parent: span, endpoint = %id, %topic, "looking up");
            }
            EndpointNotice::LookedUp { is_redirect } => {
                let elapsed_ms = ms_since(traced.lookup_sent, now);
                let span = traced.attempt(id, topic, client);
                trace!(target: ENDPOINT, parent: span, endpoint = %id, %topic, is_redirect, elapsed_ms, "looked up");
            }
            EndpointNotice::Opening { broker } => {
                let span = traced.attempt(id, topic, client);
                debug!(target: ENDPOINT, parent: span, endpoint = %id, %topic, %broker, "opening");
            }
            EndpointNotice::Attached { broker, attempt } => {
                let elapsed_ms = ms_since(traced.since, now);
                let span = traced.attempt(id, topic, client);
                debug!(target: ENDPOINT, parent: span, endpoint = %id, %topic, %broker, attempt, elapsed_ms, "attached");
                *traced = Traced::new(now);
                self.on_back(id, Back::Attached, now);
            }
            EndpointNotice::Migrated { service_url } => {
                info!(target: ENDPOINT, parent: client, endpoint = %id, %topic, %service_url, "topic migrated");
            }
            EndpointNotice::Detached { error } => self.on_detached(id, topic, error, now),
            EndpointNotice::AttachFailed { error, attempt, retry_in } => {
                self.on_attach_failed(id, topic, error, *attempt, *retry_in, now);
            }
            EndpointNotice::Finished { error } => self.on_finished(id, topic, error.as_ref(), now),
        }
    }

    fn on_detached(&mut self, id: EndpointId, topic: &str, error: &Error, now: Now) {
        let Some(traced) = self.endpoints.get_mut(&id) else { return };
        let elapsed_ms = ms_since(traced.since, now);
        traced.since = now.at;
        debug!(target: ENDPOINT, parent: &self.client, endpoint = %id, topic, elapsed_ms, %error, "detached");
        // Its broker has closed it as it does when a topic moves: no connection was lost.
        if error.kind() != ErrorKind::NotReady {
            let first = || Outage { since: now.at, waiting: BTreeSet::new(), attached: 0, refused: 0 };
            self.outage.get_or_insert_with(first).waiting.insert(id);
        }
    }

    fn on_attach_failed(
        &mut self,
        id: EndpointId,
        topic: &str,
        error: &Error,
        attempt: u32,
        retry_in: Option<Duration>,
        now: Now,
    ) {
        let Some(traced) = self.endpoints.get_mut(&id) else { return };
        // It ends here.
        let span = traced.attempt(id, topic, &self.client).clone();
        traced.span = None;
        traced.failed_attempts = attempt;
        let news = refusal(error).filter(|refusal| !traced.refusals.contains(refusal));
        traced.refusals.extend(news);
        let loud = news.is_some_and(|news| self.shown.admit(news, now.at));
        let (elapsed_ms, retry_in_ms) = (ms_since(traced.since, now), retry_in.map(ms));
        tell!(ENDPOINT, &self.client, if loud => warn, else in &span, endpoint = %id, topic, attempt, elapsed_ms,
            retry_in_ms, %error, "not attached");
        // What passes by itself is waited for.
        if !error.is_retriable() || error.kind() == ErrorKind::BacklogQuotaExceeded {
            self.on_back(id, Back::Refused, now);
        }
    }

    fn on_finished(&mut self, id: EndpointId, topic: &str, error: Option<&Error>, now: Now) {
        self.endpoints.remove(&id);
        match error {
            None => debug!(target: ENDPOINT, parent: &self.client, endpoint = %id, topic, "closed"),
            Some(error) => error!(target: ENDPOINT, parent: &self.client, endpoint = %id, topic, %error, "ended"),
        }
        self.on_back(id, Back::Ended, now);
    }

    /// One less waits for the end of an outage.
    fn on_back(&mut self, id: EndpointId, how: Back, now: Now) {
        let Some(outage) = &mut self.outage else { return };
        if !outage.waiting.remove(&id) {
            return;
        }
        match how {
            Back::Attached => outage.attached += 1,
            Back::Refused => outage.refused += 1,
            Back::Ended => {}
        }
        if !outage.waiting.is_empty() {
            return;
        }
        let Outage { since, attached, refused, .. } = *outage;
        self.outage = None;
        if attached + refused > 0 {
            let elapsed_ms = ms_since(since, now);
            info!(target: ENDPOINT, parent: &self.client, attached, refused, elapsed_ms, "attached again");
        }
    }
}

/// Why an endpoint does not wait for the end of an outage any more.
#[derive(Clone, Copy)]
enum Back {
    Attached,
    Refused,
    Ended,
}
