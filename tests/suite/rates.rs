//! What the publish and dispatch rates of a namespace let through: as much as a second has at once, then no more than the rate.

use serde_json::{Value, json};

use super::admin_api::AdminApi;
use super::*;

/// Messages a second.
const RATE: usize = 10;

/// A namespace with one policy.
async fn namespace_with(admin: &AdminApi<'_>, policy: &str, rate: Value) -> String {
    let namespace = format!("public/{}", admin.name(policy));
    admin.done("PUT", &format!("namespaces/{namespace}"), ()).await;
    admin.done("POST", &format!("namespaces/{namespace}/{policy}"), rate).await;
    namespace
}

/// A producer beyond the rate waits for its receipts.
pub async fn publishing(target: &Target) {
    let Some(admin) = AdminApi::of(target).await else { return };
    let rate = json!({ "publishThrottlingRateInMsg": RATE, "publishThrottlingRateInByte": -1 });
    let topic = format!("persistent://{}/orders", namespace_with(&admin, "publishRate", rate).await);
    let producer = created(target.client().await.producer(&topic).batching(false)).await;
    let started = Instant::now();
    for number in 0..3 * RATE {
        send(&producer, number.to_string()).await;
        if number + 1 == RATE {
            assert!(started.elapsed() < Duration::from_millis(1_500), "a second's worth goes at once");
        }
    }
    assert!(started.elapsed() > Duration::from_millis(1_500), "the others wait: {:?}", started.elapsed());
}

async fn delivery(target: &Target, policy: &str, subscription_type: SubscriptionType) {
    let Some(admin) = AdminApi::of(target).await else { return };
    let rate = json!({
        "dispatchThrottlingRateInMsg": RATE, "dispatchThrottlingRateInByte": -1,
        "ratePeriodInSecond": 1, "relativeToPublishRate": false,
    });
    let topic = format!("persistent://{}/orders", namespace_with(&admin, policy, rate).await);
    let client = target.client().await;
    let producer = created(client.producer(&topic).batching(false)).await;
    let consumer = || client.consumer(&topic, "s").subscription_type(subscription_type);
    within("the close", subscribed(consumer()).await.close()).await.expect("closed");
    send_all(&producer, (0..3 * RATE).map(|number| number.to_string())).await;
    let mut consumer = subscribed(consumer()).await;
    let started = Instant::now();
    for number in 0..3 * RATE {
        let message = receive(&mut consumer).await;
        consumer.ack(&message).expect("acknowledged");
        if number + 1 == RATE {
            assert!(started.elapsed() < Duration::from_millis(900), "a second's worth comes at once");
        }
    }
    assert!(started.elapsed() > Duration::from_millis(1_500), "the others wait: {:?}", started.elapsed());
}

pub async fn delivery_from_a_topic(target: &Target) {
    for subscription_type in [SubscriptionType::Exclusive, SubscriptionType::Shared] {
        delivery(target, "dispatchRate", subscription_type).await;
    }
}

pub async fn delivery_to_a_subscription(target: &Target) {
    for subscription_type in [SubscriptionType::Shared, SubscriptionType::KeyShared] {
        delivery(target, "subscriptionDispatchRate", subscription_type).await;
    }
}
