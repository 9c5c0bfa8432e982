//! A peer with next to no cost: it takes every SEND and answers at once, and feeds consumers from frames made
//! beforehand, so that what is measured is the client.
//!
//! It is no broker: it stores nothing, checks nothing, knows one answer to each request, and trusts its client. One
//! blocking thread per connection on 127.0.0.1.
//!
//! What a consumer gets is named by its topic: `feed-<members>-<payload bytes>-<entries>`; 0 members are messages
//! outside batches; what stands before `feed` tells topics apart. With `-<codec>` behind that they are texts, compressed:
//! `lz4`, `zlib`, `zstd`, `snappy`; what is behind the codec tells topics apart too. A topic named `partitions-<number>-…`
//! has so many partitions.
//!
//! The first SEND of each sequence id to a topic that ends in `cut` is answered by the end of the connection.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{BufMut, BytesMut};
use pulsar_native::pb;
use pulsar_native::wire::{
    Command, Compression, Frame, MessageHead, MetadataFields, Receipt, SingleFields, compress, frames, put_entry,
    put_message, put_pong, put_receipt, put_record,
};

use crate::text::text;

/// What one read takes at most.
const READ_BYTES: usize = 256 * 1024;

/// About how many bytes of MESSAGE frames are written at once.
const FEED_BYTES: usize = 64 * 1024;

/// Where entry ids start: from here to 2^28 they take four bytes, so that they are patched in place.
pub(crate) const ENTRY_ID_FIRST: u64 = 1 << 21;

/// `ledgerId` of everything.
pub(crate) const LEDGER_ID: u64 = 7;

/// A listening sink. It ends with the process.
pub(crate) struct Sink {
    /// Its service URL.
    pub(crate) url: String,
    acked: Arc<AtomicU64>,
}

impl Sink {
    /// Listens on a free port.
    pub(crate) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("pulsar://{}", listener.local_addr()?);
        Ok(Self::serve(listener, url))
    }

    /// Listens on a free port for what serves clients at `url`; the address of that port.
    #[allow(dead_code, reason = "not every program that has a sink puts something before it")]
    pub(crate) fn start_behind(url: &str) -> io::Result<(Self, String)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        Ok((Self::serve(listener, url.to_owned()), address))
    }

    fn serve(listener: TcpListener, url: String) -> Self {
        let acked = Arc::new(AtomicU64::new(0));
        let (own_url, counter, cuts) = (url.clone(), acked.clone(), Arc::<Mutex<HashSet<u64>>>::default());
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let peer = Peer::new(socket, own_url.clone(), counter.clone(), cuts.clone());
                std::thread::spawn(move || peer.run());
            }
        });
        Self { url, acked }
    }

    /// Entries acknowledged whole since [`take_acked`](Self::take_acked).
    #[allow(dead_code, reason = "not every program that has a sink asks while a client runs")]
    pub(crate) fn acked(&self) -> u64 {
        self.acked.load(Ordering::SeqCst)
    }

    /// Entries acknowledged whole since the last call.
    pub(crate) fn take_acked(&self) -> u64 {
        self.acked.swap(0, Ordering::SeqCst)
    }
}

/// One connection.
struct Peer {
    socket: TcpStream,
    url: String,
    acked: Arc<AtomicU64>,
    out: BytesMut,
    feeds: HashMap<u64, Feed>,
    /// The producer whose sends end the connection, and the sequence ids that have done so.
    cutter: Option<u64>,
    cuts: Arc<Mutex<HashSet<u64>>>,
    /// The connection ends now.
    is_cut: bool,
}

impl Peer {
    fn new(socket: TcpStream, url: String, acked: Arc<AtomicU64>, cuts: Arc<Mutex<HashSet<u64>>>) -> Self {
        let (out, feeds) = (BytesMut::new(), HashMap::new());
        Self { socket, url, acked, out, feeds, cutter: None, cuts, is_cut: false }
    }

