//! Whole clients, two brokers and a network in virtual time, from one seed.

#[cfg(pulsar_mutations)]
mod mutations;
mod sim;
mod workload;
