//! Credentials at work: passwords, tokens that expire under load, a refresh that is refused, clocks that differ.

use pulsar_native::client::{AuthContext, AuthData, Authentication, CredentialsFuture};
use pulsar_native::{Basic, Error};
use tokio::sync::watch;

use super::target::{Fut, Role};
use super::*;
use crate::common::within::messages_meanwhile;

/// The password of each role, which is a user of the same name.
pub fn password(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::Admin => ("admin", "open sesame"),
        Role::Nobody => ("nobody", "baba"),
    }
}

pub async fn user_and_password(target: &Target) {
    let as_user = |(user, password)| target.builder_without_token().authentication(Basic::new(user, password));
    let client = within("the connection", as_user(password(Role::Admin)).connect()).await.expect("a client");
    let topic = target.topic("password");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    send(&created(client.producer(&topic)).await, "x").await;
    assert_eq!(receive(&mut consumer).await.to_string_lossy(), "x");
    let client = within("the connection", as_user(password(Role::Nobody)).connect()).await.expect("a client");
    let error = within("the refusal", client.producer(&topic).create()).await.expect_err("no rights");
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
    for credentials in [("admin", "a wrong word"), ("stranger", "a wrong word")] {
        let error = within("the refusal", as_user(credentials).connect()).await.expect_err("not let in");
        assert_one_line(target, &error);
        assert!(!format!("{error:?}").contains("wrong word"), "keeps the password to itself: {error:?}");
    }
}

