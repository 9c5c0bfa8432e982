//! Topic names: parsing, their elements, their partitions.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::Shortened;

/// The text between the name of a partitioned topic and the index of a partition.
const PARTITION_SUFFIX: &str = "-partition-";
const DEFAULT_NAMESPACE: &str = "public/default";

/// A topic's full name: `persistent://tenant/namespace/local`.
///
/// The short forms are accepted too: `tenant/namespace/local` is persistent, and `local` alone is a
/// persistent topic in `public/default`. Cloning increments a reference count.
///
/// ```
/// use pulsar_native::topic::TopicName;
///
/// let topic: TopicName = "orders".parse()?;
/// assert_eq!(topic.as_str(), "persistent://public/default/orders");
/// assert_eq!(topic.partition(3).as_str(), "persistent://public/default/orders-partition-3");
/// # Ok::<(), pulsar_native::topic::TopicNameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName {
    full: Arc<str>,
    /// The offset of the tenant, after `://`.
    tenant_at: usize,
    /// The offset of the namespace, without its tenant.
    namespace_at: usize,
    local_at: usize,
}

impl TopicName {
    /// Parses a full or short name.
    ///
    /// Names of four elements (`persistent://tenant/cluster/namespace/local`, the V1 form) are
    /// refused, as the Java client does since 4.2.
    ///
    /// # Errors
    /// A [`TopicNameError`] with the text, what is wrong with it and what to do.
    pub fn parse(text: &str) -> Result<Self, TopicNameError> {
        let wrong = |reason| TopicNameError { topic: text.to_owned(), reason };
        let (domain, rest) = match text.split_once("://") {
            Some((domain, rest)) => (Some(domain), rest),
            None => (None, text),
        };
        if !matches!(domain, None | Some("persistent" | "non-persistent")) {
            return Err(wrong(TopicNameReason::UnknownDomain));
        }
        let elements: Vec<&str> = rest.splitn(6, '/').collect();
        let (tenant, namespace, local) = match (elements.as_slice(), domain) {
            (&[local], None) => ("public", "default", local),
            (&[tenant, namespace, local], _) => (tenant, namespace, local),
            (&[_, _, _, _], Some(_)) => return Err(wrong(TopicNameReason::V1)),
            _ => return Err(wrong(TopicNameReason::ElementCount)),
        };
        check_element(tenant).map_err(|problem| wrong(problem.in_element("tenant")))?;
        check_element(namespace).map_err(|problem| wrong(problem.in_element("namespace")))?;
        if local.trim().is_empty() {
            return Err(wrong(TopicNameReason::Empty("local name")));
        }
        Ok(Self::assemble(domain.unwrap_or("persistent"), tenant, namespace, local))
    }

    /// The full name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.full
    }

    /// Whether messages are stored: domain `persistent`, not `non-persistent`.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.full.starts_with("persistent://")
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.full[self.tenant_at..self.namespace_at - 1]
    }

    /// Tenant and namespace, as in `public/default`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.full[self.tenant_at..self.local_at - 1]
    }

    /// The name within the namespace, with the suffix of a partition if there is one.
    #[must_use]
    pub fn local_name(&self) -> &str {
        &self.full[self.local_at..]
    }

    /// The index of this partition; `None` if the name has no partition suffix.
    ///
    /// The suffix is `-partition-` and a decimal number without leading zeros: `x-partition-01` is
    /// an ordinary name.
    #[must_use]
    pub fn partition_index(&self) -> Option<u32> {
        self.split_partition().map(|(_, index)| index)
    }

    /// Partition `index` of this partitioned topic. For the name of a partition it gives another partition of
    /// the same topic, so the suffix is never doubled.
    #[must_use]
    pub fn partition(&self, index: u32) -> Self {
        let base_len = self.split_partition().map_or(self.full.len(), |(base_len, _)| base_len);
        let full = format!("{}{PARTITION_SUFFIX}{index}", &self.full[..base_len]);
        Self { full: full.into(), ..*self }
    }

    /// The partitioned topic of this partition; for any other topic, itself.
    #[must_use]
    pub fn base(&self) -> Self {
        match self.split_partition() {
            Some((base_len, _)) => Self { full: self.full[..base_len].into(), ..*self },
            None => self.clone(),
        }
    }

    /// The end of the base name, and the index of the partition.
    fn split_partition(&self) -> Option<(usize, u32)> {
        let (base, digits) = self.local_name().rsplit_once(PARTITION_SUFFIX)?;
        let canonical = digits == "0" || !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !canonical || base.trim().is_empty() {
            return None;
        }
        // MessageIdData.partition is an int32.
        let index = digits.parse().ok().filter(|&index: &u32| index <= i32::MAX as u32)?;
        Some((self.local_at + base.len(), index))
    }

    fn assemble(domain: &str, tenant: &str, namespace: &str, local: &str) -> Self {
        let tenant_at = domain.len() + "://".len();
        let namespace_at = tenant_at + tenant.len() + 1;
        let local_at = namespace_at + namespace.len() + 1;
        let full = format!("{domain}://{tenant}/{namespace}/{local}").into();
        Self { full, tenant_at, namespace_at, local_at }
    }
}

/// What is wrong with a tenant or a namespace.
enum ElementProblem {
    Empty,
    Character(char),
}

impl ElementProblem {
    fn in_element(self, element: &'static str) -> TopicNameReason {
        match self {
            Self::Empty => TopicNameReason::Empty(element),
            Self::Character(character) => TopicNameReason::Character { element, character },
        }
    }
}

