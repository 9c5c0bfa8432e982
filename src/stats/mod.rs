//! What producers and consumers count: histograms of times, errors by their code.

mod errors;
mod histogram;

pub use errors::ErrorCounts;
pub use histogram::Histogram;
