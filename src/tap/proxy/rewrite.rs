//! The addresses of brokers in what a broker sends, rewritten; all other bytes pass as they are and at once.
//!
//! | frame | what happens |
//! | --- | --- |
//! | LOOKUP_RESPONSE, CLOSE_PRODUCER, CLOSE_CONSUMER, TOPIC_MIGRATED | held until it is whole, rewritten if it names a broker to connect to |
//! | any other | passes as it comes, but for its first ten bytes, which are waited for |
//! | lengths that no frame has | everything behind them passes |
//!
//! A client that goes through a proxy stays at the proxy's address, and tells it the broker of a LOOKUP_RESPONSE or CLOSE_* in
//! `proxy_to_broker_url` of its next CONNECT: those keep the broker's own address. A [`Greeting`] finds such a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, mem};

use bytes::{Bytes, BytesMut};

use crate::pb;
use crate::wire::command::Command;
use crate::wire::frame::{Frame, frames};
use crate::wire::proto::{Reader, Value, put_bytes};

/// Both length fields, and type of the command: what tells whether a frame may name a broker.
const HEAD_BYTES: usize = 10;

/// The largest frame that is held. Those that name brokers have some hundred bytes.
const HELD_BYTES_MAX: usize = 64 << 10;

/// The URLs by which an answer names one broker, each as it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NamedBroker {
    /// `pulsar://`
    pub(crate) plain: Option<String>,
    /// `pulsar+ssl://`
    pub(crate) tls: Option<String>,
    /// `http://`, of lookups over HTTP.
    pub(crate) web: Option<String>,
    /// `https://`, of lookups over HTTP.
    pub(crate) web_tls: Option<String>,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Rewriter {
    state: State,
    is_proxied: Arc<AtomicBool>,
}

/// The first frame of a client, a CONNECT, as it goes by: it says whether a proxy is to carry the connection on.
#[derive(Default)]
pub(crate) struct Greeting {
    /// What there is of it.
    held: BytesMut,
    is_over: bool,
    is_proxied: Arc<AtomicBool>,
}

impl Greeting {
    /// What rewrites the other direction of the same connection.
    pub(crate) fn rewriter(&self) -> Rewriter {
        Rewriter { is_proxied: Arc::clone(&self.is_proxied), ..Rewriter::default() }
    }

    /// Looks at bytes that pass.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        if self.is_over {
            return;
        }
        let room = HELD_BYTES_MAX - self.held.len();
        self.held.extend_from_slice(&chunk[..chunk.len().min(room)]);
        let Some(size) = self.held.first_chunk().map(|size| u32::from_be_bytes(*size) as usize) else { return };
        if self.held.len() < HELD_BYTES_MAX.min(size.saturating_add(4)) {
            return;
        }
        self.is_over = true;
        let mut held = mem::take(&mut self.held);
        held.truncate(size.saturating_add(4));
        if let Some(Ok(Frame::Other(Command::Connect(connect)))) = frames(held.freeze()).next() {
            self.is_proxied.store(!connect.proxy_to_broker_url().is_empty(), Ordering::Relaxed);
        }
    }
}

enum State {
    /// The first bytes of a frame, fewer than it takes to tell.
    Head(BytesMut),
    /// So many bytes of a frame pass.
    Pass(usize),
    /// A frame of this size is put together.
    Hold(BytesMut, usize),
    /// What comes is no frame.
    Raw,
}

impl fmt::Debug for State {
    /// Shows only how many bytes are held: they may be credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(held) => f.debug_tuple("Head").field(&held.len()).finish(),
            Self::Pass(left) => f.debug_tuple("Pass").field(left).finish(),
            Self::Hold(held, left) => f.debug_tuple("Hold").field(&held.len()).field(left).finish(),
            Self::Raw => f.write_str("Raw"),
        }
    }
}

impl Default for Rewriter {
    fn default() -> Self {
        Self { state: State::Head(BytesMut::new()), is_proxied: Arc::default() }
    }
}

