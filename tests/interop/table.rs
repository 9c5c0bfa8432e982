//! Table views: both sides see the same entries, before a compaction and after it.

use std::collections::BTreeMap;
use std::time::Duration;

use pulsar_native::TableView;
use serde_json::Value;

use crate::admin;
use crate::checks::{Work, new_topic};
use crate::common::within::look_until;
use crate::message::Described;
use crate::ours::{Ours, within};
use crate::peer::Peer;

const COMPACTED_WITHIN: Duration = Duration::from_secs(30);

/// Values, removals and messages without a key, some in batches; then the same once more over what was compacted.
pub async fn run(ours: &Ours, peer: &mut Peer) -> Result<(), String> {
    let topic = new_topic();
    let mut view = None;
    for round in 0..2 {
        for (batching, by_them) in [(false, false), (true, true), (true, false), (false, true)] {
            let messages = updates(round, by_them && peer.lacks("empty"));
            let work = Work { topic: topic.clone(), batching, ..Work::new(messages) };
            match by_them {
                true => peer.produce(&work).await?,
                false => ours.produce(&work).await?,
            };
        }
        let view = match &view {
            None => view.insert(within("the view", ours.client.table_view(&topic).create()).await?),
            Some(view) => view,
        };
        within("the refresh", view.refresh()).await?;
        compare(view, &peer.read_table(&topic).await?)?;
        compact(&topic).await?;
        let compacted = within("the view", ours.client.table_view(&topic).create()).await?;
        compare(&compacted, &peer.read_table(&topic).await?)?;
        if entries(&compacted) != entries(view) || view.is_empty() {
            return Err(format!("{:?} is compacted to {:?}", entries(view), entries(&compacted)));
        }
    }
    Ok(())
}

fn updates(round: usize, without_removals: bool) -> Vec<Described> {
    let of = |number: usize| {
        let value = format!("{round} {number}");
        let key = format!("key {}", (number + round * 7) % 20);
        match number % 10 {
            3 => Described::new(value),
            7 if without_removals => Described::new("no key"),
            7 => Described { key: Some(key), ..Described::new("") },
            _ => Described { key: Some(key), ..Described::new(value) },
        }
    };
    (0..45).map(of).collect()
}

fn entries(view: &TableView) -> BTreeMap<String, Vec<u8>> {
    view.snapshot().iter().map(|(key, value)| (key.to_owned(), value.to_vec())).collect()
}

fn compare(view: &TableView, theirs: &BTreeMap<String, Vec<u8>>) -> Result<(), String> {
    let own = entries(view);
    let differ = |key: &&String| own.get(*key) != theirs.get(*key);
    match own.keys().chain(theirs.keys()).find(differ) {
        None => Ok(()),
        Some(key) => Err(format!("{key}: we see {:?}, they {:?}", own.get(key), theirs.get(key))),
    }
}

/// Has the broker compact the topic up to its present end.
async fn compact(topic: &str) -> Result<(), String> {
    admin::compact(topic).await?;
    let look = || admin::compaction(topic);
    let has_ended =
        |status: &Result<Value, String>| status.as_ref().map_or(true, |status| status["status"] == "SUCCESS");
    let ended = look_until(COMPACTED_WITHIN, Duration::from_millis(50), look, has_ended).await;
    ended.map_err(|_| "the compaction has not ended".to_owned())?.map(drop)
}
