//! A table view beside the consumer of a topic that grows: after a refresh it has what was stored before.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pulsar_native::sim::Handle;
use pulsar_native::{Client, TableView};

/// What a view is watched by.
pub(crate) struct Watched<'a> {
    pub(crate) handle: &'a Handle,
    pub(crate) topic: &'a str,
    /// The key of a message with this payload.
    pub(crate) key_of: fn(&str) -> String,
    /// How many topics it has attached.
    pub(crate) known: &'a RefCell<BTreeMap<String, u32>>,
}

impl Watched<'_> {
    /// The payloads that are stored in a topic, in order.
    fn stored(&self, topic: &str) -> Vec<String> {
        let messages = self.handle.cluster(0).stored_messages(topic);
        messages.iter().map(|message| String::from_utf8_lossy(&message.payload).into_owned()).collect()
    }

    fn attached(&self, view: &TableView) -> Vec<String> {
        let parts = view.state().parts;
        let attached: Vec<_> = parts.iter().filter(|part| part.state.is_attached()).collect();
        let known = u32::try_from(attached.len()).unwrap_or(u32::MAX);
        self.known.borrow_mut().insert("view".to_owned(), known);
        attached.iter().map(|part| part.topic.to_string()).collect()
    }

    /// Refreshes until it is over.
    pub(crate) async fn watch(&self, client: &Client, interval: Duration, queue: u32, is_over: impl Fn() -> bool) {
        let view = loop {
            if is_over() {
                return;
            }
            // Generated names differ from run to run.
            let builder = client.table_view(self.topic).subscription_name("view").reader_name("v");
            let builder = builder.receiver_queue_size(queue);
            match builder.auto_update_partitions_interval(interval).create().await {
                Ok(view) => break view,
                Err(error) => self.handle.trace(|| format!("no view: {error}")),
            }
            self.handle.sleep(Duration::from_millis(300)).await;
        };
        let heard = Arc::new(Mutex::new(BTreeSet::new()));
        let hear = heard.clone();
        // Of what was there before, a view has the last of each key alone.
        let parts = view.state().parts;
        let earlier: BTreeSet<_> = parts.iter().flat_map(|part| self.stored(&part.topic)).collect();
        let _listener = view.for_each_and_listen(move |_, value| {
            hear.lock().unwrap().extend(value.map(|value| String::from_utf8_lossy(value).into_owned()));
        });
        while !is_over() {
            let stored: BTreeMap<_, _> =
                self.attached(&view).into_iter().map(|part| (part.clone(), self.stored(&part))).collect();
            match view.refresh().await {
                Ok(()) => self.check(&view, &stored, &earlier, &heard.lock().unwrap()),
                Err(error) => self.handle.trace(|| format!("no refresh: {error}")),
            }
            if let Some(error) = view.error().filter(|_| !is_over()) {
                self.handle.report_violation("no part ends", || format!("the view: {error}"));
                return;
            }
            self.handle.sleep(Duration::from_millis(100)).await;
        }
    }

    fn check(
        &self,
        view: &TableView,
        stored: &BTreeMap<String, Vec<String>>,
        earlier: &BTreeSet<String>,
        heard: &BTreeSet<String>,
    ) {
        for (part, texts) in stored {
            if let Some(missed) = texts.iter().find(|text| !heard.contains(*text) && !earlier.contains(*text)) {
                self.handle.report_violation("a refreshed view has what was stored", || format!("{missed} of {part}"));
            }
        }
        for (key, value) in &view.snapshot() {
            // It was the last of its key in one partition, then or later: not one that was followed by another.
            let value = String::from_utf8_lossy(value).into_owned();
            let is_stale = |texts: &Vec<String>| {
                let of_key = texts.iter().rposition(|text| (self.key_of)(text) == key);
                texts.iter().position(|text| *text == value).is_some_and(|at| of_key.is_some_and(|last| at < last))
            };
            if stored.values().any(is_stale) && stored.values().flatten().filter(|text| **text == value).count() == 1 {
                self.handle.report_violation("a view has the last value of a key", || format!("{value} of {key}"));
            }
        }
    }
}
