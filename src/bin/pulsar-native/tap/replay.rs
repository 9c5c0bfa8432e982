//! A file, as if it were seen live.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use pulsar_native::capture::SegmentReader;
use pulsar_native::tap::{Inspector, WebView};

use super::output::Output;
use crate::{CliResult, output};

pub(super) fn run(path: &Path, mut shown: Output, page: Option<&WebView>) -> CliResult {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(|error| wrong(&error))?;
    let segments = SegmentReader::new(BufReader::new(file));
    let mut inspector = Inspector::new(shown.inspector_config());
    let mut seen = Vec::new();
    for segment in segments {
        inspector.inspect(&segment.map_err(|error| wrong(&error))?, &mut seen);
        if let Some(page) = page {
            page.observe(&seen);
        }
        for line in seen.drain(..).filter_map(|seen| shown.line(&seen)) {
            output::print(line)?;
        }
    }
    output::note(shown.summary());
    Ok(())
}
