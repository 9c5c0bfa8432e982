//! Every name in the list of invariants is a test, and the README's promises are all on it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect("it is there")
}

/// The file that a name stands for: below `tests/`, unless it starts with `src/`.
fn file_of(name: &str) -> PathBuf {
    let folder = if name.starts_with("src/") { "" } else { "tests" };
    root().join(folder).join(name).with_extension("rs")
}

/// Whether the source has a function of this name with a test attribute above it.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let declares = |line: &str| {
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        function.and_then(|rest| rest.split('(').next()) == Some(name)
    };
    let is_test = |line: &&str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    lines.iter().enumerate().filter(|(_, line)| declares(line)).any(|(at, _)| {
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        above.into_iter().any(is_test)
    })
}

/// Whether the list of `tests/suite/mod.rs` has the test under this theme.
fn is_in_suite(theme: &str, test: &str) -> bool {
    let suite = read("tests/suite/mod.rs");
    let list = suite.split_once("macro_rules! with_every_test").expect("the list is there").1;
    let of_theme = list.split_once(&format!(" {theme} {{")).and_then(|(_, rest)| rest.split('}').next());
    of_theme.is_some_and(|tests| tests.split_whitespace().any(|name| name == test))
}

/// Whether `file::test` runs: as a test of its own, or from what has a runner of its own.
pub(crate) fn is_test(file: &str, test: &str) -> bool {
    let Ok(source) = fs::read_to_string(file_of(file)) else { return false };
    match file.split_once('/') {
        Some(("suite", theme)) => is_in_suite(theme, test),
        Some(("real" | "cluster", theme)) => source.contains(&format!("(\"{theme}::{test}\", |")),
        Some(("world", "mutations")) => source.contains(&format!("\n    {test}: ")),
        Some(("chaos", "main")) => source.contains(&format!(": &str = \"{test}\";")),
        _ => has_test(&source, test),
    }
}

/// Everything of the form `file::test` between backticks.
pub(crate) fn named(text: &str) -> Vec<(&str, &str)> {
    text.split('`').skip(1).step_by(2).filter_map(|name| name.split_once("::")).collect()
}

/// The first cells of the table that follows a heading.
fn rows<'a>(text: &'a str, heading: &str) -> BTreeSet<&'a str> {
    let after = text.split_once(heading).expect("the heading is there").1;
    let table = after.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    table.skip(2).filter_map(|line| line.split('|').nth(1)).map(str::trim).collect()
}

#[test]
fn every_name_on_the_list_is_a_test() {
    let list = read("docs/invariants.md").replace("`file::test`", "");
    let named = named(&list);
    assert!(named.len() > 100, "the list was read");
    let missing: Vec<_> = named
        .iter()
        .filter(|(file, test)| !is_test(file, test))
        .map(|(file, test)| format!("{file}::{test}"))
        .collect();
    assert!(missing.is_empty(), "named in docs/invariants.md, and no test:\n{}", missing.join("\n"));
}

/// A helper, a test in another file, and a function in a comment are not on any list.
#[test]
fn names_of_other_things_are_rejected() {
    assert!(is_test("project/invariants", "names_of_other_things_are_rejected"));
    assert!(!is_test("project/invariants", "has_test"), "a helper");
    assert!(!is_test("project/architecture", "names_of_other_things_are_rejected"), "another file");
    assert!(is_test("suite/produce", "sequence_ids") && !is_test("suite/produce", "builder"), "a helper of the suite");
    assert!(!has_test("#[test]\n// fn commented() {}", "commented"));
}

#[test]
fn every_row_of_the_readme_has_its_tests() {
    let (readme, list) = (read("README.md"), read("docs/invariants.md"));
    let (promised, tested) = (rows(&readme, "## What happens when"), rows(&list, "## What happens when"));
    assert!(promised.len() > 5, "the table was read");
    let missing: Vec<_> = promised.difference(&tested).collect();
    assert!(missing.is_empty(), "in the README, without a test in docs/invariants.md: {missing:?}");
}