enum Verdict {
    /// It takes so many bytes of the frame to tell.
    Needs(usize),
    Pass(usize),
    Hold(usize),
    Raw,
}

fn judge(head: &[u8]) -> Verdict {
    let Some((sizes, rest)) = head.split_first_chunk::<8>() else { return Verdict::Needs(8) };
    let [total, command] =
        [&sizes[..4], &sizes[4..]].map(|size| size.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)));
    if total < 4 || command > total - 4 {
        return Verdict::Raw;
    }
    let Ok(frame) = usize::try_from(total + 4) else { return Verdict::Raw };
    if command < 2 || frame > HELD_BYTES_MAX {
        return Verdict::Pass(frame);
    }
    match rest {
        [] | [_] => Verdict::Needs(HEAD_BYTES),
        // The type of the command comes first, and in one byte, in what all brokers write.
        [0x08, 15 | 16 | 24 | 68 | 0x80.., ..] => Verdict::Hold(frame),
        [0x08, ..] => Verdict::Pass(frame),
        _ => Verdict::Hold(frame),
    }
}

impl Rewriter {
    /// Appends to `out` what is to be sent on now. `rewrite` gives the URLs to name instead, those that are there; the same ones for
    /// a broker that keeps its name.
    pub(crate) fn push(
        &mut self,
        mut chunk: Bytes,
        rewrite: &mut dyn FnMut(&NamedBroker) -> NamedBroker,
        out: &mut Vec<Bytes>,
    ) {
        // Bytes at the front of `chunk` that pass, and are sent on in one piece.
        let mut passed = 0;
        while passed < chunk.len() {
            let left = chunk.len() - passed;
            match &mut self.state {
                State::Raw => passed = chunk.len(),
                State::Pass(rest) => {
                    let step = left.min(*rest);
                    passed += step;
                    *rest -= step;
                    if *rest == 0 {
                        self.state = State::Head(BytesMut::new());
                    }
                }
                State::Head(held) if held.is_empty() => match judge(&chunk[passed..]) {
                    Verdict::Pass(frame) => self.state = State::Pass(frame),
                    Verdict::Raw => self.state = State::Raw,
                    Verdict::Needs(_) => {
                        send_front(&mut chunk, &mut passed, out);
                        held.extend_from_slice(&chunk);
                        return;
                    }
                    Verdict::Hold(frame) => {
                        send_front(&mut chunk, &mut passed, out);
                        self.state = State::Hold(BytesMut::new(), frame);
                    }
                },
                State::Head(held) => match judge(held) {
                    Verdict::Needs(bytes) => {
                        let step = left.min(bytes - held.len());
                        held.extend_from_slice(&chunk.split_to(step));
                    }
                    Verdict::Hold(frame) => self.state = State::Hold(mem::take(held), frame),
                    Verdict::Pass(frame) => self.state = pass_head(held, frame, out),
                    Verdict::Raw => {
                        out.push(mem::take(held).freeze());
                        self.state = State::Raw;
                    }
                },
                State::Hold(held, frame) => {
                    let step = left.min(*frame - held.len());
                    held.extend_from_slice(&chunk.split_to(step));
                    if held.len() == *frame {
                        let is_proxied = self.is_proxied.load(Ordering::Relaxed);
                        out.push(rewritten(mem::take(held).freeze(), is_proxied, rewrite));
                        self.state = State::Head(BytesMut::new());
                    }
                }
            }
        }
        send_front(&mut chunk, &mut passed, out);
        self.settle_head(out);
    }

    /// A head that needs no further byte does not wait for the next chunk.
    fn settle_head(&mut self, out: &mut Vec<Bytes>) {
        let State::Head(held) = &mut self.state else { return };
        match judge(held) {
            Verdict::Pass(frame) if !held.is_empty() => self.state = pass_head(held, frame, out),
            Verdict::Raw => {
                out.push(mem::take(held).freeze());
                self.state = State::Raw;
            }
            _ => {}
        }
    }

