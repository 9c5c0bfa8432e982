//! This client. Defaults, but for the batch size that the work asks for, with the millisecond to fill it that all clients
//! get, the receiver's queue that all clients get, and room for the window of large messages.

#[path = "../../common/mod.rs"]
mod common;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use common::{Job, Latencies, Measurement};
use pulsar_native::{
    Client, Compression, Consumer, Error, InitialPosition, PendingSend, Producer, SubscriptionType, Token,
};

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

async fn client(job: &Job) -> Result<Client, Error> {
    let builder = Client::builder(&job.url);
    match &job.token {
        Some(token) => builder.authentication(Token::new(token.as_str())).connect().await,
        None => builder.connect().await,
    }
}

fn codec(job: &Job) -> Compression {
    match job.codec() {
        "lz4" => Compression::Lz4,
        "zlib" => Compression::Zlib,
        "zstd" => Compression::Zstd,
        "snappy" => Compression::Snappy,
        _ => Compression::None,
    }
}

async fn produce(job: &Job) -> Result<String, Error> {
    let client = client(job).await?;
    let mut producers = Vec::new();
    for number in 0..job.producers() {
        let builder = client.producer(format!("{}{number}", job.topic()));
        let builder = builder.batching(job.batch() > 1).batching_max_messages(job.batch() as u32);
        let builder = builder.batching_max_publish_delay(Duration::from_millis(u64::from(job.batch() > 1)));
        // As the others, which compress payloads of any size.
        let builder = builder.compression(codec(job)).compress_min_msg_body_size(0);
        producers.push(builder.create().await?);
    }
    let payloads: Vec<Bytes> = job.payloads().into_iter().map(Bytes::from).collect();
    produce_some(&producers, &payloads, job.in_flight(), job.warm_up()).await?;
    let measurement = Measurement::start();
    produce_some(&producers, &payloads, job.in_flight(), job.messages()).await?;
    Ok(measurement.stop(job.messages()))
}

/// A future for each message; the oldest is awaited when too many are in flight.
async fn produce_some(
    producers: &[Producer],
    payloads: &[Bytes],
    in_flight_max: usize,
    messages: u64,
) -> Result<(), Error> {
    let mut in_flight: VecDeque<PendingSend> = VecDeque::with_capacity(in_flight_max);
    for number in 0..messages as usize {
        if in_flight.len() >= in_flight_max {
            if let Some(oldest) = in_flight.pop_front() {
                oldest.await?;
            }
        }
        let payload = payloads[number % payloads.len()].clone();
        in_flight.push_back(producers[number % producers.len()].enqueue(payload).await?);
    }
    for send in in_flight {
        send.await?;
    }
    Ok(())
}

async fn consumer(job: &Job, client: &Client) -> Result<Consumer, Error> {
    let builder = client.consumer(job.topics(), job.subscription()).subscription_type(SubscriptionType::Shared);
    let builder = builder.initial_position(InitialPosition::Earliest);
    builder.receiver_queue_size(job.queue()).subscribe().await
}

async fn consume(job: &Job) -> Result<String, Error> {
    let client = client(job).await?;
    let mut consumer = consumer(job, &client).await?;
    take(&mut consumer, job.warm_up()).await?;
    let measurement = Measurement::start();
    take(&mut consumer, job.messages()).await?;
    let figures = measurement.stop(job.messages());
    consumer.close().await?;
    Ok(figures)
}

async fn take(consumer: &mut Consumer, messages: u64) -> Result<(), Error> {
    for _ in 0..messages {
        let message = consumer.receive().await?;
        std::hint::black_box(message.payload());
        consumer.ack(&message)?;
    }
    Ok(())
}

/// A message of a process that has just begun, there and back.
async fn start(job: &Job) -> Result<String, Error> {
    let client = client(job).await?;
    let mut consumer = consumer(job, &client).await?;
    let producer = client.producer(job.topic()).create().await?;
    producer.send(job.payloads().remove(0)).await?;
    let message = consumer.receive().await?;
    consumer.ack(&message)?;
    Ok(job.so_far())
}

/// Batching stays on at every rate: without a linger it delays nothing.
async fn latency(job: &Job) -> Result<String, Error> {
    let client = client(job).await?;
    let mut consumer = consumer(job, &client).await?;
    let producer = client.producer(job.topic()).create().await?;
    let (pace, runtime) = (job.pace(), tokio::runtime::Handle::current());
    let pacing = tokio::task::spawn_blocking(move || {
        for number in 0..pace.messages {
            let payload = pace.wait(number);
            runtime.block_on(producer.enqueue_with(payload, |outcome| assert!(outcome.is_ok())))?;
        }
        runtime.block_on(producer.flush())
    });
    let mut latencies = Latencies::default();
    for number in 0..pace.messages {
        let message = consumer.receive().await?;
        pace.arrived(number, message.payload(), &mut latencies);
        consumer.ack(&message)?;
    }
    pacing.await.expect("the pacing thread ends in order")?;
    consumer.close().await?;
    Ok(latencies.words())
}
