//! A native Apache Pulsar client.
#![forbid(unsafe_code)]

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
pub mod topic;
pub mod wire;

#[cfg(feature = "client")]
pub use client::{
    Acker, Client, ClientBuilder, Consumer, ConsumerBuilder, ConsumerStats, Producer, ProducerBuilder, ReceivedMessage,
    Token, TryEnqueueError,
};
pub use error::{Error, ErrorKind, Origin, SendError, ServerCode, ServerError};
pub use id::MessageId;
pub use machine::consumer::{ConsumerConfig, InitialPosition, KeySharedPolicy, SeekTo, SubscriptionType};
pub use machine::outcomes::{PendingSend, SendCallback};
pub use machine::producer::{AccessMode, Message, ProducerConfig};
pub use wire::compress::Compression;
