//! Tests of which each run takes some.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{SystemTime, UNIX_EPOCH};

/// What of `all` this run takes: everything if the environment variable is `all`, else `count` of them by the seed that it holds or
/// by a new one, which is printed.
pub(crate) fn sample<T: Copy>(variable: &str, all: &[T], count: usize) -> Vec<T> {
    let seed = match std::env::var(variable).ok() {
        Some(value) if value == "all" => return all.to_vec(),
        Some(value) => value.parse().unwrap_or_else(|_| panic!("{variable}={value}: a seed, or all")),
        None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    };
    println!("{variable}={seed} takes these again, {variable}=all takes all");
    let place = |index: &usize| {
        let mut hasher = DefaultHasher::new();
        (seed, index).hash(&mut hasher);
        hasher.finish()
    };
    let mut order: Vec<_> = (0..all.len()).collect();
    order.sort_by_key(place);
    order.into_iter().take(count).map(|index| all[index]).collect()
}
