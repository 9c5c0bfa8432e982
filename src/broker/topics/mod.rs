//! Topics and the patterns that pick them.

pub(crate) mod pattern;
pub(crate) mod topic;
