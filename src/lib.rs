//! An [Apache Pulsar](https://pulsar.apache.org) client, written from the protocol up.
//!
//! ```
//! # #[cfg(feature = "broker")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use pulsar_native::broker::EmbeddedBroker;
//! use pulsar_native::{Client, InitialPosition, Message, Token};
//!
//! # let broker = EmbeddedBroker::builder().token_key("a secret of at least 32 bytes, for HS256").start().await?;
//! # let (url, token) = (broker.url(), broker.token("admin"));
//! let client = Client::builder(url).auth(Token::new(token)).connect().await?;
//!
//! let producer = client.producer("persistent://public/default/orders").create().await?;
//! let id = producer.send(Message::new("hello").property("k", "v").key("order-7")).await?;
//!
//! let mut consumer = client
//!     .consumer("persistent://public/default/orders", "billing")
//!     .initial_position(InitialPosition::Earliest)
//!     .subscribe()
//!     .await?;
//! let message = consumer.receive().await?;
//! assert_eq!((message.id(), message.key(), &*message.text()), (id, Some("order-7"), "hello"));
//! consumer.ack(&message)?;
//! # client.close().await?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "broker"))]
//! # fn main() {}
//! ```
//!
//! # The rooms
//! - [`wire`]: bytes to frames and back. No state over frames, no I/O.
//! - [`machine`]: protocol state without I/O and without a clock.
//! - `client` (feature `client`): the tokio client; the only room with sockets and clocks. Its handles are re-exported
//!   here: [`Client`], [`Producer`], [`Consumer`].
//! - `broker` (feature `broker`): an embedded broker for development and tests.
//! - [`pb`]: the types of `PulsarApi.proto`.
//!
//! `wire`, `machine` and `pb` are public for study, tools and fuzzing; their API may change in any minor version
//! before 1.0.
//!
//! # What it is not
//! There are no schemas, transactions, end-to-end encryption, chunked messages, readers, dead-letter topics and topic
//! patterns yet. A message that this client cannot read is reported by [`Consumer::receive`] and stays
//! unacknowledged.
//!
//! # Promises
//! - Every send resolves exactly once: with its id, or with a [`SendError`] that says whether the message may be
//!   stored. Its deadline counts from the call, in whatever state the connection is.
//! - Order per producer (and partition) is kept across reconnects; re-sent frames are byte-identical.
//! - A message that was not acknowledged is delivered again. What is not known to be acknowledged counts as not
//!   acknowledged.
//! - Memory is bounded: each queue has a bound, and its name says the unit.
//! - No credential shows in `Debug`, in an error or in a log.
//! - Whatever bytes a peer sends, they end in a message, an error or the end of that connection.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "client")]
pub mod client;
pub mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod hash;
pub mod id;
pub mod machine;
pub mod pb;
#[cfg(feature = "sim")]
pub mod sim;
pub mod topic;
pub mod wire;

#[cfg(feature = "client")]
pub use client::{
    Acker, Authentication, Client, ClientBuilder, Consumer, ConsumerBuilder, ConsumerStats, KeyHash, Producer,
    ProducerBuilder, ReceivedMessage, Routing, Token, Topics, TryEnqueueError,
};
pub use error::{Error, ErrorKind, Origin, SendError, ServerCode, ServerError};
pub use id::MessageId;
pub use machine::consumer::{ConsumerConfig, InitialPosition, KeySharedPolicy, SeekTo, SubscriptionType};
pub use machine::outcomes::{PendingSend, SendCallback};
pub use machine::producer::{AccessMode, Message, ProducerConfig};
pub use wire::compress::Compression;
