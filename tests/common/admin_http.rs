//! One request to the admin API of a real broker.
//!
//! HTTP by hand: a request of HTTP/1.0 is answered in one piece that ends with the connection, which is less code than
//! an HTTP client takes to configure, and no dependency.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The line with the status, and the headers.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// `host:port` of `http://host:port`.
pub(crate) fn address_of(url: &str) -> &str {
    url.trim_start_matches("http://").trim_end_matches('/')
}

/// Sends the request to `address`, `host:port`, with `body` as JSON.
pub(crate) async fn request(address: &str, token: &str, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    let mut socket = TcpStream::connect(address).await?;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut answer = Vec::new();
    socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let parts = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
    });
    parts.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP answer: {answer:.200}")))
}
