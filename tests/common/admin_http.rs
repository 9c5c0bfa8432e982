//! One request to the admin API of a real broker, which may pass it on to another one.
//!
//! HTTP by hand: a request of HTTP/1.0 is answered in one piece that ends with the connection, which is less code than
//! an HTTP client takes to configure, and no dependency.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;
const REDIRECTS_MAX: usize = 5;

pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The line with the status, and the headers.
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Where a redirect leads: `host:port` and the path.
    fn location(&self) -> Option<(String, String)> {
        let mut lines = self.head.lines().filter(|_| self.status == 307);
        let (address, path) = lines.find_map(|line| line.strip_prefix("Location: http://"))?.split_once('/')?;
        Some((address.to_owned(), format!("/{}", path.trim_end())))
    }
}

/// `host:port` of `http://host:port`.
pub(crate) fn address_of(url: &str) -> &str {
    url.trim_start_matches("http://").trim_end_matches('/')
}

/// Sends the request to `address`, `host:port`, with `body` as JSON, and to where that redirects it.
pub(crate) async fn request(address: &str, token: &str, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    let mut to = (address.to_owned(), path.to_owned());
    for _ in 0..=REDIRECTS_MAX {
        let answer = request_once(&to.0, token, method, &to.1, body).await?;
        match answer.location() {
            Some(location) => to = location,
            None => return Ok(answer),
        }
    }
    Err(io::Error::other("redirected for ever"))
}

async fn request_once(address: &str, token: &str, method: &str, path: &str, body: &str) -> io::Result<Answer> {
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
