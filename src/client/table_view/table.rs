//! The entries of a table view, and those who listen to their changes.
//!
//! One task writes. A snapshot is the shards as they are: a write to one that a snapshot holds copies that shard first, so
//! that a snapshot costs what is changed while it lives, a 64th of the table at a time.

use std::collections::HashMap;
use std::collections::hash_map::{self, RandomState};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::{fmt, slice};

use bytes::Bytes;

use super::super::user_code;

const SHARDS: usize = 64;

/// A shard returns memory once it has room for so many times its entries.
const SHRINK_AT: usize = 4;

type Shard = HashMap<Arc<str>, Bytes>;

type OnChange = dyn FnMut(&str, Option<&Bytes>) + Send;

/// The entries.
pub(super) struct Table {
    state: RwLock<State>,
}

struct State {
    entries: TableSnapshot,
    listeners: Arc<[Arc<Listener>]>,
}

/// Code of the application that hears of changes.
struct Listener {
    /// Held while the entries that are there are told, so that changes come behind them.
    on_change: Mutex<Box<OnChange>>,
    /// No call begins any more. Set without the lock, so that a listener can be dropped from its own code, and looked at under
    /// it, for a change may have been told to the listeners as they were before.
    is_dropped: AtomicBool,
}

impl Listener {
    fn new(on_change: impl FnMut(&str, Option<&Bytes>) + Send + 'static) -> Arc<Self> {
        Arc::new(Self { on_change: Mutex::new(Box::new(on_change)), is_dropped: AtomicBool::new(false) })
    }

    fn lock(&self) -> MutexGuard<'_, Box<OnChange>> {
        self.on_change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic is reported by the panic hook and has no other effect.
    fn tell(&self, key: &str, value: Option<&Bytes>) {
        let mut on_change = self.lock();
        if !self.is_dropped.load(Ordering::SeqCst) {
            let _panicked = user_code::call(|| on_change(key, value));
        }
    }
}

impl Table {
    pub(super) fn new() -> Self {
        Self { state: RwLock::new(State { entries: TableSnapshot::new(), listeners: Arc::new([]) }) }
    }

