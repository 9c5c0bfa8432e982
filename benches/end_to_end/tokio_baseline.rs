//! The least that two tasks cost: one that asks and one that has the socket, with nothing of a client between them. It
//! is the bound for latency where the user's task and the connection's are two.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::baseline::{Framer, producer};
use crate::latency::{Latencies, PingPong};
use crate::sink::{ENTRY_ID_FIRST, whole_frame};
use crate::work::WARM_UP_DIVISOR;

struct Socket {
    stream: TcpStream,
    rx: Vec<u8>,
}

impl Socket {
    /// Writes, and reads until a whole frame is there.
    async fn ask(&mut self, out: &[u8]) -> io::Result<()> {
        self.stream.write_all(out).await?;
        self.rx.clear();
        while whole_frame(&self.rx).is_none() {
            if self.stream.read_buf(&mut self.rx).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

/// One SEND, its receipt, the next; the asking task wakes the other one and is woken by it.
pub(crate) async fn ping_pong(url: &str, work: &PingPong) -> io::Result<String> {
    let stream = TcpStream::connect(url.trim_start_matches("pulsar://")).await?;
    stream.set_nodelay(true)?;
    let mut socket = Socket { stream, rx: Vec::with_capacity(1024) };
    for request in producer() {
        socket.ask(&request).await?;
    }
    let (asked, answered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let framer = Framer::new(1, work.size);
    let rounds = work.messages + work.messages / WARM_UP_DIVISOR;
    let driver = {
        let (asked, answered) = (asked.clone(), answered.clone());
        tokio::spawn(async move {
            let mut out = Vec::new();
            for round in 0..rounds {
                asked.notified().await;
                out.clear();
                framer.put(&mut out, ENTRY_ID_FIRST + round);
                socket.ask(&out).await?;
                answered.notify_one();
            }
            io::Result::Ok(())
        })
    };
    let mut latencies = Latencies::default();
    for round in 0..rounds {
        let start = Instant::now();
        asked.notify_one();
        answered.notified().await;
        if round >= work.messages / WARM_UP_DIVISOR {
            latencies.add(start.elapsed());
        }
    }
    driver.await.map_err(io::Error::other)??;
    Ok(latencies.words())
}
