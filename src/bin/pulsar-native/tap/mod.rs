//! `tap`: shows what goes between clients and brokers, live as a proxy or from a file.

#[cfg(feature = "tap")]
mod files;
#[cfg(feature = "tap")]
mod live;
#[cfg(feature = "tap")]
mod output;
#[cfg(feature = "tap")]
mod page;
#[cfg(feature = "tap")]
mod recorder;
#[cfg(feature = "tap")]
mod replay;

use std::net::SocketAddr;
use std::path::PathBuf;
#[cfg(feature = "tap")]
use std::sync::Arc;

use clap::Args;

use crate::CliResult;

#[derive(Args)]
#[cfg_attr(not(feature = "tap"), allow(dead_code, reason = "the command refuses without the feature"))]
#[command(group(clap::ArgGroup::new("source").required(true).args(["to", "replay"]).multiple(false)))]
pub(crate) struct Arguments {
    /// Address to listen on: plain, TLS and HTTP on one port, port 0 for a free one; brokers that are met get free ports of the same
    /// interface [default: 127.0.0.1:6655]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "replay")]
    listen: Option<SocketAddr>,
    /// Service URL to carry clients on to: pulsar://, pulsar+ssl://, http:// or https://. May be repeated with another scheme of the same
    /// cluster
    #[arg(long, value_name = "URL")]
    to: Vec<String>,
    /// Host that clients are told in place of the brokers' [default: that of --listen]
    #[arg(long, value_name = "HOST", conflicts_with = "replay")]
    advertise: Option<String>,
    /// Trust the CA certificates in FILE (PEM) behind the tap
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    ca_file: Option<PathBuf>,
    /// Write the certificate to trust, of clients that speak TLS with the tap, to FILE [default: a new file for temporary ones]
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    tls_ca_out: Option<PathBuf>,
    /// Show what is in FILE, a recording or a capture, instead
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Show where the embedded broker would have answered the clients of --replay otherwise
    #[arg(long, conflicts_with = "to")]
    compare: bool,
    /// Record all frames to FILE (pcapng), whatever is shown
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    record: Option<PathBuf>,
    /// Show it in a browser, by a page at an address of loopback, and print no lines unless --json is given
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:6680")]
    web: Option<SocketAddr>,
    #[command(flatten)]
    shown: Shown,
}

/// What is shown, and how.
#[derive(Args)]
#[cfg_attr(not(feature = "tap"), allow(dead_code, reason = "the command refuses without the feature"))]
struct Shown {
    /// A line of JSON for each observation
    #[arg(long)]
    json: bool,
    /// Only what is about topics whose name contains TEXT; may be repeated
    #[arg(long, value_name = "TEXT")]
    topic: Vec<String>,
    /// Only frames of this command, such as SEND or LOOKUP; may be repeated
    #[arg(long, value_name = "NAME")]
    command: Vec<String>,
    /// Only what is about this producer, consumer or watcher, such as consumer:3; may be repeated
    #[arg(long, value_name = "KIND:ID")]
    endpoint: Vec<String>,
    /// Only violations, and frames that refuse something
    #[arg(long)]
    errors: bool,
    /// Show credentials, in lines of text, and leave them in a recording
    #[arg(long)]
    show_tokens: bool,
    /// Show the first bytes of payloads, in lines of text, and leave them in a recording
    #[arg(long)]
    show_payloads: bool,
}

/// Runs until Ctrl-C, or to the end of the file.
#[cfg(feature = "tap")]
pub(crate) async fn run(arguments: Arguments) -> CliResult {
    let output = output::Output::new(&arguments)?;
    let Some(file) = arguments.replay else { return live::run(arguments, output).await };
    let interrupted = page::interrupted()?;
    let page = page::open(arguments.web, file.display().to_string()).await?.map(Arc::new);
    let seen = page.clone();
    let compare = arguments.compare;
    let replayed = tokio::task::spawn_blocking(move || replay::run(&file, output, seen.as_deref(), compare)).await?;
    let Some(page) = page else { return replayed };
    if let Err(error) = replayed {
        page.end(error.to_string());
        crate::output::note(error);
    }
    interrupted.await
}

#[cfg(not(feature = "tap"))]
pub(crate) async fn run(_: Arguments) -> CliResult {
    Err("this build has no tap: build with the features `cli` and `tap`".into())
}
