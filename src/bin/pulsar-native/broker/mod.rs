//! `broker`: the embedded broker, for development and for tests in any language.

#[cfg(feature = "broker")]
mod announce;
#[cfg(feature = "broker")]
mod parent;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
#[cfg(feature = "broker")]
use pulsar_native::broker::{EmbeddedBroker, EmbeddedBrokerBuilder, PulsarVersion};

use crate::CliResult;
#[cfg(feature = "broker")]
use crate::{UsageError, output};

#[cfg(feature = "broker")]
type Version = PulsarVersion;
#[cfg(not(feature = "broker"))]
type Version = String;

#[derive(Args)]
#[cfg_attr(not(feature = "broker"), allow(dead_code, reason = "the command refuses without the feature"))]
pub(crate) struct Arguments {
    /// Address to listen on, port 0 for a free one [default: 127.0.0.1:6650]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Serve the REST interface at this address, port 0 for a free one
    #[arg(long, value_name = "ADDRESS", alias = "http-listen")]
    http: Option<SocketAddr>,
    /// Serve TLS with this certificate (PEM, those that sign it behind it)
    #[arg(long, value_name = "FILE", requires = "tls_key", conflicts_with = "tls_self_signed")]
    tls_cert: Option<PathBuf>,
    /// The key of --tls-cert (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Serve TLS with a certificate made for localhost and 127.0.0.1, and write its authority to FILE: the --ca-file of
    /// clients (needs the feature `self-signed`)
    #[arg(long, value_name = "FILE")]
    tls_self_signed: Option<PathBuf>,
    /// Address to listen on for TLS, if that is on [default: 127.0.0.1:6651]
    #[arg(long, value_name = "ADDRESS")]
    tls_listen: Option<SocketAddr>,
    /// Address to listen on for https://, if --http is given and TLS is on [default: 127.0.0.1:8443]
    #[arg(long, value_name = "ADDRESS")]
    https_listen: Option<SocketAddr>,
    /// Play an older release of Pulsar: its protocol version, and nothing that it does not know, e.g. 2.10
    #[arg(long, value_name = "VERSION")]
    #[cfg_attr(feature = "broker", arg(value_parser = str::parse::<PulsarVersion>))]
    like: Option<Version>,
    /// Require tokens signed with SECRET (HS256), and print one for the role `admin`; without it no token is needed
    #[arg(long, value_name = "SECRET")]
    token_key: Option<String>,
    /// Random faults by this seed, to fuzz a client: lost, late, doubled and wrong answers, malformed frames, lost connections. A
    /// client that keeps to the protocol loses nothing; the faults, and the rules that it broke, are told at the end
    #[arg(long, value_name = "SEED")]
    hostile: Option<u64>,
    /// Every namespace exists; without it, as on a real broker, public/default and those that are made
    #[arg(long)]
    any_namespace: bool,
    /// Read settings from FILE, one name=value on each line, as in Pulsar's broker.conf
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Change a setting; goes before --config. May be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// List the settings of --set and --config with their defaults, and exit
    #[arg(long)]
    list_settings: bool,
    /// Announce the URLs, and a token if there is one, as one line of JSON
    #[arg(long)]
    json: bool,
    /// Stop when the process that started this one has ended, however it ended; with its PID also if that was before this one
    /// began
    #[arg(long, value_name = "PID", num_args = 0..=1, require_equals = true)]
    exit_with_parent: Option<Option<u32>>,
}

/// Announces where it listens once it does, and then runs until it is told to stop.
#[cfg(feature = "broker")]
pub(crate) async fn run(arguments: Arguments) -> CliResult {
    if arguments.list_settings {
        return list_settings();
    }
    let parent = arguments.exit_with_parent.map(parent::Parent::of_this_process).transpose()?;
    // Before anyone can know of the broker and stop it.
    let terminated = terminated()?;
    let broker = with_tls(builder(&arguments)?, &arguments)?.start().await?;
    if let Some(seed) = arguments.hostile {
        broker.faults().hostile(seed);
        output::note(format_args!("hostile, seed {seed}"));
    }
    write_authority(&broker, &arguments)?;
    announce::announce(&broker, arguments.json, arguments.tls_self_signed.as_deref())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        () = terminated => {}
        () = parent::ended(parent) => {}
    }
    for (kind, count) in broker.faults().hostile_counts() {
        output::note(format_args!("fault: {kind}, {count} times"));
    }
    for violation in broker.violations() {
        output::note(format_args!("protocol violation by a client: {violation}"));
    }
    broker.stop().await;
    Ok(())
}

