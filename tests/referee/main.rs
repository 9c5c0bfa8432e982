//! This client under all scenarios of the referee, behind the glue of the example; and the command line.

use std::time::Duration;

use pulsar_native::referee::{ClientUnderTest, Referee, Scenario};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

#[cfg(all(feature = "cli", unix))]
mod command_line;
#[allow(dead_code, reason = "the `main` of an example is not called here")]
#[path = "../../examples/referee_glue.rs"]
mod referee_glue;

fn this_client() -> ClientUnderTest {
    ClientUnderTest::task(|stream| async move {
        let (reader, writer) = tokio::io::split(stream);
        referee_glue::run(reader, writer).await;
    })
}

/// They wait more than they work, so all of them run at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_client_passes_all_scenarios() {
    let report = Referee::new(this_client()).jobs(100).run(|_| {}).await;
    assert_eq!(report.verdicts.len(), Scenario::all().count());
    let others: Vec<_> = report.verdicts.iter().filter(|verdict| verdict.outcome.name() != "passed").collect();
    assert!(others.is_empty(), "{}", others.iter().map(|verdict| verdict.told()).collect::<String>());
}

/// A glue that says `ok` to everything, stores every message, and has no client at all.
fn liar() -> ClientUnderTest {
    ClientUnderTest::task(|stream| async move {
        let (reader, mut writer) = tokio::io::split(stream);
        let mut requests = BufReader::new(reader).lines();
        let _ = writer.write_all(b"ready a liar 1.0\n").await;
        while let Ok(Some(request)) = requests.next_line().await {
            let answer = match request.split(' ').collect::<Vec<_>>()[..] {
                ["send", _, id, ..] => format!("sent {id} ok 1:{id}\nok\n"),
                ["receive", ..] => "none\n".to_owned(),
                _ => "ok\n".to_owned(),
            };
            if writer.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_nothing_passes_no_scenario() {
    let report = Referee::new(liar()).jobs(100).timeout(Duration::from_secs(8)).run(|_| {}).await;
    let passed: Vec<_> = report.verdicts.iter().filter(|verdict| !verdict.is_bad()).collect();
    assert!(passed.is_empty(), "{}", passed.iter().map(|verdict| verdict.scenario).collect::<Vec<_>>().join(", "));
}

#[test]
fn names_of_scenarios_are_words_and_differ() {
    let mut names: Vec<_> = Scenario::all().map(|scenario| scenario.name).collect();
    for name in &names {
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{name}");
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Scenario::all().count());
}

/// The documents say how many there are, and name those that official clients fail.
#[test]
fn the_documents_are_of_these_scenarios() {
    let page = include_str!("../../docs/referee.md");
    let count = Scenario::all().count();
    assert!(page.contains(&format!("of {count} scenarios pass")), "docs/referee.md is not of {count} scenarios");
    assert!(include_str!("../../README.md").contains(&format!("under {count} scenarios")), "README.md");
    let tables = page.split("## What it shows").nth(1).expect("there is such a part");
    let rows = tables.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |"));
    // Every other part is in backticks; a race has words of its verdict behind its name.
    for name in rows.flat_map(|(names, _)| names.split('`').step_by(2)) {
        assert!(Scenario::all().any(|scenario| scenario.name == name), "docs/referee.md: there is no scenario {name}");
    }
}
