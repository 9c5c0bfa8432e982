//! For tests of applications: a broker and a client of it in one line.

use std::ops::Deref;

use crate::broker::{EmbeddedBroker, EmbeddedBrokerBuilder};
use crate::client::Client;

/// An embedded broker and a client that is connected to it, for one test. It is an [`EmbeddedBroker`] to all that follows:
/// its assertions, faults, topics and statistics.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), pulsar_native::Error> {
/// use pulsar_native::testing::TestBroker;
///
/// let broker = TestBroker::start().await;
/// // The application under test; it could also connect to `broker.url()` by itself.
/// broker.client().producer("orders").create().await?.send("one").await?;
///
/// broker.assert_published("orders", 1).await;
/// broker.assert_no_violations();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "the broker stops when the last handle is dropped"]
pub struct TestBroker {
    broker: EmbeddedBroker,
    client: Client,
}

impl TestBroker {
    /// Starts a broker with the default settings, on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// If it cannot listen there, or outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future before it is done leaves nothing behind.
    pub async fn start() -> Self {
        Self::start_with(EmbeddedBroker::builder()).await
    }

    /// The same with other settings. Where clients have to authenticate, the client shows a token for the role `admin`; a
    /// broker that knows no tokens is to be started by its own builder.
    ///
    /// # Panics
    /// If the settings do not fit, the broker cannot listen, or does not let the client in; or outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future before it is done leaves nothing behind.
    pub async fn start_with(builder: EmbeddedBrokerBuilder) -> Self {
        let broker =
            builder.start().await.unwrap_or_else(|error| panic!("the embedded broker does not start: {error}"));
        let mut client = Client::builder(broker.url());
        let token = broker.token("admin");
        if !token.is_empty() {
            client = client.authentication(crate::Token::new(token));
        }
        let client = client.connect().await.unwrap_or_else(|error| panic!("the client does not connect: {error}"));
        Self { broker, client }
    }

    /// The client. Clones share its connections.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Deref for TestBroker {
    type Target = EmbeddedBroker;

    fn deref(&self) -> &EmbeddedBroker {
        &self.broker
    }
}