/// In the format of --config.
#[cfg(feature = "broker")]
fn list_settings() -> CliResult {
    for setting in EmbeddedBrokerBuilder::settings() {
        output::print(format_args!("# {}\n{}={}", setting.about, setting.name, setting.default))?;
    }
    Ok(())
}

/// Options go before `--set`, which goes before `--config`.
#[cfg(feature = "broker")]
fn builder(arguments: &Arguments) -> CliResult<EmbeddedBrokerBuilder> {
    let mut builder = EmbeddedBroker::builder().setting("listen", "127.0.0.1:6650")?;
    #[cfg(feature = "tls")]
    {
        builder = builder.setting("tlsListen", "127.0.0.1:6651")?.setting("httpsListen", "127.0.0.1:8443")?;
    }
    let wrong = |error: pulsar_native::broker::BrokerSettingError| UsageError(error.to_string());
    if let Some(path) = &arguments.config {
        builder = builder.settings_file(path).map_err(wrong)?;
    }
    for setting in &arguments.set {
        let Some((name, value)) = setting.split_once('=') else {
            return Err(UsageError("--set needs NAME=VALUE".to_owned()).into());
        };
        builder = builder.setting(name, value).map_err(wrong)?;
    }
    if let Some(address) = arguments.listen {
        builder = builder.listen(address);
    }
    if let Some(version) = arguments.like {
        builder = builder.setting("like", &version.to_string())?;
    }
    if let Some(key) = &arguments.token_key {
        builder = builder.token_secret_key(key.as_str());
    }
    if let Some(address) = arguments.http {
        builder = builder.http(true).http_listen(address);
    }
    Ok(if arguments.any_namespace { builder.any_namespace(true) } else { builder })
}

#[cfg(all(feature = "broker", feature = "tls"))]
fn with_tls(mut builder: EmbeddedBrokerBuilder, arguments: &Arguments) -> CliResult<EmbeddedBrokerBuilder> {
    if let Some(address) = arguments.tls_listen {
        builder = builder.tls_listen(address);
    }
    if let Some(address) = arguments.https_listen {
        builder = builder.https_listen(address);
    }
    match (&arguments.tls_cert, &arguments.tls_key, &arguments.tls_self_signed) {
        (Some(certificate), Some(key), _) => Ok(builder.tls_cert_file(certificate, key)),
        #[cfg(feature = "self-signed")]
        (.., Some(_)) => Ok(builder.tls_self_signed()),
        #[cfg(not(feature = "self-signed"))]
        (.., Some(_)) => Err("this build makes no certificates: build with the feature `self-signed`".into()),
        _ => Ok(builder),
    }
}

#[cfg(all(feature = "broker", not(feature = "tls")))]
fn with_tls(builder: EmbeddedBrokerBuilder, arguments: &Arguments) -> CliResult<EmbeddedBrokerBuilder> {
    if arguments.tls_cert.is_some() || arguments.tls_self_signed.is_some() {
        return Err("this build has no TLS: build with the feature `tls`".into());
    }
    Ok(builder)
}

#[cfg(feature = "self-signed")]
fn write_authority(broker: &EmbeddedBroker, arguments: &Arguments) -> CliResult {
    if let (Some(file), Some(pem)) = (&arguments.tls_self_signed, broker.ca_pem()) {
        std::fs::write(file, pem).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    Ok(())
}

#[cfg(all(feature = "broker", not(feature = "self-signed")))]
#[allow(clippy::unnecessary_wraps, reason = "it may fail where certificates are made")]
fn write_authority(_: &EmbeddedBroker, _: &Arguments) -> CliResult {
    Ok(())
}

/// SIGTERM, which is how the tools of other languages stop a process. It ends a broker as Ctrl-C does.
#[cfg(all(feature = "broker", unix))]
pub(crate) fn terminated() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut signals = signal(SignalKind::terminate())?;
    Ok(async move {
        let _ = signals.recv().await;
    })
}

#[cfg(all(feature = "broker", not(unix)))]
pub(crate) fn terminated() -> std::io::Result<impl Future<Output = ()>> {
    Ok(std::future::pending())
}

#[cfg(not(feature = "broker"))]
pub(crate) async fn run(_: Arguments) -> CliResult {
    Err("this build has no embedded broker: build with the features `cli` and `broker`".into())
}
