//! What a real broker asks of producers that encrypt.

use pulsar_native::{PemKey, PemKeyReader};

use crate::broker::Real;
use crate::runner::Test;
use crate::suite::encryption::{FIRST, FIRST_PRIVATE};
use crate::suite::*;

pub const TESTS: &[Test] =
    &[("encryption::a_namespace_can_require_it", |real| Box::pin(a_namespace_can_require_it(real)))];

/// It refuses a producer that does not say that it encrypts. Its code is one that is tried again, until there is no time left.
async fn a_namespace_can_require_it(real: Real) {
    let target = real.target();
    let client = target.client().await;
    let namespace = format!("public/sealed-{}", std::process::id());
    real.admin.change_namespace("PUT", &namespace, "", "").await;
    real.admin.change_namespace("POST", &namespace, "/encryptionRequired", "true").await;
    let topic = format!("persistent://{namespace}/t");
    let impatient = target.builder().operation_timeout(Duration::from_secs(1));
    let impatient = within("a client", impatient.connect()).await.expect("a client");
    let error = within("the refusal", impatient.producer(&topic).create()).await.expect_err("it does not encrypt");
    assert!(error.kind() == ErrorKind::TimedOut && error.to_string().contains("Encryption is required"), "{error}");
    let keys = PemKeyReader::new()
        .with_default_public_key(PemKey::text(FIRST))
        .with_default_private_key(PemKey::text(FIRST_PRIVATE));
    let mut consumer = subscribed(client.consumer(&topic, "s").crypto_key_reader(keys.clone())).await;
    let producer = created(client.producer(&topic).encryption_key("any").crypto_key_reader(keys)).await;
    send(&producer, "sealed").await;
    let message = receive(&mut consumer).await;
    assert!(message.to_string_lossy() == "sealed" && message.encryption_context().is_some());
    consumer.ack(&message).expect("acknowledged");
    drained(&target, &topic, "s").await;
}
