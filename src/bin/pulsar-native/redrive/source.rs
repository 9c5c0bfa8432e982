//! The dead letters, up to those that are there at the start.

use std::collections::HashMap;

use pulsar_native::{Acker, Client, Consumer, Error, IdleReason, InitialPosition, MessageId, ReceivedMessage};
use tokio::time::{Duration, sleep};

/// Letters that are fetched ahead.
const AHEAD: u32 = 100;

/// After so much time without a letter the broker is asked whether there is one.
const ASK_AFTER: Duration = Duration::from_millis(300);

/// Where a letter is in its topic or partition: ledger, entry, place in the batch.
type Place = (u64, u64, u32);

pub(super) struct Source {
    consumer: Consumer,
    acker: Acker,
    /// Of each topic or partition that has not given it yet: the last letter of this run.
    last: HashMap<String, Place>,
    /// Of each topic or partition: the last letter that was sent.
    sent: HashMap<String, Place>,
    /// The same of those that were left there.
    left: HashMap<String, Place>,
}

impl Source {
    pub(super) async fn open(client: &Client, topic: &str, subscription: &str) -> Result<Self, Error> {
        let consumer = client.consumer(topic, subscription).initial_position(InitialPosition::Earliest);
        let consumer = consumer.receiver_queue_size(AHEAD).subscribe().await?;
        let ids = consumer.last_message_ids().await?;
        let known = |id: MessageId| Some((id.topic()?.to_owned(), place(&id)?));
        let last = ids.into_iter().filter_map(known).collect();
        let acker = consumer.acker();
        Ok(Self { consumer, acker, last, sent: HashMap::new(), left: HashMap::new() })
    }

    pub(super) fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// The next letter in the order of its partition; `None` when all are given that were there at the start.
    ///
    /// # Errors
    /// The consumer has ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<ReceivedMessage>, Error> {
        while !self.last.is_empty() {
            let letter = tokio::select! {
                biased;
                letter = self.consumer.receive() => letter?,
                is_all = nothing_comes(&self.acker) => match is_all {
                    true => return Ok(None),
                    false => continue,
                },
            };
            if self.is_of_this_run(&letter) {
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }

    /// Notes that the last one of its partition was given. One behind it came later.
    fn is_of_this_run(&mut self, letter: &ReceivedMessage) -> bool {
        let id = letter.id();
        let (Some(place), Some(last)) = (place(&id), self.last.get(letter.topic()).copied()) else { return false };
        let is_last_of_entry = id.batch_index().is_none_or(|index| Some(index + 1) >= id.batch_size());
        if (place.0, place.1) > (last.0, last.1) || (place.0, place.1) == (last.0, last.1) && is_last_of_entry {
            self.last.remove(letter.topic());
        }
        (place.0, place.1) <= (last.0, last.1)
    }

    /// Whether this run has sent it before.
    pub(super) fn was_sent(&self, letter: &ReceivedMessage) -> bool {
        place(&letter.id()).is_some_and(|place| self.sent.get(letter.topic()).is_some_and(|sent| place <= *sent))
    }

    /// Whether this run has not left it there before.
    pub(super) fn note_left(&mut self, letter: &ReceivedMessage) -> bool {
        let (place, last) = (place(&letter.id()), self.left.get(letter.topic()).copied());
        if let Some(place) = place.filter(|_| place > last) {
            self.left.insert(letter.topic().to_owned(), place);
        }
        place > last
    }

    /// Whether it is the first of its topic or partition.
    pub(super) fn note_sent(&mut self, letter: &ReceivedMessage) -> bool {
        let place = place(&letter.id()).unwrap_or_default();
        self.sent.insert(letter.topic().to_owned(), place).is_none()
    }
}

fn place(id: &MessageId) -> Option<Place> {
    Some((id.ledger_id()?, id.entry_id()?, id.batch_index().unwrap_or(0)))
}

/// Ends after [`ASK_AFTER`] with whether the broker has given everything that it has.
async fn nothing_comes(acker: &Acker) -> bool {
    sleep(ASK_AFTER).await;
    acker.why_idle().await.parts.iter().all(|part| {
        matches!(
            part.reason,
            IdleReason::NoBacklog | IdleReason::EndOfTopic | IdleReason::AwaitingAcknowledgement { .. }
        )
    })
}
