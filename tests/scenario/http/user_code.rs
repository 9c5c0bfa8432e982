//! A custom dialer whose sockets panic: the request goes over another connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use pulsar_native::client::{DialFuture, Dialer, Socket, Target};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::*;

const PANIC: &str = "this panic is part of the test";

/// TCP, of which the next `left` writes panic.
#[derive(Clone, Default)]
struct PanickingTcp {
    left: Arc<AtomicUsize>,
}

impl Dialer for PanickingTcp {
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a> {
        Box::pin(async move {
            let inner = TcpStream::connect(target.address.to_string()).await?;
            Ok(Box::new(PanickingSocket { inner, left: Arc::clone(&self.left) }) as Box<dyn Socket>)
        })
    }
}

struct PanickingSocket {
    inner: TcpStream,
    left: Arc<AtomicUsize>,
}

impl AsyncRead for PanickingSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for PanickingSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(left.is_err(), "{PANIC}");
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn sockets_that_panic_are_replaced() {
    let web = Web::always(json("{\"partitions\":7}")).await;
    let tcp = PanickingTcp::default();
    // In the first request of a connection.
    tcp.left.store(2, Ordering::SeqCst);
    let builder = Client::builder(web.url()).dialer(tcp.clone()).operation_timeout(Duration::from_secs(5));
    let client = within("the connection", builder.connect()).await.expect("the third socket does not panic");
    // On the connection that was kept; there and on a new one, which ends the connection to the host.
    for panics in [1, 2] {
        tcp.left.store(panics, Ordering::SeqCst);
        let partitions = within("an answer", client.partitions("t")).await.expect("the next socket does not panic");
        assert_eq!((partitions, tcp.left.load(Ordering::SeqCst)), (7, 0));
    }
    within("the close", client.close()).await.expect("closed");
}

#[tokio::test]
async fn a_socket_that_always_panics_is_named_in_the_error() {
    let web = Web::always(json("{\"partitions\":7}")).await;
    let tcp = PanickingTcp::default();
    tcp.left.store(usize::MAX, Ordering::SeqCst);
    let builder = Client::builder(web.url()).dialer(tcp).operation_timeout(Duration::from_secs(1));
    let error = within("the operation timeout", builder.connect()).await.expect_err("no request is written");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let text = error.to_string();
    assert!(text.contains("a socket of the Dialer panicked") && text.contains(PANIC), "{text}");
}
