//! How each cluster of a client is dialed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::DialConfig;
use crate::machine::control::ClusterId;

/// The options of the clusters that are dialed: the one in use, and those that are about to be.
pub(crate) struct Clusters {
    table: Mutex<Table>,
}

struct Table {
    /// Bounded by the switches that the supervisor's task has not taken yet, and one.
    configs: BTreeMap<ClusterId, Arc<DialConfig>>,
    next: u32,
}

impl Clusters {
    /// The one that a client begins with.
    pub(crate) fn new(config: DialConfig) -> Arc<Self> {
        let configs = BTreeMap::from([(ClusterId::default(), Arc::new(config))]);
        Arc::new(Self { table: Mutex::new(Table { configs, next: ClusterId::default().0 + 1 }) })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // No user code runs under this lock.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one, and gives `switch` its number before any later one is given.
    pub(crate) fn add(&self, config: DialConfig, switch: impl FnOnce(ClusterId)) {
        let mut table = self.table();
        let id = ClusterId(table.next);
        table.next += 1;
        table.configs.insert(id, Arc::new(config));
        switch(id);
    }

    /// Its options; `None` if it is not used any more.
    pub(super) fn get(&self, id: ClusterId) -> Option<Arc<DialConfig>> {
        self.table().configs.get(&id).cloned()
    }

    /// Those before `id` are not used any more.
    pub(super) fn forget_before(&self, id: ClusterId) {
        let mut table = self.table();
        table.configs = table.configs.split_off(&id);
    }
}
