//! A web server of a few lines: each answer is written by the test, byte for byte.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The request line and the headers.
#[derive(Debug, Clone)]
pub(crate) struct Request(String);

impl Request {
    pub(crate) fn path(&self) -> &str {
        self.0.split(' ').nth(1).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.0.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

type Answer = dyn Fn(&Request) -> Option<String> + Send + Sync;

/// A running server. It ends when it is dropped, with its connections.
pub(crate) struct Web {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Web {
    /// Answers each request with what `answer` gives, never if that is `None`.
    pub(crate) async fn start(answer: impl Fn(&Request) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (seen, connections) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn(accept(listener, Arc::new(answer), Arc::clone(&seen), Arc::clone(&connections)));
        Self { address, seen, connections, task }
    }

    /// The same answer to whatever is asked.
    pub(crate) async fn always(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        Self::start(move |_| Some(answer.clone())).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("no panic").clone()
    }

    /// How many connections were accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, answer: Arc<Answer>, seen: Arc<Mutex<Vec<Request>>>, count: Arc<AtomicUsize>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        count.fetch_add(1, Ordering::Relaxed);
        connections.spawn(serve(stream, Arc::clone(&answer), Arc::clone(&seen)));
    }
}

async fn serve(stream: TcpStream, answer: Arc<Answer>, seen: Arc<Mutex<Vec<Request>>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut text = String::new();
        while !text.ends_with("\r\n\r\n") {
            if stream.read_line(&mut text).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let request = Request(text);
        seen.lock().expect("no panic").push(request.clone());
        match answer(&request) {
            Some(answer) if stream.write_all(answer.as_bytes()).await.is_ok() => {}
            Some(_) => return,
            None => std::future::pending().await,
        }
    }
}

/// A status line, the headers, and a body with its length.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

pub(crate) fn json(body: &str) -> String {
    answer("200 OK", "Content-Type: application/json\r\n", body)
}

pub(crate) fn page(status: &str) -> String {
    answer(status, "Content-Type: text/html\r\n", "<html><body>a page</body></html>")
}

pub(crate) fn redirect(to: impl std::fmt::Display) -> String {
    answer("307 Temporary Redirect", &format!("Location: {to}\r\n"), "")
}

/// What a broker answers whose address is `url`.
pub(crate) fn broker(request: &Request, url: &str) -> String {
    match request.path() {
        path if path.contains("/lookup/") => json(&format!(r#"{{"brokerUrl":"{url}"}}"#)),
        path if path.contains("/partitions") => json(r#"{"partitions":0,"deleted":false}"#),
        _ => page("404 Not Found"),
    }
}
