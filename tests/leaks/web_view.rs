//! What a page of a tap keeps in memory of what it was shown: next to nothing, however much that is.

use std::time::SystemTime;

use bytes::BytesMut;
use pulsar_native::capture::{Direction, Segment, SegmentEvent};
use pulsar_native::pb;
use pulsar_native::tap::{Inspector, InspectorConfig, WebView};
use pulsar_native::wire::Command;

use super::*;

/// Observations of each half.
const OBSERVATIONS: usize = 200_000;

/// Bytes for each of them: a GiB of the shortest frames then needs less than 300 MiB.
const BYTES_EACH: usize = 2;

/// A FLOW with its bytes, as it is seen over and over.
fn flows() -> Vec<pulsar_native::tap::Observation> {
    let mut config = InspectorConfig::default();
    config.keep_frames = true;
    let mut inspector = Inspector::new(config);
    let mut seen = Vec::new();
    let mut tell = |event| inspector.inspect(&Segment { connection: 1, at: SystemTime::UNIX_EPOCH, event }, &mut seen);
    let (client, broker) = (([127, 0, 0, 1], 50_000).into(), ([127, 0, 0, 1], 6650).into());
    tell(SegmentEvent::Opened { client, broker, is_partial: true });
    let mut bytes = BytesMut::new();
    for _ in 0..1000 {
        Command::from(pb::CommandFlow { consumer_id: 1, message_permits: 1 }).encode_frame(&mut bytes);
    }
    tell(SegmentEvent::Bytes { direction: Direction::ToBroker, bytes: bytes.freeze() });
    seen
}

#[test]
fn a_page_keeps_next_to_nothing_in_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let web = runtime.block_on(WebView::bind(([127, 0, 0, 1], 0).into(), "")).expect("a port and temporary files");
    let seen = flows();
    let observe = || (0..OBSERVATIONS / seen.len() + 1).for_each(|_| web.observe(&seen));
    observe();
    let before = held();
    observe();
    let grown = held().saturating_sub(before);
    assert!(grown < BYTES_EACH * OBSERVATIONS, "{grown} bytes for {OBSERVATIONS} observations more");
}
