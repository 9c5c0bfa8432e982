//! What the client promises when everything around it fails: scripts over the public API, on the embedded broker.
//!
//! Each test arranges a client and brokers in memory, scripts a fault (`broker.faults()`), and states what the client
//! promises. The clock is paused and jumps from one timer to the next, so that a minute of waiting takes no time and a
//! bound in seconds is exact. In the end no broker may have recorded a violation.

mod acks;
mod attach;
mod cancel;
mod clusters;
mod codes;
mod connect;
mod connections;
mod credentials;
mod entries;
mod events;
mod forms;
mod hostile;
mod idle;
mod letters;
#[cfg(feature = "metrics")]
mod metrics;
mod older;
mod permits;
mod readers;
mod refusals;
mod seeks;
mod sends;
mod states;
pub(crate) mod support;
mod table_views;
mod trace_context;
#[cfg(feature = "tracing")]
mod traces;
mod unreadable;
mod user_code;
mod waits;
mod watchers;
