//! GET_TOPICS_OF_NAMESPACE and topic list watchers.

use super::Rejection;
use crate::broker::conformance::Rule;
use crate::broker::ids::ConnId;
use crate::broker::machine::Broker;
use crate::broker::refusal::refuse;
use crate::broker::topics::{TopicListWatcher, TopicPattern, WatcherKey};
use crate::hash::topics_hash;
use crate::pb::command_get_topics_of_namespace::Mode;
use crate::pb::{self, ServerError};
use crate::topic::TopicName;
use crate::wire::command::Refusal;

/// Longest pattern that the broker applies, in UTF-16 units as Java counts (`subscriptionPatternMaxLength`).
const PATTERN_LENGTH_MAX: usize = 50;

/// GET_TOPICS_OF_NAMESPACE.
impl Broker {
    /// The topics of the mode; a pattern is applied where the broker can. With the hash of exactly
    /// these topics in the request the response lists none.
    pub(super) fn on_get_topics(
        &mut self,
        conn: ConnId,
        request: &pb::CommandGetTopicsOfNamespace,
    ) -> Result<(), Rejection> {
        let mode = request.mode.map_or(Ok(Mode::Persistent), Mode::try_from);
        let (Ok(mode), true) = (mode, is_namespace(&request.namespace)) else {
            let detail = "GET_TOPICS_OF_NAMESPACE with a bad namespace";
            return Err(Rejection::violation(Rule::IncompleteRequest, detail));
        };
        let pattern = self.check_list(conn, request)?;
        let topics = self.topics.names_of(&request.namespace, mode, pattern.as_ref());
        let hash = topics_hash(&topics);
        let is_changed = request.topics_hash.as_deref() != Some(hash.as_str());
        let response = pb::CommandGetTopicsOfNamespaceResponse {
            request_id: request.request_id,
            topics: if is_changed { topics } else { Vec::new() },
            filtered: Some(pattern.is_some()),
            topics_hash: Some(hash),
            changed: Some(is_changed),
        };
        self.connections.send(conn, response);
        Ok(())
    }

    /// The pattern to be applied; `None` for none and for one that is too long.
    fn check_list(
        &self,
        conn: ConnId,
        request: &pb::CommandGetTopicsOfNamespace,
    ) -> Result<Option<TopicPattern>, Refusal> {
        if !self.may_list(conn, &request.namespace) {
            let text = "Client is not authorized to GetTopicsOfNamespace";
            return Err(refuse(ServerError::AuthorizationError, text));
        }
        let pattern = request.topics_pattern.as_deref().filter(|pattern| !is_too_long(pattern));
        let parsed = pattern.map(TopicPattern::parse).transpose();
        parsed.map_err(|text| refuse(ServerError::MetadataError, text))
    }
}

/// Watchers.
impl Broker {
    /// Starts a watcher, or starts it again under the id of an earlier one: the response lists what matches now, unless
    /// the request carries the hash of exactly that.
    pub(super) fn on_watch_topic_list(
        &mut self,
        conn: ConnId,
        request: &pb::CommandWatchTopicList,
    ) -> Result<(), Rejection> {
        if !is_namespace(&request.namespace) {
            return Err(Rejection::violation(Rule::IncompleteRequest, "WATCH_TOPIC_LIST with a bad namespace"));
        }
        let key = WatcherKey { conn, id: request.watcher_id };
        if !self.watchers.contains(key) {
            self.check_endpoint_count(conn)?;
        }
        let pattern = self.check_watch(conn, &request.namespace, &request.topics_pattern)?;
        let topics = self.topics.names_of(&request.namespace, Mode::Persistent, Some(&pattern));
        let hash = topics_hash(&topics);
        let is_known = request.topics_hash.as_deref() == Some(hash.as_str());
        self.watchers.insert(key, TopicListWatcher { namespace: request.namespace.clone(), pattern });
        let success = pb::CommandWatchTopicListSuccess {
            request_id: request.request_id,
            watcher_id: request.watcher_id,
            topic: if is_known { Vec::new() } else { topics },
            topics_hash: hash,
        };
        self.connections.send(conn, success);
        Ok(())
    }

    fn check_watch(&self, conn: ConnId, namespace: &str, pattern: &str) -> Result<TopicPattern, Refusal> {
        if !self.may_list(conn, namespace) {
            let text = "Client is not authorized to watch topics";
            return Err(refuse(ServerError::AuthorizationError, text));
        }
        if is_too_long(pattern) {
            let text = "Unable to create topic list watcher: topicsPattern is too long";
            return Err(refuse(ServerError::NotAllowedError, text));
        }
        TopicPattern::parse(pattern).map_err(|text| refuse(ServerError::InvalidTopicName, text))
    }

    /// SUCCESS also for an id that is unknown to the broker.
    pub(super) fn on_watch_topic_list_close(
        &mut self,
        conn: ConnId,
        request: &pb::CommandWatchTopicListClose,
    ) -> Result<(), Rejection> {
        self.watchers.remove(WatcherKey { conn, id: request.watcher_id });
        self.send_success(conn, request.request_id);
        Ok(())
    }

    /// Notifies the watchers that a topic was created or deleted: one WATCH_TOPIC_UPDATE for each topic and watcher, with
    /// the hash of the list after the change. Non-persistent topics are never reported.
    pub(in crate::broker) fn on_topic_list_changed(&mut self, name: &TopicName, is_new: bool) {
        for (key, watcher) in self.watchers.matching(name) {
            let topics = self.topics.names_of(&watcher.namespace, Mode::Persistent, Some(&watcher.pattern));
            let changed = vec![name.to_string()];
            let (new_topics, deleted_topics) = if is_new { (changed, Vec::new()) } else { (Vec::new(), changed) };
            let topics_hash = topics_hash(&topics);
            let update = pb::CommandWatchTopicUpdate { watcher_id: key.id, new_topics, deleted_topics, topics_hash };
            self.send_topic_list_update(key.conn, name, update);
        }
    }
}

fn is_too_long(pattern: &str) -> bool {
    pattern.encode_utf16().count() > PATTERN_LENGTH_MAX
}

pub(crate) fn is_namespace(text: &str) -> bool {
    text.split('/').count() == 2 && TopicName::parse(&format!("persistent://{text}/x")).is_ok()
}
