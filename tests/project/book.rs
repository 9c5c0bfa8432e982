//! The book in `docs/protocol/` leads where it says: files, headings and tests that it names exist, each chapter is in its
//! table of contents, and what the code links to is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::invariants::{is_test, named, read, root};

const FOLDER: &str = "docs/protocol";

/// The pages of the book, by file name.
fn pages() -> BTreeMap<String, String> {
    let files = fs::read_dir(root().join(FOLDER)).expect("the book").map(|file| file.expect("a file").path());
    let pages = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let name = |path: &Path| path.file_name().expect("a file").to_string_lossy().into_owned();
    pages.map(|path| (name(&path), fs::read_to_string(&path).expect("a page"))).collect()
}

/// The page without what is between fences.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut is_fenced = false;
    page.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        is_fenced ^= is_fence;
        !is_fenced && !is_fence
    })
}

/// What a heading is linked by, on repository pages and in mdBook alike.
fn slug(heading: &str) -> String {
    let kept = |c: char| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        _ => c.is_alphanumeric().then(|| c.to_ascii_lowercase()),
    };
    heading.trim().chars().filter_map(kept).collect()
}

/// All places of a page that a link can lead to.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = prose(page).filter(|line| line.starts_with('#')).map(|line| slug(line.trim_start_matches('#')));
    let ids = prose(page).filter_map(|line| line.strip_prefix("<a id=\"")?.strip_suffix("\"></a>"));
    headings.chain(ids.map(str::to_owned)).collect()
}

/// The targets of all links of a page.
fn links(page: &str) -> Vec<String> {
    let text = prose(page).collect::<Vec<_>>().join("\n");
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

/// Why a link of a page leads nowhere.
fn dead(page: &str, target: &str) -> Option<String> {
    if target.starts_with("https://") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let folder = root().join(FOLDER);
    let file = if path.is_empty() { folder.join(page) } else { folder.join(path) };
    if !file.exists() {
        return Some(format!("{page}: {target}: no such file"));
    }
    let text = if anchor.is_empty() { return None } else { fs::read_to_string(&file).expect("a page") };
    (!anchors(&text).contains(anchor)).then(|| format!("{page}: {target}: no such heading"))
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let all = pages.iter().flat_map(|(name, page)| links(page).into_iter().map(move |target| (name, target)));
    let dead: Vec<_> = all.filter_map(|(name, target)| dead(name, &target)).collect();
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

#[test]
fn every_test_that_is_named_is_one() {
    for (name, page) in pages() {
        let text = prose(&page).collect::<Vec<_>>().join("\n").replace("`file::test`", "");
        let of_tests = named(&text).into_iter().filter(|(file, _)| file.contains('/'));
        let missing: Vec<_> = of_tests.filter(|(file, test)| !is_test(file, test)).collect();
        assert!(missing.is_empty(), "{name} names what is no test: {missing:?}");
    }
}

#[test]
fn every_page_is_in_the_contents_and_in_order() {
    let listed = links(&read("docs/protocol/SUMMARY.md"));
    let pages: Vec<_> = pages().into_keys().filter(|name| name != "SUMMARY.md").collect();
    let mut sorted = listed.clone();
    sorted.sort();
    assert_eq!(sorted, pages, "SUMMARY.md lists the pages");
    assert_eq!(listed.first().map(String::as_str), Some("README.md"));
    assert!(listed[1..].is_sorted(), "chapters are in the order of their numbers");
}

#[test]
fn every_heading_is_unique_on_its_page() {
    for (name, page) in pages() {
        let mut seen = BTreeSet::new();
        let headings = prose(&page).filter(|line| line.starts_with('#'));
        let twice: Vec<_> = headings.filter(|line| !seen.insert(slug(line.trim_start_matches('#')))).collect();
        assert!(twice.is_empty(), "{name}: a link would lead to the first of {twice:?}");
    }
}

/// The place of each command and rule: tools link there.
#[test]
fn every_command_has_its_place() {
    let anchors: BTreeSet<_> =
        pages().iter().filter(|(name, _)| *name != "README.md").flat_map(|(_, page)| anchors(page)).collect();
    let commands = pulsar_native::wire::Command::ALL.iter().map(|(_, name)| name.to_lowercase());
    let missing: Vec<_> = commands.filter(|name| !anchors.contains(name)).collect();
    assert!(missing.is_empty(), "commands without a heading: {missing:?}");
    let index = read("docs/protocol/README.md");
    let commands = pulsar_native::wire::Command::ALL.iter().map(|(_, name)| *name);
    let missing: Vec<_> = commands.filter(|name| !index.contains(&format!("| [{name}]("))).collect();
    assert!(missing.is_empty(), "commands that are not in the index: {missing:?}");
}

#[cfg(any(feature = "broker", feature = "capture"))]
#[test]
fn every_rule_has_its_place() {
    use pulsar_native::rules::Rule;
    let rules = Rule::ALL;
    let is_missing = |place: &str| {
        let (chapter, heading) = place.split_once('#').expect("a heading");
        !anchors(&read(chapter)).contains(heading)
    };
    let missing: Vec<_> = rules.iter().map(|rule| rule.chapter()).filter(|place| is_missing(place)).collect();
    assert!(missing.is_empty(), "rules without a heading: {missing:?}");
    let index = read("docs/protocol/README.md");
    let link = |rule: &Rule| rule.chapter().trim_start_matches("docs/protocol/").to_owned();
    let missing: Vec<_> = rules.iter().filter(|rule| !index.contains(&format!("| [{rule}]({})", link(rule)))).collect();
    assert!(missing.is_empty(), "rules that are not in the index: {missing:?}");
}

/// Those in the rows about the referee.
#[test]
fn every_scenario_that_is_named_is_one() {
    let folder = root().join("src/referee/scenarios");
    let files = fs::read_dir(folder).expect("the scenarios").map(|file| file.expect("a file").path());
    let sources: String = files.map(|path| fs::read_to_string(path).expect("a source")).collect();
    for (name, page) in pages() {
        let rows = prose(&page).filter(|line| line.starts_with("| any client, by the referee |"));
        let named = rows.flat_map(|row| row.split('`').skip(3).step_by(2));
        let missing: Vec<_> = named.filter(|name| !sources.contains(&format!("name: \"{name}\""))).collect();
        assert!(missing.is_empty(), "{name} names what is no scenario: {missing:?}");
    }
}
