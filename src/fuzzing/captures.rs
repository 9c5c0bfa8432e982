//! Traffic that was captured: `explain`, dumps and capture files.

#[cfg(feature = "capture")]
use std::collections::BTreeMap;

/// Bytes of any kind, taken apart: each is in one line, and all forms of the text end well.
pub fn explain(data: &[u8]) {
    let mut at = 0;
    for frame in crate::wire::explain::explain(data) {
        assert_eq!(frame.offset, at);
        at += frame.input().len() as u64;
        let contents = (0..frame.contents().len()).map(Some);
        for content in std::iter::once(None).chain(contents) {
            let lines = frame.lines.iter().filter(|line| line.content == content);
            let end = lines.fold(0, |at, line| {
                assert_eq!(line.bytes.start, at, "each byte once");
                line.bytes.end
            });
            let whole = content.map_or(frame.input(), |index| &frame.contents()[index]);
            assert_eq!(end, whole.len(), "to the last byte");
        }
        for (line, problem) in frame.problems() {
            assert!(problem.at <= line.bytes.end.max(line.bytes.start), "{line:?}");
        }
        check_explained(&frame);
    }
    assert_eq!(at, data.len() as u64, "no byte is left out");
}

/// All forms of the text end well, and say the same.
fn check_explained(frame: &crate::wire::explain::Explanation) {
    const MARK: char = '\u{e000}';
    let (plain, whole, json) = (frame.to_string(), frame.text().all_bytes(true).to_string(), frame.to_json());
    let painted = frame.text().painted(|_| ("\u{e000}", "\u{e000}")).to_string();
    assert_eq!(painted.replace(MARK, ""), plain.replace(MARK, ""), "colours change no text");
    let narrow = frame.text().row_bytes(frame.input().len() % 4).to_string();
    assert!(whole.len() >= plain.len() && narrow.lines().next() == plain.lines().next());
    assert!(!json.contains('\n') && json.starts_with('{') && json.ends_with('}'), "one line: {json}");
    assert!(format!("{frame:?}").contains("lines"), "without its bytes");
}

/// A dump in text form.
#[cfg(feature = "capture")]
pub fn dump(data: &[u8]) {
    use crate::capture::{Dump, read_dump};
    let Ok(text) = std::str::from_utf8(data) else { return };
    match read_dump(text) {
        Ok(Dump::Bytes(bytes)) => assert!(bytes.len() <= data.len(), "a byte takes a character at least"),
        Ok(Dump::Segments(segments)) => check_segments(&segments, data.len()),
        Err(error) => assert!((1..=text.lines().count().max(1)).contains(&error.line), "{error}"),
        #[allow(unreachable_patterns, reason = "there may be more forms")]
        _ => {}
    }
}

/// A capture file. The first byte is how many are read at once, which must not change the result.
#[cfg(feature = "capture")]
pub fn capture(data: &[u8]) {
    use crate::capture::SegmentReader;
    let Some((&step, file)) = data.split_first() else { return };
    let read = |step: usize| {
        let (mut segments, mut error) = (Vec::new(), None);
        for item in SegmentReader::new(Steps { rest: file, step }) {
            assert!(error.is_none(), "an error is the last item");
            match item {
                Ok(segment) => segments.push(segment),
                Err(reason) => error = Some(reason.to_string()),
            }
        }
        (segments, error)
    };
    let whole = read(usize::MAX);
    assert_eq!(whole, read(usize::from(step) + 1), "how a file is read changes nothing");
    check_segments(&whole.0, file.len());
}

/// A reader of a few bytes at once.
#[cfg(feature = "capture")]
struct Steps<'a> {
    rest: &'a [u8],
    step: usize,
}

#[cfg(feature = "capture")]
impl std::io::Read for Steps<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(self.step);
        self.rest.read(&mut buffer[..count])
    }
}

/// Connections open once, in the order of their numbers, and hold no more than there is; their frames are the same however
/// their bytes are split, and leave none out.
#[cfg(feature = "capture")]
fn check_segments(segments: &[crate::capture::Segment], bytes_max: usize) {
    use crate::capture::{Direction, FramePieceKind, FrameReader, SegmentEvent};
    let (mut opened, mut given) = (0, 0);
    let mut readers: BTreeMap<(u64, bool), [FrameReader; 2]> = BTreeMap::new();
    let drain = |reader: &mut FrameReader| -> Vec<_> { std::iter::from_fn(|| reader.next_piece()).collect() };
    for segment in segments {
        match &segment.event {
            SegmentEvent::Opened { is_partial, .. } => {
                opened += 1;
                assert_eq!(segment.connection, opened);
                for side in [false, true] {
                    let pair = [FrameReader::new(*is_partial), FrameReader::new(*is_partial)];
                    readers.insert((segment.connection, side), pair);
                }
            }
            SegmentEvent::Bytes { direction, bytes } => {
                assert!(!bytes.is_empty());
                given += bytes.len();
                let key = (segment.connection, *direction == Direction::ToBroker);
                let [whole, split] = readers.get_mut(&key).expect("it was opened");
                whole.push(bytes);
                let mut pieces = Vec::new();
                for byte in bytes.chunks(1) {
                    split.push(byte);
                    pieces.extend(drain(split));
                }
                let same: Vec<_> = drain(whole);
                let size = |piece: &FramePieceKind| matches!(piece, FramePieceKind::Other(_));
                let is_other = same.iter().chain(&pieces).any(|piece| size(&piece.kind));
                assert!(is_other || same == pieces, "{same:?} {pieces:?}");
            }
            SegmentEvent::Missing { direction, count } => {
                assert!(*count > 0);
                let key = (segment.connection, *direction == Direction::ToBroker);
                let [whole, split] = readers.get_mut(&key).expect("it was opened");
                assert_eq!(whole.missing(*count), split.missing(*count));
            }
            SegmentEvent::Closed { .. } => {}
        }
    }
    assert!(given <= bytes_max, "nothing is made up");
}