    /// What is held when no more bytes come.
    pub(crate) fn finish(&mut self) -> Option<Bytes> {
        let (State::Head(held) | State::Hold(held, _)) = mem::replace(&mut self.state, State::Raw) else { return None };
        Some(held.freeze()).filter(|held| !held.is_empty())
    }
}

fn send_front(chunk: &mut Bytes, passed: &mut usize, out: &mut Vec<Bytes>) {
    if *passed > 0 {
        out.push(chunk.split_to(mem::take(passed)));
    }
}

/// Passes on the head of a frame of `frame` bytes; the state for the rest of it.
fn pass_head(held: &mut BytesMut, frame: usize, out: &mut Vec<Bytes>) -> State {
    let head = mem::take(held).freeze();
    let rest = frame - head.len();
    out.push(head);
    if rest == 0 { State::Head(BytesMut::new()) } else { State::Pass(rest) }
}

/// The frame with other addresses; as it was where it names no broker. Whatever else is in it stays, known or not.
fn rewritten(frame: Bytes, is_proxied: bool, rewrite: &mut dyn FnMut(&NamedBroker) -> NamedBroker) -> Bytes {
    let Some(Ok(Frame::Other(command))) = frames(frame.clone()).next() else { return frame };
    let kind = command.command_type();
    let (plain, tls, numbers) = match command {
        // See the module for both exceptions.
        Command::CloseProducer(_) | Command::CloseConsumer(_) if is_proxied => return frame,
        Command::LookupResponse(body) if !body.proxy_through_service_url() => {
            (body.broker_service_url, body.broker_service_url_tls, [1, 2])
        }
        Command::CloseProducer(pb::CommandCloseProducer {
            assigned_broker_service_url: plain,
            assigned_broker_service_url_tls: tls,
            ..
        })
        | Command::CloseConsumer(pb::CommandCloseConsumer {
            assigned_broker_service_url: plain,
            assigned_broker_service_url_tls: tls,
            ..
        }) => (plain, tls, [3, 4]),
        Command::TopicMigrated(body) => (body.broker_service_url, body.broker_service_url_tls, [3, 4]),
        _ => return frame,
    };
    let named = NamedBroker { plain, tls, ..NamedBroker::default() };
    let instead = rewrite(&named);
    if instead == named {
        return frame;
    }
    with_urls(&frame, kind, numbers, &instead).unwrap_or(frame)
}

/// A frame with these URLs in the fields of those numbers of its body, and lengths that fit; `None` if it cannot be read.
fn with_urls(frame: &[u8], kind: i32, [plain, tls]: [u32; 2], instead: &NamedBroker) -> Option<Bytes> {
    let command_bytes = u32::from_be_bytes(*frame.get(4..)?.first_chunk()?) as usize;
    let (command, behind) = frame.get(8..)?.split_at_checked(command_bytes)?;
    let url = |number, _: &[u8]| {
        let url = if number == plain { &instead.plain } else { &instead.tls };
        url.as_ref().filter(|_| number == plain || number == tls).map(|url| url.clone().into_bytes())
    };
    let body = |number, body: &[u8]| if i64::from(number) == i64::from(kind) { replaced(body, url) } else { None };
    let command = replaced(command, body)?;
    let size = |bytes: usize| u32::try_from(bytes).ok().map(u32::to_be_bytes);
    let mut out = BytesMut::with_capacity(8 + command.len() + behind.len());
    out.extend_from_slice(&size(4 + command.len() + behind.len())?);
    out.extend_from_slice(&size(command.len())?);
    out.extend_from_slice(&command);
    out.extend_from_slice(behind);
    Some(out.freeze())
}

