//! The binary protocol over TLS, on a port beside the plain one.

use pulsar_native::broker::FaultEvent;
use pulsar_native::pb::CommandLookupTopicResponse;
use pulsar_native::wire::{Command, Frame};
use pulsar_native::{Token, pb};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::*;
use crate::common::temp_file::TempFile;
use crate::suite::{receive, subscribed};

const KEY: &str = "a secret of at least 32 bytes, for HS256";

fn trusting(url: &str) -> ClientBuilder {
    client_of(url).ca_file(file("ca.pem"))
}

#[tokio::test]
async fn messages_of_all_sizes_pass_and_tokens_are_checked() {
    let (broker, url) = broker(EmbeddedBroker::builder().token_secret_key(KEY), Clients::Anyone).await;
    let admin = trusting(&url).authentication(Token::new(broker.token("admin")));
    let client = within("the connection", admin.connect()).await.expect("a good token");
    let mut consumer = subscribed(client.consumer("t", "s")).await;
    let producer = created(client.producer("t")).await;
    // Larger than a TLS record, and larger than the buffers of a socket.
    for size in [1, 20_000, 3_000_000] {
        send(&producer, vec![7; size]).await;
        let message = receive(&mut consumer).await;
        assert_eq!(message.payload().len(), size);
        within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed");
    }
    within("the close", client.close()).await.expect("closed");
    for builder in [trusting(&url), trusting(&url).authentication(Token::new("not-a-token"))] {
        let error = produce(builder).await.expect_err("no good token");
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
        assert!(!format!("{error:?}").contains("not-a-token"), "{error:?}");
    }
    assert_eq!(broker.violations(), []);
    within("the broker to stop", broker.stop()).await;
    assert_eq!(broker.connections(), 0);
}

/// What a lookup over this connection answers.
async fn lookup(mut socket: impl AsyncRead + AsyncWrite + Unpin) -> CommandLookupTopicResponse {
    let connect =
        pb::CommandConnect { client_version: "raw".to_owned(), protocol_version: Some(21), ..Default::default() };
    let request = pb::CommandLookupTopic { topic: "t".to_owned(), ..Default::default() };
    let mut bytes = bytes::BytesMut::new();
    for command in [Command::from(connect), Command::from(request)] {
        command.encode_frame(&mut bytes);
        socket.write_all(&bytes).await.expect("written");
        bytes.clear();
        let length = socket.read_u32().await.expect("a frame");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.resize(4 + length as usize, 0);
        socket.read_exact(&mut bytes[4..]).await.expect("a whole frame");
        if let Some(Ok(Frame::Other(Command::LookupResponse(answer)))) =
            pulsar_native::wire::frames(bytes.split().freeze()).next()
        {
            return answer;
        }
    }
    panic!("no answer to the lookup");
}

#[tokio::test]
async fn lookups_over_either_port_name_both_addresses() {
    let (broker, url) = broker(EmbeddedBroker::builder(), Clients::Anyone).await;
    let address = url.trim_start_matches("pulsar+ssl://");
    let plain = TcpStream::connect(broker.address()).await.expect("the plain port");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("the provider has these versions");
    let connector =
        tokio_rustls::TlsConnector::from(Arc::new(config.with_root_certificates(roots()).with_no_client_auth()));
    let secured = TcpStream::connect(address).await.expect("the TLS port");
    let secured = connector.connect("localhost".try_into().expect("a name"), secured).await.expect("trusted");
    for answer in [within("the answer", lookup(plain)).await, within("the answer", lookup(secured)).await] {
        assert_eq!(answer.broker_service_url.as_deref(), Some(&*broker.url()));
        assert_eq!(answer.broker_service_url_tls.as_deref(), Some(&*url));
    }
}

