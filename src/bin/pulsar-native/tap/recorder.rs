//! Writes what is seen to a file, on a thread of its own.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use pulsar_native::capture::Segment;
use pulsar_native::capture::recording::{MASKED, PAYLOADS_MASKED, Recording, TOKENS_MASKED, UNMASKED};
use pulsar_native::tap::{Masker, Masking};

use crate::{CliResult, output};

/// Segments that wait for the disk; what comes beyond it is left out, and said.
const WAITING_MAX: usize = 16_384;

/// How long a file may lag behind what is shown.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

/// See the [module](self).
pub(super) struct Recorder {
    segments: SyncSender<Segment>,
    left_out: u64,
    writing: JoinHandle<std::io::Result<()>>,
}

impl Recorder {
    pub(super) fn start(path: &Path, masking: Masking) -> CliResult<Self> {
        let wrong = |error| format!("cannot write {}: {error}", path.display());
        let comment = match (masking.tokens, masking.payloads) {
            (true, true) => MASKED,
            (true, false) => TOKENS_MASKED,
            (false, true) => PAYLOADS_MASKED,
            (false, false) => UNMASKED,
        };
        let file = BufWriter::new(File::create(path).map_err(wrong)?);
        let mut recording = Recording::new(file, comment).map_err(wrong)?;
        let (segments, coming) = sync_channel::<Segment>(WAITING_MAX);
        let write = move || {
            let (mut masker, mut masked) = (Masker::new(masking), Vec::new());
            loop {
                match coming.recv_timeout(FLUSH_INTERVAL) {
                    Ok(segment) => masker.mask(segment, &mut masked),
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => recording.flush()?,
                    Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                }
                for segment in masked.drain(..) {
                    recording.write(&segment)?;
                }
            }
            recording.flush()
        };
        Ok(Self { segments, left_out: 0, writing: std::thread::spawn(write) })
    }

    /// Hands a segment over; never waits.
    pub(super) fn push(&mut self, segment: &Segment) {
        if let Err(TrySendError::Full(_)) = self.segments.try_send(segment.clone()) {
            self.left_out += 1;
        }
    }

    pub(super) fn finish(self) -> CliResult {
        drop(self.segments);
        if self.left_out > 0 {
            output::note(format_args!(
                "{} pieces of traffic are not in the recording: the disk is too slow",
                self.left_out
            ));
        }
        match self.writing.join() {
            Ok(written) => Ok(written.map_err(|error| format!("the recording is not whole: {error}"))?),
            Err(_) => Err("the recording is not whole: its thread has panicked".into()),
        }
    }
}
