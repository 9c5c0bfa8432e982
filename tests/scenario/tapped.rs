//! The suite through a tap: what the client does works as it does without one, and the tap sees what the broker's judge sees, which
//! is that no rule is broken. A recording of it shows the same.

use std::thread::JoinHandle;

use pulsar_native::capture::recording::{MASKED, Recording};
use pulsar_native::capture::{Segment, SegmentReader};
use pulsar_native::tap::{
    Inspector, InspectorConfig, Masker, Masking, Observation, ObservedEvent, Tap, TapFeed, TapItem,
};
use tokio::task::JoinSet;

use crate::embedded::run_tapped;
use crate::suite::*;

/// A tap in front of a broker, and what it has seen.
pub(super) struct Tapped {
    tap: Tap,
    seeing: JoinHandle<Seen>,
}

/// What a tap saw, as text without times.
struct Seen {
    live: Vec<String>,
    recorded: Vec<u8>,
}

impl Tapped {
    pub(super) async fn before(url: &str) -> Self {
        let started = within("the tap to listen", Tap::builder(url).start()).await;
        let (tap, feed) = started.expect("a free port");
        Self { tap, seeing: std::thread::spawn(move || see(feed)) }
    }

    pub(super) fn url(&self) -> String {
        self.tap.url()
    }

    pub(super) fn address(&self) -> String {
        self.tap.address().to_string()
    }

    /// What was broken, live and in a recording, which have to be the same.
    pub(super) async fn finish(self) -> Vec<String> {
        drop(self.tap);
        let seen = tokio::task::spawn_blocking(|| self.seeing.join());
        let Seen { live, recorded } = within("the tap to stop", seen).await.expect("no panic").expect("no panic");
        let replayed = replay(&recorded);
        assert_eq!(violations(&live), violations(&replayed));
        assert_eq!(live.len(), replayed.len(), "as many frames are recorded as were seen");
        violations(&live)
    }
}

fn see(feed: TapFeed) -> Seen {
    let mut recording = Recording::new(Vec::new(), MASKED).expect("a Vec takes it");
    let mut masker = Masker::new(Masking { tokens: true, payloads: true });
    let mut inspector = Inspector::new(InspectorConfig::default());
    let (mut seen, mut live, mut masked) = (Vec::new(), Vec::new(), Vec::new());
    let segment = |item| match item {
        TapItem::Segment(segment) => Some(segment),
        _ => None,
    };
    for segment in feed.filter_map(segment) {
        inspect(&mut inspector, &segment, &mut seen, &mut live);
        masker.mask(segment, &mut masked);
        for segment in masked.drain(..) {
            recording.write(&segment).expect("a Vec takes it");
        }
    }
    Seen { live, recorded: recording.into_inner() }
}

fn replay(recorded: &[u8]) -> Vec<String> {
    let mut inspector = Inspector::new(InspectorConfig::default());
    let (mut seen, mut texts) = (Vec::new(), Vec::new());
    for segment in SegmentReader::new(recorded) {
        inspect(&mut inspector, &segment.expect("a sound file"), &mut seen, &mut texts);
    }
    texts
}

fn inspect(inspector: &mut Inspector, segment: &Segment, seen: &mut Vec<Observation>, texts: &mut Vec<String>) {
    inspector.inspect(segment, seen);
    let is_told = |seen: &Observation| matches!(seen.event, ObservedEvent::Frame(_) | ObservedEvent::Violation(_));
    texts.extend(seen.drain(..).filter(is_told).map(|seen| seen.to_string()));
}

fn violations(texts: &[String]) -> Vec<String> {
    texts.iter().filter(|text| text.contains("!!")).cloned().collect()
}

/// Bodies that run at the same time.
const BODIES_AT_ONCE: usize = 8;

type Body = (&'static str, fn() -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>);

macro_rules! bodies {
    ($($theme:ident { $($name:ident)* })*) => {
        &[$($((
            concat!(stringify!($theme), "::", stringify!($name)),
            || Box::pin(run_tapped(crate::suite::$theme::$name)),
        ),)*)*]
    };
}

const ALL: &[Body] = crate::suite::with_every_test!(bodies);

/// Those that count the connections to an address, of which there is one more here.
const NOT_THROUGH_A_TAP: &[&str] =
    &["connect::an_unused_connection_is_closed", "connect::several_connections_to_one_broker"];

async fn run_all(themes: &[&str]) {
    let is_meant = |name: &str| themes.is_empty() || themes.iter().any(|theme| name.starts_with(theme));
    let mut waiting = ALL.iter().filter(|(name, _)| is_meant(name) && !NOT_THROUGH_A_TAP.contains(name));
    let (mut running, mut failed) = (JoinSet::new(), Vec::new());
    loop {
        while running.len() < BODIES_AT_ONCE {
            let Some(&(name, body)) = waiting.next() else { break };
            // The task inside catches the panic of a body.
            running.spawn(async move { tokio::spawn(body()).await.map_err(|_| name) });
        }
        match running.join_next().await {
            None => break,
            Some(ended) => failed.extend(ended.expect("no panic").err()),
        }
    }
    assert!(failed.is_empty(), "through a tap, these failed: {}", failed.join(", "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some() {
    run_all(&["acks::", "access::", "produce::", "redelivery::", "partitioned::"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute; `-- --include-ignored` runs it"]
async fn all_others() {
    run_all(&[]).await;
}
