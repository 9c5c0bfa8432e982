//! Which observations are shown, and as what.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use pulsar_native::rules::{Rule, Side};
use pulsar_native::tap::{Endpoint, FrameObservation, InspectorConfig, Observation, ObservedEvent, ReplayDifference};
use pulsar_native::wire::entry::EntryParts;
use pulsar_native::wire::{Command, Frame, frames};

use super::{Arguments, Shown};
use crate::{CliResult, UsageError};

/// Bytes of a payload that are shown.
const PAYLOAD_SHOWN: usize = 256;

/// Filters, and turns into lines.
pub(super) struct Output {
    json: bool,
    has_page: bool,
    topics: Vec<String>,
    commands: Vec<String>,
    endpoints: Vec<Endpoint>,
    errors: bool,
    pub(super) show_tokens: bool,
    pub(super) show_payloads: bool,
    /// Violations by rule and side, with those that a filter leaves out.
    broken: BTreeMap<(Rule, Side), u64>,
    frames: u64,
}

impl Output {
    /// With a page there are lines of JSON or none.
    pub(super) fn new(arguments: &Arguments) -> CliResult<Self> {
        let (shown, has_page) = (&arguments.shown, arguments.web.is_some());
        refuse_without_effect(arguments)?;
        if arguments.compare && has_page && !shown.json {
            return Err(UsageError(
                "--compare has no effect with --web, which shows no lines; it needs --json".to_owned(),
            )
            .into());
        }
        let commands: Vec<String> = shown.command.iter().map(|name| name.to_ascii_uppercase()).collect();
        let is_known = |name: &str| Command::ALL.iter().any(|(_, known)| *known == name);
        if let Some(unknown) = commands.iter().find(|name| !is_known(name)) {
            return Err(UsageError(format!("--command {unknown}: PulsarApi.proto has no such command")).into());
        }
        let endpoints = shown.endpoint.iter().map(|text| endpoint(text));
        Ok(Self {
            json: shown.json,
            has_page,
            topics: shown.topic.clone(),
            commands,
            endpoints: endpoints.collect::<Result<_, _>>()?,
            errors: shown.errors,
            show_tokens: shown.show_tokens,
            show_payloads: shown.show_payloads,
            broken: BTreeMap::new(),
            frames: 0,
        })
    }

    pub(super) fn inspector_config(&self) -> InspectorConfig {
        let mut config = InspectorConfig::default();
        let has_secrets = !self.json && (self.show_tokens || self.show_payloads);
        config.keep_frames = self.has_page || has_secrets;
        config
    }

    /// The line for an observation, if it is to be shown.
    pub(super) fn line(&mut self, seen: &Observation) -> Option<String> {
        match &seen.event {
            ObservedEvent::Frame(_) => self.frames += 1,
            ObservedEvent::Violation(violation) => *self.broken.entry((violation.rule, violation.by)).or_default() += 1,
            _ => {}
        }
        if self.has_page && !self.json || !self.is_shown(seen) {
            return None;
        }
        if self.json {
            return Some(seen.to_json());
        }
        let mut line = format!("{} {seen}", time_of_day(seen.at));
        if let ObservedEvent::Frame(frame) = &seen.event {
            self.put_secrets(&mut line, frame);
        }
        Some(line)
    }

    fn is_shown(&self, seen: &Observation) -> bool {
        let is_filtered = !self.topics.is_empty() || !self.commands.is_empty() || !self.endpoints.is_empty();
        if !is_filtered {
            return !self.errors || seen.is_error();
        }
        let (topic, command, endpoint) = match &seen.event {
            ObservedEvent::Frame(frame) => (frame.topic.as_deref(), Some(frame.command), frame.endpoint),
            ObservedEvent::Violation(violation) => (violation.topic.as_deref(), None, violation.endpoint),
            _ => return false,
        };
        self.fits(topic, command, endpoint) && (!self.errors || seen.is_error())
    }

    /// The line for what the embedded broker does otherwise, if it is to be shown.
    pub(super) fn difference(&self, seen: &ReplayDifference) -> Option<String> {
        if !self.fits(seen.topic.as_deref(), seen.request, seen.endpoint) {
            return None;
        }
        Some(if self.json { seen.to_json() } else { format!("{} {seen}", time_of_day(seen.at)) })
    }

