//! Bytes out of the texts that tools show them in.
//!
//! | form | of |
//! | --- | --- |
//! | `0000000d 00000009`, `00:00:00:0d` | plain hexadecimal; Wireshark's hex stream; `xxd -p` |
//! | `00000000: 0000 000d  ....` | `xxd` |
//! | `00000000  00 00 00 0d  \|....\|` | `hexdump -C`; Wireshark's hex dumps, also those of a followed stream |
//! | `0000000d…` below `Follow: tcp,raw` | `tshark -z follow,tcp,raw` |
//! | `0x0000:  4500 003c  E..<` | `tcpdump -X` and `-XX` |
//! | `{ 0x00, 0x00, 0x00, 0x0d }` | Wireshark's C array, arrays of most languages |
//! | `"\x00\x00\x00\x0d"` | Wireshark's escaped string, byte strings of Python |
//! | `AAAADQ==` | base64 |

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::pcap::{DumpedPacket, segments_of};
use super::{Direction, Segment, SegmentEvent, Traffic};
use crate::base64_text;

/// What a text form holds.
#[derive(Clone, PartialEq, Eq)]
pub enum Dump {
    /// Bytes, which start with a frame, or are of no network packet at least.
    Bytes(Bytes),
    /// Network packets, or both directions of a stream, as the segments of their connections.
    Segments(Vec<Segment>),
}

impl fmt::Debug for Dump {
    /// Does not show the bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => f.debug_tuple("Bytes").field(&bytes.len()).finish(),
            Self::Segments(segments) => f.debug_tuple("Segments").field(&segments.len()).finish(),
        }
    }
}

/// Why a text holds no bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for DumpError {}

/// Reads bytes out of any of the forms above. Which it is, the text tells.
///
/// Bytes that start with a packet's headers (Ethernet, Linux cooked, loopback or raw IP, and TCP) are taken as packets; several
/// packets are put in order as those of a capture are. Times are those of day that tcpdump shows, on 1970-01-01.
///
/// # Errors
/// The line with what cannot be read, or with an offset that does not follow the bytes before it.
pub fn read_dump(text: &str) -> Result<Dump, DumpError> {
    if let Some(blocks) = followed_raw(text) {
        return Ok(Dump::Segments(followed(&blocks)));
    }
    let blocks = blocks(text)?;
    let blocks = if blocks.is_empty() { vec![Block::new(plain(text)?)] } else { blocks };
    let starts_with_frame = blocks.first().is_some_and(|block| Traffic::of(&block.bytes) == Some(Traffic::Pulsar));
    if blocks.iter().any(|block| block.is_indented) {
        return Ok(Dump::Segments(followed(&blocks)));
    }
    if !starts_with_frame {
        let packets =
            blocks.iter().map(|block| DumpedPacket { at: block.at, bytes: Bytes::copy_from_slice(&block.bytes) });
        let segments = segments_of(packets);
        if !segments.is_empty() {
            return Ok(Dump::Segments(segments));
        }
    }
    Ok(Dump::Bytes(blocks.into_iter().flat_map(|block| block.bytes).collect()))
}

/// Bytes whose offsets count from 0.
struct Block {
    at: SystemTime,
    /// Of the side that Wireshark and tshark indent: the one that did not open the connection.
    is_indented: bool,
    bytes: Vec<u8>,
}

impl Block {
    fn new(bytes: Vec<u8>) -> Self {
        Self { at: UNIX_EPOCH, is_indented: false, bytes }
    }
}

/// A line of a dump with offsets.
struct Row<'a> {
    number: usize,
    offset: usize,
    /// A colon behind the offset: nothing but the text column is apart from the digits.
    has_colon: bool,
    is_indented: bool,
    rest: &'a str,
}

