//! `explain`: from every form of input, as text and as JSON.

use std::process::Output;

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::{end, run, start};

const PING: &str = "000000090000000508129201 00";

async fn with_stdin(words: &str, input: &[u8]) -> Output {
    let mut child = start(words);
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input).await.expect("written");
    drop(stdin);
    end(child).await
}

async fn of_stdin(words: &str, input: &[u8]) -> String {
    let output = with_stdin(words, input).await;
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn ping() -> Vec<u8> {
    vec![0, 0, 0, 9, 0, 0, 0, 5, 8, 0x12, 0x92, 1, 0]
}

/// A pcap file of raw IP with these segments of TCP: whether by the client, its port, sequence number, flags, payload.
fn pcap(segments: &[(bool, u16, u32, u8, &[u8])]) -> Vec<u8> {
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 101, 0, 0, 0];
    for (index, &(is_client, port, sequence, flags, payload)) in segments.iter().enumerate() {
        let size = 40 + payload.len() as u16;
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0];
        packet[2..4].copy_from_slice(&size.to_be_bytes());
        let ends = [([10, 0, 0, 2], port), ([10, 0, 0, 1], 6650)];
        let [from, to] = if is_client { ends } else { [ends[1], ends[0]] };
        packet.extend([from.0, to.0].concat());
        packet.extend([from.1.to_be_bytes(), to.1.to_be_bytes()].concat());
        packet.extend(sequence.to_be_bytes());
        packet.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend(payload);
        let size = u32::from(size).to_le_bytes();
        file.extend([&(1_700_000_000 + index as u32).to_le_bytes()[..], &[0; 4], &size, &size, &packet].concat());
    }
    file
}

fn two_connections() -> Vec<u8> {
    let ping = ping();
    pcap(&[
        (true, 40_000, 100, 2, b""),
        (false, 40_000, 500, 0x12, b""),
        (true, 40_001, 900, 2, b""),
        // Out of order.
        (true, 40_000, 105, 0x10, &ping[4..]),
        (true, 40_000, 101, 0x10, &ping[..4]),
        (true, 40_001, 901, 0x10, b"\x16\x03\x01\x02\x00\x01\x00\x01"),
        // Five bytes are missing.
        (false, 40_000, 501, 0x10, &ping),
        (false, 40_000, 519, 0x10, &ping),
    ])
}

#[tokio::test]
async fn a_frame_is_explained_from_every_form() {
    let expected = run(&format!("explain {PING}")).await;
    assert!(expected.starts_with("PING, 13 bytes: ") && expected.contains("type = 18 PING"), "{expected}");
    for input in [
        &b"00000000: 0000 0009 0000 0005 0812 9201 00         ............."[..],
        b"AAAACQAAAAUIEpIBAA==",
        b"{ 0x00, 0x00, 0x00, 0x09, 0x00, 0x00, 0x00, 0x05, 0x08, 0x12, 0x92, 0x01, 0x00 }",
        b"b'\\x00\\x00\\x00\\t\\x00\\x00\\x00\\x05\\x08\\x12\\x92\\x01\\x00'",
        &ping(),
    ] {
        assert_eq!(of_stdin("explain", input).await, expected, "{}", String::from_utf8_lossy(input));
    }
    let file = std::env::temp_dir().join(format!("pulsar-native-explain-{}", std::process::id()));
    std::fs::write(&file, ping()).expect("written");
    let shown = run(&format!("explain --file {}", file.display())).await;
    std::fs::remove_file(&file).expect("removed");
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn json_is_an_object_for_each_frame() {
    let lines = of_stdin("explain --json", &[ping(), ping()].concat()).await;
    let frames: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(frames.len(), 2);
    assert!(frames.iter().all(|frame| frame["command"] == "PING"), "{lines}");
    assert_eq!(frames[1]["offset"], 13);
}

#[tokio::test]
async fn a_capture_shows_both_directions_of_all_connections() {
    let shown = of_stdin("explain", &two_connections()).await;
    for wanted in [
        "2023-11-14T22:13:20.000000Z  connection 1: client 10.0.0.2:40000, broker 10.0.0.1:6650\n",
        "22:13:24.000000Z  connection 1, client to broker: at 0 of the stream:\nPING, 13 bytes",
        "connection 2, client to broker: TLS, which cannot be read from a capture; `pulsar-native tap` shows what is inside\n",
        "connection 1, broker to client: the capture lacks 5 bytes\n",
        "connection 1, broker to client: at 18 of the stream:\nPING, 13 bytes",
        "connections: 2; frames: 3; missing bytes: 5; gaps: 1; packets: 8; packets of TCP: 8\n",
    ] {
        assert!(shown.contains(wanted), "{wanted:?} is not in\n{shown}");
    }
    let second = of_stdin("explain --connection 2", &two_connections()).await;
    assert!(!second.contains("connection 1") && second.contains("connections: 1; packets: 8"), "{second}");
    let pings = of_stdin("explain --command ping", &two_connections()).await;
    assert!(pings.contains("frames: 3;") && !pings.contains("lacks") && pings.contains("PING, 13 bytes"), "{pings}");
    let none = of_stdin("explain --command SEND", &two_connections()).await;
    assert!(!none.contains("PING") && none.starts_with("connections: 2; frames: 3;"), "{none}");
}

#[tokio::test]
async fn a_capture_as_json_is_an_event_on_a_line() {
    let lines = of_stdin("explain --json", &two_connections()).await;
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let named = |name: &str| events.iter().filter(|event| event["event"] == name).collect::<Vec<_>>();
    assert_eq!((named("opened").len(), named("frame").len(), named("missing").len()), (2, 3, 1), "{lines}");
    assert_eq!(named("frame")[0]["frame"]["command"], "PING");
    assert_eq!(named("frame")[0]["direction"], "to_broker");
    assert_eq!(named("summary")[0]["missing"], 5);
    assert_eq!(named("other")[0]["protocol"], "TLS");
}

#[tokio::test]
async fn a_capture_that_is_cut_is_shown_and_fails() {
    let file = two_connections();
    let output = with_stdin("explain", &file[..file.len() - 1]).await;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("connections: 2; frames: 2;"), "{stdout}");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("ends within a packet, behind 7 whole ones"), "{stderr}");
}

#[tokio::test]
async fn colors_are_for_those_who_want_them_and_bad_input_is_named() {
    let plain = run(&format!("explain {PING}")).await;
    assert!(!plain.contains('\x1b'));
    let colored = run(&format!("explain --color always {PING}")).await;
    assert!(colored.contains("\x1b[1mPING"), "{colored:?}");
    assert!(!run(&format!("explain --color never {PING}")).await.contains('\x1b'));
    let output = with_stdin("explain", &[0x1f, 0x8b, 8, 0, 1, 2]).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("compressed by gzip"));
    let output = with_stdin("explain --connection 1", &ping()).await;
    assert_eq!(output.status.code(), Some(2), "of bytes that are no capture");
}
