//! What a running command says on stderr: on a terminal one line that is rewritten in place, otherwise lines for what
//! changes. stdout is for messages and results alone.
//!
//! [`Monitor`] follows a client while it opens a producer or consumer ([`Monitor::opening`]), then that handle
//! ([`Monitor::follow_producer`], [`Monitor::follow_consumer`]) until it is dropped. It is driven by
//! [`Monitor::run`], or by [`Monitor::watch`] with regular calls of [`Monitor::on_tick`].

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::time::{Duration, Instant, SystemTime};

use pulsar_native::{
    Acker, Client, ClientState, Consumer, ConsumerEvents, Error, Events, HandleState, Producer, ProducerEvents,
    StateWatch, WhyIdle,
};
use tokio::time::{Interval, MissedTickBehavior};

use self::attachment::Attachment;
use self::connections::Connections;
pub(crate) use self::figures::Figures;
use self::figures::{Meter, Speeds};
use crate::output;

mod attachment;
mod connections;
mod events;
mod figures;
mod grouped;
#[cfg(feature = "tracing")]
pub(crate) mod trace;

/// How long changes are collected that follow one another: the end of an attach and the plan for the next attempt, the
/// partitions of one connection. Shorter than the first back-off.
const COLLECT: Duration = Duration::from_millis(20);

/// From when on a consumer that gets nothing is asked why.
const IDLE_AFTER: Duration = Duration::from_secs(5);

/// How often the progress line is rewritten.
const TICK: Duration = Duration::from_secs(1);

/// How often figures are written where they cannot be rewritten.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Where figures are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// On a terminal in one line, otherwise in a line every few seconds: for measurements.
    Measurement,
    /// On a terminal in one line.
    Work,
    /// Nowhere: the terminal is in use for input.
    NoFigures,
}

pub(crate) struct Monitor {
    style: Style,
    is_verbose: bool,
    client: Option<StateWatch<ClientState>>,
    connections: Connections,
    /// Nothing is opened yet: a connection that fails is of interest.
    is_opening: bool,
    last_failure: Option<String>,
    handle: Option<StateWatch<HandleState>>,
    attachment: Attachment,
    /// When what was collected of `attachment` is told.
    tell_at: Option<Instant>,
    consumer_events: Option<ConsumerEvents>,
    producer_events: Option<ProducerEvents>,
    idle: Option<Idle>,
    speeds: Option<Speeds>,
    figures: Option<Figures>,
    shown_at: Instant,
}

/// A consumer that may be getting nothing.
struct Idle {
    acker: Acker,
    messages: u64,
    since: Instant,
    /// Whether it was asked since the last message.
    is_asked: bool,
    asking: Option<Pin<Box<dyn Future<Output = WhyIdle> + Send>>>,
    told: Vec<String>,
}

impl Monitor {
    pub(crate) fn new(client: &Client, style: Style, is_verbose: bool) -> Self {
        Self {
            style,
            is_verbose,
            client: Some(client.watch_state()),
            connections: Connections::default(),
            is_opening: true,
            last_failure: None,
            handle: None,
            attachment: Attachment::default(),
            tell_at: None,
            consumer_events: None,
            producer_events: None,
            idle: None,
            speeds: None,
            figures: None,
            shown_at: Instant::now(),
        }
    }

    /// Waits for something to be opened, and tells meanwhile what is in the way of it.
    ///
    /// # Errors
    /// That of `opening`.
    pub(crate) async fn opening<T>(&mut self, opening: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut opening = pin!(opening);
        let opened = loop {
            tokio::select! {
                opened = &mut opening => break opened,
                () = self.watch() => {}
            }
        };
        self.is_opening = false;
        output::end_progress();
        opened
    }

    pub(crate) fn follow_producer(&mut self, producer: &Producer) {
        self.follow(producer.watch_state(), producer.state(), Meter::Producer(producer.clone()));
        self.producer_events = Some(producer.events());
    }

    pub(crate) fn follow_consumer(&mut self, consumer: &Consumer) {
        self.follow(consumer.watch_state(), consumer.state(), Meter::Consumer(consumer.acker()));
        self.consumer_events = Some(consumer.events());
        self.idle = Some(Idle {
            acker: consumer.acker(),
            messages: 0,
            since: Instant::now(),
            is_asked: false,
            asking: None,
            told: Vec::new(),
        });
    }

    fn follow(&mut self, watch: StateWatch<HandleState>, state: HandleState, meter: Meter) {
        self.handle = Some(watch);
        self.speeds = Some(Speeds::new(meter, Instant::now()));
        self.attachment.set(&state);
        let lines = self.attachment.tell(SystemTime::now(), true);
        if self.is_verbose || !self.attachment.is_attached() {
            lines.iter().for_each(output::note);
        }
    }

