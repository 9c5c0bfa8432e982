//! Where redirects lead, and that the credentials do not follow them everywhere.

use super::*;

const SECRET: &str = "the-secret-token";

/// Nothing of an error may show the token.
fn without_secret(error: &pulsar_native::Error) -> String {
    let text = format!("{error} {error:?}");
    assert!(!text.contains(SECRET), "{text}");
    error.to_string()
}

#[tokio::test]
async fn a_redirect_leads_to_another_broker() {
    let builder = || EmbeddedBroker::builder().token_secret_key(KEY);
    let (first, url) = start(builder()).await;
    let (second, _) = start(builder()).await;
    let (here, there) = (url, second.http_url().expect("a REST interface"));
    let web = Web::start(move |request| {
        let to = if request.path().contains("/default/moved") { &there } else { &here };
        Some(redirect(format_args!("{to}{}", request.path().replace("=false", "=true"))))
    })
    .await;
    let client = Client::builder(web.url()).authentication(Token::new(first.token("admin")));
    let client = within("the connection", client.http_redirect_hosts(["127.0.0.1"]).connect()).await.expect("a client");
    exchange(&client, "moved").await;
    exchange(&client, "stays").await;
    within("the close", client.close()).await.expect("closed");
    assert!(second.stats("moved").is_some() && second.stats("stays").is_none());
    assert!(first.stats("stays").is_some() && first.stats("moved").is_none());
}

#[tokio::test]
async fn a_redirect_to_another_origin_gets_no_credentials() {
    let thief = Web::always(page("401 Unauthorized")).await;
    let to = thief.url();
    let web = Web::start(move |request| Some(redirect(format_args!("{to}{}", request.path())))).await;
    let client = Client::builder(web.url()).authentication(Token::new(SECRET));
    let error = within("a failure", client.connect()).await.expect_err("no credentials");
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    let line = without_secret(&error);
    assert!(line.contains("http_redirect_hosts") && line.contains("127.0.0.1"), "{line}");
    assert_eq!(web.seen()[0].header("authorization"), Some("Bearer the-secret-token"));
    let stolen: Vec<_> =
        thief.seen().iter().filter(|request| request.header("authorization").is_some()).cloned().collect();
    assert!(!thief.seen().is_empty() && stolen.is_empty(), "{stolen:?}");
}

#[tokio::test]
async fn credentials_do_not_come_back_behind_a_host_that_gets_none() {
    let back = Arc::new(std::sync::Mutex::new(String::new()));
    let to = Arc::clone(&back);
    // Sends the request back to the host it came from, to a path of its own.
    let thief = Web::start(move |_| Some(redirect(format_args!("{}/chosen", to.lock().expect("no panic"))))).await;
    let away = thief.url();
    let web = Web::start(move |request| match request.path() {
        "/chosen" => Some(page("401 Unauthorized")),
        path => Some(redirect(format_args!("{away}{path}"))),
    })
    .await;
    *back.lock().expect("no panic") = web.url();
    let client = Client::builder(web.url()).authentication(Token::new(SECRET));
    let error = within("a failure", client.connect()).await.expect_err("no credentials");
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    without_secret(&error);
    let chosen: Vec<_> = web.seen().into_iter().filter(|request| request.path() == "/chosen").collect();
    assert!(!chosen.is_empty());
    assert!(chosen.iter().all(|request| request.header("authorization").is_none()), "{chosen:?}");
}

#[tokio::test]
async fn a_named_host_gets_the_credentials() {
    let other = Web::always(json("{\"partitions\":2}")).await;
    let to = other.url();
    let web = Web::start(move |request| Some(redirect(format_args!("{to}{}", request.path())))).await;
    let client = Client::builder(web.url()).authentication(Token::new(SECRET)).http_redirect_hosts(["127.0.0.1"]);
    let client = within("the connection", client.connect()).await.expect("a client");
    assert_eq!(client.partitions("t").await.expect("partitions"), 2);
    assert!(other.seen().iter().all(|request| request.header("authorization") == Some("Bearer the-secret-token")));
}

#[tokio::test]
async fn hosts_of_the_service_url_get_the_credentials() {
    let first = Web::always(json("{\"partitions\":2}")).await;
    let to = first.url();
    let second = Web::start(move |request| Some(redirect(format_args!("{to}{}", request.path())))).await;
    let hosts = format!("http://{},{}", first.address(), second.address());
    for seed in 0..4 {
        let client = Client::builder(&hosts).seed(seed).authentication(Token::new(SECRET)).connect();
        let client = within("the connection", client).await.expect("a client");
        assert_eq!(client.partitions("t").await.expect("partitions"), 2);
    }
    assert!(!second.seen().is_empty(), "one of the seeds starts there");
    assert!(first.seen().iter().all(|request| request.header("authorization").is_some()));
}

/// Takes connections, says nothing, and keeps what it hears; it ends when it is dropped.
struct Eavesdropper {
    url: String,
    heard: Arc<std::sync::Mutex<Vec<u8>>>,
    tasks: tokio::task::JoinSet<()>,
}