    /// Serves until the client goes away.
    fn run(mut self) {
        // An error here is the end of the connection, and the client is the one to say what it means.
        let _ = self.socket.set_nodelay(true).and_then(|()| self.serve());
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut rx = vec![0; READ_BYTES];
        let mut filled = 0;
        loop {
            if filled == rx.len() {
                rx.resize(2 * filled, 0);
            }
            let n = self.socket.read(&mut rx[filled..])?;
            if n == 0 {
                return Ok(());
            }
            filled += n;
            let taken = self.take(&rx[..filled]);
            rx.copy_within(taken..filled, 0);
            filled -= taken;
            if self.is_cut {
                return Ok(());
            }
            self.socket.write_all(&self.out)?;
            self.out.clear();
            for feed in self.feeds.values_mut() {
                feed.write(&mut self.socket)?;
            }
        }
    }

    /// Takes the whole frames of `rx`; how many bytes they were.
    fn take(&mut self, rx: &[u8]) -> usize {
        let mut at = 0;
        while let Some(frame) = whole_frame(&rx[at..]) {
            at += frame.len();
            match frame.get(8..10) {
                Some([0x08, 6]) => self.receipt(frame),
                Some([0x08, 10]) => self.count_acks(frame),
                _ => self.answer(frame),
            }
        }
        at
    }

    fn receipt(&mut self, frame: &[u8]) {
        let entry_id = ENTRY_ID_FIRST;
        let none =
            Receipt { producer_id: 0, sequence_id: 0, highest_sequence_id: u64::MAX, ledger_id: LEDGER_ID, entry_id };
        let mut receipt = none;
        for (number, value) in fields(body(frame)) {
            match number {
                1 => receipt.producer_id = value,
                2 => receipt.sequence_id = value,
                6 => receipt.highest_sequence_id = value,
                _ => {}
            }
        }
        receipt.entry_id = entry_id + receipt.sequence_id;
        if self.cutter == Some(receipt.producer_id) {
            self.is_cut |= self.cuts.lock().expect("no thread panics with it").insert(receipt.sequence_id);
        }
        put_receipt(&mut self.out, &receipt);
    }

    /// Counts the ids without an ack set: entries that are done with.
    fn count_acks(&mut self, frame: &[u8]) {
        let mut rest = body(frame);
        let mut whole = 0;
        while let Some((&tag, behind)) = rest.split_first() {
            let (value, length) = varint(behind);
            rest = &behind[length..];
            if tag & 7 == 2 {
                let (id, behind) = rest.split_at(value as usize);
                whole += u64::from(fields(id).all(|(number, _)| number != 5));
                rest = behind;
            }
        }
        self.acked.fetch_add(whole, Ordering::SeqCst);
    }

    /// Notes what the producer does to the connection; its request id.
    fn open(&mut self, ask: &pb::CommandProducer) -> u64 {
        if ask.topic.ends_with("cut") {
            self.cutter = Some(ask.producer_id);
        }
        ask.request_id
    }

