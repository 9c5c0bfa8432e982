//! Frames that a broker should not send, or that a client must be able to read: it skips or closes, and works on.

use std::time::Duration;

use bytes::Bytes;

use super::{TOPIC, framed, framed_raw, plain, still_works, with_producer};
use crate::pb;
use crate::referee::Scenario;
use crate::referee::stage::{PROMPT, Stage, Step, check};
use crate::wire::{AckWords, Frame};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "frame-in-pieces",
        must: "read frames that arrive in pieces of any size",
        source: "the framing over TCP: total_size, command_size",
        broker: plain,
        run: |stage| Box::pin(in_pieces(stage)),
    },
    Scenario {
        name: "frame-cut-off",
        must: "reconnect and send again when the connection ends within a frame",
        source: "the framing over TCP; CommandSend is sent again until its receipt",
        broker: plain,
        run: |stage| Box::pin(cut_off(stage)),
    },
    Scenario {
        name: "frame-oversized",
        must: "close a connection on which a frame of 2 GiB is announced, without waiting for its bytes",
        source: "LengthFieldBasedFrameDecoder with maxMessageSize + 10 KiB in PulsarChannelInitializer",
        broker: plain,
        run: |stage| Box::pin(oversized(stage)),
    },
    Scenario {
        name: "frame-undersized",
        must: "survive a command_size beyond its frame",
        source: "the framing: command_size <= total_size - 4",
        broker: plain,
        run: |stage| Box::pin(command_beyond_frame(stage)),
    },
    Scenario {
        name: "frame-garbage",
        must: "survive a frame whose command is no protobuf",
        source: "PulsarDecoder.channelRead closes the connection",
        broker: plain,
        run: |stage| Box::pin(garbage(stage)),
    },
    Scenario {
        name: "frame-padded",
        must: "skip bytes behind the command of a frame, up to total_size, and read the next frame",
        source: "PulsarDecoder reads command_size bytes of a frame that the decoder cut by total_size",
        broker: plain,
        run: |stage| Box::pin(padded(stage)),
    },
    Scenario {
        name: "command-unknown",
        must: "survive a command of an unknown type",
        source: "BaseCommand.type of a later protocol version",
        broker: plain,
        run: |stage| Box::pin(unknown_command(stage)),
    },
    Scenario {
        name: "field-unknown",
        must: "ignore an unknown field, and go on over the same connection",
        source: "protobuf: unknown fields are skipped",
        broker: plain,
        run: |stage| Box::pin(unknown_field(stage)),
    },
    Scenario {
        name: "error-unasked",
        must: "ignore an ERROR without a request",
        source: "ClientCnx.handleError: an unknown request id is logged",
        broker: plain,
        run: |stage| Box::pin(error_unasked(stage)),
    },
    Scenario {
        name: "connected-twice",
        must: "survive a second CONNECTED",
        source: "ClientCnx.handleConnected: checkArgument on the state closes the connection",
        broker: plain,
        run: |stage| Box::pin(connected_twice(stage)),
    },
    Scenario {
        name: "message-of-unknown-consumer",
        must: "ignore a MESSAGE for a consumer that it does not have",
        source: "ClientCnx.handleMessage: unknown consumers are skipped",
        broker: plain,
        run: |stage| Box::pin(message_of_unknown_consumer(stage)),
    },
];

async fn in_pieces(stage: &mut Stage) -> Step {
    let payloads = stage.publish_numbered(TOPIC, 5).await?;
    stage.relay.cut_into_pieces(3);
    with_producer(stage).await?;
    stage.subscribe("c", TOPIC, "exclusive", 100).await?;
    for payload in &payloads {
        stage.expect("c", payload).await?;
    }
    stage.expect("c", "first").await?;
    stage.at_most_connections(1, 0)
}

async fn cut_off(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    // The receipt is longer than that.
    stage.broker.faults().disconnect_after_bytes_sent(7);
    stage.send("p", 1, "twice at the broker").await?;
    stage.stored(1, super::super::stage::RECOVERY).await?;
    still_works(stage, 2).await
}

/// How soon a client closes a connection that it cannot read on.
const CLOSES: Duration = Duration::from_secs(5);

