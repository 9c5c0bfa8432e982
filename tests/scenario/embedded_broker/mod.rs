//! The embedded broker in the hands of a test: its assertions, and several brokers of one cluster.

mod assertions;
mod brokers;
mod testing_requests;
