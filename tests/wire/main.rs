//! The wire format against recorded facts: the compiled schema, and frames with what is in them.

mod explain;
mod proto_schema;
mod vectors;
