//! What the handles tell of themselves: the states of clients, producers and consumers, checked whenever no task is woken.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pulsar_native::{AttachState, Client, ClientState, ConnectionPhase, HandleState, StateWatch};

use super::overdue::OverdueChecker;
use super::stalls::StallChecker;
use super::users::Users;

/// How often what takes long is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// All that is watched.
#[derive(Default)]
pub(super) struct Told {
    next_look: Duration,
    clients: BTreeMap<usize, Watched<ClientState>>,
    handles: Vec<Handle>,
    pub(super) stalls: Vec<Rc<RefCell<StallChecker>>>,
    pub(super) overdue: Vec<OverdueChecker>,
}

/// A state, read whenever no task is woken, and as a task that waits for its changes has seen it.
struct Watched<S> {
    watch: StateWatch<S>,
    present: Option<S>,
    is_over: bool,
    by_task: Rc<RefCell<Option<S>>>,
}

impl<S: Clone + PartialEq + std::fmt::Display + 'static> Watched<S> {
    /// `watch` and `waited_for` are of the same handle.
    fn new(users: &Users, watch: StateWatch<S>, mut waited_for: StateWatch<S>) -> Self {
        let by_task = Rc::new(RefCell::new(None));
        let seen = by_task.clone();
        users.handle.spawn(async move {
            while let Some(state) = waited_for.changed().await {
                *seen.borrow_mut() = Some(state);
            }
        });
        Self { watch, present: None, is_over: false, by_task }
    }

    /// Reads the present state: the one before it if it has changed.
    fn read(&mut self) -> Option<Option<S>> {
        let mut changed = None;
        while !self.is_over {
            match pin!(self.watch.changed()).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(state)) => changed = Some(self.present.replace(state)),
                Poll::Ready(None) => self.is_over = true,
                Poll::Pending => break,
            }
        }
        changed
    }

    /// Checks that the task that waits has seen it.
    fn check_task(&self, users: &Users, name: &str) {
        if *self.by_task.borrow() != self.present {
            let shown = |state: &Option<S>| state.as_ref().map(ToString::to_string);
            let what =
                || format!("{name} is {:?}, and seen as {:?}", shown(&self.present), shown(&self.by_task.borrow()));
            users.handle.report_violation("a change of a state is told", what);
        }
    }
}

/// A producer or consumer.
struct Handle {
    name: String,
    client: usize,
    state: Watched<HandleState>,
    /// Whether it is attached, by another question than for its state; `None` once it was dropped.
    is_connected: Box<dyn Fn() -> Option<bool>>,
}

/// Watches a client from now on.
pub(super) fn watch_client(users: &Users, number: usize, client: &Client) {
    let watched = Watched::new(users, client.watch_state(), client.watch_state());
    users.notes.borrow_mut().told.clients.insert(number, watched);
}

/// Watches a producer or consumer of a client from now on.
pub(super) fn watch_handle(
    users: &Users,
    name: String,
    client: usize,
    watch: impl Fn() -> StateWatch<HandleState>,
    is_connected: impl Fn() -> Option<bool> + 'static,
) {
    let state = Watched::new(users, watch(), watch());
    let handle = Handle { name, client, state, is_connected: Box::new(is_connected) };
    users.notes.borrow_mut().told.handles.push(handle);
}

/// Checks all that is watched. To be called whenever no task is woken.
pub(super) fn check_told(users: &Users) {
    let mut told = std::mem::take(&mut users.notes.borrow_mut().told);
    let has_changed = check_connections(users, &mut told.clients);
    told.handles.retain_mut(|handle| {
        let change = handle.state.read();
        if handle.state.is_over {
            return false;
        }
        if let Some(before) = &change {
            check_steps(users, &handle.name, before.as_ref(), handle.state.present.as_ref());
            handle.state.check_task(users, &handle.name);
        }
        let Some(state) = &handle.state.present else { return true };
        check_attached(users, handle, state);
        if change.is_some() || has_changed {
            check_connected(users, handle, state, told.clients.get(&handle.client));
        }
        true
    });
    let now = users.handle.elapsed();
    let looks = now >= told.next_look;
    if looks {
        told.next_look = now + LOOK_EVERY;
    }
    told.stalls.retain(|stall| stall.borrow_mut().check(users, looks));
    told.overdue.retain_mut(|overdue| overdue.check(users, looks));
    let new = std::mem::replace(&mut users.notes.borrow_mut().told, told);
    debug_assert!(new.handles.is_empty(), "a check adds nothing");
}

