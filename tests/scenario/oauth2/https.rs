//! An issuer with TLS: its own trust roots, and a certificate of the client.

use super::*;
use crate::tls::{Clients, broker as tls_broker, file};

#[tokio::test]
async fn an_issuer_has_trust_roots_and_a_client_certificate_of_its_own() {
    let (broker, _) = tls_broker(broker(), Clients::Certified).await;
    let key_file = key_file("https", "app", SECRET);
    let issuer = broker.https_url().expect("HTTP and TLS are on");
    let source = || OAuth2::client_credentials(&issuer, key_file.text()).audience(AUDIENCE);
    let certified = || source().client_cert_file(file("client.pem"), file("client-key.pem"));
    exchange(client_of(&broker.url(), certified().ca_file(file("ca.pem")))).await.expect("it is let in");
    let error = exchange(client_of(&broker.url(), certified())).await.expect_err("no such root in the system");
    assert_eq!((error.kind(), error.is_retriable()), (ErrorKind::Connection, false), "{error}");
    let at = format!("no token from the identity provider at {issuer}/.well-known/openid-configuration");
    assert!(error.to_string().starts_with(&at), "{error}");
    let why = "the identity provider's certificate is signed by an authority that is not trusted";
    assert!(error.to_string().contains(why), "{error}");
    let error = exchange(client_of(&broker.url(), source().ca_file(file("ca.pem")))).await.expect_err("no certificate");
    assert_eq!((error.kind(), error.is_retriable()), (ErrorKind::Authentication, false), "{error}");
    let why =
        "the identity provider does not accept the client's certificate over TLS: it wants one, and none is shown";
    assert!(error.to_string().contains(why), "{error}");
    let error = source().ca_file("/no/such/ca.pem");
    let error = exchange(client_of(&broker.url(), error)).await.expect_err("no such file");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}
