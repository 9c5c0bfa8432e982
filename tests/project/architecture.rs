//! The borders between the rooms, and the sizes of files, as tests.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a source file without its tests: above the first a file is worth a look, above the second it is too long.
const LINES_WARN: usize = 600;
const LINES_MAX: usize = 800;

fn sources(room: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room);
    let mut found = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the room is there") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("sources are UTF-8");
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {room}");
    found
}

/// What is not a test: the part before `#[cfg(test)] mod tests`, and no file that is all tests.
fn without_tests<'a>(path: &Path, text: &'a str) -> &'a str {
    if path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests") {
        return "";
    }
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = |line: &str| !line.trim_start().starts_with("//");
    text.lines().enumerate().filter(move |(_, line)| code(line)).map(|(index, line)| (index + 1, line))
}

fn forbid(rooms: &[&str], words: &[&str]) {
    let mut broken = Vec::new();
    for room in rooms {
        for (path, text) in sources(room) {
            for (number, line) in code_lines(without_tests(&path, &text)) {
                for word in words.iter().filter(|word| line.contains(**word)) {
                    broken.push(format!("{}:{number}: {word}", path.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn wire_knows_neither_machines_nor_the_client() {
    forbid(&["wire"], &["crate::machine", "crate::client", "crate::broker"]);
}

#[test]
fn machines_know_neither_the_client_nor_the_broker() {
    forbid(&["machine"], &["crate::client", "crate::broker"]);
}

#[test]
fn the_client_and_the_broker_do_not_know_each_other() {
    forbid(&["client"], &["crate::broker"]);
    forbid(&["broker"], &["crate::client"]);
}

/// The codec adaptor is the one file of `wire` for tokio's users; it is behind the feature `client`.
#[test]
fn wire_and_machines_have_no_runtime_no_clock_and_no_chance() {
    let words =
        ["tokio", "Instant::now", "SystemTime::now", "std::env", "std::net", "std::fs", "std::thread", "RandomState"];
    let mut broken = Vec::new();
    for room in ["wire", "machine"] {
        for (path, text) in sources(room).into_iter().filter(|(path, _)| !path.ends_with("wire/codec.rs")) {
            for (number, line) in code_lines(without_tests(&path, &text)) {
                let allowed = line.contains("feature = \"client\"");
                for word in words.iter().filter(|word| !allowed && line.contains(**word)) {
                    broken.push(format!("{}:{number}: {word}", path.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn files_stay_small() {
    let mut too_long = Vec::new();
    for (path, text) in sources("") {
        let lines = without_tests(&path, &text).lines().count();
        if lines > LINES_WARN {
            println!("{} has {lines} lines: worth a look", path.display());
        }
        if lines > LINES_MAX {
            too_long.push(format!("{}: {lines} lines", path.display()));
        }
    }
    assert!(too_long.is_empty(), "over {LINES_MAX} lines:\n{}", too_long.join("\n"));
}
