//! `explain`: a frame byte by byte.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use pulsar_native::wire::explain::{command_name, explain};

use crate::Outcome;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Frames in hex, white space as you like. Without it, they are read from the standard input.
    hex: Vec<String>,
    /// A file with the bytes themselves, as a capture of one direction of a connection gives them.
    #[arg(long)]
    file: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let bytes = match &arguments.file {
        Some(path) => std::fs::read(path).map_err(|error| format!("reading {}: {error}", path.display()))?,
        None if arguments.hex.is_empty() => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            unhex(&text)?
        }
        None => unhex(&arguments.hex.concat())?,
    };
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let whole = rest.first_chunk().map_or(rest.len(), |size| u32::from_be_bytes(*size) as usize + 4);
        let (frame, behind) = rest.split_at(whole.min(rest.len()));
        println!("{}\n{}", command_name(frame), explain(frame));
        rest = behind;
    }
    Ok(())
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let digit = |c: char| c.to_digit(16).ok_or_else(|| format!("{c:?} is no hex digit"));
    let pair = |pair: &[char]| match pair {
        [high, low] => Ok((digit(*high)? << 4 | digit(*low)?) as u8),
        _ => Err("an odd number of hex digits".to_owned()),
    };
    digits.chunks(2).map(pair).collect()
}
