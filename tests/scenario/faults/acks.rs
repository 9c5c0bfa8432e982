//! What was not acknowledged comes again; what was confirmed does not; what is unknown counts as not acknowledged.

use super::support::*;

async fn filled(stage: &Stage, count: usize) -> Producer {
    let producer = stage.producer(TOPIC).await;
    confirmed(enqueue_numbers(&producer, 0..count).await).await;
    producer
}

#[tokio::test(start_paused = true)]
async fn acks_made_while_detached_go_out_on_re_attach() {
    for cut in [false, true] {
        let stage = Stage::new().await;
        let mut consumer = stage.consumer(TOPIC).await;
        drop(filled(&stage, 10).await);
        let mut messages = Vec::new();
        for _ in 0..10 {
            messages.push(within("a message", consumer.receive()).await.expect("a message"));
        }
        stage.broker.faults().on(FaultEvent::Subscribe).always().refuse_request(ServerCode::SERVICE_NOT_READY);
        if cut {
            stage.broker.drop_connections();
        } else {
            stage.broker.faults().close_consumers(TOPIC, None);
        }
        until("the loss to be noticed", || consumer.is_connected(), |connected| !connected).await;
        for message in &messages {
            consumer.ack(message).expect("it waits");
        }
        let acker = consumer.acker();
        let last = messages[9].clone();
        let confirmation = spawn(async move { acker.ack_confirmed(&last).await });
        pass(Duration::from_secs(3)).await;
        assert_eq!(stage.subscription(TOPIC).msg_backlog, 10);
        stage.broker.faults().clear();
        within("the confirmation", confirmation).await.expect("no panic").expect("confirmed");
        stage.drained(TOPIC).await;
        assert!(consumer.try_receive().expect("no error").is_none(), "nothing of it came back");
        stage.close_and_check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_lost_with_its_connection_is_requested_again() {
    let stage = Stage::new().await;
    let mut consumer = stage.consumer(TOPIC).await;
    drop(filled(&stage, 2).await);
    let message = within("a message", consumer.receive()).await.expect("a message");
    stage.broker.faults().on(FaultEvent::Ack).disconnect();
    within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed on the next connection");
    assert_eq!(stage.net.dials(), 2);
    assert_eq!(stage.subscription(TOPIC).msg_backlog, 1);
    assert_eq!(text(&mut consumer).await, "1", "what was confirmed does not come back");
    stage.close_and_check().await;
}

/// No answer ends the waiting for it and nothing else.
#[tokio::test(start_paused = true)]
async fn a_confirmation_without_a_response_ends_alone_by_its_deadline() {
    let stage = Stage::new().await;
    let mut consumer = stage.consumer(TOPIC).await;
    let producer = filled(&stage, 1).await;
    let message = within("a message", consumer.receive()).await.expect("a message");
    stage.broker.faults().on(FaultEvent::Ack).drop_response();
    let started = Instant::now();
    failed(within("the failure", consumer.ack_confirmed(&message)).await, ErrorKind::TimedOut);
    assert!(started.elapsed() <= TIMEOUT + SLACK, "{:?}", started.elapsed());
    assert_eq!(stage.net.dials(), 1, "the connection is as good as before");
    assert!(consumer.is_connected());
    send(&producer, "more").await;
    let message = within("a message", consumer.receive()).await.expect("a message");
    within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed");
    stage.drained(TOPIC).await;
    stage.close_and_check().await;
}

/// The close waits for the confirmations under way, and both end in time when none comes.
#[tokio::test(start_paused = true)]
async fn a_close_waits_for_confirmations_within_its_own_deadline() {
    let stage = Stage::new().await;
    let mut consumer = stage.consumer(TOPIC).await;
    drop(filled(&stage, 1).await);
    let message = within("a message", consumer.receive()).await.expect("a message");
    let acker = consumer.acker();
    stage.broker.faults().on(FaultEvent::Ack).drop_request();
    let waiting = spawn(async move { acker.ack_confirmed(&message).await });
    struck(&stage.broker, 1).await;
    let started = Instant::now();
    within("the close", consumer.close()).await.expect("closed");
    failed(within("the end of the wait", waiting).await.expect("no panic"), ErrorKind::TimedOut);
    assert!(started.elapsed() <= TIMEOUT + SLACK, "{:?}", started.elapsed());
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_acknowledgement_says_so_and_the_message_comes_again() {
    let stage = Stage::new().await;
    let mut consumer = stage.shared(TOPIC).await;
    drop(filled(&stage, 1).await);
    let message = within("a message", consumer.receive()).await.expect("a message");
    stage.broker.faults().on(FaultEvent::Ack).refuse_request(ServerCode::NOT_ALLOWED_ERROR);
    failed(within("the refusal", consumer.ack_confirmed(&message)).await, ErrorKind::NotAllowed);
    stage.broker.unload(TOPIC);
    assert_eq!(text(&mut consumer).await, "0");
    stage.close_and_check().await;
}

/// An acknowledgement that the broker never got leaves no trace here: the message is delivered again.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_was_lost_is_no_filter_on_re_attach() {
    let stage = Stage::new().await;
    let builder = stage.client.consumer(TOPIC, "s").subscription_type(SubscriptionType::Shared);
    let builder = builder.acknowledgment_group_time(Duration::ZERO);
    let mut consumer = subscribed(builder).await;
    drop(filled(&stage, 3).await);
    stage.broker.faults().on(FaultEvent::Ack).drop_request();
    let message = within("a message", consumer.receive()).await.expect("a message");
    consumer.ack(&message).expect("acknowledged");
    struck(&stage.broker, 1).await;
    stage.broker.drop_connections();
    until("the loss to be noticed", || consumer.is_connected(), |connected| !connected).await;
    until("the consumer to be back", || consumer.is_connected(), |connected| *connected).await;
    let seen = receive_up_to(&mut consumer, "2").await;
    assert_eq!(seen, ["0", "1", "2"], "the broker's cursor alone says what comes");
    stage.drained(TOPIC).await;
    stage.close_and_check().await;
}

/// Everything but what was confirmed comes again to the next consumer, however the first one ended.
#[tokio::test(start_paused = true)]
async fn only_what_was_not_confirmed_is_redelivered() {
    for kind in [SubscriptionType::Shared, SubscriptionType::KeyShared, SubscriptionType::Exclusive] {
        let stage = Stage::new().await;
        let builder = stage.client.consumer(TOPIC, "s").subscription_type(kind);
        let builder = builder.initial_position(InitialPosition::Earliest).receiver_queue_size(5);
        let mut consumer = subscribed(builder.clone()).await;
        drop(filled(&stage, 20).await);
        for _ in 0..10 {
            let message = within("a message", consumer.receive()).await.expect("a message");
            if message.to_string_lossy().parse::<u32>().expect("a number") % 3 == 0 {
                within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed");
            }
        }
        stage.broker.drop_connections();
        let mut rest = Vec::new();
        for _ in 0..16 {
            let message = within("a message", consumer.receive()).await.expect("a message");
            rest.push(message.to_string_lossy().into_owned());
            consumer.ack(&message).expect("acknowledged");
        }
        rest.sort_by_key(|text| text.parse::<u32>().expect("a number"));
        let expected: Vec<_> =
            numbers(0..20).into_iter().filter(|text| !["0", "3", "6", "9"].contains(&&**text)).collect();
        assert_eq!(rest, expected, "{kind:?}");
        stage.drained(TOPIC).await;
        stage.close_and_check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn close_sends_the_acknowledgements_that_wait() {
    let stage = Stage::new().await;
    let builder = stage.client.consumer(TOPIC, "s").acknowledgment_group_time(Duration::from_secs(600));
    let mut consumer = subscribed(builder).await;
    drop(filled(&stage, 10).await);
    for _ in 0..10 {
        let message = within("a message", consumer.receive()).await.expect("a message");
        consumer.ack(&message).expect("acknowledged");
    }
    within("the close", consumer.close()).await.expect("closed");
    assert_eq!(stage.subscription(TOPIC).msg_backlog, 0);
    stage.close_and_check().await;
}

/// An entry that comes twice may be seen twice; acknowledging it once is enough, and the permits stay right.
#[tokio::test(start_paused = true)]
async fn an_entry_delivered_twice_needs_one_acknowledgement() {
    for batched in [false, true] {
        let stage = Stage::new().await;
        let mut consumer = stage.shared(TOPIC).await;
        stage.broker.faults().on(FaultEvent::Delivery).always().duplicate_response();
        let builder = stage.client.producer(TOPIC).batching(batched);
        let producer = created(builder).await;
        for round in 0..4 {
            confirmed(enqueue_numbers(&producer, round * 10..round * 10 + 10).await).await;
        }
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 40 {
            let message = within("a message", consumer.receive()).await.expect("a message");
            seen.insert(message.to_string_lossy().into_owned());
            consumer.ack(&message).expect("acknowledged");
        }
        stage.drained(TOPIC).await;
        // What has not been received yet comes out, and then all permits are back.
        while let Ok(message) = tokio::time::timeout(Duration::from_secs(1), consumer.receive()).await {
            consumer.ack(&message.expect("a message")).expect("acknowledged");
        }
        let permits = stage.subscription(TOPIC).consumers[0].available_permits;
        assert!((500..=1000).contains(&permits), "{permits}");
        stage.close_and_check().await;
    }
}

/// The members of a batch that were not acknowledged come again, alone where the broker knows members, else with all.
#[tokio::test(start_paused = true)]
async fn a_batch_acknowledged_in_part_is_not_acknowledged_whole() {
    for index in [true, false] {
        let stage = Stage::new().await;
        let builder =
            stage.client.producer(TOPIC).batching_max_publish_delay(Duration::from_secs(1)).batching_max_messages(5);
        let producer = created(builder).await;
        confirmed(enqueue_numbers(&producer, 0..5).await).await;
        let builder = stage.client.consumer(TOPIC, "s").initial_position(InitialPosition::Earliest);
        let builder = builder.subscription_type(SubscriptionType::Shared).batch_index_acknowledgment(index);
        let mut consumer = subscribed(builder.clone()).await;
        for _ in 0..2 {
            let message = within("a message", consumer.receive()).await.expect("a message");
            consumer.ack(&message).expect("acknowledged");
        }
        stage.broker.drop_connections();
        until("the loss to be noticed", || consumer.is_connected(), |connected| !connected).await;
        within("the close", consumer.close()).await.expect("closed");
        let mut consumer = subscribed(builder).await;
        let expected = if index { numbers(2..5) } else { numbers(0..5) };
        assert_eq!(receive_up_to(&mut consumer, "4").await, expected, "{index}");
        stage.drained(TOPIC).await;
        stage.close_and_check().await;
    }
}

async fn received(consumer: &mut Consumer, count: usize) -> Vec<ReceivedMessage> {
    let mut messages = Vec::new();
    for _ in 0..count {
        messages.push(within("a message", consumer.receive()).await.expect("a message"));
    }
    messages
}

/// Lists of ids are acknowledged over topics and partitions, however long: 12,000 take more than one request.
#[tokio::test(start_paused = true)]
async fn lists_of_ids_are_acknowledged_over_topics_and_partitions() {
    const MESSAGES: usize = 12_000;
    for confirmed_by_broker in [false, true] {
        let broker = EmbeddedBroker::builder().partitioned_topic("parts", 3);
        let stage = Stage::with(broker, |builder| builder).await;
        let builder = stage.client.consumer(["parts", "plain"], "s").initial_position(InitialPosition::Earliest);
        let builder = builder.subscription_type(SubscriptionType::Shared);
        let mut consumer = subscribed(builder).await;
        for (topic, messages) in [("plain", MESSAGES), ("parts", 300)] {
            let producer = created(stage.client.producer(topic)).await;
            confirmed(enqueue_numbers(&producer, 0..messages).await).await;
        }
        let ids: Vec<_> = received(&mut consumer, MESSAGES + 300).await.iter().map(ReceivedMessage::id).collect();
        if confirmed_by_broker {
            within("the confirmation", consumer.ack_ids_confirmed(&ids)).await.expect("confirmed");
        } else {
            consumer.ack_ids(&ids).expect("acknowledged");
        }
        for topic in ["plain", "parts-partition-0", "parts-partition-1", "parts-partition-2"] {
            if confirmed_by_broker {
                assert_eq!(stage.subscription(topic).msg_backlog, 0, "{topic}: confirmed is done");
            }
            stage.drained(topic).await;
        }
        stage.close_and_check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn ids_that_were_kept_do_what_their_messages_do() {
    let stage = Stage::new().await;
    let builder = stage.client.consumer(TOPIC, "s").negative_ack_redelivery_delay(Duration::from_secs(1));
    let mut consumer = subscribed(builder).await;
    drop(filled(&stage, 10).await);
    let kept: Vec<_> = received(&mut consumer, 10).await.iter().map(|message| message.id().to_bytes()).collect();
    // As they come back from storage, without a topic.
    let id = |number: usize| MessageId::from_bytes(&kept[number]).expect("an id");
    let backlog = || stage.subscription(TOPIC).msg_backlog;
    consumer.ack_cumulative_id(&id(3)).expect("acknowledged");
    until("the acknowledgement", backlog, |left| *left == 6).await;
    within("the confirmation", consumer.ack_cumulative_id_confirmed(&id(5))).await.expect("confirmed");
    assert_eq!(backlog(), 4);
    within("the confirmation", consumer.ack_id_confirmed(&id(7))).await.expect("confirmed");
    assert_eq!(backlog(), 3);
    consumer.ack_id(&id(9)).expect("acknowledged");
    until("the acknowledgement", backlog, |left| *left == 2).await;
    consumer.nack_id(&id(6)).expect("noted");
    consumer.nack_ids(&[id(8)]).expect("noted");
    let again = received(&mut consumer, 2).await;
    assert_eq!([again[0].id(), again[1].id()], [id(6), id(8)]);
    consumer.ack_ids(&[id(6), id(8)]).expect("acknowledged");
    stage.drained(TOPIC).await;
    stage.close_and_check().await;
}

/// Nothing is acknowledged where it does not belong, and a list with such an id acknowledges none of its messages.
#[tokio::test(start_paused = true)]
async fn what_is_not_of_this_consumer_is_refused() {
    let stage = Stage::new().await;
    drop(filled(&stage, 2).await);
    let builder = stage.client.consumer(TOPIC, "other").initial_position(InitialPosition::Earliest);
    let mut other = subscribed(builder).await;
    let mut consumer = stage.consumer(TOPIC).await;
    let (theirs, ours) = (received(&mut other, 1).await.remove(0), received(&mut consumer, 2).await);
    failed(consumer.ack(&theirs), ErrorKind::InvalidArgument);
    failed(consumer.nack(&theirs), ErrorKind::InvalidArgument);
    failed(within("the refusal", consumer.ack_confirmed(&theirs)).await, ErrorKind::InvalidArgument);
    let elsewhere = ours[1].id().with_topic("persistent://public/default/elsewhere");
    failed(consumer.ack_ids(&[ours[0].id(), elsewhere.clone()]), ErrorKind::InvalidArgument);
    failed(within("the refusal", consumer.ack_id_confirmed(&elsewhere)).await, ErrorKind::InvalidArgument);
    pass(Duration::from_secs(1)).await;
    assert_eq!(stage.subscription(TOPIC).msg_backlog, 2);
    within("the close", consumer.close()).await.expect("closed");
    failed(consumer.ack(&ours[0]), ErrorKind::Closed);
    stage.close_and_check().await;
}

/// As their documentation says: what is not acknowledged is delivered again anyway, so only acknowledgements are refused.
#[tokio::test(start_paused = true)]
async fn after_a_close_acks_are_refused_and_nacks_do_nothing() {
    let stage = Stage::new().await;
    let (producer, mut consumer) = (stage.producer(TOPIC).await, stage.consumer(TOPIC).await);
    send(&producer, "x").await;
    let message = within("a message", consumer.receive()).await.expect("a message");
    within("the close", consumer.close()).await.expect("closed");
    failed(consumer.ack(&message), ErrorKind::Closed);
    failed(consumer.ack_cumulative(&message), ErrorKind::Closed);
    failed(within("a refusal", consumer.ack_confirmed(&message)).await, ErrorKind::Closed);
    consumer.nack(&message).expect("it does nothing");
    consumer.nack_id(&message.id()).expect("it does nothing");
    consumer.nack_ids(&[message.id()]).expect("it does nothing");
    assert_eq!(text(&mut stage.consumer(TOPIC).await).await, "x");
    stage.close_and_check().await;
}
