//! The packets of a pcap or pcapng file, one after the other.

use std::io::{ErrorKind, Read};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes, BytesMut};
use pcap_parser::nom::{Err as Incident, IResult};
use pcap_parser::traits::PcapNGPacketBlock as _;
use pcap_parser::{
    Block, InterfaceDescriptionBlock, OptionCode, PcapError, PcapNGOption, parse_block_be, parse_block_le,
    parse_pcap_frame, parse_pcap_frame_be, parse_pcap_header,
};

use super::super::CaptureError;

/// The largest packet or block, bytes: 64 times what the tools of today write.
const BLOCK_BYTES_MAX: usize = 16 << 20;

/// How much is read at once, bytes.
const READ_BYTES: usize = 64 << 10;

/// The most interfaces of a section.
const INTERFACES_MAX: usize = 4096;

/// The first four bytes of a pcapng file, in either byte order.
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// The types of blocks that are read: section, interface, simple packet, enhanced packet. All others are passed over by their
/// size, whatever is in them.
const BLOCKS_READ: [u32; 4] = [0x0a0d_0d0a, 1, 3, 6];

/// The first four bytes of pcap files: of microseconds and of nanoseconds, in either byte order.
const PCAP_MAGICS: [[u8; 4]; 4] =
    [[0xd4, 0xc3, 0xb2, 0xa1], [0xa1, 0xb2, 0xc3, 0xd4], [0x4d, 0x3c, 0xb2, 0xa1], [0xa1, 0xb2, 0x3c, 0x4d]];

/// Whether a file that starts with these bytes is one for [`SegmentReader`](super::SegmentReader); four bytes tell.
#[must_use]
pub fn is_capture(first: &[u8]) -> bool {
    first.first_chunk().is_some_and(|magic| *magic == SECTION_HEADER || PCAP_MAGICS.contains(magic))
}

/// One packet as it was captured.
#[derive(Debug, Clone)]
pub(in crate::capture) struct Packet {
    pub(in crate::capture) at: SystemTime,
    pub(in crate::capture) link_type: i32,
    pub(in crate::capture) bytes: Bytes,
    /// Its size on the network: more than there are bytes if the capture cut it.
    pub(in crate::capture) size: usize,
}

enum Format {
    Unknown,
    Pcap { is_big_endian: bool, ticks_per_second: u64, link_type: i32 },
    PcapNg { is_big_endian: bool, interfaces: Vec<Interface> },
}

#[derive(Debug, Clone, Copy)]
struct Interface {
    link_type: i32,
    /// The most bytes of a packet that were captured; 0 is no limit.
    snap_len: usize,
    ticks_per_second: u64,
    offset_seconds: i64,
}

/// What a step over the buffer found.
enum Found {
    Packet(Packet),
    /// A header or a block without a packet.
    Other,
    MoreNeeded,
}

/// One item at the front of the buffer, and its size there.
enum Parsed<T> {
    Item(T, usize),
    MoreNeeded,
    Damaged(String),
}

/// What a block of pcapng says.
enum BlockItem {
    Section {
        is_big_endian: bool,
        comment: Option<String>,
    },
    Interface(Interface),
    /// With a time in ticks of the interface; the simple form has none, and its size is that on the network.
    Packet {
        interface: usize,
        ticks: u64,
        data: Bytes,
        size: usize,
        is_simple: bool,
    },
    Other,
}

/// A file, read block by block.
pub(super) struct Packets<R> {
    reader: R,
    /// What one call of `read` fills.
    chunk: Vec<u8>,
    buffer: BytesMut,
    is_at_end: bool,
    format: Format,
    /// Of the section.
    comment: Option<String>,
    count: u64,
}

