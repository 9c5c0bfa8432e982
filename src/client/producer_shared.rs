//! The state that the clones of a producer share.

use std::sync::{Arc, OnceLock};

use super::detour::{Detour, LazyPartitions};
use super::events::{EventQueue, ProducerEvent};
use super::growth::{self, Attached, AutoUpdate, Grows, Opened};
use super::parts::Parts;
use super::routing::{Router, Routes};
use super::workers::Tasks;
use super::{Shared, clock, parse_topic};
use crate::error::Result;
use crate::machine::producer::{Message, Producer as Machine, ProducerConfig, ProducerCreated, ProducerStats};
use crate::machine::{Endpoint, EndpointId, Reply, ReplyTo};
use crate::topic::TopicName;
use crate::trace_context::TraceContext;

/// See [`ProducerBuilder::trace_context`](super::ProducerBuilder::trace_context).
pub(super) type TraceSource = Arc<dyn Fn() -> Option<TraceContext> + Send + Sync>;

/// See the module. Dropping it closes the producer at its brokers.
pub(super) struct ProducerShared {
    /// The endpoints of `parts` by partition: what a send reads.
    pub(super) routes: Routes<Machine>,
    /// `None` where the topic has no partitions.
    pub(super) router: Option<Box<Router>>,
    pub(super) parts: Parts<Machine>,
    pub(super) events: Arc<EventQueue<ProducerEvent>>,
    pub(super) topic: Arc<str>,
    /// The configuration of each partition, with the name that all of them share.
    pub(super) config: Arc<ProducerConfig>,
    /// What is done with each message besides; `None` for nothing.
    pub(super) detour: Option<Box<Detour>>,
    /// Keeps the client's tasks alive, which carry out what the endpoints decide.
    pub(super) client: Arc<Shared>,
    /// Looks for new partitions, and ends with this.
    pub(super) growth: OnceLock<Box<Tasks<()>>>,
}

impl ProducerShared {
    pub(super) fn parts(&self) -> &Parts<Machine> {
        &self.parts
    }

    pub(super) fn stats(&self) -> ProducerStats {
        let mut stats = ProducerStats::default();
        self.parts.iter().for_each(|part| stats.merge(&part.read(Machine::stats)));
        stats
    }

    pub(super) fn is_partitioned(&self) -> bool {
        self.router.is_some()
    }

    /// The partition that a message goes to, unless the application chooses it.
    #[inline]
    pub(super) fn partition_of(&self, message: &Message) -> usize {
        self.router.as_ref().map_or(0, |router| router.partition(message, self.routes.len()))
    }

    /// How many partitions messages go to; 0 if it is not partitioned.
    pub(super) fn partitions(&self) -> u32 {
        match self.is_partitioned() {
            true => u32::try_from(self.routes.len()).unwrap_or(u32::MAX),
            false => 0,
        }
    }

    /// Sends to these partitions, too, from now on.
    fn extend(&self, endpoints: Vec<(Arc<Endpoint<Machine>>, Arc<str>)>) {
        let (endpoints, names): (Vec<_>, Vec<_>) = endpoints.into_iter().unzip();
        let is_next = self.routes.extend(self.routes.len(), endpoints);
        debug_assert!(is_next, "one task adds partitions");
        for topic in names {
            self.events.push(ProducerEvent::PartitionAdded { topic });
        }
        if let Some(hooks) = self.detour.as_ref().and_then(|detour| detour.hooks.as_ref()) {
            hooks.on_partitions_change(&self.topic, self.partitions());
        }
    }

    /// Attaches a partition that was not to be attached before its first message.
    pub(super) fn start_part(&self, endpoint: &Arc<Endpoint<Machine>>, topic: Arc<str>, partition: i32) -> Result<()> {
        observe(endpoint, &self.events);
        self.parts.add(topic, partition, endpoint.clone())?;
        self.client.open(endpoint.clone())
    }

    fn lazy(&self) -> Option<&LazyPartitions> {
        self.detour.as_ref()?.lazy.as_ref()
    }

    /// Looks for new partitions from now on.
    pub(super) fn grow(self: &Arc<Self>, auto_update: AutoUpdate) {
        let first = match self.routes.get(0).id() {
            EndpointId::Producer(id) => id.0,
            _ => 0,
        };
        // Another one for each handle of a client.
        let seed = self.client.seed() ^ (first << 1 | 1);
        let task = self.client.spawn(growth::follow(Arc::downgrade(self), auto_update, seed));
        let _ = self.growth.set(Box::new(task));
    }
}

impl Drop for ProducerShared {
    /// No event comes any more.
    fn drop(&mut self) {
        self.events.close();
    }
}

