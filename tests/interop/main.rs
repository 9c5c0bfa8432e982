//! Official clients and this one on a real broker, each reading what the other has sent, field by field.
//!
//! `scripts/interop` installs the clients, starts a broker and runs this; each line is a check with a client and its
//! version. Without it nothing runs, and that is said; with `INTEROP_REQUIRED` set, as the script does, it is a failure.
#![allow(unreachable_pub, reason = "modules of one test binary")]

use std::process::ExitCode;

#[path = "../common/mod.rs"]
mod common;

mod admin;
mod changing;
mod checks;
mod ids;
mod letters;
mod matrix;
mod message;
mod ours;
mod peer;
mod readers;
mod refresh;
mod table;

/// Peers that `scripts/interop` has installed, as `INTEROP_PEER_<NAME>`: the command line of each.
const PEERS: [&str; 3] = ["JAVA", "PYTHON", "GO"];

fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(format!("INTEROP_PEER_{name}")).ok();
    let commands: Vec<_> = PEERS.iter().filter_map(|name| Some((*name, variable(name)?))).collect();
    if commands.is_empty() || std::env::var_os("PULSAR_URL").is_none() {
        println!("nothing ran: the official clients and a real Pulsar are needed, see scripts/interop");
        let is_required = std::env::var_os("INTEROP_REQUIRED").is_some();
        return if is_required { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let checks = match checks::chosen() {
        Ok(checks) => checks,
        Err(wrong) => {
            println!("interop: {wrong}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let failed = runtime.block_on(async {
        let mut failed = 0;
        for (name, command) in &commands {
            failed += checks::run_all(name, command, &checks).await;
        }
        failed
    });
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
