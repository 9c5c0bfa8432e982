//! What a consumer is made for: one topic, or several.

/// One topic or several, by name; made from `&str`, `String`, arrays and vectors of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    pub(super) names: Vec<String>,
}

impl From<&str> for Topics {
    fn from(name: &str) -> Self {
        Self { names: vec![name.to_owned()] }
    }
}

impl From<String> for Topics {
    fn from(name: String) -> Self {
        Self { names: vec![name] }
    }
}

impl From<&String> for Topics {
    fn from(name: &String) -> Self {
        Self { names: vec![name.clone()] }
    }
}

impl<S: Into<String>> From<Vec<S>> for Topics {
    fn from(names: Vec<S>) -> Self {
        Self { names: names.into_iter().map(Into::into).collect() }
    }
}

impl<S: Into<String>, const N: usize> From<[S; N]> for Topics {
    fn from(names: [S; N]) -> Self {
        Self { names: names.into_iter().map(Into::into).collect() }
    }
}