/// Bytes in the text forms of other tools: what was written is read.
#[cfg(feature = "capture")]
pub fn dump_forms(data: &[u8]) {
    use crate::capture::{Dump, read_dump};
    use crate::wire::{Command, Frame};
    // A frame in front, so that no form is taken for packets.
    let ping = Command::from(crate::pb::CommandPing::default());
    let mut bytes = bytes::BytesMut::new();
    Frame::Other(ping).encode(&mut bytes);
    bytes.extend_from_slice(data);
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let rows = |offset_digits: usize, colon: &str| {
        let row = |(at, row): (usize, &[String])| format!("{:0offset_digits$x}{colon}  {}\n", at * 16, row.join(" "));
        pairs.chunks(16).enumerate().map(row).collect::<String>()
    };
    let forms = [
        ("hex stream", pairs.concat()),
        ("with colons", pairs.join(":")),
        ("with spaces", pairs.join(" ")),
        ("hexdump -C", rows(8, "")),
        ("xxd -g1", rows(8, ":")),
        ("array", format!("{{ 0x{} }}", pairs.join(", 0x"))),
        ("escaped", format!("\"\\x{}\"", pairs.join("\\x"))),
    ];
    for (form, text) in forms {
        match read_dump(&text) {
            Ok(Dump::Bytes(read)) => assert_eq!(read, bytes, "{form}"),
            other => panic!("{form}: {other:?} of {text}"),
        }
    }
}

/// A recording of what happens on up to three connections, read again: the same bytes at the same places.
#[cfg(feature = "capture")]
pub fn recording(data: &[u8]) {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::time::{Duration, UNIX_EPOCH};

    use crate::capture::recording::{MASKED, Recording};
    use crate::capture::{Direction, Segment, SegmentEvent, SegmentReader};
    use crate::wire::explain::generate::Source;

    let mut source = Source::new(data);
    let mut recording = Recording::new(Vec::new(), MASKED).expect("memory takes all");
    // By connection and direction, what was given.
    let mut given: BTreeMap<(u64, Direction), Vec<u8>> = BTreeMap::new();
    for connection in 1..=1 + source.below(3) as u64 {
        let ip = if source.below(2) == 1 { IpAddr::V6(Ipv6Addr::LOCALHOST) } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
        let event = SegmentEvent::Opened {
            client: SocketAddr::new(ip, 40_000 + connection as u16),
            broker: SocketAddr::new(ip, 6650),
            is_partial: false,
        };
        recording.write(&Segment { connection, at: UNIX_EPOCH, event }).expect("memory takes all");
        given.insert((connection, Direction::ToBroker), Vec::new());
        given.insert((connection, Direction::ToClient), Vec::new());
    }
    let connections = given.len() as u64 / 2;
    let mut at = UNIX_EPOCH;
    while !source.rest().is_empty() {
        let connection = 1 + source.below(connections as usize) as u64;
        let direction = [Direction::ToBroker, Direction::ToClient][source.below(2)];
        let bytes = bytes::Bytes::copy_from_slice(source.bytes(400));
        if bytes.is_empty() {
            continue;
        }
        at += Duration::from_micros(source.byte().into());
        given.get_mut(&(connection, direction)).expect("it was opened").extend(&bytes);
        let event = SegmentEvent::Bytes { direction, bytes };
        recording.write(&Segment { connection, at, event }).expect("memory takes all");
    }
    let file = recording.into_inner();
    let mut read: BTreeMap<(u64, Direction), Vec<u8>> = BTreeMap::new();
    for segment in SegmentReader::new(&file[..]) {
        let Segment { connection, event, .. } = segment.expect("a whole file");
        match event {
            SegmentEvent::Opened { is_partial, .. } => assert!(!is_partial),
            SegmentEvent::Bytes { direction, bytes } => read.entry((connection, direction)).or_default().extend(&bytes),
            SegmentEvent::Missing { .. } | SegmentEvent::Closed { .. } => panic!("{event:?} was not recorded"),
        }
    }
    given.retain(|_, bytes| !bytes.is_empty());
    assert_eq!(read, given, "what was recorded is read");
}
