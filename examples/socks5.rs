//! Brokers behind a SOCKS5 proxy: a dialer of the application, and the client's own TLS over what it makes.
//!
//! `SOCKS5_PROXY=localhost:1080 SOCKS5_USER=me SOCKS5_PASSWORD=secret \
//!  cargo run --example socks5 pulsar+ssl://broker.example.com:6651 ca.pem`

use std::net::IpAddr;
use std::path::Path;

use pulsar_native::client::{DialFuture, Dialer, HostPort, Socket, Target};
use pulsar_native::{Client, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "pulsar://localhost:6650".to_owned());
    let ca_file = arguments.next();
    let variable = |name: &str| std::env::var(name).ok();
    let proxy = Socks5 {
        proxy: variable("SOCKS5_PROXY").unwrap_or_else(|| "localhost:1080".to_owned()),
        user: variable("SOCKS5_USER").zip(variable("SOCKS5_PASSWORD")),
    };
    run(&url, proxy, ca_file.as_deref().map(Path::new)).await
}

pub(crate) async fn run(url: &str, proxy: Socks5, ca_file: Option<&Path>) -> Result<(), Error> {
    // The proxy passes bytes on: TLS, for pulsar+ssl://, is between the client and the broker.
    let mut builder = Client::builder(url).dialer_under_tls(proxy);
    if let Some(path) = ca_file {
        builder = builder.ca_file(path);
    }
    let client = builder.connect().await?;
    let producer = client.producer("persistent://public/default/by-proxy").create().await?;
    println!("stored as {}", producer.send("hello from behind the proxy").await?);
    client.close().await
}

/// Dials by way of a SOCKS5 proxy (RFC 1928), which resolves the names of hosts.
pub(crate) struct Socks5 {
    /// `host:port`.
    pub(crate) proxy: String,
    /// User and password (RFC 1929).
    pub(crate) user: Option<(String, String)>,
}

impl Dialer for Socks5 {
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a> {
        Box::pin(async move {
            let mut socket = TcpStream::connect(&self.proxy).await?;
            socket.set_nodelay(true)?;
            self.authenticate(&mut socket).await?;
            connect(&mut socket, &target.address).await?;
            Ok(Box::new(socket) as Box<dyn Socket>)
        })
    }
}

impl Socks5 {
    async fn authenticate(&self, socket: &mut TcpStream) -> Result<(), Error> {
        let method = if self.user.is_some() { USER_AND_PASSWORD } else { NO_AUTHENTICATION };
        socket.write_all(&[VERSION, 1, method]).await?;
        let mut chosen = [0; 2];
        socket.read_exact(&mut chosen).await?;
        if chosen[0] != VERSION {
            return Err(Error::connection("the peer is no SOCKS5 proxy"));
        }
        if chosen[1] != method {
            return Err(Error::authentication("the SOCKS5 proxy wants another method of authentication"));
        }
        let Some((user, password)) = &self.user else { return Ok(()) };
        let mut request = vec![1];
        for text in [user, password] {
            request.push(length(text)?);
            request.extend_from_slice(text.as_bytes());
        }
        socket.write_all(&request).await?;
        let mut answer = [0; 2];
        socket.read_exact(&mut answer).await?;
        match answer[1] {
            0 => Ok(()),
            _ => Err(Error::authentication("the SOCKS5 proxy refuses user and password")),
        }
    }
}

async fn connect(socket: &mut TcpStream, HostPort { host, port }: &HostPort) -> Result<(), Error> {
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend_from_slice(&address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend_from_slice(&address.octets());
        }
        Err(_) => {
            request.extend_from_slice(&[NAME, length(host)?]);
            request.extend_from_slice(host.as_bytes());
        }
    }
    request.extend_from_slice(&port.to_be_bytes());
    socket.write_all(&request).await?;

    let mut head = [0; 4];
    socket.read_exact(&mut head).await?;
    if head[1] != 0 {
        return Err(Error::connection(format!("the SOCKS5 proxy cannot reach {host}:{port}: {}", reason(head[1]))));
    }
    // The address that the proxy has connected from, which is of no use here.
    let address_len = match head[3] {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(socket.read_u8().await?),
        _ => return Err(Error::connection("the SOCKS5 proxy answers with an unknown type of address")),
    };
    let mut address_and_port = vec![0; address_len + 2];
    socket.read_exact(&mut address_and_port).await?;
    Ok(())
}

/// A length as one byte.
fn length(text: &str) -> Result<u8, Error> {
    u8::try_from(text.len()).map_err(|_| Error::connection("longer than the 255 bytes that SOCKS5 has room for"))
}

/// RFC 1928, section 6.
fn reason(reply: u8) -> &'static str {
    match reply {
        2 => "its rules do not allow it",
        3 => "the network is unreachable",
        4 => "the host is unreachable, or its name is unknown",
        5 => "the connection was refused",
        6 => "it took too long",
        _ => "it failed",
    }
}