#[tokio::test]
async fn a_lookup_is_redirected_to_the_tls_address_of_another_broker() {
    let (first, url) = broker(EmbeddedBroker::builder(), Clients::Anyone).await;
    let (second, other) = broker(EmbeddedBroker::builder(), Clients::Anyone).await;
    first.faults().on(FaultEvent::Lookup).always().redirect(&other, true);
    produce(trusting(&url)).await.expect("it is followed");
    assert!(second.stats("t").is_some() && first.stats("t").is_none());
    // A redirect that names no TLS address is not followed in the clear.
    first.faults().clear();
    first.faults().on(FaultEvent::Lookup).always().redirect(&second.url(), true);
    let client = within("the connection", trusting(&url).connect()).await.expect("a client");
    let error = within("a failure", client.producer("t").create()).await.expect_err("no TLS address");
    assert!(error.to_string().contains("no TLS address"), "{error}");
}

#[tokio::test]
async fn the_wrong_port_is_one_clear_line() {
    let (broker, url) = broker(EmbeddedBroker::builder(), Clients::Anyone).await;
    let to_plain_port = broker.url().replace("pulsar://", "pulsar+ssl://");
    let error = produce(trusting(&to_plain_port)).await.expect_err("the port speaks no TLS");
    assert!(error.to_string().contains("plain port, use pulsar://"), "{error}");
    let to_tls_port = url.replace("pulsar+ssl://", "pulsar://");
    let error = produce(client_of(&to_tls_port)).await.expect_err("the port speaks TLS");
    assert!(error.to_string().contains("pulsar+ssl://"), "{error}");
}

#[tokio::test]
async fn a_peer_that_never_ends_its_handshake_does_not_hold_the_stop_up() {
    let (broker, url) = broker(EmbeddedBroker::builder(), Clients::Anyone).await;
    let silent = TcpStream::connect(url.trim_start_matches("pulsar+ssl://")).await.expect("the TLS port");
    produce(trusting(&url)).await.expect("served meanwhile");
    within("the broker to stop", broker.stop()).await;
    drop(silent);
}

#[tokio::test]
async fn certificates_of_files_are_read_at_the_start_and_bad_ones_named() {
    let start = |certificate: PathBuf, key: PathBuf| EmbeddedBroker::builder().tls_cert_file(certificate, key).start();
    let broker = start(file("server.pem"), file("server-key.pem")).await.expect("a good pair");
    produce(trusting(&broker.tls_url().expect("TLS is on"))).await.expect("it trusts the authority");
    let empty = TempFile::new("empty.pem", "");
    for (certificate, key, named) in [
        (file("none.pem"), file("server-key.pem"), "none.pem"),
        (file("server.pem"), file("none.pem"), "none.pem"),
        (empty.path().to_owned(), file("server-key.pem"), "holds no certificate"),
        (file("server.pem"), file("client-key.pem"), "server.pem with its key"),
    ] {
        let error = start(certificate, key).await.expect_err("unusable");
        let text = error.to_string();
        assert!(error.kind() == std::io::ErrorKind::InvalidInput && text.contains("tls_cert_file"), "{text}");
        assert!(text.contains(named), "{text}");
    }
}

#[cfg(feature = "self-signed")]
#[tokio::test]
async fn a_certificate_made_on_the_spot_is_trusted_by_its_authority_alone() {
    let start = || EmbeddedBroker::builder().tls_self_signed().start();
    let (broker, other) = (start().await.expect("free ports"), start().await.expect("free ports"));
    let url = broker.tls_url().expect("TLS is on");
    let authority = TempFile::new("made-ca.pem", broker.ca_pem().expect("made"));
    let stranger = TempFile::new("other-ca.pem", other.ca_pem().expect("made"));
    for host in [url.clone(), url.replace("127.0.0.1", "localhost")] {
        produce(client_of(&host).ca_file(authority.path())).await.expect("trusted");
        let error = produce(client_of(&host).ca_file(stranger.path())).await.expect_err("not trusted");
        assert!(error.to_string().contains("an authority that is not trusted"), "{error}");
    }
    let (plain, url) = broker_with(server_config(Clients::Anyone), EmbeddedBroker::builder()).await;
    assert!(plain.ca_pem().is_none() && !url.is_empty());
}