impl<R: Read> Packets<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            chunk: vec![0; READ_BYTES],
            buffer: BytesMut::new(),
            is_at_end: false,
            format: Format::Unknown,
            comment: None,
            count: 0,
        }
    }

    /// That of the header of the section that is read, if it has one.
    pub(super) fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    /// The next packet; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Packet>, CaptureError> {
        loop {
            match self.step()? {
                Found::Packet(packet) => {
                    self.count += 1;
                    return Ok(Some(packet));
                }
                Found::Other => {}
                Found::MoreNeeded if !self.is_at_end => self.fill()?,
                Found::MoreNeeded => {
                    return match self.format {
                        Format::Unknown => Err(CaptureError::NotACapture),
                        _ if self.buffer.is_empty() => Ok(None),
                        _ => Err(CaptureError::Truncated { packets: self.count }),
                    };
                }
            }
        }
    }

    fn fill(&mut self) -> Result<(), CaptureError> {
        if self.buffer.len() > BLOCK_BYTES_MAX {
            return Err(self.malformed(format!("a block of more than {BLOCK_BYTES_MAX} bytes")));
        }
        let read = loop {
            match self.reader.read(&mut self.chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.buffer.extend_from_slice(&self.chunk[..read]);
        self.is_at_end = read == 0;
        Ok(())
    }

    fn malformed(&self, reason: impl Into<String>) -> CaptureError {
        CaptureError::Malformed { packets: self.count, reason: reason.into() }
    }

    fn step(&mut self) -> Result<Found, CaptureError> {
        match &self.format {
            Format::Unknown => self.start(),
            Format::Pcap { .. } if self.buffer.is_empty() => Ok(Found::MoreNeeded),
            &Format::Pcap { is_big_endian, ticks_per_second, link_type } => {
                let parsed = parse_record(&self.buffer, is_big_endian, ticks_per_second, link_type);
                Ok(self.take(parsed)?.map_or(Found::MoreNeeded, Found::Packet))
            }
            Format::PcapNg { .. } => self.block(),
        }
    }

    /// Tells the formats apart.
    fn start(&mut self) -> Result<Found, CaptureError> {
        match self.buffer.first_chunk::<4>() {
            Some(&SECTION_HEADER) => {
                self.format = Format::PcapNg { is_big_endian: false, interfaces: Vec::new() };
                Ok(Found::Other)
            }
            Some(_) => match parse_pcap_header(&self.buffer) {
                Ok((rest, header)) => {
                    let used = self.buffer.len() - rest.len();
                    let link_type = header.network.0 & 0xffff;
                    if !super::headers::is_known(link_type) {
                        return Err(CaptureError::LinkType(link_type));
                    }
                    let ticks_per_second = if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
                    self.format = Format::Pcap { is_big_endian: header.is_bigendian(), ticks_per_second, link_type };
                    self.buffer.advance(used);
                    Ok(Found::Other)
                }
                Err(Incident::Incomplete(_)) => Ok(Found::MoreNeeded),
                Err(_) => Err(CaptureError::NotACapture),
            },
            None => Ok(Found::MoreNeeded),
        }
    }

    /// Takes what was parsed off the front of the buffer; `None` if there is too little.
    fn take<T>(&mut self, parsed: Parsed<T>) -> Result<Option<T>, CaptureError> {
        match parsed {
            Parsed::Item(item, size) => {
                self.buffer.advance(size);
                Ok(Some(item))
            }
            Parsed::MoreNeeded => Ok(None),
            Parsed::Damaged(reason) => Err(self.malformed(reason)),
        }
    }

    fn block(&mut self) -> Result<Found, CaptureError> {
        let Format::PcapNg { is_big_endian, .. } = self.format else { return Ok(Found::Other) };
        if self.buffer.is_empty() {
            return Ok(Found::MoreNeeded);
        }
        let parsed = parse_block(&self.buffer, is_big_endian);
        let Some(item) = self.take(parsed)? else { return Ok(Found::MoreNeeded) };
        let Format::PcapNg { is_big_endian, interfaces } = &mut self.format else { return Ok(Found::Other) };
        match item {
            BlockItem::Section { is_big_endian: this, comment } => {
                *is_big_endian = this;
                interfaces.clear();
                self.comment = comment;
            }
            BlockItem::Interface(_) if interfaces.len() >= INTERFACES_MAX => {
                return Err(self.malformed(format!("more than {INTERFACES_MAX} interfaces")));
            }
            BlockItem::Interface(interface) => interfaces.push(interface),
            BlockItem::Packet { interface, ticks, mut data, size, is_simple } => {
                let Some(&known) = interfaces.get(interface) else {
                    return Err(self.malformed(format!("a packet of interface {interface}, which is not described")));
                };
                if is_simple && known.snap_len > 0 {
                    data.truncate(known.snap_len);
                }
                let (at, size) = (known.time(ticks), size.max(data.len()));
                return Ok(Found::Packet(Packet { at, link_type: known.link_type, bytes: data, size }));
            }
            BlockItem::Other => {}
        }
        Ok(Found::Other)
    }
}

/// The first one, if it is text.
fn comment(options: &[PcapNGOption<'_>]) -> Option<String> {
    let comment = options.iter().find(|option| option.code == OptionCode::Comment)?;
    comment.as_str().ok().map(str::to_owned)
}

impl Interface {
    fn new(block: &InterfaceDescriptionBlock<'_>) -> Self {
        let ticks_per_second = match block.if_tsresol {
            power @ ..=19 => 10u64.pow(power.into()),
            binary @ 0x80..=0xbf => 1 << (binary & 0x7f),
            _ => 1_000_000,
        };
        let (link_type, snap_len) = (block.linktype.0, block.snaplen as usize);
        Self { link_type, snap_len, ticks_per_second, offset_seconds: block.if_tsoffset }
    }

    fn time(&self, ticks: u64) -> SystemTime {
        let seconds = (ticks / self.ticks_per_second).saturating_add_signed(self.offset_seconds);
        time(seconds, ticks % self.ticks_per_second, self.ticks_per_second)
    }
}

fn size_at(buffer: &[u8], at: usize, is_big_endian: bool) -> Option<u32> {
    let bytes = *buffer.get(at..)?.first_chunk()?;
    Some(if is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
}

/// A size at `at`, if it is above the limit: what would have to be kept is not of a sound file.
fn oversize<T>(buffer: &[u8], at: usize, is_big_endian: bool) -> Option<Parsed<T>> {
    let size = size_at(buffer, at, is_big_endian)?;
    let is_above = size as usize > BLOCK_BYTES_MAX;
    is_above.then(|| Parsed::Damaged(format!("a packet or block of {size} bytes; the limit is {BLOCK_BYTES_MAX}")))
}

/// A packet of a pcap file.
fn parse_record(buffer: &[u8], is_big_endian: bool, ticks_per_second: u64, link_type: i32) -> Parsed<Packet> {
    const CAPTURED_SIZE_AT: usize = 8;
    if let Some(damaged) = oversize(buffer, CAPTURED_SIZE_AT, is_big_endian) {
        return damaged;
    }
    let parse = if is_big_endian { parse_pcap_frame_be } else { parse_pcap_frame };
    parsed(buffer, parse(buffer), |record| {
        let at = time(record.ts_sec.into(), record.ts_usec.into(), ticks_per_second);
        let bytes = Bytes::copy_from_slice(record.data);
        Packet { at, link_type, size: bytes.len().max(record.origlen as usize), bytes }
    })
}

/// A block of a pcapng file, once all of it is there.
fn parse_block(buffer: &[u8], is_big_endian: bool) -> Parsed<BlockItem> {
    const SIZE_AT: usize = 4;
    const BYTE_ORDER_AT: usize = 8;
    const BIG_ENDIAN: [u8; 4] = [0x1a, 0x2b, 0x3c, 0x4d];
    // A section says in its header which byte order it has.
    let is_big_endian = match buffer.get(BYTE_ORDER_AT..).and_then(|rest| rest.first_chunk()) {
        Some(order) if buffer.starts_with(&SECTION_HEADER) => *order == BIG_ENDIAN,
        Some(_) => is_big_endian,
        None => return Parsed::MoreNeeded,
    };
    if let Some(damaged) = oversize(buffer, SIZE_AT, is_big_endian) {
        return damaged;
    }
    let size = size_at(buffer, SIZE_AT, is_big_endian).unwrap_or(0);
    let Some(block) = buffer.get(..size as usize) else { return Parsed::MoreNeeded };
    if !size_at(block, 0, is_big_endian).is_some_and(|kind| BLOCKS_READ.contains(&kind)) {
        return pass_over(block, is_big_endian);
    }
    let parse = if is_big_endian { parse_block_be } else { parse_block_le };
    let result = match parse(block) {
        Err(Incident::Incomplete(_)) => {
            return Parsed::Damaged("its next block is shorter than what is in it".to_owned());
        }
        result => result,
    };
    parsed(block, result, |block| match block {
        Block::SectionHeader(header) => {
            BlockItem::Section { is_big_endian: header.big_endian(), comment: comment(&header.options) }
        }
        Block::InterfaceDescription(interface) => BlockItem::Interface(Interface::new(&interface)),
        Block::EnhancedPacket(packet) => BlockItem::Packet {
            interface: packet.if_id as usize,
            ticks: u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low),
            data: Bytes::copy_from_slice(packet.packet_data()),
            size: packet.origlen as usize,
            is_simple: false,
        },
        Block::SimplePacket(packet) => {
            let size = packet.origlen as usize;
            let data = Bytes::copy_from_slice(&packet.data[..packet.data.len().min(size)]);
            BlockItem::Packet { interface: 0, ticks: 0, data, size, is_simple: true }
        }
        _ => BlockItem::Other,
    })
}

/// A block that is not read: its size stands at its front and again at its end.
fn pass_over(block: &[u8], is_big_endian: bool) -> Parsed<BlockItem> {
    const SIZE_MIN: usize = 12;
    let size = block.len();
    let is_sound = size >= SIZE_MIN && size_at(block, size - 4, is_big_endian) == u32::try_from(size).ok();
    if is_sound { Parsed::Item(BlockItem::Other, size) } else { Parsed::Damaged(format!("a block of {size} bytes")) }
}

fn parsed<'a, T, U>(
    buffer: &[u8],
    result: IResult<&'a [u8], T, PcapError<&'a [u8]>>,
    item: impl FnOnce(T) -> U,
) -> Parsed<U> {
    match result {
        Ok((rest, found)) => Parsed::Item(item(found), buffer.len() - rest.len()),
        Err(Incident::Incomplete(_)) => Parsed::MoreNeeded,
        Err(Incident::Error(error) | Incident::Failure(error)) => Parsed::Damaged(match error {
            PcapError::NomError(_, kind) | PcapError::OwnedNomError(_, kind) => {
                format!("its next block cannot be read ({})", kind.description())
            }
            other => other.to_string(),
        }),
    }
}

/// A time that the system cannot represent becomes 1970.
fn time(seconds: u64, ticks: u64, ticks_per_second: u64) -> SystemTime {
    let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(ticks_per_second.max(1));
    let since = Duration::new(seconds, 0).saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)));
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}
