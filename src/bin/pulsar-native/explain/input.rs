//! What is to be explained: the form is told by the first bytes.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use pulsar_native::capture::{Dump, Segment, Traffic, is_capture, read_dump};

/// What was given.
pub(super) enum Input {
    /// Frames one after the other.
    Frames(Vec<u8>),
    /// Packets of a dump, or both directions of a stream.
    Segments(Vec<Segment>),
    /// A pcap or pcapng file.
    Capture(Box<dyn Read>),
}

/// How many bytes tell a capture.
const HEAD_BYTES: u64 = 4;

/// The first bytes of gzip.
const GZIP: [u8; 3] = [0x1f, 0x8b, 8];

pub(super) fn of_text(text: &str) -> Result<Input, String> {
    match read_dump(text) {
        Ok(Dump::Segments(segments)) => Ok(Input::Segments(segments)),
        Ok(Dump::Bytes(bytes)) => Ok(Input::Frames(bytes.to_vec())),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn of_file(path: &Path) -> Result<Input, String> {
    let cannot = |error| format!("cannot read {}: {error}", path.display());
    let file = File::open(path).map_err(cannot)?;
    of_reader(file).map_err(cannot)?.map_err(|error| format!("{}: {error}", path.display()))
}

pub(super) fn of_stdin() -> Result<Input, String> {
    of_reader(std::io::stdin()).map_err(|error| format!("cannot read stdin: {error}"))?
}

fn of_reader(mut reader: impl Read + 'static) -> std::io::Result<Result<Input, String>> {
    let mut bytes = Vec::new();
    reader.by_ref().take(HEAD_BYTES).read_to_end(&mut bytes)?;
    if is_capture(&bytes) {
        return Ok(Ok(Input::Capture(Box::new(Cursor::new(bytes).chain(reader)))));
    }
    if bytes.starts_with(&GZIP) {
        return Ok(Err(
            "it is compressed by gzip, so decompress it first: gunzip -c FILE | pulsar-native explain".to_owned()
        ));
    }
    reader.read_to_end(&mut bytes)?;
    let is_text = |text: &&str| !text.contains(|c: char| c.is_control() && !c.is_whitespace());
    Ok(match std::str::from_utf8(&bytes).ok().filter(is_text) {
        // What reads like the start of another protocol is shown as such.
        Some(text) if Traffic::of(text.as_bytes()) != Some(Traffic::Http) => of_text(text),
        _ => Ok(Input::Frames(bytes)),
    })
}