    fn read<R>(&self, read: impl FnOnce(&State) -> R) -> R {
        // No foreign code runs under this lock, so a poisoned one is consistent.
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<R>(&self, write: impl FnOnce(&mut State) -> R) -> R {
        write(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Calls `read` with the entries as they are.
    pub(super) fn with<R>(&self, read: impl FnOnce(&TableSnapshot) -> R) -> R {
        self.read(|state| read(&state.entries))
    }

    /// Sets the value of a key, or removes the key, and tells those who listen.
    pub(super) fn apply(&self, key: &str, value: Option<Bytes>) {
        let told = self.write(|state| {
            // Sharing a value costs an allocation that stays.
            let told = (!state.listeners.is_empty()).then(|| (state.listeners.clone(), value.clone()));
            state.entries.set(key, value);
            told
        });
        let Some((listeners, value)) = told else { return };
        for listener in listeners.iter() {
            listener.tell(key, value.as_ref());
        }
    }

    /// `on_change` hears of each change from now on.
    pub(super) fn listen(
        self: &Arc<Self>,
        on_change: impl FnMut(&str, Option<&Bytes>) + Send + 'static,
    ) -> TableListener {
        let listener = Listener::new(on_change);
        self.write(|state| state.add(&listener));
        TableListener { table: self.clone(), listener }
    }

    /// `on_change` hears of each entry that is there, then of each change.
    pub(super) fn for_each_and_listen(
        self: &Arc<Self>,
        on_change: impl FnMut(&str, Option<&Bytes>) + Send + 'static,
    ) -> TableListener {
        let listener = Listener::new(on_change);
        let mut on_change = listener.lock();
        // Dropped before the lock is released where `on_change` panics: a change that waits for it is not told then.
        let registered = TableListener { table: self.clone(), listener: listener.clone() };
        let entries = self.write(|state| {
            state.add(&listener);
            state.entries.clone()
        });
        for (key, value) in &entries {
            on_change(key, Some(value));
        }
        registered
    }
}

impl State {
    fn add(&mut self, listener: &Arc<Listener>) {
        self.listeners = self.listeners.iter().chain([listener]).cloned().collect();
    }
}

/// Code that hears of the changes of a [`TableView`](super::TableView), until this is dropped. A call that is under way then
/// still ends, and no other begins. It may be dropped anywhere, also in its own code.
#[must_use = "a listener hears nothing any more once this is dropped"]
pub struct TableListener {
    table: Arc<Table>,
    listener: Arc<Listener>,
}

impl Drop for TableListener {
    fn drop(&mut self) {
        self.listener.is_dropped.store(true, Ordering::SeqCst);
        // The application's code is dropped behind the lock, with `self.listener`.
        self.table.write(|state| {
            let is_other = |listener: &&Arc<Listener>| !Arc::ptr_eq(listener, &self.listener);
            state.listeners = state.listeners.iter().filter(is_other).cloned().collect();
        });
    }
}

impl fmt::Debug for TableListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableListener").finish_non_exhaustive()
    }
}

/// The entries of a [`TableView`](super::TableView) as they were at one moment: what the view reads afterwards does not
/// change them. Java's `entrySet`, `keySet`, `values` and `forEach`, which go on changing.
///
/// Making and cloning one copies no entry. While it lives, a change of the view copies the 64th of the table in which it lies
/// once: keys and values are shared, so that is some 60 bytes for each entry.
///
/// ```no_run
/// # fn example(view: pulsar_native::TableView) {
/// let prices = view.snapshot();
/// for (key, value) in &prices {
///     println!("{key}: {}", String::from_utf8_lossy(value));
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct TableSnapshot {
    shards: Box<[Arc<Shard>]>,
    hasher: RandomState,
    len: usize,
}

impl TableSnapshot {
    fn new() -> Self {
        let hasher = RandomState::new();
        let shard = || Arc::new(HashMap::with_hasher(hasher.clone()));
        Self { shards: std::iter::repeat_with(shard).take(SHARDS).collect(), hasher, len: 0 }
    }

    /// The shards' maps use the lowest and the highest bits of the hash.
    fn shard_of(&self, key: &str) -> usize {
        (self.hasher.hash_one(key) >> 32) as usize % SHARDS
    }

    fn set(&mut self, key: &str, value: Option<Bytes>) {
        let at = self.shard_of(key);
        let shard = Arc::make_mut(&mut self.shards[at]);
        let before = shard.len();
        match (shard.get_mut(key), value) {
            (Some(old), Some(value)) => *old = value,
            (None, Some(value)) => drop(shard.insert(key.into(), value)),
            (Some(_), None) => {
                shard.remove(key);
                if shard.len() < shard.capacity() / SHRINK_AT {
                    shard.shrink_to(shard.len() * 2);
                }
            }
            (None, None) => {}
        }
        self.len = self.len - before + shard.len();
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Bytes> {
        self.shards[self.shard_of(key)].get(key)
    }

    /// Whether the key has a value.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// How many keys have a value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no key has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries, in no order.
    #[must_use]
    pub fn iter(&self) -> TableIter<'_> {
        TableIter { shards: self.shards.iter(), entries: None, left: self.len }
    }
}

impl fmt::Debug for TableSnapshot {
    /// Not the entries: they may be secret, and many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableSnapshot").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<'a> IntoIterator for &'a TableSnapshot {
    type Item = (&'a str, &'a Bytes);
    type IntoIter = TableIter<'a>;

    fn into_iter(self) -> TableIter<'a> {
        self.iter()
    }
}

/// The entries of a [`TableSnapshot`]: see [`TableSnapshot::iter`].
#[derive(Clone)]
pub struct TableIter<'a> {
    shards: slice::Iter<'a, Arc<Shard>>,
    entries: Option<hash_map::Iter<'a, Arc<str>, Bytes>>,
    left: usize,
}

