//! The messages of a worker pool by key: which may start, and which wait until they are tried again.
//!
//! ```text
//!                          a worker is free            done, and more of its key wait
//!  received ---> waiting ------------------> running ----------------------------+
//!                   ^    (per key, in order)    |  \                             |
//!                   |                           |   \ to be tried again          |
//!                   |                           v    v                           |
//!                   |                        settled  parked, with its key       |
//!                   |                                   | its time has come      |
//!                   +-----------------------------------+------------------------+
//! ```
//!
//! A key has at most one message running, and none while its oldest is parked. Keys take turns: one whose message is done
//! goes behind the others that wait. From the first retry until its queue is empty a key *lags*: its messages count as
//! parked and not as waiting, so that what piled up behind a failure does not hold up the other keys.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

pub(super) type Key = Arc<[u8]>;

/// A message as far as the queues look at it.
pub(super) trait Keyed: Clone {
    /// What it is ordered by.
    fn key(&self) -> Option<&[u8]>;

    /// What it counts against the bound of parked messages, bytes.
    fn size_bytes(&self) -> usize;

    /// Whether it is another delivery of the same message.
    fn is_same(&self, other: &Self) -> bool;
}

/// See the module.
pub(super) struct Queues<T> {
    /// The keys that have a message waiting, parked or running.
    of_key: HashMap<Key, KeyQueue<T>>,
    /// What may start, in order.
    ready: VecDeque<Place<T>>,
    /// What is tried again, by time; the number keeps those of one time apart.
    parked_until: BTreeMap<(Instant, u64), Place<T>>,
    next_number: u64,
    /// Messages that wait.
    waiting: usize,
    parked_messages: usize,
    parked_bytes: usize,
}

struct KeyQueue<T> {
    /// Those whose work has not started, or is to be tried again.
    messages: VecDeque<T>,
    running: Option<T>,
    is_lagging: bool,
}

impl<T: Keyed> KeyQueue<T> {
    /// Whether another delivery of `message` is here. It comes when the broker delivers again what is not acknowledged, as
    /// after a reconnect; behind the others it would be out of order.
    fn holds(&self, message: &T) -> bool {
        self.running.iter().chain(&self.messages).any(|held| held.is_same(message))
    }
}

/// The next message of a key, or one without a key.
enum Place<T> {
    Key(Key),
    Keyless(T),
}

impl<T> Default for Queues<T> {
    fn default() -> Self {
        Self {
            of_key: HashMap::new(),
            ready: VecDeque::new(),
            parked_until: BTreeMap::new(),
            next_number: 0,
            waiting: 0,
            parked_messages: 0,
            parked_bytes: 0,
        }
    }
}

impl<T: Keyed> Queues<T> {
    /// Messages that wait for a worker.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Messages that are parked, or behind one that was; and their bytes.
    pub(super) fn parked(&self) -> (usize, usize) {
        (self.parked_messages, self.parked_bytes)
    }

    /// Takes a message that was received.
    ///
    /// | its key | then |
    /// | --- | --- |
    /// | none | it waits by itself |
    /// | has nothing here | the key is ready |
    /// | has another delivery of the message here | dropped: that one settles it |
    /// | has others here | behind them |
    pub(super) fn push(&mut self, message: T) {
        let Some(key) = message.key() else {
            self.waiting += 1;
            return self.ready.push_back(Place::Keyless(message));
        };
        if let Some(queue) = self.of_key.get_mut(key) {
            if queue.holds(&message) {
                return;
            }
            let is_lagging = queue.is_lagging;
            self.count(&message, is_lagging);
            if let Some(queue) = message.key().and_then(|key| self.of_key.get_mut(key)) {
                queue.messages.push_back(message);
            }
            return;
        }
        let key: Key = key.into();
        self.waiting += 1;
        self.ready.push_back(Place::Key(key.clone()));
        self.of_key.insert(key, KeyQueue { messages: VecDeque::from([message]), running: None, is_lagging: false });
    }

