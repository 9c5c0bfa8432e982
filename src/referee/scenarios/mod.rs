//! The scenarios, by subject. Each is a row of a table and a function of the same name, which reads as what happens, step by step;
//! a step that does not come true ends it.

mod connections;
mod consumers;
mod entries;
mod frames;
mod lookups;
mod producers;
mod receipts;
mod vectors;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::Scenario;
use super::stage::{Stage, Step};
use super::verdict::Stop;
use crate::broker::{EmbeddedBroker, EmbeddedBrokerBuilder};
use crate::wire::{Command, Frame};

pub(super) const ALL: &[&[Scenario]] = &[
    lookups::SCENARIOS,
    connections::SCENARIOS,
    frames::SCENARIOS,
    producers::SCENARIOS,
    receipts::SCENARIOS,
    consumers::SCENARIOS,
    entries::SCENARIOS,
    vectors::SCENARIOS,
];

const TOPIC: &str = "persistent://public/default/orders";

/// One broker, as it is by default.
fn plain() -> EmbeddedBrokerBuilder {
    EmbeddedBroker::builder()
}

/// Two brokers of one cluster.
fn two_brokers() -> EmbeddedBrokerBuilder {
    EmbeddedBroker::builder().brokers(2)
}

/// The bytes of a command.
fn framed(command: impl Into<Command>) -> Bytes {
    let mut out = BytesMut::new();
    Frame::Other(command.into()).encode(&mut out);
    out.freeze()
}

/// A frame around any bytes as its command, and any behind it.
fn framed_raw(command: &[u8], behind: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32((4 + command.len() + behind.len()) as u32);
    out.put_u32(command.len() as u32);
    out.put_slice(command);
    out.put_slice(behind);
    out.freeze()
}

/// A URL without a listener: its port was free a moment ago.
fn dead_address() -> Step<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| Stop::glue(error.to_string()))?;
    let address = listener.local_addr().map_err(|error| Stop::glue(error.to_string()))?;
    Ok(format!("pulsar://{address}"))
}

/// A connected client with a producer `p` that has stored a message.
async fn with_producer(stage: &mut Stage) -> Step {
    stage.connect().await?;
    stage.producer("p", TOPIC).await?;
    stage.send_stored("p", 0, "first").await?;
    Ok(())
}

/// That a further message is stored through `p`: a client whose connection or producer had ended is back.
async fn still_works(stage: &mut Stage, id: u64) -> Step {
    stage.send_stored("p", id, &format!("again{id}")).await?;
    Ok(())
}
