//! The borders between the modules, the sizes of files, and the layout of the tests, as tests.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a source file without its tests: above the first a file is worth a look, above the second it is too long.
const LINES_WARN: usize = 600;
const LINES_MAX: usize = 800;

/// Lines of a file in `tests/`.
const TEST_LINES_MAX: usize = 600;

/// Characters in the name of a function: a test is one.
const NAME_MAX: usize = 70;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The sources below a folder of the repository, by their path from its root: a path does not depend on where the
/// repository is.
fn sources_below(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("sources are UTF-8");
                found.push((path.strip_prefix(root()).expect("below the root").to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

fn sources(module: &str) -> Vec<(PathBuf, String)> {
    sources_below(&format!("src/{module}"))
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

fn forbid(modules: &[&str], words: &[&str]) {
    let mut broken = Vec::new();
    for module in modules {
        for (path, text) in sources(module) {
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

#[test]
fn only_the_simulation_knows_the_simulation_and_its_faults() {
    // `mutation!(Name)` is one line that says what it breaks; the switch behind it is not theirs.
    forbid(&["wire", "machine", "client", "broker"], &["crate::sim", "pulsar_mutations", "crate::mutation"]);
}

/// What happens is told by the notices of the supervisor, in one place.
#[test]
fn only_the_observer_knows_tracing_and_metrics() {
    forbid(&["wire", "machine", "broker", "sim", "client/driver"], &["tracing::", "metrics::"]);
}

/// The simulation polls the drivers over its own timers and tasks.
#[test]
fn the_drivers_use_timers_and_tasks_of_the_runtime_trait() {
    forbid(&["client/driver"], &["tokio::time", "tokio::task", "tokio::spawn", "Instant::now"]);
}

/// The codec adaptor is the one file of `wire` for tokio's users; it is behind the feature `client`.
#[test]
fn wire_and_machines_have_no_runtime_no_clock_and_no_chance() {
    let words =
        ["tokio", "Instant::now", "SystemTime::now", "std::env", "std::net", "std::fs", "std::thread", "RandomState"];
    let mut broken = Vec::new();
    for module in ["wire", "machine"] {
        for (path, text) in sources(module).into_iter().filter(|(path, _)| !path.ends_with("wire/codec.rs")) {
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

#[test]
fn files_of_tests_stay_small() {
    let lines = sources_below("tests").into_iter().map(|(path, text)| (path, text.lines().count()));
    let too_long: Vec<_> = lines.filter(|(_, lines)| *lines > TEST_LINES_MAX).collect();
    assert!(too_long.is_empty(), "over {TEST_LINES_MAX} lines: {too_long:?}");
}

#[test]
fn function_names_stay_short() {
    let mut too_long = Vec::new();
    for (path, text) in sources("").into_iter().chain(sources_below("tests")) {
        let names = text.lines().filter_map(|line| line.trim_start().split_once("fn ")?.1.split(['(', '<']).next());
        too_long.extend(names.filter(|name| name.len() > NAME_MAX).map(|name| format!("{}: {name}", path.display())));
    }
    assert!(too_long.is_empty(), "over {NAME_MAX} characters:\n{}", too_long.join("\n"));
}

/// A folder of `tests/` with a `main.rs` is a binary. The others are shared, and a binary includes them in its `main.rs`.
#[test]
fn tests_are_folders_and_include_only_what_is_shared() {
    let tests = root().join("tests");
    let mut shared = Vec::new();
    for entry in fs::read_dir(&tests).expect("the folder is there") {
        let path = entry.expect("the folder can be read").path();
        assert!(path.extension().is_none_or(|extension| extension != "rs"), "{} is in no folder", path.display());
        if path.is_dir() && !path.join("main.rs").exists() {
            let name = path.file_name().and_then(|name| name.to_str()).expect("names are UTF-8");
            shared.push(format!("#[path = \"../{name}/mod.rs\"]"));
        }
    }
    for (path, text) in sources_below("tests") {
        let includes: Vec<_> = text.lines().map(str::trim).filter(|line| line.starts_with("#[path")).collect();
        let of_tests = |line: &&&str| !line.contains("../../examples/") && !line.contains("../../src/");
        for include in includes.iter().filter(of_tests) {
            assert!(path.ends_with("main.rs") && shared.iter().any(|one| one == include), "{path:?}: {include}");
        }
    }
}
