//! The topics of a consumer.

/// The topics of a consumer: one or several, by name. Made from `&str`, `String`, and from arrays, slices and
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

/// How the topics are chosen. Private, so that another way, such as a pattern, can be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selection {
    /// Topic names, short or in full.
    Names(Vec<String>),
}

impl Topics {
    pub(super) fn selection(&self) -> &Selection {
        &self.selection
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
