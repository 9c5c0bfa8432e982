//! The fields of `MessageMetadata` that few messages have: replication between clusters, markers of brokers, null keys, ids of
//! an external registry.

use bytes::{BufMut as _, BytesMut};
use prost::Message as _;
use pulsar_native::pb;
use tokio::net::TcpStream;

use super::raw::{RawEntry, publish};
use super::target::Role;
use super::*;

async fn listener(client: &Client, topic: &str) -> Consumer {
    subscribed(client.consumer(topic, "s").initial_position(InitialPosition::Earliest)).await
}

/// Stores entries that no producer of this client makes.
async fn store(target: &Target, topic: &str, entries: &[RawEntry<'_>]) {
    let stream = within("a connection", TcpStream::connect(target.broker_address())).await.expect("a connection");
    let token = Some(target.cluster().token(Role::Admin));
    within("the receipts", publish(stream, token, topic, entries)).await;
}

/// The clusters that a message is replicated to go with it, in an entry of its own, and it keeps its place.
pub async fn clusters_to_replicate_to(target: &Target) {
    let client = target.client().await;
    for batching in [true, false] {
        let topic = target.topic("replicate-to");
        let mut consumer = listener(&client, &topic).await;
        let builder = client.producer(&topic).batching(batching).batching_max_messages(2);
        let producer = created(builder.batching_max_publish_delay(Duration::from_secs(10))).await;
        let message = |text: &str| Message::new(text.to_owned()).with_key("k").with_property("mine", "1");
        let messages = [
            message("1"),
            message("2").with_replication_clusters(["east", "west"]),
            message("3").with_replication_clusters(["east"]).with_replication_disabled(),
            message("4").with_replication_disabled().with_replication_clusters([""; 0]),
            message("5"),
        ];
        let expected = [vec![], vec!["east", "west"], vec!["__local__"], vec![], vec![]];
        for (message, expected) in messages.iter().zip(&expected) {
            assert_eq!(message.replication_clusters().collect::<Vec<_>>(), *expected);
        }
        let ids = send_all(&producer, messages.clone()).await;
        let shared = ids.iter().map(|id| id.batch_index().is_some()).collect::<Vec<_>>();
        // The first is alone, because the open batch goes out before what is kept out of batches.
        assert_eq!(shared, [false, false, false, batching, batching]);
        let received = receive_all(&mut consumer, 5).await;
        for ((received, sent), expected) in received.iter().zip(&messages).zip(&expected) {
            assert_eq!(received.payload(), sent.payload());
            assert_eq!(received.replication_clusters().collect::<Vec<_>>(), *expected);
            assert_eq!((received.replicated_from(), received.key()), (None, Some("k")));
            assert_eq!(received.property("mine"), Some("1"));
        }
    }
}

/// What a broker has stored for another cluster says where it was published: alone, and in a batch as Java makes it, where
/// the clusters of the first message are those of all.
pub async fn replicated_from_another_cluster(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("replicated-from");
    let mut consumer = listener(&client, &topic).await;
    let replicated = pb::MessageMetadata { replicated_from: Some("far".into()), ..Default::default() };
    let mut batch = BytesMut::new();
    for text in ["2", "3"] {
        let single = pb::SingleMessageMetadata { payload_size: text.len() as i32, ..Default::default() };
        batch.put_u32(single.encoded_len() as u32);
        batch.put_slice(&single.encode_to_vec());
        batch.put_slice(text.as_bytes());
    }
    let of_batch = pb::MessageMetadata {
        num_messages_in_batch: Some(2),
        replicate_to: vec!["east".into(), "west".into()],
        ..replicated.clone()
    };
    store(target, &topic, &[(replicated, b"1"), (of_batch, &batch), (pb::MessageMetadata::default(), b"4")]).await;
    let received = receive_all(&mut consumer, 4).await;
    let seen: Vec<_> = received.iter().map(|message| (message.to_string_lossy(), message.replicated_from())).collect();
    let expected = [("1", Some("far")), ("2", Some("far")), ("3", Some("far")), ("4", None)];
    assert_eq!(seen, expected.map(|(text, from)| (text.into(), from)));
    let clusters: Vec<_> = received.iter().map(|message| message.replication_clusters().count()).collect();
    assert_eq!(clusters, [0, 2, 2, 0]);
    consumer.ack_cumulative(&received[3]).expect("acknowledged");
    drained(target, &topic, "s").await;
}

/// What brokers write for each other, for replicated subscriptions, comes to no consumer and stays in no backlog.
pub async fn markers_are_not_delivered(target: &Target) {
    let client = target.client().await;
    for kind in
        [SubscriptionType::Exclusive, SubscriptionType::Failover, SubscriptionType::Shared, SubscriptionType::KeyShared]
    {
        let topic = target.topic("markers");
        let builder = client.consumer(&topic, "s").subscription_type(kind).receiver_queue_size(1);
        let mut consumer = subscribed(builder.initial_position(InitialPosition::Earliest)).await;
        // Request, response and update of a snapshot.
        let marker = |number| pb::MessageMetadata { marker_type: Some(number), ..Default::default() };
        let message = pb::MessageMetadata::default;
        let entries: [RawEntry<'_>; 6] = [
            (marker(10), b""),
            (message(), b"1"),
            (marker(11), b""),
            (marker(13), b""),
            (message(), b"2"),
            (marker(10), b""),
        ];
        store(target, &topic, &entries).await;
        for expected in ["1", "2"] {
            let message = receive(&mut consumer).await;
            assert_eq!(message.to_string_lossy(), expected, "{kind:?}");
            consumer.ack(&message).expect("acknowledged");
        }
        tokio::select! {
            () = drained(target, &topic, "s") => {}
            message = consumer.receive() => panic!("{kind:?}: {message:?}"),
        }
    }
}

/// What else a message may have.
pub async fn null_keys_schema_ids_and_times(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("rare");
    let mut consumer = listener(&client, &topic).await;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for batching in [true, false] {
        let producer = created(client.producer(&topic).batching(batching)).await;
        let messages = [
            Message::new("null key").with_key("k").with_null_key(),
            Message::new("a key").with_null_key().with_key("k"),
            Message::new("none"),
            Message::new("schema id").with_schema_id(&b"\xff1"[..]),
            Message::new("delivery time").with_deliver_at(time),
        ];
        send_all(&producer, messages.clone()).await;
        for sent in messages {
            let message = receive(&mut consumer).await;
            assert_eq!(message.payload(), sent.payload());
            assert_eq!((message.key(), message.key_is_null()), (sent.key(), sent.key_is_null()));
            assert_eq!(message.key_is_null(), message.to_string_lossy() == "null key");
            assert_eq!((message.schema_id(), message.deliver_at()), (sent.schema_id(), sent.deliver_at()));
            assert!(message.to_message(message.properties()).key_is_null() == sent.key_is_null());
        }
    }
}