/// Checks that no client tells of a connection that there is not. Whether some client tells something new.
fn check_connections(users: &Users, clients: &mut BTreeMap<usize, Watched<ClientState>>) -> bool {
    let (mut told, mut has_changed) = (0, false);
    for (number, client) in clients {
        if client.read().is_some() {
            has_changed = true;
            client.check_task(users, &format!("client {number}"));
        }
        let state = client.present.as_ref();
        let connections = state.into_iter().flat_map(|state| &state.connections);
        told += connections.filter(|it| matches!(it.phase, ConnectionPhase::Connected { .. })).count();
    }
    let live = users.handle.live_resources().connections;
    if told > live {
        let what = || format!("{told} are told, {live} live");
        users.handle.report_violation("a connection that is lost is not told of", what);
    }
    has_changed
}

/// Checks that the state of each part follows from the one before.
fn check_steps(users: &Users, name: &str, before: Option<&HandleState>, now: Option<&HandleState>) {
    let (Some(before), Some(now)) = (before, now) else { return };
    for part in &now.parts {
        let Some(earlier) = before.parts.iter().find(|earlier| earlier.topic == part.topic) else { continue };
        if earlier.state != part.state && !follows(&earlier.state, &part.state) {
            let what = || format!("{name}: {:?} after {:?}", part.state, earlier.state);
            users.handle.report_violation("a state follows from the one before", what);
        }
    }
}

/// Whether `now` can follow `before`, from which it differs. An attempt takes time, so it is seen.
fn follows(before: &AttachState, now: &AttachState) -> bool {
    use AttachState::{Attached, Detached, Finished};
    match (before, now) {
        (Finished { .. }, _) | (Attached { .. }, Attached { .. }) => false,
        // The first attempt is made at once where the broker has named another one, and may fail at once.
        (Attached { .. }, Detached { attempt, error, .. }) => *attempt <= 2 && error.is_some(),
        (Detached { since: earlier, attempt: before, next_attempt: planned, .. }, Detached { since, attempt, .. }) => {
            // The time of the first attempt is known a moment later.
            let is_planned = *attempt == 1 && *before == 1 && planned.is_none();
            // What opened it may have come together with what closed it.
            let is_anew = earlier != since && *attempt <= 2;
            is_anew || earlier == since && (is_planned || *attempt == before + 1)
        }
        _ => true,
    }
}

/// Checks that what is told to be attached is.
fn check_attached(users: &Users, handle: &Handle, state: &HandleState) {
    let is_connected = (handle.is_connected)();
    if is_connected.is_some_and(|is_connected| is_connected != state.is_attached()) {
        let what = || format!("{}: {state}, but connected: {is_connected:?}", handle.name);
        users.handle.report_violation("what is told to be attached is attached", what);
    }
}

/// Checks that the client is connected to each broker that something is attached to.
fn check_connected(users: &Users, handle: &Handle, state: &HandleState, client: Option<&Watched<ClientState>>) {
    let Some(client) = client.and_then(|client| client.present.as_ref()) else { return };
    let is_up = |wanted: &str| {
        let up = |phase: &ConnectionPhase| matches!(phase, ConnectionPhase::Connected { .. });
        client.connections.iter().any(|connection| *connection.broker == *wanted && up(&connection.phase))
    };
    for part in &state.parts {
        if let AttachState::Attached { broker, .. } = &part.state {
            if !is_up(broker) {
                let what = || format!("{}: {state}, but the client: {client}", handle.name);
                users.handle.report_violation("what is attached is on a connection", what);
            }
        }
    }
}
