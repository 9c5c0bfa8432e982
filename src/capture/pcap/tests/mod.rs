mod files;

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use self::files::{ACK, FIN, File, RST, SYN, Style};
use super::*;
use crate::capture::{Direction, SegmentEvent, Traffic};
use crate::splitmix::SplitMix64;

fn client() -> SocketAddr {
    "10.0.0.2:40000".parse().unwrap()
}

fn broker() -> SocketAddr {
    "10.0.0.1:6650".parse().unwrap()
}

fn read(file: &[u8]) -> (Vec<Segment>, Option<CaptureError>) {
    let mut segments = Vec::new();
    for item in SegmentReader::new(file) {
        match item {
            Ok(segment) => segments.push(segment),
            Err(error) => return (segments, Some(error)),
        }
    }
    (segments, None)
}

/// Segments as short texts: `1 > "bytes"`, `1 < missing 5`.
fn told(segments: &[Segment]) -> Vec<String> {
    let arrow = |direction: &Direction| if *direction == Direction::ToBroker { '>' } else { '<' };
    let text = |segment: &Segment| match &segment.event {
        SegmentEvent::Opened { client, broker, is_partial } => {
            format!("{client} {} {broker}", if *is_partial { "~" } else { "=" })
        }
        SegmentEvent::Bytes { direction, bytes } => {
            format!("{} {:?}", arrow(direction), String::from_utf8_lossy(bytes))
        }
        SegmentEvent::Missing { direction, count } => format!("{} missing {count}", arrow(direction)),
        SegmentEvent::Closed { direction, is_reset } => {
            format!("{} {}", arrow(direction), if *is_reset { "reset" } else { "closed" })
        }
    };
    segments.iter().map(|segment| format!("{} {}", segment.connection, text(segment))).collect()
}

fn told_of(file: &File) -> Vec<String> {
    let (segments, error) = read(&file.bytes);
    assert!(error.is_none(), "{error:?}");
    told(&segments)
}

/// A file with the handshake of a connection; the next sequence numbers are 101 and 501.
fn opened(style: Style) -> File {
    let mut file = File::new(style);
    file.tcp(client(), broker(), 100, 0, SYN, b"");
    file.tcp(broker(), client(), 500, 101, SYN | ACK, b"");
    file.tcp(client(), broker(), 101, 501, ACK, b"");
    file
}

const OPENED: &str = "1 10.0.0.2:40000 = 10.0.0.1:6650";

#[test]
fn a_connection_is_read_whatever_the_file_is_like() {
    let link_types = [0, 1, 12, 101, 113, 228, 276];
    for (index, link_type) in link_types.into_iter().cycle().take(4 * link_types.len()).enumerate() {
        let style = Style {
            link_type,
            is_big_endian: index % 2 == 1,
            is_nanosecond: index % 3 == 1,
            is_pcapng: index >= 2 * link_types.len(),
            ..Style::default()
        };
        let mut file = opened(style);
        file.tcp(client(), broker(), 101, 501, ACK, b"hello");
        file.tcp(broker(), client(), 501, 106, ACK, b"hi");
        file.tcp(client(), broker(), 106, 503, FIN | ACK, b"!");
        file.tcp(broker(), client(), 503, 108, FIN | ACK, b"");
        let (segments, error) = read(&file.bytes);
        assert!(error.is_none(), "{style:?}: {error:?}");
        let expected = [OPENED, "1 > \"hello\"", "1 < \"hi\"", "1 > \"!\"", "1 > closed", "1 < closed"];
        assert_eq!(told(&segments), expected, "{style:?}");
        assert_eq!(segments[1].at, UNIX_EPOCH + Duration::from_secs(4), "{style:?}");
    }
}

