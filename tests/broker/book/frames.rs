//! Frames as the book shows them, and where they come from.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use pulsar_native::broker::BrokerConfig;
use pulsar_native::broker::machine::ConnId;
use pulsar_native::wire::entry::put_entry;
use pulsar_native::wire::explain::explain_frame;
use pulsar_native::wire::{Command, MetadataFields, SendHead, put_send_head};
use serde_json::Value;

use crate::support::{BrokerHarness, connect_command};

/// Most bytes of a field that are shown; its value stands beside them.
const ROW_BYTES: usize = 8;

/// The texts of the book's blocks, by name.
#[derive(Default)]
pub(super) struct Blocks {
    texts: BTreeMap<&'static str, String>,
}

impl Blocks {
    pub(super) fn get(&self, name: &str) -> Option<&String> {
        self.texts.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.texts.keys().copied()
    }

    /// Adds a frame to the block of this name.
    pub(super) fn add(&mut self, name: &'static str, from: &str, frame: &[u8]) {
        let text = self.texts.entry(name).or_default();
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&annotated(from, frame));
    }

    /// Adds a block that is no frame.
    pub(super) fn text(&mut self, name: &'static str, text: &str) {
        self.texts.insert(name, format!("{text}\n"));
    }

    /// A frame of the vectors.
    pub(super) fn vector(&mut self, name: &'static str, from: &str, vector: &str) {
        self.add(name, from, &of_vectors(vector));
    }
}

/// A frame with its sender, a line for each field.
fn annotated(from: &str, frame: &[u8]) -> String {
    let explained = explain_frame(Bytes::copy_from_slice(frame), 0);
    let text = explained.text().row_bytes(ROW_BYTES).to_string();
    let (_, lines) = text.split_once('\n').expect("a heading");
    format!("{from}: {}, {} bytes\n{lines}", explained.command.unwrap_or("unreadable"), frame.len())
}

/// The bytes of a vector, good or damaged.
pub(super) fn of_vectors(name: &str) -> Vec<u8> {
    static VECTORS: OnceLock<Value> = OnceLock::new();
    let all = VECTORS.get_or_init(|| serde_json::from_str(include_str!("../../wire/vectors.json")).expect("JSON"));
    let lists = ["frames", "captured", "negative"].into_iter().filter_map(|list| all[list].as_array());
    let found = lists.flatten().find(|vector| vector["name"] == name).unwrap_or_else(|| panic!("no vector {name}"));
    let digits = found["hex"].as_str().expect("hex").as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex")).collect()
}

/// A frame of a command without payload.
pub(super) fn frame(command: impl Into<Command>) -> Bytes {
    let mut out = BytesMut::new();
    command.into().encode_frame(&mut out);
    out.freeze()
}

/// A SEND frame.
pub(super) fn send_frame(head: &SendHead, metadata: &MetadataFields<'_>, payload: &[u8]) -> Bytes {
    let mut entry = BytesMut::new();
    put_entry(&mut entry, metadata, payload);
    let mut out = BytesMut::new();
    put_send_head(&mut out, head, entry.len());
    out.extend_from_slice(&entry);
    out.freeze()
}

/// A client and a broker, one connection, and what they say to each other.
pub(super) struct Exchange<'a> {
    pub(super) harness: BrokerHarness,
    pub(super) conn: ConnId,
    pub(super) blocks: &'a mut Blocks,
}

impl<'a> Exchange<'a> {
    /// On a connection that has done its handshake.
    pub(super) fn new(blocks: &'a mut Blocks) -> Self {
        Self::with(blocks, |_| ())
    }

    pub(super) fn with(blocks: &'a mut Blocks, change: impl FnOnce(&mut BrokerConfig)) -> Self {
        let mut harness = BrokerHarness::with(change);
        let conn = harness.connect_as(connect_command(21));
        Self { harness, conn, blocks }
    }

    /// The client sends a frame, which a block shows.
    pub(super) fn client(&mut self, name: &'static str, frame: &[u8]) {
        self.blocks.add(name, "client", frame);
        self.harness.send_bytes(self.conn, frame);
    }

    /// The broker's next frames, each in the block of its name. There must be no others.
    #[track_caller]
    pub(super) fn broker<const N: usize>(&mut self, names: [&'static str; N]) {
        let mut rest = self.harness.take_bytes(self.conn);
        for name in names {
            assert!(rest.len() >= 4, "{name}: the broker wrote too few frames");
            let total = u32::from_be_bytes(rest[..4].try_into().expect("four bytes")) as usize;
            self.blocks.add(name, "broker", &rest.split_to(total + 4));
        }
        assert!(rest.is_empty(), "the broker wrote more: {}", explain_frame(rest, 0));
    }

    /// What the broker has written is not shown.
    pub(super) fn skip(&mut self) {
        self.harness.take_bytes(self.conn);
    }
}
