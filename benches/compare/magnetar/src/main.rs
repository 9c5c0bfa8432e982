//! magnetar, with its best settings for each kind of work:
//!
//! - `send`, which queues at once, its future awaited later; no limit of memory (its default);
//! - batches by count, with a delay of 1 ms for the last of them;
//! - 5,000 messages in the receiver queue, acknowledgements grouped for 100 ms (`ack_group_time`, `ack_grouped`);
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
            _ => latency(&job).await,
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

async fn producer(job: &Job, client: &PulsarClient, topic: String, codec: CompressionKind) -> Result<Producer, Error> {
    let mut builder = client.producer(topic).compression(codec);
    if job.batch() > 1 {
        builder = builder.batching(job.batch() as usize, BATCH_BYTES_MAX);
        builder = builder.batching_max_publish_delay(job.batch_delay());
    }
    Ok(builder.create().await?)
}

async fn produce(job: &Job) -> Result<String, Error> {
    let client = client(job).await?;
    let codec = match job.codec() {
        "lz4" => CompressionKind::Lz4,
        "zlib" => CompressionKind::Zlib,
        "zstd" => CompressionKind::Zstd,
        "snappy" => CompressionKind::Snappy,
        _ => CompressionKind::None,
    };
    let mut producers = Vec::new();
    for number in 0..job.producers() {
        producers.push(producer(job, &client, format!("{}{number}", job.topic()), codec).await?);
    }
    let payloads: Vec<Bytes> = job.payloads().into_iter().map(Bytes::from).collect();
    produce_some(&producers, &payloads, job.in_flight(), job.warm_up()).await?;
    let measurement = Measurement::start();
    produce_some(&producers, &payloads, job.in_flight(), job.messages()).await?;
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

async fn consumer(job: &Job, client: &PulsarClient) -> Result<Consumer, Error> {
    let builder = client.consumer(job.topic()).subscription("s").subscription_type(SubType::Shared);
    let builder = builder.initial_position(InitialPosition::Earliest).ack_group_time(Duration::from_millis(100));
    Ok(builder.receiver_queue_size(job.queue() as usize).subscribe().await?)
}

async fn consume(job: &Job) -> Result<String, Error> {
    let client = client(job).await?;
    let consumer = consumer(job, &client).await?;
    let mut measurement = Measurement::start();
    for number in 0..job.messages() {
        if number == job.warm_up() {
            measurement = Measurement::start();
        }
        let message = consumer.receive().await?;
        std::hint::black_box(&message.payload);
        consumer.ack_grouped(message.message_id);
    }
    let figures = measurement.stop(job.messages() - job.warm_up());
    // A close would drop the last group of acknowledgements. The driver closes standard input once it has seen them all.
    let (mut stdin, mut sink) = (tokio::io::stdin(), tokio::io::sink());
    let _ = tokio::time::timeout(LAST_GROUP_MAX, tokio::io::copy(&mut stdin, &mut sink)).await;
    consumer.close().await?;
    Ok(figures)
}

async fn latency(job: &Job) -> Result<String, Error> {
    let client = client(job).await?;
    let consumer = consumer(job, &client).await?;
    let producer = producer(job, &client, job.topic(), CompressionKind::None).await?;
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