#[test]
fn ipv6_and_vlan_tags_are_read() {
    let (client, broker) = ("[::2]:40000".parse().unwrap(), "[::1]:6651".parse().unwrap());
    let mut file = File::new(Style::default());
    file.tcp(client, broker, 100, 0, SYN, b"");
    let plain = files::tcp_packet(1, client, broker, (101, 1, ACK), b"tagged");
    file.packet(&[&plain[..12], &[0x81, 0, 0, 7], &plain[12..]].concat());
    assert_eq!(told_of(&file), ["1 [::2]:40000 = [::1]:6651", "1 > \"tagged\""]);
}

#[test]
fn reordered_repeated_and_overlapping_packets_make_one_stream() {
    let mut file = opened(Style::default());
    let mut sent = |at: u32, payload: &[u8]| file.tcp(client(), broker(), 101 + at, 501, ACK, payload);
    sent(3, b"def");
    sent(0, b"abc");
    sent(0, b"abc");
    sent(4, b"efgh");
    sent(12, b"mn");
    sent(10, b"klmn");
    // A keep-alive of TCP: one byte before what comes next.
    sent(7, b"?");
    sent(8, b"ijk");
    assert_eq!(told_of(&file), [OPENED, "1 > \"abc\"", "1 > \"def\"", "1 > \"gh\"", "1 > \"ijk\"", "1 > \"lmn\""]);
}

#[test]
fn lost_bytes_are_said_once_they_cannot_come_any_more() {
    let mut file = opened(Style::default());
    file.tcp(client(), broker(), 106, 501, ACK, b"after");
    assert_eq!(told_of(&file), [OPENED, "1 > missing 5", "1 > \"after\""], "at the end of the file");
    file.tcp(broker(), client(), 501, 111, ACK, b"");
    for index in 0..70 {
        file.tcp(broker(), client(), 501 + index, 111, ACK, b".");
    }
    let told = told_of(&file);
    let missing = told.iter().position(|text| text == "1 > missing 5").expect("said");
    assert!((60..70).contains(&missing), "after some packets: {told:?}");
    file.tcp(client(), broker(), 101, 501, ACK, b"late!");
    assert!(!told_of(&file).contains(&"1 > \"late!\"".to_owned()), "its place is gone");
}

#[test]
fn much_that_waits_for_a_lost_packet_is_not_kept() {
    let mut file = opened(Style::default());
    let payload = vec![b'x'; 60_000];
    for index in 0..100 {
        file.tcp(client(), broker(), 102 + index * 60_000, 501, ACK, &payload);
    }
    let mut reader = SegmentReader::new(&file.bytes[..]);
    let mut missing_at = None;
    while let Some(segment) = reader.next() {
        if let SegmentEvent::Missing { count, .. } = segment.expect("a segment").event {
            missing_at = Some((count, reader.counts().packets));
        }
    }
    assert!(matches!(missing_at, Some((1, 70..80))), "{missing_at:?}");
}

#[test]
fn sequence_numbers_go_round() {
    let mut file = File::new(Style::default());
    file.tcp(client(), broker(), u32::MAX - 3, 0, SYN, b"");
    file.tcp(client(), broker(), 2, 1, ACK, b"fgh");
    file.tcp(client(), broker(), u32::MAX - 2, 1, ACK, b"abcde");
    assert_eq!(told_of(&file), [OPENED, "1 > \"abcde\"", "1 > \"fgh\""]);
}

#[test]
fn packets_cut_by_the_snap_length_lack_their_end() {
    for is_pcapng in [false, true] {
        let mut file = opened(Style { snap_len: 14 + 20 + 20 + 4, is_pcapng, ..Style::default() });
        file.tcp(client(), broker(), 101, 501, ACK, b"abcdefgh");
        file.tcp(client(), broker(), 109, 501, ACK, b"ij");
        assert_eq!(told_of(&file), [OPENED, "1 > \"abcd\"", "1 > missing 4", "1 > \"ij\""]);
    }
}

