//! What was sent, handled and given up, and why some of it is there twice.

use std::collections::{BTreeSet, HashMap};

use pulsar_native::{MessageId, ReceivedMessage};

/// One message in this number can never be handled.
const POISON_ONE_IN: u64 = 8;

pub(super) fn is_poison(number: u64) -> bool {
    number % POISON_ONE_IN == 3
}

/// One topic, its subscription and its dead-letter topic. Messages are numbered from 0.
#[derive(Default)]
pub(super) struct LetterLog {
    /// Whether the send is confirmed.
    sends: Vec<bool>,
    /// How often each message was delivered, by where it is stored.
    deliveries: HashMap<u64, HashMap<MessageId, u64>>,
    letters: HashMap<u64, Vec<Letter>>,
    /// The letters that were read, to tell one that is read again.
    read: BTreeSet<String>,
    pub(super) violations: Vec<String>,
}

/// One letter that is stored.
struct Letter {
    /// The id of the message that it stands for.
    origin: String,
    /// Producer and sequence id: the same for a letter that was sent again.
    sent: (String, u64),
}

/// What became of a topic's messages.
#[derive(Default)]
pub(super) struct Verdict {
    pub(super) confirmed: u64,
    /// Confirmed and never handled, although they could be.
    pub(super) unhandled: Vec<u64>,
    pub(super) letters: u64,
    /// Confirmed, cannot be handled, and not among the dead letters.
    pub(super) no_letter: Vec<u64>,
    /// Messages stored twice, because the receipt of the first was lost with the broker.
    pub(super) stored_twice: u64,
    /// Deliveries of what was handled before, because the acknowledgement was lost with the broker, or not sent yet.
    pub(super) handled_again: u64,
    /// Deliveries of what is poisoned beyond 1 + n, because the broker's counts were lost with it.
    pub(super) tried_again: u64,
    /// Letters of a message that is stored twice.
    pub(super) letters_of_doubles: u64,
    /// Letters of a message that came again behind its letter: the acknowledgement was lost with the broker.
    pub(super) given_up_again: u64,
    /// Letters of a message that came again at the other member: as above, or while the first letter was on its way.
    pub(super) given_up_by_other: u64,
    /// Letters that were sent again, because the receipt of the first was lost with the broker.
    pub(super) letters_sent_again: u64,
}

impl LetterLog {
    /// The number of the next message.
    pub(super) fn next(&mut self) -> u64 {
        self.sends.push(false);
        self.sends.len() as u64 - 1
    }

    pub(super) fn confirm(&mut self, number: u64) {
        self.sends[number as usize] = true;
    }

    /// A message was delivered. Says whether it is poisoned.
    pub(super) fn arrive(&mut self, message: &ReceivedMessage) -> bool {
        let Some(number) = self.number_of(message) else { return false };
        *self.deliveries.entry(number).or_default().entry(message.id()).or_default() += 1;
        is_poison(number)
    }

    /// A letter was read.
    pub(super) fn read(&mut self, letter: &ReceivedMessage) {
        let Some(number) = self.number_of(letter) else { return };
        if !self.read.insert(letter.id().to_string()) {
            return;
        }
        let Some(origin) = letter.property("ORIGIN_MESSAGE_ID").map(str::to_owned) else {
            return self.violations.push(format!("{letter:?} does not say where it comes from"));
        };
        if !is_poison(number) {
            self.violations.push(format!("{letter:?} could have been handled"));
        }
        let sent = (letter.producer_name().to_owned(), letter.sequence_id());
        self.letters.entry(number).or_default().push(Letter { origin, sent });
    }

    /// How many letters there are.
    pub(super) fn letters(&self) -> u64 {
        self.read.len() as u64
    }

    pub(super) fn is_complete(&self) -> bool {
        let is_done = |number: u64| match is_poison(number) {
            true => self.letters.contains_key(&number),
            false => self.deliveries.contains_key(&number),
        };
        (0..).zip(&self.sends).all(|(number, confirmed)| !confirmed || is_done(number))
    }

    fn number_of(&mut self, message: &ReceivedMessage) -> Option<u64> {
        let number = message.to_string_lossy().parse().ok().filter(|&number| number < self.sends.len() as u64);
        if number.is_none() || message.property("mine") != Some("1") {
            self.violations.push(format!("{message:?} is not what was sent"));
        }
        number
    }

    /// `tries`: 1 + n.
    pub(super) fn verdict(&self, tries: u64) -> Verdict {
        let mut verdict = Verdict { letters: self.letters(), ..Verdict::default() };
        for (number, _) in (0..).zip(&self.sends).filter(|(_, confirmed)| **confirmed) {
            verdict.confirmed += 1;
            match is_poison(number) {
                true if !self.letters.contains_key(&number) => verdict.no_letter.push(number),
                false if !self.deliveries.contains_key(&number) => verdict.unhandled.push(number),
                _ => {}
            }
        }
        for (&number, by_id) in &self.deliveries {
            verdict.stored_twice += by_id.len() as u64 - 1;
            match is_poison(number) {
                true => verdict.tried_again += by_id.values().map(|times| times.saturating_sub(tries)).sum::<u64>(),
                false => verdict.handled_again += by_id.values().map(|times| times - 1).sum::<u64>(),
            }
        }
        for letters in self.letters.values() {
            let origins: BTreeSet<_> = letters.iter().map(|letter| &letter.origin).collect();
            let sent: BTreeSet<_> = letters.iter().map(|letter| (&letter.origin, &letter.sent)).collect();
            verdict.letters_of_doubles += origins.len() as u64 - 1;
            let members: BTreeSet<_> = letters.iter().map(|letter| (&letter.origin, &letter.sent.0)).collect();
            verdict.given_up_again += (sent.len() - members.len()) as u64;
            verdict.given_up_by_other += (members.len() - origins.len()) as u64;
            verdict.letters_sent_again += (letters.len() - sent.len()) as u64;
        }
        verdict
    }
}
