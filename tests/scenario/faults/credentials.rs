//! Tokens: fetched afresh when the broker asks, once more when one is refused, and then it is the end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pulsar_native::Error;
use pulsar_native::client::{AuthContext, AuthData, Authentication, CredentialsFuture};

use super::support::*;

const KEY: &str = "a secret of at least 32 bytes, for HS256";

/// A source of tokens that counts how often it is asked, and may lie.
#[derive(Clone, Default)]
struct Vault {
    asked: Arc<AtomicUsize>,
    /// From this question on, the token is a bad one.
    bad_from: Arc<AtomicUsize>,
}

impl Vault {
    fn new() -> Self {
        let vault = Self::default();
        vault.bad_from.store(usize::MAX, Ordering::SeqCst);
        vault
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A stage whose client asks this vault.
    async fn stage(&self) -> Stage {
        let (broker, net) = broker_on_net(EmbeddedBroker::builder().token_secret_key(KEY)).await;
        let (good, vault) = (broker.token("admin"), self.clone());
        let supplier = Token::from_fn(move || {
            let number = vault.asked.fetch_add(1, Ordering::SeqCst);
            let bad = number >= vault.bad_from.load(Ordering::SeqCst);
            let token = if bad { "not.a.token".to_owned() } else { good.clone() };
            async move { Ok(token) }
        });
        let client = within("the connection", builder(&broker, &net).authentication(supplier).connect())
            .await
            .expect("a client");
        Stage { broker, net, client }
    }
}

#[tokio::test(start_paused = true)]
async fn a_challenge_gets_a_fresh_token_within_a_second_while_traffic_goes_on() {
    let vault = Vault::new();
    let stage = vault.stage().await;
    let producer = stage.producer(TOPIC).await;
    let mut consumer = stage.consumer(TOPIC).await;
    for round in 1..=20 {
        let before = vault.asked();
        stage.broker.faults().challenge();
        let started = Instant::now();
        send(&producer, round.to_string()).await;
        assert_eq!(text(&mut consumer).await, round.to_string());
        until("a fresh token", || vault.asked(), |asked| *asked > before).await;
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
    assert_eq!(vault.asked(), 21, "once for the connection, once for each challenge");
    assert_eq!(stage.net.dials(), 1, "on one connection");
    stage.close_and_check().await;
}

/// A custom source is given the broker that asks, and its challenge.
#[tokio::test(start_paused = true)]
async fn a_source_is_given_the_broker_and_its_challenge() {
    struct Listening {
        token: String,
        heard: Arc<Mutex<Vec<AuthContext>>>,
    }
    impl Authentication for Listening {
        fn credentials<'a>(&'a self, context: &'a AuthContext) -> CredentialsFuture<'a> {
            self.heard.lock().expect("unpoisoned").push(context.clone());
            Box::pin(async { Ok(AuthData::token(self.token.clone())) })
        }
    }
    let (broker, net) = broker_on_net(EmbeddedBroker::builder().token_secret_key(KEY)).await;
    let heard = Arc::<Mutex<Vec<AuthContext>>>::default();
    let source = Listening { token: broker.token("admin"), heard: heard.clone() };
    let client =
        within("the connection", builder(&broker, &net).authentication(source).connect()).await.expect("a client");
    broker.faults().challenge();
    let count = || heard.lock().expect("unpoisoned").len();
    until("the challenge", count, |count| *count == 2).await;
    let stage = Stage { broker, net, client };
    let producer = stage.producer(TOPIC).await;
    stage.broker.faults().on(FaultEvent::Connect).refuse_request(ServerCode::AUTHENTICATION_ERROR);
    stage.broker.drop_connections();
    send(&producer, "with the second token").await;
    let (broker, token) = (stage.broker.address().to_string(), AuthData::token(stage.broker.token("admin")));
    let challenge = AuthData::new("token", "PulsarAuthRefresh");
    // The dial, the challenge, the dial that is refused, and the one after it.
    let expected = [(None, None), (Some(&challenge), Some(&token)), (None, None), (None, Some(&token))];
    let heard = heard.lock().expect("unpoisoned").clone();
    for (context, (challenge, outdated)) in heard.iter().zip(expected) {
        assert_eq!(context.broker().to_string(), broker);
        assert_eq!((context.challenge(), context.outdated()), (challenge, outdated));
    }
    assert_eq!(heard.len(), expected.len());
    stage.close_and_check().await;
}

/// A custom source says whether trying again helps.
#[tokio::test(start_paused = true)]
async fn a_source_decides_whether_its_failure_is_retried() {
    let (broker, net) = broker_on_net(EmbeddedBroker::builder().token_secret_key(KEY)).await;
    let refusing = Token::from_fn(|| async { Err(Error::authentication("no such role")) });
    let connecting = builder(&broker, &net).authentication(refusing).connect();
    let started = Instant::now();
    let error = within("the refusal", connecting).await.expect_err("no such role");
    assert_eq!(
        (error.kind(), started.elapsed() < Duration::from_secs(1)),
        (ErrorKind::Authentication, true),
        "{error}"
    );
    assert!(error.to_string().contains("no such role"), "{error}");

    let (asked, token) = (Arc::new(AtomicUsize::new(0)), broker.token("admin"));
    let passing = Token::from_fn(move || {
        let (number, token) = (asked.fetch_add(1, Ordering::SeqCst), token.clone());
        async move { if number < 2 { Err(Error::connection("the vault is sealed")) } else { Ok(token) } }
    });
    let client = within("the vault", builder(&broker, &net).authentication(passing).connect()).await.expect("a client");
    Stage { broker, net, client }.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_challenge_during_the_handshake_is_answered_too() {
    let vault = Vault::new();
    let stage = vault.stage().await;
    stage.broker.faults().on(FaultEvent::Connect).delay_response(Duration::from_millis(200));
    stage.broker.drop_connections();
    let producer = stage.producer(TOPIC).await;
    send(&producer, "x").await;
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_fetched_once_more() {
    let vault = Vault::new();
    let stage = vault.stage().await;
    let producer = stage.producer(TOPIC).await;
    let before = vault.asked();
    stage.broker.faults().on(FaultEvent::Connect).refuse_request(ServerCode::AUTHENTICATION_ERROR);
    stage.broker.drop_connections();
    send(&producer, "with the second token").await;
    assert_eq!(vault.asked(), before + 2);
    stage.close_and_check().await;
}

/// It is final for what is new; what was attached goes on trying, as long as its sends may take.
#[tokio::test(start_paused = true)]
async fn a_token_refused_twice_is_final_only_for_what_is_new() {
    let vault = Vault::new();
    let stage = vault.stage().await;
    let producer = stage.producer(TOPIC).await;
    let mut consumer = stage.consumer(TOPIC).await;
    let before = vault.asked();
    vault.bad_from.store(0, Ordering::SeqCst);
    stage.broker.drop_connections();
    let started = Instant::now();
    let error = within("the end", stage.client.producer(TOPIC).create()).await.expect_err("no credentials");
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    assert!(!format!("{error} {error:?}").contains("not.a.token"), "keeps the token to itself");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    until("the state", || producer.connection_error(), Option::is_some).await;
    for error in [producer.connection_error(), consumer.connection_error()] {
        assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::Authentication));
    }
    assert!(vault.asked() - before < 20, "with back-off: {}", vault.asked() - before);
    let held = enqueue(&producer, "held").await;
    vault.bad_from.store(usize::MAX, Ordering::SeqCst);
    within("a receipt", held).await.expect("sent with a good token");
    assert_eq!(text(&mut consumer).await, "held");
    stage.close_and_check().await;
}

/// The answer to a challenge is refused: the connection ends, the next one asks for a token again.
#[tokio::test(start_paused = true)]
async fn a_refused_answer_to_a_challenge_costs_the_connection_only() {
    let vault = Vault::new();
    let stage = vault.stage().await;
    let producer = stage.producer(TOPIC).await;
    stage.broker.faults().on(FaultEvent::AuthResponse).refuse_request(ServerCode::AUTHENTICATION_ERROR);
    stage.broker.faults().challenge();
    struck(&stage.broker, 1).await;
    send(&producer, "goes on").await;
    assert_eq!(stage.net.dials(), 2);
    stage.close_and_check().await;
}

/// Expired tokens are asked for by the broker's own check; the answer lets everything go on for hours.
#[tokio::test(start_paused = true)]
async fn a_token_that_expires_is_replaced_without_a_gap() {
    let (broker, net) = broker_on_net(EmbeddedBroker::builder().token_secret_key(KEY)).await;
    let source = broker.clone();
    let supplier = Token::from_fn(move || {
        let token = source.token_expiring("admin", Duration::from_secs(90));
        async move { Ok(token) }
    });
    let client =
        within("the connection", builder(&broker, &net).authentication(supplier).connect()).await.expect("a client");
    let stage = Stage { broker, net, client };
    let producer = stage.producer(TOPIC).await;
    let mut consumer = stage.consumer(TOPIC).await;
    for minute in 0..120 {
        send(&producer, minute.to_string()).await;
        assert_eq!(text(&mut consumer).await, minute.to_string());
        pass(Duration::from_secs(60)).await;
    }
    assert_eq!(stage.net.dials(), 1, "one connection for two hours");
    drop((producer, consumer));
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_answers_is_bounded_by_the_timeout() {
    let (broker, net) = broker_on_net(EmbeddedBroker::builder().token_secret_key(KEY)).await;
    let silent = Token::from_fn(std::future::pending);
    let started = Instant::now();
    let connecting = builder(&broker, &net).authentication(silent).connect();
    let error = within("the failure", connecting).await.expect_err("no token");
    assert!(started.elapsed() <= TIMEOUT + Duration::from_secs(5), "{error} after {:?}", started.elapsed());
    stop_and_check(&broker).await;
}

/// Rights that are taken away end nothing that was attached: it comes back with them.
#[tokio::test(start_paused = true)]
async fn a_role_that_loses_its_rights_and_gets_them_back() {
    let vault = Vault::new();
    let stage = vault.stage().await;
    let producer = stage.producer(TOPIC).await;
    let mut consumer = stage.consumer(TOPIC).await;
    stage.broker.set_super_user_roles(["another"]);
    stage.broker.unload(TOPIC);
    let kinds = || [producer.connection_error(), consumer.connection_error()].map(|error| error.map(|it| it.kind()));
    until("both to be refused", kinds, |kinds| *kinds == [Some(ErrorKind::Authorization); 2]).await;
    let held = enqueue(&producer, "held").await;
    let error = within("the refusal", stage.client.producer(TOPIC).create()).await.expect_err("no rights");
    assert_eq!(error.kind(), ErrorKind::Authorization, "new ones end at once: {error}");
    assert!(error.to_string().contains(TOPIC) && !error.to_string().contains('\n'), "{error}");
    stage.broker.set_super_user_roles(["admin"]);
    within("a receipt", held).await.expect("sent once it may be");
    assert_eq!(text(&mut consumer).await, "held");
    assert_eq!(stage.net.dials(), 1, "on one connection");
    stage.close_and_check().await;
}
