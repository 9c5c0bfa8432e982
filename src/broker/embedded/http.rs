//! The REST interface on ports of its own, for clients with an `http://` service URL.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};

use super::server::BrokerServer;
use crate::broker::commands::RestAnswer;
use crate::http_io::HyperIo;

/// Serves one connection until it ends.
/// `certified` is the common name of the client's certificate.
pub(super) async fn serve_http<S: AsyncRead + AsyncWrite + Unpin>(
    server: Arc<BrokerServer>,
    stream: S,
    certified: Option<String>,
) {
    let service = service_fn(move |request| {
        std::future::ready(Ok::<_, Infallible>(respond(&server, &request, certified.as_deref())))
    });
    // A peer that does not speak HTTP, or goes away, ends its own connection.
    let _ = http1::Builder::new().serve_connection(HyperIo(stream), service).await;
}

fn respond(server: &BrokerServer, request: &Request<Incoming>, certified: Option<&str>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return response(RestAnswer::Page(405, "Method Not Allowed"));
    }
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    response(server.call(|broker| broker.rest(path, query, authorization, certified)))
}

fn response(answer: RestAnswer) -> Response<Full<Bytes>> {
    let (status, content_type, body) = match answer {
        RestAnswer::Json(value) => (200, "application/json", value.to_string()),
        RestAnswer::Refused(status, reason) => (status, "application/json", json!({ "reason": reason }).to_string()),
        RestAnswer::Page(status, title) => (status, "text/html", format!("<html><h1>{title}</h1></html>\n")),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}