impl fmt::Debug for TableIter<'_> {
    /// Not the entries, as of a [`TableSnapshot`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableIter").field("left", &self.left).finish_non_exhaustive()
    }
}

impl<'a> Iterator for TableIter<'a> {
    type Item = (&'a str, &'a Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.entries.as_mut().and_then(Iterator::next) {
                self.left -= 1;
                return Some((key, value));
            }
            self.entries = Some(self.shards.next()?.iter());
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for TableIter<'_> {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::splitmix::SplitMix64;

    fn set(table: &Table, key: &str, value: &str) {
        table.apply(key, Some(Bytes::copy_from_slice(value.as_bytes())));
    }

    fn text(value: &Bytes) -> String {
        String::from_utf8(value.to_vec()).unwrap()
    }

    fn entries(snapshot: &TableSnapshot) -> BTreeMap<String, String> {
        snapshot.iter().map(|(key, value)| (key.to_owned(), text(value))).collect()
    }

    #[test]
    fn it_equals_a_map_and_snapshots_stay_as_they_were() {
        let table = Table::new();
        let mut map = BTreeMap::new();
        let mut random = SplitMix64::new(7);
        let mut kept = Vec::new();
        for number in 0..20_000u64 {
            let key = format!("key {}", random.next() % 500);
            if random.next() % 4 == 0 {
                table.apply(&key, None);
                map.remove(&key);
            } else {
                set(&table, &key, &number.to_string());
                map.insert(key, number.to_string());
            }
            if number % 1000 == 0 {
                kept.push((table.with(TableSnapshot::clone), map.clone()));
            }
        }
        kept.push((table.with(TableSnapshot::clone), map));
        for (snapshot, map) in kept {
            assert_eq!((snapshot.len(), snapshot.iter().len()), (map.len(), map.len()));
            assert_eq!(entries(&snapshot), map);
            for (key, value) in &map {
                assert_eq!(snapshot.get(key).map(text).as_ref(), Some(value));
            }
            assert!(!snapshot.contains_key("key 500"));
        }
    }

    /// What a listener hears.
    type Heard = Arc<Mutex<Vec<(String, Option<String>)>>>;

    fn hear(heard: &Heard) -> impl FnMut(&str, Option<&Bytes>) + Send + 'static {
        let heard = heard.clone();
        move |key, value| heard.lock().unwrap().push((key.to_owned(), value.map(text)))
    }

