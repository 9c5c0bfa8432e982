//! One HTTP/1.1 connection: one request at a time.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::LOCATION;

use crate::client::dial::Socket;
use crate::error::Error;
use crate::http_io::HyperIo;

type Driver = http1::Connection<HyperIo<Box<dyn Socket>>, Full<Bytes>>;

/// What may be wrong where a connection gives no answer, for the error.
#[derive(Debug, Clone, Copy)]
pub(in crate::client) struct Hints {
    /// What comes is not HTTP.
    pub(in crate::client) not_http: &'static str,
    /// The connection ends instead.
    pub(in crate::client) closed: &'static str,
}

/// A connection. Nothing polls it between two requests: that its peer has closed it is noticed by the next one.
pub(in crate::client) struct HttpConnection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Driver,
    hints: Hints,
}

/// An answer, its body whole.
#[derive(Debug)]
pub(in crate::client) struct Answer {
    pub(in crate::client) status: u16,
    pub(in crate::client) location: Option<String>,
    pub(in crate::client) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub(in crate::client) enum NoAnswer {
    /// The connection was lost, which a request on a fresh one may not be.
    Lost(Error),
    /// The peer does not speak HTTP, or says too much.
    Wrong(Error),
}

impl HttpConnection {
    pub(in crate::client) async fn new(socket: Box<dyn Socket>, hints: Hints) -> Result<Self, NoAnswer> {
        let (sender, driver) = http1::handshake(HyperIo(socket)).await.map_err(|error| hints.no_answer(error))?;
        Ok(Self { sender, driver, hints })
    }

    /// Whether the next request can use it, as far as is known.
    pub(super) fn is_reusable(&self) -> bool {
        self.sender.is_ready()
    }

    /// Sends the request and reads the answer, with a body of at most `body_bytes_max`.
    pub(in crate::client) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
        body_bytes_max: usize,
    ) -> Result<Answer, NoAnswer> {
        let Self { sender, driver, hints } = self;
        let no_answer = |error| hints.no_answer(error);
        let exchange = async {
            sender.ready().await.map_err(no_answer)?;
            let response = sender.send_request(request).await.map_err(no_answer)?;
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let status = response.status().as_u16();
            let body = read_body(response.into_body(), body_bytes_max, *hints).await?;
            // The peer's last bytes are read before the next request: it may have said that it closes.
            Ok(Answer { status, location, body })
        };
        drive(driver, exchange).await
    }
}

/// Polls the connection beside the exchange over it.
async fn drive<T>(driver: &mut Driver, exchange: impl Future<Output = Result<T, NoAnswer>>) -> Result<T, NoAnswer> {
    let mut exchange = pin!(exchange);
    let mut has_ended = false;
    poll_fn(|cx| {
        if !has_ended {
            // Its failure reaches the exchange as well.
            has_ended = Pin::new(&mut *driver).poll(cx).is_ready();
        }
        match exchange.as_mut().poll(cx) {
            Poll::Pending if has_ended => Poll::Ready(Err(NoAnswer::Lost(Error::network("the connection was closed")))),
            polled => polled,
        }
    })
    .await
}

async fn read_body(body: Incoming, bytes_max: usize, hints: Hints) -> Result<Bytes, NoAnswer> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(NoAnswer::Wrong(Error::protocol(format!("the HTTP answer is longer than {bytes_max} bytes"))))
        }
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(hints.no_answer(*error)),
            Err(error) => Err(NoAnswer::Lost(Error::network("the HTTP answer could not be read").with_source(error))),
        },
    }
}

impl Hints {
    fn no_answer(&self, error: hyper::Error) -> NoAnswer {
        if let Some(found) = found_by_socket(&error) {
            return if found.is_retriable() { NoAnswer::Lost(found) } else { NoAnswer::Wrong(found) };
        }
        match error.is_parse() {
            true => NoAnswer::Wrong(Error::protocol(self.not_http).with_source(error)),
            false => NoAnswer::Lost(Error::network(self.closed).with_source(error)),
        }
    }
}

/// What a socket of this crate has found out, as that its peer does not accept the client's certificate.
fn found_by_socket(error: &hyper::Error) -> Option<Error> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<std::io::Error>() {
            return error.get_ref()?.downcast_ref::<Error>().cloned();
        }
        source = cause.source();
    }
    None
}
