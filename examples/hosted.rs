//! The walk-through of a hosted console, line by line. It follows that of Tencent's TDMQ for Pulsar, which shows it in Java,
//! Python and Go; StreamNative's has the same steps.
//!
//! | variable | what to paste | where the console of TDMQ shows it |
//! | --- | --- | --- |
//! | `PULSAR_URL` | `http://pulsar-xxx.tdmq-pulsar.ap-sh.public.tencenttdmq.com:8080` | Cluster, access address |
//! | `PULSAR_TOKEN` | `eyJrZXlJZC...` | Role, its key; the role needs rights in the namespace |
//! | `PULSAR_TOPIC` | `persistent://pulsar-xxx/namespace/topic` | Topic; without `persistent://` it is the same topic |
//! | `PULSAR_SUBSCRIPTION` | a name; default `sub_topic1` | Topic, its subscriptions |
//!
//! `PULSAR_URL=... PULSAR_TOKEN=... PULSAR_TOPIC=... cargo run --example hosted`

use std::time::Duration;

use pulsar_native::{Client, Error, InitialPosition, Message, ReceivedMessage, SubscriptionType, Token};
use tokio::sync::oneshot;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let [Ok(url), Ok(token), Ok(topic)] = ["PULSAR_URL", "PULSAR_TOKEN", "PULSAR_TOPIC"].map(std::env::var) else {
        eprintln!("hosted: set PULSAR_URL, PULSAR_TOKEN and PULSAR_TOPIC to what the console shows");
        return std::process::ExitCode::from(2);
    };
    let subscription = std::env::var("PULSAR_SUBSCRIPTION").unwrap_or_else(|_| "sub_topic1".to_owned());
    match run(&url, &token, &topic, &subscription).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hosted: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

pub(crate) async fn run(url: &str, token: &str, topic: &str, subscription: &str) -> Result<(), Error> {
    // The service URL, as it is, and the role token.
    let client = Client::builder(url).authentication(Token::new(token)).connect().await?;

    // The full path of the topic.
    let producer = client.producer(topic).create().await?;

    // Send: the payload, properties, and the business key.
    let message = Message::new("Hello rust client, this is a msg.").with_property("k", "v").with_key("yourKey");
    let id = producer.send(message).await?;
    println!("sent          {id}");

    // Send with a callback: it gets the id, or the error. It runs on the connection's task, so it must not block.
    let message = Message::new("Hello rust client, this is an async msg.").with_property("k", "v").with_key("yourKey");
    let (tell, told) = oneshot::channel();
    producer.enqueue_with(message, move |result| drop(tell.send(result))).await?;
    let id = told.await.expect("a callback is called once")?;
    println!("called back   {id}");

    // Subscribe. A subscription that is new starts at the oldest message, so that it gets what was sent above.
    let mut consumer = client
        .consumer(topic, subscription)
        .subscription_type(SubscriptionType::Shared)
        .initial_position(InitialPosition::Earliest)
        .negative_ack_redelivery_delay(Duration::from_secs(1))
        .subscribe()
        .await?;

    // Receive, and acknowledge: this subscription does not get the message again.
    let message = consumer.receive().await?;
    show("received", &message);
    consumer.ack_confirmed(&message).await?;
    println!("acknowledged  {}", message.id());

    // Receive, and negatively acknowledge: it comes again after the delay.
    let failed = consumer.receive().await?;
    show("received", &failed);
    consumer.nack(&failed)?;
    println!("nacked        {}", failed.id());
    loop {
        let message = consumer.receive().await?;
        show("received", &message);
        consumer.ack_confirmed(&message).await?;
        println!("acknowledged  {}", message.id());
        if message.id() == failed.id() {
            break;
        }
    }

    // Release the resources.
    consumer.close().await?;
    producer.close().await?;
    client.close().await
}

fn show(what: &str, message: &ReceivedMessage) {
    println!(
        "{what:<13} {}  {:?}, key {:?}, properties {:?}, redelivered {} times",
        message.id(),
        message.to_string_lossy(),
        message.key(),
        message.properties().collect::<Vec<_>>(),
        message.redelivery_count()
    );
}