    fn fits(&self, topic: Option<&str>, command: Option<&str>, endpoint: Option<Endpoint>) -> bool {
        let topic_fits = self.topics.is_empty()
            || topic.is_some_and(|topic| self.topics.iter().any(|wanted| topic.contains(wanted.as_str())));
        let command_fits = self.commands.is_empty()
            || command.is_none_or(|command| self.commands.iter().any(|wanted| command == wanted));
        let endpoint_fits =
            self.endpoints.is_empty() || endpoint.is_some_and(|endpoint| self.endpoints.contains(&endpoint));
        topic_fits && command_fits && endpoint_fits
    }

    /// What was asked for by name.
    fn put_secrets(&self, line: &mut String, frame: &FrameObservation) {
        let Some(Ok(read)) = frame.bytes.clone().map(frames).and_then(|mut frames| frames.next()) else { return };
        match read {
            Frame::Send { entry, .. } | Frame::Message { entry, .. } if self.show_payloads => put_payload(line, &entry),
            Frame::Other(command) if self.show_tokens => put_token(line, &command),
            _ => {}
        }
    }

    /// For the end: what was seen, and each rule that was broken.
    pub(super) fn summary(&self) -> String {
        let mut text = format!("{} frames", self.frames);
        if self.broken.is_empty() {
            text.push_str(", no rule was broken");
        }
        for ((rule, by), count) in &self.broken {
            let _ = write!(text, "\nthe {by} broke {rule} {count} times ({})", rule.chapter());
        }
        text
    }
}

/// Secrets are in lines of text and in recordings only.
fn refuse_without_effect(arguments: &Arguments) -> Result<(), UsageError> {
    let Shown { json, show_tokens, show_payloads, .. } = arguments.shown;
    let (option, what) = match (show_tokens, show_payloads) {
        (true, _) => ("--show-tokens", "credentials"),
        (false, true) => ("--show-payloads", "payloads"),
        (false, false) => return Ok(()),
    };
    let instead = match (json, arguments.web) {
        _ if arguments.record.is_some() => return Ok(()),
        (true, _) => "--json",
        (false, Some(_)) => "--web",
        (false, None) => return Ok(()),
    };
    Err(UsageError(format!(
        "{option} has no effect with {instead}, which shows no {what} in lines; it needs --record FILE"
    )))
}

fn endpoint(text: &str) -> Result<Endpoint, UsageError> {
    let read = || {
        let (kind, id) = text.split_once(':')?;
        let id = id.parse().ok()?;
        Some(match kind {
            "producer" => Endpoint::Producer(id),
            "consumer" => Endpoint::Consumer(id),
            "watcher" => Endpoint::Watcher(id),
            _ => return None,
        })
    };
    read().ok_or_else(|| UsageError(format!("--endpoint {text}: producer:ID, consumer:ID or watcher:ID was expected")))
}

fn time_of_day(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, micros) = (since.as_secs() % 86_400, since.subsec_micros());
    format!("{:02}:{:02}:{:02}.{micros:06}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn put_payload(line: &mut String, entry: &Bytes) {
    let Ok(parts) = EntryParts::split(entry) else { return };
    let payload = &entry[parts.payload];
    let shown = &payload[..payload.len().min(PAYLOAD_SHOWN)];
    let _ = write!(line, " \"{}\"", shown.escape_ascii());
    if shown.len() < payload.len() {
        line.push_str("...");
    }
}

fn put_token(line: &mut String, command: &Command) {
    let (own, original) = match command {
        Command::Connect(connect) => (connect.auth_data.as_ref(), connect.original_auth_data.as_ref()),
        Command::AuthResponse(response) => (response.response.as_ref().and_then(|data| data.auth_data.as_ref()), None),
        Command::AuthChallenge(challenge) => {
            (challenge.challenge.as_ref().and_then(|data| data.auth_data.as_ref()), None)
        }
        Command::PartitionedMetadata(request) => (None, request.original_auth_data.as_ref()),
        Command::Lookup(request) => (None, request.original_auth_data.as_ref()),
        _ => (None, None),
    };
    if let Some(data) = own {
        let _ = write!(line, " credentials \"{}\"", data.escape_ascii());
    }
    if let Some(data) = original {
        let _ = write!(line, " original credentials \"{}\"", data.as_bytes().escape_ascii());
    }
}