    /// Follows it for as long as it is polled.
    pub(crate) async fn run(&mut self) -> Infallible {
        let mut ticks = ticks();
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let now = Instant::now();
                    let messages = self.speeds.as_ref().map_or(0, Speeds::messages);
                    if self.on_tick(messages, now) {
                        let figures = self.speeds.as_mut().map(|speeds| speeds.read(now));
                        self.show(figures.unwrap_or_default(), now);
                    }
                }
                () = self.watch() => {}
            }
        }
    }

    /// Waits for a change and tells it. Cancel safe: what was seen and not told is told by the next call.
    pub(crate) async fn watch(&mut self) {
        let wait = self.tell_at.map(|at| at.saturating_duration_since(Instant::now()));
        tokio::select! {
            state = next_state(&mut self.handle) => {
                self.attachment.set(&state);
                self.tell_at.get_or_insert(Instant::now() + COLLECT);
            }
            () = sleep(wait) => {
                self.tell_at = None;
                // The progress line shows which attempt it is.
                let retries = self.is_verbose || !output::is_terminal() || self.style == Style::NoFigures;
                self.attachment.tell(SystemTime::now(), retries).iter().for_each(output::note);
                self.draw();
            }
            state = next_state(&mut self.client) => self.on_connections(state),
            event = next_event(&mut self.consumer_events) => {
                events::of_consumer(&event, self.is_verbose).iter().for_each(output::note);
            }
            event = next_event(&mut self.producer_events) => {
                events::of_producer(&event, self.is_verbose).iter().for_each(output::note);
            }
            why = answer(&mut self.idle) => self.on_idle(&why),
        }
    }

    fn on_connections(&mut self, state: ClientState) {
        let failure = Connections::failure(&state);
        let lines = self.connections.tell(state);
        if self.is_verbose {
            lines.iter().for_each(output::note);
        } else if self.is_opening && failure.is_some() && failure != self.last_failure {
            output::note(format_args!("not connected: {}", failure.as_deref().unwrap_or_default()));
            self.last_failure = failure;
        }
    }

    fn on_idle(&mut self, why: &WhyIdle) {
        let Some(idle) = &mut self.idle else { return };
        let reasons = why.parts.iter().map(|part| (part.topic.clone(), part.reason.to_string()));
        let lines = grouped::lines(reasons, why.parts.len());
        // Between two bursts of messages it is the same reason each time.
        if idle.told != lines && self.attachment.is_attached() {
            let secs = idle.since.elapsed().as_secs();
            lines.iter().for_each(|line| output::note(format_args!("no message for {secs} s: {line}")));
            idle.told = lines;
        }
    }

    /// Messages that wait for the application, of a consumer.
    pub(crate) fn queued(&self) -> Option<u64> {
        self.idle.as_ref().map(|idle| idle.acker.stats().queued_messages)
    }

    /// A second has passed, and so many messages are done. Whether it is time to [show](Self::show) figures.
    pub(crate) fn on_tick(&mut self, messages: u64, now: Instant) -> bool {
        let is_attached = self.attachment.is_attached();
        if let Some(idle) = &mut self.idle {
            if idle.messages != messages || !is_attached {
                (idle.messages, idle.since, idle.is_asked, idle.asking) = (messages, now, false, None);
            } else if !idle.is_asked && now.saturating_duration_since(idle.since) >= IDLE_AFTER {
                let acker = idle.acker.clone();
                idle.is_asked = true;
                idle.asking = Some(Box::pin(async move { acker.why_idle().await }));
            }
        }
        match self.style {
            Style::NoFigures => false,
            Style::Work | Style::Measurement if output::is_terminal() => true,
            Style::Work => false,
            Style::Measurement => now.saturating_duration_since(self.shown_at) >= PLAIN_INTERVAL,
        }
    }

    /// Shows figures, those since the last call.
    pub(crate) fn show(&mut self, figures: Figures, now: Instant) {
        self.shown_at = now;
        self.figures = Some(figures);
        self.draw();
        if !output::is_terminal() {
            if let Some(figures) = self.figures.take() {
                output::note(figures);
            }
        }
    }

    fn draw(&self) {
        let Some(figures) = self.figures.as_ref().filter(|_| output::is_terminal()) else { return };
        match self.attachment.trouble(SystemTime::now()) {
            Some(trouble) => output::show_progress(&format!("{}  {trouble}", figures.counts())),
            None => output::show_progress(&figures.to_string()),
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        output::end_progress();
    }
}

/// A tick each second, the first after one.
pub(crate) fn ticks() -> Interval {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => pending().await,
    }
}

async fn next_state<S>(watch: &mut Option<StateWatch<S>>) -> S {
    if let Some(watching) = watch {
        if let Some(state) = watching.changed().await {
            return state;
        }
        *watch = None;
    }
    pending().await
}

async fn next_event<E>(events: &mut Option<Events<E>>) -> E {
    if let Some(reading) = events {
        if let Some(event) = reading.recv().await {
            return event;
        }
        *events = None;
    }
    pending().await
}

async fn answer(idle: &mut Option<Idle>) -> WhyIdle {
    let Some(idle) = idle else { return pending().await };
    let Some(asking) = &mut idle.asking else { return pending().await };
    let why = asking.await;
    idle.asking = None;
    why
}
