//! Table views: of each key of a topic the last value, kept current.
//!
//! | file | what it does |
//! | --- | --- |
//! | `builder` | options; reads the topics to their ends once |
//! | `follow` | a task that reads, and says when it has read far enough |
//! | `table` | the entries, their snapshots, and the listeners |
//!
//! A [`TableView`] never writes to a topic. Its task owns the reader, so that only it applies messages; the handle asks for the
//! last messages itself, and has the task say when they are read.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use super::clock;
use super::consumer_shared::ConsumerShared;
use super::events::ConsumerEvents;
use super::growth::sleep;
use super::parts::{Part, all};
use super::reader::Reader;
use super::state::HandleState;
use super::workers::Tasks;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::Reply;
use crate::machine::consumer::Consumer as Machine;

mod builder;
mod follow;
mod table;

pub use builder::TableViewBuilder;
use follow::{End, Follower, REFRESHES_MAX, Refresh, Target};
use table::Table;
pub use table::{TableIter, TableListener, TableSnapshot};

/// After so long a refresh asks again what the last messages are: compaction may have removed those that it waits for.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Of each key of a topic the last value, kept in memory and current; created by
/// [`Client::table_view`](super::Client::table_view). Java: `TableView`.
///
/// It reads the topic from its beginning, of a persistent one the compacted view, and follows it. Of messages with the same
/// key the last one counts, in the order of their partition. An empty payload removes the key, and messages without a key
/// are skipped. A key of bytes is its base64 text, as in Java. Partitions that are added are read from their beginning. What
/// cannot be read is an [event](Self::events), and changes nothing; of a topic that is deleted the entries stay.
///
/// Partitions are read side by side. So a key that is in two of them, because its partition became another one when some
/// were added, or is in several of the topics, has the value that is read last: of a view that was there all the time the
/// newest, of one that begins later any of them. It is the same with Java's.
///
/// ```no_run
/// # async fn example(client: pulsar_native::Client) -> Result<(), pulsar_native::Error> {
/// let prices = client.table_view("prices").create().await?;
/// let _listener = prices.for_each_and_listen(|key, price| match price {
///     Some(price) => println!("{key} costs {}", String::from_utf8_lossy(price)),
///     None => println!("{key} is not for sale"),
/// });
/// // Everything that was published before this call:
/// prices.refresh().await?;
/// println!("{:?}", prices.get("tea"));
/// # Ok(())
/// # }
/// ```
///
/// **Memory.** An entry takes the bytes of its key and value and at most 160 more. Nothing is kept of keys that were removed,
/// but for their room in the table, which is at most four times that of the entries.
///
/// It is cheap to clone. Dropping the last clone closes it at the broker; listeners then hear nothing more.
#[derive(Clone)]
pub struct TableView {
    inner: Arc<Inner>,
}

struct Inner {
    table: Arc<Table>,
    refreshes: mpsc::Sender<Refresh>,
    /// One for each refresh that waits, however often it asks again.
    places: Semaphore,
    end: Arc<End>,
    shared: Arc<ConsumerShared>,
    /// Ends with the view, and its reader with it.
    _task: Tasks<()>,
}

impl TableView {
    /// Begins to read.
    fn new(reader: Reader) -> Self {
        let shared = reader.shared().clone();
        let (table, end) = (Arc::new(Table::new()), Arc::<End>::default());
        let (refreshes, asked) = mpsc::channel(REFRESHES_MAX);
        let follower = Follower { reader, table: table.clone(), refreshes: asked, end: end.clone() };
        let task = shared.client().spawn(follower.run());
        let places = Semaphore::new(REFRESHES_MAX);
        Self { inner: Arc::new(Inner { table, refreshes, places, end, shared, _task: task }) }
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Bytes> {
        self.inner.table.with(|entries| entries.get(key).cloned())
    }

    /// Whether the key has a value.
    #[must_use]
    #[doc(alias = "containsKey")]
    pub fn contains_key(&self, key: &str) -> bool {
        self.inner.table.with(|entries| entries.contains_key(key))
    }

    /// How many keys have a value. Java: `size`.
    #[must_use]
    #[doc(alias = "size")]
    pub fn len(&self) -> usize {
        self.inner.table.with(TableSnapshot::len)
    }

    /// Whether no key has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries as they are now, to be iterated over: what comes later does not change it. Copies no entry. Java:
    /// `entrySet`, `keySet`, `values`, `forEach`.
    #[doc(alias = "entrySet")]
    #[doc(alias = "keySet")]
    #[doc(alias = "values")]
    #[doc(alias = "forEach")]
    #[must_use]
    pub fn snapshot(&self) -> TableSnapshot {
        self.inner.table.with(TableSnapshot::clone)
    }

    /// Calls `on_change` for each change from now on, with the key and its new value; `None`: the key is removed, whether or
    /// not it had a value. Java: `listen`.
    ///
    /// It is called on the task of the view, one change after the other and in the order of reading: while it runs nothing is
    /// read. The view has the change already. A panic in it is reported by the panic hook and has no other effect.
    pub fn listen(&self, on_change: impl FnMut(&str, Option<&Bytes>) + Send + 'static) -> TableListener {
        self.inner.table.listen(on_change)
    }

    /// Calls `on_change` for each entry that is there, before this returns; then for each change, as [`listen`](Self::listen)
    /// does. No change between the two is left out or told before its key's entry: changes wait for it to be done. Java:
    /// `forEachAndListen`.
    ///
    /// # Panics
    /// If `on_change` does for an entry that is there; then it is not called any more.
    #[doc(alias = "forEachAndListen")]
    pub fn for_each_and_listen(&self, on_change: impl FnMut(&str, Option<&Bytes>) + Send + 'static) -> TableListener {
        self.inner.table.for_each_and_listen(on_change)
    }

    /// Waits until everything that was published before this call is in the view, and told to its listeners. Java:
    /// `refresh` (PIP-302).
    ///
    /// It asks each topic and partition for its last message (GET_LAST_MESSAGE_ID) and waits until that is read. A topic that is
    /// not persistent has none, and partitions that the view has not found yet are not waited for. Of calls at the same time 64
    /// wait for their messages, and the others for one of them to end.
    ///
    /// # Errors
    /// - [`TimedOut`](ErrorKind::TimedOut): a broker did not answer within the operation timeout.
    /// - The broker's refusal; the reason why the view has [ended](Self::error).
    ///
    /// # Cancel safety
    /// Dropping the future has no effect on the view.
    #[doc(alias = "refreshAsync")]
    pub async fn refresh(&self) -> Result<()> {
        let mut targets = self.last_messages().await?;
        let _place = self.inner.places.acquire().await;
        let mut timer = self.inner.shared.new_timer();
        loop {
            let (done, mut reply) = Reply::pair();
            if self.inner.refreshes.send(Refresh { targets: targets.clone(), done }).await.is_err() {
                return Err(self.closed());
            }
            let mut asking_again = pin!(sleep(&mut *timer, ASK_AGAIN_AFTER));
            let result = poll_fn(|cx| match std::pin::Pin::new(&mut reply).poll(cx) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending => asking_again.as_mut().poll(cx).map(|()| None),
            });
            if let Some(result) = result.await {
                return result;
            }
            let now = self.last_messages().await?;
            targets = earlier(targets, &now);
        }
    }

