//! Traffic between other clients and brokers: seen live by a proxy, or in a file.
//!
//! What goes by is a sequence of [`Segment`](crate::capture::Segment)s, whoever made them. The [`Inspector`] cuts frames out of
//! them, ties answers to requests and receipts to sends, keeps the ledgers of producers and consumers, and judges both sides by the
//! [rules](crate::rules). It gives [`Observation`]s, which people and programs read.
//!
//! ```no_run
//! use pulsar_native::tap::{Inspector, InspectorConfig, Tap, TapItem};
//!
//! # async fn run() -> Result<(), pulsar_native::Error> {
//! let (tap, feed) = Tap::builder("pulsar://broker.example.com:6650").start().await?;
//! println!("clients go to {}", tap.url());
//! std::thread::spawn(move || {
//!     let mut inspector = Inspector::new(InspectorConfig::default());
//!     let mut seen = Vec::new();
//!     for item in feed {
//!         match item {
//!             TapItem::Segment(segment) => inspector.inspect(&segment, &mut seen),
//!             TapItem::Note(text) => println!("{text}"),
//!             _ => {}
//!         }
//!         seen.drain(..).for_each(|observation| println!("{observation}"));
//!     }
//! });
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it does | what it never does |
//! | --- | --- | --- |
//! | `inspector` | segments in, observations out | read a clock, do I/O, keep a payload or a token |
//! | `proxy` | forwards bytes between clients and brokers, and tells of them | wait for whoever looks at them |
//! | `cutter` | where frames begin, also behind missing bytes; other protocols | decode a frame |
//! | `budget` | how much all connections keep together | refuse anything by itself |
//! | `mask` | overwrites secrets before traffic is written down | change a length |
//! | `queue` | what is between the two | grow without bound |
//! | `replay` | what the embedded broker would have answered | I/O |
//! | `web` | a page in the browser that shows observations | send a credential, or listen beyond loopback |

mod budget;
mod cutter;
mod inspector;
mod mask;
pub(crate) mod proxy;
mod queue;
mod replay;
mod web;

pub use inspector::{
    Answered, Endpoint, FrameObservation, Inspector, InspectorConfig, Ledger, Observation, ObservedError,
    ObservedEvent, Violation,
};
pub use mask::{Masker, Masking};
pub use proxy::{Tap, TapBuilder};
pub use queue::{TapFeed, TapItem, TapQueue};
pub use replay::{Reaction, Replay, ReplayDifference, ReplaySummary};
pub use web::WebView;
