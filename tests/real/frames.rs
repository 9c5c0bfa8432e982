//! The real broker's parser beside this one: bytes of all kinds, behind a handshake, are taken or end the connection at both
//! brokers alike. Where they are not, the reason stands in docs/fuzzing.md.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pulsar_native::broker::EmbeddedBroker;
use pulsar_native::pb;
use pulsar_native::wire::explain::explain;
use pulsar_native::wire::{Command, Frame, Limits, cut, frames};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::broker::Real;
use crate::inputs::{Changes, dictionary};
use crate::runner::Test;
use crate::suite::target::{Cluster as _, Role};

pub const TESTS: &[Test] = &[("frames::both_brokers_take_the_same_bytes", |real| Box::pin(same_bytes(real)))];

/// The request that is sent behind the bytes: its answer shows that they were taken.
const MARKER: u64 = 0x5eed_5eed;

/// How long there may be neither answer nor end, until the broker counts as waiting for the rest of a frame.
const WAIT: Duration = Duration::from_secs(2);

/// Changed inputs beside those of the corpora, unless FRAMES_CHANGED has another number.
const CHANGED: usize = 400;

const CONNECTIONS_AT_ONCE: usize = 16;

/// What a broker does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Taken,
    Closed,
    /// A frame has not ended: the marker is a part of it.
    Waits,
}

fn written(command: impl Into<Command>) -> BytesMut {
    let mut out = BytesMut::new();
    Frame::Other(command.into()).encode(&mut out);
    out
}

async fn verdict(address: &str, token: Option<&str>, bytes: &[u8]) -> Verdict {
    let mut socket = TcpStream::connect(address).await.expect("the broker listens");
    let connect = pb::CommandConnect {
        client_version: "frames".to_owned(),
        protocol_version: Some(21),
        auth_method_name: token.map(|_| "token".to_owned()),
        auth_data: token.map(|token| Bytes::copy_from_slice(token.as_bytes())),
        ..Default::default()
    };
    socket.write_all(&written(connect)).await.expect("written");
    let mut rx = BytesMut::new();
    let connected = |frame: &Frame| matches!(frame, Frame::Other(Command::Connected(_)));
    assert_eq!(answer(&mut socket, &mut rx, connected).await, Verdict::Taken, "the handshake");
    let marker = pb::CommandPartitionedTopicMetadata {
        topic: "persistent://public/default/marker".to_owned(),
        request_id: MARKER,
        ..Default::default()
    };
    // The broker may have closed the connection before all is written.
    let _ = socket.write_all(&[bytes, &written(marker)].concat()).await;
    let marked = |frame: &Frame| match frame {
        Frame::Other(Command::PartitionedMetadataResponse(response)) => response.request_id == MARKER,
        _ => false,
    };
    answer(&mut socket, &mut rx, marked).await
}

/// Reads until there is such a frame, the end, or nothing more.
async fn answer(socket: &mut TcpStream, rx: &mut BytesMut, is_it: impl Fn(&Frame) -> bool) -> Verdict {
    loop {
        while let Some(run) = cut(rx, &Limits::default()).expect("frames of a broker") {
            if frames(run).any(|frame| is_it(&frame.expect("a frame of a broker"))) {
                return Verdict::Taken;
            }
        }
        match tokio::time::timeout(WAIT, socket.read_buf(rx)).await {
            Err(_) => return Verdict::Waits,
            Ok(Err(_) | Ok(0)) => return Verdict::Closed,
            Ok(Ok(_)) => {}
        }
    }
}

