//! The targets over their stored corpora and over changes of them; and that `fuzz/` has what it should.

use std::collections::BTreeSet;
use std::{fs, io};

use super::inputs::{Changes, corpus, dictionary, folder};
use super::*;
use crate::wire::explain::generate;

/// Changed inputs for each target, beside its corpus.
const CHANGES: usize = 150;

/// Runs a target over its stored corpus, and one without state over some changes of it.
fn replay(target: &str, body: fn(&[u8])) -> io::Result<()> {
    if folder().is_none() {
        return Ok(());
    }
    let inputs = corpus(target)?;
    assert!(!inputs.is_empty(), "the corpus of {target} is empty");
    for (path, data) in &inputs {
        // Shown by the test harness only if the body panics.
        println!("{}", path.display());
        body(data);
    }
    if !TARGETS.iter().any(|(name, _)| *name == target) {
        return Ok(());
    }
    let inputs = inputs.into_iter().map(|(_, data)| data).collect();
    let mut changes = Changes::new(inputs, dictionary(&generate::dictionary()), 20);
    for number in 0..CHANGES {
        let data = changes.next();
        println!("change {number}: {data:02x?}");
        body(&data);
    }
    Ok(())
}

/// A target is in the table, a program, a file, and has a corpus.
#[test]
fn every_target_is_a_program_with_a_corpus() -> io::Result<()> {
    let Some(fuzz) = folder() else { return Ok(()) };
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml"))?;
    let programs: BTreeSet<_> =
        manifest.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    for (name, _) in TARGETS {
        assert!(programs.contains(name), "{name} is not in fuzz/Cargo.toml");
        let text = fs::read_to_string(fuzz.join("fuzz_targets").join(name).with_extension("rs"))?;
        assert!(text.contains(&format!("pulsar_native::fuzzing::{name}(data);")), "{name}");
        assert!(!corpus(name)?.is_empty(), "{name} has no corpus");
    }
    Ok(())
}

/// `FUZZ_DICTIONARY=write` writes it.
#[test]
fn the_dictionary_is_that_of_the_schema() -> io::Result<()> {
    let Some(fuzz) = folder() else { return Ok(()) };
    let (path, fresh) = (fuzz.join("pulsar.dict"), generate::dictionary());
    if std::env::var_os("FUZZ_DICTIONARY").is_some_and(|value| value == "write") {
        fs::write(&path, &fresh)?;
    }
    assert_eq!(fs::read_to_string(&path)?, fresh, "FUZZ_DICTIONARY=write brings it up to date");
    Ok(())
}

#[test]
fn frame_corpus() -> io::Result<()> {
    replay("frame", frame)
}

#[test]
fn command_corpus() -> io::Result<()> {
    replay("command", command)
}

#[test]
fn entry_corpus() -> io::Result<()> {
    replay("entry", entry)
}

#[test]
fn message_id_corpus() -> io::Result<()> {
    replay("message_id", message_id)
}

#[cfg(feature = "referee")]
#[test]
fn referee_line_corpus() -> io::Result<()> {
    replay("referee_line", referee_line)
}

#[test]
fn checkpoint_corpus() -> io::Result<()> {
    replay("checkpoint", checkpoint)
}

#[test]
fn batch_corpus() -> io::Result<()> {
    replay("batch", batch)
}

#[test]
fn written_corpus() -> io::Result<()> {
    replay("written", written)
}

#[test]
fn ack_set_corpus() -> io::Result<()> {
    replay("ack_set", ack_set)
}

#[test]
fn auto_failover_corpus() -> io::Result<()> {
    replay("auto_failover", auto_failover)
}

#[test]
fn assembly_corpus() -> io::Result<()> {
    replay("assembly", assembly)
}

#[test]
fn decompress_corpus() -> io::Result<()> {
    replay("decompress", decompress)
}

#[test]
fn certificate_corpus() -> io::Result<()> {
    replay("certificate", certificate)
}

#[cfg(feature = "http")]
#[test]
fn http_answer_corpus() -> io::Result<()> {
    replay("http_answer", http_answer)
}

#[cfg(feature = "broker")]
#[test]
fn avro_corpus() -> io::Result<()> {
    replay("avro", avro)
}

#[cfg(feature = "http")]
#[test]
fn cluster_answer_corpus() -> io::Result<()> {
    replay("cluster_answer", cluster_answer)
}

#[cfg(feature = "encryption")]
#[test]
fn encrypted_corpus() -> io::Result<()> {
    replay("encrypted", encrypted)
}

#[test]
fn explain_corpus() -> io::Result<()> {
    replay("explain", explain)
}

#[cfg(feature = "capture")]
#[test]
fn dump_corpus() -> io::Result<()> {
    replay("dump", dump)
}

#[cfg(feature = "capture")]
#[test]
fn capture_corpus() -> io::Result<()> {
    replay("capture", capture)
}

#[cfg(feature = "oauth2")]
#[test]
fn oauth2_corpus() -> io::Result<()> {
    replay("oauth2", oauth2)
}

#[cfg(feature = "client")]
#[test]
fn codec_corpus() -> io::Result<()> {
    replay("codec", codec)
}

#[test]
fn built_stream_corpus() -> io::Result<()> {
    replay("built_stream", built_stream)
}

#[test]
fn built_entry_corpus() -> io::Result<()> {
    replay("built_entry", built_entry)
}

#[test]
fn decompress_lz4_corpus() -> io::Result<()> {
    replay("decompress_lz4", decompress_lz4)
}

#[test]
fn decompress_zlib_corpus() -> io::Result<()> {
    replay("decompress_zlib", decompress_zlib)
}

#[test]
fn decompress_zstd_corpus() -> io::Result<()> {
    replay("decompress_zstd", decompress_zstd)
}

#[test]
fn decompress_snappy_corpus() -> io::Result<()> {
    replay("decompress_snappy", decompress_snappy)
}

#[test]
fn topic_corpus() -> io::Result<()> {
    replay("topic", topic)
}

#[test]
fn service_url_corpus() -> io::Result<()> {
    replay("service_url", service_url)
}

#[test]
fn trace_context_corpus() -> io::Result<()> {
    replay("trace_context", trace_context)
}

#[test]
fn hash_corpus() -> io::Result<()> {
    replay("hash", hash)
}

#[cfg(feature = "broker")]
#[test]
fn token_corpus() -> io::Result<()> {
    replay("token", token)
}

#[cfg(feature = "broker")]
#[test]
fn admin_corpus() -> io::Result<()> {
    replay("admin", admin)
}

#[cfg(feature = "capture")]
#[test]
fn dump_forms_corpus() -> io::Result<()> {
    replay("dump_forms", dump_forms)
}

#[cfg(feature = "capture")]
#[test]
fn recording_corpus() -> io::Result<()> {
    replay("recording", recording)
}

#[cfg(feature = "broker")]
#[test]
fn hostile_broker_corpus() -> io::Result<()> {
    replay("hostile_broker", stateful::hostile_broker)
}

#[cfg(feature = "broker")]
#[test]
fn hostile_client_corpus() -> io::Result<()> {
    replay("hostile_client", stateful::hostile_client)
}

#[cfg(feature = "tap")]
#[test]
fn tap_corpus() -> io::Result<()> {
    replay("tap", stateful::tap)
}

#[cfg(feature = "sim")]
#[test]
fn world_corpus() -> io::Result<()> {
    replay("world", stateful::world)
}
