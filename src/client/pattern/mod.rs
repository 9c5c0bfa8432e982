//! Topic patterns: which topics of a namespace a consumer reads, and how it learns of them.
//!
//! The whole list of a namespace, or what the broker finds to match, is filtered here by one dialect: that of the crate
//! regex-lite. So a pattern means the same with every broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex_lite::Regex;

use super::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::Reply;
use crate::machine::supervisor::query;
use crate::pb::CommandGetTopicsOfNamespace;
use crate::pb::command_get_topics_of_namespace::Mode;
use crate::topic::TopicName;

pub(super) mod follow;

/// The longest pattern that a broker takes by default (`subscriptionPatternMaxLength`), bytes.
const BROKER_PATTERN_MAX: usize = 50;

/// Queries for numbers of partitions that are asked at once.
const QUERIES_AT_ONCE: usize = 100;

/// Which topics a pattern is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegexSubscriptionMode {
    /// Those that are persistent.
    PersistentOnly,
    /// Those that are not. A broker lists those alone that it serves itself, so that on a cluster of several some are not
    /// found, in the Java client neither.
    NonPersistentOnly,
    /// All of them.
    AllTopics,
}

/// A pattern that can be used.
#[derive(Debug, Clone)]
pub(super) struct TopicPattern {
    /// `tenant/namespace`.
    pub(super) namespace: String,
    local: Regex,
    /// The part that matches the local names, as it was given.
    text: String,
    pub(super) mode: RegexSubscriptionMode,
}

/// A topic or partition: its full name, and its index or -1.
pub(super) type PartName = (Arc<str>, i32);

impl TopicPattern {
    /// `mode`: `None` leaves it to the scheme of the pattern.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`]: no namespace, or no expression of the dialect.
    pub(super) fn parse(pattern: &str, mode: Option<RegexSubscriptionMode>) -> Result<Self> {
        let invalid = |why: String| Error::local(ErrorKind::InvalidArgument, format!("the pattern `{pattern}` {why}"));
        let (by_scheme, rest) = match pattern.split_once("://") {
            None => (RegexSubscriptionMode::PersistentOnly, pattern),
            Some(("persistent", rest)) => (RegexSubscriptionMode::PersistentOnly, rest),
            Some(("non-persistent", rest)) => (RegexSubscriptionMode::NonPersistentOnly, rest),
            Some((scheme, _)) => return Err(invalid(format!("has the scheme `{scheme}`, which no topic has"))),
        };
        let (namespace, text) = match rest.splitn(3, '/').collect::<Vec<_>>()[..] {
            [text] => ("public/default".to_owned(), text),
            [tenant, namespace, text] => (format!("{tenant}/{namespace}"), text),
            _ => return Err(invalid("is neither tenant/namespace/expression nor an expression alone".to_owned())),
        };
        // The names are no expressions: a topic of the namespace shows whether they can be names.
        let is_named = TopicName::parse(&format!("persistent://{namespace}/t")).is_ok();
        if !is_named || namespace.contains(['*', '+', '?', '(', '[', '|', '^', '$', '\\']) {
            return Err(invalid(format!("needs the name of one namespace, which `{namespace}` is not")));
        }
        // By itself first, so that its groups are closed.
        let local = Regex::new(text).and_then(|_| Regex::new(&format!("^(?:{text})$")));
        let local = local.map_err(|error| invalid(format!("is no expression of this dialect: {error}")))?;
        Ok(Self { namespace, local, text: text.to_owned(), mode: mode.unwrap_or(by_scheme) })
    }

    fn has_persistent(&self) -> bool {
        self.mode != RegexSubscriptionMode::NonPersistentOnly
    }

    /// Whether topics of the mode come, that no broker announces.
    fn has_non_persistent(&self) -> bool {
        self.mode != RegexSubscriptionMode::PersistentOnly
    }

    /// Whether the topic, or the topic of the partition, is one of those.
    fn matches(&self, topic: &TopicName) -> bool {
        let is_of_mode = if topic.is_persistent() { self.has_persistent() } else { self.has_non_persistent() };
        let base = topic.base();
        is_of_mode
            && topic.namespace() == self.namespace
            && !is_of_the_system(&base)
            && self.local.is_match(base.local_name())
    }

