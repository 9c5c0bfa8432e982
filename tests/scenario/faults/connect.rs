//! When a client dials, and how long it waits for a broker that is not up.

use pulsar_native::client::{DialFuture, Dialer, Target};

use super::support::*;

async fn unreachable() -> (EmbeddedBroker, Net) {
    let (broker, net) = broker_on_net(EmbeddedBroker::builder()).await;
    net.refuse(true);
    (broker, net)
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_starts_late_is_waited_for() {
    let (broker, net) = unreachable().await;
    let connecting = spawn(builder(&broker, &net).connect());
    until("dials that fail", || net.dials(), |dials| *dials >= 3).await;
    net.refuse(false);
    let client = within("the connection", connecting).await.expect("no panic").expect("the broker is up");
    created(client.producer("t")).await;
    within("the close", client.close()).await.expect("closed");
    stop_and_check(&broker).await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_never_starts_is_waited_for_within_the_operation_timeout() {
    let (broker, net) = unreachable().await;
    let started = Instant::now();
    let error = builder(&broker, &net).connect().await.expect_err("no broker");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(error.to_string().contains("refused"), "names the last failure: {error}");
    assert!(started.elapsed() >= TIMEOUT && started.elapsed() < TIMEOUT + SLACK, "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_built_client_dials_on_first_use() {
    let (broker, net) = broker_on_net(EmbeddedBroker::builder()).await;
    let client = builder(&broker, &net).build().expect("no connection is needed");
    pass(Duration::from_secs(60)).await;
    assert_eq!(net.dials(), 0, "nothing was asked of it");
    created(client.producer("t")).await;
    assert_eq!(net.dials(), 1);
    within("the close", client.close()).await.expect("closed");
    stop_and_check(&broker).await;
}

#[tokio::test]
async fn build_refuses_what_is_no_service_url() {
    let error = Client::builder("kafka://localhost").build().expect_err("not a service URL");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

/// Reaches brokers through `net`, but for one address, which never answers.
struct BlackHole {
    net: Net,
    address: &'static str,
}

impl Dialer for BlackHole {
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a> {
        Box::pin(async move {
            if target.address.to_string() == self.address {
                std::future::pending::<()>().await;
            }
            self.net.dial(target).await
        })
    }
}

/// One host is a black hole, one accepts and never answers CONNECT: whichever is first, the third is reached in time.
#[tokio::test(start_paused = true)]
async fn each_host_of_the_service_url_has_its_share_of_the_time() {
    let stage = Stage::new().await;
    let silent = stage.another().await;
    silent.faults().on(FaultEvent::Connect).always().drop_request();
    let url = format!("pulsar://hole.example:6650,{},{}", silent.address(), stage.broker.address());
    for seed in 0..6 {
        let dialer = BlackHole { net: stage.net.clone(), address: "hole.example:6650" };
        let started = Instant::now();
        let connecting = Client::builder(&url).dialer(dialer).seed(seed).connect();
        let client = within("the connection", connecting).await.expect("the third host answers");
        assert!(started.elapsed() < TIMEOUT, "{:?}", started.elapsed());
        within("the close", client.close()).await.expect("closed");
    }
    stop_and_check(&silent).await;
    stage.close_and_check().await;
}
