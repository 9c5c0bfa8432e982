//! Whole clients, two brokers or two clusters, and a network in virtual time, from one seed.

mod clusters;
mod growth;
mod harness;
#[cfg(pulsar_mutations)]
mod mutations;
mod patterns;
mod readers;
mod scaling;
mod sim;
mod table_view;
mod workload;
