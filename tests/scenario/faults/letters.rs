//! What is given up while its topic, or that of the dead letters, goes away.

use pulsar_native::DeadLetterPolicy;

use super::support::*;

const LETTERS: &str = "persistent://public/default/t-s-DLQ";
/// How long the dead-letter topic keeps its receipt back.
const SLOW: Duration = Duration::from_secs(20);

/// While a letter is on its way its message comes again, with its count lost: the application does not get it, and no second
/// letter is sent.
#[tokio::test(start_paused = true)]
async fn what_comes_again_while_its_letter_is_on_its_way_is_given_up_once() {
    for batching in [false, true] {
        let stage = Stage::new().await;
        let builder = stage.client.consumer(TOPIC, "s").subscription_type(SubscriptionType::Shared);
        let builder = builder.negative_ack_redelivery_delay(Duration::from_millis(100));
        let mut consumer = subscribed(builder.dead_letter_policy(DeadLetterPolicy::new(1))).await;
        let mut operators = subscribed(stage.client.consumer(LETTERS, "operators")).await;
        let producer = created(stage.client.producer(TOPIC).batching(batching)).await;
        confirmed(enqueue_numbers(&producer, 0..3).await).await;
        stage.broker.faults().on(FaultEvent::Send).on_topic(LETTERS).delay_response(SLOW);
        for delivery in 0..4 {
            let message = within("a message", consumer.receive()).await.expect("a message");
            match &*message.to_string_lossy() {
                "1" => consumer.nack(&message).expect("noted"),
                number => assert!(consumer.ack(&message).is_ok() && delivery < 3, "{number}"),
            }
        }
        let letter = tokio::select! {
            letter = operators.receive() => letter.expect("a letter"),
            message = consumer.receive() => panic!("{message:?}"),
        };
        assert_eq!(letter.to_string_lossy(), "1");
        let deliveries = consumer.stats().received_messages;
        stage.broker.unload(TOPIC);
        assert!(tokio::time::timeout(SLOW / 2, consumer.receive()).await.is_err(), "batching: {batching}");
        let seen = consumer.stats();
        assert!(seen.received_messages > deliveries && seen.dead_lettered_messages == 0, "it came again: {seen:?}");
        assert!(tokio::time::timeout(SLOW, consumer.receive()).await.is_err());
        assert_eq!(consumer.stats().dead_lettered_messages, 1);
        stage.drained(TOPIC).await;
        assert!(operators.try_receive().expect("attached").is_none(), "one letter");
        stage.close_and_check().await;
    }
}
