//! The cluster that is named from outside, which is asked again and again.

use std::future::Future;
use std::time::Duration;

use super::{Cluster, ServiceUrlControl};
use crate::error::Result;

/// What names the cluster to use.
pub(crate) trait NamesCluster: Send {
    /// Two that are equal name the same cluster.
    type Answer: PartialEq + Send;

    /// The answer of this moment.
    fn ask(&mut self) -> impl Future<Output = Result<Self::Answer>> + Send;

    /// How a client gets to the cluster of an answer.
    fn cluster(&self, answer: &Self::Answer, control: &ServiceUrlControl) -> Result<Cluster>;

    /// What came of one question: an error leaves the client with its cluster.
    fn told(&mut self, result: Result<()>) -> impl Future<Output = ()> + Send;
}

/// Asks after each interval, and switches when the answer is another one than `used`, which is the one in use. Never ends.
pub(crate) async fn follow<N: NamesCluster>(
    names: &mut N,
    control: &ServiceUrlControl,
    interval: Duration,
    mut used: N::Answer,
) {
    loop {
        control.sleep(interval).await;
        let result = check(names, control, &mut used).await;
        names.told(result).await;
    }
}

async fn check<N: NamesCluster>(names: &mut N, control: &ServiceUrlControl, used: &mut N::Answer) -> Result<()> {
    let answer = names.ask().await?;
    if mutation!(IgnoreNamedCluster) {
        return Ok(());
    }
    if answer != *used || mutation!(SwitchOnEqualAnswer) {
        control.switch_to(names.cluster(&answer, control)?)?;
        *used = answer;
    }
    Ok(())
}
