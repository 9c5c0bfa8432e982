//! Writing to stdout and stderr without the panic of `println!` when the reader has gone, as behind `| head`; and the
//! one line at the bottom of a terminal that is rewritten in place.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The progress line, while there is one. Locked while anything is written, so that lines do not mix with it.
static PROGRESS: Mutex<Option<String>> = Mutex::new(None);

/// To the start of the line, and empty it.
const ERASE: &str = "\r\x1b[K";

fn progress_line() -> MutexGuard<'static, Option<String>> {
    PROGRESS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a line of stderr can be rewritten in place.
pub(crate) fn is_terminal() -> bool {
    static IS_TERMINAL: OnceLock<bool> = OnceLock::new();
    let is_able = || std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    *IS_TERMINAL.get_or_init(|| io::stderr().is_terminal() && is_able())
}

fn is_stdout_terminal() -> bool {
    static IS_TERMINAL: OnceLock<bool> = OnceLock::new();
    *IS_TERMINAL.get_or_init(|| io::stdout().is_terminal())
}

/// Writes a line to stdout.
///
/// # Errors
/// Writing failed; a closed pipe is an error of kind [`BrokenPipe`](io::ErrorKind::BrokenPipe).
pub(crate) fn print(line: impl Display) -> io::Result<()> {
    let progress = progress_line();
    match &*progress {
        Some(progress) if is_stdout_terminal() => {
            to_stderr(ERASE);
            let printed = writeln!(io::stdout().lock(), "{line}");
            draw(progress);
            printed
        }
        _ => writeln!(io::stdout().lock(), "{line}"),
    }
}

/// Writes a line to stderr, where an error can no longer be reported.
pub(crate) fn note(line: impl Display) {
    match &*progress_line() {
        Some(progress) => {
            to_stderr(format_args!("{ERASE}{line}\n"));
            draw(progress);
        }
        None => to_stderr(format_args!("{line}\n")),
    }
}

/// Shows the progress line, or replaces it. Only on a terminal.
pub(crate) fn show_progress(line: &str) {
    let mut progress = progress_line();
    let line = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    draw(progress.insert(line));
}

/// Takes the progress line away.
pub(crate) fn end_progress() {
    if progress_line().take().is_some() {
        to_stderr(ERASE);
    }
}

/// Cut off at the edge of the terminal: a line that wrapped could not be rewritten. So wrapping is off meanwhile.
fn draw(line: &str) {
    to_stderr(format_args!("{ERASE}\x1b[?7l{line}\x1b[?7h"));
}

fn to_stderr(text: impl Display) {
    let _ = write!(io::stderr().lock(), "{text}");
}

/// Whether a command failed because nothing reads its output any longer.
pub(crate) fn is_closed_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
