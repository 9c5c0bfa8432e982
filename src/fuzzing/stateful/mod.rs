//! Targets with state: an input is a script that drives machines in virtual time.
//!
//! A script is read by [`Choices`], byte by byte; an input that ends leaves zeros, so that every input is a script and a shorter
//! one is a prefix. The number of steps is bounded, whatever the input.
//!
//! | target | what is driven | what must hold |
//! | --- | --- | --- |
//! | [`hostile_broker`] | supervisor, sessions, producers, consumers, a watcher; in front of a broker that lies | each send and reply ends once and in time, permits, bounds of queues, recovery once the broker is honest |
//! | [`hostile_client`] | the embedded broker's machine, by clients that keep to nothing | no answer too many, no message without a permit, counts of unacknowledged messages, what is stored |
//! | [`tap`] | inspector, mask, rewriter and queue of the tap | bytes pass exactly, how they are split changes nothing, no secret is left |
//! | [`world`] | whole clients, two brokers and a network | the checkers of the simulator, and that what is confirmed is stored and received |

#[cfg(feature = "broker")]
mod broker;
#[cfg(feature = "broker")]
mod choices;
#[cfg(feature = "broker")]
mod client;
#[cfg(feature = "broker")]
mod clock;
#[cfg(feature = "broker")]
mod frames;
#[cfg(feature = "tap")]
mod tap;
#[cfg(feature = "sim")]
mod world;

#[cfg(feature = "broker")]
pub use broker::hostile_client;
#[cfg(feature = "broker")]
use choices::Choices;
#[cfg(feature = "broker")]
pub use client::hostile_broker;
#[cfg(feature = "tap")]
pub use tap::tap;
#[cfg(feature = "sim")]
pub use world::world;
