use super::*;

const MAX: usize = 1 << 20;

/// The codecs of this build.
fn codecs() -> impl Iterator<Item = Compression> {
    Compression::ALL.into_iter().filter(|codec| *codec != Compression::None && codec.is_built_in())
}

fn packed(codec: Compression, input: &[u8]) -> Bytes {
    compress(codec, None, input).expect("a built-in codec")
}

fn text(bytes: usize) -> Vec<u8> {
    b"many a word, and then some more text. ".iter().copied().cycle().take(bytes).collect()
}

/// Bytes that no codec makes smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(next).collect()
}

#[test]
fn no_codec_hands_the_same_bytes_on() {
    let input = compress(Compression::None, None, b"hello").unwrap();
    let output = decompress(Compression::None.to_pb(), &input, 99, 0).unwrap();
    assert_eq!(output.as_ptr(), input.as_ptr());
    assert_eq!(output, "hello");
}

#[test]
fn codecs_that_are_not_there_are_named() {
    let input = Bytes::from_static(b"x");
    for codec in Compression::ALL.into_iter().filter(|codec| !codec.is_built_in()) {
        let name = codec_name(codec.to_pb()).unwrap();
        assert_eq!(decompress(codec.to_pb(), &input, 1, MAX), Err(CompressError::NotBuilt { codec: name }));
    }
    for value in [-1, 5, 15, i32::MAX] {
        assert_eq!(decompress(value, &input, 1, MAX), Err(CompressError::UnknownCodec(value)));
    }
}

#[test]
fn a_codec_without_its_feature_is_refused_and_names_it() {
    let features = [
        (Compression::Lz4, "lz4", cfg!(feature = "lz4")),
        (Compression::Zlib, "zlib", cfg!(feature = "zlib")),
        (Compression::Zstd, "zstd", cfg!(feature = "zstd")),
        (Compression::Snappy, "snappy", cfg!(feature = "snappy")),
    ];
    for (codec, feature, is_built_in) in features {
        let built = codec.check_built();
        assert_eq!((built.is_ok(), codec.is_built_in()), (is_built_in, is_built_in));
        assert_eq!(compress(codec, None, b"x").map(drop), built);
        let text = CompressError::NotBuilt { codec: codec_name(codec.to_pb()).unwrap() }.to_string();
        assert!(text.contains(&format!("feature `{feature}`")), "{text}");
    }
}

#[test]
fn payloads_round_trip_by_each_codec_and_level() {
    for codec in codecs() {
        let levels = codec.levels().into_iter().flatten().map(Some);
        for level in levels.chain([None]) {
            for size in [0usize, 1, 15, 100, 4096, 70_000] {
                for input in [vec![7; size], text(size), noise(size)] {
                    let packed = compress(codec, level, &input).unwrap();
                    let output = decompress(codec.to_pb(), &packed, size as u32, MAX).unwrap();
                    assert!(output == input, "{codec:?} of level {level:?}, {size} bytes");
                }
            }
        }
    }
}

#[test]
fn a_higher_level_packs_more_tightly() {
    for codec in codecs() {
        let Some(levels) = codec.levels() else { continue };
        let mut input = noise(30_000);
        input.iter_mut().for_each(|byte| *byte &= 0x0f);
        input.extend(text(30_000));
        let size = |level| compress(codec, level, &input).unwrap().len();
        assert!(size(Some(*levels.end())) < size(Some(*levels.start())), "{codec:?}");
        assert!(size(None) <= size(Some(*levels.start())), "{codec:?}");
    }
}

/// Also the bound by which an impossible size is refused: it must be above what the codec really reaches.
#[test]
fn a_highly_repetitive_payload_stays_within_the_ratio() {
    for codec in codecs() {
        for size in [1000, MAX, 8 * MAX] {
            let packed = packed(codec, &vec![7; size]);
            assert!(size == 1000 || packed.len() < size / 15, "{codec:?}: {}", packed.len());
            assert_eq!(decompress(codec.to_pb(), &packed, size as u32, size).unwrap().len(), size, "{codec:?}");
        }
    }
}

#[test]
fn an_empty_payload_may_be_packed_or_nothing() {
    for codec in codecs() {
        for payload in [Bytes::new(), packed(codec, b"")] {
            assert!(decompress(codec.to_pb(), &payload, 0, MAX).unwrap().is_empty(), "{codec:?}");
        }
    }
}

#[test]
fn a_declared_size_that_lies_is_refused() {
    for codec in codecs() {
        let input = noise(1000);
        let packed = packed(codec, &input);
        let open = |declared, max| decompress(codec.to_pb(), &packed, declared, max);
        assert_eq!(open(1000, 1000).unwrap(), input);
        assert_eq!(open(1001, MAX), Err(CompressError::SizeMismatch { declared: 1001, actual: 1000 }), "{codec:?}");
        assert_eq!(open(1000, 999), Err(CompressError::TooLarge { size: 1000, max: 999 }));
        // As the official clients, which read only so far.
        let is_lenient = codec == Compression::Zlib;
        match open(999, MAX) {
            Ok(output) => assert!(is_lenient && output == input[..999]),
            Err(error) => assert!(!is_lenient, "{error}"),
        }
    }
}