/// Splits a line that starts with an offset; none is taken for one that is not behind the `expected` bytes, unless it is marked.
fn row(number: usize, line: &str, expected: usize) -> Option<Row<'_>> {
    let start = line.trim_start();
    let (first, rest) = start.split_once(char::is_whitespace)?;
    let digits = first.trim_end_matches(':');
    let has_colon = digits.len() < first.len();
    let (digits, is_marked) = digits.strip_prefix("0x").map_or((digits, has_colon), |digits| (digits, true));
    if !(4..=8).contains(&digits.len()) {
        return None;
    }
    let offset = usize::from_str_radix(digits, 16).ok()?;
    let pairs = rest.split_whitespace().next().is_some_and(|token| token.len() == 2);
    let is_row = is_marked || pairs && (offset == expected || offset == 0);
    let is_indented = is_indented(line) && !has_colon;
    is_row.then_some(Row { number, offset, has_colon, is_indented, rest })
}

/// Wireshark indents by four spaces, tshark by a tab.
fn is_indented(line: &str) -> bool {
    line.starts_with("    ") || line.starts_with('\t')
}

/// The blocks of a dump with offsets; none if the text is not one.
fn blocks(text: &str) -> Result<Vec<Block>, DumpError> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut at = UNIX_EPOCH;
    // How many bytes each side has sent: Wireshark counts them on.
    let mut sent = [0, 0];
    for (index, line) in text.lines().enumerate() {
        let side = usize::from(is_indented(line));
        let Some(row) = row(index + 1, line, sent[side]) else {
            at = time_of_day(line).unwrap_or(at);
            continue;
        };
        let side = usize::from(row.is_indented);
        let bytes = row_bytes(&row)?;
        if row.offset != sent[side] && row.offset != 0 {
            let reason =
                format!("the offset {:#x} does not follow {:#x} bytes: some are left out", row.offset, sent[side]);
            return Err(DumpError { line: row.number, reason });
        }
        let continues = row.offset != 0 && blocks.last().is_some_and(|last| last.is_indented == row.is_indented);
        sent[side] = row.offset + bytes.len();
        match blocks.last_mut().filter(|_| continues) {
            Some(block) => block.bytes.extend(bytes),
            None => blocks.push(Block { at, is_indented: row.is_indented, bytes }),
        }
    }
    Ok(blocks)
}

/// The bytes of a line, without what is shown of them as text.
fn row_bytes(row: &Row<'_>) -> Result<Vec<u8>, DumpError> {
    /// In the middle of its lines, some tools leave a wider gap.
    const MIDDLE: usize = 8;
    const LINE_BYTES: usize = 16;
    let mut bytes = Vec::new();
    let mut rest = row.rest.trim_start();
    while !rest.is_empty() {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (token, behind) = rest.split_at(end);
        let Some(decoded) = token.is_ascii().then(|| pairs(token)).flatten() else { break };
        bytes.extend(decoded);
        let gap = behind.len() - behind.trim_start_matches(' ').len();
        rest = behind.trim_start();
        let is_middle = !row.has_colon && gap == 2 && bytes.len() == MIDDLE;
        if gap > 1 && !is_middle || !row.has_colon && bytes.len() == LINE_BYTES {
            break;
        }
    }
    match bytes.is_empty() {
        true => Err(DumpError { line: row.number, reason: "no hexadecimal digits behind the offset".to_owned() }),
        false => Ok(bytes),
    }
}