/// A refusal of credentials: it names the broker, says what to look at, and is one line.
fn assert_one_line(target: &Target, error: &Error) {
    let text = error.to_string();
    println!("{text}");
    assert_eq!(error.kind(), ErrorKind::Authentication, "{text}");
    for part in [&*target.address(), "by its clock", "its log says which"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\n'), "{text}");
}

pub async fn a_clock_that_is_wrong(target: &Target) {
    const AHEAD: Duration = Duration::from_secs(3600);
    // Issued by a machine whose clock is ahead of the broker's, and long ago.
    for token in [target.cluster().token_not_before(AHEAD).await, target.cluster().expired_token()] {
        let builder = target.builder_without_token().authentication(Token::new(&token));
        let error = within("the refusal", builder.connect()).await.expect_err("not valid by the broker's clock");
        assert_one_line(target, &error);
        assert!(!format!("{error:?}").contains(&token), "keeps the token to itself: {error:?}");
    }
}

/// When a source was asked, and by which challenge.
type Questions = Vec<(Instant, Option<AuthData>)>;

/// A source of tokens that knows when it was asked, and why.
#[derive(Clone)]
struct Source {
    asked: Arc<Mutex<Questions>>,
    /// The token for this question.
    token: Arc<dyn Fn(usize) -> Fut<'static, String> + Send + Sync>,
}

impl Source {
    fn new(token: impl Fn(usize) -> Fut<'static, String> + Send + Sync + 'static) -> Self {
        Self { asked: Arc::default(), token: Arc::new(token) }
    }

    fn asked(&self) -> Questions {
        self.asked.lock().expect("unpoisoned").clone()
    }
}

impl Authentication for Source {
    fn credentials<'a>(&'a self, context: &'a AuthContext) -> CredentialsFuture<'a> {
        Box::pin(async {
            let number = {
                let mut asked = self.asked.lock().expect("unpoisoned");
                asked.push((Instant::now(), context.challenge().cloned()));
                asked.len() - 1
            };
            Ok(AuthData::token((self.token)(number).await))
        })
    }
}

/// How long after a question for credentials a gap between confirmations counts as one of the refresh.
const REFRESH: Duration = Duration::from_millis(600);
/// A gap that a busy machine makes by itself.
const NOISE: Duration = Duration::from_millis(200);
/// Three tokens expire while messages flow: one connection, nothing lost, no token more than that, and no gap to be seen.
pub async fn three_expiries_under_load(target: &Target) {
    let cluster = target.shared_cluster();
    let moved = watch::Sender::new(0);
    let sent = moved.clone();
    let source = Source::new(move |number| {
        let (cluster, moved) = (cluster.clone(), moved.clone());
        Box::pin(async move {
            if number > 0 {
                messages_meanwhile(&moved).await;
            }
            if number < 3 { cluster.token_expiring(Duration::from_secs(1)).await } else { cluster.token(Role::Admin) }
        })
    });
    let builder = target.builder_without_token().authentication(source.clone());
    let client = within("the connection", builder.connect()).await.expect("a client");
    let topic = target.topic("expiries");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    let producer = created(client.producer(&topic)).await;
    let (started, mut confirmed, mut number) = (Instant::now(), vec![Instant::now()], 0);
    let is_over = || source.asked().get(3).is_some_and(|(at, _)| at.elapsed() > REFRESH);
    while !is_over() {
        assert!(started.elapsed() < wait::WAIT_TIMEOUT, "asked for {} tokens only", source.asked().len());
        send(&producer, number.to_string()).await;
        confirmed.push(Instant::now());
        let message = receive(&mut consumer).await;
        assert_eq!(message.to_string_lossy(), number.to_string(), "nothing lost, nothing twice");
        consumer.ack(&message).expect("acknowledged");
        number += 1;
        sent.send_replace(number);
    }
    let asked = source.asked();
    let challenges: Vec<_> = asked.iter().map(|(_, challenge)| challenge.is_some()).collect();
    assert_eq!(challenges, [false, true, true, true], "one connection: a token for it, and one for each that expired");
    let (mut refresh, mut control) = (Duration::ZERO, Duration::ZERO);
    for gap in confirmed.windows(2) {
        let is_refresh = |(at, _): &(Instant, _)| gap[1] >= *at && gap[0] < *at + REFRESH;
        let longest = if asked[1..].iter().any(is_refresh) { &mut refresh } else { &mut control };
        *longest = (*longest).max(gap[1] - gap[0]);
    }
    println!("{number} messages; longest gap {refresh:?} around a refresh, {control:?} otherwise");
    assert!(refresh <= (control * 2).max(NOISE), "{refresh:?} around a refresh, {control:?} otherwise");
    within("the close", client.close()).await.expect("closed");
}

/// The broker refuses the answer to its challenge: the connection ends, the state says why, and it comes back with the
/// first good token.
pub async fn a_refused_refresh(target: &Target) {
    let (cluster, is_sealed) = (target.shared_cluster(), Arc::new(AtomicUsize::new(1)));
    let sealed = is_sealed.clone();
    let source = Source::new(move |number| {
        let (cluster, is_sealed) = (cluster.clone(), sealed.load(Ordering::SeqCst) == 1);
        Box::pin(async move {
            match number {
                0 => cluster.token_expiring(Duration::from_secs(1)).await,
                _ if is_sealed => "not.a.token".to_owned(),
                _ => cluster.token(Role::Admin),
            }
        })
    });
    let builder = target.builder_without_token().authentication(source.clone());
    let client = within("the connection", builder.connect()).await.expect("a client");
    let topic = target.topic("refused-refresh");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    let producer = created(client.producer(&topic)).await;
    let is_refused =
        |error: &Option<Error>| error.as_ref().is_some_and(|error| error.kind() == ErrorKind::Authentication);
    let error = until("the refusal", async || producer.connection_error(), is_refused).await.expect("an error");
    assert!(error.to_string().contains("by its clock"), "says why: {error}");
    until("the refusal", async || consumer.connection_error(), is_refused).await;
    assert!(source.asked().iter().any(|(_, challenge)| challenge.is_some()), "the broker has asked");
    let held = within("capacity", producer.enqueue("held")).await.expect("accepted");
    is_sealed.store(0, Ordering::SeqCst);
    within("a receipt", held).await.expect("sent with a good token");
    assert_eq!(receive(&mut consumer).await.to_string_lossy(), "held");
    within("the close", client.close()).await.expect("closed");
}
