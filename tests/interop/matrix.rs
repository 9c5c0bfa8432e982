//! The matrix: what a payload goes through, each combination a row. A row is named by its parameters, `zstd batch` and `zstd
//! batch encrypted`.

use pulsar_native::Compression;

use crate::admin;
use crate::checks::{Check, Job, Work, both_ways};
use crate::common::random::Random;
use crate::message::Described;
use crate::ours::Ours;
use crate::peer::Peer;

const CODECS: [(&str, Compression); 5] = [
    ("none", Compression::None),
    ("lz4", Compression::Lz4),
    ("zlib", Compression::Zlib),
    ("zstd", Compression::Zstd),
    ("snappy", Compression::Snappy),
];

/// How the messages are put into entries.
#[derive(Clone, Copy)]
enum Form {
    Single,
    Batch,
    KeyBatch,
    Chunked,
}

const FORMS: [(&str, Form); 4] =
    [("single", Form::Single), ("batch", Form::Batch), ("key batch", Form::KeyBatch), ("chunked", Form::Chunked)];

/// All rows.
pub fn rows() -> Vec<Check> {
    let of_form = |(codec_name, codec), (form_name, form)| {
        [("", false), (" encrypted", true)]
            .map(|(end, encrypted)| (format!("{codec_name} {form_name}{end}"), row(codec, form, encrypted)))
    };
    let of_codec = |codec| FORMS.into_iter().flat_map(move |form| of_form(codec, form));
    CODECS.into_iter().flat_map(of_codec).collect()
}

fn row(codec: Compression, form: Form, encrypted: bool) -> Job {
    let messages = match form {
        Form::Single => singles(),
        Form::Batch => members(),
        Form::KeyBatch => of_keys(),
        Form::Chunked => larger_than_an_entry(),
    };
    let (by_key, chunking) = (matches!(form, Form::KeyBatch), matches!(form, Form::Chunked));
    let batching = by_key || matches!(form, Form::Batch);
    Job::Matrix(Work { codec, batching, by_key, chunking, encrypted, ..Work::new(messages) })
}

/// Of many sizes; each above the 4 KiB up to which the Java client does not compress, but for the last.
fn singles() -> Vec<Described> {
    let texts = [5_000, 20_000, 100_000].map(|bytes| Described::new(text(0, bytes)));
    let short = Described { key: Some("short".into()), ..Described::new("short") };
    texts.into_iter().chain([Described::new(vec![b' '; 200_000]), short]).collect()
}

/// One that is more than the 5 MiB of an entry also once it is compressed, to less than half, between two that are not.
fn larger_than_an_entry() -> Vec<Described> {
    let mut random = Random::new(7);
    let mut large: Vec<u8> = (0..5_500_000).map(|_| random.below(256) as u8).collect();
    large.resize(12_000_000, b' ');
    let properties = [("mine".to_owned(), "wert €".to_owned())];
    let large = Described { key: Some("k".into()), properties: properties.into(), ..Described::new(large) };
    vec![Described::new(text(0, 5_000)), large, Described::new("short")]
}

/// So many that each batch is above these 4 KiB.
fn members() -> Vec<Described> {
    let properties = [("mine".to_owned(), "wert €".to_owned())];
    let member = |at| Described {
        key: (at % 3 == 0).then(|| format!("key {at}")),
        properties: properties.clone().into(),
        ..Described::new(text(at, 400))
    };
    (0..200).map(member).collect()
}

/// Of five keys in turn, each batch above these 4 KiB as well. Payloads are in the order of the calls.
fn of_keys() -> Vec<Described> {
    let member = |at| Described {
        key: Some(format!("key {}", at % 5)),
        ..Described::new([format!("{at:04} ").into_bytes(), text(at, 600)].concat())
    };
    (0..200).map(member).collect()
}

/// Words that repeat around numbers that do not.
fn text(from: usize, bytes: usize) -> Vec<u8> {
    let words = (from..).flat_map(|number| format!("number {number} of many words, ").into_bytes());
    words.take(bytes).collect()
}

/// The messages of a row both ways. Under a codec the broker has less than half of their bytes in store: neither side has
/// sent them as they are.
pub async fn run(ours: &Ours, peer: &mut Peer, work: &Work) -> Result<(), String> {
    let topics = both_ways(ours, peer, work).await?;
    let payload_bytes: usize = work.messages.iter().filter_map(|message| message.payload.as_ref()).map(Vec::len).sum();
    for (side, topic) in ["they", "we"].into_iter().zip(topics) {
        let stats = admin::stats(&topic).await?;
        let stored = stats["storageSize"].as_u64().ok_or("statistics without storageSize")? as usize;
        let is_compressed = stored < payload_bytes / 2;
        if is_compressed != (work.codec != Compression::None) {
            return Err(format!("{side} sent {payload_bytes} bytes of payloads by {:?}: stored {stored}", work.codec));
        }
    }
    Ok(())
}
