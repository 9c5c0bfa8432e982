//! The suite through a tap: what the client does works as it does without one, and the tap sees what the broker's judge sees, which
//! is that no rule is broken. A recording of it shows the same, and the embedded broker's machine, given the clients' frames of the
//! recording, answers as the broker did. Each run takes some of the suite, and more by a seed; `TAPPED=all` takes all of it.

use tokio::task::JoinSet;

use crate::common::sample::sample;
use crate::embedded::run_tapped;

/// Bodies that run at the same time.
const BODIES_AT_ONCE: usize = 8;

type Body = (&'static str, fn(bool) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>);

macro_rules! bodies {
    ($($theme:ident { $($name:ident)* })*) => {
        &[$($((
            concat!(stringify!($theme), "::", stringify!($name)),
            |is_compared| Box::pin(run_tapped(is_compared, crate::suite::$theme::$name)),
        ),)*)*]
    };
}

const ALL: &[Body] = crate::suite::with_every_test!(bodies);

/// What goes wrong there is not on the wire: policies, faults, namespaces that do not exist, what an administrator does.
const ANSWERED_OTHERWISE: &[&str] = &[
    "connect::wrong_token",
    "connect::no_token",
    "connect::expired_token",
    "connect::role_without_rights",
    "connect::missing_topic",
    "connect::missing_namespace",
    "produce::terminated_topic",
    "dead_letters::a_dead_letter_topic_that_refuses",
    "chunks::checkpoints_within_messages",
    "chunks::sent_again_after_a_connection_was_cut",
    "patterns::topics_come_and_go",
    "patterns::announced_at_once",
    "readers::each_message_once_over_reconnects",
    "states::a_quota_is_exceeded_with_an_exception",
    "states::a_quota_is_exceeded_and_holds",
    "states::a_topic_is_terminated",
    "states::a_topic_is_deleted",
    "states::a_partition_is_terminated",
    "states::a_token_expires",
];

const RUN_ALWAYS: [&str; 6] = ["acks", "access", "connect", "produce", "redelivery", "partitioned"];

/// The file of the suite that a body stands in.
fn theme(name: &'static str) -> &'static str {
    name.split("::").next().unwrap_or(name)
}

async fn run_all(themes: &[&str]) {
    let is_meant = |name| themes.contains(&theme(name));
    let mut waiting = ALL.iter().filter(|(name, _)| is_meant(name));
    let (mut running, mut failed) = (JoinSet::new(), Vec::new());
    loop {
        while running.len() < BODIES_AT_ONCE {
            let Some(&(name, body)) = waiting.next() else { break };
            // The task inside catches the panic of a body.
            let is_compared = !ANSWERED_OTHERWISE.contains(&name);
            running.spawn(async move { tokio::spawn(body(is_compared)).await.map_err(|_| name) });
        }
        match running.join_next().await {
            None => break,
            Some(ended) => failed.extend(ended.expect("no panic").err()),
        }
    }
    assert!(failed.is_empty(), "through a tap, these failed: {}", failed.join(", "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some() {
    run_all(&RUN_ALWAYS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_of_the_others() {
    let mut others: Vec<_> =
        ALL.iter().map(|(name, _)| theme(name)).filter(|theme| !RUN_ALWAYS.contains(theme)).collect();
    others.dedup();
    run_all(&sample("TAPPED", &others, 3)).await;
}