    /// The last message of each topic and partition that stores messages.
    async fn last_messages(&self) -> Result<Vec<Target>> {
        if let Some(error) = self.inner.end.get() {
            return Err(error);
        }
        let parts = self.inner.shared.parts.asked(|_| false);
        let ask = |part: Arc<Part<Machine>>| {
            let last = part.ask(|machine, reply, deferred| machine.last_message_id(reply, clock::now(), deferred));
            (part, last)
        };
        // All are asked before the first answer is awaited.
        let asked: Vec<_> =
            parts.into_iter().filter(|part| !part.topic.starts_with("non-persistent:")).map(ask).collect();
        let mut targets = Vec::with_capacity(asked.len());
        for (part, last) in asked {
            targets.push(Target { part, last: last.await? });
        }
        Ok(targets)
    }

    fn closed(&self) -> Error {
        self.inner.end.get().unwrap_or_else(|| Error::local(ErrorKind::Closed, "the table view is closed"))
    }

    /// Why the view has ended, if it has: it was closed, or the last of its topics and partitions has ended permanently. Its
    /// entries stay as they were.
    pub fn error(&self) -> Option<Error> {
        self.inner.end.get()
    }

    /// Its events: a topic or partition has ended, a message cannot be read. See
    /// [`Consumer::events`](super::Consumer::events).
    pub fn events(&self) -> ConsumerEvents {
        ConsumerEvents::new(self.inner.shared.events.clone())
    }

    /// Where each topic and partition is attached, or why it is not.
    pub fn state(&self) -> HandleState {
        self.inner.shared.parts.state()
    }

    /// Whether every topic and partition is attached to a broker at the moment: while one is not, its changes are not seen.
    pub fn is_connected(&self) -> bool {
        self.inner.shared.parts.are_attached()
    }

    /// The full names of the topics it was created for, or the pattern.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.inner.shared.topics.iter().map(|topic| &**topic)
    }

    /// Closes its reader at the broker, and waits for the answer. The entries stay, and do not change any more.
    ///
    /// # Errors
    /// - [`TimedOut`](ErrorKind::TimedOut): no answer within the operation timeout.
    /// - The broker's refusal.
    ///
    /// The view has ended in either case.
    ///
    /// # Cancel safety
    /// The close continues when the future is dropped.
    pub async fn close(&self) -> Result<()> {
        let closed = all(self.inner.shared.close()).await;
        // The task has seen it: nothing changes any more.
        self.inner.refreshes.closed().await;
        closed
    }
}

/// The targets, as far as they are still there: what was compacted away cannot be read any more.
fn earlier(targets: Vec<Target>, now: &[Target]) -> Vec<Target> {
    let place = |target: &Target| (target.last.id.ledger_id as i64, target.last.id.entry_id as i64);
    let still = |target: Target| {
        let last = now.iter().find(|last| last.part.id() == target.part.id())?;
        Some(if place(last) < place(&target) { last.clone() } else { target })
    };
    targets.into_iter().filter_map(still).collect()
}

impl fmt::Debug for TableView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topics: Vec<_> = self.topics().collect();
        write!(f, "TableView({} entries of {})", self.len(), topics.join(", "))
    }
}
