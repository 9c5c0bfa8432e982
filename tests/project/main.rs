//! Rules of the project itself: borders between modules, sizes, names, and the lists in `docs/`.

#[cfg(feature = "client")]
mod api_traits;
mod architecture;
mod invariants;
