//! The programs of the Pulsar distribution as clients of a real broker. `PULSAR_DIST` and `PULSAR_CLIENT_CONF` name the
//! distribution and its configuration.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::within::within_time;

/// A Java virtual machine starts slowly on a busy machine.
const JAVA_TIME_MAX: Duration = Duration::from_secs(90);

/// Runs `bin/<program>` and gives what it printed.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> String {
    run_with(&variable("PULSAR_CLIENT_CONF"), program, arguments).await
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not in the environment"))
}

/// The same with another file of settings.
pub(crate) async fn run_with(conf: &str, program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(format!("{}/bin/{program}", variable("PULSAR_DIST")));
    command.env("PULSAR_CLIENT_CONF", conf);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = within_time(JAVA_TIME_MAX, "the Java client", command.output()).await.expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{arguments:?}: {}\n{printed}\n{}", output.status, text(&output.stderr));
    printed
}
