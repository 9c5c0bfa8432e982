//! Captures, made byte by byte.

use std::net::SocketAddr;

use etherparse::PacketBuilder;

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;

/// How the headers and the file are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) link_type: u32,
    pub(super) is_big_endian: bool,
    pub(super) is_nanosecond: bool,
    pub(super) is_pcapng: bool,
    pub(super) snap_len: usize,
}

impl Default for Style {
    fn default() -> Self {
        Self { link_type: 1, is_big_endian: false, is_nanosecond: false, is_pcapng: false, snap_len: 65_535 }
    }
}

/// A capture file that grows.
#[derive(Debug)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    style: Style,
    packets: u32,
}

impl File {
    pub(super) fn new(style: Style) -> Self {
        let mut file = Self { bytes: Vec::new(), style, packets: 0 };
        if style.is_pcapng {
            let version = [file.u16(1), file.u16(0)].concat();
            let body = [&file.u32(0x1a2b_3c4d)[..], &version, &[0xff; 8]].concat();
            file.block(0x0a0d_0d0a, &body);
            // if_tsresol, and the end of the options.
            let resolution = if style.is_nanosecond { 9 } else { 6 };
            let options = [&file.u16(9)[..], &file.u16(1), &[resolution, 0, 0, 0], &[0; 4]].concat();
            let link = file.u16(style.link_type as u16);
            let body = [&link[..], &[0, 0], &file.u32(style.snap_len as u32), &options].concat();
            file.block(1, &body);
        } else {
            let magic = if style.is_nanosecond { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
            let version = [file.u16(2), file.u16(4)].concat();
            let [magic, snap_len, link] = [magic, style.snap_len as u32, style.link_type].map(|value| file.u32(value));
            file.bytes = [&magic[..], &version, &[0; 8], &snap_len, &link].concat();
        }
        file
    }

    fn u16(&self, value: u16) -> [u8; 2] {
        if self.style.is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u32(&self, value: u32) -> [u8; 4] {
        if self.style.is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    pub(super) fn block(&mut self, kind: u32, body: &[u8]) {
        let padded = body.len().next_multiple_of(4);
        let size = self.u32(12 + padded as u32);
        let padding = vec![0; padded - body.len()];
        let block = [&self.u32(kind)[..], &size, body, &padding, &size].concat();
        self.bytes.extend(block);
    }

    /// A packet with all headers, one second behind the last one.
    pub(super) fn packet(&mut self, whole: &[u8]) {
        self.packets += 1;
        let captured = &whole[..whole.len().min(self.style.snap_len)];
        let sizes = [captured.len(), whole.len()].map(|size| self.u32(size as u32)).concat();
        if self.style.is_pcapng {
            let second = if self.style.is_nanosecond { 1_000_000_000 } else { 1_000_000 };
            let ticks = u64::from(self.packets) * second;
            let time = [self.u32((ticks >> 32) as u32), self.u32(ticks as u32)].concat();
            let body = [&self.u32(0)[..], &time, &sizes, captured].concat();
            self.block(6, &body);
        } else {
            let record = [&self.u32(self.packets)[..], &[0; 4], &sizes, captured].concat();
            self.bytes.extend(record);
        }
    }

    pub(super) fn tcp(&mut self, from: SocketAddr, to: SocketAddr, sequence: u32, ack: u32, flags: u8, payload: &[u8]) {
        let packet = tcp_packet(self.style.link_type, from, to, (sequence, ack, flags), payload);
        self.packet(&packet);
    }
}

/// A packet of that link type, with the sequence number, the acknowledgement and the flags of TCP.
pub(super) fn tcp_packet(
    link_type: u32,
    from: SocketAddr,
    to: SocketAddr,
    (sequence, ack, flags): (u32, u32, u8),
    payload: &[u8],
) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let ip = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => ethernet.ipv4(from.ip().octets(), to.ip().octets(), 64),
        (SocketAddr::V6(from), SocketAddr::V6(to)) => ethernet.ipv6(from.ip().octets(), to.ip().octets(), 64),
        _ => panic!("both ends are of one family"),
    };
    let mut tcp = ip.tcp(from.port(), to.port(), sequence, 65_535);
    if flags & FIN != 0 {
        tcp = tcp.fin();
    }
    if flags & SYN != 0 {
        tcp = tcp.syn();
    }
    if flags & RST != 0 {
        tcp = tcp.rst();
    }
    if flags & ACK != 0 {
        tcp = tcp.ack(ack);
    }
    let mut packet = Vec::new();
    tcp.write(&mut packet, payload).expect("into memory");
    let (ether_type, ip) = ([packet[12], packet[13]], &packet[14..]);
    let head = match link_type {
        1 => return packet,
        0 => vec![2, 0, 0, 0],
        12 | 14 | 101 | 228 | 229 => vec![],
        113 => [&[0, 0, 0, 1, 0, 6][..], &[4; 8], &ether_type].concat(),
        276 => [&ether_type[..], &[0; 18]].concat(),
        other => panic!("link type {other}"),
    };
    [&head, ip].concat()
}
