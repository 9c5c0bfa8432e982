//! The bytes in `docs/protocol/`: each block is made again, from the vectors and from exchanges with a broker whose clock
//! stands still, and compared with what the book shows.
//!
//! With `BOOK=write` in the environment the blocks in the book are written instead.

mod frames;
mod scenes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use frames::Blocks;

const BEGIN: &str = "<!-- bytes: ";
const END: &str = "<!-- end -->";
const HOW_TO_WRITE: &str = "BOOK=write cargo test --all-features --test broker book::";

/// The chapters, by path.
fn chapters() -> BTreeMap<PathBuf, String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/protocol");
    let files = fs::read_dir(folder).expect("the book").map(|file| file.expect("a file").path());
    let pages = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.map(|path| (path.clone(), fs::read_to_string(&path).expect("a page"))).collect()
}

/// The page with each block as it is made now; the names of those blocks go to `shown`.
fn with_blocks(page: &str, blocks: &Blocks, shown: &mut BTreeSet<String>) -> String {
    let mut out = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        let Some(name) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(" -->")) else { continue };
        let text = blocks.get(name).unwrap_or_else(|| panic!("the book shows a block {name:?}, which nothing makes"));
        shown.insert(name.to_owned());
        out.push_str(&format!("```text\n{text}```\n{END}\n"));
        assert!(lines.any(|line| line == END), "the block {name:?} has no {END}");
    }
    out
}

/// The first line that differs, for people.
fn difference(page: &str, made: &str) -> String {
    let mut both = page.lines().zip(made.lines()).enumerate();
    let Some((at, (old, new))) = both.find(|(_, (old, new))| old != new) else { return "one is longer".to_owned() };
    format!("line {}\n  in the book: {old}\n  made now:    {new}", at + 1)
}

#[test]
fn the_bytes_are_those_of_real_frames() {
    let blocks = scenes::all();
    let is_writing = std::env::var("BOOK").is_ok_and(|value| value == "write");
    let mut shown = BTreeSet::new();
    for (path, page) in chapters() {
        let made = with_blocks(&page, &blocks, &mut shown);
        if is_writing && made != page {
            fs::write(&path, &made).expect("the page is written");
            continue;
        }
        let name = path.file_name().expect("a file").display();
        assert!(made == page, "{name}: {}\nif that is meant: {HOW_TO_WRITE}", difference(&page, &made));
    }
    let unused: Vec<_> = blocks.names().filter(|name| !shown.contains(*name)).collect();
    assert!(unused.is_empty(), "made, and shown nowhere: {unused:?}");
}
