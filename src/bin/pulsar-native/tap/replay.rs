//! A file, as if it were seen live; and what the embedded broker would have answered.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use pulsar_native::capture::SegmentReader;
use pulsar_native::capture::recording::{MASKED, PAYLOADS_MASKED};
use pulsar_native::tap::{Inspector, Replay, ReplayDifference, WebView};

use super::output::Output;
use crate::{CliResult, output};

pub(super) fn run(path: &Path, mut shown: Output, page: Option<&WebView>, compare: bool) -> CliResult {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(|error| wrong(&error))?;
    let mut segments = SegmentReader::new(BufReader::new(file));
    let mut config = shown.inspector_config();
    let mut replay = compare.then(Replay::new);
    config.keep_frames |= replay.is_some();
    let (mut inspector, mut seen, mut differences) = (Inspector::new(config), Vec::new(), Vec::new());
    for segment in segments.by_ref() {
        inspector.inspect(&segment.map_err(|error| wrong(&error))?, &mut seen);
        if let Some(page) = page {
            page.observe(&seen);
        }
        for seen in seen.drain(..) {
            if let Some(line) = shown.line(&seen) {
                output::print(line)?;
            }
            if let Some(replay) = &mut replay {
                replay.observe(&seen, &mut differences);
                print(&shown, &mut differences)?;
            }
        }
    }
    let summary = replay.map(|replay| replay.finish(&mut differences));
    print(&shown, &mut differences)?;
    if matches!(segments.comment(), Some(MASKED | PAYLOADS_MASKED)) {
        output::note("the payloads in it are overwritten: what they alone tell is not judged");
    }
    output::note(shown.summary());
    if let Some(summary) = summary {
        output::note(summary);
    }
    Ok(())
}

fn print(shown: &Output, differences: &mut Vec<ReplayDifference>) -> CliResult {
    for difference in differences.drain(..) {
        if let Some(line) = shown.difference(&difference) {
            output::print(line)?;
        }
    }
    Ok(())
}
