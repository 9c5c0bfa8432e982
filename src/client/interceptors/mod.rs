//! Code of the application that sees every message on its way: Java's `ProducerInterceptor` and `ConsumerInterceptor`.
//!
//! | file | what it does |
//! | --- | --- |
//! | `producer.rs` | before a send, and its outcome |
//! | `consumer.rs` | before a message is handed out, acknowledgements, redeliveries |
//!
//! Without interceptors nothing of this is on the way of a message: a producer looks at one `Option`, that of traces too, a
//! consumer at one for each acknowledgement. What a consumer with interceptors gives takes the slow path.

use std::panic::{AssertUnwindSafe, catch_unwind};

mod consumer;
mod producer;

pub use consumer::ConsumerInterceptor;
pub(super) use consumer::{ConsumerInterceptors, RedeliverySource};
pub use producer::ProducerInterceptor;
pub(super) use producer::SendHooks;

/// Calls the application's code. A panic is reported by the panic hook and has no other effect: `None`.
fn call<T>(code: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(code)).ok()
}