#[test]
fn a_connection_that_is_open_already_is_partial() {
    let frame = b"\0\0\0\x0e\0\0\0\x0a\x08\x03\x1a\x06\x0a\x04test";
    let [odd, other]: [SocketAddr; 2] = ["10.0.0.9:1234".parse().unwrap(), "10.0.0.8:4321".parse().unwrap()];
    let mut file = File::new(Style::default());
    file.tcp(client(), broker(), 100, 1, ACK, b"from within");
    // No port of a broker, but CONNECTED, which only a broker sends.
    file.tcp(other, odd, 100, 1, ACK, frame);
    file.tcp(odd, "10.0.0.7:4322".parse().unwrap(), 100, 1, ACK, b"?");
    let told = told_of(&file);
    assert_eq!(told[0], "1 10.0.0.2:40000 ~ 10.0.0.1:6650");
    assert_eq!(told[1], "1 > \"from within\"");
    assert_eq!(told[2], "2 10.0.0.9:1234 ~ 10.0.0.8:4321");
    assert_eq!(told[4], "3 10.0.0.7:4322 ~ 10.0.0.9:1234", "the lower port");
}

#[test]
fn connections_are_told_apart_also_on_the_same_ports() {
    let mut file = opened(Style::default());
    let second: SocketAddr = "10.0.0.2:40001".parse().unwrap();
    file.tcp(second, broker(), 7, 0, SYN, b"");
    file.tcp(second, broker(), 8, 1, ACK, b"two");
    file.tcp(client(), broker(), 101, 501, ACK, b"one");
    // The same SYN again is no new connection; one with another number is.
    file.tcp(client(), broker(), 100, 0, SYN, b"");
    file.tcp(client(), broker(), 104, 501, RST, b"");
    file.tcp(client(), broker(), 104, 501, ACK, b"after its end");
    file.tcp(client(), broker(), 9000, 0, SYN, b"");
    file.tcp(client(), broker(), 9001, 0, ACK, b"three");
    // As is one with the same number once the other has ended: a file that was made up may give all of them the same.
    file.tcp(client(), broker(), 9006, 0, RST, b"");
    file.tcp(client(), broker(), 9000, 0, SYN, b"");
    file.tcp(client(), broker(), 9001, 0, ACK, b"four");
    let told = told_of(&file);
    let expected = [
        OPENED,
        "2 10.0.0.2:40001 = 10.0.0.1:6650",
        "2 > \"two\"",
        "1 > \"one\"",
        "1 > reset",
        "3 10.0.0.2:40000 = 10.0.0.1:6650",
        "3 > \"three\"",
        "3 > reset",
        "4 10.0.0.2:40000 = 10.0.0.1:6650",
        "4 > \"four\"",
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_file_that_is_cut_gives_what_is_whole_and_says_so() {
    for is_pcapng in [false, true] {
        let mut file = opened(Style { is_pcapng, ..Style::default() });
        file.tcp(client(), broker(), 104, 501, ACK, b"waits");
        file.tcp(client(), broker(), 101, 501, ACK, b"lost");
        let (segments, error) = read(&file.bytes[..file.bytes.len() - 1]);
        assert_eq!(told(&segments), [OPENED, "1 > missing 3", "1 > \"waits\""]);
        assert!(matches!(error, Some(CaptureError::Truncated { packets: 4 })), "{error:?}");
        for end in 0..file.bytes.len() {
            let _ = read(&file.bytes[..end]);
        }
    }
}

#[test]
fn what_is_no_capture_is_refused() {
    for bytes in [&b""[..], b"abc", b"no capture at all", &[0; 64]] {
        assert!(matches!(read(bytes).1, Some(CaptureError::NotACapture)), "{bytes:?}");
    }
    let file = File::new(Style { link_type: 105, ..Style::default() });
    let error = read(&file.bytes).1.expect("an error").to_string();
    assert!(error.contains("link type 105"), "{error}");
    let mut file = File::new(Style { is_pcapng: true, ..Style::default() });
    file.block(6, &[9; 20]);
    let error = read(&file.bytes).1.expect("an error").to_string();
    assert!(error.contains("shorter than what is in it"), "{error}");
    let mut file = File::new(Style::default());
    file.bytes.extend([0xff; 32]);
    let error = read(&file.bytes).1.expect("an error").to_string();
    assert!(error.contains("behind 0 "), "{error}");
}

#[test]
fn other_packets_are_counted_and_left_out() {
    let mut file = opened(Style::default());
    file.packet(&[0xff; 60]);
    file.packet(b"short");
    let mut fragment = files::tcp_packet(1, client(), broker(), (101, 1, ACK), b"part");
    fragment[14 + 6] = 0x20;
    file.packet(&fragment);
    let mut reader = SegmentReader::new(&file.bytes[..]);
    assert_eq!(reader.by_ref().filter(Result::is_ok).count(), 1);
    let counts = reader.counts();
    assert_eq!((counts.packets, counts.tcp, counts.fragments), (6, 3, 1));
}

/// A reader that gives one byte at a time.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(1);
        self.0.read(&mut buffer[..count])
    }
}

