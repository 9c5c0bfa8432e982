//! Whether a frame starts somewhere in a stream whose beginning, or a part of it, is missing.

use crate::wire::Limits;
use crate::wire::command::Command;
use crate::wire::proto::Reader;

/// The largest command that is looked for where bytes are missing, bytes: the others are found behind it.
const LOST_COMMAND_BYTES_MAX: usize = 4 << 10;

/// Whether a frame starts at some bytes.
pub(crate) enum Likeness {
    Yes,
    No,
    /// It takes more bytes to tell.
    Unknown,
}

/// Whether a frame starts here: lengths that fit, and a command that can be read.
pub(crate) fn looks_like(bytes: &[u8], limits: &Limits) -> Likeness {
    let Some((sizes, rest)) = bytes.split_first_chunk::<8>() else { return Likeness::Unknown };
    let [total, command] =
        [&sizes[..4], &sizes[4..]].map(|size| size.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)));
    if total.saturating_add(4) > limits.frame_bytes_max
        || command.saturating_add(4) > total
        || command > LOST_COMMAND_BYTES_MAX
    {
        return Likeness::No;
    }
    if command < 4 || rest.first().is_some_and(|byte| *byte != 0x08) {
        return Likeness::No;
    }
    let Some(command) = rest.get(..command) else { return Likeness::Unknown };
    let is_read = matches!(Command::decode_base(command), Ok(Some(_))) && fields_of(command) == Some(2);
    if is_read { Likeness::Yes } else { Likeness::No }
}

/// Every client and broker writes the type and one body.
fn fields_of(command: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(command, 0);
    let mut count = 0;
    while reader.next("BaseCommand").ok()?.is_some() {
        count += 1;
    }
    Some(count)
}