    fn taken(heard: &Heard) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut heard.lock().unwrap())
    }

    #[test]
    fn listeners_hear_each_change_in_order_until_they_are_dropped() {
        let table = Arc::new(Table::new());
        let (all, later) = (Heard::default(), Heard::default());
        set(&table, "a", "1");
        let _panicking = table.listen(|_, _| panic!("in a listener"));
        let tail = table.listen(hear(&later));
        let _all = table.for_each_and_listen(hear(&all));
        set(&table, "b", "2");
        table.apply("a", None);
        table.apply("a", None);
        let change = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
        let changes = [change("b", Some("2")), change("a", None), change("a", None)];
        assert_eq!(taken(&later), changes);
        assert_eq!(taken(&all), [&[change("a", Some("1"))], &changes[..]].concat());
        drop(tail);
        set(&table, "c", "3");
        assert_eq!((taken(&later).len(), taken(&all)), (0, vec![change("c", Some("3"))]));
        assert_eq!(Arc::strong_count(&later), 1, "its code is gone");
    }

    /// Entries that are there are told before any change, by whichever thread, and listening ends where they panic.
    #[test]
    fn changes_wait_for_the_entries_that_are_there() {
        let table = Arc::new(Table::new());
        for number in 0..1000 {
            set(&table, &number.to_string(), "old");
        }
        let heard = Heard::default();
        let writer = {
            let table = table.clone();
            std::thread::spawn(move || (0..1000).for_each(|number| set(&table, &number.to_string(), "new")))
        };
        let _listener = table.for_each_and_listen(hear(&heard));
        writer.join().unwrap();
        let mut seen = BTreeMap::<_, Vec<_>>::new();
        for (key, value) in taken(&heard) {
            seen.entry(key).or_default().push(value.unwrap());
        }
        assert!(seen.values().all(|values| *values == ["new"] || *values == ["old", "new"]), "{seen:?}");
        assert_eq!(seen.len(), 1000);
        let listening = std::panic::catch_unwind(|| table.for_each_and_listen(|_, _| panic!("at once")));
        assert!(listening.is_err());
        assert_eq!(table.read(|state| state.listeners.len()), 1);
    }

    /// A change is told to the listeners that there were: one that is dropped meanwhile does not hear of it.
    #[test]
    fn no_call_begins_once_a_listener_is_dropped() {
        let table = Arc::new(Table::new());
        let (heard, others) = (Heard::default(), Arc::new(Mutex::new(Vec::new())));
        let dropping = others.clone();
        let _first = table.listen(move |_, _| drop(std::mem::take(&mut *dropping.lock().unwrap())));
        let itself = Arc::new(Mutex::new(None));
        let (dropped, mut hear_once) = (itself.clone(), hear(&heard));
        *itself.lock().unwrap() = Some(table.listen(move |key, value| {
            drop(dropped.lock().unwrap().take());
            hear_once(key, value);
        }));
        others.lock().unwrap().push(table.listen(hear(&heard)));
        others.lock().unwrap().push(table.for_each_and_listen(hear(&heard)));
        set(&table, "a", "1");
        set(&table, "b", "2");
        assert_eq!(taken(&heard), [("a".to_owned(), Some("1".to_owned()))], "by the one that drops itself");
        assert_eq!(Arc::strong_count(&heard), 1, "their code is gone");
    }

    /// A change waits for the entries that are there, and the code panics before it is done with them.
    #[test]
    fn code_that_panics_at_an_entry_hears_no_change() {
        let table = Arc::new(Table::new());
        set(&table, "a", "1");
        let (heard, writer) = (Heard::default(), Arc::new(Mutex::new(None)));
        let (listened, mut hear_it) = ((table.clone(), writer.clone()), hear(&heard));
        let on_change = move |key: &str, value: Option<&Bytes>| {
            hear_it(key, value);
            let table = listened.0.clone();
            *listened.1.lock().unwrap() = Some(std::thread::spawn(move || set(&table, "b", "2")));
            // It is there once it was decided who is told.
            while !listened.0.with(|entries| entries.contains_key("b")) {
                std::thread::yield_now();
            }
            panic!("at an entry");
        };
        let listening = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| table.for_each_and_listen(on_change)));
        assert!(listening.is_err());
        let writer = writer.lock().unwrap().take().unwrap();
        writer.join().unwrap();
        assert_eq!(taken(&heard), [("a".to_owned(), Some("1".to_owned()))]);
    }

    /// A listener may ask the table, and have others listen.
    #[test]
    fn a_listener_may_use_the_table() {
        let table = Arc::new(Table::new());
        let (heard, inner) = (Heard::default(), Arc::new(Mutex::new(None)));
        let _listener = table.listen({
            let (table, heard, inner) = (Arc::downgrade(&table), heard.clone(), inner.clone());
            move |_, _| {
                let table = table.upgrade().unwrap();
                let len = table.with(TableSnapshot::len);
                heard.lock().unwrap().push((len.to_string(), None));
                *inner.lock().unwrap() = Some(table.for_each_and_listen(|_, _| ()));
            }
        });
        set(&table, "a", "1");
        set(&table, "b", "2");
        assert_eq!(taken(&heard).into_iter().map(|(len, _)| len).collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn an_emptied_table_returns_its_memory() {
        let table = Table::new();
        let capacity = || table.with(|entries| entries.shards.iter().map(|shard| shard.capacity()).sum::<usize>());
        for number in 0..100_000 {
            set(&table, &number.to_string(), "x");
        }
        let full = capacity();
        for number in 0..100_000 {
            table.apply(&number.to_string(), None);
        }
        assert!(capacity() < full / 50, "{} of {full}", capacity());
    }
}
