//! The handle of a topic list watcher: the topics of a namespace that match a pattern, kept up to date.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;

use super::{Client, Shared, clock};
use crate::error::Result;
pub(super) use crate::machine::topic_list::TopicNews;
use crate::machine::topic_list::{TopicListConfig, TopicListWatcher};
use crate::machine::{Deferred, Endpoint, EndpointId, Reply};

pub use crate::machine::topic_list::TopicChange;

/// Watches the topics of one namespace (WATCH_TOPIC_LIST, PIP-145). Needs a broker of Pulsar 2.11 or later with
/// `enableBrokerSideSubscriptionPatternEvaluation`, its default. Non-persistent topics are not reported.
///
/// Dropping it closes it at the broker.
pub struct TopicListWatch {
    endpoint: Arc<Endpoint<TopicListWatcher>>,
    /// Keeps the client's tasks alive, which carry out what the endpoint decides.
    _client: Arc<Shared>,
}

impl Client {
    /// Watches the topics of `tenant/namespace` whose full names match `pattern`, a regular expression of at most 50
    /// characters. Returns once the first list has arrived.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if the broker has no watchers; the broker's refusal;
    /// [`TimedOut`](crate::ErrorKind::TimedOut) after the operation timeout.
    ///
    /// # Cancel safety
    /// Dropping the future closes the watcher.
    #[doc(hidden)]
    pub async fn watch_topics(
        &self,
        namespace: impl Into<String>,
        pattern: impl Into<String>,
    ) -> Result<TopicListWatch> {
        let (watch, created) = self.shared.start_watch(namespace.into(), pattern.into(), None)?;
        created.await?;
        Ok(watch)
    }
}

impl Shared {
    /// Begins to watch: at any broker, or at the one of the topic `via`. The reply comes with the first list.
    pub(super) fn start_watch(
        self: &Arc<Self>,
        namespace: String,
        pattern: String,
        via: Option<Arc<str>>,
    ) -> Result<(TopicListWatch, Reply<()>)> {
        let id = self.next_watcher_id();
        let config = TopicListConfig { namespace, pattern, via, operation_timeout: self.operation_timeout() };
        let (created, reply) = Reply::pair();
        let watcher = TopicListWatcher::new(id, config, created, clock::now());
        let endpoint = Endpoint::new(EndpointId::TopicList(id), watcher, self.ready());
        let watch = TopicListWatch { endpoint: endpoint.clone(), _client: self.clone() };
        self.open(endpoint)?;
        Ok((watch, reply))
    }
}

impl TopicListWatch {
    /// Waits for changes and returns the last one of each topic, in the order of the names: first the whole list as
    /// additions, then what the broker announces, and what differs after a reconnect. A broker may announce that a topic is
    /// gone which it has never listed.
    ///
    /// # Errors
    /// The reason why the watcher has ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses no change.
    pub async fn changes(&mut self) -> Result<Vec<(String, TopicChange)>> {
        loop {
            let changes = self.news().await?.changes;
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }

    /// As [`changes`](Self::changes), and returns also where the watcher has only attached again.
    pub(super) async fn news(&mut self) -> Result<TopicNews> {
        poll_fn(|cx| {
            let poll = |watcher: &mut TopicListWatcher, deferred: &mut Deferred| {
                watcher.poll_changed(cx.waker(), deferred).map(|()| watcher.take_news())
            };
            self.endpoint.with_deferred(&mut Deferred::new(), poll)
        })
        .await
    }

    /// Whether a broker reports changes at the moment.
    pub fn is_connected(&self) -> bool {
        self.endpoint.with(|watcher| watcher.is_attached())
    }

    /// Closes the watcher at the broker (WATCH_TOPIC_LIST_CLOSE) and waits for the response.
    ///
    /// # Errors
    /// [`TimedOut`](crate::ErrorKind::TimedOut) after the operation timeout; the broker's refusal.
    ///
    /// # Cancel safety
    /// The close continues when the future is dropped.
    pub async fn close(self) -> Result<()> {
        let (to, reply) = Reply::pair();
        self.endpoint
            .with_deferred(&mut Deferred::new(), |watcher, deferred| watcher.close(Some(to), clock::now(), deferred));
        reply.await
    }
}

impl Drop for TopicListWatch {
    fn drop(&mut self) {
        self.endpoint
            .with_deferred(&mut Deferred::new(), |watcher, deferred| watcher.close(None, clock::now(), deferred));
    }
}

impl fmt::Debug for TopicListWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicListWatch({})", self.endpoint.id())
    }
}
