//! A broker for development and tests, in the process and on the same codec as the client.
//!
//! It serves the binary protocol as Apache Pulsar 4.0.8 does, rule by rule, down to when it closes a connection: so a
//! client that works here works there, and official clients are meant to work here unchanged. [`EmbeddedBroker::like`]
//! leaves out what an older release does not have, from 2.6 on. Beyond that it records each rule that a client breaks, also those a real broker would let pass ([`EmbeddedBroker::violations`]), and lets tests
//! script what goes wrong ([`EmbeddedBroker::faults`]).
//!
//! ```no_run
//! # async fn run() -> std::io::Result<()> {
//! use pulsar_native::broker::EmbeddedBroker;
//!
//! let broker = EmbeddedBroker::builder().token_secret_key("a secret of your own").start().await?;
//! println!("{} {}", broker.url(), broker.token("admin"));
//! # Ok(())
//! # }
//! ```
//!
//! # What it is not
//! No durable storage: all is in memory and lost with the process. [`EmbeddedBrokerBuilder::brokers`] makes several brokers of one
//! cluster, in this process. No transactions, no replication.
//!
//! # Inside
//! A frame goes `embedded` (sockets) -> [`machine::Broker`] (state, no socket, no clock) -> a file of `commands` -> the
//! parts of the state, and its response into the outbox of its connection. `commands`, `admin` and
//! `machine` are one `impl Broker` in three folders, on which `rest` works; the folders below them use nothing of them:
//!
//! | folder | what it is for |
//! | --- | --- |
//! | `embedded` | sockets, tasks, and the public handles |
//! | `commands`, `admin` | what a client's command does; what an administrator, a test or the simulator does |
//! | `rest` | the admin API and the lookups over HTTP: one table of routes, a file for each area |
//! | `machine` | in which order things happen: inputs, outputs, timers; which requests a fault takes effect on |
//! | `dispatch` | which consumer gets which entry |
//! | `topics` | which topics there are; names, access modes and sequence ids of producers; schemas; watchers |
//! | `subscription` | what is acknowledged, what is sent next, which consumer holds what |
//! | `connections` | what each client has negotiated and named; frames on their way out |
//! | `policies` | what namespaces and topics set, and which value counts |
//! | `authentication` | the role of a client, by token, certificate, password or a method of the test |
//! | `storage` | positions and offsets: the log and the cursors |
//! | `faults` | on which event a scripted fault takes effect, and how |
//! | `tenants` | tenants and clusters by name |
//! | `like` | what an older release of Pulsar does not have |
//! | `conformance` | which rules clients broke, without an effect on the responses |

mod admin;
pub(crate) mod authentication;
mod commands;
mod config;
mod conformance;
mod connections;
mod dispatch;
mod embedded;
mod faults;
mod ids;
mod like;
pub mod machine;
mod policies;
mod refusal;
mod rest;
mod storage;
mod subscription;
mod tenants;
mod topics;

pub use admin::{ConnectedConsumerStats, StoredMessage, SubscriptionStats, TopicStats};
#[cfg(feature = "sim")]
pub(crate) use authentication::token::mint as mint_token;
pub use authentication::{AuthenticationProvider, AuthenticationState, AuthenticationStep};
#[cfg(feature = "tap")]
pub(crate) use commands::{is_namespace, version_of};
pub use config::{BrokerConfig, DamagedEntries};
pub use conformance::{ConformanceViolation, Rule};
#[cfg(feature = "tap")]
pub(crate) use embedded::self_signed_acceptor;
pub use embedded::{
    Assertion, BrokerSetting, BrokerSettingError, EmbeddedBroker, EmbeddedBrokerBuilder, FaultBuilder, Faults,
};
pub use faults::{FaultEffect, FaultEvent, ScriptedFault};
pub use like::{PulsarVersion, UnknownPulsarVersion};
pub use policies::{
    AuthAction, AutoTopicCreation, BacklogQuota, BacklogQuotaPolicy, BacklogQuotaType, DelayedDelivery, DispatchRate,
    InactiveTopicDeleteMode, InactiveTopicPolicies, PersistencePolicies, PolicySet, PublishRate, RetentionPolicies,
    SchemaCompatibilityStrategy,
};
#[cfg(any(test, fuzzing))]
pub(crate) use topics::schemas::avro;
#[cfg(feature = "tap")]
pub(crate) use topics::{SentFrame, SequenceIds};