    /// An expression that a broker may filter by: it finds all that match, and perhaps others. `None`: each is longer
    /// than a broker takes.
    fn of_broker(&self) -> Option<String> {
        let is_plain = |text: &str| text.chars().all(|found| found.is_ascii_alphanumeric() || "-_.".contains(found));
        // With any ending it matches a topic exactly where it matches the partitions of it, whose names older brokers
        // look at. A dot may stand for any character: more are found then.
        let own = self.text.strip_suffix(".*").filter(|start| is_plain(start)).map(|_| self.text.as_str());
        let fits = |text: &str| Some(format!("{}/{text}", self.namespace)).filter(|it| it.len() <= BROKER_PATTERN_MAX);
        own.and_then(fits).or_else(|| fits(".*"))
    }

    /// GET_TOPICS_OF_NAMESPACE; `hash` is that of the last answer to it.
    fn request(&self, hash: Option<String>) -> CommandGetTopicsOfNamespace {
        let namespace = self.namespace.clone();
        let topics_pattern = self.of_broker();
        let mut request =
            CommandGetTopicsOfNamespace { namespace, topics_hash: hash, topics_pattern, ..Default::default() };
        request.set_mode(match self.mode {
            RegexSubscriptionMode::PersistentOnly => Mode::Persistent,
            RegexSubscriptionMode::NonPersistentOnly => Mode::NonPersistent,
            RegexSubscriptionMode::AllTopics => Mode::All,
        });
        request
    }

    /// What of a list matches: the parts that are named there, by the names of their topics.
    fn members<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Members {
        let mut members = Members::new();
        let names = names.into_iter().filter_map(|name| TopicName::parse(name).ok());
        for topic in names.filter(|topic| self.matches(topic)) {
            let partition = topic.partition_index().and_then(|index| i32::try_from(index).ok()).unwrap_or(-1);
            members.entry(topic.base().as_str().to_owned()).or_default().push((topic.as_str().into(), partition));
        }
        members
    }

    /// The list of the namespace, and what of it matches, to begin with.
    ///
    /// # Errors
    /// The list of the namespace cannot be had.
    pub(super) async fn find(&self, client: &Shared) -> Result<(Vec<String>, Found)> {
        let names = client.query(query::topics_of_namespace(self.request(None))).await?.topics;
        let ask = |topic: &TopicName| client.start_query(query::partitions_of_existing(&topic.as_str().into())).ok();
        let found = resolve(self.members(names.iter().map(String::as_str)), ask).await;
        Ok((names, found))
    }
}

/// The parts that are known of each topic.
type Members = BTreeMap<String, Vec<PartName>>;

/// The parts of topics.
#[derive(Default)]
pub(super) struct Found {
    pub(super) parts: Vec<PartName>,
    /// Those of the topics that have partitions.
    pub(super) partitioned: Vec<TopicName>,
}

/// Adds the partitions that are not there yet, and so in no list: `ask` starts the query for their number.
async fn resolve(members: Members, ask: impl Fn(&TopicName) -> Option<Reply<u32>>) -> Found {
    let mut found = Found::default();
    let mut members = members.into_iter();
    loop {
        let mut asked = Vec::new();
        for (base, parts) in members.by_ref().take(QUERIES_AT_ONCE) {
            let has_partitions = parts.iter().any(|(_, partition)| *partition >= 0);
            found.parts.extend(parts);
            if let (true, Ok(base)) = (has_partitions, TopicName::parse(&base)) {
                asked.extend(ask(&base).map(|count| (base, count)));
            }
        }
        let is_last = members.len() == 0;
        for (base, count) in asked {
            // Without an answer those that are named have to do; what looks for new partitions asks again.
            let count = count.await.unwrap_or(0);
            let name = |index: u32| (Arc::from(base.partition(index).as_str()), i32::try_from(index).unwrap_or(-1));
            found.parts.extend((0..count).map(name));
            if count > 0 {
                found.partitioned.push(base);
            }
        }
        if is_last {
            found.parts.sort_unstable();
            found.parts.dedup();
            return found;
        }
    }
}

