//! Certificates as people make them: `self-signed*.pem` are all signed by themselves, CA:TRUE, and of one key.

use std::path::Path;

use super::*;
use crate::common::temp_file::TempFile;

/// A broker that shows this certificate.
async fn broker_showing(certificate: &str) -> (EmbeddedBroker, String) {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("the provider has these versions");
    let (certificate, key) = identity(certificate, "self-signed-key.pem");
    let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).expect("they belong together");
    broker_with(config, EmbeddedBroker::builder().http(true)).await
}

/// How the client that trusts `ca_file` is refused.
async fn refusal(url: &str, ca_file: impl AsRef<Path>) -> String {
    let error = produce(client_of(url).ca_file(ca_file.as_ref())).await.expect_err("not accepted");
    assert_eq!(error.kind(), ErrorKind::Connection, "at once, not when the time is up: {error}");
    error.to_string()
}

#[tokio::test]
async fn a_self_signed_authority_is_accepted_where_it_is_the_ca_file() {
    let (_broker, url) = broker_showing("self-signed.pem").await;
    produce(client_of(&url).ca_file(file("self-signed.pem"))).await.expect("byte for byte the same");
    let text = refusal(&url, file("ca.pem")).await;
    assert!(text.contains("`ca_file`"), "says what to do: {text}");
}

#[tokio::test]
async fn each_fault_of_a_certificate_has_its_own_line() {
    for (certificate, line) in [
        ("self-signed-expired.pem", "the broker's certificate expired"),
        ("self-signed-early.pem", "the broker's certificate is not valid for another"),
        ("self-signed-elsewhere.pem", "the broker's certificate is for another host: broker.example.com"),
        ("self-signed-cn.pem", "the broker's certificate names no host"),
    ] {
        let (_broker, url) = broker_showing(certificate).await;
        let text = refusal(&url, file(certificate)).await;
        assert!(text.contains(line), "{certificate}: {text}");
    }
    let (_broker, url) = broker(EmbeddedBroker::builder(), Clients::Anyone).await;
    let text = refusal(&url, file("self-signed.pem")).await;
    assert!(text.contains("an authority that is not trusted; name the authority's certificate as `ca_file`"), "{text}");
}

fn pem(body: &str) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

#[tokio::test]
async fn an_unreadable_certificate_spoils_none_of_the_others_and_is_named() {
    let (_broker, url) = broker(EmbeddedBroker::builder(), Clients::Anyone).await;
    let good = std::fs::read_to_string(file("ca.pem")).expect("the authority");
    let other = std::fs::read_to_string(file("self-signed.pem")).expect("another authority");
    let (not_base64, not_der) = (pem("?!"), pem("AAAA"));

    let mixed = TempFile::new("mixed.pem", [not_base64.clone(), good, not_der.clone()].concat());
    produce(client_of(&url).ca_file(mixed.path())).await.expect("the readable one is enough");

    let lacking = TempFile::new("lacking.pem", [not_base64.clone(), other, not_der.clone()].concat());
    let text = refusal(&url, lacking.path()).await;
    for named in ["certificate 1 of", "certificate 3 of", "lacking.pem"] {
        assert!(text.contains(named), "{named}: {text}");
    }

    let unreadable = TempFile::new("unreadable.pem", [not_base64, not_der].concat());
    let error = produce(client_of(&url).ca_file(unreadable.path())).await.expect_err("nothing to trust");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("certificate 2 of"), "{error}");
}
