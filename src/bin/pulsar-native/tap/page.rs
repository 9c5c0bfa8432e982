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

/// Ctrl-C, or SIGTERM, which counts from this call on and not from when the future is polled.
pub(super) fn interrupted() -> CliResult<impl Future<Output = CliResult>> {
    let terminated = crate::broker::terminated()?;
    Ok(async {
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
            () = terminated => Ok(()),
        }
    })
}
