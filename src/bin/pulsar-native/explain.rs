//! `explain`: decodes frames, byte by byte.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use pulsar_native::wire::explain::explain;

use crate::{CliResult, output};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Frames in hex, white space ignored; without any, hex is read from stdin
    hex: Vec<String>,
    /// Read raw bytes from FILE, such as one direction of a captured connection
    #[arg(long, value_name = "FILE", conflicts_with = "hex")]
    file: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> CliResult {
    let bytes = match &arguments.file {
        Some(path) => std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?,
        None if arguments.hex.is_empty() => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            unhex(&text)?
        }
        None => unhex(&arguments.hex.concat())?,
    };
    for frame in explain(&bytes) {
        output::print(frame)?;
    }
    Ok(())
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let digit = |c: char| c.to_digit(16).ok_or_else(|| format!("{c:?} is not a hex digit"));
    let pair = |pair: &[char]| match pair {
        [high, low] => Ok((digit(*high)? << 4 | digit(*low)?) as u8),
        _ => Err("odd number of hex digits".to_owned()),
    };
    digits.chunks(2).map(pair).collect()
}