    fn count(&mut self, message: &T, is_lagging: bool) {
        if is_lagging {
            self.parked_messages += 1;
            self.parked_bytes += message.size_bytes();
        } else {
            self.waiting += 1;
        }
    }

    fn uncount(&mut self, message: &T, is_lagging: bool) {
        if is_lagging {
            self.parked_messages -= 1;
            self.parked_bytes -= message.size_bytes();
        } else {
            self.waiting -= 1;
        }
    }

    /// The next message to start, with its key.
    pub(super) fn pop(&mut self) -> Option<(Option<Key>, T)> {
        match self.ready.pop_front()? {
            Place::Keyless(message) => {
                self.waiting -= 1;
                Some((None, message))
            }
            Place::Key(key) => {
                // A key is ready once for each time that it has a message and none is running.
                let queue = self.of_key.get_mut(&key)?;
                let message =
                    if mutation!(NewestOfKeyFirst) { queue.messages.pop_back() } else { queue.messages.pop_front() }?;
                queue.running = Some(message.clone());
                let is_lagging = queue.is_lagging;
                self.uncount(&message, is_lagging);
                if mutation!(TwoOfOneKey) {
                    self.settled(key.clone());
                }
                Some((Some(key), message))
            }
        }
    }

    /// The running message of `key` is done.
    pub(super) fn settled(&mut self, key: Key) {
        let Some(queue) = self.of_key.get_mut(&key) else { return };
        queue.running = None;
        if queue.messages.is_empty() {
            self.of_key.remove(&key);
        } else {
            self.ready.push_back(Place::Key(key));
        }
    }

    /// A message that ran is to be tried again at `at`, before the others of its key.
    pub(super) fn park(&mut self, key: Option<Key>, message: T, at: Instant) {
        let place = match key {
            None => {
                self.count(&message, true);
                Place::Keyless(message)
            }
            Some(key) => {
                let Some(queue) = self.of_key.get_mut(&key) else { return };
                queue.running = None;
                if !std::mem::replace(&mut queue.is_lagging, true) {
                    self.waiting -= queue.messages.len();
                    self.parked_messages += queue.messages.len();
                    self.parked_bytes += queue.messages.iter().map(T::size_bytes).sum::<usize>();
                }
                self.parked_messages += 1;
                self.parked_bytes += message.size_bytes();
                if mutation!(RetryLosesItsPlace) {
                    queue.messages.push_back(message);
                } else {
                    queue.messages.push_front(message);
                }
                Place::Key(key)
            }
        };
        self.next_number += 1;
        self.parked_until.insert((at, self.next_number), place);
    }

