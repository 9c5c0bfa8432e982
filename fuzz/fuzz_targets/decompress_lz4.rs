#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    pulsar_native::fuzzing::decompress_lz4(data);
});
