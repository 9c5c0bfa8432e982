//! Colours of a terminal.

use std::io::{IsTerminal, stdout};

use pulsar_native::wire::explain::Part;

use super::When;

const RESET: &str = "\x1b[0m";

pub(super) fn is_wanted(when: When) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match when {
        When::Auto => stdout().is_terminal() && !is_set("NO_COLOR"),
        When::Always => true,
        When::Never => false,
    }
}

pub(super) fn paint(part: Part) -> (&'static str, &'static str) {
    match part {
        Part::Heading => ("\x1b[1m", RESET),
        Part::Offset => ("\x1b[2m", RESET),
        Part::Hex => ("\x1b[36m", RESET),
        Part::Value => ("\x1b[33m", RESET),
        Part::Meaning => ("\x1b[32m", RESET),
        Part::Problem => ("\x1b[1;31m", RESET),
        _ => ("", ""),
    }
}
