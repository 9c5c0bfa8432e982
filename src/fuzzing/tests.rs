//! The targets over their stored corpora.

use std::path::Path;
use std::{fs, io};

use super::*;

/// Runs a target over its stored corpus; a published package has none.
fn replay(target: &str, body: fn(&[u8])) -> io::Result<()> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if !fuzz.is_dir() {
        return Ok(());
    }
    let mut count = 0;
    for file in fs::read_dir(fuzz.join("corpus").join(target))? {
        let path = file?.path();
        let data = fs::read(&path)?;
        // Shown by the test harness only if the body panics.
        println!("{}", path.display());
        body(&data);
        count += 1;
    }
    assert!(count > 0, "the corpus of {target} is empty");
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
