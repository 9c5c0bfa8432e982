//! This client under all scenarios of the referee, behind the glue of the example; and the command line.

use pulsar_native::referee::{ClientUnderTest, Referee, Scenario};

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
    let rows = tables.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    for (name, _) in rows {
        assert!(Scenario::all().any(|scenario| scenario.name == name), "docs/referee.md: there is no scenario {name}");
    }
}
