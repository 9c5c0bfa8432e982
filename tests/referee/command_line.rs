//! `pulsar-native referee` as a process.

use std::process::{Command, Output};

fn referee(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulsar-native"));
    command.arg("referee").args(arguments).output().expect("it runs")
}

/// A client that can do nothing, in a line of shell.
const UNABLE: &[&str] = &["--", "sh", "-c", "echo ready nothing 1; while read line; do echo error it cannot; done"];

#[test]
fn the_command_line_says_what_came_of_it() {
    let junit = std::env::temp_dir().join(format!("pulsar-native-referee-{}.xml", std::process::id()));
    let path = junit.to_str().expect("it is UTF-8");
    let failed = referee(&[&["--scenario", "receipt-lost", "--junit", path][..], UNABLE].concat());
    let (text, xml) = (String::from_utf8_lossy(&failed.stdout), std::fs::read_to_string(&junit));
    std::fs::remove_file(&junit).expect("it was written");
    assert_eq!(failed.status.code(), Some(1), "{text}");
    for part in [
        "failed      receipt-lost",
        "must: send a message again",
        "glue is asked: connect pulsar://",
        "nothing 1: 0 passed, 1 failed",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(xml.expect("it is there").contains("<failure message=\"`connect pulsar://"));

    let json = referee(&[&["--scenario", "receipt-lost", "--json"][..], UNABLE].concat());
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).expect("it is one line of JSON");
    assert_eq!((value["scenario"].as_str(), value["outcome"].as_str()), (Some("receipt-lost"), Some("failed")));
}

/// A client on another machine gets a URL that it can use.
#[test]
fn the_advertised_host_is_in_the_url() {
    let listen = &["--scenario", "receipt-lost", "--listen", "0.0.0.0:0", "--advertise", "my-machine"][..];
    let failed = String::from_utf8(referee(&[listen, UNABLE].concat()).stdout).expect("it is UTF-8");
    assert!(failed.contains("glue is asked: connect pulsar://my-machine:"), "{failed}");
}

#[test]
fn the_command_line_lists_and_refuses() {
    let list = String::from_utf8(referee(&["--list"]).stdout).expect("it is UTF-8");
    assert!(list.contains("receipt-lost\n    must: send a message again, byte for byte"), "{list}");
    for (arguments, says) in [
        (&["--scenario", "no-such", "--", "true"][..], "there is no scenario no-such, only lookup-redirect"),
        (&[], "without COMMAND, give one --scenario"),
        (&["--listen", "127.0.0.1:7000", "--", "true"], "--listen with a port needs --jobs 1"),
        (&["--listen", "0.0.0.0:0", "--", "true"], "--listen at all interfaces needs --advertise HOST"),
        (&["--advertise", "host:6650", "--", "true"], "a name or an address, without a port"),
    ] {
        let refused = referee(arguments);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{error}");
        assert!(error.contains(says), "{error}");
    }
}
