//! Writing to stdout and stderr without the panic of `println!` when the reader has gone, as behind `| head`.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a line to stdout.
///
/// # Errors
/// Writing failed; a closed pipe is an error of kind [`BrokenPipe`](io::ErrorKind::BrokenPipe).
pub(crate) fn print(line: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// Writes a line to stderr, where an error can no longer be reported.
pub(crate) fn note(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Whether a command failed because nothing reads its output any longer.
pub(crate) fn is_closed_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
