//! Failover: one consumer is active; when it goes, the other takes over where it stood.

use super::*;

pub async fn second_takes_over(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("failover");
    let builder = client.consumer(&topic, "s").subscription_type(SubscriptionType::Failover);
    let mut consumers = Vec::new();
    for name in ["a", "b"] {
        let subscribe = builder.clone().name(name).subscribe();
        consumers.push(within("a consumer", subscribe).await.expect("a consumer"));
    }
    let producer = created(client.producer(&topic).batching(false)).await;
    send_all(&producer, (0..10).map(|number| number.to_string())).await;

    // The broker chooses the active one.
    let (left, right) = consumers.split_at_mut(1);
    let (first, active) = within("a message on either consumer", async {
        tokio::select! {
            message = left[0].receive() => (message.expect("a message"), 0),
            message = right[0].receive() => (message.expect("a message"), 1),
        }
    })
    .await;
    let mut active = consumers.remove(active);
    let mut standby = consumers.remove(0);
    assert_eq!(first.to_string_lossy(), "0");
    assert_eq!(texts(&mut active, 9).await, (1..10).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(standby.try_receive().expect("no error").is_none(), "the other one stands by");
    active.ack(&first).expect("acknowledged");
    within("the close", active.close()).await.expect("closed");

    // Pulsar 4.0.8 moves its cursor back a second after the change. What it reads before that can leave a read behind that
    // waits for the next message, and without one the rest would never come.
    until("the other one to be active", || async { standby.is_active() }, |active| *active == Some(true)).await;
    send(&producer, "10").await;
    let messages = receive_all(&mut standby, 10).await;
    assert_eq!(
        messages.iter().map(ReceivedMessage::to_string_lossy).collect::<Vec<_>>(),
        (1..=10).map(|number| number.to_string()).collect::<Vec<_>>()
    );
    standby.ack_cumulative(&messages[9]).expect("acknowledged");
    drained(target, &topic, "s").await;
}
