//! Dead letters that go back, also after a kill.

use std::time::SystemTime;

use pulsar_native::broker::{FaultEvent, TopicStats};
use pulsar_native::{InitialPosition, Message, ReceivedMessage};

use super::*;

const DEAD: &str = "persistent://public/default/orders-s-DLQ";
const ORDERS: &str = "persistent://public/default/orders";
const PARTS: &str = "persistent://public/default/parts";

async fn broker(deduplicates: bool) -> (EmbeddedBroker, Client) {
    let broker = EmbeddedBroker::builder().broker_deduplication_enabled(deduplicates).partitioned_topic(PARTS, 3);
    let broker = broker.start().await.expect("a broker");
    let client = Client::builder(broker.url()).connect().await.expect("connected");
    (broker, client)
}

fn letter(text: &str, topic: &str) -> Message {
    let added =
        ["REAL_SUBSCRIPTION", "ORIGIN_MESSAGE_ID", "ORIGIN_MESSAGE_IDY_TIME", "DELAY_TIME", "DEAD_LETTER_REASON"];
    let message = Message::new(text.to_owned())
        .with_properties(added.map(|name| (name, "x")))
        .with_property("RECONSUMETIMES", "3");
    message.with_property("REAL_TOPIC", topic).with_property("mine", text)
}

async fn send(client: &Client, letters: impl IntoIterator<Item = Message>) {
    let producer = client.producer(DEAD).create().await.expect("a producer");
    for letter in letters {
        producer.send(letter).await.expect("stored");
    }
}

/// All messages of a topic that has some.
async fn all(client: &Client, broker: &EmbeddedBroker, topic: &str) -> Vec<ReceivedMessage> {
    let stored = |topic: &str| broker.stats(topic).map_or(0, |stats: TopicStats| stats.msg_in_counter);
    let names = [topic.to_owned()].into_iter().chain((0..3).map(|index| format!("{topic}-partition-{index}")));
    let count: u64 = names.map(|name| stored(&name)).sum();
    let consumer = client.consumer(topic, "reader").initial_position(InitialPosition::Earliest);
    let mut consumer = consumer.subscribe().await.expect("a consumer");
    let mut messages = Vec::new();
    for _ in 0..count {
        messages.push(consumer.receive().await.expect("a message"));
    }
    messages
}

fn texts(messages: &[ReceivedMessage]) -> Vec<String> {
    let mut texts: Vec<_> = messages.iter().map(|message| message.to_string_lossy().into_owned()).collect();
    texts.sort();
    texts
}

fn words(broker: &EmbeddedBroker, options: &str) -> String {
    format!("redrive {} --topic {DEAD} {options}", broker.url())
}

fn sums(line: &str) -> [f64; 4] {
    ["redriven", "already_there", "left", "may_be_double"].map(|name| value(line, name))
}

/// To the topic that each names, without what was added; a letter that names none stays. Then again, with nothing to do.
#[tokio::test]
async fn letters_go_back_as_they_were() {
    let (broker, client) = broker(true).await;
    let event_time = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
    let keyed = letter("keyed", ORDERS).with_key("k").with_ordering_key("o").with_event_time(event_time);
    let bytes = letter("by bytes", ORDERS).with_key_bytes([0, 255]);
    let null = letter("", PARTS).with_key("gone").with_null_value();
    let noise = letter("noise", ORDERS).with_property("UNREADABLE_METADATA", "CgNyYXc");
    let lost = [Message::new("lost"), letter("badly named", "a/b"), noise];
    send(&client, [keyed, bytes, null, letter("plain", PARTS)].into_iter().chain(lost)).await;

    let dry = run(&words(&broker, "--dry-run")).await;
    assert_eq!(dry.lines().collect::<Vec<_>>()[..2], [format!("{ORDERS} n=2"), format!("{PARTS} n=2")]);
    assert!(dry.ends_with("to_redrive=4 already_there=0 left=3 may_be_double=0\n"), "{dry}");
    let output = run(&words(&broker, "")).await;
    assert_eq!(sums(&output), [4.0, 0.0, 3.0, 0.0], "{output}");

    let messages = all(&client, &broker, ORDERS).await;
    assert_eq!(texts(&messages), ["by bytes", "keyed"]);
    for message in &messages {
        let text = message.to_string_lossy();
        assert_eq!(message.properties().collect::<Vec<_>>(), [("mine", &*text)]);
        match &*text {
            "keyed" => assert_eq!((message.key(), message.ordering_key()), (Some("k"), Some(&b"o"[..]))),
            _ => assert_eq!(message.key_bytes().as_deref(), Some(&[0, 255][..])),
        }
        assert_eq!(message.event_time(), (text == "keyed").then_some(event_time));
    }
    let messages = all(&client, &broker, PARTS).await;
    assert_eq!(texts(&messages), ["", "plain"]);
    assert_eq!(messages.iter().filter(|message| message.is_null()).count(), 1);

    let output = run(&words(&broker, "")).await;
    assert_eq!(sums(&output), [0.0, 0.0, 3.0, 0.0], "{output}");
    let output = run(&words(&broker, &format!("--to {ORDERS}-other --limit 1"))).await;
    assert_eq!(sums(&output), [1.0, 0.0, 0.0, 0.0], "{output}");
    assert_eq!(texts(&all(&client, &broker, &format!("{ORDERS}-other")).await), ["lost"]);
}

