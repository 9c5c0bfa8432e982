//! `broker`: the embedded broker, for development.

use std::net::SocketAddr;

use clap::Args;

use crate::CliResult;
#[cfg(feature = "broker")]
use crate::output;

#[derive(Args)]
#[cfg_attr(not(feature = "broker"), allow(dead_code, reason = "the command refuses without the feature"))]
pub(crate) struct Arguments {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6650")]
    listen: SocketAddr,
    /// Require tokens signed with SECRET (HS256), and print one for the role `admin`; without it no token is needed
    #[arg(long, value_name = "SECRET")]
    token_key: Option<String>,
}

#[cfg(feature = "broker")]
pub(crate) async fn run(arguments: Arguments) -> CliResult {
    use pulsar_native::broker::EmbeddedBroker;

    let mut builder = EmbeddedBroker::builder().listen(arguments.listen).any_namespace(true);
    let with_tokens = arguments.token_key.is_some();
    if let Some(key) = arguments.token_key {
        builder = builder.token_secret_key(key);
    }
    let broker = builder.start().await?;
    output::print(broker.url())?;
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

#[cfg(not(feature = "broker"))]
pub(crate) async fn run(_: Arguments) -> CliResult {
    Err("this build has no embedded broker: build with the features `cli` and `broker`".into())
}
