//! Batches of several keys on Key_Shared, which the embedded broker reports.

use pulsar_native::broker::{EmbeddedBroker, Rule};
use pulsar_native::{BatchingType, Client, Compression, Message, ProducerBuilder, SubscriptionType};

use crate::suite::{created, receive_all, send_all, subscribed, within};

/// Sends six messages of `keys` in turn to a Key_Shared subscription; the rules that were broken.
async fn broken(keys: &[&str], options: impl Fn(ProducerBuilder) -> ProducerBuilder) -> Vec<Rule> {
    let broker = EmbeddedBroker::builder().start().await.expect("a free port");
    let client = within("the connection", Client::builder(broker.url()).connect()).await.expect("a client");
    let builder = client.consumer("t", "s").subscription_type(SubscriptionType::KeyShared);
    let mut consumer = subscribed(builder).await;
    let builder = client.producer("t").batching_max_publish_delay(std::time::Duration::from_millis(50));
    let producer = created(options(builder)).await;
    let message = |at: usize| Message::new("x").with_key(keys[at % keys.len()]);
    send_all(&producer, (0..6).map(message)).await;
    receive_all(&mut consumer, 6).await;
    broker.violations().into_iter().map(|violation| violation.rule).collect()
}

#[tokio::test]
async fn a_batch_of_several_keys_is_reported() {
    let compressed = |builder: ProducerBuilder| builder.compression(Compression::Lz4).compress_min_msg_body_size(0);
    assert_eq!(broken(&["a", "b"], |builder| builder).await, [Rule::MixedBatchOnKeyShared]);
    assert_eq!(broken(&["a", "b"], compressed).await, [Rule::MixedBatchOnKeyShared]);
    assert_eq!(broken(&["a"], |builder| builder).await, []);
    assert_eq!(broken(&["a", "b"], |builder| builder.batching(false)).await, []);
    assert_eq!(broken(&["a", "b"], |builder| builder.batching_type(BatchingType::KeyBased)).await, []);
}
