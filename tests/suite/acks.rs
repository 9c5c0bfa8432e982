//! Acknowledging: what the broker remembers is what was acknowledged, no more and no less.

use super::target::Offer;
use super::*;

const IN_ONE_BATCH: usize = 10;

/// A topic with `count` messages and the builder of a consumer that gets them all.
struct Stage {
    client: Client,
    topic: String,
}

impl Stage {
    async fn new(target: &Target, name: &str) -> Self {
        Self { client: target.client().await, topic: target.topic(name) }
    }

    fn consumer(&self) -> ConsumerBuilder {
        self.client.consumer(&self.topic, "s").initial_position(InitialPosition::Earliest)
    }

    fn shared(&self) -> ConsumerBuilder {
        self.consumer().subscription_type(SubscriptionType::Shared)
    }

    /// Sends the numbers from 0, each in an entry of its own.
    async fn send_single(&self, count: usize) {
        let builder = self.client.producer(&self.topic).batching(false);
        let producer = created(builder).await;
        send_all(&producer, (0..count).map(|number| number.to_string())).await;
    }

    /// Sends the numbers from 0, ten in an entry.
    async fn send_batches(&self, count: usize) {
        let builder = self.client.producer(&self.topic).batching_max_publish_delay(Duration::from_secs(5));
        let builder = builder.batching_max_messages(u32::try_from(IN_ONE_BATCH).expect("small"));
        let producer = created(builder).await;
        let ids = send_all(&producer, (0..count).map(|number| number.to_string())).await;
        assert!(ids.iter().all(|id| id.batch_size() == Some(10)), "{ids:?}");
    }
}

async fn close(consumer: Consumer) {
    within("the close", consumer.close()).await.expect("closed");
}

/// Receives `count` numbers, sorted: Shared subscriptions promise no order.
async fn numbers(consumer: &mut Consumer, count: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> =
        texts(consumer, count).await.iter().map(|text| text.parse().expect("a number")).collect();
    numbers.sort_unstable();
    numbers
}

pub async fn individual(target: &Target) {
    let stage = Stage::new(target, "ack-individual").await;
    stage.send_single(10).await;
    let mut consumer = subscribed(stage.shared()).await;
    for message in receive_all(&mut consumer, 10).await {
        if message.to_string_lossy().parse::<usize>().expect("a number") % 2 == 0 {
            consumer.ack(&message).expect("acknowledged");
        }
    }
    close(consumer).await;
    assert_eq!(target.subscription(&stage.topic, "s").await.backlog, 5);
    let mut again = subscribed(stage.shared()).await;
    let messages = receive_all(&mut again, 5).await;
    for message in &messages {
        again.ack(message).expect("acknowledged");
    }
    let mut odd: Vec<_> = messages.iter().map(ReceivedMessage::to_string_lossy).collect();
    odd.sort_unstable();
    assert_eq!(odd, ["1", "3", "5", "7", "9"]);
    drained(target, &stage.topic, "s").await;
}

pub async fn cumulative(target: &Target) {
    for kind in [SubscriptionType::Exclusive, SubscriptionType::Failover] {
        let stage = Stage::new(target, "ack-cumulative").await;
        stage.send_single(10).await;
        let mut consumer = subscribed(stage.consumer().subscription_type(kind)).await;
        let messages = receive_all(&mut consumer, 10).await;
        consumer.ack_cumulative(&messages[2]).expect("acknowledged");
        consumer.ack_cumulative(&messages[6]).expect("acknowledged");
        close(consumer).await;
        let mut again = subscribed(stage.consumer().subscription_type(kind)).await;
        assert_eq!(texts(&mut again, 3).await, ["7", "8", "9"], "{kind:?}");
    }
}

/// The broker's figures are looked at once: a confirmed acknowledgement is there already. One that is not confirmed comes.
pub async fn confirmed(target: &Target) {
    let stage = Stage::new(target, "ack-confirmed").await;
    stage.send_single(5).await;
    let mut consumer = subscribed(stage.consumer()).await;
    let messages = receive_all(&mut consumer, 5).await;
    let backlog_is = async |backlog| {
        if target.offers(Offer::AckReceipts) {
            assert_eq!(target.subscription(&stage.topic, "s").await.backlog, backlog);
        }
        until("the backlog", || target.subscription(&stage.topic, "s"), |seen| seen.backlog == backlog).await;
    };
    target.confirm(&consumer, &messages[0]).await;
    backlog_is(4).await;
    let all = consumer.acker();
    target.confirmed(all.ack_cumulative_confirmed(&messages[3]), || consumer.ack_cumulative(&messages[3])).await;
    backlog_is(1).await;
}

pub async fn cumulative_is_refused_on_shared(target: &Target) {
    for kind in [SubscriptionType::Shared, SubscriptionType::KeyShared] {
        let stage = Stage::new(target, "ack-refused").await;
        stage.send_single(1).await;
        let mut consumer = subscribed(stage.consumer().subscription_type(kind)).await;
        let message = receive(&mut consumer).await;
        let error = consumer.ack_cumulative(&message).expect_err("a local refusal");
        assert_eq!(error.kind(), ErrorKind::NotAllowed, "{error}");
        let acker = consumer.acker();
        let error = within("the refusal", acker.ack_cumulative_confirmed(&message)).await.expect_err("a local refusal");
        assert_eq!(error.kind(), ErrorKind::NotAllowed, "{error}");
        target.confirm(&consumer, &message).await;
        drained(target, &stage.topic, "s").await;
    }
}

