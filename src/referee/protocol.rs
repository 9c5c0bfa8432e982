//! The lines between the referee and a glue: requests down its stdin, answers up its stdout.
//!
//! Pure: text in, text out. `docs/referee.md` describes the lines for authors of a glue.

use std::fmt;

/// Most bytes of a line of a glue, without its end.
pub(super) const LINE_BYTES_MAX: usize = 16 * 1024;

/// A request. Names have no spaces; what may have some is last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    line: String,
}

impl Request {
    pub(super) fn new(command: &str) -> Self {
        Self { line: command.to_owned() }
    }

    /// A further word.
    pub(super) fn word(mut self, word: impl fmt::Display) -> Self {
        self.line.push(' ');
        self.line.push_str(&word.to_string());
        self
    }

    /// An option behind the words.
    pub(super) fn option(self, name: &str, value: impl fmt::Display) -> Self {
        self.word(format_args!("{name}={value}"))
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

/// One line of a glue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// `ready NAME VERSION`: the first line.
    Ready {
        /// The client and its version, as they are shown.
        client: String,
    },
    /// `ok [TEXT]`: the request is done.
    Ok(String),
    /// `none`: `receive` has waited and nothing came.
    Nothing,
    /// `error TEXT`: the client refused or failed.
    Error(String),
    /// `unsupported TEXT`: the client, or the glue, has no such thing.
    Unsupported(String),
    /// `sent ID ok LEDGER:ENTRY` or `sent ID error TEXT`: the result of a send, at any time after its request.
    Sent {
        /// The id of `send`.
        id: u64,
        /// Ledger and entry, or why it failed.
        result: Result<(u64, u64), String>,
    },
}

/// A message that `receive` answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReceivedLine {
    /// What the request called it: its name in `ack` and `nack`.
    pub(super) name: String,
    /// `CommandMessage.redelivery_count`, from the client.
    pub(super) redelivery_count: u32,
    pub(super) payload: String,
}

impl Line {
    /// Reads a line without its end.
    ///
    /// # Errors
    /// What the line lacks, in words.
    pub(crate) fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim_end_matches('\r');
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        Ok(match word {
            "ready" if !rest.trim().is_empty() => Self::Ready { client: rest.trim().to_owned() },
            "ready" => return Err("`ready` needs the name and version of the client".to_owned()),
            "ok" => Self::Ok(rest.to_owned()),
            "none" if rest.is_empty() => Self::Nothing,
            "error" => Self::Error(rest.to_owned()),
            "unsupported" => Self::Unsupported(rest.to_owned()),
            "sent" => Self::sent(rest)?,
            _ => {
                return Err("a line begins with ready, ok, none, error, unsupported or sent".to_owned());
            }
        })
    }

    fn sent(rest: &str) -> Result<Self, String> {
        let mut words = rest.splitn(3, ' ');
        let id = words.next().and_then(|id| id.parse().ok()).ok_or("`sent` needs the id of the send")?;
        let (result, detail) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let result = match result {
            "ok" => Ok(position(detail).ok_or("`sent ID ok` needs LEDGER:ENTRY of the message id")?),
            "error" => Err(detail.to_owned()),
            _ => return Err("`sent ID` needs ok or error".to_owned()),
        };
        Ok(Self::Sent { id, result })
    }
}

/// `LEDGER:ENTRY`. Clients show what has no position as -1, which is 2^64-1 on the wire.
fn position(text: &str) -> Option<(u64, u64)> {
    let (ledger, entry) = text.split_once(':')?;
    let number = |text: &str| text.parse().ok().or_else(|| (text == "-1").then_some(u64::MAX));
    Some((number(ledger)?, number(entry)?))
}

impl ReceivedLine {
    /// The text behind `ok`: `REDELIVERIES PAYLOAD`. The payload may be empty.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let (redelivery_count, payload) = text.split_once(' ').unwrap_or((text, ""));
        let redelivery_count = redelivery_count.parse().map_err(|_| "`receive` needs the redelivery count")?;
        Ok(Self { name: name.to_owned(), redelivery_count, payload: payload.to_owned() })
    }
}

