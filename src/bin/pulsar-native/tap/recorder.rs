//! Writes what is seen to a file, on a thread of its own.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::thread::JoinHandle;

use pulsar_native::capture::recording::{MASKED, PAYLOADS_MASKED, Recording, TOKENS_MASKED, UNMASKED};
use pulsar_native::capture::{Segment, SegmentEvent};
use pulsar_native::tap::{Masker, Masking, TapFeed, TapItem, TapQueue};

use super::files;
use crate::{CliResult, output};

/// What waits for the disk, bytes; what comes beyond it is missing in the file, as a gap.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// See the [module](self).
pub(super) struct Recorder {
    queue: TapQueue,
    writing: JoinHandle<io::Result<u64>>,
}

impl Recorder {
    pub(super) fn start(path: &Path, masking: Masking) -> CliResult<Self> {
        let wrong = |error| format!("cannot write {}: {error}", path.display());
        let file = files::create(path).map_err(wrong)?;
        let recording = begin(BufWriter::new(file), masking).map_err(wrong)?;
        let (queue, feed) = TapQueue::with_feed(WAITING_BYTES_MAX);
        Ok(Self { queue, writing: std::thread::spawn(move || write(feed, recording, masking)) })
    }

    /// Hands a segment over; never waits.
    pub(super) fn push(&mut self, segment: &Segment) {
        self.queue.push(segment.clone());
    }

    pub(super) fn finish(self) -> CliResult {
        drop(self.queue);
        match self.writing.join() {
            Ok(Ok(0)) => {}
            Ok(Ok(missing)) => output::note(format_args!("{missing} bytes of traffic are missing in the recording")),
            Ok(Err(error)) => return Err(format!("the recording is not whole: {error}").into()),
            Err(_) => return Err("the recording is not whole: its thread has panicked".into()),
        }
        Ok(())
    }
}

fn begin<W: Write>(out: W, masking: Masking) -> io::Result<Recording<W>> {
    let comment = match (masking.tokens, masking.payloads) {
        (true, true) => MASKED,
        (true, false) => TOKENS_MASKED,
        (false, true) => PAYLOADS_MASKED,
        (false, false) => UNMASKED,
    };
    Recording::new(out, comment)
}

/// Writes until the feed ends, and gives how many bytes are missing. Whenever nothing waits the file is whole.
fn write<W: Write>(mut feed: TapFeed, mut recording: Recording<W>, masking: Masking) -> io::Result<u64> {
    let (mut masker, mut masked, mut missing) = (Masker::new(masking), Vec::new(), 0);
    loop {
        let item = match feed.try_next() {
            Some(item) => item,
            None => {
                recording.flush()?;
                let Some(item) = feed.next() else { return Ok(missing) };
                item
            }
        };
        let TapItem::Segment(segment) = item else { continue };
        masker.mask(segment, &mut masked);
        for segment in masked.drain(..) {
            if let SegmentEvent::Missing { count, .. } = segment.event {
                missing += count;
            }
            recording.write(&segment)?;
        }
    }
}