impl Eavesdropper {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("pulsar://{}", listener.local_addr().expect("an address"));
        let (heard, mut tasks) = (Arc::default(), tokio::task::JoinSet::new());
        tasks.spawn(listen(listener, Arc::clone(&heard)));
        Self { url, heard, tasks }
    }

    /// Everything until now, as text.
    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().expect("no panic")).into_owned()
    }
}

async fn listen(listener: tokio::net::TcpListener, heard: Arc<std::sync::Mutex<Vec<u8>>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut bytes = Vec::new();
        while tokio::io::AsyncReadExt::read_buf(&mut stream, &mut bytes).await.is_ok_and(|count| count > 0) {
            heard.lock().expect("no panic").append(&mut bytes);
        }
    }
}

/// A method that has no headers over HTTP.
struct Other;

impl Authentication for Other {
    fn credentials<'a>(&'a self, _: &'a AuthContext) -> CredentialsFuture<'a> {
        Box::pin(async { Ok(AuthData::new("other", SECRET)) })
    }
}

#[tokio::test]
async fn a_lookup_that_a_host_without_credentials_answers_is_not_believed() {
    let mut eavesdropper = Eavesdropper::start().await;
    let broker_url = eavesdropper.url.clone();
    let thief = Web::start(move |request| Some(broker(request, &broker_url))).await;
    let to = thief.url();
    let web = Web::start(move |request| Some(redirect(format_args!("{to}{}", request.path())))).await;
    let builder = || Client::builder(web.url()).operation_timeout(Duration::from_secs(2));
    for builder in [builder().authentication(Token::new(SECRET)), builder().authentication(Other)] {
        let client = within("the connection", builder.connect()).await;
        let client = client.expect("no address is taken from the answer about partitions");
        assert_eq!(client.partitions("t").await.expect("believed"), 0);
        let error = within("a failure", client.producer("t").create()).await.expect_err("not believed");
        within("the close", client.close()).await.expect("closed");
        assert_eq!(eavesdropper.heard(), "");
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
        let line = without_secret(&error);
        assert!(line.contains("http_redirect_hosts") && line.contains("127.0.0.1"), "{line}");
    }
    let lookups = thief.seen().iter().filter(|request| request.path().contains("/lookup/")).count();
    assert_eq!(lookups, 2, "one of each client: {:?}", thief.seen());
    eavesdropper.tasks.shutdown().await;
}

#[tokio::test]
async fn a_lookup_behind_a_host_without_credentials_is_not_believed() {
    let mut eavesdropper = Eavesdropper::start().await;
    let (broker_url, back) = (eavesdropper.url.clone(), Arc::new(std::sync::Mutex::new(String::new())));
    let to = Arc::clone(&back);
    // Chooses which question the trusted host answers.
    let thief =
        Web::start(move |_| Some(redirect(format_args!("{}/chosen/lookup/", to.lock().expect("no panic"))))).await;
    let away = thief.url();
    let web = Web::start(move |request| match request.path() {
        path if path.contains("/lookup/v2/") => Some(redirect(format_args!("{away}{path}"))),
        _ => Some(broker(request, &broker_url)),
    })
    .await;
    *back.lock().expect("no panic") = web.url();
    let builder = Client::builder(web.url()).operation_timeout(Duration::from_secs(2));
    let client = within("the connection", builder.authentication(Token::new(SECRET)).connect()).await;
    let client = client.expect("a client");
    let error = within("a failure", client.producer("t").create()).await.expect_err("not believed");
    assert_eq!(eavesdropper.heard(), "");
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    eavesdropper.tasks.shutdown().await;
}

#[tokio::test]
async fn without_credentials_a_lookup_is_believed_wherever_it_leads() {
    let embedded = serving(["t"]).await;
    let broker_url = embedded.url();
    let other = Web::start(move |request| Some(broker(request, &broker_url))).await;
    let to = other.url();
    let web = Web::start(move |request| Some(redirect(format_args!("{to}{}", request.path())))).await;
    let client = within("the connection", Client::builder(web.url()).connect()).await.expect("a client");
    exchange(&client, "t").await;
    within("the close", client.close()).await.expect("closed");
}

#[tokio::test]
async fn a_redirect_without_credentials_is_followed() {
    let other = Web::always(json("{\"partitions\":2}")).await;
    let to = other.url();
    let web = Web::start(move |request| Some(redirect(format_args!("{to}{}", request.path())))).await;
    let client = within("the connection", Client::builder(web.url()).connect()).await.expect("a client");
    assert_eq!(client.partitions("t").await.expect("partitions"), 2);
}

#[tokio::test]
async fn a_loop_of_redirects_ends() {
    let web = Web::start(|request| Some(redirect(request.path()))).await;
    let client = Client::builder(web.url()).operation_timeout(Duration::from_secs(1));
    let error = within("a failure", client.connect()).await.expect_err("a loop");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(error.to_string().contains("redirected more than 20 times"), "{error}");
}

#[tokio::test]
async fn a_pattern_that_is_no_host_is_refused() {
    let error = Client::builder("http://a").http_redirect_hosts(["http://b"]).build().expect_err("not a host");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("http_redirect_hosts"), "{error}");
}