impl Grows for ProducerShared {
    type Answer = ProducerCreated;

    fn client(&self) -> &Shared {
        &self.client
    }

    fn is_over(&self) -> bool {
        self.parts.is_closed() || self.parts.are_finished()
    }

    fn partitioned_topics(&self) -> Vec<TopicName> {
        parse_topic(&self.topic).ok().filter(|_| self.is_partitioned()).into_iter().collect()
    }

    fn open_new(&self, topic: &TopicName, partitions: u32) -> Result<Vec<Opened<ProducerCreated>>> {
        let new = self.partitions()..partitions;
        let part = |index: u32| (Arc::from(topic.partition(index).as_str()), i32::try_from(index).unwrap_or(i32::MAX));
        if let Some(lazy) = self.lazy().filter(|_| !new.is_empty()) {
            let make = |(name, partition): (Arc<str>, i32)| {
                (make_lazy_part(&self.client, lazy, name.clone(), partition, self.config.clone()), name)
            };
            self.extend(new.map(part).map(make).collect());
            return Ok(Vec::new());
        }
        let open = |index: u32| {
            let (name, partition) = part(index);
            let (endpoint, attached) =
                open_part(&self.client, &self.parts, None, name, partition, self.config.clone())?;
            if mutation!(RouteBeforeAttach) {
                self.routes.extend(self.routes.len(), [endpoint.clone()]);
            }
            Ok(Opened { id: endpoint.id(), attached })
        };
        new.map(open).collect()
    }

    /// Messages go to all new partitions or to none, as with the Java client: by another number of partitions, a key would
    /// go where no other client sends it.
    fn settle(&self, _topic: &TopicName, attached: Attached<ProducerCreated>) {
        let failed = attached.iter().find_map(|(id, result)| Some((*id, result.as_ref().err()?.clone())));
        let parts: Vec<_> = attached.iter().filter_map(|(id, _)| self.parts.of_id(*id)).collect();
        if let Some((id, error)) = failed {
            if let Some(part) = parts.iter().find(|part| part.id() == id) {
                self.events.push(ProducerEvent::PartitionNotAdded { topic: part.topic.clone(), error });
            }
            parts.iter().for_each(|part| drop(self.parts.remove(part.id())));
            return;
        }
        for part in &parts {
            observe(&part.endpoint, &self.events);
        }
        if !mutation!(RouteBeforeAttach) {
            self.extend(parts.into_iter().map(|part| (part.endpoint.clone(), part.topic.clone())).collect());
        }
    }
}

/// Creates the producer of one partition, which is attached by its first message.
pub(super) fn make_lazy_part(
    client: &Shared,
    lazy: &LazyPartitions,
    topic: Arc<str>,
    partition: i32,
    config: Arc<ProducerConfig>,
) -> Arc<Endpoint<Machine>> {
    let (created, _) = Reply::pair();
    let (endpoint, mut machine) = new_part(client, topic.clone(), partition, config, created);
    machine.set_in_use();
    let endpoint = Endpoint::new(endpoint, machine, client.ready());
    lazy.add(endpoint.id(), topic, partition);
    endpoint
}

fn new_part(
    client: &Shared,
    topic: Arc<str>,
    partition: i32,
    config: Arc<ProducerConfig>,
    created: ReplyTo<ProducerCreated>,
) -> (EndpointId, Machine) {
    let id = client.next_producer_id();
    let mut machine = Machine::new(id, topic, partition, config, created, clock::now());
    machine.set_memory_budget(client.memory());
    (EndpointId::Producer(id), machine)
}

/// Creates the producer of one part and starts attaching it. Without `events`, nothing is told of it yet.
pub(super) fn open_part(
    client: &Shared,
    parts: &Parts<Machine>,
    events: Option<&Arc<EventQueue<ProducerEvent>>>,
    topic: Arc<str>,
    partition: i32,
    config: Arc<ProducerConfig>,
) -> Result<(Arc<Endpoint<Machine>>, Reply<ProducerCreated>)> {
    let (created, reply) = Reply::pair();
    let (id, machine) = new_part(client, topic.clone(), partition, config, created);
    let endpoint = Endpoint::new(id, machine, client.ready());
    if let Some(events) = events {
        observe(&endpoint, events);
    }
    parts.add(topic, partition, endpoint.clone())?;
    client.open(endpoint.clone())?;
    Ok((endpoint, reply))
}

/// Tells `events` what happens to a part, its end too. What has ended already says nothing.
fn observe(endpoint: &Endpoint<Machine>, events: &Arc<EventQueue<ProducerEvent>>) {
    endpoint.with(|machine| {
        if !machine.is_finished() {
            events.add_source();
            machine.set_observer(events.clone());
        }
    });
}
