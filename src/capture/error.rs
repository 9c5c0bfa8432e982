//! Why a capture cannot be read.

use std::fmt;
use std::io;

/// Why a capture cannot be read (any further).
#[derive(Debug)]
#[non_exhaustive]
pub enum CaptureError {
    /// Reading failed.
    Io(io::Error),
    /// The bytes are neither pcap nor pcapng.
    NotACapture,
    /// The file ends within a packet: it was cut, or is being written.
    Truncated {
        /// Whole packets before that.
        packets: u64,
    },
    /// A block or packet that is not as the format says.
    Malformed {
        /// Whole packets before that.
        packets: u64,
        /// What is wrong.
        reason: String,
    },
    /// The packets are of a network that is not known here.
    LinkType(i32),
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the capture cannot be read: {error}"),
            Self::NotACapture => f.write_str("not a capture: neither pcap nor pcapng"),
            Self::Truncated { packets } => {
                write!(
                    f,
                    "the capture ends within a packet, behind {packets} whole ones: it was cut, or is still being written"
                )
            }
            Self::Malformed { packets, reason } => {
                write!(f, "the capture is damaged behind {packets} packets: {reason}")
            }
            Self::LinkType(number) => write!(
                f,
                "packets of link type {number} are not known here; known are Ethernet (1), raw IP (101), Linux cooked (113, 276) \
                 and loopback (0, 108)"
            ),
        }
    }
}

impl std::error::Error for CaptureError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for CaptureError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
