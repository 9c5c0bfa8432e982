//! Metrics for Prometheus: a text endpoint on 127.0.0.1, beside a producer and a consumer at work.
//!
//! `PULSAR_URL=pulsar://localhost:6650 cargo run --features metrics --example prometheus`, then
//! `curl http://127.0.0.1:9464/metrics`. `docs/grafana.json` is a board for it.

use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use pulsar_native::{Client, Error, Message, SubscriptionType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// The buckets of all histograms, seconds: those of the Java client.
const BUCKETS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("PULSAR_URL").unwrap_or_else(|_| "pulsar://localhost:6650".to_owned());
    // Before the client is made.
    let recorder = recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    let listener = TcpListener::bind("127.0.0.1:9464").await?;
    println!("http://{}/metrics", listener.local_addr()?);
    tokio::spawn(serve(listener, handle));
    Ok(run(&url, Duration::from_secs(10), u32::MAX).await?)
}

pub(crate) fn recorder() -> PrometheusRecorder {
    // Names as OpenTelemetry's exporters write them: `_total` behind counters, `_seconds` and `_bytes` behind the rest.
    let builder = PrometheusBuilder::new().with_recommended_naming(true);
    builder.set_buckets(&BUCKETS).expect("there are some").build_recorder()
}

/// Answers each request with the metrics as they are.
pub(crate) async fn serve(listener: TcpListener, handle: PrometheusHandle) {
    while let Ok((mut socket, _)) = listener.accept().await {
        let mut request = [0; 4096];
        let _ = socket.read(&mut request).await;
        handle.run_upkeep();
        let body = handle.render();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let _ = socket.write_all((head + &body).as_bytes()).await;
    }
}

/// Sends and receives so many messages, a hundred a second.
pub(crate) async fn run(url: &str, metrics_interval: Duration, messages: u32) -> Result<(), Error> {
    let client = Client::builder(url).metrics_interval(metrics_interval).connect().await?;
    let topic = "persistent://public/default/measured";
    let producer = client.producer(topic).create().await?;
    let mut consumer =
        client.consumer(topic, "monitor").subscription_type(SubscriptionType::Shared).subscribe().await?;
    for number in 0..messages {
        let _sent = producer.enqueue(Message::new(number.to_string())).await?;
        let message = consumer.receive().await?;
        consumer.ack(&message)?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client.close().await
}
