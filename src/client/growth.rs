//! Partitions that are added to a topic while producers and consumers are at work.
//!
//! Brokers do not announce them, so each handle of a partitioned topic has one task that asks for the number of partitions
//! at an interval, and attaches those that are new. The task has no strong reference to its handle while it waits, and
//! ends with it.
//!
//! ```text
//!  wait -> how many partitions? -> open the new ones -> all have an answer -> settle -> wait
//! ```

use std::future::{Future, poll_fn};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::runtime::AsyncTimer;
use super::{Shared, clock};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::supervisor::query;
use crate::machine::{EndpointId, Reply};
use crate::splitmix::SplitMix64;
use crate::topic::TopicName;

/// The shortest interval, as in the Java client.
pub(super) const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// A longer interval is this one.
pub(super) const INTERVAL_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Whether, and how often, a handle asks for new partitions.
#[derive(Debug, Clone, Copy)]
pub(super) struct AutoUpdate {
    pub(super) is_enabled: bool,
    pub(super) interval: Duration,
}

impl Default for AutoUpdate {
    fn default() -> Self {
        Self { is_enabled: true, interval: Duration::from_secs(60) }
    }
}

impl AutoUpdate {
    /// # Errors
    /// [`ErrorKind::InvalidArgument`]: the interval is too short.
    pub(super) fn validate(&self) -> Result<()> {
        if self.interval >= INTERVAL_MIN {
            return Ok(());
        }
        let what = format!("`auto_update_partitions_interval` is {:?}: at least {INTERVAL_MIN:?}", self.interval);
        Err(Error::local(ErrorKind::InvalidArgument, what))
    }

    /// How long to wait before the first look, and before each later one. The first waits are spread, so that handles
    /// that are made together do not ask together.
    fn waits(self, seed: u64) -> (Duration, Duration) {
        let interval = self.interval.min(INTERVAL_MAX);
        (spread(interval, seed), interval)
    }
}

/// A part of the interval, chosen by the seed.
pub(super) fn spread(interval: Duration, seed: u64) -> Duration {
    let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(SplitMix64::new(seed).next() % nanos.max(1))
}

/// A partition that is being attached.
pub(super) struct Opened<T> {
    pub(super) id: EndpointId,
    /// The result of the first attach.
    pub(super) attached: Reply<T>,
}

/// The partitions of one look, with the result of each first attach.
pub(super) type Attached<T> = Vec<(EndpointId, Result<T>)>;

/// A handle whose topics may get more partitions.
pub(super) trait Grows: Send + Sync + 'static {
    /// What a broker says to the first attach of a part.
    type Answer: Send;

    /// The client that it is of.
    fn client(&self) -> &Shared;

    /// Whether it takes no more parts, ever.
    fn is_over(&self) -> bool;

    /// Its partitioned topics at the moment.
    fn partitioned_topics(&self) -> Vec<TopicName>;

    /// The topic has so many partitions: starts attaching those that are not among its parts.
    ///
    /// # Errors
    /// The handle or its client is closed.
    fn open_new(&self, topic: &TopicName, partitions: u32) -> Result<Vec<Opened<Self::Answer>>>;

    /// Keeps the parts that are attached, and closes the others. They are tried again with the next look.
    fn settle(&self, topic: &TopicName, attached: Attached<Self::Answer>);
}

/// Looks for new partitions until the handle is over or dropped. `seed`: of the first wait.
pub(super) async fn follow<H: Grows>(handle: Weak<H>, auto_update: AutoUpdate, seed: u64) {
    let (first, interval) = auto_update.waits(seed);
    let Some(mut timer) = handle.upgrade().map(|handle| handle.client().new_timer()) else { return };
    let mut wait = first;
    loop {
        sleep(&mut *timer, wait).await;
        wait = interval;
        let Some(topics) = handle.upgrade().filter(|handle| !handle.is_over()).map(|it| it.partitioned_topics()) else {
            return;
        };
        for topic in topics {
            if look(&handle, &topic).await.is_none() {
                return;
            }
        }
    }
}

/// Looks for new partitions of one topic. `None`: the handle is over.
async fn look<H: Grows>(handle: &Weak<H>, topic: &TopicName) -> Option<()> {
    // Between two of these lines others may drop the handle: nothing here keeps it.
    let count = of(handle)?.client().start_query(query::partitions_of_existing(&topic.as_str().into())).ok()?;
    // A topic that was deleted, or cannot be asked for at the moment, is asked for again with the next look.
    let Ok(count) = count.await else { return Some(()) };
    attach(handle, topic, count).await
}

/// Attaches the new ones of the `count` partitions of a topic. `None`: the handle is over.
pub(super) async fn attach<H: Grows>(handle: &Weak<H>, topic: &TopicName, count: u32) -> Option<()> {
    let opened = of(handle)?.open_new(topic, count).ok()?;
    if opened.is_empty() {
        return Some(());
    }
    let mut attached = Vec::with_capacity(opened.len());
    for part in opened {
        attached.push((part.id, part.attached.await));
    }
    of(handle)?.settle(topic, attached);
    Some(())
}

fn of<H: Grows>(handle: &Weak<H>) -> Option<Arc<H>> {
    handle.upgrade().filter(|handle| !handle.is_over())
}

pub(super) fn sleep(timer: &mut dyn AsyncTimer, time: Duration) -> impl Future<Output = ()> + Send + '_ {
    timer.reset(clock::now().at + time);
    poll_fn(move |cx| timer.poll(cx))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_waits_are_spread_over_the_interval() {
        let auto_update = AutoUpdate::default();
        let mut tenths = [0; 10];
        for seed in 0..1000 {
            let (first, interval) = auto_update.waits(seed);
            assert_eq!(interval, Duration::from_secs(60));
            tenths[(first.as_millis() * 10 / interval.as_millis()) as usize] += 1;
        }
        assert!(tenths.iter().all(|handles| (50..200).contains(handles)), "{tenths:?}");
    }

    #[test]
    fn intervals_of_any_length_are_waited_for() {
        let with = |interval| AutoUpdate { is_enabled: true, interval };
        assert!(with(Duration::MAX).validate().is_ok());
        assert_eq!(with(Duration::MAX).waits(1).1, INTERVAL_MAX);
        assert!(with(INTERVAL_MIN).validate().is_ok());
        let error = with(Duration::from_millis(999)).validate().expect_err("too short");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}
