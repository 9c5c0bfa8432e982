//! This client, through its public API: a future for each message, as an application would.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pulsar_native::{
    BatchingType, Client, ClientBuilder, Error, Message, PendingSend, Producer, ProducerBuilder, SubscriptionType,
};

use crate::latency::{Latencies, OpenLoop, PingPong};
use crate::measurement::Measurement;
use crate::work::{Consume, Produce, WARM_UP_DIVISOR};

/// A client of a sink, which has TLS or not.
fn at(url: &str) -> ClientBuilder {
    match url.starts_with("pulsar+ssl") {
        true => Client::builder(url).ca_file(crate::tls::ca_file()),
        false => Client::builder(url),
    }
}

/// Sends, each with its future; the oldest is awaited when too many are in flight.
pub(crate) async fn produce(url: &str, work: &Produce) -> Result<String, Error> {
    let client = at(url).connect().await?;
    let mut producers = Vec::new();
    for number in 0..work.producers {
        let fill = Duration::from_millis(work.fill_ms);
        let builder = builder(&client, &format!("t{number}"), work.batch, fill);
        let batching_type = if work.by_key { BatchingType::KeyBased } else { BatchingType::Default };
        producers.push(builder.batching_type(batching_type).create().await?);
    }
    // Borrowed for ever, as the baseline's is: what counting references to a payload costs is the caller's choice.
    let payload = Bytes::from_static(Vec::leak(vec![b'x'; work.size]));
    produce_some(&producers, &payload, work, work.messages / WARM_UP_DIVISOR).await?;
    let measurement = Measurement::start();
    produce_some(&producers, &payload, work, work.messages).await?;
    let figures = measurement.stop(work.messages);
    client.close().await?;
    Ok(figures)
}

fn builder(client: &Client, topic: &str, batch: u64, fill: Duration) -> ProducerBuilder {
    let builder = client.producer(topic).batching(batch > 1).batching_max_messages(batch.max(1) as u32);
    builder.batching_max_publish_delay(fill)
}

async fn produce_some(producers: &[Producer], payload: &Bytes, work: &Produce, messages: u64) -> Result<(), Error> {
    let mut in_flight: VecDeque<PendingSend> = VecDeque::with_capacity(work.in_flight as usize);
    for number in 0..messages {
        if in_flight.len() as u64 >= work.in_flight {
            if let Some(oldest) = in_flight.pop_front() {
                oldest.await?;
            }
        }
        let producer = &producers[number as usize % producers.len()];
        let mut message = Message::new(payload.clone());
        if work.keys > 0 {
            message = message.with_key(format!("key-{}", number % work.keys));
        }
        in_flight.push_back(producer.enqueue(message).await?);
    }
    for send in in_flight {
        send.await?;
    }
    Ok(())
}

/// Receives and acknowledges, message by message, by a client with this `receive_memory_limit`, bytes.
pub(crate) async fn consume(url: &str, work: &Consume, memory_limit: usize) -> Result<String, Error> {
    let client = at(url).receive_memory_limit(memory_limit).connect().await?;
    let builder = client.consumer(work.topics().collect::<Vec<_>>(), "s").subscription_type(SubscriptionType::Shared);
    let mut consumer = builder.receiver_queue_size(work.queue).subscribe().await?;
    let warm_up = work.messages / WARM_UP_DIVISOR;
    let mut measurement = Measurement::start();
    for number in 0..work.messages {
        if number == warm_up {
            measurement = Measurement::start();
        }
        let message = consumer.receive().await?;
        std::hint::black_box(message.payload());
        consumer.ack(&message)?;
    }
    let figures = measurement.stop(work.messages - warm_up);
    consumer.close().await?;
    client.close().await?;
    Ok(figures)
}

/// Producers that are created one after another, and closed together.
pub(crate) async fn attach(url: &str, producers: u64) -> Result<String, Error> {
    let client = at(url).connect().await?;
    let mut all = Vec::new();
    for number in 0..producers {
        all.push(client.producer(format!("t{number}")).create().await?);
    }
    client.close().await?;
    Ok(format!("messages={producers}"))
}

/// Sends each of which is answered by the end of the connection, so that eleven producers attach anew, and then by its receipt.
pub(crate) async fn reconnect(url: &str, times: u64) -> Result<String, Error> {
    let client = at(url).connect().await?;
    let mut others = Vec::new();
    for number in 0..10 {
        others.push(client.producer(format!("t{number}")).create().await?);
    }
    // A process of its own each time, and sequence ids that no other one has used.
    let first = u64::from(std::process::id()) << 20;
    let producer = builder(&client, "cut", 1, Duration::ZERO).create().await?;
    for number in 0..times {
        producer.send(Message::new("x").with_sequence_id(first + number)).await?;
    }
    client.close().await?;
    Ok(format!("messages={times}"))
}

/// One send, its receipt, the next.
pub(crate) async fn ping_pong(url: &str, work: &PingPong) -> Result<String, Error> {
    let client = at(url).connect().await?;
    let producer = builder(&client, "t", 1, Duration::ZERO).create().await?;
    let payload = Bytes::from(vec![b'x'; work.size]);
    let mut latencies = Latencies::default();
    let warm_up = work.messages / WARM_UP_DIVISOR;
    for round in 0..work.messages + warm_up {
        let start = Instant::now();
        producer.send(payload.clone()).await?;
        if round >= warm_up {
            latencies.add(start.elapsed());
        }
    }
    client.close().await?;
    Ok(latencies.words())
}

/// Sends at a fixed rate from a thread of its own; latencies count from when a message was due, so that a stall shows
/// in all the messages that it held up.
pub(crate) async fn open_loop(url: &str, work: &OpenLoop) -> Result<String, Error> {
    let client = at(url).connect().await?;
    let producer = builder(&client, "t", 1000, Duration::ZERO).create().await?;
    let latencies = Arc::new(Mutex::new(Latencies::default()));
    let (runtime, kept, work) = (tokio::runtime::Handle::current(), latencies.clone(), work.clone());
    let pacing = tokio::task::spawn_blocking(move || {
        let payload = Bytes::from(vec![b'x'; work.size]);
        let start = Instant::now();
        let gap = Duration::from_secs(1) / work.rate as u32;
        for number in 0..work.messages {
            let due = start + gap * number as u32;
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(early);
            }
            let kept = kept.clone();
            let stored = move |result: Result<_, _>| {
                if result.is_ok() {
                    kept.lock().expect("nobody panics with it").add(due.elapsed());
                }
            };
            runtime.block_on(producer.enqueue_with(payload.clone(), stored))?;
        }
        runtime.block_on(producer.flush())
    });
    pacing.await.expect("the pacing thread ends in order")?;
    client.close().await?;
    let latencies = std::mem::take(&mut *latencies.lock().expect("nobody panics with it"));
    Ok(latencies.words())
}
