//! The source of tokens against a provider that answers as each test wants it to.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::error::{Error, ErrorKind};
use crate::machine::control::HostPort;

const SECRET: &str = "hunter2&=+";
const KEY: &str = r#"data:application/json,{"client_id":"me","client_secret":"hunter2%26=%2b"}"#;

/// An answer: a status line with headers, and a body. `None`: silence.
type Answer = Option<(String, String)>;

/// A provider on a port of its own.
struct Provider {
    address: String,
    /// Requests to the token endpoint.
    asked: Arc<AtomicUsize>,
}

impl Provider {
    /// `answer` gets the form of a request and its number among those to the token endpoint.
    async fn start(answer: impl Fn(usize, &str) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_with(move |head, number, form| match head.starts_with("POST /token ") {
            true => answer(number, form),
            false => json(200, &format!(r#"{{"token_endpoint":"http://{}/token"}}"#, host_of(head))),
        })
        .await
    }

    /// `answer` gets the head of each request too.
    async fn start_with(answer: impl Fn(&str, usize, &str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, answer) = (asked.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (count, answer) = (count.clone(), answer.clone());
                tokio::spawn(serve(socket, count, move |head, number, form| answer(head, number, form)));
            }
        });
        Self { address, asked }
    }

    fn source(&self) -> OAuth2 {
        OAuth2::client_credentials(format!("http://{}", self.address), KEY)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn serve(mut socket: TcpStream, count: Arc<AtomicUsize>, answer: impl Fn(&str, usize, &str) -> Answer) {
    let mut request = Vec::new();
    let (head, form) = loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                break (head.to_owned(), body.to_owned());
            }
        }
        if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let number = if head.starts_with("POST") { count.fetch_add(1, Ordering::SeqCst) } else { 0 };
    match answer(&head, number, &form) {
        Some((head, body)) => {
            let text = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            let _ = socket.write_all(text.as_bytes()).await;
        }
        None => std::future::pending().await,
    }
}

fn host_of(head: &str) -> &str {
    head.lines().find_map(|line| line.strip_prefix("host: ")).expect("a Host header")
}

fn json(status: u16, body: &str) -> Answer {
    Some((format!("{status} X\r\nContent-Type: application/json"), body.to_owned()))
}

