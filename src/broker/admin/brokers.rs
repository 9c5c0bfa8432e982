//! The brokers of the cluster that is played: which one owns a topic, and one that stops and comes back.

use crate::broker::machine::Broker;
use crate::topic::TopicName;

impl Broker {
    /// One more broker of the cluster; `url` is its address in responses to LOOKUP.
    pub fn add_broker(&mut self, url: impl Into<String>) {
        self.brokers.add(url.into());
    }

    /// The broker that owns a topic or partition; `None` while none does.
    pub fn owner(&self, topic: &str) -> Option<usize> {
        let name = TopicName::parse(topic).ok()?;
        self.brokers.owner(name.as_str())
    }

    /// Whether a broker of the cluster runs.
    pub fn runs(&self, broker: usize) -> bool {
        self.brokers.is_running(broker)
    }

    /// Makes a broker the owner of a topic, or of each of its partitions, and unloads it from where it was; its clients get
    /// the new address with CLOSE_PRODUCER and CLOSE_CONSUMER. False if that broker does not run.
    pub fn move_topic(&mut self, topic: &str, to: usize) -> bool {
        let Some(url) = self.brokers.url(to).map(str::to_owned).filter(|_| self.brokers.is_running(to)) else {
            return false;
        };
        for part in self.topics.resolve(topic) {
            if self.brokers.owner(&part) != Some(to) {
                self.brokers.assign(&part, to);
                self.unload_to(&part, Some(&url));
            }
        }
        true
    }

    /// A broker dies: its connections end without notice, and its topics have no owner until the next LOOKUP of each.
    /// False if it does not run, or is the last one that does.
    pub fn stop_broker(&mut self, broker: usize) -> bool {
        let has_stopped = self.brokers.stop(broker);
        for conn in self.connections.ids() {
            if has_stopped && self.connections.get(conn).is_some_and(|found| found.broker == broker) {
                self.detach_endpoints(conn);
                self.connections.close(conn);
            }
        }
        has_stopped
    }

    /// A broker that was stopped takes part again. False if it runs, or there is no such broker.
    pub fn start_broker(&mut self, broker: usize) -> bool {
        self.brokers.start(broker)
    }
}
