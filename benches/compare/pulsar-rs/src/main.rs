//! pulsar-rs, with its best settings for each kind of work:
//!
//! - an outbound channel for 5,000 commands instead of 100, and sends that wait for room in it instead of failing;
//! - `send_non_blocking`, which does not wait for receipts;
//! - 5,000 permits (`batch_size` of the consumer) and 5,000 messages in its receiver queue;
//! - acknowledgements by `ack`, one command each: it has no way to group them but the cumulative one;
//! - for latencies, batches at the high rate, with the timeout that suits it best, and none at the low one.

#[path = "../../common/mod.rs"]
mod common;

use std::collections::VecDeque;

use common::{Job, Latencies, Measurement};
use futures::TryStreamExt;
use pulsar::compression::{Compression, CompressionLz4, CompressionZlib, CompressionZstd};
use pulsar::consumer::InitialPosition;
use pulsar::producer::{ProducerOptions, SendFuture};
use pulsar::{Authentication, Consumer, ConsumerOptions, Error, Producer, Pulsar, SubType, TokioExecutor};

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

async fn client(job: &Job) -> Result<Pulsar<TokioExecutor>, Error> {
    let mut builder = Pulsar::builder(&job.url, TokioExecutor).with_outbound_channel_size(5000);
    if let Some(token) = &job.token {
        builder = builder.with_auth(Authentication { name: "token".to_owned(), data: token.clone().into_bytes() });
    }
    builder.build().await
}

fn options(job: &Job) -> ProducerOptions {
    ProducerOptions {
        batch_size: (job.batch() > 1).then_some(job.batch() as u32),
        batch_timeout: (job.batch() > 1).then(|| job.batch_delay()),
        block_queue_if_full: true,
        ..ProducerOptions::default()
    }
}

async fn produce(job: &Job) -> Result<String, Error> {
    let client = client(job).await?;
    let mut producers = Vec::new();
    for number in 0..job.producers() {
        let mut options = options(job);
        options.compression = match job.codec() {
            "lz4" => Some(Compression::Lz4(CompressionLz4::default())),
            "zlib" => Some(Compression::Zlib(CompressionZlib::default())),
            "zstd" => Some(Compression::Zstd(CompressionZstd::default())),
            _ => None,
        };
        let builder = client.producer().with_topic(format!("{}{number}", job.topic())).with_options(options);
        producers.push(builder.build().await?);
    }
    let payloads = job.payloads();
    produce_some(&mut producers, &payloads, job.in_flight(), job.warm_up()).await?;
    let measurement = Measurement::start();
    produce_some(&mut producers, &payloads, job.in_flight(), job.messages()).await?;
    Ok(measurement.stop(job.messages()))
}

async fn produce_some(
    producers: &mut [Producer<TokioExecutor>],
    payloads: &[Vec<u8>],
    in_flight_max: usize,
    messages: u64,
) -> Result<(), Error> {
    let mut in_flight: VecDeque<SendFuture> = VecDeque::with_capacity(in_flight_max);
    let count = producers.len();
    for number in 0..messages as usize {
        if in_flight.len() >= in_flight_max {
            if let Some(oldest) = in_flight.pop_front() {
                oldest.await?;
            }
        }
        let payload = payloads[number % payloads.len()].as_slice();
        in_flight.push_back(producers[number % count].send_non_blocking(payload).await?);
    }
    for producer in producers.iter_mut().filter(|producer| producer.options().batch_size.is_some()) {
        producer.send_batch().await?;
    }
    for send in in_flight {
        send.await?;
    }
    Ok(())
}

async fn consumer(job: &Job, client: &Pulsar<TokioExecutor>) -> Result<Consumer<Vec<u8>, TokioExecutor>, Error> {
    let options = ConsumerOptions::default().with_receiver_queue_size(job.queue());
    let options = options.with_initial_position(InitialPosition::Earliest);
    let builder = client.consumer().with_topics(job.topics()).with_subscription(job.subscription());
    let builder = builder.with_consumer_name("c");
    let builder = builder.with_subscription_type(SubType::Shared).with_batch_size(job.queue());
    builder.with_options(options).build().await
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

async fn take(consumer: &mut Consumer<Vec<u8>, TokioExecutor>, messages: u64) -> Result<(), Error> {
    for _ in 0..messages {
        let message = consumer.try_next().await?.expect("the stream stays");
        std::hint::black_box(&message.payload.data);
        consumer.ack(&message).await?;
    }
    Ok(())
}

/// A message of a process that has just begun, there and back.
async fn start(job: &Job) -> Result<String, Error> {
    let client = client(job).await?;
    let mut consumer = consumer(job, &client).await?;
    let mut producer = client.producer().with_topic(job.topic()).with_options(options(job)).build().await?;
    producer.send_non_blocking(job.payloads().remove(0)).await?.await?;
    let message = consumer.try_next().await?.expect("the stream stays");
    consumer.ack(&message).await?;
    Ok(job.so_far())
}

async fn latency(job: &Job) -> Result<String, Error> {
    let client = client(job).await?;
    let mut consumer = consumer(job, &client).await?;
    let options = options(job);
    let mut producer = client.producer().with_topic(job.topic()).with_options(options).build().await?;
    let (pace, runtime) = (job.pace(), tokio::runtime::Handle::current());
    let (keep, kept) = std::sync::mpsc::channel();
    let pacing = tokio::task::spawn_blocking(move || {
        for number in 0..pace.messages {
            let payload = pace.wait(number);
            // Its receipt is not waited for, and is not lost by that.
            let _ = keep.send(runtime.block_on(producer.send_non_blocking(payload))?);
        }
        Ok::<_, Error>(producer)
    });
    let mut latencies = Latencies::default();
    for number in 0..pace.messages {
        let message = consumer.try_next().await?.expect("the stream stays");
        pace.arrived(number, &message.payload.data, &mut latencies);
        consumer.ack(&message).await?;
        kept.try_iter().for_each(drop);
    }
    drop(pacing.await.expect("the pacing thread ends in order")?);
    Ok(latencies.words())
}