/// Killed when a letter is stored and its acknowledgement did not arrive: it is sent again, and a broker that
/// deduplicates does not store it twice. Without, it is said that it may be there twice.
#[tokio::test]
async fn a_killed_run_is_resumed_and_loses_nothing() {
    for (deduplicates, topic) in [(true, ORDERS), (true, PARTS), (false, ORDERS)] {
        let (broker, client) = broker(deduplicates).await;
        let keyed = |number: u32| letter(&number.to_string(), topic).with_key(number.to_string());
        send(&client, (0..3).map(keyed)).await;
        send(&client, (3..8).map(|number| letter(&number.to_string(), topic))).await;
        broker.faults().on(FaultEvent::Ack).after(5).drop_request();
        let mut child = start(&words(&broker, ""));
        while broker.faults().injected() == 0 {
            tokio::task::yield_now().await;
        }
        child.kill().await.expect("killed");
        while broker.connections() > 1 {
            tokio::task::yield_now().await;
        }
        let child = end(start(&words(&broker, ""))).await;
        let (output, stderr) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
        let messages = texts(&all(&client, &broker, topic).await);
        let expected: Vec<_> = (0..8).map(|number| number.to_string()).collect();
        match deduplicates {
            true => {
                assert_eq!(sums(&output), [2.0, 1.0, 0.0, 0.0], "{output}");
                assert!(stderr.contains("already: an earlier run had sent it"), "{stderr}");
                assert_eq!(messages, expected);
            }
            false => {
                assert_eq!(sums(&output), [3.0, 0.0, 0.0, 1.0], "{output}");
                assert!(stderr.contains("may have") && stderr.contains("twice"), "{stderr}");
                let mut doubled = expected;
                doubled.insert(5, "5".to_owned());
                assert_eq!(messages, doubled);
            }
        }
        assert_eq!(sums(&run(&words(&broker, "")).await), [0.0; 4]);
    }
}

/// At the rate that is asked for; what comes later than the start is for another run.
#[tokio::test]
async fn a_rate_is_kept_and_a_refusal_ends_it_with_what_was_done() {
    let (broker, client) = broker(false).await;
    send(&client, (0..6).map(|number| letter(&number.to_string(), ORDERS))).await;
    let start = std::time::Instant::now();
    let output = run(&words(&broker, "--rate 20 --limit 4")).await;
    assert_eq!(sums(&output)[0], 4.0);
    assert!(start.elapsed() >= Duration::from_millis(150), "the fourth is due after 150 ms");
    broker.terminate(ORDERS);
    let child = end(start_with(&words(&broker, ""), Stdio::piped())).await;
    let (output, stderr) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert_eq!((child.status.code(), sums(&output)), (Some(1), [0.0; 4]), "{stderr}");
    assert!(stderr.contains(&format!(" to {ORDERS}: ")), "{stderr}");
}
