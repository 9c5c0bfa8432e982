//! What a machine writes to when it is served: frames, and requests.

use crate::wire::command::Command;
use crate::wire::tx::TxBuf;

use crate::machine::connection::error::RequestError;

/// The response to a request: a command of the type that answers it, or why there is none.
pub type Response = Result<Box<Command>, RequestError>;

/// Which operation of an endpoint a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Op {
    /// Which operation.
    pub kind: OpKind,
    /// The machine's own number of the operation, by which it recognises a late response.
    pub number: u64,
}

/// The operations that an endpoint requests from a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// CLOSE_PRODUCER or CLOSE_CONSUMER.
    Close,
    /// ACK with a `request_id`.
    AckReceipt,
    /// UNSUBSCRIBE.
    Unsubscribe,
    /// SEEK.
    Seek,
    /// GET_LAST_MESSAGE_ID.
    LastMessageId,
    /// CONSUMER_STATS.
    Stats,
}

/// Whether an endpoint has more to write than its quantum allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum More {
    /// Nothing is left.
    No,
    /// It has more to write.
    Yes,
}

/// Where an endpoint writes when it is served: the connection's output, how much of it may be used, and its requests.
#[derive(Debug)]
pub struct Outbox<'a> {
    /// Where frames without an answer go.
    pub tx: &'a mut TxBuf,
    /// About how many bytes may be written; a single larger frame passes.
    pub quantum_bytes: usize,
    requests: &'a mut Vec<(Op, Command)>,
}

impl<'a> Outbox<'a> {
    /// An outbox that writes to `tx` and leaves its requests in `requests`.
    pub fn new(tx: &'a mut TxBuf, quantum_bytes: usize, requests: &'a mut Vec<(Op, Command)>) -> Self {
        Self { tx, quantum_bytes, requests }
    }

    /// Sends a request; the connection chooses the request id, and the response arrives at
    /// [`EndpointMachine::on_response`](super::machine::EndpointMachine::on_response).
    pub fn request(&mut self, op: Op, command: Command) {
        self.requests.push((op, command));
    }
}
