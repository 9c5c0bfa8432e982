//! The REST interface on ports of its own.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::brokers::carry_out;
use super::server::BrokerServer;
use crate::broker::rest::{RestAnswer, RestRequest};
use crate::http_io::HyperIo;

/// The longest body of a request, bytes: a schema is the largest.
const BODY_BYTES_MAX: usize = 5 * 1024 * 1024;

/// Serves one connection until it ends. `own_url` is the URL of the listener it came to, `certified` the
/// common name of the client's certificate.
pub(super) async fn serve_http<S: AsyncRead + AsyncWrite + Unpin>(
    server: Arc<BrokerServer>,
    own_url: Arc<str>,
    stream: S,
    certified: Option<String>,
) {
    let service = service_fn(|request| async {
        Ok::<_, Infallible>(respond(&server, &own_url, certified.as_deref(), request).await)
    });
    // A peer that does not speak HTTP, or goes away, ends its own connection.
    let _ = http1::Builder::new().serve_connection(HyperIo(stream), service).await;
}

async fn respond(
    server: &Arc<BrokerServer>,
    own_url: &str,
    certified: Option<&str>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return response(RestAnswer::page(413, "Content Too Large"));
    };
    let body = body.to_bytes();
    let path = head.uri.path();
    let form = (head.method == Method::POST).then_some(&*body);
    if let Some(answer) = server.call(|broker| broker.oauth2(own_url, path, form)) {
        return response(answer);
    }
    let request = RestRequest {
        method: head.method.as_str(),
        path,
        query: head.uri.query().unwrap_or_default(),
        body: &body,
        authorization: head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()),
        certified,
    };
    let (answer, switch) = server.call(|broker| (broker.rest(&request), broker.take_switch()));
    response(match switch {
        None => answer,
        Some(switch) => match carry_out(server, switch).await {
            Ok(()) => answer,
            Err(reason) => RestAnswer::refused(409, reason),
        },
    })
}

fn response(answer: RestAnswer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if !answer.content_type.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    }
    for (name, value) in answer.headers {
        // A property that is no header, by its name or its value, is left out.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    response
}