#[test]
fn any_order_of_packets_and_any_split_of_the_file_gives_the_same_stream() {
    let stream: Vec<u8> = (0..4000u32).map(|index| (index * 31 % 251) as u8).collect();
    for seed in 0..50 {
        let mut random = SplitMix64::new(seed);
        let mut below = |limit: usize| (random.next() % limit as u64) as usize;
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < stream.len() {
            let end = (at + 1 + below(100)).min(stream.len());
            pieces.push((at.saturating_sub(below(20)), end));
            at = end;
        }
        for _ in 0..200 {
            let (from, to) = (below(pieces.len()), below(pieces.len()));
            // Near ones change places; some come twice.
            if from.abs_diff(to) < 10 {
                pieces.swap(from, to);
            } else if from < to && to - from < 13 {
                pieces.insert(to, pieces[from]);
            }
        }
        let mut file = opened(Style { is_pcapng: seed % 2 == 0, ..Style::default() });
        for (start, end) in pieces {
            file.tcp(client(), broker(), 101 + start as u32, 501, ACK, &stream[start..end]);
        }
        let segments: Vec<_> = SegmentReader::new(Trickle(&file.bytes)).map(|item| item.expect("no error")).collect();
        assert_eq!(segments, read(&file.bytes).0, "how the file is read changes nothing");
        let joined: Vec<u8> = segments
            .iter()
            .flat_map(|segment| match &segment.event {
                SegmentEvent::Bytes { bytes, .. } => bytes.to_vec(),
                SegmentEvent::Opened { .. } => Vec::new(),
                other => panic!("nothing is lost: {other:?}"),
            })
            .collect();
        assert_eq!(joined, stream, "seed {seed}");
    }
}

#[test]
fn other_protocols_are_told_by_their_first_bytes() {
    for (bytes, traffic, sender) in [
        (&b"\0\0\0\x0e\0\0\0\x0a\x08\x02\x12\x06"[..], Traffic::Pulsar, Some(Direction::ToBroker)),
        (b"\0\0\0\x09\0\0\0\x05\x08\x12\x92\x01\0", Traffic::Pulsar, None),
        (b"\x16\x03\x01\x02\0\x01", Traffic::Tls, Some(Direction::ToBroker)),
        (b"\x16\x03\x03\x02\0\x02", Traffic::Tls, Some(Direction::ToClient)),
        (b"GET /lookup/v2/topic HTTP/1.1", Traffic::Http, Some(Direction::ToBroker)),
        (b"HTTP/1.1 200 OK", Traffic::Http, Some(Direction::ToClient)),
        (b"something of no kind", Traffic::Unknown, None),
    ] {
        assert_eq!((Traffic::of(bytes), Traffic::sender(bytes)), (Some(traffic), sender), "{bytes:?}");
    }
    assert_eq!(Traffic::of(b"\0\0\0"), None);
}