    fn answer(&mut self, frame: &[u8]) {
        let run = bytes::Bytes::copy_from_slice(frame);
        let Some(Ok(Frame::Other(command))) = frames(run).next() else { return };
        let answer = match command {
            Command::Connect(_) => Command::Connected(pb::CommandConnected {
                server_version: "sink".to_owned(),
                protocol_version: Some(21),
                max_message_size: Some(5 * 1024 * 1024),
                ..Default::default()
            }),
            Command::PartitionedMetadata(ask) => {
                Command::PartitionedMetadataResponse(pb::CommandPartitionedTopicMetadataResponse {
                    partitions: Some(partitions_of(&ask.topic)),
                    request_id: ask.request_id,
                    response: Some(pb::command_partitioned_topic_metadata_response::LookupType::Success.into()),
                    ..Default::default()
                })
            }
            Command::Lookup(ask) => Command::LookupResponse(pb::CommandLookupTopicResponse {
                broker_service_url: Some(self.url.clone()),
                broker_service_url_tls: Some(self.url.clone()).filter(|url| url.starts_with("pulsar+ssl")),
                response: Some(pb::command_lookup_topic_response::LookupType::Connect.into()),
                request_id: ask.request_id,
                authoritative: Some(true),
                ..Default::default()
            }),
            Command::Producer(ask) => Command::ProducerSuccess(pb::CommandProducerSuccess {
                request_id: self.open(&ask),
                producer_name: "p".to_owned(),
                last_sequence_id: Some(-1),
                producer_ready: Some(true),
                ..Default::default()
            }),
            Command::Subscribe(ask) => {
                if let Some(feed) = Feed::of_topic(&ask.topic, ask.consumer_id) {
                    self.feeds.insert(ask.consumer_id, feed);
                }
                success(ask.request_id)
            }
            Command::Flow(flow) => {
                if let Some(feed) = self.feeds.get_mut(&flow.consumer_id) {
                    feed.permits += i64::from(flow.message_permits);
                }
                return;
            }
            Command::CloseProducer(ask) => success(ask.request_id),
            Command::CloseConsumer(ask) => {
                self.feeds.remove(&ask.consumer_id);
                success(ask.request_id)
            }
            Command::Ping(_) => return put_pong(&mut self.out),
            _ => return,
        };
        answer.encode_frame(&mut self.out);
    }
}

/// The number in a topic named `partitions-<number>-…`; 0 for any other, and for a partition itself.
fn partitions_of(topic: &str) -> u32 {
    let number = topic.split_once("partitions-").and_then(|(_, rest)| rest.split('-').next()?.parse().ok());
    number.filter(|_| !topic.contains("-partition-")).unwrap_or(0)
}

fn success(request_id: u64) -> Command {
    Command::Success(pb::CommandSuccess { request_id, ..Default::default() })
}

/// What one consumer gets, as far as its permits go.
struct Feed {
    /// Whole MESSAGE frames of equal length, written as they are but for their entry ids.
    frames: BytesMut,
    frame_bytes: usize,
    /// Where the entry id lies in a frame.
    id_at: usize,
    members: i64,
    permits: i64,
    next_id: u64,
    entries_left: u64,
}

impl Feed {
    fn of_topic(topic: &str, consumer_id: u64) -> Option<Self> {
        let mut words = topic.split_once("feed-")?.1.split('-');
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        let (members, payload_bytes, entries) = (number()?, number()? as usize, number()?);
        let entry = match words.next() {
            Some(codec) if !codec.is_empty() => compressed_entry(members, payload_bytes, codec_of(codec)?),
            _ => entry(members, payload_bytes),
        };
        Some(Self::new(consumer_id, members, &entry, entries))
    }

    fn new(consumer_id: u64, members: u64, entry: &[u8], entries: u64) -> Self {
        let head = MessageHead::new(consumer_id, LEDGER_ID, ENTRY_ID_FIRST);
        let mut frame = BytesMut::new();
        put_message(&mut frame, &head, entry);
        let id = fixed_id(ENTRY_ID_FIRST);
        let id_at = frame.windows(4).position(|window| window == id).expect("the id is in the frame");
        let count = (FEED_BYTES / frame.len()).max(1);
        Self {
            frames: BytesMut::from(&frame.repeat(count)[..]),
            frame_bytes: frame.len(),
            id_at,
            members: members.max(1) as i64,
            permits: 0,
            next_id: ENTRY_ID_FIRST,
            entries_left: entries,
        }
    }

    fn write(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        let at_once = (self.frames.len() / self.frame_bytes) as u64;
        while self.permits > 0 && self.entries_left > 0 {
            let permitted = self.permits.div_euclid(self.members).max(1) as u64;
            let count = permitted.min(at_once).min(self.entries_left);
            for place in 0..count as usize {
                let at = place * self.frame_bytes + self.id_at;
                self.frames[at..at + 4].copy_from_slice(&fixed_id(self.next_id));
                self.next_id += 1;
            }
            socket.write_all(&self.frames[..count as usize * self.frame_bytes])?;
            self.permits -= count as i64 * self.members;
            self.entries_left -= count;
        }
        Ok(())
    }
}

