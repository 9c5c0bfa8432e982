//! A proxy that routes by the server name of TLS (SNI) and passes the bytes on, as Apache Traffic Server does.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::rustls::server::Acceptor;

/// A running proxy. It ends when it is dropped, with its connections.
pub(crate) struct SniProxy {
    address: SocketAddr,
    names: Arc<Mutex<Vec<String>>>,
    _accepting: JoinSet<()>,
}

impl SniProxy {
    /// Each route is a name, and the `host:port` behind it.
    pub(crate) async fn start(routes: impl IntoIterator<Item = (String, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let names = Arc::default();
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::new(routes.into_iter().collect()), Arc::clone(&names)));
        Self { address, names, _accepting: accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("pulsar+ssl://{}", self.address)
    }

    /// The names that were asked for so far, one of each connection; empty for none.
    pub(crate) fn names(&self) -> Vec<String> {
        self.names.lock().expect("no panic").clone()
    }
}

async fn accept(listener: TcpListener, routes: Arc<HashMap<String, String>>, names: Arc<Mutex<Vec<String>>>) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let (routes, names) = (Arc::clone(&routes), Arc::clone(&names));
        connections.spawn(async move { drop(serve(socket, &routes, &names).await) });
    }
}

async fn serve(mut near: TcpStream, routes: &HashMap<String, String>, names: &Mutex<Vec<String>>) -> io::Result<()> {
    let (hello, name) = read_hello(&mut near).await?;
    names.lock().expect("no panic").push(name.clone());
    let Some(address) = routes.get(&name) else { return Ok(()) };
    let mut far = TcpStream::connect(address).await?;
    far.write_all(&hello).await?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await.map(drop)
}

/// Reads up to the end of the ClientHello: all bytes that were read, and the server name in it.
async fn read_hello(socket: &mut TcpStream) -> io::Result<(Vec<u8>, String)> {
    let (mut acceptor, mut read) = (Acceptor::default(), Vec::new());
    loop {
        let from = read.len();
        if socket.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        acceptor.read_tls(&mut &read[from..])?;
        match acceptor.accept() {
            Ok(Some(hello)) => return Ok((read, hello.client_hello().server_name().unwrap_or_default().to_owned())),
            Ok(None) => {}
            Err(_) => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
