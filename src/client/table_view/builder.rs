//! Configuration of a table view.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::TableView;
use crate::client::encryption::ConsumerCryptoFailureAction;
#[cfg(feature = "encryption")]
use crate::client::encryption::CryptoKeyReader;
use crate::client::reader::ReaderBuilder;
use crate::client::topics::{Selection, Topics};
use crate::client::{Shared, parse_topic};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::consumer::SeekTo;

/// Configures a [`TableView`]; created by [`Client::table_view`](crate::Client::table_view). Java: `TableViewBuilder`.
///
/// Each option says its unit and its default. Defaults are those of the Java client 4.2.
///
/// ```no_run
/// # async fn example(client: pulsar_native::Client) -> Result<(), pulsar_native::Error> {
/// let prices = client.table_view("prices").create().await?;
/// println!("{} prices, {:?} for tea", prices.len(), prices.get("tea"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until `create` is called"]
pub struct TableViewBuilder {
    topics: Topics,
    reader: ReaderBuilder,
}

impl TableViewBuilder {
    pub(in crate::client) fn new(client: Arc<Shared>, topics: Topics) -> Self {
        let reader = ReaderBuilder::new(client, topics.clone(), SeekTo::Earliest.into());
        Self { topics, reader }
    }

    fn change(mut self, change: impl FnOnce(ReaderBuilder) -> ReaderBuilder) -> Self {
        self.reader = change(self.reader);
        self
    }

    /// The name of its reader, shown in the broker's statistics. Default: five random letters.
    pub fn reader_name(self, name: impl Into<String>) -> Self {
        self.change(|reader| reader.reader_name(name))
    }

    /// The name of its subscription on each topic: see [`ReaderBuilder::subscription_name`]. Default: `reader-` and ten random
    /// hexadecimal digits.
    #[doc(alias = "subscriptionName")]
    pub fn subscription_name(self, name: impl Into<String>) -> Self {
        self.change(|reader| reader.subscription_name(name))
    }

    /// How many messages the broker may send ahead, for each topic and partition: see
    /// [`ReaderBuilder::receiver_queue_size`]. Default: 1000, from which the queue grows.
    pub fn receiver_queue_size(self, messages: u32) -> Self {
        self.change(|reader| reader.receiver_queue_size(messages))
    }

    /// Whether partitions that are added to a topic join. They are read from their beginning. Default: true.
    pub fn auto_update_partitions(self, enabled: bool) -> Self {
        self.change(|reader| reader.auto_update_partitions(enabled))
    }

    /// How often the number of partitions is asked for, at least 1 second. Default: 1 minute.
    #[doc(alias = "autoUpdatePartitionsInterval")]
    pub fn auto_update_partitions_interval(self, interval: Duration) -> Self {
        self.change(|reader| reader.auto_update_partitions_interval(interval))
    }

    /// How often the topics of a pattern are listed: see [`ReaderBuilder::pattern_auto_discovery_period`]. Default: 1 minute.
    #[cfg(feature = "patterns")]
    pub fn pattern_auto_discovery_period(self, period: Duration) -> Self {
        self.change(|reader| reader.pattern_auto_discovery_period(period))
    }

    /// Where the private keys come from that open encrypted messages: see [`ReaderBuilder::crypto_key_reader`]. Default: none.
    #[cfg(feature = "encryption")]
    #[doc(alias = "cryptoKeyReader")]
    #[doc(alias = "defaultCryptoKeyReader")]
    pub fn crypto_key_reader(self, reader: impl CryptoKeyReader) -> Self {
        self.change(|it| it.crypto_key_reader(reader))
    }

    /// What becomes of an encrypted message that cannot be decrypted: see [`ReaderBuilder::crypto_failure_action`]. One that is
    /// not delivered changes nothing; [`TableView::events`] says so. Default: [`ConsumerCryptoFailureAction::Fail`].
    #[doc(alias = "cryptoFailureAction")]
    pub fn crypto_failure_action(self, action: ConsumerCryptoFailureAction) -> Self {
        self.change(|reader| reader.crypto_failure_action(action))
    }

    /// Reads the topics to their ends, of persistent ones the compacted view; later messages are applied as they come. It takes
    /// as long as there are messages to read.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an unusable option or topic name, no topic, or persistent topics
    ///   beside others.
    /// - The broker's refusal: unknown topic, no permission.
    /// - [`TimedOut`](ErrorKind::TimedOut), with the last cause, where the broker cannot be reached within the operation timeout.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was attached so far.
    pub async fn create(self) -> Result<TableView> {
        let is_persistent = self.is_persistent()?;
        let reader = self.reader.read_compacted(is_persistent).create().await?;
        let view = TableView::new(reader);
        view.refresh().await?;
        Ok(view)
    }

    /// Whether the topics have a compacted view.
    fn is_persistent(&self) -> Result<bool> {
        match self.topics.selection() {
            Selection::Names(names) => {
                let mut kinds = BTreeSet::new();
                for name in names {
                    kinds.insert(parse_topic(name)?.is_persistent());
                }
                if kinds.len() > 1 {
                    let what = "a table view reads persistent topics or non-persistent ones, and not both";
                    return Err(Error::local(ErrorKind::InvalidArgument, what));
                }
                Ok(kinds.contains(&true))
            }
            #[cfg(feature = "patterns")]
            Selection::Pattern(pattern) => Ok(!pattern.starts_with("non-persistent://")),
        }
    }
}

impl fmt::Debug for TableViewBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableViewBuilder").field("reader", &self.reader).finish_non_exhaustive()
    }
}