/// Pairs of hexadecimal digits.
fn pairs(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// The time in front of a packet of tcpdump: `22:13:20.123456 IP ...`, with or without a date.
fn time_of_day(line: &str) -> Option<SystemTime> {
    let time = line.split_whitespace().take(2).find(|word| word.matches(':').count() == 2)?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = clock.split(':').map(|part| part.parse::<u64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let micros = format!("{fraction:0<6}").get(..6)?.parse::<u32>().ok()?;
    let is_time = hours < 24 && minutes < 60 && seconds < 60;
    let of_day = || Duration::from_secs(hours * 3600 + minutes * 60 + seconds) + Duration::from_micros(micros.into());
    is_time.then(|| UNIX_EPOCH + of_day())
}

/// A text without offsets.
fn plain(text: &str) -> Result<Vec<u8>, DumpError> {
    if text.contains("\\x") {
        return Ok(escaped(text));
    }
    if text.contains("0x") && text.contains(',') {
        return array(text);
    }
    let is_noise = |c: char| c.is_whitespace() || matches!(c, ':' | ',' | '-' | '_');
    let digits: String = text.trim().trim_start_matches("0x").chars().filter(|c| !is_noise(*c)).collect();
    if let Some(bytes) = pairs(&digits).filter(|bytes| !bytes.is_empty()) {
        return Ok(bytes);
    }
    let base64: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let is_hex = digits.chars().all(|c| c.is_ascii_hexdigit());
    if let Some(bytes) = base64_text::decode(&base64).filter(|_| !is_hex && base64.len() > 4) {
        return Ok(bytes);
    }
    if is_hex && !digits.is_empty() {
        return Err(DumpError { line: 1, reason: "odd number of hex digits".to_owned() });
    }
    let bad = |(index, line): (usize, &str)| {
        let c = line.chars().find(|c| !is_noise(*c) && !c.is_ascii_hexdigit())?;
        Some(DumpError {
            line: index + 1,
            reason: format!("{c:?} is not a hex digit, and the text is no other known dump"),
        })
    };
    Err(text.lines().enumerate().find_map(bad).unwrap_or(DumpError { line: 1, reason: "no bytes".to_owned() }))
}

/// The numbers of an array of bytes.
fn array(text: &str) -> Result<Vec<u8>, DumpError> {
    let mut bytes = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for word in code.split(|c: char| !c.is_ascii_alphanumeric()) {
            let Some(digits) = word.strip_prefix("0x") else { continue };
            let byte = u8::from_str_radix(digits, 16);
            bytes.push(byte.map_err(|_| DumpError { line: index + 1, reason: format!("{word} is not a byte") })?);
        }
    }
    Ok(bytes)
}

/// What a string literal with escapes holds; of several lines the parts within quotes.
fn escaped(text: &str) -> Vec<u8> {
    let quote = text.chars().find(|c| matches!(c, '"' | '\''));
    let mut bytes = Vec::new();
    let mut chars = text.chars().peekable();
    let mut is_inside = quote.is_none();
    while let Some(c) = chars.next() {
        if Some(c) == quote {
            is_inside = !is_inside;
        } else if is_inside && c == '\\' {
            match chars.next() {
                Some('x') => {
                    let digits: String = (0..2).map_while(|_| chars.next_if(char::is_ascii_hexdigit)).collect();
                    bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(0));
                }
                Some('n') => bytes.push(b'\n'),
                Some('r') => bytes.push(b'\r'),
                Some('t') => bytes.push(b'\t'),
                Some('0') => bytes.push(0),
                Some(other) => bytes.extend(other.to_string().bytes()),
                None => {}
            }
        } else if is_inside && !(quote.is_none() && c.is_whitespace()) {
            bytes.extend(c.to_string().bytes());
        }
    }
    bytes
}

/// Both directions as `tshark -z follow,tcp,raw` writes them: below a head, each line has the digits of one piece.
fn followed_raw(text: &str) -> Option<Vec<Block>> {
    let mut lines = text.lines().skip_while(|line| line.trim_end() != "Follow: tcp,raw");
    lines.next()?;
    let blocks = lines.filter_map(|line| {
        let bytes = pairs(line.trim()).filter(|bytes| !bytes.is_empty())?;
        Some(Block { is_indented: is_indented(line), ..Block::new(bytes) })
    });
    Some(blocks.collect())
}

/// Both directions of a stream that Wireshark has followed; it does not tell the addresses.
fn followed(blocks: &[Block]) -> Vec<Segment> {
    let [client, broker] = [([0, 0, 0, 0], 0).into(), ([0, 0, 0, 0], 6650).into()];
    let segment = |event| Segment { connection: 1, at: UNIX_EPOCH, event };
    let opened = SegmentEvent::Opened { client, broker, is_partial: false };
    let bytes = blocks.iter().map(|block| {
        let direction = if block.is_indented { Direction::ToClient } else { Direction::ToBroker };
        segment(SegmentEvent::Bytes { direction, bytes: Bytes::copy_from_slice(&block.bytes) })
    });
    std::iter::once(segment(opened)).chain(bytes).collect()
}

#[cfg(test)]
mod tests;
