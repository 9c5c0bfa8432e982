//! What an application is told: the states of a handle and its events as lines, in their order.

use pulsar_native::{
    AttachState, ClientState, ConnectionPhase, ConsumerEvent, ConsumerEvents, HandleState, ProducerEvent,
    ProducerEvents, StateWatch,
};

use super::*;

/// The states of one topic. While it is not attached, a line is the kind of the error: attempts that failed alike are one.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    /// The number of the last attempt that was told; 0 while it is attached.
    attempt: u32,
    /// Failed attempts and ends of an attach.
    failures: u64,
}

impl Seen {
    pub fn of(mut states: StateWatch<HandleState>) -> Self {
        let seen = Self::default();
        let told = seen.clone();
        tokio::spawn(async move {
            while let Some(state) = states.changed().await {
                told.lock().add_state(&state);
            }
            told.lock().add("over");
        });
        seen
    }

    /// The states of the connection to a broker, or whatever is in the way to it.
    pub fn of_connection(
        mut states: StateWatch<ClientState>,
        is_wanted: impl Fn(&str) -> bool + Send + 'static,
    ) -> Self {
        let seen = Self::default();
        let told = seen.clone();
        tokio::spawn(async move {
            while let Some(state) = states.changed().await {
                for connection in state.connections.iter().filter(|connection| is_wanted(&connection.broker)) {
                    told.lock().add(&match &connection.phase {
                        ConnectionPhase::Connecting => "connecting".to_owned(),
                        ConnectionPhase::Connected { .. } => "connected".to_owned(),
                        ConnectionPhase::Failed { error, .. } => format!("failed: {:?}", error.kind()),
                        other => panic!("{other:?}"),
                    });
                }
                if state.is_closed {
                    told.lock().add("closed");
                }
            }
            told.lock().add("over");
        });
        seen
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.0.lock().expect("every line is as expected")
    }

    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// Failed attempts and ends of an attach: as many as the statistics count, but for those that were followed by a success
    /// before they were told.
    pub fn failures(&self) -> u64 {
        self.lock().failures
    }

    /// Waits for a line to be the last one.
    pub async fn last_is(&self, line: &str) {
        until(line, || async { self.lines() }, |lines| lines.last().is_some_and(|last| last == line)).await;
    }

    /// Waits for this number of failed attempts after the end of the attach.
    pub async fn has_failed(&self, attempts: u32) {
        until("failed attempts", || async { self.lock().attempt }, |attempt| *attempt > attempts).await;
    }

    /// Waits for the end, and gives all lines before it.
    pub async fn to_the_end(&self) -> Vec<String> {
        self.last_is("over").await;
        let mut lines = self.lines();
        lines.pop();
        lines
    }
}

impl Lines {
    fn add(&mut self, line: &str) {
        if self.lines.last().is_none_or(|last| last != line) {
            self.lines.push(line.to_owned());
        }
    }

    fn add_state(&mut self, state: &HandleState) {
        let [part] = &state.parts[..] else { panic!("one part: {state}") };
        let before = std::mem::take(&mut self.attempt);
        match &part.state {
            AttachState::Attached { .. } => self.add("attached"),
            AttachState::Detached { error: Some(error), attempt, .. } => {
                // An attempt that was put off has its number once more; one that fails at once may be told with the next.
                assert!(*attempt >= before, "attempt {attempt} follows attempt {before}");
                self.failures += u64::from(*attempt - before);
                self.attempt = *attempt;
                self.add(&format!("{:?}", error.kind()));
            }
            AttachState::Finished { error: None, .. } => self.add("closed"),
            AttachState::Finished { error: Some(error), .. } => self.add(&format!("ended by {:?}", error.kind())),
            other => panic!("{other:?}"),
        }
    }
}

/// The events that wait to be read.
pub fn of_consumer(events: &mut ConsumerEvents) -> Vec<String> {
    std::iter::from_fn(|| events.try_recv()).map(|event| consumer_event(&event)).collect()
}

pub fn consumer_event(event: &ConsumerEvent) -> String {
    match event {
        ConsumerEvent::ActiveChanged { is_active: true, .. } => "active".to_owned(),
        ConsumerEvent::ActiveChanged { is_active: false, .. } => "not active".to_owned(),
        ConsumerEvent::EndOfTopic { .. } => "end of topic".to_owned(),
        ConsumerEvent::TopicEnded { error, .. } => format!("ended by {:?}", error.kind()),
        ConsumerEvent::Stalled { reason, .. } => format!("stalled: {reason}"),
        other => panic!("{other:?}"),
    }
}

/// The events that wait to be read.
pub fn of_producer(events: &mut ProducerEvents) -> Vec<String> {
    std::iter::from_fn(|| events.try_recv()).map(|event| producer_event(&event)).collect()
}

pub fn producer_event(event: &ProducerEvent) -> String {
    match event {
        ProducerEvent::SendOverdue { state: AttachState::Attached { .. }, .. } => "overdue while attached".to_owned(),
        ProducerEvent::SendOverdue { state: AttachState::Detached { error: Some(error), .. }, .. } => {
            format!("overdue by {:?}", error.kind())
        }
        ProducerEvent::TopicEnded { error, .. } => format!("ended by {:?}", error.kind()),
        other => panic!("{other:?}"),
    }
}
