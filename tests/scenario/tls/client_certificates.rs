//! Certificates that clients show, as the broker that asks for them takes them, and the roles that come of them.

use std::path::Path;
use std::time::Duration;

use pulsar_native::{Basic, ServerCode, TlsAuthentication, Token};

use super::*;
use crate::common::temp_file::TempFile;
use crate::suite::{receive, subscribed, until};

const KEY: &str = "a secret of at least 32 bytes, for HS256";

fn builder() -> EmbeddedBrokerBuilder {
    let builder = EmbeddedBroker::builder().tls_cert_file(file("server.pem"), file("server-key.pem")).http(true);
    builder.tls_trust_certs_file(file("clients-ca.pem")).tls_authentication(true)
}

/// A broker, and its two URLs over TLS.
async fn serving(builder: EmbeddedBrokerBuilder) -> (EmbeddedBroker, [String; 2]) {
    let broker = builder.start().await.expect("free ports");
    let urls = [broker.tls_url().expect("TLS is on"), broker.https_url().expect("both are on")];
    (broker, urls)
}

/// Whether the client may produce.
async fn try_produce(builder: ClientBuilder) -> Result<(), Error> {
    let client = within("the connection or its refusal", builder.connect()).await?;
    let producer = within("a producer or its refusal", client.producer("t").create()).await?;
    send(&producer, "hello").await;
    within("the close", client.close()).await
}

/// A client that shows this certificate.
fn certified(url: &str, certificate: &str, key: &str) -> ClientBuilder {
    client_of(url).ca_file(file("ca.pem")).client_cert_file(file(certificate), file(key))
}

#[tokio::test]
async fn the_common_name_is_the_role_over_both_schemes() {
    let (broker, urls) = serving(builder().token_secret_key(KEY)).await;
    for url in &urls {
        let client = |certificate| certified(url, certificate, "client-admin-key.pem");
        produce(client("client-admin.pem").authentication(TlsAuthentication)).await.expect("the superuser");
        let error =
            try_produce(client("client-nobody.pem").authentication(TlsAuthentication)).await.expect_err("no rights");
        assert_eq!(error.kind(), ErrorKind::Authorization, "{url}: {error}");
        // The token goes before the certificate, also over HTTP.
        let token = Token::new(broker.token("admin"));
        produce(client("client-nobody.pem").authentication(token)).await.expect("the token's role");
        let without = client_of(url).ca_file(file("ca.pem"));
        let error = try_produce(without.authentication(TlsAuthentication)).await.expect_err("no certificate");
        assert_eq!(error.kind(), ErrorKind::Authentication, "{url}: {error}");
    }
    let error = try_produce(client_of(&broker.url()).authentication(TlsAuthentication)).await.expect_err("no TLS");
    assert_eq!(error.server_error().map(|refused| refused.code), Some(ServerCode::AUTHENTICATION_ERROR), "{error}");
    assert_eq!(broker.violations(), []);
}

