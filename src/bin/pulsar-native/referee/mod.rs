//! `referee`: scenarios and a judge for clients in any language.

#[cfg(feature = "referee")]
mod by_hand;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::CliResult;
#[cfg(feature = "referee")]
use crate::{UsageError, output};

const AFTER_HELP: &str = "\
COMMAND is the glue of the client under test: it reads requests from its stdin and answers on its stdout, a line each, as
docs/referee.md says. It is started once for each scenario. Without COMMAND one scenario is played by hand: the requests are
printed, and what is typed are the answers.

Exit status:
  0  no scenario failed; some may not be supported
  1  a scenario failed, or the glue did
  2  wrong usage";

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
#[cfg_attr(not(feature = "referee"), allow(dead_code, reason = "the command refuses without the feature"))]
pub(crate) struct Arguments {
    /// Only this scenario. May be repeated
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// List the scenarios: what goes wrong, what the client must do, where that rule comes from
    #[arg(long)]
    list: bool,
    /// Write the results to FILE as JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print a line of JSON for each scenario instead of the table
    #[arg(long)]
    json: bool,
    /// How long one scenario may take, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Where the client's broker listens; a port other than 0 needs --jobs 1. 0.0.0.0:0 needs --advertise
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Host in the URLs that the client gets, for one in a container or on another machine [default: that of --listen]
    #[arg(long, value_name = "HOST", value_parser = host)]
    advertise: Option<String>,
    /// Scenarios at once
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// The glue and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the scenarios, and shows each as it ends.
#[cfg(feature = "referee")]
pub(crate) async fn run(arguments: Arguments) -> CliResult {
    use pulsar_native::referee::{ClientUnderTest, Referee, Scenario};

    if arguments.list {
        return list(arguments.json);
    }
    let by_hand = arguments.command.is_empty();
    let usage = |error: &str| Err(UsageError(error.to_owned()).into());
    if by_hand && arguments.scenario.len() != 1 {
        return usage("without COMMAND, give one --scenario to play by hand");
    }
    if arguments.listen.port() != 0 && arguments.jobs > 1 && arguments.scenario.len() != 1 {
        return usage("--listen with a port needs --jobs 1");
    }
    if arguments.listen.ip().is_unspecified() && arguments.advertise.is_none() {
        return usage(
            "--listen at all interfaces needs --advertise HOST: the name or address of this machine for the client",
        );
    }
    let client = if by_hand { by_hand::client() } else { ClientUnderTest::command(arguments.command) };
    let mut referee = Referee::new(client)
        .listen(arguments.listen)
        .jobs(arguments.jobs.into())
        .timeout(std::time::Duration::from_secs(arguments.timeout));
    if let Some(host) = arguments.advertise {
        referee = referee.advertise(host);
    }
    for name in &arguments.scenario {
        referee = referee.scenario(name).map_err(|error| UsageError(error.to_string()))?;
    }
    let count = if arguments.scenario.is_empty() { Scenario::all().count() } else { arguments.scenario.len() };
    let (mut printed, mut ended, mut bad) = (Ok(()), 0, 0);
    let report = referee.run(|verdict| {
        ended += 1;
        bad += usize::from(verdict.is_bad());
        if arguments.json && printed.is_ok() {
            printed = output::print(verdict.json());
        } else if !by_hand && output::is_terminal() {
            output::show_progress(&format!(
                "{ended} of {count} scenarios, {bad} not passed; last: {}",
                verdict.scenario
            ));
        } else if !arguments.json {
            output::note(verdict);
        }
    });
    let report = report.await;
    output::end_progress();
    printed?;
    if !arguments.json {
        output::print(&report)?;
    }
    if let Some(path) = &arguments.junit {
        let written = std::fs::write(path, report.junit());
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    if report.is_good() { Ok(()) } else { Err(report.summary().into()) }
}

/// A host without port, path or spaces.
#[cfg_attr(not(feature = "referee"), allow(dead_code, reason = "the command refuses without the feature"))]
fn host(text: &str) -> Result<String, String> {
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    let is_name = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if is_address || is_name { Ok(text.to_owned()) } else { Err("a name or an address, without a port".to_owned()) }
}

#[cfg(feature = "referee")]
fn list(json: bool) -> CliResult {
    for scenario in pulsar_native::referee::Scenario::all() {
        output::print(if json { scenario.json() } else { scenario.to_string() })?;
    }
    Ok(())
}

#[cfg(not(feature = "referee"))]
pub(crate) async fn run(_: Arguments) -> CliResult {
    Err("this build has no referee: build with the features `cli` and `referee`".into())
}
