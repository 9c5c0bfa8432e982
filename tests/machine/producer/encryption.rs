//! What an encrypting producer seals. The cipher here leaves bytes as they are, and its tags and vectors count.

use std::sync::atomic::{AtomicU8, Ordering};

use pulsar_native::error::Error;
use pulsar_native::machine::producer::encrypt::{Cipher, DataKey, Encrypt, IV_BYTES, Seal, TAG_BYTES};
use pulsar_native::wire::metadata::{encryption_keys, encryption_param, put_encryption_key};

use super::*;

#[derive(Debug)]
struct Counting {
    keys: BytesMut,
    seals: AtomicU8,
}

impl Cipher for Counting {
    fn encryption_keys(&self) -> &[u8] {
        &self.keys
    }

    fn seal(&self, _payload: &mut [u8]) -> Result<Seal> {
        let number = self.seals.fetch_add(1, Ordering::Relaxed);
        Ok(Seal { iv: [number; IV_BYTES], tag: [number; TAG_BYTES] })
    }
}

/// What the next entries meet, by turns.
#[derive(Debug)]
struct Keys {
    key: Arc<Counting>,
    asked: Mutex<VecDeque<Instant>>,
    answers: Mutex<VecDeque<Result<bool>>>,
}

impl Encrypt for Keys {
    fn data_key(&self, now: Instant) -> Result<Option<DataKey>> {
        self.asked.lock().unwrap().push_back(now);
        let is_encrypted = self.answers.lock().unwrap().pop_front().unwrap_or(Ok(true))?;
        Ok(is_encrypted.then(|| DataKey::new(self.key.clone())))
    }

    fn overhead_bytes(&self) -> usize {
        self.key.keys.len() + IV_BYTES + 2 + TAG_BYTES
    }
}

fn keys() -> Arc<Keys> {
    let mut keys = BytesMut::new();
    put_encryption_key(&mut keys, "mine", &[7; 256], &[("version".to_owned(), "1".to_owned())]);
    let key = Arc::new(Counting { keys, seals: AtomicU8::new(0) });
    Arc::new(Keys { key, asked: Mutex::default(), answers: Mutex::default() })
}

fn encrypting(keys: &Arc<Keys>, change: impl FnOnce(&mut ProducerConfig)) -> ProducerConfig {
    config(|config| {
        config.encryption = Some(keys.clone());
        change(config);
    })
}

/// The payload of a single message and its vector; the tag is compared.
fn opened(sent: &Sent) -> (Bytes, u8) {
    let parts = |raw: &Bytes| {
        let start = 8 + u32::from_be_bytes(raw[4..8].try_into().expect("four bytes")) as usize;
        let entry = raw.slice(start..);
        let parts = EntryParts::split(&entry).expect("an entry");
        (entry.slice(parts.metadata), entry.slice(parts.payload))
    };
    let (metadata, mut payload) = parts(&sent.raw);
    let names: Vec<_> = encryption_keys(&metadata).map(|key| (key.name().to_owned(), key.value().len())).collect();
    assert_eq!(names, [("mine".to_owned(), 256)]);
    let iv = encryption_param(&metadata).expect("a vector");
    let tag = payload.split_off(payload.len() - TAG_BYTES);
    assert_eq!((tag[..IV_BYTES].to_vec(), iv.len()), (iv.to_vec(), IV_BYTES));
    (payload, iv[0])
}

#[test]
fn each_entry_is_encrypted_and_the_broker_is_told() {
    let keys = keys();
    let mut harness = ProducerHarness::new(encrypting(&keys, |config| config.batching_max_messages = 2));
    assert_eq!(harness.attach(-1).encrypted, Some(true));
    let _ = harness.push("a");
    let _ = harness.push("b");
    let _ = harness.push(Message::new("").with_batching(false));
    let sent = harness.transmit();
    assert_eq!(sizes(&sent), [2, 1]);
    assert_eq!(sent[0].payloads, ["a", "b"]);
    assert_eq!(opened(&sent[1]), (Bytes::new(), 1), "also an empty payload has a tag");
    assert!(sent.iter().all(|sent| sent.metadata.encrypted));
    // Each record has four bytes of size, metadata of four bytes, and a payload of one.
    assert_eq!(sent.iter().map(|sent| sent.metadata.uncompressed_size).collect::<Vec<_>>(), [18, 0]);
    assert_eq!(*keys.asked.lock().unwrap(), [harness.now.at; 2]);
    let mut plain = ProducerHarness::new(config(|_| {}));
    assert_eq!(plain.attach(-1).encrypted, None);
}