#[tokio::test]
async fn each_certificate_that_is_not_taken_has_its_own_line() {
    let (_broker, urls) = serving(builder()).await;
    let (_strict, strict) = serving(builder().tls_require_trusted_client_cert_on_connect(true)).await;
    for (url, strict) in urls.iter().zip(&strict) {
        for (builder, line) in [
            (certified(url, "client.pem", "client-key.pem"), "signed by an authority that the broker does not trust"),
            (certified(url, "client-expired.pem", "client-admin-key.pem"), "it has expired, or is not valid yet"),
            (client_of(strict).ca_file(file("ca.pem")), "it wants one, and none is shown"),
        ] {
            let error = try_produce(builder.authentication(TlsAuthentication)).await.expect_err(line);
            let text = error.to_string();
            println!("{text}");
            assert_eq!(error.kind(), ErrorKind::Authentication, "at once, not when the time is up: {text}");
            let address = url.split("//").nth(1).expect("an address");
            let address =
                if line.contains("none is shown") { strict.split("//").nth(1).expect("one") } else { address };
            assert!(text.contains(line) && text.contains(address) && !text.contains('\n'), "{text}");
        }
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_from_the_next_connection_on() {
    let (broker, [url, _]) = serving(builder().super_user_roles(["admin"])).await;
    #[cfg(feature = "tracing")]
    let (lines, _listens) = crate::common::trace_lines::Lines::listen();
    let copy = |name: &str| std::fs::read(file(name)).expect("a file");
    let certificate = TempFile::new("renewed.pem", copy("client-nobody.pem"));
    let key = TempFile::new("renewed-key.pem", copy("client-admin-key.pem"));
    let builder = client_of(&url).ca_file(file("ca.pem")).client_cert_file(certificate.path(), key.path());
    let client = builder.authentication(TlsAuthentication).operation_timeout(Duration::from_secs(10)).build();
    let client = client.expect("a client");
    let error = within("the refusal", client.producer("t").create()).await.expect_err("nobody has no rights");
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");

    let replace = |path: &Path, from: &str| std::fs::write(path, copy(from)).expect("written");
    replace(certificate.path(), "client-renewed.pem");
    // Its key is still the former one: the former pair stays in use.
    broker.drop_connections();
    until("the connections to end", async || broker.connections(), |count| *count == 0).await;
    let error = within("the refusal", client.producer("t").create()).await.expect_err("still nobody");
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");

    #[cfg(feature = "tracing")]
    {
        let told = lines.at_least(tracing::Level::WARN);
        let told: Vec<_> = told.iter().filter(|line| line.message.starts_with("TLS files")).collect();
        assert_eq!(told.len(), 1, "once: {told:#?}");
        assert!(told[0].field("error").contains("renewed-key.pem"), "{told:#?}");
    }

    replace(key.path(), "client-renewed-key.pem");
    broker.drop_connections();
    until("the connections to end", async || broker.connections(), |count| *count == 0).await;
    let producer = created(client.producer("t")).await;
    let mut consumer = subscribed(client.consumer("t", "s")).await;
    // Connections that are up stay as they are; a lost one comes back with what is there then.
    replace(certificate.path(), "client-admin.pem");
    replace(key.path(), "client-admin-key.pem");
    send(&producer, "before").await;
    broker.drop_connections();
    send(&producer, "after").await;
    assert_eq!(receive(&mut consumer).await.to_string_lossy(), "before");
    assert_eq!(receive(&mut consumer).await.to_string_lossy(), "after");
    within("the close", client.close()).await.expect("closed");
    assert_eq!(broker.violations(), []);
}

#[tokio::test]
async fn a_skipped_host_name_leaves_the_chain_verified() {
    let (_broker, urls) = serving(builder().basic_user("admin", "open sesame")).await;
    let somewhere = |url: &str| {
        let builder =
            client_of(&url.replace("127.0.0.1", "localhost")).authentication(Basic::new("admin", "open sesame"));
        builder.danger_skip_hostname_verification()
    };
    for url in &urls {
        produce(somewhere(url).ca_file(file("ca.pem"))).await.expect("the name does not count");
        let error = try_produce(somewhere(url).ca_file(file("self-signed.pem"))).await.expect_err("not its authority");
        assert!(error.to_string().contains("an authority that is not trusted"), "{error}");
    }
    // A certificate for another host alone, and one that has expired.
    let showing = async |certificate: &str| {
        let broker = EmbeddedBroker::builder().tls_cert_file(file(certificate), file("self-signed-key.pem"));
        let broker = broker.start().await.expect("free ports");
        (broker.tls_url().expect("TLS is on"), broker)
    };
    let (url, _elsewhere) = showing("self-signed-elsewhere.pem").await;
    let skipping = client_of(&url).ca_file(file("self-signed-elsewhere.pem")).danger_skip_hostname_verification();
    produce(skipping).await.expect("the name does not count");
    let (url, _expired) = showing("self-signed-expired.pem").await;
    let skipping = client_of(&url).ca_file(file("self-signed-expired.pem")).danger_skip_hostname_verification();
    let error = try_produce(skipping).await.expect_err("expired");
    assert!(error.to_string().contains("the broker's certificate expired"), "{error}");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("the provider has these versions");
    let config = Arc::new(config.with_root_certificates(roots()).with_no_client_auth());
    let both = client_of(&url).tls_config(config).danger_skip_hostname_verification().build();
    assert_eq!(both.expect_err("two answers to one question").kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn users_and_passwords_are_checked_over_both_ports() {
    let broker = EmbeddedBroker::builder().http(true).basic_user("admin", "open sesame").basic_user("ali", "baba");
    let broker = broker.start().await.expect("free ports");
    for url in [broker.url(), broker.http_url().expect("it is on")] {
        let as_user = |user, password| client_of(&url).authentication(Basic::new(user, password));
        produce(as_user("admin", "open sesame")).await.expect("the superuser");
        let error = try_produce(as_user("ali", "baba")).await.expect_err("no rights");
        assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
        for builder in [as_user("admin", "sesame"), as_user("nobody", "sesame"), client_of(&url)] {
            let error = try_produce(builder).await.expect_err("not let in");
            assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
            assert!(!format!("{error:?}").contains("sesame"), "{error:?}");
        }
    }
    assert_eq!(broker.violations(), []);
}
