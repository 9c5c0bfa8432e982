//! A tap in front of a broker, and what is seen by it: live, in a recording, and by what the embedded broker would have answered.

use std::thread::JoinHandle;
use std::time::Duration;

use pulsar_native::capture::recording::{MASKED, Recording};
use pulsar_native::capture::{Segment, SegmentReader};
use pulsar_native::tap::{
    Inspector, InspectorConfig, Masker, Masking, Observation, ObservedEvent, Replay, ReplaySummary, Tap, TapFeed,
    TapItem,
};

use super::within::within_time;

const TIME_MAX: Duration = Duration::from_secs(30);

pub(crate) struct Tapped {
    tap: Tap,
    seeing: JoinHandle<Live>,
}

/// What a tap saw, as text without times.
struct Live {
    texts: Vec<String>,
    recorded: Vec<u8>,
}

/// What is to be said of the traffic, as text without times.
pub(crate) struct Seen {
    /// Rules that were broken: live, and in a recording, which is the same.
    pub(crate) violations: Vec<String>,
    /// Where the embedded broker's machine answers otherwise than the broker did.
    pub(crate) differences: Vec<String>,
    /// How much of it was compared.
    pub(crate) summary: ReplaySummary,
}

impl Tapped {
    pub(crate) async fn before(url: &str) -> Self {
        let started = within_time(TIME_MAX, "the tap to listen", Tap::builder(url).start()).await;
        let (tap, feed) = started.expect("a free port");
        Self { tap, seeing: std::thread::spawn(move || see(feed)) }
    }

    pub(crate) fn url(&self) -> String {
        self.tap.url()
    }

    pub(crate) fn address(&self) -> String {
        self.tap.address().to_string()
    }

    pub(crate) async fn finish(self) -> Seen {
        drop(self.tap);
        let seen = tokio::task::spawn_blocking(|| self.seeing.join());
        let seen = within_time(TIME_MAX, "the tap to stop", seen).await;
        let Live { texts: live, recorded } = seen.expect("no panic").expect("no panic");
        let (replayed, differences, summary) = replay(&recorded);
        // Also where a slow machine leaves gaps in both.
        let differ = live.iter().zip(&replayed).find(|(live, replayed)| live != replayed);
        assert_eq!(differ, None, "live, and in the recording");
        assert_eq!(live.len(), replayed.len(), "as much is recorded as was seen");
        Seen { violations: violations(&live), differences, summary }
    }
}

fn see(feed: TapFeed) -> Live {
    let mut recording = Recording::new(Vec::new(), MASKED).expect("a Vec takes it");
    let mut masker = Masker::new(Masking { tokens: true, payloads: true });
    let mut inspector = Inspector::new(InspectorConfig::default());
    let (mut seen, mut texts, mut masked) = (Vec::new(), Vec::new(), Vec::new());
    let segment = |item| match item {
        TapItem::Segment(segment) => Some(segment),
        _ => None,
    };
    for segment in feed.filter_map(segment) {
        inspector.inspect(&segment, &mut seen);
        texts.extend(seen.drain(..).filter(is_told).map(|seen| seen.to_string()));
        masker.mask(segment, &mut masked);
        for segment in masked.drain(..) {
            recording.write(&segment).expect("a Vec takes it");
        }
    }
    Live { texts, recorded: recording.into_inner() }
}

fn replay(recorded: &[u8]) -> (Vec<String>, Vec<String>, ReplaySummary) {
    let mut config = InspectorConfig::default();
    config.keep_frames = true;
    let (mut inspector, mut replay) = (Inspector::new(config), Replay::new());
    let (mut seen, mut texts, mut differences) = (Vec::new(), Vec::new(), Vec::new());
    for segment in SegmentReader::new(recorded) {
        let segment: Segment = segment.expect("a sound file");
        inspector.inspect(&segment, &mut seen);
        for seen in seen.drain(..) {
            replay.observe(&seen, &mut differences);
            texts.extend(Some(seen).filter(is_told).map(|seen| seen.to_string()));
        }
    }
    let summary = replay.finish(&mut differences);
    (texts, differences.iter().map(ToString::to_string).collect(), summary)
}

fn is_told(seen: &Observation) -> bool {
    matches!(seen.event, ObservedEvent::Frame(_) | ObservedEvent::Violation(_))
}

fn violations(texts: &[String]) -> Vec<String> {
    texts.iter().filter(|text| text.contains("!!")).cloned().collect()
}
