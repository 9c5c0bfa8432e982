//! The lines of one frame while they are made, and what they refer to.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use super::super::proto::Reader;
use super::{LINES_MAX, Line, Problem, Value, WireType, commands};

/// The walk cannot go on; why is in a line already.
#[derive(Debug)]
pub(super) struct Broken;

pub(super) type Step<T = ()> = Result<T, Broken>;

/// Collects the lines of one frame.
pub(super) struct Walk {
    /// What is walked over: the input, or a content.
    pub(super) bytes: Bytes,
    /// Which content that is.
    pub(super) content: Option<usize>,
    pub(super) contents: Vec<Bytes>,
    pub(super) lines: Vec<Line>,
    /// What breaks off or is skipped may be part of a credential, and is not shown.
    pub(super) is_guarded: bool,
    /// The chapter of the command.
    pub(super) chapter: Option<&'static str>,
}

impl Walk {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { bytes, content: None, contents: Vec::new(), lines: Vec::new(), is_guarded: true, chapter: None }
    }

    /// Adds a line without a meaning; what it returns can be given one.
    pub(super) fn push(
        &mut self,
        bytes: Range<usize>,
        depth: usize,
        path: impl Into<String>,
        wire_type: WireType,
        value: Value,
    ) -> &mut Line {
        let path = path.into();
        let rule = commands::chapter_of(&path).or(self.chapter);
        let line =
            Line { content: self.content, bytes, depth, path, wire_type, value, meaning: None, rule, problem: None };
        self.lines.push(line);
        self.lines.last_mut().expect("it was just pushed")
    }

    /// A line for what breaks the protocol at `at`.
    pub(super) fn broken<T>(
        &mut self,
        bytes: Range<usize>,
        depth: usize,
        path: impl Into<String>,
        at: usize,
        expected: impl Into<Cow<'static, str>>,
    ) -> Step<T> {
        let value = self.guarded(&bytes);
        self.push(bytes, depth, path, WireType::Raw, value).problem = Some(Problem { at, expected: expected.into() });
        Err(Broken)
    }

    /// A line for bytes that are not read any further; none for no bytes.
    pub(super) fn rest(&mut self, bytes: Range<usize>, depth: usize, meaning: &'static str) {
        if !bytes.is_empty() {
            let value = self.guarded(&bytes);
            self.push(bytes, depth, "rest", WireType::Raw, value).meaning = Some(meaning.into());
        }
    }

    fn guarded(&self, bytes: &Range<usize>) -> Value {
        if self.is_guarded && !bytes.is_empty() { Value::Secret { size: bytes.len() } } else { Value::None }
    }

    /// Whether there may be more lines.
    pub(super) fn is_full(&self) -> bool {
        self.lines.len() >= LINES_MAX
    }

    pub(super) fn u16_at(&self, at: usize) -> Option<u16> {
        self.bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
    }

    pub(super) fn u32_at(&self, at: usize, end: usize) -> Option<u32> {
        self.bytes.get(at..end)?.first_chunk().copied().map(u32::from_be_bytes)
    }

    /// The varint at `at` and where it ends; otherwise where it breaks.
    pub(super) fn varint(&self, at: usize, end: usize) -> Result<(u64, usize), VarintBreak> {
        const VARINT_BYTES_MAX: usize = 10;
        let mut reader = Reader::new(&self.bytes[at..end], at);
        match reader.next_packed("varint") {
            Ok(Some(value)) => Ok((value, reader.offset())),
            _ if end - at < VARINT_BYTES_MAX => Err(VarintBreak::End),
            _ => Err(VarintBreak::TooLong(at + VARINT_BYTES_MAX - 1)),
        }
    }
}

/// Why a varint cannot be read.
#[derive(Debug)]
pub(super) enum VarintBreak {
    /// The bytes end within it.
    End,
    /// It has more than 64 bits, as its tenth byte shows, which is here.
    TooLong(usize),
}
