//! The list of invariants names tests that exist, and the README's promises are all on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect("it is there")
}

/// What a file is called by: its stem, or its folder's name where the file is just the folder's front.
fn called(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    let front = matches!(stem, "main" | "mod" | "tests");
    let name = if front { path.parent()?.file_name()?.to_str()? } else { stem };
    Some(name.to_owned())
}

/// The functions of each file, by what the file is called.
fn functions() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut folders = vec![root().join("src"), root().join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("sources are UTF-8");
                let names =
                    text.lines().filter_map(|line| line.trim_start().split_once("fn ")?.1.split(['(', '<']).next());
                let known = found.entry(called(&path).expect("a file has a name")).or_default();
                known.extend(names.map(str::to_owned));
            }
        }
    }
    found
}

/// Everything of the form `file::test` between backticks.
fn named(text: &str) -> Vec<(String, String)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|name| name.split_once("::")).map(|(file, test)| (file.to_owned(), test.to_owned())).collect()
}

/// The first cells of the table that follows a heading.
fn rows<'a>(text: &'a str, heading: &str) -> BTreeSet<&'a str> {
    let after = text.split_once(heading).expect("the heading is there").1;
    let table = after.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    table.skip(2).filter_map(|line| line.split('|').nth(1)).map(str::trim).collect()
}

#[test]
fn every_test_on_the_list_exists() {
    let functions = functions();
    let named = named(&read("docs/invariants.md").replace("`file::test`", ""));
    assert!(named.len() > 100, "the list was read");
    let missing: Vec<_> = named
        .iter()
        .filter(|(file, test)| !functions.get(file).is_some_and(|known| known.contains(test)))
        .map(|(file, test)| format!("{file}::{test}"))
        .collect();
    assert!(missing.is_empty(), "named in docs/invariants.md, not in the sources:\n{}", missing.join("\n"));
}

#[test]
fn every_row_of_the_readme_has_its_tests() {
    let (readme, list) = (read("README.md"), read("docs/invariants.md"));
    let (promised, held) = (rows(&readme, "## What happens when"), rows(&list, "## What happens when"));
    assert!(promised.len() > 5, "the table was read");
    let missing: Vec<_> = promised.difference(&held).collect();
    assert!(missing.is_empty(), "in the README, without a test in docs/invariants.md: {missing:?}");
}