async fn oversized(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    let mark = stage.relay.mark();
    stage.relay.inject("a total_size of 2 GiB", Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 5, 8, 18]));
    stage.send("p", 1, "over a new link").await?;
    let opened = |recording: &super::super::relay::Recording| (recording.opened(mark) > 0).then_some(());
    stage.seen(CLOSES, "a new connection", opened).await?;
    stage.stored(1, PROMPT).await?;
    Ok(())
}

pub(super) async fn survives(stage: &mut Stage, what: &str, bytes: Bytes) -> Step {
    with_producer(stage).await?;
    stage.relay.inject(what, bytes);
    still_works(stage, 1).await?;
    stage.subscribe("c", TOPIC, "exclusive", 10).await?;
    stage.expect("c", "first").await?;
    Ok(())
}

async fn command_beyond_frame(stage: &mut Stage) -> Step {
    let bytes = Bytes::from_static(&[0, 0, 0, 9, 0, 0, 0xff, 0xff, 8, 18, 0x92, 1, 0]);
    survives(stage, "a command_size of 65535 in a frame of 13 bytes", bytes).await
}

async fn garbage(stage: &mut Stage) -> Step {
    survives(stage, "a command of nine 0xff", framed_raw(&[0xff; 9], &[])).await
}

async fn unknown_command(stage: &mut Stage) -> Step {
    // Type 4000, and a body in the field of that number.
    let bytes = framed_raw(&[0x08, 0xa0, 0x1f, 0x82, 0xfa, 0x01, 0x00], &[]);
    survives(stage, "a command of type 4000", bytes).await
}

async fn error_unasked(stage: &mut Stage) -> Step {
    let error = pb::CommandError { request_id: 987_654, error: 1, message: "no such request".to_owned() };
    let mark = stage.relay.mark();
    survives(stage, "ERROR for request 987654", framed(error)).await?;
    stage.at_most_connections(1, mark)
}

async fn connected_twice(stage: &mut Stage) -> Step {
    let connected =
        pb::CommandConnected { server_version: "referee".to_owned(), protocol_version: Some(21), ..Default::default() };
    survives(stage, "a second CONNECTED", framed(connected)).await
}

async fn message_of_unknown_consumer(stage: &mut Stage) -> Step {
    let head = crate::wire::MessageHead {
        consumer_id: 4711,
        ledger_id: 1,
        entry_id: 1,
        partition: -1,
        redelivery_count: 0,
        ack_set: AckWords::NONE,
        consumer_epoch: None,
    };
    let mut out = bytes::BytesMut::new();
    Frame::Message { head, entry: super::entries::entry(&super::entries::metadata(), b"of no consumer") }
        .encode(&mut out);
    let mark = stage.relay.mark();
    survives(stage, "a MESSAGE for consumer 4711", out.freeze()).await?;
    stage.at_most_connections(1, mark)
}

async fn padded(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    let mark = stage.relay.mark();
    let ping = framed(pb::CommandPing {});
    // The command alone, without its two lengths.
    stage.relay.inject("PING and three bytes behind the command", framed_raw(&ping[8..], &[1, 2, 3]));
    stage.sent_by_client("PONG", 1, mark, PROMPT).await?;
    stage.relay.inject("PING", ping);
    stage.sent_by_client("PONG", 2, mark, PROMPT).await?;
    still_works(stage, 1).await?;
    stage.at_most_connections(0, mark)
}

async fn unknown_field(stage: &mut Stage) -> Step {
    with_producer(stage).await?;
    let mark = stage.relay.mark();
    // PING, and the field 3000 of `BaseCommand` with the value 1.
    stage
        .relay
        .inject("PING with an unknown field", framed_raw(&[0x08, 0x12, 0x92, 0x01, 0x00, 0xc0, 0xbb, 0x01, 0x01], &[]));
    stage.sent_by_client("PONG", 1, mark, PROMPT).await?;
    still_works(stage, 1).await?;
    stage.at_most_connections(0, mark)?;
    check(stage.relay.look(|recording| recording.open()) == 1, || "it is no longer connected".to_owned())
}
