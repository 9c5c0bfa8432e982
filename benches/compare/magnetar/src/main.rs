//! magnetar, with its best settings for each kind of work:
//!
//! - `send`, which queues at once, its future awaited later; no limit of memory (its default);
//! - batches by count, with a delay of 1 ms for the last of them;
//! - 5,000 messages in the receiver queue, acknowledgements grouped for 100 ms (`ack_group_time`, `ack_grouped`);
//! - the producers of a partitioned topic taken in turns, since the handle over them queues nothing without awaiting it;
//! - for latencies, batches at the high rate, with the delay that suits it best, and none at the low one.

#[path = "../../common/mod.rs"]
mod common;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Job, Latencies, Measurement};
use magnetar::PulsarClient;
use magnetar::proto::auth::TokenAuth;
use magnetar::proto::pb::command_subscribe::{InitialPosition, SubType};
use magnetar::proto::types::CompressionKind;
use magnetar::runtime_tokio::{Consumer, Producer, SendFut};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// How long the last group of acknowledgements may take to arrive at the sink.
const LAST_GROUP_MAX: Duration = Duration::from_secs(10);

/// Far above what a batch may hold by its count: the count decides.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

fn main() {
    let job = Job::from_args();
    job.run(async {
        match job.workload.as_str() {
            "produce" => produce(&job).await,
            "consume" => consume(&job).await,
            "latency" => latency(&job).await,
            _ => start(&job).await,
        }
    });
}

async fn client(job: &Job) -> Result<PulsarClient, Error> {
    let mut builder = PulsarClient::builder().service_url(&job.url);
    if let Some(token) = &job.token {
        builder = builder.auth(Arc::new(TokenAuth::from_string(token.clone())));
    }
    Ok(builder.build().await?)
}

fn codec(job: &Job) -> CompressionKind {
    match job.codec() {
        "lz4" => CompressionKind::Lz4,
        "zlib" => CompressionKind::Zlib,
        "zstd" => CompressionKind::Zstd,
        "snappy" => CompressionKind::Snappy,
        _ => CompressionKind::None,
    }
}

async fn producer(job: &Job, client: &PulsarClient, topic: String) -> Result<Producer, Error> {
    let mut builder = client.producer(topic).compression(codec(job));
    if job.batch() > 1 {
        builder = builder.batching(job.batch() as usize, BATCH_BYTES_MAX);
        builder = builder.batching_max_publish_delay(job.batch_delay());
    }
    Ok(builder.create().await?)
}

async fn produce(job: &Job) -> Result<String, Error> {
    let client = client(job).await?;
    if job.partitions() > 0 {
        let partitioned = client.partitioned_producer(format!("{}0", job.topic())).create().await?;
        return produce_with(job, partitioned.child_producers()).await;
    }
    let mut producers = Vec::new();
    for number in 0..job.producers() {
        producers.push(producer(job, &client, format!("{}{number}", job.topic())).await?);
    }
    produce_with(job, &producers).await
}

async fn produce_with(job: &Job, producers: &[Producer]) -> Result<String, Error> {
    let payloads: Vec<Bytes> = job.payloads().into_iter().map(Bytes::from).collect();
    produce_some(producers, &payloads, job.in_flight(), job.warm_up()).await?;
    let measurement = Measurement::start();
    produce_some(producers, &payloads, job.in_flight(), job.messages()).await?;
    Ok(measurement.stop(job.messages()))
}

async fn produce_some(
    producers: &[Producer],
    payloads: &[Bytes],
    in_flight_max: usize,
    messages: u64,
) -> Result<(), Error> {
    let mut in_flight: VecDeque<SendFut> = VecDeque::with_capacity(in_flight_max);
    for number in 0..messages as usize {
        if in_flight.len() >= in_flight_max {
            if let Some(oldest) = in_flight.pop_front() {
                oldest.await?;
            }
        }
        let payload = payloads[number % payloads.len()].clone();
        in_flight.push_back(producers[number % producers.len()].send_bytes(payload));
    }
    for send in in_flight {
        send.await?;
    }
    Ok(())
}