/// Whether brokers keep it for themselves.
fn is_of_the_system(topic: &TopicName) -> bool {
    let name = topic.local_name();
    name == "__change_events" || name.starts_with("__transaction_") || name.ends_with("__transaction_pending_ack")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pattern: &str) -> TopicPattern {
        TopicPattern::parse(pattern, None).expect("a good pattern")
    }

    fn matches(pattern: &TopicPattern, topic: &str) -> bool {
        pattern.matches(&TopicName::parse(topic).expect("a name"))
    }

    #[test]
    fn whole_names_of_the_namespace_match() {
        let pattern = parsed("persistent://t/n/orders-[a-c]+");
        for (topic, expected) in [
            ("persistent://t/n/orders-abc", true),
            ("persistent://t/n/orders-abc-partition-3", true),
            ("persistent://t/n/orders-abcd", false),
            ("persistent://t/n/my-orders-a", false),
            ("persistent://t/m/orders-a", false),
            ("non-persistent://t/n/orders-a", false),
        ] {
            assert_eq!(matches(&pattern, topic), expected, "{topic}");
        }
        assert!(matches(&parsed("a|b"), "persistent://public/default/b"));
        assert!(!matches(&parsed("a|b"), "persistent://public/default/ab"));
        assert!(matches(&parsed("non-persistent://t/n/.*"), "non-persistent://t/n/x"));
        let all = TopicPattern::parse("t/n/.*", Some(RegexSubscriptionMode::AllTopics)).expect("a good pattern");
        assert!(matches(&all, "non-persistent://t/n/x") && matches(&all, "persistent://t/n/x"));
        assert!(!matches(&all, "persistent://t/n/__change_events"), "of the system");
    }

    #[test]
    fn what_cannot_be_a_pattern_is_refused() {
        for (pattern, why) in [
            ("t/n/(", "no expression"),
            ("t/n/a)(b", "no expression"),
            ("t/n/(?=a)b", "no expression"),
            (r"t/n/\p{Lu}.*", "no expression"),
            (r"t/n/(a)\1", "no expression"),
            ("t/.*/a", "one namespace"),
            ("http://t/n/a", "scheme"),
            ("n/a", "neither"),
        ] {
            let error = TopicPattern::parse(pattern, None).expect_err(pattern);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn brokers_filter_by_what_means_the_same_to_all_of_them() {
        assert_eq!(parsed("t/n/orders-.*").of_broker().as_deref(), Some("t/n/orders-.*"));
        assert_eq!(parsed("t/n/orders-[ab]").of_broker().as_deref(), Some("t/n/.*"));
        assert_eq!(parsed("t/n/orders").of_broker().as_deref(), Some("t/n/.*"));
        let long = "a".repeat(60);
        assert_eq!(parsed(&format!("t/n/{long}.*")).of_broker().as_deref(), Some("t/n/.*"));
        assert_eq!(parsed(&format!("t/{long}/x.*")).of_broker(), None);
    }

    #[tokio::test]
    async fn partitions_that_no_list_has_are_found_by_their_number() {
        let pattern = parsed("t/n/.*");
        let names: Vec<String> = (0..250).map(|topic| format!("persistent://t/n/a{topic:03}")).collect();
        let more = ["persistent://t/n/p-partition-1", "persistent://t/n/odd-partition-7"];
        let answer = |topic: &TopicName| {
            let (to, reply) = Reply::pair();
            let count = if topic.local_name() == "p" { 3 } else { 0 };
            to.send(Ok(count), &mut crate::machine::Deferred::new());
            Some(reply)
        };
        let found = resolve(pattern.members(names.iter().map(String::as_str).chain(more)), answer).await;
        assert_eq!(found.parts.len(), 250 + 3 + 1);
        assert!(found.parts.contains(&("persistent://t/n/odd-partition-7".into(), 7)));
        assert!(
            (0..3).all(|index| found.parts.contains(&(format!("persistent://t/n/p-partition-{index}").into(), index)))
        );
        assert_eq!(found.partitioned, [TopicName::parse("t/n/p").expect("a name")]);
    }
}
