//! A SOCKS5 proxy (RFC 1928) that wants user and password (RFC 1929), written apart from the example that speaks to it.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

const NO_ACCEPTABLE_METHOD: u8 = 0xff;
const SUCCEEDED: u8 = 0;
const NOT_ALLOWED: u8 = 2;
const REFUSED: u8 = 5;

/// A running proxy. It ends when it is dropped, with its connections.
pub(crate) struct Socks5Proxy {
    address: String,
    reached: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Socks5Proxy {
    /// Lets this user in with this password, to all hosts but `forbidden`.
    pub(crate) async fn start(user: &'static str, password: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let reached = Arc::<Mutex<Vec<String>>>::default();
        let task = tokio::spawn(accept(listener, user, password, Arc::clone(&reached)));
        Self { address, reached, task }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The `host:port`s that it has connected to, as they were asked for.
    pub(crate) fn reached(&self) -> Vec<String> {
        self.reached.lock().expect("no panic").clone()
    }
}

impl Drop for Socks5Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, user: &'static str, password: &'static str, reached: Arc<Mutex<Vec<String>>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let reached = Arc::clone(&reached);
        connections.spawn(async move {
            let _ = serve(stream, user, password, &reached).await;
        });
    }
}

async fn serve(mut stream: TcpStream, user: &str, password: &str, reached: &Mutex<Vec<String>>) -> io::Result<()> {
    let methods = {
        let mut head = [0; 2];
        stream.read_exact(&mut head).await?;
        bytes(&mut stream, head[1]).await?
    };
    if !methods.contains(&2) {
        return stream.write_all(&[5, NO_ACCEPTABLE_METHOD]).await;
    }
    stream.write_all(&[5, 2]).await?;
    stream.read_u8().await?;
    let mut given = Vec::new();
    for _ in 0..2 {
        let len = stream.read_u8().await?;
        given.push(bytes(&mut stream, len).await?);
    }
    if given != [user.as_bytes(), password.as_bytes()] {
        return stream.write_all(&[1, 1]).await;
    }
    stream.write_all(&[1, 0]).await?;

    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let host = match head[3] {
        1 => Ipv4Addr::from(stream.read_u32().await?).to_string(),
        _ => {
            let len = stream.read_u8().await?;
            String::from_utf8(bytes(&mut stream, len).await?).map_err(io::Error::other)?
        }
    };
    let port = stream.read_u16().await?;
    if host == "forbidden" {
        return reply(&mut stream, NOT_ALLOWED).await;
    }
    let Ok(mut broker) = TcpStream::connect((host.as_str(), port)).await else {
        return reply(&mut stream, REFUSED).await;
    };
    reached.lock().expect("no panic").push(format!("{host}:{port}"));
    reply(&mut stream, SUCCEEDED).await?;
    copy_bidirectional(&mut stream, &mut broker).await.map(drop)
}

async fn bytes(stream: &mut TcpStream, len: u8) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(len)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn reply(stream: &mut TcpStream, code: u8) -> io::Result<()> {
    stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await
}