pub async fn close_sends_what_waits(target: &Target) {
    let stage = Stage::new(target, "ack-close").await;
    stage.send_single(20).await;
    let mut consumer = subscribed(stage.consumer().acknowledgment_group_time(Duration::from_secs(600))).await;
    for message in receive_all(&mut consumer, 20).await {
        consumer.ack(&message).expect("acknowledged");
    }
    close(consumer).await;
    assert_eq!(target.subscription(&stage.topic, "s").await.backlog, 0);
}

pub async fn drop_sends_what_waits(target: &Target) {
    let stage = Stage::new(target, "ack-drop").await;
    stage.send_single(20).await;
    let mut consumer = subscribed(stage.shared().acknowledgment_group_time(Duration::from_secs(600))).await;
    for message in receive_all(&mut consumer, 20).await {
        consumer.ack(&message).expect("acknowledged");
    }
    drop(consumer);
    drained(target, &stage.topic, "s").await;
}

pub async fn group_of_many(target: &Target) {
    let stage = Stage::new(target, "ack-group").await;
    stage.send_single(100).await;
    let builder =
        stage.consumer().acknowledgment_group_time(Duration::from_secs(600)).max_acknowledgment_group_size(100);
    let mut consumer = subscribed(builder).await;
    for message in receive_all(&mut consumer, 100).await {
        consumer.ack(&message).expect("acknowledged");
    }
    // Nothing but their number sends them.
    drained(target, &stage.topic, "s").await;
}

pub async fn members_of_a_batch(target: &Target) {
    for kind in [SubscriptionType::Shared, SubscriptionType::Exclusive] {
        let stage = Stage::new(target, "ack-members").await;
        stage.send_batches(20).await;
        let mut consumer = subscribed(stage.consumer().subscription_type(kind)).await;
        for message in receive_all(&mut consumer, 20).await {
            if [0, 2, 9, 10, 15].contains(&message.to_string_lossy().parse().expect("a number")) {
                target.confirm(&consumer, &message).await;
            }
        }
        close(consumer).await;
        let mut again = subscribed(stage.consumer().subscription_type(kind)).await;
        let left = receive_all(&mut again, 15).await;
        let mut numbers: Vec<usize> =
            left.iter().map(|message| message.to_string_lossy().parse().expect("a number")).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 16, 17, 18, 19], "{kind:?}");
        for message in &left {
            again.ack(message).expect("acknowledged");
        }
        drained(target, &stage.topic, "s").await;
    }
}

pub async fn members_cumulative(target: &Target) {
    let stage = Stage::new(target, "ack-members-cumulative").await;
    stage.send_batches(30).await;
    let mut consumer = subscribed(stage.consumer()).await;
    let messages = receive_all(&mut consumer, 30).await;
    let all = consumer.acker();
    target.confirmed(all.ack_cumulative_confirmed(&messages[14]), || consumer.ack_cumulative(&messages[14])).await;
    close(consumer).await;
    let mut again = subscribed(stage.consumer()).await;
    assert_eq!(numbers(&mut again, 15).await, (15..30).collect::<Vec<_>>());
}

/// Without acknowledgement by index the entry is the unit: its members come again until all are acknowledged.
pub async fn members_held_back(target: &Target) {
    let stage = Stage::new(target, "ack-held-back").await;
    stage.send_batches(10).await;
    let mut consumer = subscribed(stage.shared().batch_index_acknowledgment(false)).await;
    for message in &receive_all(&mut consumer, 10).await[..9] {
        consumer.ack(message).expect("acknowledged");
    }
    close(consumer).await;
    let mut again = subscribed(stage.shared().batch_index_acknowledgment(false)).await;
    let messages = receive_all(&mut again, 10).await;
    for message in &messages {
        again.ack(message).expect("acknowledged");
    }
    assert_eq!(messages.len(), 10);
    drained(target, &stage.topic, "s").await;
}

pub async fn by_id_from_other_threads(target: &Target) {
    let stage = Stage::new(target, "ack-threads").await;
    stage.send_batches(50).await;
    let mut consumer = subscribed(stage.shared()).await;
    let messages = receive_all(&mut consumer, 50).await;
    let threads: Vec<_> = (0..5)
        .map(|thread| {
            let acker = consumer.acker();
            // As an application keeps them.
            let kept: Vec<_> = messages.iter().skip(thread).step_by(5).map(|message| message.id().to_bytes()).collect();
            std::thread::spawn(move || {
                for bytes in &kept {
                    let id = MessageId::from_bytes(bytes).expect("an id");
                    acker.ack_id(&id).expect("acknowledged");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
    drained(target, &stage.topic, "s").await;
}

pub async fn message_of_another_consumer(target: &Target) {
    let stage = Stage::new(target, "ack-foreign").await;
    let other = Stage::new(target, "ack-foreign-other").await;
    stage.send_single(1).await;
    let mut consumer = subscribed(stage.consumer()).await;
    let stranger = subscribed(other.consumer()).await;
    let message = receive(&mut consumer).await;
    let error = stranger.ack(&message).expect_err("not its message");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains(&stage.topic), "names the topic: {error}");
}