/// The token `t<number>` for so many seconds.
fn token(number: usize, seconds: u32) -> Answer {
    json(200, &format!(r#"{{"access_token":"t{number}","token_type":"Bearer","expires_in":{seconds}}}"#))
}

fn dial() -> AuthContext {
    AuthContext::new(HostPort { host: "broker".into(), port: 6650 })
}

/// The broker's challenge on a connection that has shown `shown`.
fn challenge(shown: &str) -> AuthContext {
    dial().with_challenge(AuthData::new("token", "PulsarAuthRefresh")).with_outdated(AuthData::token(shown))
}

async fn get(source: &OAuth2, context: &AuthContext) -> Result<String> {
    let got = tokio::time::timeout(Duration::from_secs(20), source.credentials(context)).await.expect("in time")?;
    assert_eq!(got.method, "token");
    Ok(String::from_utf8(got.data.to_vec()).expect("UTF-8"))
}

async fn get_many(source: &OAuth2, context: &AuthContext) -> Vec<Result<String>> {
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (source, context) = (source.clone(), context.clone());
        running.spawn(async move { get(&source, &context).await });
    }
    running.join_all().await
}

async fn refusal(source: &OAuth2) -> Error {
    let error = get(source, &dial()).await.expect_err("no token");
    let text = format!("{error} {error:?} {source:?}");
    assert!(!text.contains("hunter2") && !error.to_string().contains('\n'), "{text}");
    error
}

#[tokio::test]
async fn the_form_has_what_was_set_and_nothing_blank() {
    let forms = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = forms.clone();
    let provider = Provider::start(move |number, form| {
        seen.lock().expect("no panic").push(form.to_owned());
        token(number, 3600)
    })
    .await;
    get(&provider.source().audience("urn:a b").scope("x y"), &dial()).await.expect("a token");
    get(&provider.source().audience(" "), &dial()).await.expect("a token");
    let key = "grant_type=client_credentials&client_id=me&client_secret=hunter2%26%3D%2B";
    let certified = OAuth2::tls_client_auth(format!("http://{}", provider.address), "c.pem", "k.pem");
    get(&certified.clone(), &dial()).await.expect("a token");
    get(&certified.client_id("me"), &dial()).await.expect("a token");
    let by_certificate = |id| format!("grant_type=client_credentials&client_id={id}");
    let expected = [
        format!("{key}&audience=urn%3Aa+b&scope=x+y"),
        key.to_owned(),
        by_certificate("pulsar-client"),
        by_certificate("me"),
    ];
    assert_eq!(*forms.lock().expect("no panic"), expected);
}

#[tokio::test]
async fn connections_that_come_at_once_share_one_request() {
    let provider = Provider::start(|number, _| token(number, 3600)).await;
    let source = provider.source();
    for got in get_many(&source, &dial()).await {
        assert_eq!(got.expect("a token"), "t0");
    }
    assert_eq!(provider.asked(), 1);
    assert_eq!(get(&source, &dial()).await.expect("a token"), "t0");
    // All of them are challenged for the token that has expired: the first fetches, the others have its token.
    for got in get_many(&source, &challenge("t0")).await {
        assert_eq!(got.expect("a token"), "t1");
    }
    assert_eq!(provider.asked(), 2);
    assert_eq!(get(&source, &challenge("t1")).await.expect("a token"), "t2");
}

#[tokio::test]
async fn a_token_that_has_expired_is_not_given() {
    let provider = Provider::start(|number, _| token(number, 0)).await;
    let source = provider.source();
    assert_eq!(get(&source, &dial()).await.expect("a token"), "t0");
    assert_eq!(get(&source, &dial()).await.expect("a token"), "t1");
}

#[tokio::test]
async fn a_refusal_is_final_and_told_to_all_that_waited() {
    let provider = Provider::start(|_, _| {
        let body = format!(r#"{{"error":"invalid_client","error_description":"{SECRET} is wrong"}}"#);
        json(401, &body)
    })
    .await;
    let source = provider.source().audience("urn:pulsar");
    let error = refusal(&source).await;
    assert_eq!((error.kind(), error.is_retriable()), (ErrorKind::Authentication, false), "{error}");
    let expected = format!(
        "the identity provider at http://{}/token refused a token for the audience `urn:pulsar` to the client `me`: \
         invalid_client: <hidden> is wrong (status 401)",
        provider.address
    );
    assert_eq!(error.to_string(), expected);
    for got in get_many(&source, &dial()).await {
        assert_eq!(got.expect_err("refused").to_string(), expected);
    }
    assert!(provider.asked() < 10, "{} requests for one answer", provider.asked());
}

#[tokio::test]
async fn a_provider_that_is_busy_is_asked_again_for_a_challenge() {
    let provider = Provider::start(|number, _| if number < 2 { json(503, "{}") } else { token(number, 3600) }).await;
    let source = provider.source();
    let error = refusal(&source).await;
    assert_eq!((error.kind(), error.is_retriable()), (ErrorKind::Connection, true), "{error}");
    assert!(error.to_string().ends_with("cannot give a token to the client `me` at the moment: status 503"), "{error}");
    // A broker that challenges closes the connection unless there is an answer.
    assert_eq!(get(&source, &challenge("old")).await.expect("the third answer"), "t2");
}

#[tokio::test]
async fn while_a_token_is_good_a_refresh_that_fails_does_no_harm() {
    let provider = Provider::start(|number, _| if number == 1 { json(503, "") } else { token(number, 3600) }).await;
    // The time for another begins with the token.
    let source = provider.source().early_refresh(f64::MIN_POSITIVE);
    assert_eq!(get(&source, &dial()).await.expect("a token"), "t0");
    assert_eq!(get(&source, &dial()).await.expect("the old one"), "t0");
    assert_eq!(provider.asked(), 2);
    // The next refresh waits for a while.
    assert_eq!(get(&source, &dial()).await.expect("the old one"), "t0");
    assert_eq!(provider.asked(), 2);
    // A broker that does not take it counts all the same.
    assert_eq!(get(&source, &challenge("t0")).await.expect("a new one"), "t2");
    assert_eq!(get(&source, &dial()).await.expect("a refresh"), "t3");
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_the_request_to_the_next() {
    let provider = Provider::start(|number, _| if number == 0 { None } else { token(number, 3600) }).await;
    let source = provider.source();
    let context = dial();
    let mut first = source.credentials(&context);
    while provider.asked() == 0 {
        let _ = tokio::time::timeout(Duration::from_millis(1), &mut first).await;
    }
    let other = source.clone();
    let second = tokio::spawn(async move { get(&other, &dial()).await });
    tokio::task::yield_now().await;
    drop(first);
    assert_eq!(second.await.expect("no panic").expect("a token"), "t1");
}

#[tokio::test]
async fn the_secret_is_not_redirected_and_the_document_is() {
    let provider = Provider::start_with(|head, number, _| match head.split(' ').nth(1) {
        Some("/.well-known/openid-configuration") => Some(("302 X\r\nLocation: /elsewhere".to_owned(), String::new())),
        Some("/elsewhere") => json(200, &format!(r#"{{"token_endpoint":"http://{}/a"}}"#, host_of(head))),
        Some("/a") => Some(("307 X\r\nLocation: /b".to_owned(), String::new())),
        _ => token(number, 3600),
    })
    .await;
    let error = refusal(&provider.source()).await;
    assert_eq!((error.kind(), error.is_retriable()), (ErrorKind::Authentication, false), "{error}");
    assert!(error.to_string().contains("/a: it redirects elsewhere"), "{error}");
    assert_eq!(provider.asked(), 1);
}

#[tokio::test]
async fn a_circle_of_redirects_ends() {
    let provider = Provider::start_with(|_, _, _| Some(("301 X\r\nLocation: /again".to_owned(), String::new()))).await;
    let error = refusal(&provider.source()).await;
    assert!(error.to_string().contains("redirects more than 5 times"), "{error}");
}

#[tokio::test]
async fn what_is_no_provider_is_one_line() {
    let huge = Provider::start_with(|_, _, _| json(200, &" ".repeat(300_000))).await;
    let page = Provider::start_with(|_, _, _| json(200, "<html>hunter2</html>")).await;
    let silent = Provider::start_with(|_, _, _| None).await;
    let missing = Provider::start_with(|_, _, _| json(404, "hunter2")).await;
    for (source, said, is_retriable) in [
        (huge.source(), "longer than 262144 bytes", false),
        (page.source(), "its discovery document is not JSON", false),
        (silent.source().read_timeout(Duration::from_millis(50)), "no answer within 50ms", true),
        (missing.source(), "refused its discovery document: status 404", false),
        (OAuth2::client_credentials("http://127.0.0.1:1", KEY), "cannot connect to 127.0.0.1:1", true),
    ] {
        let error = refusal(&source).await;
        assert!(error.to_string().contains(said), "{said}: {error}");
        assert!(error.to_string().contains("identity provider at http://127.0.0.1:"), "{error}");
        assert_eq!(error.is_retriable(), is_retriable, "{error}");
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_named() {
    let source = || OAuth2::client_credentials("http://127.0.0.1:1", KEY);
    for (source, said) in [
        (source().early_refresh(0.0), "early_refresh"),
        (source().early_refresh(f64::NAN), "early_refresh"),
        (source().connect_timeout(Duration::ZERO), "connect_timeout"),
        (source().read_timeout(Duration::ZERO), "read_timeout"),
        (source().well_known_metadata_path("/x"), "/.well-known/"),
        (OAuth2::client_credentials("https://me:hunter2@a", KEY), "issuer URL `...@a`"),
    ] {
        let error = refusal(&source).await;
        assert_eq!((error.kind(), error.is_retriable()), (ErrorKind::InvalidArgument, false), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}
