//! Whole clients, two brokers and a network in virtual time, from one seed.

mod sim;
mod sim_bites;
mod workload;
