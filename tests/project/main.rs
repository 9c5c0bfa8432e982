//! Rules of the project itself: borders between modules, sizes, names, the lists in `docs/`; and the log of the chaos
//! test, a binary without libtest.

#[cfg(feature = "client")]
#[path = "../deliveries/mod.rs"]
#[allow(dead_code, reason = "what only the report of a run uses")]
mod deliveries;

#[cfg(feature = "client")]
mod api_traits;
mod architecture;
mod book;
#[cfg(feature = "client")]
mod delivery_log;
mod invariants;
