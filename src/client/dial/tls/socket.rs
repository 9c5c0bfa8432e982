//! A connection after its TLS handshake.
//!
//! With TLS 1.3 the client's side of the handshake is over before the peer has seen the client's certificate. A peer that
//! does not accept it says so by an alert, which is the first thing that is read; or it only closes the connection, and
//! what was written meanwhile turns that into a reset.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;

use super::reason;
use crate::client::dial::TlsPeer;
use crate::error::Error;

/// A connection whose errors say what a peer refuses.
pub(super) struct SecuredSocket<S> {
    stream: TlsStream<S>,
    peer: TlsPeer,
    shows_certificate: bool,
    /// Bytes came: the peer has accepted the client's certificate.
    has_read: bool,
    /// Why the client's files are not usable that have changed.
    trouble: Option<Arc<str>>,
}

impl<S> SecuredSocket<S> {
    pub(super) fn new(stream: TlsStream<S>, peer: TlsPeer, shows_certificate: bool, trouble: Option<Arc<str>>) -> Self {
        Self { stream, peer, shows_certificate, has_read: false, trouble }
    }

    /// The error with what it means, as a [`crate::Error`] inside where there is something to say.
    fn explained(&self, error: io::Error) -> io::Error {
        let alert = match error.get_ref().and_then(|cause| cause.downcast_ref()) {
            Some(rustls::Error::AlertReceived(alert)) => {
                reason::describe_refusal(*alert, self.shows_certificate, self.peer)
            }
            _ => None,
        };
        let kind = error.kind();
        if let Some(refusal) = alert {
            return io::Error::new(
                kind,
                reason::refused(&refusal, self.peer, self.trouble.as_deref()).with_source(error),
            );
        }
        if self.has_read || !self.shows_certificate {
            return error;
        }
        let unanswered = format!(
            "the connection ended before {} has said anything over TLS: it may not accept the client's certificate{}",
            self.peer,
            self.outdated()
        );
        io::Error::new(kind, Error::network(unanswered).with_source(error))
    }

    fn outdated(&self) -> String {
        reason::outdated(self.trouble.as_deref())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for SecuredSocket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let filled = buffer.filled().len();
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buffer));
        if let Err(error) = read {
            return Poll::Ready(Err(this.explained(error)));
        }
        if buffer.filled().len() > filled {
            this.has_read = true;
        } else if !this.has_read && this.shows_certificate && buffer.remaining() > 0 {
            return Poll::Ready(Err(this.explained(ErrorKind::UnexpectedEof.into())));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for SecuredSocket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        Pin::new(&mut this.stream).poll_write(cx, bytes).map_err(|error| this.explained(error))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        Pin::new(&mut this.stream).poll_write_vectored(cx, bytes).map_err(|error| this.explained(error))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        Pin::new(&mut this.stream).poll_flush(cx).map_err(|error| this.explained(error))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
