//! Deliberate bugs in the parsers, one at a time: each is found by the target that is meant to find it, from the stored corpus,
//! within a bounded number of inputs, which is less than a minute without optimization. What finds it passes without it.
//!
//! Built with `RUSTFLAGS="--cfg pulsar_mutations"` only; `.ci/run mutations` does so.

use std::panic::catch_unwind;

use super::inputs::{Changes, corpus, dictionary, folder};
use super::{FuzzTarget, TARGETS};
use crate::mutation::parser::{ParserMutation, activate};
use crate::wire::explain::generate;

/// Inputs within which a mutation must be found.
const INPUTS_MAX: usize = 100_000;

fn target(name: &str) -> FuzzTarget {
    *TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this build")
}

/// Plants the bug of this name, if it is one of those that what counts allocations has to find.
pub(super) fn activate_named(name: &str) {
    let declared = ParserMutation::DeclaredLengthAllocated;
    activate((name == format!("{declared:?}")).then_some(declared));
}

/// The corpus as it is, then changes of it.
fn inputs(name: &str) -> impl Iterator<Item = Vec<u8>> {
    let corpus: Vec<_> = corpus(name).expect("a corpus").into_iter().map(|(_, data)| data).collect();
    let mut changes = Changes::new(corpus.clone(), dictionary(&generate::dictionary()), 1);
    corpus.into_iter().chain(std::iter::repeat_with(move || changes.next()))
}

fn assert_found(mutation: ParserMutation, name: &str) {
    if folder().is_none() {
        return;
    }
    let (_, body) = target(name);
    activate(Some(mutation));
    let found = inputs(name).take(INPUTS_MAX).enumerate().find(|(_, data)| catch_unwind(|| body(data)).is_err());
    activate(None);
    let Some((count, data)) = found else { panic!("{mutation:?} was not found by {name} with {INPUTS_MAX} inputs") };
    println!("{mutation:?}: found by {name} with input {count}");
    body(&data);
}

/// No target fails for it: what is allocated is counted by a test.
#[test]
fn a_declared_length_that_is_allocated_before_it_is_checked() {
    if folder().is_none() {
        return;
    }
    assert_eq!(target_of(ParserMutation::DeclaredLengthAllocated), COUNTED);
    let (is_good, text) = super::allocations::alone("DeclaredLengthAllocated");
    assert!(!is_good && text.contains("made it allocate"), "it was not found: {text}");
    let (is_good, text) = super::allocations::alone("1");
    assert!(is_good, "without it: {text}");
}

/// In place of a target: by the count of allocations.
const COUNTED: &str = "allocations";

/// One test for each mutation, and the target that must find it. A mutation that is not listed does not compile.
macro_rules! mutations {
    ($($name:ident: $mutation:ident => $target:literal;)*) => {
        fn target_of(mutation: ParserMutation) -> &'static str {
            match mutation {
                $(ParserMutation::$mutation => $target,)*
                ParserMutation::DeclaredLengthAllocated => COUNTED,
            }
        }

        $(#[test] fn $name() { assert_found(ParserMutation::$mutation, target_of(ParserMutation::$mutation)); })*
    };
}

mutations! {
    a_frame_that_lacks_its_last_byte: FrameOneByteShort => "frame";
    a_frame_without_a_limit: FrameWithoutLimit => "frame";
    a_command_beyond_its_frame: CommandBeyondFrame => "frame";
    a_required_field_that_is_forgotten: RequiredFieldForgotten => "built_stream";
    a_varint_of_too_many_bits: VarintTooLong => "batch";
    a_checksum_before_the_metadata_of_the_broker: ChecksumBeforeBrokerMetadata => "built_entry";
    a_checksum_from_the_second_byte: ChecksumFromSecondByte => "built_entry";
    a_key_that_lacks_its_last_byte: KeyOneByteShort => "entry";
    a_record_beyond_its_batch: RecordBeyondBatch => "batch";
    a_declared_size_that_is_not_checked: UncompressedSizeUnchecked => "decompress";
    a_size_that_is_not_met: SizeMismatchAccepted => "decompress";
    a_chunk_out_of_order: ChunkOutOfOrder => "assembly";
    a_chunked_message_without_a_limit: ChunkedWithoutLimit => "assembly";
}
