//! An [Apache Pulsar](https://pulsar.apache.org) client, written from the protocol up.
//!
//! ```
//! # #[cfg(feature = "broker")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use pulsar_native::broker::EmbeddedBroker;
//! use pulsar_native::{Client, InitialPosition, Message, Token};
//!
//! # let broker = EmbeddedBroker::builder().token_secret_key("a secret of at least 32 bytes, for HS256").start().await?;
//! # let (url, token) = (broker.url(), broker.token("admin"));
//! let client = Client::builder(url).authentication(Token::new(token)).connect().await?;
//!
//! let producer = client.producer("persistent://public/default/orders").create().await?;
//! let id = producer.send(Message::new("hello").with_property("k", "v").with_key("order-7")).await?;
//!
//! let mut consumer = client
//!     .consumer("persistent://public/default/orders", "billing")
//!     .initial_position(InitialPosition::Earliest)
//!     .subscribe()
//!     .await?;
//! let message = consumer.receive().await?;
//! assert_eq!((message.id(), message.key(), &*message.to_string_lossy()), (id, Some("order-7"), "hello"));
//! consumer.ack(&message)?;
//! # client.close().await?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "broker"))]
//! # fn main() {}
//! ```
//!
//! # Features
//! - Producers: batching, LZ4, sends as futures or callbacks, limits on pending messages, partitioned topics, sequence ids
//!   and deduplication, exclusive access, delayed delivery.
//! - Consumers: Exclusive, Shared, Failover and Key_Shared subscriptions, over one topic or several; acknowledgement one
//!   by one, cumulative and confirmed; negative acknowledgement, seek, statistics; a `Stream`, and pools of workers.
//! - Readers from any position, and table views: of each key the last value.
//! - Producers and consumers stay attached through lost connections and moved topics.
//! - Service URLs of the binary protocol (`pulsar://`, `pulsar+ssl://`) and of web ports (`http://`, `https://`).
//! - Authentication by token (fixed, from a file, from a function), OAuth2 client credentials or a custom method ([`Authentication`]); TLS with
//!   client certificates.
//! - End-to-end encryption of payloads, as by all official clients (`encryption`).
//! - For tests: an embedded broker (`broker`), and whole systems in virtual time from one seed (`sim`).
//!
//! # Where things are
//! - [`Client::builder`] is the entry point; [`Producer`] and [`Consumer`] are created from a [`Client`].
//! - [`Error`] is the error type; a send fails with [`SendError`], which says whether the message may be stored.
//! - The folder `examples` of the repository has short programs, each on one subject.
//!
//! | crate feature | default | what |
//! | --- | --- | --- |
//! | `client` | yes | the client, over tokio |
//! | `tls` | yes | `pulsar+ssl://` |
//! | `lz4` | yes | LZ4 payloads |
//! | `encryption` | no | end-to-end encryption of payloads |
//! | `oauth2` | no | tokens of an identity provider: `OAuth2` |
//! | `broker` | no | the embedded broker |
//! | `sim` | no | the simulation |
//! | `tracing` | no | spans and events of what happens to connections, producers and consumers |
//! | `metrics` | no | counters, gauges and histograms for a recorder of the `metrics` facade |
//! | `capture` | no | captured traffic, to be explained and replayed |
//! | `tap` | no | a proxy that shows the traffic of other clients: [`tap`] |
//! | `referee` | no | scenarios and a judge for clients in any language: [`referee`] |
//! | `cli` | no | the command line `pulsar-native` |
//!
//! # Internals, unstable
//! [`wire`] (bytes to frames and back), [`machine`] (protocol state without I/O and without a clock), [`pb`] (the types
//! of `PulsarApi.proto`) and [`hash`] are public for study, tools and fuzzing. Their API may change in any release before
//! 1.0; what is re-exported from them at the top of the crate may not.
//!
//! # What it is not
//! There are no typed schemas (a [`SchemaInfo`] is passed on, the application serialises) and no transactions yet. A message that this client cannot read is an event ([`Consumer::events`]) and stays unacknowledged.
//!
//! # Promises
//! The letters are those of `docs/invariants.md` in the repository, which names the tests that hold each of them.
//! - Every send resolves exactly once: with its id, or with a [`SendError`] that says whether the message may be
//!   stored. Its deadline counts from the call, in whatever state the connection is. (S1 to S3)
//! - Order per producer (and partition) is kept across reconnects; re-sent frames are byte-identical; where the broker
//!   deduplicates, nothing is doubled. (S4 to S9)
//! - A message that was not acknowledged is delivered again, and one whose acknowledgement was confirmed is not. A
//!   message not known to be acknowledged counts as not acknowledged. Acknowledgements made without a connection are
//!   sent on the next one. (D1 to D7)
//! - The broker is never allowed more messages than the queue holds, and delivery never stops while there are
//!   messages. (P1 to P8)
//! - When a topic moves, only its own producers and consumers are re-attached. One that was given up is closed at the
//!   broker. A permanent error fails everything that waits for it, at once. (A1 to A8)
//! - Every wait ends, by its response or by its deadline. (W1 to W3)
//! - Dropping a future at any point loses nothing and breaks nothing. (W4)
//! - Reading never stops: not for sends, not for an application that does not receive, not for a peer that does not
//!   read. A half-open connection is detected within two keep-alive intervals. (L1 to L4)
//! - A challenge is answered with a fresh token while traffic continues; a refused token is fetched once more, then it
//!   is a terminal error. (C1, C2)
//! - After a close no socket, task or timer is left. (X1 to X3)
//! - Memory is bounded: each queue has a limit. (X5)
//! - No credential is shown in `Debug`, in an error or in a log. (C4)
//! - Any bytes from a peer result in a message, an error or the end of that connection. (L5, E1 to E4)
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[macro_use]
mod mutation;

