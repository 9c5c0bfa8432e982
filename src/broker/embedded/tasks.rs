//! The tasks of a broker beside those of its connections: the accept loops and the timer.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep_until};

use super::connection::serve_connection;
use super::server::{AcceptorId, BrokerServer};
use crate::broker::machine::Peer;

/// What is served for the whole cluster ends with it alone.
const ALL_BROKERS: usize = usize::MAX;

/// How long `accept` pauses after an error, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the connections of one broker of the cluster until it stops.
pub(super) async fn accept_connections(
    server: Arc<BrokerServer>,
    broker: usize,
    id: AcceptorId,
    listener: TcpListener,
) {
    while let Some(stream) = accept(&server, &listener, id, |_| {}).await {
        let peer = Peer { address: stream.peer_addr().ok(), common_name: None };
        serve_connection(&server, broker, stream, peer);
    }
    drop(listener);
    server.on_acceptor_ended(id);
}

/// Runs a task for each connection until the broker stops, which ends the tasks.
pub(super) async fn accept_tasks<F>(server: Arc<BrokerServer>, listener: TcpListener, task: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (id, mut tasks) = (server.add_acceptor(ALL_BROKERS), JoinSet::new());
    loop {
        // What those that have ended leave is freed.
        let reap = |context: &mut Context<'_>| while let Poll::Ready(Some(_)) = tasks.poll_join_next(context) {};
        match accept(&server, &listener, id, reap).await {
            None => return tasks.shutdown().await,
            Some(stream) => drop(tasks.spawn(task(stream))),
        }
    }
}

/// The next connection; `None` once the broker stops. Calls `poll_also` each time it is polled.
async fn accept(
    server: &BrokerServer,
    listener: &TcpListener,
    id: AcceptorId,
    mut poll_also: impl FnMut(&mut Context<'_>),
) -> Option<TcpStream> {
    loop {
        let accepted = poll_fn(|context| {
            if !server.lock().wait(id, context.waker()) {
                return Poll::Ready(None);
            }
            poll_also(context);
            listener.poll_accept(context).map(Some)
        })
        .await;
        match accepted? {
            Ok((stream, _)) => {
                // Without it small responses wait for the client's delayed ACK; a failure costs only time.
                let _ = stream.set_nodelay(true);
                return Some(stream);
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Calls the machine when something is due.
pub(super) async fn run_timer(server: Arc<BrokerServer>) {
    let mut sleep = pin!(sleep_until(Instant::now()));
    poll_fn(|context| {
        loop {
            let deadline = {
                let mut state = server.lock();
                if state.is_stopping {
                    return Poll::Ready(());
                }
                state.timer = Some(context.waker().clone());
                state.broker.poll_deadline()
            };
            let Some(deadline) = deadline else { return Poll::Pending };
            ready!(poll_until(sleep.as_mut(), deadline.at.into(), context));
            let now = server.now();
            server.input(|broker| broker.handle_deadline(now));
        }
    })
    .await;
}

fn poll_until(mut sleep: Pin<&mut Sleep>, at: Instant, context: &mut Context<'_>) -> Poll<()> {
    if sleep.deadline() != at {
        sleep.as_mut().reset(at);
    }
    sleep.poll(context)
}
