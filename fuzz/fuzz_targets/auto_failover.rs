#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    pulsar_native::fuzzing::auto_failover(data);
});
