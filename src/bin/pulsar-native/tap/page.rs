//! `--web`: the page in place of the terminal.

use std::net::SocketAddr;

use pulsar_native::tap::WebView;

use crate::{CliResult, output};

/// The page at an address, if there is one, and a line that says where it is.
pub(super) async fn open(address: Option<SocketAddr>, title: String) -> CliResult<Option<WebView>> {
    let Some(address) = address else { return Ok(None) };
    let page = WebView::bind(address, title).await.map_err(|error| format!("--web {address}: {error}"))?;
    output::note(format_args!("in a browser: {}", page.url()));
    Ok(Some(page))
}

/// Until Ctrl-C.
pub(super) async fn interrupted() -> CliResult {
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        () = crate::broker::terminated()? => Ok(()),
    }
}
