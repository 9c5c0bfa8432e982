//! Frames, handshake, lookup.

use std::fmt::Write;

use pulsar_native::broker::machine::RestRequest;
use pulsar_native::pb;

use crate::book::frames::{Blocks, Exchange, frame};
use crate::support::{BrokerHarness, TOPIC};

pub(super) fn blocks(blocks: &mut Blocks) {
    blocks.vector("ping", "either side", "ping");
    blocks.vector("pong", "either side", "pong");
    blocks.vector("send-single", "client", "send_single");
    blocks.vector("message-broker-entry", "broker", "message_with_broker_entry_metadata");
    blocks.vector("cut-varint", "either side", "command_truncated_varint");
    blocks.vector("command-larger-than-frame", "either side", "frame_total_smaller_than_command");

    blocks.vector("connect-token", "client", "connect_token");
    blocks.vector("connected", "broker", "broker408_connected");
    blocks.vector("wrong-token", "broker", "broker408_error_auth_wrong_token");
    blocks.vector("challenge", "broker", "broker408_auth_challenge_refresh");
    blocks.vector("challenge", "client", "auth_response");

    lookup(blocks);
    blocks.vector("redirect", "broker 1", "broker408_lookup_redirect");
    let second = pb::CommandLookupTopic {
        topic: TOPIC.to_owned(),
        request_id: 3,
        authoritative: Some(true),
        ..Default::default()
    };
    blocks.add("redirect", "client, to broker 2", &frame(second));
    blocks.vector("lookup-failed", "broker", "lookup_failed");
    blocks.vector("proxy", "client, to the proxy", "connect_through_proxy");
    http(blocks);
}

fn lookup(blocks: &mut Blocks) {
    let mut exchange = Exchange::new(blocks);
    let ask = pb::CommandPartitionedTopicMetadata { topic: TOPIC.to_owned(), request_id: 1, ..Default::default() };
    exchange.client("partitions", &frame(ask));
    exchange.broker(["partitions"]);
    let lookup = pb::CommandLookupTopic { topic: TOPIC.to_owned(), request_id: 2, ..Default::default() };
    exchange.client("lookup", &frame(lookup));
    exchange.broker(["lookup"]);
}

/// The two questions of a client over HTTP, and the embedded broker's answers.
fn http(blocks: &mut Blocks) {
    let mut harness = BrokerHarness::with(|config| config.web_service_url = Some("http://127.0.0.1:8080".to_owned()));
    let mut text = String::new();
    for (path, query) in [
        ("/admin/v2/persistent/public/default/t/partitions", "checkAllowAutoCreation=true"),
        ("/lookup/v2/topic/persistent/public/default/t", ""),
    ] {
        let request = RestRequest { method: "GET", path, query, body: b"", authorization: None, certified: None };
        let answer = harness.broker.rest(&request);
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        writeln!(text, "client: GET {path}{query}\nbroker: {}\n{body}\n", answer.status).expect("a string");
    }
    blocks.text("http", text.trim_end());
}
