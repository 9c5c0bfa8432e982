//! Topics that change while both clients are at work: partitions that are added, and topics that come under a pattern.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pulsar_native::{InitialPosition, Message, Topics};

use crate::admin;
use crate::checks::new_topic;
use crate::ours::{Ours, within};
use crate::peer::Peer;

/// Until both clients have found what has changed, each of which looks every second.
const FOUND_WITHIN: Duration = Duration::from_secs(20);
const PERIOD: Duration = Duration::from_secs(1);

const KEYS: usize = 40;

/// After each growth, keys go where the official client sends them.
pub async fn grown(ours: &Ours, peer: &mut Peer) -> Result<(), String> {
    let topic = new_topic();
    admin::create_partitioned(&topic, 1).await?;
    let builder = ours.client.producer(&topic).batching(false).auto_update_partitions_interval(PERIOD);
    let producer = within("the producer", builder.create()).await?;
    let keys: Vec<_> = (0..KEYS).map(|number| format!("order-{number}")).collect();
    for partitions in [1, 4, 8, 64] {
        if partitions > 1 {
            admin::grow(&topic, partitions).await?;
        }
        let started = Instant::now();
        loop {
            let theirs = peer.send_keys(&topic, &keys).await?;
            let mut own = Vec::new();
            for key in &keys {
                let id = within("a receipt", producer.send(Message::new("x").with_key(key))).await?;
                own.push(id.partition().map_or(-1, i64::from));
            }
            let used: BTreeSet<_> = own.iter().collect();
            if producer.partitions() == partitions && own == theirs && (partitions == 1 || used.len() > 1) {
                break;
            }
            if started.elapsed() > FOUND_WITHIN {
                return Err(format!("with {partitions} partitions keys go to {own:?}, theirs to {theirs:?}"));
            }
        }
    }
    within("the close", producer.close()).await?;
    peer.release().await
}

/// Under one pattern, both clients read the same topics: those that were there, and those that come later.
pub async fn matched(ours: &Ours, peer: &mut Peer) -> Result<(), String> {
    let prefix = new_topic();
    let of = |name: &str| format!("{prefix}-{name}");
    let pattern = format!("{prefix}-.*");
    admin::create_partitioned(&of("p"), 3).await?;
    send(ours, &of("a")).await?;
    send(ours, &of("p-partition-2")).await?;
    // Another name than the pattern's: neither may read it.
    send(ours, &format!("{prefix}x")).await?;
    let builder = ours.client.consumer(Topics::pattern(&pattern), "ours").initial_position(InitialPosition::Earliest);
    let mut consumer = within("the consumer", builder.subscribe()).await?;
    let mut expected = BTreeSet::from([of("a"), of("p-partition-2")]);
    let mut later = ["b", "c", "d"].into_iter();
    loop {
        let theirs = peer.read_pattern(&pattern, expected.len()).await?;
        let mut own = BTreeSet::new();
        while own.len() < expected.len() {
            let message = within("a message", consumer.receive()).await?;
            within("the acknowledgement", consumer.ack_confirmed(&message)).await?;
            own.insert(message.topic().to_owned());
        }
        if own != expected || theirs != expected {
            return Err(format!("expected {expected:?}, we read {own:?}, they {theirs:?}"));
        }
        let Some(name) = later.next() else { break };
        send(ours, &of(name)).await?;
        expected = BTreeSet::from([of(name)]);
    }
    within("the close", consumer.close()).await?;
    peer.release().await
}

async fn send(ours: &Ours, topic: &str) -> Result<(), String> {
    let producer = within("the producer", ours.client.producer(topic).create()).await?;
    within("a receipt", producer.send("x")).await?;
    within("the close", producer.close()).await
}
