//! `pulsar-native redrive` of dead letters that this client has written, killed in the middle of it.

use std::process::Stdio;

use pulsar_native::DeadLetterPolicy;
use tokio::process::{Child, Command};

use crate::runner::Test;
use crate::suite::target::{Feature, Role, Target};
use crate::suite::*;

pub const TESTS: &[Test] = &[
    ("redrive::a_killed_run_doubles_nothing_where_the_broker_deduplicates", |real| {
        Box::pin(async move { killed(&real.target().with(Feature::Deduplication).await, true).await })
    }),
    ("redrive::a_killed_run_says_what_may_be_double", |real| {
        Box::pin(async move { killed(&real.target(), false).await })
    }),
];

const MESSAGES: usize = 60;

async fn killed(target: &Target, deduplicates: bool) {
    let client = target.client().await;
    let topic = target.topic("redrive");
    let dead_topic = format!("{topic}-s-DLQ");
    give_up_all(&client, &topic).await;
    drained(target, &topic, "s").await;

    // Only what was sent back is in the backlog now.
    let mut consumer = subscribed(client.consumer(&topic, "s").subscription_type(SubscriptionType::Shared)).await;
    let mut run = redrive(target, &dead_topic, "--rate 100");
    let mut seen = receive_all(&mut consumer, 20).await;
    within("the kill", run.kill()).await.expect("killed");
    let look = || target.subscription(&dead_topic, "redrive");
    until("the end of its consumer", look, |seen| seen.consumers.is_empty()).await;
    let rest = within("the end", redrive(target, &dead_topic, "").wait_with_output()).await.expect("it ends");
    let (output, stderr) = (String::from_utf8_lossy(&rest.stdout), String::from_utf8_lossy(&rest.stderr));
    assert!(rest.status.success(), "{stderr}");
    let sum = |name: &str| -> usize {
        let value = output.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{name} in {output}")).parse().expect("a number")
    };
    assert_eq!((sum("left"), sum("may_be_double")), (0, usize::from(!deduplicates)), "{output}{stderr}");
    // It has sent 20; the last of them may come again.
    assert!(sum("redriven") <= MESSAGES - 20 + sum("may_be_double"), "{output}");

    for message in &seen {
        consumer.ack(message).expect("acknowledged");
    }
    loop {
        let message = tokio::select! {
            message = consumer.receive() => message.expect("a message"),
            () = drained(target, &topic, "s") => break,
        };
        consumer.ack(&message).expect("acknowledged");
        seen.push(message);
    }
    for message in &seen {
        assert_eq!((message.property("mine"), message.redelivery_count()), (Some("1"), 0));
        assert_eq!(message.properties().count(), 1, "{:?}", message.properties().collect::<Vec<_>>());
    }
    let mut texts: Vec<_> = seen.iter().map(|message| message.to_string_lossy().into_owned()).collect();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), MESSAGES, "none is lost");
    assert!(seen.len() - MESSAGES <= sum("may_be_double"), "{} are stored: {output}", seen.len());
    drained(target, &dead_topic, "redrive").await;
}

/// Has a consumer give up as many messages.
async fn give_up_all(client: &Client, topic: &str) {
    let policy = DeadLetterPolicy::new(1).with_initial_subscription("redrive");
    let builder = client.consumer(topic, "s").subscription_type(SubscriptionType::Shared).dead_letter_policy(policy);
    let mut consumer = subscribed(builder.negative_ack_redelivery_delay(Duration::from_millis(100))).await;
    let producer = created(client.producer(topic)).await;
    let message = |number| Message::new(format!("{number}")).with_property("mine", "1").with_key("k");
    send_all(&producer, (0..MESSAGES).map(message)).await;
    for message in receive_all(&mut consumer, MESSAGES).await {
        consumer.nack(&message).expect("noted");
    }
    for _ in 0..MESSAGES {
        let message = receive(&mut consumer).await;
        consumer.nack(&message).expect("noted");
    }
    let all_sent = async {
        while consumer.stats().dead_lettered_messages < MESSAGES as u64 {
            let next = tokio::time::timeout(Duration::from_millis(10), consumer.receive()).await;
            assert!(next.is_err(), "{next:?}");
        }
        Ok::<_, pulsar_native::Error>(())
    };
    within("the dead letters", all_sent).await.expect("sent");
    within("the close", consumer.close()).await.expect("closed");
}

fn redrive(target: &Target, topic: &str, options: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulsar-native"));
    command.env("PULSAR_TOKEN", target.cluster().token(Role::Admin)).kill_on_drop(true);
    command.args(["redrive", &target.cluster().url(), "--topic", topic]).args(options.split_whitespace());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary starts")
}