fn check_element(element: &str) -> Result<(), ElementProblem> {
    let allowed = |character: char| character.is_ascii_alphanumeric() || "_-=:.".contains(character);
    match element.chars().find(|&character| !allowed(character)) {
        Some(character) => Err(ElementProblem::Character(character)),
        None if element.is_empty() => Err(ElementProblem::Empty),
        None => Ok(()),
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.full)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.full, f)
    }
}

impl AsRef<str> for TopicName {
    fn as_ref(&self) -> &str {
        &self.full
    }
}

impl FromStr for TopicName {
    type Err = TopicNameError;

    fn from_str(text: &str) -> Result<Self, TopicNameError> {
        Self::parse(text)
    }
}

impl TryFrom<&str> for TopicName {
    type Error = TopicNameError;

    fn try_from(text: &str) -> Result<Self, TopicNameError> {
        Self::parse(text)
    }
}

/// A text that is not a topic's name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicNameError {
    /// The text.
    pub topic: String,
    /// What is wrong with it.
    pub reason: TopicNameReason,
}

/// The reason of a [`TopicNameError`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicNameReason {
    /// The text before `://` is neither `persistent` nor `non-persistent`.
    UnknownDomain,
    /// Not one or three elements without a domain, or not three with one.
    ElementCount,
    /// The old form of four elements, with a cluster.
    V1,
    /// This element is empty, or blank.
    Empty(&'static str),
    /// This element holds a character that it may not hold.
    Character {
        /// `tenant` or `namespace`.
        element: &'static str,
        /// The first such character.
        character: char,
    },
}

impl fmt::Display for TopicNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid topic name {:?}: ", Shortened(&self.topic).to_string())?;
        match &self.reason {
            TopicNameReason::UnknownDomain => f.write_str("the domain before :// must be persistent or non-persistent"),
            TopicNameReason::ElementCount => write!(
                f,
                "use persistent://tenant/namespace/topic, tenant/namespace/topic, or a topic alone (in {DEFAULT_NAMESPACE})"
            ),
            TopicNameReason::V1 => f.write_str(
                "this is the old V1 form with a cluster; leave the cluster out: persistent://tenant/namespace/topic",
            ),
            TopicNameReason::Empty(element) => write!(f, "the {element} is empty"),
            TopicNameReason::Character { element, character } => {
                write!(f, "the {element} must not hold {character:?}; letters, digits and - = : . _ are allowed")
            }
        }
    }
}

impl std::error::Error for TopicNameError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> TopicName {
        TopicName::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn full_and_short_forms_are_read() {
        for (text, full) in [
            ("t", "persistent://public/default/t"),
            ("a/b/t", "persistent://a/b/t"),
            ("persistent://a/b/t", "persistent://a/b/t"),
            ("non-persistent://a/b/t", "non-persistent://a/b/t"),
            ("persistent://a-=:._9/b/two words é", "persistent://a-=:._9/b/two words é"),
        ] {
            assert_eq!(topic(text).to_string(), full);
            assert_eq!(topic(full), topic(text));
        }
    }

    #[test]
    fn parts_are_those_of_the_full_name() {
        let name = topic("non-persistent://my/space/x-partition-7");
        assert_eq!((name.tenant(), name.namespace(), name.local_name()), ("my", "my/space", "x-partition-7"));
        assert!(!name.is_persistent());
        assert!(topic("x").is_persistent());
    }

    #[test]
    fn errors_say_what_is_wrong() {
        use TopicNameReason::{Character, ElementCount, Empty, UnknownDomain, V1};
        for (text, reason) in [
            ("", Empty("local name")),
            ("a/b", ElementCount),
            ("a/b/c/d", ElementCount),
            ("persistent://t", ElementCount),
            ("persistent://a/b", ElementCount),
            ("persistent://a/b/c/d", V1),
            ("persistent://a/b/c/d/e/f/g", ElementCount),
            ("topic://a/b/c", UnknownDomain),
            ("://a/b/c", UnknownDomain),
            ("a//b", Empty("namespace")),
            ("/b/c", Empty("tenant")),
            ("a/b/", Empty("local name")),
            ("a/b/ ", Empty("local name")),
            ("my tenant/b/c", Character { element: "tenant", character: ' ' }),
            ("a/é/c", Character { element: "namespace", character: 'é' }),
        ] {
            let error = TopicName::parse(text).unwrap_err();
            assert_eq!(error, TopicNameError { topic: text.to_owned(), reason });
            assert!(error.to_string().contains(text), "{error}");
        }
        let error = TopicName::parse("persistent://a/cluster/b/c").unwrap_err().to_string();
        assert!(error.contains("leave the cluster out"), "{error}");
    }

    #[test]
    fn partitions_go_back_and_forth() {
        let base = topic("a/b/t");
        let third = base.partition(3);
        assert_eq!(third.as_str(), "persistent://a/b/t-partition-3");
        assert_eq!((third.partition_index(), third.base()), (Some(3), base.clone()));
        assert_eq!((base.partition_index(), base.base()), (None, base.clone()));
        assert_eq!(third.partition(3), third);
        assert_eq!(third.partition(0), base.partition(0));
        assert_eq!(third, topic(third.as_str()));
    }

    #[test]
    fn only_a_canonical_number_makes_a_partition() {
        for (text, index) in [
            ("x-partition-0", Some(0)),
            ("x-partition-10", Some(10)),
            ("x-partition-2147483647", Some(2_147_483_647)),
            ("x-partition-1-partition-2", Some(2)),
            ("x-partition-2147483648", None),
            ("x-partition-01", None),
            ("x-partition-00", None),
            ("x-partition--1", None),
            ("x-partition-+1", None),
            ("x-partition-a", None),
            ("x-partition-", None),
            ("-partition-1", None),
            ("x-partition", None),
        ] {
            assert_eq!(topic(text).partition_index(), index, "{text}");
        }
    }
}
