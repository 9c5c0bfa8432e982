//! What the Java client of the distribution sends and this one does not read, or only with another limit.

use pulsar_native::{ConsumerEvents, UnreadableMessage, UnreadableReason};

use crate::broker::Real;
use crate::common::java;
use crate::common::temp_file::TempFile;
use crate::interop::pulsar_client;
use crate::runner::Test;
use crate::suite::unreadable::as_unreadable;
use crate::suite::*;

pub const TESTS: &[Test] = &[
    ("unreadable::java_seals_and_chunks", |real| Box::pin(java_seals_and_chunks(real))),
    ("unreadable::java_compresses_a_hundred_mib", |real| Box::pin(java_compresses_a_hundred_mib(real))),
];

const HUNDRED_MIB: usize = 100 * 1024 * 1024;

/// Its private key was thrown away.
const PUBLIC_KEY: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAy6/aiU6mcTmtnzEdkx6o
jtfmcEpZ+2DwUJiDKyEF+tB2qu6CCjRBY/Ks1Jmo7o6LvD7Kq+uBkd0U23kdbW7L
lzZAU/lig4FzkkqTa0bis/59UAdj/eT2lP2+wnDBGQtn/BsLhr5XOLxsFm3u3ySY
BQXk3rF2QrQGPoPXbd9p5QlrRt3cLrC7wy0LM4ykRC2WscmFGNEWHZpY2JCLp+Kt
oOITt2Ar2pAWVsRCEbfY5Bo6E7GSGOnIFm+DxquFQMtqKA0gBV00Vbq6RaVxwB8b
5/Yy5Qpx6ANdrALWCOe8448o3w8wXNSfnTiHRel5isIFXSToSl7cN05URIeOigSY
0wIDAQAB
-----END PUBLIC KEY-----
";

/// The next event; the consumer is to receive no message before.
async fn unreadable(consumer: &mut Consumer, events: &mut ConsumerEvents) -> UnreadableMessage {
    let next = async {
        tokio::select! {
            event = events.recv() => event,
            message = consumer.receive() => panic!("not an event: {message:?}"),
        }
    };
    as_unreadable(within("an event", next).await)
}

async fn java_seals_and_chunks(real: Real) {
    let target = real.target();
    let client = target.client().await;
    let topic = target.topic("sealed");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    let mut events = consumer.events();
    let (key, large) = (TempFile::new("key.pem", PUBLIC_KEY.as_bytes()), TempFile::new("large", vec![b'x'; 6_000_000]));
    let uri = format!("file://{}", key.text());
    let sealed = ["produce", "-m", "secret", "-k", "the key", "-p", "p=v", "-ekn", "java key", "-ekv", &uri, &topic];
    pulsar_client(&sealed).await;

    let message = unreadable(&mut consumer, &mut events).await;
    assert_eq!(message.reason(), UnreadableReason::Encrypted);
    assert_eq!(message.encryption_key_names().collect::<Vec<_>>(), ["java key"]);
    assert_eq!((message.key(), message.topic()), (Some("the key"), topic.as_str()));
    assert!(!message.payload().is_empty() && !message.producer_name().is_empty());
    consumer.ack_id(&message.id()).expect("acknowledged");
    pulsar_client(&["produce", "-c", "-f", large.text(), &topic]).await;
    let message = receive(&mut consumer).await;
    assert!(message.id().first_chunk().is_some() && message.payload() == vec![b'x'; 6_000_000]);
    consumer.ack(&message).expect("acknowledged");
    drained(&target, &topic, "s").await;
}

/// As many as `pulsar-perf` sends: it may be one more than it was told to.
async fn java_compresses_a_hundred_mib(real: Real) {
    let target = real.target();
    let client = target.client().await;
    let topic = target.topic("java-hundred");
    let blanks = vec![b' '; HUNDRED_MIB];
    let mut low = subscribed(client.consumer(&topic, "s")).await;
    let mut events = low.events();
    let file = TempFile::new("blanks", &blanks);
    java::run("pulsar-perf", &["produce", "-z", "LZ4", "-f", file.text(), "-db", "-r", "1", "-m", "2", &topic]).await;
    let message = unreadable(&mut low, &mut events).await;
    assert!(matches!(message.reason(), UnreadableReason::TooLarge { .. }), "{message:?}");
    assert_eq!((message.codec(), message.uncompressed_size() as usize), (1, HUNDRED_MIB));
    within("the close", low.close()).await.expect("closed");

    let mut high = subscribed(client.consumer(&topic, "s").max_uncompressed_size(HUNDRED_MIB)).await;
    let read = receive(&mut high).await;
    assert!(read.id() == message.id() && read.payload() == blanks);
    within("the confirmation", high.ack_confirmed(&read)).await.expect("confirmed");
}
