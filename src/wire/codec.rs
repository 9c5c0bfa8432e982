//! The adaptor for `tokio_util::codec::Framed`, for programs that use frames without the client.

use std::{fmt, io};

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use super::command::Command;
use super::error::DecodeError;
use super::frame::{self, Frame, Frames, Limits};

/// Frames in and out of a byte stream.
///
/// After CONNECTED, set [`limits`](Self::limits) to those of its `max_message_size`.
#[derive(Debug, Default)]
pub struct PulsarCodec {
    /// Limits on the peer's frames.
    pub limits: Limits,
    /// The rest of the last run.
    frames: Option<Frames>,
}

impl PulsarCodec {
    /// A codec with the given limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, frames: None }
    }
}

/// Why a stream of frames failed. After [`Decode`](Self::Decode) the stream cannot be used.
#[derive(Debug)]
pub enum CodecError {
    /// The transport failed, or ended inside a frame.
    Io(io::Error),
    /// The peer sent bytes that are not a frame.
    Decode(DecodeError),
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Decode(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CodecError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Decode(error) => Some(error),
        }
    }
}

impl From<io::Error> for CodecError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<DecodeError> for CodecError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl Decoder for PulsarCodec {
    type Item = Frame;
    type Error = CodecError;

    fn decode(&mut self, rx: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
        loop {
            if let Some(frame) = self.frames.as_mut().and_then(Iterator::next) {
                return Ok(Some(frame?));
            }
            self.frames = frame::cut(rx, &self.limits)?.map(frame::frames);
            if self.frames.is_none() {
                rx.reserve(frame::missing(rx, &self.limits));
                return Ok(None);
            }
        }
    }
}

impl Encoder<&Frame> for PulsarCodec {
    type Error = CodecError;

    fn encode(&mut self, frame: &Frame, tx: &mut BytesMut) -> Result<(), CodecError> {
        frame.encode(tx);
        Ok(())
    }
}

impl Encoder<Frame> for PulsarCodec {
    type Error = CodecError;

    fn encode(&mut self, frame: Frame, tx: &mut BytesMut) -> Result<(), CodecError> {
        frame.encode(tx);
        Ok(())
    }
}

impl Encoder<&Command> for PulsarCodec {
    type Error = CodecError;

    fn encode(&mut self, command: &Command, tx: &mut BytesMut) -> Result<(), CodecError> {
        command.encode_frame(tx);
        Ok(())
    }
}

impl Encoder<Command> for PulsarCodec {
    type Error = CodecError;

    fn encode(&mut self, command: Command, tx: &mut BytesMut) -> Result<(), CodecError> {
        command.encode_frame(tx);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let mut codec = PulsarCodec::default();
        let flow = Command::from(pb::CommandFlow { consumer_id: 1, message_permits: 1000 });
        let mut sent = BytesMut::new();
        for _ in 0..3 {
            codec.encode(&flow, &mut sent).expect("encoding does not fail");
        }
        for piece in [1, 7, sent.len()] {
            let (mut codec, mut rx, mut read) = (PulsarCodec::default(), BytesMut::new(), Vec::new());
            for bytes in sent.chunks(piece) {
                rx.extend_from_slice(bytes);
                while let Some(frame) = codec.decode(&mut rx).expect("good frames") {
                    read.push(frame);
                }
            }
            assert_eq!(read, vec![Frame::Other(flow.clone()); 3]);
            assert!(codec.decode_eof(&mut rx).expect("nothing is left").is_none());
        }
    }

    #[test]
    fn a_bad_length_and_an_end_inside_a_frame_are_errors() {
        let mut codec = PulsarCodec::new(Limits { frame_bytes_max: 100 });
        let error = codec.decode(&mut BytesMut::from(&[0, 0, 0, 97][..])).expect_err("101 bytes in all");
        assert!(matches!(&error, CodecError::Decode(error) if error.field == "total_size"), "{error}");
        let error = codec.decode_eof(&mut BytesMut::from(&[0, 0, 0, 96][..])).expect_err("cut off");
        assert!(matches!(error, CodecError::Io(_)));
    }
}
