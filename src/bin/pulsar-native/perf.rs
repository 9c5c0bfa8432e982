//! What both kinds of measuring have in common: the live line, Ctrl-C, the last line.

use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::live::Recorder;
use crate::{Outcome, output, svg};

/// One run, shared by its tasks.
#[derive(Clone)]
pub(crate) struct Run {
    recorder: Arc<Mutex<Recorder>>,
    stop: Arc<AtomicBool>,
}

impl Run {
    pub(crate) fn new() -> Self {
        Self { recorder: Arc::new(Mutex::new(Recorder::new())), stop: Arc::default() }
    }

    pub(crate) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether Ctrl-C was pressed: nothing new is begun, what was begun is finished.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Lets `work` run, with a line each second. The first Ctrl-C asks it to stop, the second one ends it.
    pub(crate) async fn watch(&self, work: impl Future<Output = Outcome>) -> Outcome {
        let mut work = std::pin::pin!(work);
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        seconds.tick().await;
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                _ = seconds.tick() => {
                    let line = self.recorder().live_line();
                    output::note(line);
                }
                _ = tokio::signal::ctrl_c() => {
                    if self.stop.swap(true, Ordering::Relaxed) {
                        return Err("interrupted twice: what was on its way is left alone".into());
                    }
                    output::note("stopping; once more to stop at once");
                }
            }
        }
    }

    /// The figures.
    pub(crate) fn finish(&self, title: &str, picture: Option<&Path>) -> Outcome {
        let recorder = self.recorder();
        output::print(recorder.last_line())?;
        if let Some(path) = picture {
            let written = std::fs::write(path, svg::draw(title, &recorder));
            written.map_err(|error| format!("writing {}: {error}", path.display()))?;
        }
        Ok(())
    }
}
