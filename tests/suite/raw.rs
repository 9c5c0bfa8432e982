//! A producer that stores what it is given, also what the client's own would never make.

use bytes::{BufMut as _, BytesMut};
use prost::Message as _;
use pulsar_native::pb;
use pulsar_native::wire::{Command, Frame, Limits, SendHead, cut, frames, put_send_head};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What is to be stored: the metadata of an entry, without what [`publish`] sets itself, and its payload.
pub type RawEntry<'a> = (pb::MessageMetadata, &'a [u8]);

/// The producer name of all raw entries.
pub const RAW_PRODUCER: &str = "raw";

/// Their publish time, milliseconds since 1970, where the metadata has none.
pub const RAW_PUBLISH_TIME_MS: u64 = 1_700_000_000_000;

struct Raw<S> {
    stream: S,
    rx: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// Writes, and reads until so many frames have come.
    async fn exchange(&mut self, out: &[u8], frames_wanted: usize) {
        self.stream.write_all(out).await.expect("the broker reads");
        let mut seen = 0;
        while seen < frames_wanted {
            let read = self.stream.read_buf(&mut self.rx).await.expect("the broker writes");
            assert!(read > 0, "the broker closed the connection");
            let Some(run) = cut(&mut self.rx, &Limits::default()).expect("sound lengths") else { continue };
            for frame in frames(run).map(|frame| frame.expect("a sound frame")) {
                assert!(!matches!(frame, Frame::Other(Command::Error(_) | Command::SendError(_))), "{frame:?}");
                seen += usize::from(!matches!(frame, Frame::Other(Command::Ping(_))));
            }
        }
    }

    async fn ask(&mut self, command: impl Into<Command>) {
        let mut out = BytesMut::new();
        command.into().encode_frame(&mut out);
        self.exchange(&out, 1).await;
    }
}

/// Stores entries in this order, over a new connection, and waits for their receipts.
pub async fn publish<S>(stream: S, token: Option<String>, topic: &str, entries: &[RawEntry<'_>])
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut raw = Raw { stream, rx: BytesMut::new() };
    raw.ask(pb::CommandConnect {
        client_version: RAW_PRODUCER.into(),
        protocol_version: Some(21),
        auth_method_name: token.is_some().then(|| "token".into()),
        auth_data: token.map(|token| token.into_bytes().into()),
        ..Default::default()
    })
    .await;
    raw.ask(pb::CommandLookupTopic { topic: topic.into(), request_id: 1, ..Default::default() }).await;
    let producer_name = Some(RAW_PRODUCER.into());
    let topic = topic.into();
    raw.ask(pb::CommandProducer { topic, producer_id: 1, request_id: 2, producer_name, ..Default::default() }).await;
    let mut out = BytesMut::new();
    for (sequence_id, (metadata, payload)) in (0..).zip(entries) {
        put_entry(&mut out, sequence_id, metadata, payload);
    }
    raw.exchange(&out, entries.len()).await;
    // The next call uses the name again. A broker frees it with this answer, and with the end of a connection only some time later.
    raw.ask(pb::CommandCloseProducer { producer_id: 1, request_id: 3, ..Default::default() }).await;
}

fn put_entry(out: &mut BytesMut, sequence_id: u64, metadata: &pb::MessageMetadata, payload: &[u8]) {
    let metadata = pb::MessageMetadata {
        producer_name: RAW_PRODUCER.into(),
        sequence_id,
        publish_time: if metadata.publish_time == 0 { RAW_PUBLISH_TIME_MS } else { metadata.publish_time },
        ..metadata.clone()
    };
    let mut entry = BytesMut::new();
    entry.put_u32(metadata.encoded_len() as u32);
    entry.put_slice(&metadata.encode_to_vec());
    entry.put_slice(payload);
    let is_chunk = metadata.num_chunks_from_msg.is_some();
    let num_messages = metadata.num_messages_in_batch.unwrap_or(1);
    put_send_head(out, &SendHead { is_chunk, num_messages, ..SendHead::new(1, sequence_id) }, entry.len());
    out.extend_from_slice(&entry);
}
