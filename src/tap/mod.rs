//! Traffic between other clients and brokers: seen live by a proxy, or in a file.
//!
//! What goes by is a sequence of [`Segment`](crate::capture::Segment)s, whoever made them. The [`Inspector`] cuts frames out of
//! them, ties answers to requests and receipts to sends, keeps the ledgers of producers and consumers, and judges both sides by the
//! [rules](crate::rules). It gives [`Observation`]s, which people and programs read.
//!
//! | module | what it does | what it never does |
//! | --- | --- | --- |
//! | `inspector` | segments in, observations out | read a clock, do I/O, keep a payload or a token |
//! | `web` | a page in the browser that shows observations | send a credential, or listen beyond loopback |

mod inspector;
mod web;

pub use inspector::{
    Answered, Endpoint, FrameObservation, Inspector, InspectorConfig, Ledger, Observation, ObservedError,
    ObservedEvent, Violation,
};
pub use web::WebView;
