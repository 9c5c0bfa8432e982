//! Each scheme on each port that is for another one.

use std::path::Path;
use std::time::Duration;

use pulsar_native::{Client, Token};

use super::within::within_time;

/// The ports of a broker, each `host:port`.
#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) pulsar: String,
    pub(crate) pulsar_ssl: String,
    pub(crate) http: String,
    pub(crate) https: String,
}

/// Each of them fails in time with a line that names the address and a scheme that fits the port.
pub(crate) async fn each_has_a_line_that_helps(ports: &Ports, ca_file: &Path) {
    let by_scheme =
        [("pulsar", &ports.pulsar), ("pulsar+ssl", &ports.pulsar_ssl), ("http", &ports.http), ("https", &ports.https)];
    for (scheme, _) in by_scheme {
        for (fits, address) in by_scheme.into_iter().filter(|(fits, _)| *fits != scheme) {
            let url = format!("{scheme}://{address}");
            let client = Client::builder(&url).authentication(Token::new("a.secret.token")).ca_file(ca_file);
            let client = client.operation_timeout(Duration::from_secs(1)).connect();
            let error = within_time(Duration::from_secs(10), &url, client).await.expect_err(&url);
            let line = error.to_string();
            println!("{url}, which is {fits}: {line}");
            assert!(line.contains(address) && line.contains(&format!("{fits}://")), "{url}, {fits}: {line}");
            assert!(!line.contains('\n') && !format!("{error:?}").contains("secret"), "{url}: {error:?}");
        }
    }
}