    /// When the next parked message is to be tried again.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.parked_until.first_key_value().map(|((at, _), _)| *at)
    }

    /// Makes ready what is to be tried again by now.
    pub(super) fn unpark(&mut self, now: Instant) {
        while self.due_at().is_some_and(|at| at <= now) {
            let Some((_, place)) = self.parked_until.pop_first() else { return };
            if mutation!(ParkedForever) {
                continue;
            }
            if let Place::Keyless(message) = &place {
                let message = message.clone();
                self.uncount(&message, true);
                self.waiting += 1;
            }
            self.ready.push_back(place);
        }
    }

    /// Drops what is parked, and what is behind it: it is not acknowledged.
    pub(super) fn abandon_parked(&mut self) {
        for place in std::mem::take(&mut self.parked_until).into_values() {
            match place {
                Place::Keyless(message) => self.uncount(&message, true),
                Place::Key(key) => self.abandon(&key),
            }
        }
    }

    /// Drops the messages of a key of which none is running any more.
    pub(super) fn abandon(&mut self, key: &Key) {
        let Some(queue) = self.of_key.remove(key) else { return };
        queue.messages.iter().for_each(|message| self.uncount(message, queue.is_lagging));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A key and a number.
    #[derive(Debug, Clone, PartialEq)]
    struct Item(&'static str, u32);

    impl Keyed for Item {
        fn key(&self) -> Option<&[u8]> {
            (!self.0.is_empty()).then_some(self.0.as_bytes())
        }

        fn size_bytes(&self) -> usize {
            10
        }

        fn is_same(&self, other: &Self) -> bool {
            self == other
        }
    }

    fn pushed(items: &[Item]) -> Queues<Item> {
        let mut queues = Queues::default();
        items.iter().for_each(|item| queues.push(item.clone()));
        queues
    }

    fn pop(queues: &mut Queues<Item>) -> Option<(Option<Key>, Item)> {
        queues.pop()
    }

    fn seconds(base: Instant, seconds: u64) -> Instant {
        base + Duration::from_secs(seconds)
    }

    #[test]
    fn only_the_key_that_is_tried_again_waits_and_in_its_order() {
        let now = Instant::now();
        let mut queues = pushed(&[Item("a", 1), Item("a", 2), Item("b", 1)]);
        let (key, first) = pop(&mut queues).expect("a1");
        queues.park(key, first, seconds(now, 5));
        assert_eq!((queues.waiting(), queues.parked()), (1, (2, 20)));
        queues.push(Item("a", 3));
        assert_eq!((queues.waiting(), queues.parked()), (1, (3, 30)));
        let (key, other) = pop(&mut queues).expect("b1");
        assert_eq!(other, Item("b", 1));
        queues.settled(key.expect("b"));
        queues.unpark(seconds(now, 4));
        assert_eq!(pop(&mut queues), None);
        queues.unpark(seconds(now, 5));
        for number in 1..4 {
            let (key, item) = pop(&mut queues).expect("the next of a");
            assert_eq!((&item, pop(&mut queues)), (&Item("a", number), None));
            queues.settled(key.expect("a"));
        }
        assert_eq!((queues.waiting(), queues.parked(), queues.of_key.len()), (0, (0, 0), 0));
    }

    #[test]
    fn another_delivery_of_what_is_here_is_dropped() {
        let now = Instant::now();
        let mut queues = pushed(&[Item("a", 1), Item("a", 2)]);
        let (key, running) = pop(&mut queues).expect("a1");
        queues.push(Item("a", 1));
        queues.push(Item("a", 2));
        queues.park(key, running, now);
        queues.push(Item("a", 1));
        assert_eq!((queues.waiting(), queues.parked()), (0, (2, 20)));
    }

    #[test]
    fn messages_without_a_key_are_tried_again_by_themselves() {
        let now = Instant::now();
        let mut queues = pushed(&[Item("", 1), Item("", 2)]);
        let (key, first) = pop(&mut queues).expect("the first");
        queues.park(key, first, seconds(now, 1));
        assert_eq!(pop(&mut queues), Some((None, Item("", 2))));
        assert_eq!((queues.due_at(), queues.parked()), (Some(seconds(now, 1)), (1, 10)));
        queues.unpark(seconds(now, 1));
        assert_eq!(queues.parked(), (0, 0));
        assert_eq!(pop(&mut queues), Some((None, Item("", 1))));
        assert_eq!(queues.waiting(), 0);
    }

    #[test]
    fn what_is_parked_is_dropped_with_what_is_behind_it() {
        let now = Instant::now();
        let mut queues = pushed(&[Item("a", 1), Item("a", 2), Item("", 3), Item("b", 4)]);
        for _ in 0..2 {
            let (key, item) = pop(&mut queues).expect("a message");
            queues.park(key, item, now);
        }
        queues.abandon_parked();
        assert_eq!((queues.parked(), queues.waiting(), queues.due_at()), ((0, 0), 1, None));
        assert_eq!(pop(&mut queues).map(|(_, item)| item), Some(Item("b", 4)));
    }
}
