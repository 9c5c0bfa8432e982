//! Tokens that expire while the connection is in use.

use super::*;

/// The broker asks for fresh credentials (AUTH_CHALLENGE) as they expire; traffic goes on over the same connection.
pub async fn refreshed_when_challenged(target: &Target) {
    const VALID: Duration = Duration::from_secs(4);
    let tokens: Arc<Mutex<Vec<String>>> = Arc::default();
    let asked = Arc::new(AtomicUsize::new(0));
    for _ in 0..2 {
        let token = within("a token", target.cluster().token_expiring(VALID)).await;
        tokens.lock().unwrap().push(token);
    }
    let lasting = target.cluster().token(target::Role::Admin);
    let counter = asked.clone();
    let supplier = Token::supplier(move || {
        counter.fetch_add(1, Ordering::SeqCst);
        // Short ones first, then one that lasts.
        let token = tokens.lock().unwrap().pop().unwrap_or_else(|| lasting.clone());
        async move { Ok(token) }
    });
    let client =
        within("the connection", target.builder_without_token().auth(supplier).connect()).await.expect("a client");
    let topic = target.topic("refresh");
    let mut consumer = within("a consumer", client.consumer(&topic, "s").subscribe()).await.expect("a consumer");
    let producer = within("a producer", client.producer(&topic).create()).await.expect("a producer");
    let begun = Instant::now();
    let before = asked.load(Ordering::SeqCst);
    let mut number = 0;
    while asked.load(Ordering::SeqCst) == before || begun.elapsed() < VALID * 2 {
        assert!(begun.elapsed() < wait::PATIENCE, "no challenge came; the supplier was asked {before} times");
        send(&producer, number.to_string()).await;
        let message = receive(&mut consumer).await;
        assert_eq!(message.text(), number.to_string());
        within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed");
        assert!(producer.is_connected() && consumer.is_connected(), "the connection was lost");
        number += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