#[test]
fn a_size_that_no_input_of_that_length_reaches_is_refused() {
    for codec in codecs() {
        let input = Bytes::from_static(b"ab");
        let largest = decompress(codec.to_pb(), &input, u32::MAX, usize::MAX);
        let Err(CompressError::ImpossibleSize { declared, possible }) = largest else { panic!("{largest:?}") };
        assert!(declared == u32::MAX as usize && possible <= 3000, "{codec:?}: {possible}");
    }
}

#[test]
fn what_is_cut_off_is_an_error() {
    for codec in codecs() {
        let input = text(1000);
        let packed = packed(codec, &input);
        for end in 0..packed.len() {
            match decompress(codec.to_pb(), &packed.slice(..end), 1000, MAX) {
                // All of the data is there, and the checksum behind it is not.
                Ok(output) => assert!(codec == Compression::Zlib && output == input, "{codec:?}: {end}"),
                Err(error) => assert!(!matches!(error, CompressError::TooLarge { .. }), "{codec:?}: {error}"),
            }
        }
    }
}

/// A failure leaves nothing behind in what is kept for the next payload.
#[test]
fn after_damaged_data_the_next_payload_is_read() {
    for codec in codecs() {
        let input = text(5000);
        let packed = packed(codec, &input);
        for at in 0..packed.len().min(200) {
            let mut damaged = packed.to_vec();
            damaged[at] ^= 0x55;
            let _ = decompress(codec.to_pb(), &damaged.into(), 5000, MAX);
            assert_eq!(decompress(codec.to_pb(), &packed, 5000, MAX).unwrap(), input, "{codec:?}");
        }
    }
}

#[cfg(feature = "lz4")]
#[test]
fn an_lz4_block_of_nothing_is_a_zero() {
    assert!(decompress(1, &Bytes::from_static(&[0]), 0, MAX).unwrap().is_empty());
}

/// As `java.util.zip.Deflater` leaves them with `SYNC_FLUSH`: neither a last block nor a checksum.
#[cfg(feature = "zlib")]
#[test]
fn a_zlib_stream_of_the_java_client_has_no_end() {
    use flate2::{Compress, Compression as Level, FlushCompress};
    for size in [1, 100, 100_000] {
        let input = text(size);
        let mut stream = Vec::with_capacity(size + 100);
        Compress::new(Level::default(), true).compress_vec(&input, &mut stream, FlushCompress::Sync).unwrap();
        assert!(stream.ends_with(&[0, 0, 0xff, 0xff]), "flushed, not ended");
        assert_eq!(decompress(2, &stream.into(), size as u32, MAX).unwrap(), input);
    }
}

#[cfg(feature = "zlib")]
#[test]
fn a_zlib_checksum_that_is_wrong_is_damage() {
    let mut stream = packed(Compression::Zlib, b"some text").to_vec();
    *stream.last_mut().unwrap() ^= 1;
    assert!(matches!(decompress(2, &stream.into(), 9, MAX), Err(CompressError::Corrupt(_))));
}

/// The decoder of the Java client refuses a window above 8 MiB, unless the frame is a single segment.
#[cfg(feature = "zstd")]
#[test]
fn a_zstd_frame_of_a_high_level_has_a_window_that_java_reads() {
    // More than the window of level 20 by itself.
    let frame = compress(Compression::Zstd, Some(20), &vec![0; 33 << 20]).unwrap();
    let (is_single_segment, window_log) = (frame[4] & 0x20 != 0, 10 + (frame[5] >> 3));
    assert!(!is_single_segment && window_log <= 23, "2^{window_log}");
}

#[cfg(feature = "zstd")]
#[test]
fn zstd_frames_in_a_row_are_one_payload() {
    let frames = [packed(Compression::Zstd, b"one, "), packed(Compression::Zstd, b"two")].concat();
    assert_eq!(decompress(3, &frames.into(), 8, MAX).unwrap(), "one, two");
}

/// A frame need not say how large its content is; that of Go's stream writer does not.
#[cfg(feature = "zstd")]
#[test]
fn a_zstd_frame_without_its_size_is_read() {
    let mut encoder = ::zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    std::io::Write::write_all(&mut encoder, &text(5000)).unwrap();
    let frame: Bytes = encoder.finish().unwrap().into();
    assert_eq!(decompress(3, &frame, 5000, MAX).unwrap(), text(5000));
    for declared in [4999, 5001] {
        assert!(decompress(3, &frame, declared, MAX).is_err(), "{declared}");
    }
}
