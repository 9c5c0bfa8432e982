//! Clients that hold a tap up.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::tap::TapItem;

/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(20);

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, what).await.expect("it does not take that long")
}

async fn connected(tap: &Tap) -> TcpStream {
    within(TcpStream::connect(tap.address())).await.expect("the tap listens")
}

async fn ends(mut stream: TcpStream) {
    // The end is a reset where something was sent that nobody read.
    assert!(matches!(within(stream.read(&mut [0])).await, Ok(0) | Err(_)));
}

/// Those that are there.
fn notes(mut feed: TapFeed) -> Vec<String> {
    let note = |item| match item {
        TapItem::Note(text) => Some(text),
        TapItem::Segment(_) => None,
    };
    std::iter::from_fn(|| feed.try_next()).filter_map(note).collect()
}

#[tokio::test]
async fn a_client_that_sends_nothing_is_disconnected() {
    let mut builder = Tap::builder("pulsar://127.0.0.1:1");
    builder.connection_timeout = Duration::from_millis(200);
    let (tap, feed) = builder.start().await.expect("a free port");
    ends(connected(&tap).await).await;
    let mut in_handshake = connected(&tap).await;
    in_handshake.write_all(&[0x16, 3, 1]).await.expect("the tap reads");
    ends(in_handshake).await;
    let notes = notes(feed);
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes.iter().all(|note| note.contains("it sent nothing within 200ms")), "{notes:?}");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_turned_away() {
    let mut builder = Tap::builder("pulsar://127.0.0.1:1");
    builder.connections_max = 1;
    let (tap, mut feed) = builder.start().await.expect("a free port");
    let first = connected(&tap).await;
    ends(connected(&tap).await).await;
    let Some(TapItem::Note(note)) = feed.try_next() else { panic!("a note") };
    assert!(note.ends_with("is turned away: there are 1 connections already"), "{note}");
    drop(first);
    let carried_on = async {
        loop {
            // Its place is free as soon as the tap has seen that the first one is gone; then no broker is there.
            let mut next = connected(&tap).await;
            let _ = next.write_all(&[0; 12]).await;
            ends(next).await;
            match feed.try_next() {
                Some(TapItem::Note(note)) if note.contains("cannot be carried on") => return,
                _ => {}
            }
        }
    };
    within(carried_on).await;
}
