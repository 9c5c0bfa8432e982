//! The requests of the page.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, SET_COOKIE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Served;
use super::assets::asset;
use super::explained::explained;
use super::guard::{HEADERS, Refused};
use super::source::Source;
use super::view::Page;
use crate::http_io::HyperIo;

/// Connections at a time; browsers have six.
const CONNECTIONS_MAX: usize = 64;

/// How long a question for news waits for some.
const NEWS_WAIT: Duration = Duration::from_secs(20);

/// The least time before an answer to such a question: ten pictures a second.
const NEWS_PAUSE: Duration = Duration::from_millis(100);

/// Where the files are that the book names.
const REPOSITORY: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/");

/// Rows of a page that does not say how many.
const ROWS: u32 = 100;

/// Accepts connections for ever.
pub(super) async fn serve(listener: TcpListener, served: Arc<Served>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, perhaps: others may end meanwhile.
            tokio::time::sleep(NEWS_PAUSE).await;
            continue;
        };
        let served = Arc::clone(&served);
        tokio::spawn(async move {
            let service = service_fn(|request| async { Ok::<_, Infallible>(respond(&served, request).await) });
            let _ = http1::Builder::new().serve_connection(HyperIo(stream), service).await;
            drop(permit);
        });
    }
}

/// An answer without the headers that all have.
struct Answer {
    kind: &'static str,
    body: Bytes,
    cookie: Option<String>,
}

impl Answer {
    fn json(value: &Value) -> Self {
        Self { kind: "application/json", body: Bytes::from(value.to_string()), cookie: None }
    }
}

async fn respond(served: &Arc<Served>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, answer) = match route(served, request).await {
        Ok(answer) => (200, answer),
        Err(Refused(status, text)) => {
            let body = Bytes::from_static(text.as_bytes());
            (status, Answer { kind: "text/plain; charset=utf-8", body, cookie: None })
        }
    };
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.kind));
    if let Some(cookie) = answer.cookie.and_then(|cookie| HeaderValue::try_from(cookie).ok()) {
        headers.insert(SET_COOKIE, cookie);
    }
    response
}

async fn route(served: &Arc<Served>, request: Request<Incoming>) -> Result<Answer, Refused> {
    let guard = &served.guard;
    guard.check_site(request.headers())?;
    let path = request.uri().path().to_owned();
    let query = Query(request.uri().query().unwrap_or_default().to_owned());
    let is_get = request.method() == Method::GET;
    let mut cookie = None;
    if is_get && path == "/" && guard.has_token(&query.0) {
        cookie = Some(guard.cookie());
    } else {
        guard.check_person(request.headers())?;
    }
    if request.method() == Method::POST && path == "/api/open" {
        return upload(served, request.into_body()).await;
    }
    if !is_get {
        return Err(Refused(405, "Only GET."));
    }
    if let Some((kind, text)) = asset(&path) {
        return Ok(Answer { kind, body: Bytes::from_static(text.as_bytes()), cookie });
    }
    let source = served.source(query.get("source").as_deref());
    if path == "/api/state" {
        return Ok(Answer::json(&news(served, &source, &query).await));
    }
    // A new filter looks at millions of observations, and all of them read files.
    let answer = tokio::task::spawn_blocking(move || source.with(|store| ask(store, &path, &query))).await;
    match answer {
        Ok(Ok(Some(answer))) => Ok(Answer::json(&answer)),
        Ok(Ok(None)) => Err(Refused(404, "There is nothing here.")),
        _ => Err(Refused(500, "The temporary file cannot be read.")),
    }
}

/// `since` is what the answer before had as `news`.
async fn news(served: &Served, source: &Source, query: &Query) -> Value {
    let since = query.number("since");
    if let Some(since) = since {
        let mut news = source.news();
        let _ = tokio::time::timeout(NEWS_WAIT, news.wait_for(|news| *news != since)).await;
        tokio::time::sleep(NEWS_PAUSE).await;
    }
    let mut state = source.state();
    state["title"] = json!(served.title);
    state["repository"] = json!(REPOSITORY);
    state
}

fn ask(store: &mut super::store::Store, path: &str, query: &Query) -> io::Result<Option<Value>> {
    let n = query.number("n").and_then(|n| u32::try_from(n).ok());
    match (path, n) {
        ("/api/rows", _) => store.page(&query.page()).map(Some),
        ("/api/ledgers", _) => Ok(Some(store.ledgers())),
        ("/api/life", Some(n)) => store.life(n).map(Some),
        ("/api/frame", Some(n)) => {
            let Some(record) = store.record(n)? else { return Ok(None) };
            let shows_payload = query.get("payload").is_some();
            let frame = store.bytes(n)?.map(|bytes| explained(bytes, shows_payload));
            Ok(Some(json!({ "record": record, "frame": frame })))
        }
        _ => Ok(None),
    }
}

/// The part of a URL behind `?`.
struct Query(String);

impl Query {
    fn get(&self, name: &str) -> Option<String> {
        let mut pairs = self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| unescaped(value))
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    fn page(&self) -> Page {
        let small = |name| self.number(name).and_then(|number| u32::try_from(number).ok());
        Page {
            words: self.get("words").unwrap_or_default(),
            errors: self.get("errors").is_some(),
            span: self.number("since").zip(self.number("until")),
            fold: self.get("unfolded").is_none(),
            from: small("from").unwrap_or(0),
            count: small("count").unwrap_or(ROWS),
            run: small("first").zip(small("last")),
            at: small("at"),
        }
    }
}

/// Percent signs, and `+` for a space.
fn unescaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let digit = |at: usize| behind.get(at).and_then(|digit| (*digit as char).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = behind.get(2..).unwrap_or_default();
                continue;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(*first),
        }
        rest = behind;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A recording from the page. It is read as it comes, and shown as it is read.
async fn upload(served: &Arc<Served>, mut body: Incoming) -> Result<Answer, Refused> {
    let Ok(mut opening) = served.open(body.size_hint().exact()) else {
        return Err(Refused(500, "No temporary file can be made."));
    };
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { break };
        let Ok(bytes) = frame.into_data() else { continue };
        if !opening.push(bytes).await {
            break;
        }
    }
    opening.end().await;
    Ok(Answer::json(&json!({})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_browsers_write_them() {
        let query = Query("words=a+b%2Fc%c3%A9&errors&from=7&since=1&until=2&x=%zz%4".to_owned());
        let page = query.page();
        assert_eq!((page.words.as_str(), page.errors, page.from, page.span), ("a b/cé", true, 7, Some((1, 2))));
        assert_eq!(query.get("x").as_deref(), Some("%zz%4"));
        assert_eq!(query.get("y"), None);
    }
}
