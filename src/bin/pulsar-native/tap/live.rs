//! The proxy, and the threads behind it.
//!
//! ```text
//! proxy --TapFeed--> inspecting thread --> printing thread
//!                                     \--> recording thread
//! ```
//!
//! Each arrow is bounded, and none is waited for by the one before it: what does not fit is counted.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use pulsar_native::tap::{Inspector, Masking, Tap, TapFeed, TapItem, WebView};

use super::output::Output;
use super::recorder::Recorder;
use super::{Arguments, files, page};
use crate::{CliResult, output};

/// Lines that wait for the terminal.
const LINES_MAX: usize = 16_384;

const LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 6655);

pub(super) async fn run(arguments: Arguments, shown: Output) -> CliResult {
    let mut urls = arguments.to.iter();
    let Some(first) = urls.next() else { return Err("--to is missing".into()) };
    let mut builder = Tap::builder(first).listen(arguments.listen.unwrap_or(LISTEN.into()));
    for url in urls {
        builder = builder.also_to(url);
    }
    if let Some(host) = &arguments.advertise {
        builder = builder.advertise(host);
    }
    if let Some(path) = &arguments.ca_file {
        builder = builder.ca_file(path);
    }
    let masking = Masking { tokens: !shown.show_tokens, payloads: !shown.show_payloads };
    let recorder = arguments.record.as_deref().map(|path| Recorder::start(path, masking)).transpose()?;
    // Before an address is announced: what reads it may stop the tap at once.
    let interrupted = page::interrupted()?;
    let (tap, feed) = builder.start().await?;
    let ca_file = write_authority(&tap, arguments.tls_ca_out.as_deref())?;
    output::note(format_args!("clients go to {}", tap.url()));
    output::note(format_args!("      or to {} with the CA file {}", tap.tls_url(), ca_file.display()));
    if arguments.to.iter().any(|url| url.starts_with("http")) {
        output::note(format_args!("      or to {}", tap.http_url()));
    }
    let page = page::open(arguments.web, format!("{} to {}", tap.url(), arguments.to.join(", "))).await?;
    let inspecting = std::thread::spawn(move || inspect(feed, shown, recorder, page));
    interrupted.await?;
    drop(tap);
    let ended = tokio::task::spawn_blocking(move || inspecting.join()).await?;
    if arguments.tls_ca_out.is_none() {
        let _ = std::fs::remove_file(&ca_file);
    }
    ended.map_err(|_| "what shows the traffic has panicked")?
}

/// Clients that run as someone else need a file that was asked for: the temporary one is the owner's alone.
fn write_authority(tap: &Tap, to: Option<&Path>) -> CliResult<PathBuf> {
    let Some(path) = to else {
        let cannot = |error| format!("cannot write the CA file: {error}; name one by --tls-ca-out");
        let (mut file, path) = files::temporary(".ca.pem").map_err(cannot)?;
        file.write_all(tap.ca_pem().as_bytes()).map_err(cannot)?;
        return Ok(path);
    };
    std::fs::write(path, tap.ca_pem()).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(path.to_owned())
}

fn inspect(feed: TapFeed, mut shown: Output, mut recorder: Option<Recorder>, page: Option<WebView>) -> CliResult {
    let mut inspector = Inspector::new(shown.inspector_config());
    let mut printer = Printer::start();
    let mut seen = Vec::new();
    for item in feed {
        match item {
            TapItem::Segment(segment) => {
                if let Some(recorder) = &mut recorder {
                    recorder.push(&segment);
                }
                inspector.inspect(&segment, &mut seen);
            }
            TapItem::Note(text) => output::note(text),
            _ => {}
        }
        if let Some(page) = &page {
            page.observe(&seen);
        }
        for line in seen.drain(..).filter_map(|seen| shown.line(&seen)) {
            printer.print(line);
        }
    }
    printer.finish()?;
    output::note(shown.summary());
    recorder.map_or(Ok(()), Recorder::finish)
}

/// Prints on a thread of its own, as fast as the terminal takes it.
struct Printer {
    lines: SyncSender<String>,
    dropped: u64,
    printing: JoinHandle<std::io::Result<()>>,
}

impl Printer {
    fn start() -> Self {
        let (lines, coming) = sync_channel::<String>(LINES_MAX);
        let printing = std::thread::spawn(move || coming.iter().try_for_each(output::print));
        Self { lines, dropped: 0, printing }
    }

    fn print(&mut self, line: String) {
        if self.dropped > 0 {
            let text = format!("{} observations are not shown: the output is too slow", self.dropped);
            if self.lines.try_send(text).is_err() {
                self.dropped += 1;
                return;
            }
            self.dropped = 0;
        }
        if let Err(TrySendError::Full(_)) = self.lines.try_send(line) {
            self.dropped += 1;
        }
    }

    fn finish(self) -> CliResult {
        drop(self.lines);
        if self.dropped > 0 {
            output::note(format_args!("{} observations are not shown: the output is too slow", self.dropped));
        }
        match self.printing.join() {
            Ok(printed) => Ok(printed?),
            Err(_) => Err("the output has panicked".into()),
        }
    }
}
