use super::*;

const PING: &[u8] = b"\0\0\0\x09\0\0\0\x05\x08\x12\x92\x01\0";

/// A CONNECT and a PING.
fn frame() -> Vec<u8> {
    let connect = b"\0\0\0\x16\0\0\0\x12\x08\x02\x12\x0e\x0a\x07face me\x2a\x03bad";
    [connect, PING].concat()
}

fn ascii(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { '.' }).collect()
}

/// Rows of 16 bytes by a tool's way to write them: offset, hexadecimal digits, text.
fn rows(bytes: &[u8], row: impl Fn(usize, &[u8], &str) -> String) -> String {
    bytes.chunks(16).enumerate().map(|(index, part)| row(16 * index, part, &ascii(part)) + "\n").collect()
}

fn hex(bytes: &[u8], group: usize, middle: usize) -> String {
    let groups = bytes.chunks(group).enumerate().map(|(index, group)| {
        let digits: String = group.iter().map(|byte| format!("{byte:02x}")).collect();
        if index > 0 && index == middle { format!(" {digits}") } else { digits }
    });
    groups.collect::<Vec<_>>().join(" ")
}

fn bytes_of(text: &str) -> Vec<u8> {
    match read_dump(text) {
        Ok(Dump::Bytes(bytes)) => bytes.to_vec(),
        other => panic!("{other:?} of\n{text}"),
    }
}

fn forms(bytes: &[u8]) -> Vec<String> {
    let plain: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let words = bytes.iter().map(|byte| format!("0x{byte:02x}")).collect::<Vec<_>>();
    let escapes: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    vec![
        plain.clone(),
        plain.to_uppercase(),
        format!("0x{plain}"),
        hex(bytes, 4, 0),
        hex(bytes, 1, 0).replace(' ', ":"),
        plain.as_bytes().chunks(60).map(|line| format!("{}\n", String::from_utf8_lossy(line))).collect(),
        rows(bytes, |at, part, text| format!("{at:08x}: {:<39}  {text}", hex(part, 2, 0))),
        rows(bytes, |at, part, text| format!("{at:08x}: {:<47}  {text}", hex(part, 1, 0))),
        rows(bytes, |at, part, text| format!("{at:08x}  {:<48}  |{text}|", hex(part, 1, 8))),
        rows(bytes, |at, part, text| format!("{at:04x}   {:<47}   {text}", hex(part, 1, 0))),
        rows(bytes, |at, part, text| format!("{at:08x}  {:<48}   {text}", hex(part, 1, 8))),
        rows(bytes, |at, part, text| format!("{at:04x}  {:<48}  {text}", hex(part, 1, 8))),
        rows(bytes, |at, part, text| format!("\t0x{at:04x}:  {:<39}  {text}", hex(part, 2, 0))),
        rows(bytes, |at, part, _| format!("{at:06x} {}", hex(part, 1, 0))),
        format!("/* Frame (19 bytes) */\nunsigned char peer0_0[] = {{ /* Packet 4 */\n{} }};", words.join(", ")),
        format!("[{}]", words.join(", ")),
        format!("b'{escapes}'"),
        format!("\"{}\" \\\n\"{}\"", &escapes[..4 * 8], &escapes[4 * 8..]),
        base64_text::encode(bytes),
    ]
}

#[test]
fn each_form_gives_the_bytes() {
    for text in forms(&frame()) {
        assert_eq!(bytes_of(&text), frame(), "{text}");
    }
    assert_eq!(bytes_of("b'\\x00\\x00\\x00\\x09\\x00\\x00\\x00\\x05\\x08\\x12\\x92\\x01\\x00'"), *PING);
}

/// The last row of a dump is short, and its text may look like digits.
#[test]
fn the_text_column_is_not_read_as_digits() {
    for length in 9..40 {
        let bytes = [&[0, 0, 0, 9, 0, 0, 0, 5][..], &b"abcdef".repeat(6)].concat();
        for text in forms(&bytes[..length]) {
            assert_eq!(bytes_of(&text), bytes[..length], "{text}");
        }
    }
}

