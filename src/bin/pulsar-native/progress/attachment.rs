//! What to tell of the state of a producer or consumer: a line for each change, and what it comes to while it lasts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pulsar_native::{AttachState, HandleState};

use super::grouped;

/// Why there is no broker before the first attempt has failed.
const NO_ATTEMPT: &str = "no attempt was made yet";

/// What is less than this is shown as no time at all.
const SHOWN_MIN: Duration = Duration::from_millis(50);

/// Where one topic or partition stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stand {
    Attached { broker: Arc<str>, since: SystemTime },
    Detached { since: SystemTime, why: Option<String>, attempt: u32, next_attempt: Option<SystemTime> },
    Finished { why: Option<String> },
}

impl Stand {
    fn of(topic: &str, state: &AttachState) -> Self {
        // The line names the topic where there are several.
        let text = |error: &pulsar_native::Error| error.to_string().replace(&format!(" [topic {topic}]"), "");
        match state {
            AttachState::Attached { broker, since, .. } => Self::Attached { broker: broker.clone(), since: *since },
            AttachState::Detached { since, error, attempt, next_attempt, .. } => Self::Detached {
                since: *since,
                why: error.as_ref().map(text),
                attempt: *attempt,
                next_attempt: *next_attempt,
            },
            AttachState::Finished { error, .. } => Self::Finished { why: error.as_ref().map(text) },
            _ => Self::Finished { why: Some(state.to_string()) },
        }
    }
}

/// The end of an attach that nothing was told of yet.
#[derive(Debug, Clone)]
struct Lost {
    since: SystemTime,
    why: Option<String>,
}

#[derive(Debug)]
struct Part {
    topic: Arc<str>,
    now: Stand,
    /// What was last told; `None` of one that has just come.
    told: Option<Stand>,
    lost: Option<Lost>,
}

/// The topics and partitions of one handle.
#[derive(Debug, Default)]
pub(super) struct Attachment {
    parts: Vec<Part>,
}

impl Attachment {
    /// Takes a state. What is to be told of it is collected until [`Self::tell`].
    pub(super) fn set(&mut self, state: &HandleState) {
        self.set_stands(state.parts.iter().map(|part| (part.topic.clone(), Stand::of(&part.topic, &part.state))));
    }

    fn set_stands(&mut self, stands: impl IntoIterator<Item = (Arc<str>, Stand)>) {
        let mut before = std::mem::take(&mut self.parts);
        for (topic, now) in stands {
            let known = before.iter().position(|part| part.topic == topic);
            let known = known.map(|index| before.swap_remove(index));
            let (told, mut lost) = known.map_or((None, None), |part| (part.told, part.lost));
            if let Stand::Detached { since, why, .. } = &now {
                let first = lost.get_or_insert(Lost { since: *since, why: None });
                first.why = first.why.take().or_else(|| why.clone());
            }
            self.parts.push(Part { topic, now, told, lost });
        }
    }

    /// Whether all of it is attached.
    pub(super) fn is_attached(&self) -> bool {
        self.parts.iter().all(|part| matches!(part.now, Stand::Attached { .. }))
    }

    /// A line for each kind of change since the last call: what happened alike to several topics is told once. Without
    /// `retries`, a further attempt that failed is no change.
    pub(super) fn tell(&mut self, at: SystemTime, retries: bool) -> Vec<String> {
        let count = self.parts.len();
        let mut changes = Vec::new();
        for part in &mut self.parts {
            let Some(text) = part.change(at) else { continue };
            let is_retry = matches!((&part.told, &part.now), (Some(Stand::Detached { .. }), Stand::Detached { .. }));
            (part.told, part.lost) = (Some(part.now.clone()), None);
            if retries || !is_retry {
                changes.push((part.topic.clone(), text));
            }
        }
        grouped::lines(changes, count)
    }

    /// What is wrong at the moment, the reason at the end: it may not fit. `None` while all of it is attached.
    pub(super) fn trouble(&self, at: SystemTime) -> Option<String> {
        let mut detached = self.parts.iter().filter_map(|part| match &part.now {
            Stand::Detached { since, .. } => Some((*since, part)),
            Stand::Finished { why: Some(_) } => Some((at, part)),
            _ => None,
        });
        let first = detached.next()?;
        let (mut longest, mut count) = (first, 1);
        for other in detached {
            count += 1;
            if other.0 < longest.0 {
                longest = other;
            }
        }
        let of = if self.parts.len() > 1 { format!("{count} of {} ", self.parts.len()) } else { String::new() };
        Some(match &longest.1.now {
            Stand::Detached { since, why, attempt, next_attempt } => {
                let lasts = seconds(between(*since, at));
                let (next, why) = (next(*attempt, *next_attempt, at), why.as_deref().unwrap_or(NO_ATTEMPT));
                format!("{of}not attached for {lasts}, {next}: {why}")
            }
            Stand::Finished { why } => format!("{of}ended: {}", why.as_deref().unwrap_or_default()),
            Stand::Attached { .. } => return None,
        })
    }
}

