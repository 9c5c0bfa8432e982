//! `broker`: the embedded broker, for development.

use std::net::SocketAddr;

use clap::Args;

use crate::Outcome;

#[derive(Args)]
#[cfg_attr(not(feature = "broker"), allow(dead_code, reason = "the command refuses without the feature"))]
pub(crate) struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:6650")]
    listen: SocketAddr,
    /// Asks clients for tokens signed with this secret (HS256), and prints one for `admin`. Without it anybody may
    /// connect.
    #[arg(long)]
    token_key: Option<String>,
}

#[cfg(feature = "broker")]
pub(crate) async fn run(arguments: Arguments) -> Outcome {
    use pulsar_native::broker::EmbeddedBroker;

    let mut builder = EmbeddedBroker::builder().listen(arguments.listen).any_namespace(true);
    let with_tokens = arguments.token_key.is_some();
    if let Some(key) = arguments.token_key {
        builder = builder.token_secret_key(key);
    }
    let broker = builder.start().await?;
    println!("{}", broker.url());
    if with_tokens {
        println!("{}", broker.token("admin"));
    }
    tokio::signal::ctrl_c().await?;
    for violation in broker.violations() {
        eprintln!("a client broke a rule: {violation}");
    }
    broker.stop().await;
    Ok(())
}

#[cfg(not(feature = "broker"))]
pub(crate) async fn run(_: Arguments) -> Outcome {
    Err("this build has no broker: build it with the features `cli` and `broker`".into())
}
