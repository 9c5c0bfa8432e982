//! `broker`: the embedded broker, for development.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
#[cfg(feature = "broker")]
use pulsar_native::broker::{EmbeddedBroker, EmbeddedBrokerBuilder, PulsarVersion};

use crate::CliResult;
#[cfg(feature = "broker")]
use crate::output;

#[cfg(feature = "broker")]
type Version = PulsarVersion;
#[cfg(not(feature = "broker"))]
type Version = String;

#[derive(Args)]
#[cfg_attr(not(feature = "broker"), allow(dead_code, reason = "the command refuses without the feature"))]
pub(crate) struct Arguments {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6650")]
    listen: SocketAddr,
    /// Answer lookups of http:// service URLs at this address
    #[arg(long, value_name = "ADDRESS")]
    http_listen: Option<SocketAddr>,
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
    /// Address to listen on for TLS, if that is on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6651")]
    tls_listen: SocketAddr,
    /// Address to listen on for https://, if --http-listen is given and TLS is on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    https_listen: SocketAddr,
    /// Play an older release of Pulsar: its protocol version, and nothing that it does not know, e.g. 2.10
    #[arg(long, value_name = "VERSION")]
    #[cfg_attr(feature = "broker", arg(value_parser = str::parse::<PulsarVersion>))]
    like: Option<Version>,
    /// Require tokens signed with SECRET (HS256), and print one for the role `admin`; without it no token is needed
    #[arg(long, value_name = "SECRET")]
    token_key: Option<String>,
}

/// Prints a URL a line, and the token behind them.
#[cfg(feature = "broker")]
pub(crate) async fn run(arguments: Arguments) -> CliResult {
    let mut builder =
        EmbeddedBroker::like(arguments.like.unwrap_or_default()).listen(arguments.listen).any_namespace(true);
    let with_tokens = arguments.token_key.is_some();
    if let Some(key) = &arguments.token_key {
        builder = builder.token_secret_key(key.as_str());
    }
    if let Some(address) = arguments.http_listen {
        builder = builder.http(true).http_listen(address);
    }
    let broker = with_tls(builder, &arguments)?.start().await?;
    write_authority(&broker, &arguments)?;
    for url in urls(&broker) {
        output::print(url)?;
    }
    if with_tokens {
        output::print(broker.token("admin"))?;
    }
    tokio::signal::ctrl_c().await?;
    for violation in broker.violations() {
        output::note(format_args!("protocol violation by a client: {violation}"));
    }
    broker.stop().await;
    Ok(())
}

#[cfg(all(feature = "broker", feature = "tls"))]
fn with_tls(builder: EmbeddedBrokerBuilder, arguments: &Arguments) -> CliResult<EmbeddedBrokerBuilder> {
    let builder = builder.tls_listen(arguments.tls_listen).https_listen(arguments.https_listen);
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

#[cfg(feature = "broker")]
fn urls(broker: &EmbeddedBroker) -> Vec<String> {
    let mut urls = vec![broker.url()];
    urls.extend(broker.http_url());
    #[cfg(feature = "tls")]
    urls.extend([broker.tls_url(), broker.https_url()].into_iter().flatten());
    urls
}

#[cfg(not(feature = "broker"))]
pub(crate) async fn run(_: Arguments) -> CliResult {
    Err("this build has no embedded broker: build with the features `cli` and `broker`".into())
}