mod base64_text;
#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "capture")]
pub mod capture;
mod checkpoint;
#[cfg(feature = "client")]
pub mod client;
#[cfg(any(all(feature = "broker", feature = "tls"), test, fuzzing))]
mod common_name;
pub mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod hash;
#[cfg(any(feature = "http", feature = "broker"))]
mod http_io;
pub mod id;
pub mod machine;
pub mod pb;
mod percent;
#[cfg(feature = "referee")]
pub mod referee;
#[cfg(any(feature = "broker", feature = "capture"))]
pub mod rules;
pub mod schema;
#[cfg(feature = "sim")]
pub mod sim;
mod splitmix;
pub mod stats;
#[cfg(feature = "tap")]
pub mod tap;
#[cfg(feature = "broker")]
pub mod testing;
#[cfg(feature = "tls")]
mod tls_provider;
pub mod topic;
mod trace_context;
mod wall_time;
pub mod wire;

#[doc(inline)]
pub use checkpoint::{Checkpoint, CheckpointError};
#[cfg(feature = "http")]
pub use client::ControlledClusterFailover;
#[cfg(feature = "oauth2")]
#[doc(inline)]
pub use client::OAuth2;
#[cfg(feature = "patterns")]
#[doc(inline)]
pub use client::RegexSubscriptionMode;
#[cfg(feature = "client")]
#[doc(inline)]
pub use client::{
    Acker, AttachState, Authentication, Basic, BatchReceivePolicy, BrokerStats, CapacityBound, Client, ClientBuilder,
    ClientState, ConnectionPhase, ConnectionState, Consumer, ConsumerBuilder, ConsumerCryptoFailureAction,
    ConsumerEvent, ConsumerEvents, ConsumerInterceptor, DeadLetterNames, DeadLetterPolicy, DrainReport,
    EncryptionContext, EncryptionKey, Events, HandleState, HashingScheme, IdleReason, IncompleteReason, MemoryUsage,
    MessageRouter, MessageRoutingMode, MessagesUntil, Outcome, PartIdle, PartState, Producer, ProducerBuilder,
    ProducerCryptoFailureAction, ProducerEvent, ProducerEvents, ProducerInterceptor, ProducerSink, ProxyProtocol,
    ReadUntil, Reader, ReaderBuilder, ReaderStart, ReceivedMessage, StateWatch, TableIter, TableListener,
    TableSnapshot, TableView, TableViewBuilder, TlsAuthentication, Token, Topics, TryEnqueueError, UnreadableChunk,
    UnreadableMessage, UnreadableReason, WhyIdle, WorkOptions,
};
#[cfg(feature = "client")]
#[doc(inline)]
pub use client::{AutoClusterFailover, Cluster};
#[cfg(feature = "http")]
#[doc(inline)]
pub use client::{ConnectedConsumerStatistics, SubscriptionStatistics, TopicStatistics};
#[cfg(feature = "encryption")]
#[doc(inline)]
pub use client::{CryptoKeyReader, EncryptionKeyInfo, PemKey, PemKeyReader};
#[doc(inline)]
pub use error::{Error, ErrorKind, Origin, SendError, ServerCode, ServerError};
#[doc(inline)]
pub use id::MessageId;
#[doc(inline)]
pub use machine::consumer::{
    ConsumerStats, InitialPosition, KeySharedPolicy, RedeliveryBackoff, SeekTo, SubscriptionType,
    UnreadableMessagePolicy,
};
#[doc(inline)]
pub use machine::producer::results::{OnSent, PendingSend, SendCallback};
#[doc(inline)]
pub use machine::producer::{AccessMode, BatchingType, Message, ProducerStats};
#[doc(inline)]
pub use schema::{SchemaInfo, SchemaType};
pub use trace_context::TraceContext;
#[doc(inline)]
pub use wire::compress::Compression;