/// Text of a glue in a form to show: no control characters, not too long.
pub(super) fn shown(text: &str, chars_max: usize) -> String {
    let plain = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let mut shown: String = plain.clone().take(chars_max).collect();
    if plain.count() > chars_max {
        shown.push('…');
    }
    shown
}

/// That a line means what was read of it: written again, it is read as the same; and a message in it is part of it.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_line(line: &str, read: &Line) {
    let again = match read {
        Line::Ready { client } => format!("ready {client}"),
        Line::Ok(text) => format!("ok {text}"),
        Line::Nothing => "none".to_owned(),
        Line::Error(text) => format!("error {text}"),
        Line::Unsupported(text) => format!("unsupported {text}"),
        Line::Sent { id, result: Ok((ledger, entry)) } => format!("sent {id} ok {ledger}:{entry}"),
        Line::Sent { id, result: Err(text) } => format!("sent {id} error {text}"),
    };
    assert_eq!(Line::parse(&again).as_ref(), Ok(read), "{line:?}");
    if let Line::Ok(text) = read {
        if let Ok(message) = ReceivedLine::parse("m", text) {
            assert!(text.ends_with(&message.payload), "{text:?}");
        }
    }
    let shown = shown(line, 20);
    assert!(shown.chars().count() <= 21 && !shown.contains(char::is_control), "{shown:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        for line in
            ["ready a client 1.0", "ok", "ok 1 0 two words", "none", "error a b", "sent 7 ok -1:-1", "sent 7 error"]
        {
            check_line(line, &Line::parse(line).expect(line));
        }
        assert_eq!(Line::parse("ready a client 1.0"), Ok(Line::Ready { client: "a client 1.0".to_owned() }));
        assert_eq!(Line::parse("ok"), Ok(Line::Ok(String::new())));
        assert_eq!(Line::parse("ok 1 0 two words\r"), Ok(Line::Ok("1 0 two words".to_owned())));
        assert_eq!(Line::parse("none"), Ok(Line::Nothing));
        assert_eq!(Line::parse("error a b"), Ok(Line::Error("a b".to_owned())));
        assert_eq!(Line::parse("sent 7 ok 3:4"), Ok(Line::Sent { id: 7, result: Ok((3, 4)) }));
        assert_eq!(Line::parse("sent 7 ok -1:-1"), Ok(Line::Sent { id: 7, result: Ok((u64::MAX, u64::MAX)) }));
        assert_eq!(Line::parse("sent 7 error"), Ok(Line::Sent { id: 7, result: Err(String::new()) }));
    }

    #[test]
    fn rubbish_is_refused_with_what_it_lacks() {
        for (line, lacks) in [
            ("", "a line begins with"),
            ("Connected to broker", "a line begins with"),
            ("ready", "name and version"),
            ("none of it", "a line begins with"),
            ("sent", "the id"),
            ("sent x ok 1:2", "the id"),
            ("sent 99999999999999999999999 ok 1:2", "the id"),
            ("sent 1", "ok or error"),
            ("sent 1 ok", "LEDGER:ENTRY"),
            ("sent 1 ok 5", "LEDGER:ENTRY"),
        ] {
            let refused = Line::parse(line).expect_err(line);
            assert!(refused.contains(lacks), "{line}: {refused}");
        }
    }

    #[test]
    fn received_messages_are_read() {
        let message = ReceivedLine::parse("m1", "2 a b").expect("it is whole");
        assert_eq!((&*message.name, message.redelivery_count, &*message.payload), ("m1", 2, "a b"));
        assert_eq!(ReceivedLine::parse("m1", "0 ").map(|message| message.payload), Ok(String::new()));
        assert_eq!(ReceivedLine::parse("m1", "0").map(|message| message.payload), Ok(String::new()));
        assert!(ReceivedLine::parse("m1", "").is_err());
        assert!(ReceivedLine::parse("m1", "many x").is_err());
    }

    #[test]
    fn what_a_glue_wrote_cannot_move_the_cursor() {
        assert_eq!(shown("a\x1b[2Jb", 9), "a\u{fffd}[2Jb");
        assert_eq!(shown("äöü", 2), "äö…");
    }

    #[test]
    fn requests_are_words() {
        let request = Request::new("producer").word("p").word("topic").option("batching", true);
        assert_eq!(request.to_string(), "producer p topic batching=true");
    }
}
