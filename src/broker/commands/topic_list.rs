//! GET_TOPICS_OF_NAMESPACE and topic list watchers.

use crate::broker::conformance::Rule;
use crate::broker::connections::ENDPOINTS_MAX;
use crate::broker::machine::{Broker, ConnId};
use crate::broker::topics::pattern::Pattern;
use crate::hash::topics_hash;
use crate::pb::command_get_topics_of_namespace::Mode;
use crate::pb::{self, ServerError};
use crate::topic::TopicName;

/// A watcher of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Watcher {
    namespace: String,
    pattern: Pattern,
}

/// Longest pattern that the broker applies, in UTF-16 units as Java counts (`subscriptionPatternMaxLength`).
const PATTERN_LENGTH_MAX: usize = 50;

impl Broker {
    /// The client gets all topics of the mode; a pattern is applied where this broker can.
    pub(crate) fn on_get_topics(&mut self, conn: ConnId, request: &pb::CommandGetTopicsOfNamespace) {
        let mode = request.mode.map_or(Ok(Mode::Persistent), Mode::try_from);
        let (Ok(mode), true) = (mode, is_namespace(&request.namespace)) else {
            return self
                .fail(conn, Rule::IncompleteRequest, || "GET_TOPICS_OF_NAMESPACE with a bad namespace".to_owned());
        };
        if !self.is_authorized(conn) {
            let text = "Client is not authorized to list topics";
            return self.error(conn, request.request_id, ServerError::AuthorizationError, text);
        }
        let pattern = request.topics_pattern.as_deref().filter(|pattern| !is_too_long(pattern));
        let pattern = match pattern.map(Pattern::parse) {
            Some(Err(text)) => return self.error(conn, request.request_id, ServerError::MetadataError, text),
            Some(Ok(pattern)) => Some(pattern),
            None => None,
        };
        let topics = self.topics_of(&request.namespace, mode, pattern.as_ref());
        let hash = topics_hash(&topics);
        let changed = request.topics_hash.as_deref() != Some(hash.as_str());
        let response = pb::CommandGetTopicsOfNamespaceResponse {
            request_id: request.request_id,
            topics: if changed { topics } else { Vec::new() },
            filtered: Some(pattern.is_some()),
            topics_hash: Some(hash),
            changed: Some(changed),
        };
        self.conns.send(conn, &response.into());
    }

    fn topics_of(&self, namespace: &str, mode: Mode, pattern: Option<&Pattern>) -> Vec<String> {
        let in_mode = |name: &TopicName| match mode {
            Mode::Persistent => name.is_persistent(),
            Mode::NonPersistent => !name.is_persistent(),
            Mode::All => true,
        };
        self.topics
            .values()
            .map(|topic| &topic.name)
            .filter(|name| name.namespace() == namespace && in_mode(name))
            .filter(|name| pattern.is_none_or(|pattern| pattern.matches(name)))
            .map(ToString::to_string)
            .collect()
    }

    /// Starts a watcher, or starts it again under the id of an earlier one: the answer lists what matches now, unless
    /// the client's hash says that it knows.
    pub(crate) fn on_watch_topic_list(&mut self, conn: ConnId, request: &pb::CommandWatchTopicList) {
        if !is_namespace(&request.namespace) {
            return self.fail(conn, Rule::IncompleteRequest, || "WATCH_TOPIC_LIST with a bad namespace".to_owned());
        }
        let refuse = |error, text: &str| Err((error, text.to_owned()));
        let checked = if !self.is_authorized(conn) {
            refuse(ServerError::AuthorizationError, "Client is not authorized to watch topics")
        } else if is_too_long(&request.topics_pattern) {
            refuse(ServerError::NotAllowedError, "Unable to create topic list watcher: topicsPattern is too long")
        } else {
            Pattern::parse(&request.topics_pattern).map_err(|text| (ServerError::InvalidTopicName, text))
        };
        let Some(connection) = self.conns.get(conn) else { return };
        if connection.endpoints() >= ENDPOINTS_MAX && !connection.watchers.contains_key(&request.watcher_id) {
            return self.fail(conn, Rule::IncompleteRequest, || format!("more than {ENDPOINTS_MAX} endpoints"));
        }
        let pattern = match checked {
            Ok(pattern) => pattern,
            Err((error, text)) => return self.error(conn, request.request_id, error, text),
        };
        let topics = self.topics_of(&request.namespace, Mode::Persistent, Some(&pattern));
        let hash = topics_hash(&topics);
        let known = request.topics_hash.as_deref() == Some(hash.as_str());
        if let Some(connection) = self.conns.get_mut(conn) {
            let watcher = Watcher { namespace: request.namespace.clone(), pattern };
            connection.watchers.insert(request.watcher_id, watcher);
        }
        let success = pb::CommandWatchTopicListSuccess {
            request_id: request.request_id,
            watcher_id: request.watcher_id,
            topic: if known { Vec::new() } else { topics },
            topics_hash: hash,
        };
        self.conns.send(conn, &success.into());
    }

    /// SUCCESS also for an id the broker does not know.
    pub(crate) fn on_watch_close(&mut self, conn: ConnId, request: &pb::CommandWatchTopicListClose) {
        if let Some(connection) = self.conns.get_mut(conn) {
            connection.watchers.remove(&request.watcher_id);
        }
        self.success(conn, request.request_id);
    }

    /// How many topic list watchers there are, over all connections.
    pub fn topic_list_watchers(&self) -> usize {
        self.conns.iter().map(|connection| connection.watchers.len()).sum()
    }

    /// Tells the watchers that a topic came or went: one WATCH_TOPIC_UPDATE for each topic and watcher, with the hash
    /// of the list after the change. Non-persistent topics are never reported.
    pub(crate) fn topic_list_changed(&mut self, name: &TopicName, added: bool) {
        if !name.is_persistent() {
            return;
        }
        let mut watching = Vec::new();
        for (conn, connection) in self.conns.iter_mut() {
            for (id, watcher) in &connection.watchers {
                if watcher.namespace == name.namespace() && watcher.pattern.matches(name) {
                    watching.push((conn, *id, watcher.clone()));
                }
            }
        }
        for (conn, watcher_id, watcher) in watching {
            let topics = self.topics_of(&watcher.namespace, Mode::Persistent, Some(&watcher.pattern));
            let changed = vec![name.to_string()];
            let (new_topics, deleted_topics) = if added { (changed, Vec::new()) } else { (Vec::new(), changed) };
            let topics_hash = topics_hash(&topics);
            let update = pb::CommandWatchTopicUpdate { watcher_id, new_topics, deleted_topics, topics_hash };
            self.send_topic_list_update(conn, name, update);
        }
    }
}

fn is_too_long(pattern: &str) -> bool {
    pattern.encode_utf16().count() > PATTERN_LENGTH_MAX
}

fn is_namespace(text: &str) -> bool {
    text.split('/').count() == 2 && TopicName::parse(&format!("persistent://{text}/x")).is_ok()
}
