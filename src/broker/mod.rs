//! A broker for development and tests, in the process and on the same codec as the client.
//!
//! It serves the binary protocol as Apache Pulsar 4.0.8 does, rule by rule, down to when it closes a connection: so a
//! client that works here works there, and official clients work here unchanged. Beyond that it records each rule
//! that a client breaks, also those a real broker would let pass ([`EmbeddedBroker::violations`]).
//!
//! ```no_run
//! # async fn run() -> std::io::Result<()> {
//! use pulsar_native::broker::EmbeddedBroker;
//!
//! let broker = EmbeddedBroker::builder().token_key("a secret of your own").start().await?;
//! println!("{} {}", broker.url(), broker.token("admin"));
//! # Ok(())
//! # }
//! ```
//!
//! # What it is not
//! No durable storage: all is in memory and gone with the process. No cluster: one broker owns every topic, LOOKUP
//! always answers with its own address. No transactions, no replication, no compaction, no quotas but one on memory,
//! no TLS, no HTTP. One role may do everything, any other nothing.
//!
//! # Inside
//! [`machine::Broker`] decides and never reads a socket or a clock; `server` holds the sockets. A frame goes
//! `machine` -> one of the files below -> `topic`, `subscription`, `dispatch`.
//!
//! | file | commands, or what it keeps |
//! | --- | --- |
//! | `handshake` | CONNECT, AUTH_RESPONSE, keep-alive, refresh of credentials |
//! | `lookup`, `topic_list`, `schema` | PARTITIONED_METADATA, LOOKUP; topic lists and watchers; schemas |
//! | `producers`, `publish` | PRODUCER, CLOSE_PRODUCER; SEND |
//! | `consumers`, `acks`, `seek` | SUBSCRIBE, UNSUBSCRIBE; FLOW, ACK, REDELIVER; SEEK, GET_LAST_MESSAGE_ID |
//! | `topic`, `log`, `subscription`, `cursor` | the state |
//! | `dispatch`, `hashing` | who gets an entry |
//! | `operator`, `stats` | what an operator does and sees |
//! | `judge` | what clients did wrong |
//! | `faults` | what goes wrong on purpose |

mod admin;
mod commands;
pub mod config;
mod conformance;
mod connections;
mod dispatch;
mod embedded;
pub mod faults;
pub mod machine;
mod storage;
mod subscription;
mod topics;

pub use admin::stats::{ConsumerStats, SubscriptionStats, TopicStats};
pub use config::{BrokerConfig, DamagedEntries};
pub use conformance::{Rule, Violation};
#[cfg(feature = "sim")]
pub(crate) use connections::token::mint as mint_token;
pub use embedded::EmbeddedBroker;
pub use embedded::builder::EmbeddedBrokerBuilder;
pub use embedded::faults::{Faults, When};
pub use faults::{Effect, Event, Fault};
#[cfg(feature = "sim")]
pub(crate) use storage::log::Position;
