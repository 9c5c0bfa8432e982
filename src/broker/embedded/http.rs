//! The REST interface on a port of its own, for clients with an `http://` service URL.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::server::BrokerServer;
use super::tasks::accept;
use crate::broker::commands::RestAnswer;
use crate::http_io::HyperIo;

/// Serves connections until the broker stops.
pub(super) async fn accept_http(server: Arc<BrokerServer>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        // What those that have ended leave is freed.
        let reap = |context: &mut Context<'_>| while let Poll::Ready(Some(_)) = connections.poll_join_next(context) {};
        match accept(&server, &listener, |state| &mut state.http_acceptor, reap).await {
            None => return connections.shutdown().await,
            Some(stream) => drop(connections.spawn(serve(Arc::clone(&server), stream))),
        }
    }
}

async fn serve(server: Arc<BrokerServer>, stream: TcpStream) {
    let service = service_fn(move |request| std::future::ready(Ok::<_, Infallible>(respond(&server, &request))));
    // A peer that does not speak HTTP, or goes away, ends its own connection.
    let _ = http1::Builder::new().serve_connection(HyperIo(stream), service).await;
}

fn respond(server: &BrokerServer, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return response(RestAnswer::Page(405, "Method Not Allowed"));
    }
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    response(server.call(|broker| broker.rest(path, query, authorization)))
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
