//! A producer as a [`Sink`] of messages.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_sink::Sink;

use super::producer::{Producer, TryEnqueueError};
use crate::error::{Error, Result};
use crate::machine::producer::Message;
use crate::machine::producer::results::PendingSend;

type Boxed<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// A [`Sink`] of messages over a producer: made by [`Producer::sink`], for `StreamExt::forward` and `SinkExt` of the crate
/// futures.
///
/// Ready means that the message before is accepted, so that it waits for capacity as
/// [`enqueue`](Producer::enqueue) does. Flushing waits until all that went through it is confirmed, closing closes the producer
/// too. A message that is not stored is the error of a later call: the first of them, once; the sink can be used further.
#[must_use = "a sink does nothing until messages go into it"]
pub struct ProducerSink {
    producer: Producer,
    /// The message that waits for capacity.
    accepting: Option<Boxed<PendingSend>>,
    /// Those that are accepted, and not known to be confirmed: bounded by what the producer has pending.
    pending: VecDeque<PendingSend>,
    flushing: Option<Boxed<()>>,
    closing: Option<Boxed<()>>,
    failure: Option<Error>,
}

impl Producer {
    /// A sink of messages over this producer, which others may use at the same time.
    ///
    /// ```no_run
    /// # use tokio_stream::StreamExt;
    /// # async fn example(producer: pulsar_native::Producer) -> Result<(), pulsar_native::Error> {
    /// use std::future::poll_fn;
    /// use std::pin::Pin;
    ///
    /// use futures_sink::Sink;
    /// use pulsar_native::Message;
    ///
    /// // With the crate futures: `stream.map(Ok).forward(producer.sink()).await?`.
    /// let mut sink = producer.sink();
    /// for number in 0..1000 {
    ///     poll_fn(|cx| Sink::<Message>::poll_ready(Pin::new(&mut sink), cx)).await?;
    ///     Pin::new(&mut sink).start_send(Message::from(format!("order {number}")))?;
    /// }
    /// poll_fn(|cx| Sink::<Message>::poll_close(Pin::new(&mut sink), cx)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn sink(&self) -> ProducerSink {
        ProducerSink {
            producer: self.clone(),
            accepting: None,
            pending: VecDeque::new(),
            flushing: None,
            closing: None,
            failure: None,
        }
    }
}

impl ProducerSink {
    fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    /// Whether the last message is accepted. Takes note of what has its outcome.
    fn poll_accepted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(first) = self.pending.front_mut() {
            let Poll::Ready(outcome) = Pin::new(first).poll(cx) else { break };
            self.pending.pop_front();
            if let Err(error) = outcome {
                self.fail(error.into());
            }
        }
        if let Some(accepting) = &mut self.accepting {
            let accepted = ready!(accepting.as_mut().poll(cx));
            self.accepting = None;
            match accepted {
                Ok(pending) => self.pending.push_back(pending),
                Err(error) => self.fail(error),
            }
        }
        Poll::Ready(())
    }

    fn failed(&mut self) -> Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }

    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_accepted(cx));
        if self.pending.is_empty() {
            return Poll::Ready(());
        }
        let producer = &self.producer;
        let flushing = self.flushing.get_or_insert_with(|| {
            let producer = producer.clone();
            Box::pin(async move { producer.flush().await })
        });
        // It sends an open batch. What became of each message is told by itself.
        let _ = ready!(flushing.as_mut().poll(cx));
        self.flushing = None;
        ready!(self.poll_accepted(cx));
        if self.pending.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<M: Into<Message>> Sink<M> for ProducerSink {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_accepted(cx));
        Poll::Ready(self.failed())
    }

    fn start_send(mut self: Pin<&mut Self>, message: M) -> Result<()> {
        debug_assert!(self.accepting.is_none(), "start_send follows a poll_ready that was ready");
        match self.producer.try_enqueue(message) {
            Ok(pending) => self.pending.push_back(pending),
            Err(TryEnqueueError::Full { message, .. }) => {
                let producer = self.producer.clone();
                let accepting = async move { producer.enqueue(*message).await.map_err(Error::from) };
                self.accepting = Some(Box::pin(accepting));
            }
            Err(TryEnqueueError::Refused(error)) => return Err(error.into()),
        }
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_flushed(cx));
        Poll::Ready(self.failed())
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.closing.is_none() {
            ready!(self.poll_flushed(cx));
            let producer = self.producer.clone();
            self.closing = Some(Box::pin(async move { producer.close().await }));
        }
        if let Some(closing) = &mut self.closing {
            if let Err(error) = ready!(closing.as_mut().poll(cx)) {
                self.fail(error);
            }
        }
        self.closing = Some(Box::pin(std::future::ready(Ok(()))));
        Poll::Ready(self.failed())
    }
}

impl fmt::Debug for ProducerSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProducerSink({} pending of {:?})", self.pending.len(), self.producer)
    }
}
