//! The quickstart, as it is, on the embedded broker.

use pulsar_native::ErrorKind;
use pulsar_native::broker::EmbeddedBroker;

#[path = "../../examples/quickstart.rs"]
#[allow(dead_code, reason = "its `main` is not called here")]
pub mod example;

#[tokio::test]
async fn every_step_works_and_the_statistics_show_it() {
    let key = "a secret of at least 32 bytes, for HS256";
    let broker = EmbeddedBroker::builder().token_secret_key(key).namespace("cluster/namespace").start().await.unwrap();
    let topic = "persistent://cluster/namespace/topic";
    example::walk_through(&broker.url(), &broker.token("admin"), topic).await.unwrap();
    let stats = broker.stats(topic).expect("the topic is there");
    let subscription = &stats.subscriptions["my-subscription"];
    assert_eq!((subscription.msg_backlog, subscription.unacked_messages), (0, 0));
    assert_eq!((stats.msg_in_counter, subscription.msg_out_counter), (2, 3));
    assert_eq!(broker.violations(), []);
}

#[tokio::test]
async fn a_wrong_token_is_one_clear_line() {
    let broker =
        EmbeddedBroker::builder().token_secret_key("one key, of 32 bytes and some more").start().await.unwrap();
    let error = example::walk_through(&broker.url(), "not-a-token", "t").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication);
    let line = error.to_string();
    assert!(!line.contains('\n') && line.contains("AuthenticationError") && line.contains("127.0.0.1"), "{line}");
    assert!(!line.contains("not-a-token"), "{line}");
}

// Time is paused: a client waits for its broker, and gives up when the operation timeout has passed.
#[tokio::test(start_paused = true)]
async fn an_unreachable_broker_is_one_clear_line() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let error = example::walk_through(&format!("pulsar://{address}"), "", "t").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn an_unknown_namespace_is_one_clear_line() {
    let broker = EmbeddedBroker::builder().start().await.unwrap();
    let topic = "persistent://no/where/topic";
    let error = example::walk_through(&broker.url(), "", topic).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TopicNotFound);
    assert!(error.to_string().contains(topic), "{error}");
}

#[tokio::test]
async fn a_web_port_is_named_as_such() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let web = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut connect = [0; 4];
        socket.read_exact(&mut connect).await.unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    });
    let error = example::walk_through(&format!("pulsar://{address}"), "", "t").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.to_string().contains("web port; name it with an http:// URL"), "{error}");
    web.await.unwrap();
}
