//! What is the same for several topics, told once.

use std::sync::Arc;

/// A line for each different text, with the topics that it is about; of `count` topics in all.
pub(super) fn lines(texts: impl IntoIterator<Item = (Arc<str>, String)>, count: usize) -> Vec<String> {
    let mut groups: Vec<(String, Vec<Arc<str>>)> = Vec::new();
    for (topic, text) in texts {
        match groups.iter_mut().find(|(known, _)| *known == text) {
            Some((_, topics)) => topics.push(topic),
            None => groups.push((text, vec![topic])),
        }
    }
    groups.iter().map(|(text, topics)| format!("{}{text}", subject(topics, count))).collect()
}

/// Empty where there is one topic alone.
fn subject(topics: &[Arc<str>], count: usize) -> String {
    match topics {
        _ if count == 1 => String::new(),
        _ if count == topics.len() => format!("all {count} topics: "),
        [topic] => format!("{topic}: "),
        [first, others @ ..] => format!("{first} and {} more: ", others.len()),
        [] => String::new(),
    }
}