/// In 100 ms the acknowledgements of messages in batches of 1,000 outgrow what a broker takes as one frame, and it ends
/// the connection.
fn ack_group(job: &Job) -> Duration {
    Duration::from_millis(if job.batch() > 100 { 10 } else { 100 })
}

async fn consumer(job: &Job, client: &PulsarClient) -> Result<Consumer, Error> {
    let builder = client.consumer(job.topic()).subscription(job.subscription()).subscription_type(SubType::Shared);
    let builder = builder.initial_position(InitialPosition::Earliest).ack_group_time(ack_group(job));
    Ok(builder.receiver_queue_size(job.queue() as usize).subscribe().await?)
}

async fn consume(job: &Job) -> Result<String, Error> {
    let client = client(job).await?;
    if job.topics().len() == 1 {
        let consumer = consumer(job, &client).await?;
        let receive = async || {
            let message = consumer.receive().await?;
            std::hint::black_box(&message.payload);
            consumer.ack_grouped(message.message_id);
            Ok(())
        };
        return consume_with(job, receive).await;
    }
    let builder = client.multi_topics_consumer().topics(job.topics()).subscription(job.subscription());
    let builder = builder.subscription_type(SubType::Shared).initial_position(InitialPosition::Earliest);
    let builder = builder.ack_group_time(ack_group(job)).receiver_queue_size(job.queue() as usize);
    let consumer = builder.subscribe().await?;
    let receive = async || {
        let received = consumer.receive().await?;
        std::hint::black_box(&received.message.payload);
        consumer.ack_grouped(&received.topic, received.message.message_id)?;
        Ok(())
    };
    consume_with(job, receive).await
}

async fn consume_with(job: &Job, receive: impl AsyncFn() -> Result<(), Error>) -> Result<String, Error> {
    for _ in 0..job.warm_up() {
        receive().await?;
    }
    let measurement = Measurement::start();
    for _ in 0..job.messages() {
        receive().await?;
    }
    let figures = measurement.stop(job.messages());
    // A close would drop the last group of acknowledgements. The driver closes standard input once it has seen them all.
    let (mut stdin, mut sink) = (tokio::io::stdin(), tokio::io::sink());
    let _ = tokio::time::timeout(LAST_GROUP_MAX, tokio::io::copy(&mut stdin, &mut sink)).await;
    Ok(figures)
}

/// A message of a process that has just begun, there and back.
async fn start(job: &Job) -> Result<String, Error> {
    let client = client(job).await?;
    let consumer = consumer(job, &client).await?;
    let producer = producer(job, &client, job.topic()).await?;
    producer.send_bytes(Bytes::from(job.payloads().remove(0))).await?;
    let message = consumer.receive().await?;
    consumer.ack_grouped(message.message_id);
    Ok(job.so_far())
}

async fn latency(job: &Job) -> Result<String, Error> {
    let client = client(job).await?;
    let consumer = consumer(job, &client).await?;
    let producer = producer(job, &client, job.topic()).await?;
    let pace = job.pace();
    let (keep, mut kept) = tokio::sync::mpsc::unbounded_channel::<SendFut>();
    // A send future that is dropped gives its place up, so all are awaited.
    tokio::spawn(async move {
        while let Some(send) = kept.recv().await {
            send.await.expect("stored");
        }
    });
    let pacing = tokio::task::spawn_blocking(move || {
        for number in 0..pace.messages {
            let _ = keep.send(producer.send_bytes(pace.wait(number)));
        }
        producer
    });
    let mut latencies = Latencies::default();
    for number in 0..pace.messages {
        let message = consumer.receive().await?;
        pace.arrived(number, &message.payload, &mut latencies);
        consumer.ack_grouped(message.message_id);
    }
    pacing.await?;
    Ok(latencies.words())
}
