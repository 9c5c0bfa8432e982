//! Every wait ends: by its answer, by the loss of its connection, or by its deadline.

use std::future::Future;
use std::pin::Pin;

use super::support::*;

/// What happens to a request.
#[derive(Debug, Clone, Copy)]
enum RequestFault {
    NeverCarriedOut,
    NeverAnswered,
    ConnectionEndsEachTime,
    ConnectionEndsOnce,
}

impl RequestFault {
    fn arm(self, stage: &Stage, event: FaultEvent) {
        let when = stage.broker.faults().on(event);
        match self {
            Self::NeverCarriedOut => when.always().drop_request(),
            Self::NeverAnswered => when.always().drop_response(),
            Self::ConnectionEndsEachTime => when.always().disconnect(),
            Self::ConnectionEndsOnce => when.disconnect(),
        }
    }
}

type Running = Pin<Box<dyn Future<Output = (Stage, Result<(), Error>)>>>;

/// A call of the client by its name, on a stage where its request meets that fault.
type Call = (&'static str, fn(Stage, RequestFault) -> Running);

macro_rules! calls {
    ($($name:literal $event:ident |$stage:ident, $producer:ident, $consumer:ident| $call:expr;)*) => {
        &[$(($name, |$stage, fault| Box::pin(async move {
            let $producer = $stage.client.producer("made before").create();
            let $producer = within("a producer", $producer).await.expect("a producer");
            #[allow(unused_mut, reason = "some calls need it")]
            let mut $consumer = $stage.consumer("made before").await;
            fault.arm(&$stage, FaultEvent::$event);
            let outcome = within($name, async { $call.await.map(drop).map_err(Error::from) }).await;
            ($stage, outcome)
        }))),*]
    };
}

fn calls() -> &'static [Call] {
    calls! {
        "create" Producer |stage, _producer, _consumer| stage.client.producer(TOPIC).create();
        "create, looking up" Lookup |stage, _producer, _consumer| stage.client.producer(TOPIC).create();
        "create, counting" PartitionedMetadata |stage, _producer, _consumer| stage.client.producer(TOPIC).create();
        "subscribe" Subscribe |stage, _producer, _consumer| stage.client.consumer(TOPIC, "s").subscribe();
        "partitions" PartitionedMetadata |stage, _producer, _consumer| stage.client.partitions(TOPIC);
        "send" Send |stage, producer, _consumer| producer.send("x");
        "flush" Send |stage, producer, _consumer| async {
            drop(producer.enqueue("x").await?);
            producer.flush().await
        };
        "close of a producer" CloseProducer |stage, producer, _consumer| producer.close();
        "close of a producer that sends" Send |stage, producer, _consumer| async {
            drop(producer.enqueue("x").await?);
            producer.close().await
        };
        "close of a consumer" CloseConsumer |stage, _producer, consumer| consumer.close();
        "seek" Seek |stage, _producer, consumer| consumer.seek(SeekTo::Earliest);
        "stats" ConsumerStats |stage, _producer, consumer| consumer.broker_stats();
        "last message ids" LastMessageId |stage, _producer, consumer| consumer.last_message_ids();
        "unsubscribe" Unsubscribe |stage, _producer, consumer| consumer.unsubscribe();
    }
}

async fn outcomes(fault: RequestFault, bound: Duration, check: impl Fn(&str, Result<(), Error>)) {
    for (name, call) in calls() {
        let stage = Stage::new().await;
        let started = Instant::now();
        let (stage, outcome) = call(stage, fault).await;
        assert!(started.elapsed() <= bound, "{name}: {:?}", started.elapsed());
        check(name, outcome);
        assert!(stage.broker.faults().injected() > 0, "{name} met its fault");
        stage.broker.faults().clear();
        // The client is as good as before.
        let producer = stage.producer("afterwards").await;
        send(&producer, "x").await;
        let mut consumer = stage.consumer("afterwards").await;
        assert_eq!(text(&mut consumer).await, "x");
        drop((producer, consumer));
        stage.close_and_check().await;
    }
}

/// The call ended with the time-out of its operation, and says that it may be tried again.
fn assert_timed_out(name: &str, outcome: Result<(), Error>) {
    let error = outcome.expect_err(name);
    assert!(error.is_retriable() && error.kind() == ErrorKind::TimedOut, "{name}: {error:?}");
}

/// A producer that closes waits for its sends to be settled, by success or failure: their senders are told, the close
/// succeeds.
const CLOSE_BEHIND_SENDS: &str = "close of a producer that sends";

#[tokio::test(start_paused = true)]
async fn a_request_that_is_never_carried_out_ends_by_its_deadline() {
    outcomes(RequestFault::NeverCarriedOut, TIMEOUT * 2 + SLACK, |name, outcome| match name {
        CLOSE_BEHIND_SENDS => outcome.expect(name),
        _ => assert_timed_out(name, outcome),
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_never_answered_ends_by_its_deadline() {
    outcomes(RequestFault::NeverAnswered, TIMEOUT * 2 + SLACK, |name, outcome| match name {
        CLOSE_BEHIND_SENDS => outcome.expect(name),
        _ => assert_timed_out(name, outcome),
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_connection_always_ends_is_over_by_its_deadline() {
    outcomes(RequestFault::ConnectionEndsEachTime, TIMEOUT * 2 + SLACK, |name, outcome| match name {
        // With the connection the producer or consumer is gone at the broker: it is closed.
        "close of a producer" | "close of a consumer" | CLOSE_BEHIND_SENDS => outcome.expect(name),
        _ => assert_timed_out(name, outcome),
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_connection_ends_once_is_sent_again() {
    outcomes(RequestFault::ConnectionEndsOnce, Duration::from_secs(5), |name, outcome| {
        outcome.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    })
    .await;
}

/// The close of a client is bounded, whatever the broker does.
#[tokio::test(start_paused = true)]
async fn the_close_of_a_client_ends_in_time_and_leaves_nothing() {
    for fault in 0..5 {
        let stage = Stage::new().await;
        let producer = stage.producer(TOPIC).await;
        let consumer = stage.consumer(TOPIC).await;
        stage.broker.faults().on(FaultEvent::Send).always().drop_response();
        drop(enqueue(&producer, "x").await);
        match fault {
            0 => stage.broker.faults().on(FaultEvent::CloseProducer).always().drop_request(),
            1 => stage.broker.faults().blackhole(),
            2 => stage.broker.faults().stall_reads(),
            3 => stage.net.refuse(true),
            _ => stage.broker.faults().on(FaultEvent::Any).always().drop_request(),
        }
        if fault == 3 {
            stage.broker.drop_connections();
        }
        let started = Instant::now();
        // Late or not, it ends, and with it every task.
        let _ = within("the close", stage.client.close()).await;
        assert!(started.elapsed() <= TIMEOUT + SLACK, "{fault}: {:?}", started.elapsed());
        let error = within("the refusal", producer.send("too late")).await.expect_err("closed");
        assert!(!error.may_be_stored(), "{error}");
        drop((producer, consumer));
        stop_and_check(&stage.broker).await;
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    }
}