#[test]
fn packets_of_tcpdump_are_put_in_order() {
    use crate::capture::Direction;
    let packet = |at: u32, payload: &[u8]| {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
        packet.extend([0x9c, 0x40, 0x19, 0xfa]);
        packet.extend((100 + at).to_be_bytes());
        packet.extend([0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend(payload);
        let length = (packet.len() as u16).to_be_bytes();
        packet[2..4].copy_from_slice(&length);
        packet
    };
    let dump = |at: u32, payload: &[u8]| {
        rows(&packet(at, payload), |at, part, text| format!("\t0x{at:04x}:  {:<39}  {text}", hex(part, 2, 0)))
    };
    let head = "22:13:20.123456 IP 10.0.0.2.40000 > 10.0.0.1.6650: Flags [P.], seq 1:4\n";
    let text = [head, &dump(0, &frame()[..10]), &head.replace("20.1", "21.1"), &dump(10, &frame()[10..])].concat();
    let Ok(Dump::Segments(segments)) = read_dump(&text) else { panic!("packets: {:?}", read_dump(&text)) };
    let joined: Vec<u8> = segments
        .iter()
        .flat_map(|segment| match &segment.event {
            SegmentEvent::Bytes { direction: Direction::ToBroker, bytes } => bytes.to_vec(),
            _ => Vec::new(),
        })
        .collect();
    assert_eq!(joined, frame());
    let time = Duration::from_secs(22 * 3600 + 13 * 60 + 21) + Duration::from_micros(123_456);
    assert_eq!(segments.last().map(|segment| segment.at), Some(UNIX_EPOCH + time));
    // Also as Wireshark copies one, with Ethernet in front.
    let ethernet = [&[2; 12][..], &[8, 0], &packet(0, &frame())].concat();
    for text in forms(&ethernet) {
        assert!(matches!(read_dump(&text), Ok(Dump::Segments(_))), "{text}");
    }
}

#[test]
fn a_followed_stream_has_two_directions() {
    let [asked, answered] = [&frame()[..22], b"\0\0\0\x09\0\0\0\x05\x08\x12\x92\x01\0 and much more than a row"];
    let row = |at: usize, part: &[u8], text: &str| format!("{at:08X}  {:<48}   {text}", hex(part, 1, 8));
    let more = row(asked.len(), b"!?", "!?");
    // As Wireshark, as tshark with `follow,tcp,hex`, and as it with `follow,tcp,raw`.
    let head = "===\nFollow: tcp,raw\nFilter: tcp.stream eq 0\nNode 0: 127.0.0.1:59986\nNode 1: 127.0.0.1:6650\n";
    let digits = |bytes| hex(bytes, bytes.len(), usize::MAX);
    let raw = format!("{head}{}\n\t{}\n{}\n===\n", digits(asked), digits(answered), digits(b"!?"));
    let hex = ["    ", "\t"].map(|indent| {
        let answered = rows(answered, |at, part, text| format!("{indent}{}", row(at, part, text)));
        format!("{}{answered}{more}\n", rows(asked, row))
    });
    for text in hex.iter().chain([&raw]) {
        let Ok(Dump::Segments(segments)) = read_dump(text) else { panic!("{:?} of\n{text}", read_dump(text)) };
        let told: Vec<_> = segments
            .iter()
            .filter_map(|segment| match &segment.event {
                SegmentEvent::Bytes { direction, bytes } => Some((*direction, bytes.to_vec())),
                _ => None,
            })
            .collect();
        assert_eq!(
            told,
            [
                (Direction::ToBroker, asked.to_vec()),
                (Direction::ToClient, answered.to_vec()),
                (Direction::ToBroker, b"!?".to_vec()),
            ]
        );
    }
}

#[test]
fn what_cannot_be_read_is_named_with_its_line() {
    for (text, line, reason) in [
        ("000", 1, "odd number of hex digits"),
        ("", 1, "no bytes"),
        ("0000\nxyz!", 2, "'x' is not a hex digit"),
        ("00000000: 0000 0009  ....\n00000010: 0000  ..", 2, "does not follow 0x4 bytes"),
        ("0x0000:  nothing", 1, "no hexadecimal digits"),
        ("{ 0x00, 0x100 }", 1, "0x100 is not a byte"),
    ] {
        let error = read_dump(text).expect_err(text);
        assert!(error.line == line && error.reason.contains(reason), "{text}: {error}");
    }
}