/// What is sent: frames and commands of the corpora, and changes of them.
fn cases() -> Vec<Vec<u8>> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let corpus = |target: &str| -> Vec<Vec<u8>> {
        crate::inputs::corpus(target).expect("a corpus").into_iter().map(|(_, data)| data).collect()
    };
    let framed = |command: Vec<u8>| {
        let size = command.len() as u32;
        [&(size + 4).to_be_bytes()[..], &size.to_be_bytes(), &command].concat()
    };
    let words = dictionary(&fs::read_to_string(fuzz.join("pulsar.dict")).expect("the dictionary"));
    let changed = std::env::var("FRAMES_CHANGED").ok().and_then(|count| count.parse().ok()).unwrap_or(CHANGED);
    let mut changes = Changes::new(corpus("command"), words, 4);
    // The first byte of a stream says where it is divided.
    let streams = corpus("frame").into_iter().map(|data| data[1..].to_vec());
    let commands = corpus("command").into_iter().chain(std::iter::repeat_with(|| changes.next()).take(changed));
    streams.chain(commands.map(framed)).collect()
}

/// What is sent, in a few words: the command that its type says, and whether this library reads it.
fn described(bytes: &[u8]) -> String {
    let mut rx = BytesMut::from(bytes);
    match cut(&mut rx, &Limits::default()) {
        Err(error) => error.to_string(),
        Ok(None) => "no whole frame".to_owned(),
        Ok(Some(run)) => match frames(run).next() {
            Some(Ok(frame)) if has_unknown_value(bytes) => format!("{} with an unknown enum value", frame.name()),
            Some(Ok(frame)) => frame.name().to_owned(),
            Some(Err(error)) => error.to_string(),
            None => "nothing".to_owned(),
        },
    }
}

fn has_unknown_value(bytes: &[u8]) -> bool {
    explain(bytes).iter().any(|frame| frame.text().to_string().contains("(unknown)"))
}

/// Why the two differ so; `None` if there is no reason.
fn reason(theirs: Verdict, ours: Verdict, what: &str) -> Option<&'static str> {
    match (theirs, ours) {
        (Verdict::Taken, Verdict::Closed) if what.contains("not UTF-8") => Some("it does not check the texts"),
        (Verdict::Taken, Verdict::Closed) if what.contains("wire type") || what.contains("not a field number") => {
            Some("it passes over tags that it does not know")
        }
        (Verdict::Taken, Verdict::Closed) if what.contains("the bytes end inside the field") => {
            Some("it does not check that a field ends within its command")
        }
        (Verdict::Taken, Verdict::Closed) if what.ends_with("unknown enum value") => {
            Some("it passes over values that an enum does not have")
        }
        (Verdict::Closed, Verdict::Taken) if what == "AUTH_RESPONSE" => Some("it checks credentials here"),
        _ => None,
    }
}

async fn same_bytes(real: Real) {
    let embedded = EmbeddedBroker::builder().start().await.expect("a free port");
    let token = real.token(Role::Admin);
    let host = |url: &str| url.trim_start_matches("pulsar://").to_owned();
    let (theirs, ours) = (host(&real.url), host(&embedded.url()));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_AT_ONCE));
    let tasks = cases().into_iter().map(|bytes| {
        let (slots, theirs, ours, token) = (slots.clone(), theirs.clone(), ours.clone(), token.clone());
        tokio::spawn(async move {
            let _slot = slots.acquire().await.expect("never closed");
            (verdict(&theirs, Some(&token), &bytes).await, verdict(&ours, None, &bytes).await, bytes)
        })
    });
    let (mut count, mut differences) = (0, BTreeMap::<_, Vec<Vec<u8>>>::new());
    for task in tasks.collect::<Vec<_>>() {
        let (theirs, ours, bytes) = task.await.expect("no panic");
        count += 1;
        if theirs != ours {
            differences.entry((theirs, ours, described(&bytes))).or_default().push(bytes);
        }
    }
    println!("{count} inputs");
    let mut without_reason = Vec::new();
    for ((theirs, ours, what), inputs) in &differences {
        let shown: String = inputs[0].iter().take(400).map(|byte| format!("{byte:02x}")).collect();
        let why = reason(*theirs, *ours, what);
        println!("{} x: real {theirs:?}, embedded {ours:?}: {what}: {why:?}: {shown}", inputs.len());
        without_reason.extend(why.is_none().then_some((theirs, ours, what, shown)));
    }
    assert!(without_reason.is_empty(), "differences without a reason in docs/fuzzing.md: {without_reason:#?}");
    embedded.stop().await;
}
