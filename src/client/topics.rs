//! The topics of a consumer.

/// The topics of a consumer: one or several, by name, or those that match a [pattern](Self::pattern). Made from `&str`, `String`, and from arrays, slices and
/// vectors of them.
///
/// ```
/// use pulsar_native::Topics;
///
/// let one = Topics::from("orders");
/// let several: Topics = ["orders", "persistent://public/default/invoices"].into();
/// assert_ne!(one, several);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    selection: Selection,
}

/// How the topics are chosen. Private, so that another way can be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selection {
    /// Topic names, short or in full.
    Names(Vec<String>),
    /// Those of one namespace that match.
    #[cfg(feature = "patterns")]
    Pattern(String),
}

impl Topics {
    pub(super) fn selection(&self) -> &Selection {
        &self.selection
    }

    /// The topics of one namespace that match a pattern, at any time: those that are made later join the consumer, and those
    /// that are deleted leave it. Needs the crate feature `patterns`, which is on by default.
    ///
    /// ```
    /// use pulsar_native::Topics;
    ///
    /// let orders = Topics::pattern("persistent://my-tenant/my-namespace/orders-.*");
    /// ```
    ///
    /// | what | how |
    /// | --- | --- |
    /// | `tenant/namespace` | Names, not patterns. Without them `public/default`. |
    /// | the expression behind them | It has to match the whole local name of a topic; of a partition, that of its topic. The dialect is that of the crate [regex-lite](https://docs.rs/regex-lite), in linear time: that of RE2/J, which the Java client has, without classes of Unicode (`\p{Lu}`) and quoted text (`\Q..\E`). Like RE2/J it has no look-around and no back-references. What it does not know is refused by [`subscribe`](super::ConsumerBuilder::subscribe) with [`InvalidArgument`](crate::ErrorKind::InvalidArgument). Each broker's list is filtered here, so that the pattern means the same with all of them. |
    /// | `persistent://`, `non-persistent://` | Which topics, without the scheme persistent ones; [`subscription_topics_mode`](super::ConsumerBuilder::subscription_topics_mode) goes before it. |
    /// | topics of the system, as `__change_events` | They do not match. |
    /// | how a topic is found | Brokers announce persistent topics that come and go (Pulsar 2.11 and later), unless `tenant/namespace` has more than 47 characters, which makes the shortest pattern longer than they take. The list is asked for at an [interval](super::ConsumerBuilder::pattern_auto_discovery_period) all the same, which is how all others are found. With an `http://` service URL the broker that serves a topic of the consumer announces, once there is one; the Java client always polls then. |
    /// | where it is read from | What matched as the consumer subscribed: [`initial_position`](super::ConsumerBuilder::initial_position). What is found later, or was deleted and made again: its beginning, or [`initial_position_of_added`](super::ConsumerBuilder::initial_position_of_added). A subscription that exists keeps its position. A broker's list lags behind while many topics come and go: a topic that was made a moment before the consumer may be one that is found later. |
    /// | a topic that is deleted | Its part leaves: [`TopicRemoved`](super::ConsumerEvent::TopicRemoved). The consumer never creates a topic again (`forceTopicCreation` is false). |
    /// | a topic that is made | [`TopicAdded`](super::ConsumerEvent::TopicAdded), or [`TopicNotAdded`](super::ConsumerEvent::TopicNotAdded), and it is tried again with the next list. |
    /// | a partitioned topic | All its partitions join, also those that are added later. |
    /// | no topic matches | The consumer waits for the first one. It ends when it is closed. |
    ///
    /// Retries need a name: [`retry_enabled`](super::ConsumerBuilder::retry_enabled) is refused.
    #[cfg(feature = "patterns")]
    #[doc(alias = "topicsPattern")]
    pub fn pattern(pattern: impl Into<String>) -> Self {
        Self { selection: Selection::Pattern(pattern.into()) }
    }

    fn names<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self { selection: Selection::Names(names.into_iter().map(Into::into).collect()) }
    }
}

impl From<&str> for Topics {
    fn from(name: &str) -> Self {
        Self::names([name])
    }
}

impl From<String> for Topics {
    fn from(name: String) -> Self {
        Self::names([name])
    }
}

impl From<&String> for Topics {
    fn from(name: &String) -> Self {
        Self::names([name])
    }
}

impl<S: Into<String>> From<Vec<S>> for Topics {
    fn from(names: Vec<S>) -> Self {
        Self::names(names)
    }
}

impl<S: Clone + Into<String>> From<&[S]> for Topics {
    fn from(names: &[S]) -> Self {
        Self::names(names.iter().cloned())
    }
}

impl<S: Into<String>, const N: usize> From<[S; N]> for Topics {
    fn from(names: [S; N]) -> Self {
        Self::names(names)
    }
}
