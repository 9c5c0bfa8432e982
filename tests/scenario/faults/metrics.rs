//! What the feature `metrics` tells: each count once, under the name that `docs/observability.md` lists.

use std::collections::BTreeMap;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::support::*;

/// More than the interval at which metrics are published.
const INTERVAL: Duration = Duration::from_secs(11);

fn recorder() -> PrometheusRecorder {
    PrometheusBuilder::new().set_buckets(&[0.1, 1.0]).expect("there are some").build_recorder()
}

/// The series by name and labels, the labels in their order.
fn series(handle: &PrometheusHandle) -> BTreeMap<String, f64> {
    handle.run_upkeep();
    let text = handle.render();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let series = lines.map(|line| {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let series = match series.split_once('{') {
            None => series.to_owned(),
            Some((name, labels)) => {
                let mut labels: Vec<_> = labels.trim_end_matches('}').split(',').collect();
                labels.sort_unstable();
                format!("{name}{{{}}}", labels.join(","))
            }
        };
        (series, value.parse().expect("a number"))
    });
    series.collect()
}

const NAMESPACE: &str = r#"pulsar_namespace="public/default""#;
const TENANT: &str = r#"pulsar_tenant="public""#;

fn of_producer(name: &str) -> String {
    format!("pulsar_client_producer_{name}{{{NAMESPACE},{TENANT}}}")
}