#[test]
fn a_resent_entry_has_the_same_bytes() {
    let keys = keys();
    let mut harness = ProducerHarness::attached(encrypting(&keys, |config| config.batching = false));
    let _ = harness.push(vec![b'x'; 100_000]);
    let first = harness.transmit();
    harness.detach();
    harness.attach(-1);
    assert_eq!(harness.transmit()[0].raw, first[0].raw);
}

#[test]
fn tag_and_keys_have_room_in_each_chunk() {
    for (chunk_bytes_max, payload_bytes) in [(0, 10_000), (100, 1_000), (20, 999), (16, 10), (0, 5_000)] {
        let keys = keys();
        let config = encrypting(&keys, |config| {
            (config.batching, config.chunking, config.chunk_max_message_size) = (false, true, chunk_bytes_max);
        });
        let mut harness = ProducerHarness::new(config);
        harness.peer.max_message_size = 1_000;
        harness.attach(-1);
        let plain: Vec<u8> = (0..payload_bytes).map(|at| at as u8).collect();
        let send = harness.push(plain.clone());
        let sent = harness.transmit();
        if chunk_bytes_max == 16 {
            assert_eq!(failure(&send), (ErrorKind::MessageTooLarge, false), "a chunk would be all tag");
            continue;
        }
        let chunks: Vec<_> = sent.iter().map(opened).collect();
        assert_eq!(chunks.iter().flat_map(|(bytes, _)| bytes.to_vec()).collect::<Vec<_>>(), plain);
        let mut ivs: Vec<_> = chunks.iter().map(|(_, iv)| *iv).collect();
        ivs.sort_unstable();
        assert!(ivs.windows(2).all(|pair| pair[0] < pair[1]), "{ivs:?}");
        assert_eq!(keys.asked.lock().unwrap().len(), 1, "all chunks of a message have one data key");
        for chunk in &sent {
            let info = chunk.metadata.chunk.as_deref().expect("a chunk");
            assert_eq!(info.total_bytes, payload_bytes, "consumers count what is decrypted");
            let limited = chunk.raw.len() - 8 - u32::from_be_bytes(chunk.raw[4..8].try_into().unwrap()) as usize - 10;
            assert!(limited <= 1_000, "{limited}");
            let limit = if chunk_bytes_max == 0 { usize::MAX } else { chunk_bytes_max as usize };
            assert!(chunk.payloads[0].len() <= limit, "the tag counts");
        }
    }
}

/// Without that a batch that is just below the limit would be refused as a whole.
#[test]
fn a_batch_leaves_room_for_tag_and_keys() {
    let keys = keys();
    let mut harness = ProducerHarness::new(encrypting(&keys, |config| config.batching_max_bytes = 10_000));
    harness.peer.max_message_size = 2_000;
    harness.attach(-1);
    let sends: Vec<_> = (0..40).map(|_| harness.push(vec![b'x'; 100])).collect();
    let sent = harness.transmit();
    assert_eq!(sent.iter().map(|sent| sent.ids.len()).sum::<usize>(), 40);
    assert!(sends.iter().all(is_pending));
}

#[test]
fn an_entry_without_a_key_fails_or_goes_out_as_it_is() {
    let keys = keys();
    let mut harness = ProducerHarness::attached(encrypting(&keys, |config| config.batching = false));
    let no_key = Error::authentication("stands for any error");
    *keys.answers.lock().unwrap() = [Err(no_key), Ok(false), Ok(true)].into();
    let failed = harness.push("0");
    let plain = harness.push("1");
    let encrypted = harness.push("2");
    let sent = harness.transmit();
    assert_eq!(failure(&failed), (ErrorKind::Authentication, false));
    assert!(!sent[0].metadata.encrypted && sent[0].payloads == ["1"]);
    assert_eq!(opened(&sent[1]).0, "2");
    harness.confirm(1);
    harness.confirm(2);
    assert!(!is_pending(&plain) && !is_pending(&encrypted));
    harness.assert_empty();
}
