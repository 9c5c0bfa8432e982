//! Tokens that expire while the connection is in use.

use super::relay::Relay;
use super::*;

/// The broker asks for fresh credentials (AUTH_CHALLENGE) as they expire; traffic goes on over the same connection.
pub async fn refreshed_when_challenged(target: &Target) {
    const VALID: Duration = Duration::from_secs(4);
    let relay = Relay::to(target).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let (counter, cluster) = (asked.clone(), target.shared_cluster());
    let supplier = Token::from_fn(move || {
        let (number, cluster) = (counter.fetch_add(1, Ordering::SeqCst), cluster.clone());
        async move {
            // Lookups and the broker behind them have credentials of their own: two rounds of tokens that expire.
            Ok(if number < 4 { cluster.token_expiring(VALID).await } else { cluster.token(target::Role::Admin) })
        }
    });
    let client = within("the connection", relay.builder(target).authentication(supplier).connect()).await;
    let client = client.expect("a client");
    let topic = target.topic("refresh");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    let producer = created(client.producer(&topic)).await;
    let (started, opened) = (Instant::now(), relay.opened());
    let mut number = 0;
    while asked.load(Ordering::SeqCst) < 5 || started.elapsed() < VALID * 3 {
        assert!(
            started.elapsed() < wait::WAIT_TIMEOUT,
            "the supplier was asked {} times only",
            asked.load(Ordering::SeqCst)
        );
        send(&producer, number.to_string()).await;
        let message = receive(&mut consumer).await;
        assert_eq!(message.to_string_lossy(), number.to_string());
        target.confirm(&consumer, &message).await;
        number += 1;
    }
    assert_eq!(relay.opened(), opened, "the connection was lost on the way");
}
