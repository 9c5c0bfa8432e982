//! Whole clients, two brokers and a network in virtual time, from one seed.

mod sim;
#[cfg(pulsar_mutations)]
mod sim_bites;
mod workload;
