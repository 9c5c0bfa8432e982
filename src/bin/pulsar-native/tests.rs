use clap::CommandFactory;

use super::*;

const URL: &str = "pulsar://127.0.0.1:6650";

/// Options that every command on a topic needs.
fn parse(command: &str, options: &str) -> Result<Cli, String> {
    let needed = match command.ends_with("consume") {
        true => "--topic t --subscription s",
        false => "--topic t",
    };
    let words = ["pulsar-native"].into_iter().chain(command.split(' ')).chain([URL]);
    let words = words.chain(needed.split(' ')).chain(options.split_whitespace());
    Cli::try_parse_from(words).map_err(|error| error.to_string())
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_zero_that_makes_no_sense_is_refused_with_the_allowed_range() {
    for (command, options) in [
        ("consume", "--messages"),
        ("perf consume", "--messages --sample-interval --threads"),
        (
            "perf produce",
            "--messages --rate --max-pending-messages --batching-max-messages --producers --sample-interval --threads",
        ),
    ] {
        for option in options.split(' ') {
            let error = parse(command, &format!("{option} 0")).err().unwrap_or_default();
            let expected = format!("invalid value '0' for '{option} <N>': 0 is not in 1..");
            assert!(error.contains(&expected), "{command} {option} 0: {error:?}");
        }
    }
}

#[test]
fn a_zero_that_makes_sense_is_accepted() {
    for (command, option) in [
        ("perf produce", "--size"),
        ("perf produce", "--batching-max-publish-delay"),
        ("perf consume", "--receiver-queue-size"),
        ("perf consume", "--acknowledgment-group-time"),
    ] {
        assert!(parse(command, &format!("{option} 0")).is_ok(), "{command} {option} 0");
    }
}

#[test]
fn numbers_beyond_their_type_are_refused() {
    for (command, option, value) in [
        ("consume", "--messages", "18446744073709551616"),
        ("perf consume", "--messages", "18446744073709551616"),
        ("perf consume", "--receiver-queue-size", "4294967296"),
        ("perf consume", "--acknowledgment-group-time", "4294967296"),
        ("perf produce", "--messages", "18446744073709551616"),
        ("perf produce", "--size", "1073741825"),
        ("perf produce", "--size", "18446744073709551615"),
        ("perf produce", "--rate", "4294967296"),
        ("perf produce", "--max-pending-messages", "4294967296"),
        ("perf produce", "--batching-max-messages", "4194305"),
        ("perf produce", "--batching-max-publish-delay", "4294967296"),
        ("perf produce", "--producers", "100001"),
        ("perf produce", "--sample-interval", "4294967296"),
        ("perf produce", "--threads", "1025"),
        ("perf produce", "--messages", "-1"),
        ("perf produce", "--rate", "0.5"),
        ("perf produce", "--size", "many"),
    ] {
        let error = parse(command, &format!("{option}={value}")).err().unwrap_or_default();
        let expected = format!("invalid value '{value}' for '{option} <");
        assert!(error.contains(&expected), "{command} {option} {value}: {error:?}");
    }
}

#[test]
fn the_highest_numbers_are_accepted() {
    let highest = "--messages 18446744073709551615 --size 1073741824 --rate 4294967295 --producers 100000 \
                   --max-pending-messages 4294967295 --batching-max-messages 4194304 --sample-interval 4294967295";
    assert!(parse("perf produce", highest).is_ok());
    assert!(parse("perf consume", "--messages 18446744073709551615 --receiver-queue-size 4294967295").is_ok());
}

#[test]
fn the_help_says_that_latency_is_sampled() {
    for direction in ["produce", "consume"] {
        let help = Cli::try_parse_from(["pulsar-native", "perf", direction, "--help"]).err();
        let help = help.map(|error| error.to_string()).unwrap_or_default();
        assert!(help.contains("Latency is sampled"), "{help}");
        assert!(help.contains("one message in N"), "{help}");
    }
}