impl Part {
    /// What has changed since it was last told.
    fn change(&self, at: SystemTime) -> Option<String> {
        if self.told.as_ref() == Some(&self.now) {
            return None;
        }
        match &self.now {
            Stand::Attached { broker, since } => {
                let after = |lost_at: SystemTime| seconds(between(lost_at, *since));
                Some(match (&self.told, &self.lost) {
                    (None | Some(Stand::Finished { .. }), _) => format!("attached to {broker}"),
                    (Some(Stand::Detached { since, .. }), _) => {
                        format!("attached to {broker} again after {}", after(*since))
                    }
                    (Some(Stand::Attached { .. }), Some(Lost { since, why })) => {
                        let why = why.as_ref().map(|why| format!(" ({why})"));
                        format!("attached to {broker} again after {}{}", after(*since), why.unwrap_or_default())
                    }
                    (Some(Stand::Attached { .. }), None) => format!("attached to {broker} again"),
                })
            }
            Stand::Detached { why, attempt, next_attempt, .. } => {
                let (next, why) = (next(*attempt, *next_attempt, at), why.as_deref().unwrap_or(NO_ATTEMPT));
                Some(format!("not attached: {why}, {next}"))
            }
            Stand::Finished { why } => why.as_ref().map(|why| format!("ended: {why}")),
        }
    }
}

/// Which attempt is the next one, and when.
fn next(attempt: u32, next_attempt: Option<SystemTime>, at: SystemTime) -> String {
    let wait = next_attempt.map(|next| between(at, next)).unwrap_or_default();
    let when = if wait < SHOWN_MIN { "now".to_owned() } else { format!("in {}", seconds(wait)) };
    format!("attempt {attempt} {when}")
}

/// Zero if the second is not later.
fn between(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}

fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        secs if secs < 60.0 => format!("{secs:.1} s"),
        secs => format!("{secs:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: SystemTime = SystemTime::UNIX_EPOCH;

    fn at(ms: u64) -> SystemTime {
        T + Duration::from_millis(ms)
    }

    fn attached(ms: u64) -> Stand {
        Stand::Attached { broker: "b:1".into(), since: at(ms) }
    }

    fn detached(ms: u64, why: &str, attempt: u32, next: Option<u64>) -> Stand {
        Stand::Detached { since: at(ms), why: Some(why.to_owned()), attempt, next_attempt: next.map(at) }
    }

    fn told(attachment: &mut Attachment, ms: u64, stands: &[Stand]) -> Vec<String> {
        let stands = stands.iter().enumerate();
        attachment.set_stands(stands.map(|(index, stand)| (format!("t{index}").into(), stand.clone())));
        attachment.tell(at(ms), true)
    }

    #[test]
    fn an_outage_is_told_step_by_step() {
        let one = &mut Attachment::default();
        assert_eq!(told(one, 0, &[attached(0)]), ["attached to b:1"]);
        assert!(told(one, 10, &[attached(0)]).is_empty() && one.trouble(at(10)).is_none() && one.is_attached());
        let lost = detached(1000, "lost", 1, Some(1100));
        assert_eq!(told(one, 1000, std::slice::from_ref(&lost)), ["not attached: lost, attempt 1 in 0.1 s"]);
        assert!(told(one, 1200, &[lost]).is_empty(), "time alone is no change");
        assert_eq!(one.trouble(at(1200)).as_deref(), Some("not attached for 0.2 s, attempt 1 now: lost"));
        let refused = detached(1000, "refused", 2, Some(4000));
        assert_eq!(told(one, 1500, &[refused]), ["not attached: refused, attempt 2 in 2.5 s"]);
        assert_eq!(told(one, 4200, &[attached(4200)]), ["attached to b:1 again after 3.2 s"]);
        assert_eq!(one.trouble(at(5000)), None);
        let ended = Stand::Finished { why: Some("deleted".to_owned()) };
        assert_eq!(told(one, 6000, &[ended]), ["ended: deleted"]);
        assert_eq!(one.trouble(at(6000)).as_deref(), Some("ended: deleted"));
        assert!(told(one, 7000, &[Stand::Finished { why: None }]).is_empty(), "a close is no news");
    }

    #[test]
    fn where_the_attempts_are_shown_anyway_they_are_no_change() {
        let one = &mut Attachment::default();
        told(one, 0, &[attached(0)]);
        let topic: Arc<str> = "t0".into();
        let mut set = |ms, stand| {
            one.set_stands([(topic.clone(), stand)]);
            one.tell(at(ms), false).len()
        };
        let lines = [
            set(1000, detached(1000, "lost", 1, Some(1100))),
            set(1100, detached(1000, "refused", 2, Some(1300))),
            set(1300, attached(1300)),
        ];
        assert_eq!(lines, [1, 0, 1]);
    }

    #[test]
    fn an_outage_between_two_looks_is_told_in_one() {
        let one = &mut Attachment::default();
        told(one, 0, &[attached(0)]);
        one.set_stands([("t0".into(), detached(1000, "unloaded", 1, None))]);
        let again = ["attached to b:1 again after 0.0 s (unloaded)"];
        assert_eq!(told(one, 1020, &[attached(1020)]), again);
        assert_eq!(told(one, 1500, &[attached(1400)]), ["attached to b:1 again"]);
    }

    #[test]
    fn what_happens_alike_to_several_topics_is_one_line() {
        let three = &mut Attachment::default();
        let up = [attached(0), attached(0), attached(0)];
        assert_eq!(told(three, 0, &up), ["all 3 topics: attached to b:1"]);
        let lost = |why| detached(1000, why, 1, None);
        let two = [lost("lost"), attached(0), lost("lost")];
        assert_eq!(told(three, 1000, &two), ["t0 and 1 more: not attached: lost, attempt 1 now"]);
        assert_eq!(three.trouble(at(3000)).as_deref(), Some("2 of 3 not attached for 2.0 s, attempt 1 now: lost"));
        let different = [lost("a"), lost("b"), attached(0)];
        let lines = told(three, 1000, &different);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[0], "t0: not attached: a, attempt 1 now");
    }
}
