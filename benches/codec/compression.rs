//! What a payload costs to compress and to decompress, beside the codec's crate alone, which reuses what it can.

use std::fmt;

use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use pulsar_native::Compression;
use pulsar_native::wire::{compress, decompress};

#[path = "../end_to_end/text.rs"]
mod text;

/// A codec and a payload.
#[derive(Clone, Copy)]
struct Row {
    codec: Compression,
    messages: u64,
    message_bytes: usize,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} x {}", self.codec, self.messages, self.message_bytes)
    }
}

impl Row {
    fn payload(self) -> Vec<u8> {
        (0..self.messages).flat_map(|number| text::text(number, self.message_bytes)).collect()
    }

    fn packed(self) -> Bytes {
        compress(self.codec, None, &self.payload()).expect("a built-in codec")
    }
}

/// Each codec of this build with a batch of small messages, a message of 1 KiB and one of 64 KiB.
fn rows() -> impl Iterator<Item = Row> {
    let codecs = Compression::ALL.into_iter().filter(|codec| *codec != Compression::None && codec.is_built_in());
    codecs.flat_map(|codec| {
        [(1000, 100), (1, 1024), (1, 65_536)].map(|(messages, message_bytes)| Row { codec, messages, message_bytes })
    })
}

#[divan::bench(args = rows())]
fn compress_payload(bencher: Bencher<'_, '_>, row: Row) {
    let payload = row.payload();
    bencher
        .counter(BytesCount::new(payload.len()))
        .bench_local(|| compress(row.codec, None, black_box(&payload)).expect("a built-in codec"));
}

#[divan::bench(args = rows())]
fn decompress_payload(bencher: Bencher<'_, '_>, row: Row) {
    let (packed, size) = (row.packed(), row.payload().len());
    bencher
        .counter(BytesCount::new(size))
        .bench_local(|| decompress(row.codec.to_pb(), black_box(&packed), size as u32, size).expect("what was packed"));
}

#[divan::bench(args = rows())]
fn crate_compress_payload(bencher: Bencher<'_, '_>, row: Row) {
    let payload = row.payload();
    let bencher = bencher.counter(BytesCount::new(payload.len()));
    match row.codec {
        #[cfg(feature = "lz4")]
        Compression::Lz4 => bencher.bench_local(|| lz4_flex::block::compress(black_box(&payload))),
        #[cfg(feature = "zlib")]
        Compression::Zlib => {
            let mut codec = flate2::Compress::new(flate2::Compression::default(), true);
            let mut out = Vec::with_capacity(2 * payload.len());
            bencher.bench_local(|| {
                codec.reset();
                out.clear();
                codec.compress_vec(black_box(&payload), &mut out, flate2::FlushCompress::Finish)
            });
        }
        #[cfg(feature = "zstd")]
        Compression::Zstd => {
            let mut codec = zstd::bulk::Compressor::new(3).expect("a context");
            bencher.bench_local(|| codec.compress(black_box(&payload)));
        }
        #[cfg(feature = "snappy")]
        Compression::Snappy => {
            let mut codec = snap::raw::Encoder::new();
            bencher.bench_local(|| codec.compress_vec(black_box(&payload)));
        }
        _ => {}
    }
}

#[divan::bench(args = rows())]
fn crate_decompress_payload(bencher: Bencher<'_, '_>, row: Row) {
    let (packed, size) = (row.packed(), row.payload().len());
    let bencher = bencher.counter(BytesCount::new(size));
    match row.codec {
        #[cfg(feature = "lz4")]
        Compression::Lz4 => bencher.bench_local(|| lz4_flex::block::decompress(black_box(&packed), size)),
        #[cfg(feature = "zlib")]
        Compression::Zlib => {
            let mut codec = flate2::Decompress::new(true);
            let mut out = Vec::with_capacity(size);
            bencher.bench_local(|| {
                codec.reset(true);
                out.clear();
                codec.decompress_vec(black_box(&packed), &mut out, flate2::FlushDecompress::Finish)
            });
        }
        #[cfg(feature = "zstd")]
        Compression::Zstd => {
            let mut codec = zstd::bulk::Decompressor::new().expect("a context");
            bencher.bench_local(|| codec.decompress(black_box(&packed), size));
        }
        #[cfg(feature = "snappy")]
        Compression::Snappy => bencher.bench_local(|| snap::raw::Decoder::new().decompress_vec(black_box(&packed))),
        _ => {}
    }
}
