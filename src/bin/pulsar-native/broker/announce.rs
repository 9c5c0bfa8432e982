//! Where the broker listens, for people and for programs.

use std::path::Path;

use pulsar_native::broker::EmbeddedBroker;
use serde_json::{Map, Value, json};

use crate::{CliResult, output};

/// Prints a URL a line, and the token behind them; or all of it as one line of JSON, under the names of Pulsar's
/// `ClusterData`.
pub(super) fn announce(broker: &EmbeddedBroker, as_json: bool, ca_file: Option<&Path>) -> CliResult {
    let token = Some(broker.token("admin")).filter(|token| !token.is_empty());
    let named = [
        ("brokerServiceUrl", Some(broker.url())),
        ("serviceUrl", broker.http_url()),
        #[cfg(feature = "tls")]
        ("brokerServiceUrlTls", broker.tls_url()),
        #[cfg(feature = "tls")]
        ("serviceUrlTls", broker.https_url()),
        ("token", token),
    ];
    if !as_json {
        for text in named.into_iter().filter_map(|(_, text)| text) {
            output::print(text)?;
        }
        return Ok(());
    }
    let mut object: Map<String, Value> =
        named.into_iter().filter_map(|(name, text)| Some((name.to_owned(), json!(text?)))).collect();
    object.extend(ca_file.map(|path| ("brokerClientTrustCertsFilePath".to_owned(), json!(path))));
    object.insert("pid".to_owned(), json!(std::process::id()));
    output::print(Value::Object(object))?;
    Ok(())
}
