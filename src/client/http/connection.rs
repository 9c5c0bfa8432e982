//! One HTTP/1.1 connection: one GET at a time.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::LOCATION;

use crate::client::dial::Socket;
use crate::error::Error;
use crate::http_io::HyperIo;

type Driver = http1::Connection<HyperIo<Box<dyn Socket>>, Empty<Bytes>>;

/// A connection. Nothing polls it between two requests: that its peer has closed it is noticed by the next one.
pub(super) struct HttpConnection {
    sender: http1::SendRequest<Empty<Bytes>>,
    driver: Driver,
}

/// An answer, its body whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) location: Option<String>,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The connection was lost, which a request on a fresh one may not be.
    Lost(Error),
    /// The peer does not speak HTTP, or says too much.
    Wrong(Error),
}

impl HttpConnection {
    pub(super) async fn new(socket: Box<dyn Socket>) -> Result<Self, NoAnswer> {
        let (sender, driver) = http1::handshake(HyperIo(socket)).await.map_err(no_answer)?;
        Ok(Self { sender, driver })
    }

    /// Whether the next request can use it, as far as is known.
    pub(super) fn is_reusable(&self) -> bool {
        self.sender.is_ready()
    }

    /// Sends the request and reads the answer, with a body of at most `body_bytes_max`.
    pub(super) async fn get(
        &mut self,
        request: Request<Empty<Bytes>>,
        body_bytes_max: usize,
    ) -> Result<Answer, NoAnswer> {
        let Self { sender, driver } = self;
        let exchange = async {
            sender.ready().await.map_err(no_answer)?;
            let response = sender.send_request(request).await.map_err(no_answer)?;
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let status = response.status().as_u16();
            let body = read_body(response.into_body(), body_bytes_max).await?;
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

async fn read_body(body: Incoming, bytes_max: usize) -> Result<Bytes, NoAnswer> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(NoAnswer::Wrong(Error::protocol(format!("the HTTP answer is longer than {bytes_max} bytes"))))
        }
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(no_answer(*error)),
            Err(error) => Err(NoAnswer::Lost(Error::network("the HTTP answer could not be read").with_source(error))),
        },
    }
}

fn no_answer(error: hyper::Error) -> NoAnswer {
    if error.is_parse() {
        let text = "the peer does not speak HTTP: the service URL has to name a web port (8080, with https:// and TLS \
                    8443); for the port of the binary protocol (6650, with TLS 6651) it is a pulsar:// or pulsar+ssl:// \
                    URL";
        return NoAnswer::Wrong(Error::protocol(text).with_source(error));
    }
    let text = "the connection was closed without an HTTP answer; the port of the binary protocol (6650, with TLS 6651), \
                whose URL is pulsar:// or pulsar+ssl://, does so, and a port for TLS, whose URL is https://";
    NoAnswer::Lost(Error::network(text).with_source(error))
}
