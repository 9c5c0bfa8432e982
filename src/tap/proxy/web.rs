//! HTTP: lookups, whose answers name brokers, and whatever else clients and tools ask the web port.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HOST, HeaderValue, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;

use super::TapShared;
use super::rewrite::NamedBroker;
use super::serve::{dial, rewrite};
use crate::http_io::HyperIo;
use crate::machine::control::HostPort;

/// The longest answer to a lookup, bytes.
const LOOKUP_BYTES_MAX: usize = 1 << 20;

/// A request to it is a lookup.
const LOOKUP_PATHS: [&str; 2] = ["/lookup/v2/topic/", "/lookup/v2/destination/"];

type Body = Either<Full<Bytes>, Incoming>;

/// Serves one connection until it ends.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<TapShared>,
    route: usize,
    stream: S,
    is_tls: bool,
) {
    let upstream = shared.routes.upstream(route);
    let (same, other) = if is_tls { (upstream.web_tls, upstream.web) } else { (upstream.web, upstream.web_tls) };
    let is_other = same.is_none();
    let broker = same.or(other).map(|address| WebBroker { address, tls: is_tls != is_other, sender: Mutex::new(None) });
    let service = service_fn(|request| async {
        let Some(broker) = &broker else {
            return Ok(refused("the tap knows no web address of this broker: give one by --to"));
        };
        Ok::<_, Infallible>(broker.ask(shared, request).await)
    });
    // A peer that goes away ends its own connection.
    let _ = http1::Builder::new().serve_connection(HyperIo(stream), service).await;
}

fn refused(text: &str) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(format!("{text}\n").into())));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}

struct WebBroker {
    address: HostPort,
    tls: bool,
    sender: Mutex<Option<SendRequest<Incoming>>>,
}

impl WebBroker {
    async fn ask(&self, shared: &Arc<TapShared>, mut request: Request<Incoming>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let is_lookup = LOOKUP_PATHS.iter().any(|lookup| path.contains(lookup));
        if let Ok(host) = HeaderValue::try_from(self.address.to_string()) {
            request.headers_mut().insert(HOST, host);
        }
        request.headers_mut().remove(ACCEPT_ENCODING);
        let began = Instant::now();
        let response = match self.send(shared, request).await {
            Ok(response) => response,
            Err(error) => return refused(&format!("{} does not answer: {error}", self.address)),
        };
        let (status, took) = (response.status().as_u16(), began.elapsed().as_secs_f64() * 1e3);
        shared.queue.note(format!("HTTP {method} {path} of {}: {status} after {took:.3} ms", self.address));
        rewrite_response(shared, response, is_lookup).await
    }

    async fn send(
        &self,
        shared: &TapShared,
        request: Request<Incoming>,
    ) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
        let mut kept = self.sender.lock().await;
        let mut sender = match kept.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => {
                let (socket, _) = dial(shared, &self.address, self.tls).await?;
                let (sender, connection) = hyper::client::conn::http1::handshake(HyperIo(socket)).await?;
                tokio::spawn(connection);
                sender
            }
        };
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        *kept = Some(sender);
        Ok(response)
    }
}

async fn rewrite_response(shared: &Arc<TapShared>, response: Response<Incoming>, is_lookup: bool) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let location = head.headers.get(LOCATION).and_then(|value| value.to_str().ok());
    if let Some(instead) = location.and_then(|location| rewrite_location(shared, location)) {
        head.headers.insert(LOCATION, instead);
    }
    if !is_lookup || head.status != StatusCode::OK {
        return Response::from_parts(head, Either::Right(body));
    }
    let Ok(body) = Limited::new(body, LOOKUP_BYTES_MAX).collect().await else {
        return refused("the answer to a lookup was cut off or is too long");
    };
    let body = body.to_bytes();
    let body = rewrite_lookup(shared, &body).unwrap_or(body);
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, Either::Left(Full::new(body)))
}

/// A redirect to the web port of another broker.
fn rewrite_location(shared: &Arc<TapShared>, location: &str) -> Option<HeaderValue> {
    let uri: Uri = location.parse().ok()?;
    let origin = format!("{}://{}", uri.scheme_str()?, uri.authority()?);
    let is_tls = uri.scheme_str() == Some("https");
    let named = match is_tls {
        true => NamedBroker { web_tls: Some(origin), ..NamedBroker::default() },
        false => NamedBroker { web: Some(origin), ..NamedBroker::default() },
    };
    let instead = rewrite(shared, &named);
    let origin = if is_tls { instead.web_tls } else { instead.web }?;
    HeaderValue::try_from(format!("{origin}{}", uri.path_and_query().map_or("", |path| path.as_str()))).ok()
}

/// `LookupData` with other addresses; `None` if it cannot be read, or names no broker to rewrite.
fn rewrite_lookup(shared: &Arc<TapShared>, body: &[u8]) -> Option<Bytes> {
    let mut answer: Value = serde_json::from_slice(body).ok()?;
    let text = |names: [&str; 2]| {
        let found = names.iter().filter_map(|name| answer.get(*name)?.as_str()).find(|url| !url.is_empty());
        found.map(str::to_owned)
    };
    let named = NamedBroker {
        plain: text(["brokerUrl", "nativeUrl"]),
        tls: text(["brokerUrlTls", "brokerUrlSsl"]),
        web: text(["httpUrl", "httpUrl"]),
        web_tls: text(["httpUrlTls", "httpUrlTls"]),
    };
    let instead = rewrite(shared, &named);
    if instead == named {
        return None;
    }
    let fields = [
        (["brokerUrl", "nativeUrl"], instead.plain),
        (["brokerUrlTls", "brokerUrlSsl"], instead.tls),
        (["httpUrl", "httpUrl"], instead.web),
        (["httpUrlTls", "httpUrlTls"], instead.web_tls),
    ];
    for (names, url) in fields {
        let Some(url) = url else { continue };
        for name in names {
            if let Some(field) = answer.get_mut(name).filter(|field| field.as_str().is_some_and(|url| !url.is_empty()))
            {
                *field = Value::String(url.clone());
            }
        }
    }
    Some(answer.to_string().into())
}