/// An entry as a producer of this library writes it; of 0 members: a message outside a batch.
pub(crate) fn entry(members: u64, payload_bytes: usize) -> BytesMut {
    let payload = vec![b'x'; payload_bytes];
    entry_of(members, |_| payload.clone(), Compression::None)
}

/// As [`entry`], of texts under a codec.
fn compressed_entry(members: u64, payload_bytes: usize, codec: Compression) -> BytesMut {
    entry_of(members, |number| text(number, payload_bytes), codec)
}

/// One that is built in, by its name in small letters.
fn codec_of(name: &str) -> Option<Compression> {
    let is_named = |codec: &Compression| codec.is_built_in() && format!("{codec:?}").eq_ignore_ascii_case(name);
    Compression::ALL.into_iter().find(is_named)
}

fn entry_of(members: u64, payload: impl Fn(u64) -> Vec<u8>, codec: Compression) -> BytesMut {
    let mut metadata = MetadataFields {
        producer_name: "p",
        sequence_id: ENTRY_ID_FIRST,
        publish_time_ms: 1_700_000_000_000,
        ..MetadataFields::default()
    };
    let mut content = BytesMut::new();
    if members == 0 {
        content.extend_from_slice(&payload(0));
    } else {
        for member in 0..members {
            let payload = payload(member);
            let single = SingleFields {
                payload_size: payload.len() as i32,
                sequence_id: Some(ENTRY_ID_FIRST + member),
                ..SingleFields::default()
            };
            put_record(&mut content, &single, &payload);
        }
        metadata.num_messages_in_batch = Some(members as i32);
        metadata.highest_sequence_id = Some(ENTRY_ID_FIRST + members - 1);
    }
    if codec != Compression::None {
        metadata.compression = codec.to_pb();
        metadata.uncompressed_size = content.len() as u32;
    }
    let mut out = BytesMut::new();
    put_entry(&mut out, &metadata, &compress(codec, None, &content).expect("the codec is built in"));
    out
}

/// The varint of an id from [`ENTRY_ID_FIRST`] to 2^28.
pub(crate) fn fixed_id(id: u64) -> [u8; 4] {
    let part = |place: u32| ((id >> (7 * place)) & 0x7f) as u8;
    [part(0) | 0x80, part(1) | 0x80, part(2) | 0x80, part(3)]
}

/// The first frame of `rx`, with its length field, if it is whole.
pub(crate) fn whole_frame(rx: &[u8]) -> Option<&[u8]> {
    let total = u32::from_be_bytes(*rx.first_chunk()?) as usize;
    rx.get(..4 + total)
}

/// The body of the command of a frame whose type takes one byte and has a one-byte tag.
pub(crate) fn body(frame: &[u8]) -> &[u8] {
    let command_bytes = u32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]) as usize;
    let command = &frame[8..8 + command_bytes];
    let (_, length) = varint(&command[3..]);
    &command[3 + length..]
}

/// A varint, and how many bytes it takes.
pub(crate) fn varint(bytes: &[u8]) -> (u64, usize) {
    let mut value = 0;
    for (place, byte) in bytes.iter().enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return (value, place + 1);
        }
    }
    (value, bytes.len())
}

/// The varint fields of a message; others are skipped.
pub(crate) fn fields(mut rest: &[u8]) -> impl Iterator<Item = (u8, u64)> {
    std::iter::from_fn(move || {
        loop {
            let (&tag, behind) = rest.split_first()?;
            let (value, length) = varint(behind);
            rest = &behind[length..];
            if tag & 7 == 2 {
                rest = rest.get(value as usize..)?;
                continue;
            }
            return Some((tag >> 3, value));
        }
    })
}

/// Bytes of a request of the baseline client.
pub(crate) fn request(command: impl Into<Command>) -> Vec<u8> {
    let mut out = BytesMut::new();
    command.into().encode_frame(&mut out);
    let mut bytes = Vec::with_capacity(out.len());
    bytes.put_slice(&out);
    bytes
}
