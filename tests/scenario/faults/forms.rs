//! The forms of receiving: what holds for one of them holds for all.

use std::future::poll_fn;
use std::pin::Pin;

use futures_core::Stream as _;
use pulsar_native::Outcome;
use tokio::sync::mpsc;

use super::support::*;

/// A way to receive messages.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    Receive,
    TryReceive,
    ReceiveMany,
    Stream,
    Process,
    ProcessByKey,
}

impl Form {
    pub const ALL: [Self; 6] =
        [Self::Receive, Self::TryReceive, Self::ReceiveMany, Self::Stream, Self::Process, Self::ProcessByKey];

    /// Receives and acknowledges until the consumer ends, and returns why.
    pub async fn run(self, mut consumer: Consumer, texts: mpsc::UnboundedSender<String>) -> Error {
        let acker = consumer.acker();
        let noted = texts.clone();
        let note = move |message: &ReceivedMessage| {
            noted.send(message.to_string_lossy().into_owned()).expect("the test listens");
        };
        let done = |message: ReceivedMessage| {
            note(&message);
            acker.ack(&message).expect("acknowledged");
        };
        match self {
            Self::Receive => loop {
                match consumer.receive().await {
                    Ok(message) => done(message),
                    Err(end) => return end,
                }
            },
            Self::TryReceive => loop {
                match consumer.try_receive() {
                    Ok(Some(message)) => done(message),
                    Ok(None) => pass(Duration::from_millis(1)).await,
                    Err(end) => return end,
                }
            },
            Self::ReceiveMany => loop {
                match consumer.receive_many(7).await {
                    Ok(messages) => messages.into_iter().for_each(done),
                    Err(end) => return end,
                }
            },
            Self::Stream => {
                let mut end = None;
                while let Some(item) = poll_fn(|cx| Pin::new(&mut consumer).poll_next(cx)).await {
                    assert!(end.is_none(), "the end is the last item");
                    match item {
                        Ok(message) => done(message),
                        Err(error) => end = Some(error),
                    }
                }
                end.expect("the end is an item")
            }
            Self::Process => {
                let work = |message| {
                    note(&message);
                    async {}
                };
                consumer.process(3, work).await.expect_err("it goes on until the consumer ends")
            }
            Self::ProcessByKey => {
                let work = move |message| {
                    note(&message);
                    async { Ok::<_, Error>(Outcome::Ack) }
                };
                consumer.process_by_key(3, work).await.expect_err("it goes on until the consumer ends")
            }
        }
    }
}