/// A message with other values in those of its length-delimited fields for which `replace` gives one.
fn replaced(message: &[u8], replace: impl Fn(u32, &[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(message.len());
    let mut reader = Reader::new(message, 0);
    while let Some((number, value, from)) = reader.next_at("rewritten").ok()? {
        let other = match value {
            Value::Bytes(range) => replace(number, message.get(range)?),
            _ => None,
        };
        match other {
            Some(value) => put_bytes(&mut out, number, &value),
            None => out.extend_from_slice(message.get(from..reader.offset())?),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(command: impl Into<Command>) -> BytesMut {
        let mut out = BytesMut::new();
        command.into().encode_frame(&mut out);
        out
    }

    fn lookup(url: &str) -> BytesMut {
        let body = pb::CommandLookupTopicResponse {
            broker_service_url: Some(url.to_owned()),
            request_id: 5,
            ..Default::default()
        };
        frame(body)
    }

    fn through(bytes: &[u8], piece: usize, to: &str) -> (Vec<u8>, usize) {
        let mut rewriter = Rewriter::default();
        let mut out = Vec::new();
        let mut rewrite =
            |named: &NamedBroker| NamedBroker { plain: named.plain.as_ref().map(|_| to.to_owned()), ..named.clone() };
        let mut held_max = 0;
        let mut pushed = 0;
        for chunk in bytes.chunks(piece) {
            rewriter.push(Bytes::copy_from_slice(chunk), &mut rewrite, &mut out);
            pushed += chunk.len();
            held_max = held_max.max(pushed.saturating_sub(out.iter().map(Bytes::len).sum()));
        }
        out.extend(rewriter.finish());
        (out.concat(), held_max)
    }

    #[test]
    fn addresses_are_rewritten_wherever_the_bytes_break() {
        let ping = frame(pb::CommandPing {});
        let close = frame(pb::CommandCloseProducer { producer_id: 1, request_id: 2, ..Default::default() });
        let bytes = [&ping[..], &lookup("pulsar://broker:6650"), &ping, &close, &ping].concat();
        let expected = [&ping[..], &lookup("pulsar://tap:1"), &ping, &close, &ping].concat();
        for piece in 1..=bytes.len() {
            assert_eq!(through(&bytes, piece, "pulsar://tap:1").0, expected, "pieces of {piece}");
        }
    }

    /// The commands by which a broker sends a client elsewhere, with these URLs.
    fn moves(plain: Option<&str>, tls: Option<&str>) -> [BytesMut; 4] {
        let (plain, tls) = (plain.map(str::to_owned), tls.map(str::to_owned));
        let lookup = pb::CommandLookupTopicResponse {
            broker_service_url: plain.clone(),
            broker_service_url_tls: tls.clone(),
            request_id: 5,
            ..Default::default()
        };
        let producer = pb::CommandCloseProducer {
            producer_id: 1,
            request_id: 2,
            assigned_broker_service_url: plain.clone(),
            assigned_broker_service_url_tls: tls.clone(),
        };
        let consumer = pb::CommandCloseConsumer {
            consumer_id: 1,
            request_id: 2,
            assigned_broker_service_url: plain.clone(),
            assigned_broker_service_url_tls: tls.clone(),
        };
        let migrated = pb::CommandTopicMigrated {
            resource_id: 1,
            resource_type: pb::command_topic_migrated::ResourceType::Producer.into(),
            broker_service_url: plain,
            broker_service_url_tls: tls,
        };
        [frame(lookup), frame(producer), frame(consumer), frame(migrated)]
    }

    #[test]
    fn each_command_is_rewritten_by_each_scheme() {
        const OF_BROKER: [Option<&str>; 2] = [Some("pulsar://broker:6650"), Some("pulsar+ssl://broker:6651")];
        const OF_TAP: [Option<&str>; 2] = [Some("pulsar://tap:1"), Some("pulsar+ssl://tap:1")];
        let mut rewrite = |named: &NamedBroker| {
            let given = [&named.plain, &named.tls].map(Option::as_deref);
            assert!((0..2).all(|scheme| given[scheme].is_none() || given[scheme] == OF_BROKER[scheme]), "{named:?}");
            let [plain, tls] = [0, 1].map(|scheme| given[scheme].and(OF_TAP[scheme]).map(str::to_owned));
            NamedBroker { plain, tls, ..NamedBroker::default() }
        };
        for which in [[true, false], [false, true], [true, true], [false, false]] {
            let of = |urls: [Option<&'static str>; 2]| {
                let [plain, tls] = [0, 1].map(|scheme| urls[scheme].filter(|_| which[scheme]));
                moves(plain, tls)
            };
            for (sent, expected) in of(OF_BROKER).into_iter().zip(of(OF_TAP)) {
                let mut out = Vec::new();
                Rewriter::default().push(sent.freeze(), &mut rewrite, &mut out);
                assert_eq!(out.concat(), expected, "{which:?}");
            }
        }
    }

    #[test]
    fn a_close_behind_a_proxy_keeps_the_address() {
        let connect = |broker: Option<&str>| {
            let broker = broker.map(str::to_owned);
            frame(pb::CommandConnect { proxy_to_broker_url: broker, ..Default::default() }).freeze()
        };
        let mut rewrite = |named: &NamedBroker| NamedBroker {
            plain: named.plain.as_ref().map(|_| "tap".to_owned()),
            ..named.clone()
        };
        for (broker, kept) in [(None, false), (Some(""), false), (Some("broker:6650"), true)] {
            let bytes = [&connect(broker)[..], &frame(pb::CommandPing {})].concat();
            for piece in 1..=bytes.len() {
                let mut greeting = Greeting::default();
                let mut rewriter = greeting.rewriter();
                bytes.chunks(piece).for_each(|chunk| greeting.push(chunk));
                let frames = moves(Some("pulsar://broker:6650"), None);
                for (sent, is_close) in frames.into_iter().zip([false, true, true, false]) {
                    let (sent, mut out) = (sent.freeze(), Vec::new());
                    rewriter.push(sent.clone(), &mut rewrite, &mut out);
                    assert_eq!(out.concat() == sent, kept && is_close, "{broker:?} in pieces of {piece}");
                }
            }
        }
    }

    #[test]
    fn only_addresses_are_rewritten() {
        let with = |url: &str| {
            let mut body = Vec::new();
            put_bytes(&mut body, 1, url.as_bytes());
            // A LOOKUP_RESPONSE with fields of later versions, in the body and beside it, and bytes behind the command.
            body.extend([0x18, 1, 0x20, 5, 0xa0, 0x06, 7]);
            put_bytes(&mut body, 101, b"unknown");
            let mut command = vec![0x08, 24];
            put_bytes(&mut command, 24, &body);
            put_bytes(&mut command, 900, b"unknown too");
            let sizes = [command.len() as u32 + 10, command.len() as u32].map(u32::to_be_bytes).concat();
            [&sizes[..], &command, b"behind"].concat()
        };
        let long = "pulsar://a-tap-with-a-name-that-takes-the-body-beyond-the-length-of-one-byte.example.com:6650";
        let bytes = [with("pulsar://broker:6650"), with("pulsar://another:6650")].concat();
        for to in ["pulsar://tap:1", long, &long.repeat(3)] {
            assert_eq!(through(&bytes, 9, to).0, [with(to), with(to)].concat());
        }
        assert_eq!(through(&with(long), 9, long).0, with(long));
    }

    #[test]
    fn a_frame_without_addresses_is_not_waited_for() {
        let mut message = BytesMut::new();
        crate::wire::hot::put_message(&mut message, &crate::wire::MessageHead::new(1, 2, 3), &[7; 1_000]);
        for piece in 1..40 {
            let (out, held) = through(&message, piece, "pulsar://tap:1");
            assert_eq!(out, message);
            assert!(held < HEAD_BYTES, "{held}");
        }
    }

    #[test]
    fn what_is_no_frame_passes() {
        let noise: Vec<u8> = (0..2_000u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for from in 0..200 {
            for piece in [1, 7, 64, 4_096] {
                assert_eq!(through(&noise[from..], piece, "pulsar://tap:1").0, &noise[from..]);
            }
        }
    }
}
