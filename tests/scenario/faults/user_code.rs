//! Code of the application that panics: an error of that call, tried again where an error would be.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use pulsar_native::Origin;
use pulsar_native::client::{
    AuthContext, AuthData, Authentication, CredentialsFuture, DialFuture, Dialer, Socket, Target,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::support::*;

const PANIC: &str = "this panic is part of the test";

/// Panics as long as it is armed, where it is told to.
#[derive(Clone, Default)]
struct Bomb {
    left: Arc<AtomicUsize>,
}

impl Bomb {
    fn arm(&self, times: usize) {
        self.left.store(times, Ordering::SeqCst);
    }

    fn tick(&self) {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(left.is_err(), "{PANIC}");
    }

    /// Whether it has gone off as often as it was armed for.
    fn is_spent(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

struct Panicking {
    bomb: Bomb,
    /// Before the future is there, or in it.
    at_once: bool,
}

impl Authentication for Panicking {
    fn credentials<'a>(&'a self, _: &'a AuthContext) -> CredentialsFuture<'a> {
        if self.at_once {
            self.bomb.tick();
        }
        Box::pin(async {
            self.bomb.tick();
            Ok(AuthData::none())
        })
    }
}

#[derive(Clone)]
struct PanickingNet {
    net: Net,
    dial: Bomb,
    socket: Bomb,
}

impl Dialer for PanickingNet {
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a> {
        Box::pin(async move {
            self.dial.tick();
            let inner = self.net.dial(target).await?;
            Ok(Box::new(PanickingSocket { inner, bomb: self.socket.clone() }) as Box<dyn Socket>)
        })
    }
}

struct PanickingSocket {
    inner: Box<dyn Socket>,
    bomb: Bomb,
}

impl AsyncRead for PanickingSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for PanickingSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.bomb.tick();
        Pin::new(&mut *self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.inner).poll_shutdown(cx)
    }
}

async fn broker() -> (EmbeddedBroker, Net) {
    broker_on_net(EmbeddedBroker::builder()).await
}

#[tokio::test(start_paused = true)]
async fn credentials_that_panic_are_asked_for_again() {
    for at_once in [true, false] {
        let ((broker, net), bomb) = (broker().await, Bomb::default());
        bomb.arm(3);
        let source = Panicking { bomb: bomb.clone(), at_once };
        let client = within("the connection", builder(&broker, &net).authentication(source).connect()).await;
        let stage = Stage { broker, net, client: client.expect("the fourth call does not panic") };
        let producer = stage.producer(TOPIC).await;
        bomb.arm(3);
        stage.broker.faults().disconnect_after_bytes_sent(0);
        send(&producer, "after a reconnect").await;
        assert!(bomb.is_spent(), "the reconnect asks for credentials too");
        stage.close_and_check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_that_always_panic_are_named_in_the_error() {
    let ((broker, net), bomb) = (broker().await, Bomb::default());
    bomb.arm(usize::MAX);
    let source = Panicking { bomb, at_once: false };
    let connecting = builder(&broker, &net).authentication(source).connect();
    let error = within("the operation timeout", connecting).await.expect_err("never a credential");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let text = error.to_string();
    assert!(text.contains("Authentication::credentials panicked") && text.contains(PANIC), "{text}");
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<Error>()).expect("a cause");
    assert_eq!(cause.origin(), Origin::Application);
}

#[tokio::test(start_paused = true)]
async fn dialers_and_sockets_that_panic_are_tried_again() {
    let (broker, net) = broker().await;
    let panicking = PanickingNet { net: net.clone(), dial: Bomb::default(), socket: Bomb::default() };
    panicking.dial.arm(3);
    let connecting = Client::builder(broker.url()).dialer(panicking.clone()).seed(7).connect();
    let client = within("the connection", connecting).await.expect("the fourth dial does not panic");
    let stage = Stage { broker, net, client };
    let (producer, mut consumer) = (stage.producer(TOPIC).await, stage.consumer(TOPIC).await);
    panicking.socket.arm(2);
    panicking.dial.arm(2);
    send(&producer, "first").await;
    assert_eq!(text(&mut consumer).await, "first");
    assert!(panicking.socket.is_spent() && panicking.dial.is_spent(), "both have panicked again");
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_panics_harms_no_other() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    let called = Arc::new(AtomicUsize::new(0));
    for number in 0..10 {
        let called = called.clone();
        let callback = move |_| {
            called.fetch_add(1, Ordering::SeqCst);
            assert!(number % 2 == 1, "{PANIC}");
        };
        within("capacity", producer.enqueue_with(number.to_string(), callback)).await.expect("accepted");
    }
    within("the flush", producer.flush()).await.expect("all are stored");
    until("all the calls", || called.load(Ordering::SeqCst), |called| *called == 10).await;
    stage.close_and_check().await;
}
