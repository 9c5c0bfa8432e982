//! One process of one client.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a process said of itself, by name; and `wall_ns`, how long it took from its start to its end.
pub(crate) type Figures = HashMap<String, f64>;

/// How long one process may take; it is ended then, and has no figures.
const CHILD_SECONDS_MAX: u64 = 90;

/// How often it is looked whether a process has ended.
const POLL: Duration = Duration::from_millis(1);

/// Runs `subject` with these words. Nothing, with a note on the terminal, if it fails or never ends. Its standard input
/// is closed once `done` holds: some clients wait for that before they close.
pub(crate) fn run(subject: &str, words: &[String], done: impl Fn() -> bool) -> Option<Figures> {
    let mut command = command(subject);
    command.args(words).stdout(Stdio::piped()).stdin(Stdio::piped());
    let log = crate::programs().join(format!("compare-{subject}.log"));
    command.stderr(File::create(&log).map_or_else(|_| Stdio::null(), Stdio::from));
    let start = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{subject} does not start: {error}"));
    let failed = |why: String| {
        let said = fs::read_to_string(&log).unwrap_or_default();
        eprintln!("    {subject} {}: {why}; {}", words.join(" "), said.lines().last().unwrap_or_default());
        None
    };
    let status = loop {
        if done() {
            drop(child.stdin.take());
        }
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if start.elapsed().as_secs() < CHILD_SECONDS_MAX => std::thread::sleep(POLL),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return failed(format!("did not end within {CHILD_SECONDS_MAX} s"));
            }
        }
    };
    let wall = start.elapsed();
    let mut text = String::new();
    if let Some(mut out) = child.stdout.take() {
        let _ = out.read_to_string(&mut text);
    }
    let mut figures = parse(text.lines().last().unwrap_or_default());
    if !status.success() || figures.is_empty() {
        return failed(status.to_string());
    }
    figures.insert("wall_ns".to_owned(), wall.as_nanos() as f64);
    Some(figures)
}

/// The words `name=value` of a line.
fn parse(line: &str) -> Figures {
    let pair = |word: &str| word.split_once('=').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    line.split_whitespace().filter_map(pair).collect()
}

fn command(subject: &str) -> Command {
    match subject {
        "baseline" => {
            let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
            command.arg("baseline");
            command
        }
        "pulsar-native-current" => Command::new(crate::programs().join("compare-pulsar-native")),
        _ => Command::new(crate::programs().join(format!("compare-{subject}"))),
    }
}
