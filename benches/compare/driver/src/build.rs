//! What a user of each Rust client waits for: a release build of a program with nothing but the client in it, with
//! its default features, into an empty target directory, sources already there.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::results::Results;
use crate::{repo, takes_part};

/// The work's name in the results.
pub(crate) const COLD: &str = "cold release build";

pub(crate) fn section(results: &mut Results) {
    println!("{COLD}, default features");
    results.begin("build");
    let ours = format!("pulsar-native = {{ path = {:?} }}", repo());
    for (subject, dependency) in [
        ("pulsar-native", ours.as_str()),
        ("pulsar-rs", "pulsar = \"=6.9.1\""),
        ("magnetar", "magnetar-driver = \"=1.7.4\""),
    ] {
        if !takes_part(subject) {
            continue;
        }
        let home = crate::programs().join("cold").join(subject);
        let Some((seconds, crates)) = cold(&home, dependency) else {
            eprintln!("    {subject} does not build");
            continue;
        };
        println!("    {subject:<21} {seconds:>7.1} s {crates:>5} crates");
        results.put("build", COLD, subject, "seconds", format!("{seconds:.1}"));
        results.put("build", COLD, subject, "crates", crates.to_string());
        let _ = fs::remove_dir_all(&home);
    }
    results.save();
}

/// Seconds, and how many crates there are in the tree, what builds others included.
fn cold(home: &Path, dependency: &str) -> Option<(f64, usize)> {
    let _ = fs::remove_dir_all(home);
    fs::create_dir_all(home.join("src")).ok()?;
    let manifest = format!(
        "[package]\nname = \"cold\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n{dependency}\n"
    );
    fs::write(home.join("Cargo.toml"), manifest).ok()?;
    fs::write(home.join("src/main.rs"), "fn main() {}\n").ok()?;
    let target = home.join("target");
    let cargo = |args: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(args).current_dir(home).env("CARGO_TARGET_DIR", &target).stdin(Stdio::null());
        command.output().ok().filter(|output| output.status.success())
    };
    cargo(&["fetch"])?;
    let start = Instant::now();
    cargo(&["build", "--release", "--offline"])?;
    let seconds = start.elapsed().as_secs_f64();
    let tree = cargo(&["tree", "--offline", "-e", "normal,build", "--prefix", "none", "--no-dedupe"])?;
    let text = String::from_utf8_lossy(&tree.stdout).into_owned();
    let mut names: Vec<&str> = text.lines().map(|line| line.split(" (").next().unwrap_or(line)).collect();
    names.sort_unstable();
    names.dedup();
    // All but the program itself.
    Some((seconds, names.len() - 1))
}