fn of_consumer(name: &str) -> String {
    format!(r#"pulsar_client_consumer_{name}{{{NAMESPACE},pulsar_subscription="s",{TENANT}}}"#)
}

fn assert_values(handle: &PrometheusHandle, expected: &[(String, f64)]) {
    let series = series(handle);
    for (name, value) in expected {
        assert_eq!(series.get(name), Some(value), "{name} of {series:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_count_is_told_once() {
    let recorder = recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let stage = Stage::new().await;
    // Two of a namespace make up one series; another namespace has its own.
    let (producer, other) = (stage.producer(TOPIC).await, stage.producer("persistent://public/default/u").await);
    let mut consumer = stage.shared(TOPIC).await;
    for round in 0..3 {
        confirmed(enqueue_numbers(&producer, 0..10).await).await;
        send(&other, "elsewhere").await;
        for number in 0..10 {
            let message = within("a message", consumer.receive()).await.expect("a message");
            match number {
                0 if round == 0 => consumer.nack(&message).expect("nacked"),
                _ => consumer.ack(&message).expect("acknowledged"),
            }
        }
        pass(INTERVAL).await;
        // It comes again after a minute.
        let expected = f64::from(round + 1);
        assert_values(
            &handle,
            &[
                (of_producer("message_send_count"), 11.0 * expected),
                (of_producer("message_pending_count"), 0.0),
                (of_producer("active"), 2.0),
                (of_producer("detached"), 0.0),
                (of_consumer("active"), 1.0),
                (of_consumer("message_nack"), 1.0),
                (of_consumer("message_ack"), 10.0 * expected - 1.0),
            ],
        );
    }
    let stats = consumer.stats();
    within("the close", other.close()).await.expect("closed");
    stage.net.refuse(true);
    stage.broker.drop_connections();
    let pending = enqueue(&producer, "while away").await;
    pass(INTERVAL).await;
    assert_values(
        &handle,
        &[
            (of_producer("active"), 1.0),
            (of_producer("detached"), 1.0),
            (of_producer("message_pending_count"), 1.0),
            (of_producer("message_pending_size"), 10.0),
            ("pulsar_client_memory_buffer_usage".to_owned(), stage.client.memory_usage().used as f64),
            ("pulsar_client_memory_buffer_limit".to_owned(), 64.0 * 1024.0 * 1024.0),
            (of_producer("closed"), 1.0),
            (of_consumer("detached"), 1.0),
            (of_consumer("message_received_count"), stats.received_messages as f64),
            (of_consumer("message_received_size"), stats.received_bytes as f64),
            ("pulsar_client_connection_closed".to_owned(), 1.0),
        ],
    );
    stage.net.refuse(false);
    confirmed(vec![pending]).await;
    let latencies = producer.stats().send_latency.count() + 3;
    stage.close_and_check().await;
    let status = |name: &str| {
        format!(r#"pulsar_client_producer_{name}{{{NAMESPACE},pulsar_response_status="success",{TENANT}}}"#)
    };
    let expected = [
        (of_producer("opened"), 2.0),
        (of_producer("closed"), 2.0),
        (of_producer("reconnects"), 1.0),
        (of_producer("message_send_count"), 34.0),
        (of_producer("message_send_size"), 30.0 + 3.0 * 9.0 + 10.0),
        (status("message_send_duration_count"), latencies as f64),
        (of_consumer("opened"), 1.0),
        (of_consumer("closed"), 1.0),
        ("pulsar_client_connection_opened".to_owned(), 2.0),
        ("pulsar_client_connection_closed".to_owned(), 2.0),
        // Nothing is left of the client.
        (of_producer("active"), 0.0),
        (of_producer("message_pending_count"), 0.0),
        (of_consumer("active"), 0.0),
        (of_consumer("permits"), 0.0),
    ];
    until("the client's task to be gone", || series(&handle)[&of_consumer("active")], |active| *active == 0.0).await;
    assert_values(&handle, &expected);
    let series = series(&handle);
    let lookups = series.iter().filter(|(name, _)| name.starts_with("pulsar_client_lookup_duration_count"));
    let lookups: BTreeMap<_, _> = lookups.collect();
    let success =
        r#"{pulsar_lookup_transport_type="binary",pulsar_lookup_type="topic",pulsar_response_status="success"}"#;
    let lookups_done = lookups.iter().find(|(name, _)| name.ends_with(success)).expect("lookups");
    assert!(**lookups_done.1 >= 5.0, "{lookups:?}");
    let errors = format!(r#"pulsar_client_producer_errors{{error_type="Connection",{NAMESPACE},{TENANT}}}"#);
    assert!(series[&errors] >= 2.0, "{series:#?}");
}

#[tokio::test(start_paused = true)]
async fn failed_connections_say_how_they_failed() {
    let recorder = recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let key = "a secret of at least 32 bytes, for HS256";
    let (broker, net) = broker_on_net(EmbeddedBroker::builder().token_secret_key(key)).await;
    let failures = |how: &str| {
        let name = format!(r#"pulsar_client_connection_failed{{pulsar_failure_type="{how}"}}"#);
        series(&handle).get(&name).copied().unwrap_or_default()
    };
    let connecting = builder(&broker, &net).authentication(Token::new("not.a.token")).connect();
    failed(within("the refusal", connecting).await, ErrorKind::Authentication);
    assert_eq!((failures("handshake"), failures("tcp-failed")), (2.0, 0.0), "one is tried with a fresh token");
    net.refuse(true);
    let connecting = builder(&broker, &net).operation_timeout(Duration::from_secs(1)).connect();
    failed(within("the time-out", connecting).await, ErrorKind::TimedOut);
    assert!(failures("tcp-failed") >= 3.0, "{}", failures("tcp-failed"));
    assert_eq!(failures("handshake"), 2.0);
    stop_and_check(&broker).await;
}

#[tokio::test(start_paused = true)]
async fn topics_and_partitions_are_labels_when_asked_for() {
    let recorder = recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let stage = Stage::with(EmbeddedBroker::builder(), |builder| {
        builder.metrics_per_topic(true).metrics_interval(Duration::from_secs(1))
    })
    .await;
    assert!(stage.broker.create_partitioned_topic("persistent://public/default/p", 2));
    let producer = stage.producer("persistent://public/default/p").await;
    let plain = stage.producer(TOPIC).await;
    for number in 0..4 {
        send(&producer, number.to_string()).await;
    }
    pass(Duration::from_secs(2)).await;
    let of = |topic: &str, partition: &str| {
        let topic = format!(r#"pulsar_topic="persistent://public/default/{topic}""#);
        format!("pulsar_client_producer_message_send_count{{{NAMESPACE}{partition},{TENANT},{topic}}}")
    };
    assert_values(
        &handle,
        &[(of("p", r#",pulsar_partition="0""#), 2.0), (of("p", r#",pulsar_partition="1""#), 2.0), (of("t", ""), 0.0)],
    );
    drop(plain);
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn without_an_interval_counts_come_with_the_end() {
    let recorder = recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let stage = Stage::with(EmbeddedBroker::builder(), |builder| builder.metrics_interval(Duration::ZERO)).await;
    let producer = stage.producer(TOPIC).await;
    send(&producer, "one").await;
    pass(Duration::from_secs(3600)).await;
    assert!(!series(&handle).contains_key(&of_producer("message_send_count")));
    within("the close", producer.close()).await.expect("closed");
    until(
        "the count",
        || series(&handle).get(&of_producer("message_send_count")).copied(),
        |count| *count == Some(1.0),
    )
    .await;
    stage.close_and_check().await;
}
