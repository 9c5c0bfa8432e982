//! The cryptography that an application has installed for its process. The test is a process of its own, because that is
//! done once in each.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use pulsar_native::client::rustls::crypto::{CryptoProvider, GetRandomFailed, SecureRandom};

use super::*;

const CHILD: &str = "PULSAR_NATIVE_TEST_INSTALLS_PROVIDER";

/// A provider's source of chance, which counts.
#[derive(Debug)]
struct Counting(&'static dyn SecureRandom);

static ASKED: AtomicUsize = AtomicUsize::new(0);

impl SecureRandom for Counting {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        ASKED.fetch_add(1, Ordering::SeqCst);
        self.0.fill(buffer)
    }
}

/// Runs the test `name` of this file in a process of its own, or says that this is it.
fn is_child(name: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let own = std::env::current_exe().expect("a test has a program");
    let name = format!("tls::provider::{name}");
    let child = Command::new(own).args(["--exact", &name, "--nocapture"]).env(CHILD, "1").output().expect("a child");
    let (output, errors) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && output.contains("1 passed"), "{output}{errors}");
    false
}

async fn is_used_once_installed(provider: CryptoProvider) {
    let random = Box::leak(Box::new(Counting(provider.secure_random)));
    let provider = CryptoProvider { secure_random: random, ..provider };
    provider.install_default().expect("it is the first");
    // The broker's configuration is made with ring itself, so that the client alone asks.
    let (_broker, url) = broker(EmbeddedBroker::builder(), Clients::Anyone).await;
    assert_eq!(ASKED.load(Ordering::SeqCst), 0);
    produce(client_of(&url).ca_file(file("ca.pem"))).await.expect("it trusts the authority");
    assert!(ASKED.load(Ordering::SeqCst) > 0, "the client's handshake has asked the installed provider");
}

#[tokio::test]
async fn an_installed_provider_is_used() {
    if is_child("an_installed_provider_is_used") {
        is_used_once_installed(ring::default_provider()).await;
    }
}

#[cfg(feature = "aws-lc-rs")]
#[tokio::test]
async fn another_library_is_used_once_it_is_installed() {
    if is_child("another_library_is_used_once_it_is_installed") {
        is_used_once_installed(pulsar_native::client::rustls::crypto::aws_lc_rs::default_provider()).await;
    }
}
