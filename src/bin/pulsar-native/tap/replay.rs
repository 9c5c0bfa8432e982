//! A file, as if it were seen live; and what the embedded broker would have answered.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use pulsar_native::capture::SegmentReader;
use pulsar_native::capture::recording::{MASKED, PAYLOADS_MASKED};
use pulsar_native::tap::{Inspector, Replay, ReplayDifference, WebView};

use super::output::Output;
use crate::{CliResult, output};

pub(super) fn run(path: &Path, mut shown: Output, page: Option<&WebView>, compare: bool) -> CliResult {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(|error| wrong(&error))?;
    let (size, count) = (file.metadata().map_or(0, |metadata| metadata.len()), Cell::new(0));
    let mut segments = SegmentReader::new(BufReader::new(Counted { file, count: &count }));
    let mut config = shown.inspector_config();
    let mut replay = compare.then(Replay::new);
    config.keep_frames |= replay.is_some();
    let (mut inspector, mut seen, mut differences) = (Inspector::new(config), Vec::new(), Vec::new());
    for segment in segments.by_ref() {
        inspector.inspect(&segment.map_err(|error| wrong(&error))?, &mut seen);
        if let Some(page) = page {
            page.observe(&seen);
            page.progress(percent_so_far(count.get(), size));
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
    if let Some(page) = page {
        page.progress(100);
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

/// Counts what was read.
struct Counted<'a> {
    file: File,
    count: &'a Cell<u64>,
}

impl Read for Counted<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(out)?;
        self.count.set(self.count.get() + read as u64);
        Ok(read)
    }
}

/// Less than all: the last frames are observed behind the last bytes.
fn percent_so_far(read: u64, size: u64) -> u8 {
    (read.saturating_mul(100) / size.max(1)).min(99) as u8
}

fn print(shown: &Output, differences: &mut Vec<ReplayDifference>) -> CliResult {
    for difference in differences.drain(..) {
        if let Some(line) = shown.difference(&difference) {
            output::print(line)?;
        }
    }
    Ok(())
}
