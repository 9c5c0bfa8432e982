//! `explain`: takes frames apart, byte by byte: of hexadecimal digits, of dumps, of files, of captured connections.

mod capture;
mod color;
mod input;

use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use pulsar_native::capture::SegmentReader;
use pulsar_native::wire::Command;
use pulsar_native::wire::explain::{Explanation, explain_frame};

use self::input::Input;
use crate::{CliResult, UsageError, output};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Frames as hex, base64 or any dump that `--file` takes; without any, they are read from stdin
    dump: Vec<String>,
    /// Read FILE: a capture (pcap, pcapng), raw bytes, or a dump as xxd, hexdump -C, tcpdump -X and Wireshark write them
    #[arg(long, value_name = "FILE", conflicts_with = "dump")]
    file: Option<PathBuf>,
    /// Print JSON: an object on a line for each frame, and of captures for all else that happens
    #[arg(long)]
    json: bool,
    /// Show all bytes of long fields and payloads
    #[arg(long, conflicts_with = "json")]
    all_bytes: bool,
    /// Of a capture show connection N alone
    #[arg(long, value_name = "N")]
    connection: Option<u64>,
    /// Only frames of this command, such as SEND or LOOKUP; may be repeated
    #[arg(long, value_name = "NAME", value_parser = command)]
    command: Vec<&'static str>,
    /// Colours
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = When::Auto)]
    color: When,
}

#[derive(Clone, Copy, ValueEnum)]
enum When {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

pub(crate) fn run(arguments: &Arguments) -> CliResult {
    let view = View {
        is_json: arguments.json,
        shows_all: arguments.all_bytes,
        is_colored: color::is_wanted(arguments.color),
        connection: arguments.connection,
        commands: arguments.command.clone(),
    };
    let input = match &arguments.file {
        Some(path) => input::of_file(path)?,
        None if arguments.dump.is_empty() => input::of_stdin()?,
        None => input::of_text(&arguments.dump.join(" "))?,
    };
    match input {
        Input::Frames(bytes) => view.frames(&bytes),
        Input::Segments(segments) => capture::of_segments(&view, segments),
        Input::Capture(file) => capture::of_file(&view, &mut SegmentReader::new(file)),
    }
}

/// How frames are printed.
struct View {
    is_json: bool,
    shows_all: bool,
    is_colored: bool,
    connection: Option<u64>,
    /// All, if there are none.
    commands: Vec<&'static str>,
}

/// The name of a command, in any case.
fn command(name: &str) -> Result<&'static str, String> {
    let mut all = Command::ALL.iter().map(|(_, name)| *name);
    all.find(|known| known.eq_ignore_ascii_case(name)).ok_or_else(|| "PulsarApi.proto has no such command".to_owned())
}

impl View {
    fn shows(&self, frame: &Explanation) -> bool {
        self.commands.is_empty() || frame.command.is_some_and(|command| self.commands.contains(&command))
    }

    fn frames(&self, bytes: &[u8]) -> CliResult {
        if self.connection.is_some() {
            return Err(UsageError("--connection is for captures; these are bytes of one direction".to_owned()).into());
        }
        let bytes = Bytes::copy_from_slice(bytes);
        let mut at = 0;
        while at < bytes.len() {
            let frame = explain_frame(bytes.slice(at..), at as u64);
            at += frame.input().len();
            match self.is_json {
                _ if !self.shows(&frame) => {}
                true => output::print(frame.to_json())?,
                false => self.frame(&frame)?,
            }
        }
        Ok(())
    }

    /// As text, with an empty line behind it.
    fn frame(&self, frame: &Explanation) -> CliResult {
        let text = frame.text().all_bytes(self.shows_all);
        output::print(if self.is_colored { text.painted(color::paint) } else { text })?;
        Ok(())
    }
}
