//! `status`: the backlog of topics and their consumers, from the REST interface.

use clap::Args;

use crate::{CliResult, Connect};

#[cfg(feature = "http")]
mod json;
#[cfg(feature = "http")]
mod table;

#[derive(Args)]
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "the command refuses without the feature"))]
pub(crate) struct Arguments {
    #[command(flatten)]
    connect: Connect,
    /// A topic, such as persistent://public/default/orders or orders, or all topics of a namespace, such as public/default
    #[arg(value_name = "TOPIC|NAMESPACE", default_value = "public/default")]
    what: String,
    /// Print everything as JSON, with the names of Pulsar's admin API
    #[arg(long)]
    json: bool,
}

#[cfg(feature = "http")]
pub(crate) async fn run(arguments: Arguments) -> CliResult {
    use crate::{UsageError, output};

    let is_web = arguments.connect.url.to_ascii_lowercase().starts_with("http");
    if !is_web && arguments.connect.admin_url.is_none() {
        let what = "status reads the REST interface of the brokers: give its URL, such as http://host:8080, as URL or with \
                    --admin-url";
        return Err(UsageError(what.to_owned()).into());
    }
    let client = arguments.connect.builder()?.build()?;
    let topics = read(&client, &arguments.what).await?;
    if arguments.json {
        output::print(json::topics(&topics))?;
    } else {
        output::print(table::topics(&topics, arguments.connect.verbose > 0))?;
    }
    Ok(client.close().await?)
}

#[cfg(feature = "http")]
async fn read(
    client: &pulsar_native::Client,
    what: &str,
) -> Result<Vec<pulsar_native::TopicStatistics>, pulsar_native::Error> {
    use pulsar_native::ErrorKind;

    let is_namespace = !what.contains("://") && what.matches('/').count() == 1;
    if !is_namespace {
        return client.topic_stats(what).await;
    }
    let mut found = Vec::new();
    for topic in client.topics_of_namespace(what).await? {
        match client.topic_stats(topic).await {
            Ok(stats) => found.extend(stats),
            // Deleted since it was listed.
            Err(error) if error.kind() == ErrorKind::TopicNotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

#[cfg(not(feature = "http"))]
#[expect(clippy::unused_async, reason = "it reads, where the feature is on")]
pub(crate) async fn run(_: Arguments) -> CliResult {
    Err("this build has no HTTP: build with the features `cli` and `http`".into())
}
