//! The REST interface on ports of its own, for clients with an `http://` service URL.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
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

/// The longest body of a request, bytes: a form with credentials.
const BODY_BYTES_MAX: usize = 64 * 1024;

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
    server: &BrokerServer,
    own_url: &str,
    certified: Option<&str>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let form = match head.method {
        Method::GET => None,
        Method::POST => match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Ok(body) => Some(body.to_bytes()),
            Err(_) => return response(RestAnswer::Page(413, "Content Too Large")),
        },
        _ => return response(METHOD_NOT_ALLOWED),
    };
    if let Some(answer) = server.call(|broker| broker.oauth2(own_url, path, form.as_deref())) {
        return response(answer);
    }
    if form.is_some() {
        return response(METHOD_NOT_ALLOWED);
    }
    let authorization = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let query = head.uri.query().unwrap_or_default();
    response(server.call(|broker| broker.rest(path, query, authorization, certified)))
}

const METHOD_NOT_ALLOWED: RestAnswer = RestAnswer::Page(405, "Method Not Allowed");

fn response(answer: RestAnswer) -> Response<Full<Bytes>> {
    let (status, content_type, body) = match answer {
        RestAnswer::Json(value) => (200, "application/json", value.to_string()),
        RestAnswer::Failed(status, value) => (status, "application/json", value.to_string()),
        RestAnswer::Refused(status, reason) => (status, "application/json", json!({ "reason": reason }).to_string()),
        RestAnswer::Page(status, title) => (status, "text/html", format!("<html><h1>{title}</h1></html>\n")),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}
