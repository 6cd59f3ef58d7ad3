//! What the leader does of its own accord: it ends sessions, gives partitions without an owner to gateways, and
//! levels the load by asking owners to hand partitions over.
//!
//! It keeps no plan: every decision is made from the state as it is, so a lost leadership, an unknown outcome or a
//! refused move needs no repair. Preconditions of the commands make two leaders harmless.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use esker_metadata_core::{COMMANDS_MAX, Change, Command, NodeRef, State, plan};
use esker_net::{Address, Pool, Probe};
use esker_types::moves::{MoveAnswer, MoveRequest};
use esker_types::{BootId, PartitionId, Role, SessionId, Time, opcode};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::proposer::Proposer;
use crate::raft::machine::Applied;
use crate::sessions::Sessions;

/// Wait after a proposal that failed.
const RETRY: Duration = Duration::from_millis(50);
/// An owner may need a recovery's time before it can hand over.
const MOVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A partition whose move failed is left alone for so long.
const MOVE_PAUSE: Duration = Duration::from_secs(5);
/// The load is looked at this often even if nothing changes: moves that failed are due again.
const LEVEL_EVERY: Duration = Duration::from_secs(5);
/// News of closed connections and of finished moves that wait. One that is lost costs a time-out, nothing else.
const EVENTS: usize = 1024;

pub enum Event {
    /// The connection over which a session was renewed has closed.
    Silent(SessionId),
    /// A probe's verdict.
    Dead(SessionId),
    Moved {
        partition: PartitionId,
        well: bool,
    },
}

/// The leader's sessions, for the doors that renew them.
#[derive(Clone)]
pub struct Lease {
    sessions: Arc<Mutex<Sessions>>,
    origin: Instant,
    events: mpsc::Sender<Event>,
}

impl Lease {
    fn now(&self) -> Time {
        Time(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Heard of a process. Returns its time to live.
    pub fn renew(&self, session: SessionId) -> Duration {
        let mut sessions = self.sessions.lock();
        sessions.renew(self.now(), session);
        sessions.ttl()
    }

    /// The process's connection closed: a hint, to be looked into.
    pub fn silent(&self, session: SessionId) {
        // Full: the time to live will tell.
        let _ = self.events.try_send(Event::Silent(session));
    }
}

pub struct Controller {
    pub applied: Arc<Applied>,
    pub leadership: Leadership,
    pub proposer: Proposer,
    pub pool: Pool,
    pub metrics: Arc<Metrics>,
    pub moves_at_once: usize,
    lease: Lease,
    events: mpsc::Receiver<Event>,
    tasks: TaskTracker,
    /// Under way, or failed a moment ago and not due again.
    moving: BTreeMap<PartitionId, MoveState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MoveState {
    UnderWay,
    Paused(Time),
}

/// What changed, as far as the controller cares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Due {
    /// Sessions came or went, or a partition may have no owner.
    assign: bool,
    /// Gateways or the numbers of their partitions changed.
    level: bool,
}

impl Controller {
    pub fn new(
        applied: Arc<Applied>,
        leadership: Leadership,
        proposer: Proposer,
        pool: Pool,
        metrics: Arc<Metrics>,
        ttl: Duration,
        moves_at_once: usize,
    ) -> (Self, Lease) {
        let (events_tx, events) = mpsc::channel(EVENTS);
        let sessions = Arc::new(Mutex::new(Sessions::new(ttl)));
        let lease = Lease { sessions, origin: Instant::now(), events: events_tx };
        let controller = Self {
            applied,
            leadership,
            proposer,
            pool,
            metrics,
            moves_at_once,
            lease: lease.clone(),
            events,
            tasks: TaskTracker::new(),
            moving: BTreeMap::new(),
        };
        (controller, lease)
    }

    pub async fn run(mut self, cancel: CancellationToken) {
        let mut established = self.leadership.established();
        loop {
            let term = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                term = established.wait_for(Option::is_some) => term.map(|term| *term),
                // Hints from a time without leadership are stale.
                _ = self.events.recv() => continue,
            };
            let Ok(Some(term)) = term else { break };
            let lost = CancellationToken::new();
            let mut watch = established.clone();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                _ = watch.wait_for(|now| *now != Some(term)) => {}
                () = self.lead(lost.clone()) => {}
            }
            // Probes and moves of the old leadership.
            lost.cancel();
            self.moving.clear();
            self.lease.sessions.lock().begin(Time::ZERO, []);
            self.metrics.sessions(0);
        }
        self.tasks.close();
    }

    /// Runs while this node leads. Cancel-safe: it holds nothing that the state does not hold.
    async fn lead(&mut self, lost: CancellationToken) {
        let now = self.lease.now();
        self.applied.read(|state| self.lease.sessions.lock().begin(now, state.sessions().map(|s| s.id)));
        let mut revisions = self.applied.news.revision();
        let mut seen = *revisions.borrow_and_update();
        let mut due = Due { assign: true, level: true };
        let mut level_at = Instant::now() + LEVEL_EVERY;
        loop {
            if due.assign && !self.assign().await {
                tokio::time::sleep(RETRY).await;
                continue;
            }
            if due.level {
                self.level(&lost);
            }
            due = Due::default();
            let end = sleep_until(self.lease.sessions.lock().next_end().map(|at| at.since(self.lease.now())));
            tokio::select! {
                biased;
                changed = revisions.changed() => if changed.is_err() { return },
                event = self.events.recv() => match event {
                    Some(event) => due = self.on_event(event, &lost),
                    None => return,
                },
                () = end => due.assign = true,
                () = tokio::time::sleep_until(level_at) => {
                    level_at = Instant::now() + LEVEL_EVERY;
                    due = Due { assign: true, level: true };
                }
            }
            let (news, upto) = self.look(seen, *revisions.borrow_and_update());
            seen = upto;
            due = Due { assign: due.assign || news.assign, level: due.level || news.level };
            if news.assign {
                self.follow();
            }
        }
    }

    /// What the changes after `seen` call for, and the last of them. A gap calls for everything.
    fn look(&self, seen: u64, newest: u64) -> (Due, u64) {
        let Some(deltas) = self.applied.news.after(seen, usize::MAX) else {
            return (Due { assign: true, level: true }, newest);
        };
        let mut due = Due::default();
        self.applied.read(|state| {
            for change in deltas.iter().flat_map(|delta| &delta.changes) {
                match change {
                    Change::Session(_) | Change::SessionGone(_) | Change::Gateway(_) | Change::GatewayGone(_) => {
                        due = Due { assign: true, level: true };
                    }
                    Change::Partition(partition) if !state.has_live_owner(partition) => due.assign = true,
                    Change::PartitionGone(_) | Change::TopicGone(_) => due.level = true,
                    _ => {}
                }
            }
        });
        (due, deltas.last().map_or(seen, |delta| delta.revision))
    }

    fn follow(&self) {
        let now = self.lease.now();
        let live = self.applied.read(|state| {
            let mut sessions = self.lease.sessions.lock();
            sessions.follow(now, state.sessions().map(|session| session.id));
            sessions.count()
        });
        self.metrics.sessions(live);
    }

    /// Ends dead sessions and gives away what has no owner. False: try again.
    async fn assign(&self) -> bool {
        let dead = self.lease.sessions.lock().expired(self.lease.now());
        let commands = self.applied.read(|state| {
            let some_ownerless = || state.partitions().any(|partition| !state.has_live_owner(partition));
            if dead.is_empty() && !some_ownerless() { Vec::new() } else { plan::expire_and_assign(state, &dead) }
        });
        if !dead.is_empty() {
            let names: Vec<u64> = dead.iter().map(|session| session.0).collect();
            tracing::info!(sessions = ?names, "sessions have ended");
        }
        for piece in commands.chunks(COMMANDS_MAX) {
            let assigns = piece.iter().filter(|command| matches!(command, Command::Assign(_))).count();
            match self.proposer.propose(piece.to_vec()).await {
                Ok(done) => {
                    let refused = done.results.iter().filter(|result| result.is_err()).count();
                    if refused > 0 {
                        // Something changed between the look and the apply; the change calls for another look.
                        tracing::debug!(refused, "some of the controller's commands came too late");
                    }
                    self.metrics.assigned(assigns.saturating_sub(refused));
                }
                Err(fault) => {
                    tracing::warn!(%fault, "the controller's commands are not through yet");
                    return false;
                }
            }
        }
        self.metrics.expired(dead.len());
        self.follow();
        true
    }

    /// Asks owners to hand partitions over, a few at a time.
    fn level(&mut self, lost: &CancellationToken) {
        let now = self.lease.now();
        self.moving.retain(|_, state| !matches!(state, MoveState::Paused(until) if *until <= now));
        let busy = self.moving.values().filter(|state| **state == MoveState::UnderWay).count();
        let room = self.moves_at_once.saturating_sub(busy);
        if room == 0 {
            return;
        }
        let wanted = self.applied.read(|state| {
            let moves = plan::rebalance(state).into_iter().filter(|step| !self.moving.contains_key(&step.partition));
            moves
                .take(room)
                .filter_map(|step| Some((step, address_of(state, NodeRef::Gateway(step.from))?)))
                .collect::<Vec<_>>()
        });
        for (step, owner) in wanted {
            self.moving.insert(step.partition, MoveState::UnderWay);
            let (pool, events, metrics) = (self.pool.clone(), self.lease.events.clone(), self.metrics.clone());
            let lost = lost.clone();
            self.tasks.spawn(async move {
                let request = MoveRequest { partition: step.partition.0, epoch: 0, to_session: step.to_session.0 };
                let ask = pool.ask::<MoveAnswer>(&owner, Role::Gateway, opcode::gateway::MOVE, &request, MOVE_TIMEOUT);
                let Some(answer) = lost.run_until_cancelled(ask).await else { return };
                metrics.moved(answer.is_ok());
                let (partition, well) = (step.partition, answer.is_ok());
                match answer {
                    Ok(done) => {
                        tracing::info!(%partition, from = %step.from, to = %step.to, pause_us = done.pause_us, "moved");
                    }
                    Err(error) => tracing::debug!(%partition, from = %step.from, %error, "not moved"),
                }
                let _ = lost.run_until_cancelled(events.send(Event::Moved { partition, well })).await;
            });
        }
    }

    fn on_event(&mut self, event: Event, lost: &CancellationToken) -> Due {
        match event {
            Event::Silent(session) => {
                self.probe(session, lost);
                Due::default()
            }
            Event::Dead(session) => {
                let believed = self.lease.sessions.lock().found_dead(self.lease.now(), session);
                tracing::info!(%session, believed, "the process behind a session is gone");
                Due { assign: believed, level: false }
            }
            Event::Moved { partition, well } => {
                match well {
                    true => self.moving.remove(&partition),
                    false => self.moving.insert(partition, MoveState::Paused(self.lease.now() + MOVE_PAUSE)),
                };
                Due { assign: false, level: true }
            }
        }
    }

    /// Looks whether the process behind a session still answers at its own port.
    fn probe(&self, session: SessionId, lost: &CancellationToken) {
        let target = self.applied.read(|state| {
            let record = state.session(session)?;
            Some((record.boot, record.node, address_of(state, record.node)?))
        });
        let Some((boot, node, address)) = target else { return };
        let (network, events) = (self.pool.network().clone(), self.lease.events.clone());
        let lost = lost.clone();
        self.tasks.spawn(async move {
            let role = match node {
                NodeRef::Gateway(_) => Role::Gateway,
                NodeRef::Bookie(_) => Role::Bookie,
            };
            let Some(found) = lost.run_until_cancelled(network.probe(&address, role)).await else { return };
            if is_dead(&found, boot) {
                let _ = lost.run_until_cancelled(events.send(Event::Dead(session))).await;
            }
        });
    }
}

async fn sleep_until(after: Option<Duration>) {
    match after {
        Some(after) => tokio::time::sleep(after).await,
        None => std::future::pending().await,
    }
}

/// Refused, or somebody else's: dead. An answer of its own: alive. Silence proves nothing.
fn is_dead(found: &Probe, boot: BootId) -> bool {
    match found {
        Probe::Refused => true,
        Probe::Alive(peer) => peer.boot != boot,
        Probe::Unknown => false,
    }
}

/// Where a node's internal port is.
fn address_of(state: &State, node: NodeRef) -> Option<Address> {
    let text = match node {
        NodeRef::Gateway(id) => &state.gateway(id)?.addresses.internal,
        NodeRef::Bookie(id) => &state.bookie(id)?.address,
    };
    text.parse().ok()
}

/// The sessions that were last renewed over each connection.
#[derive(Default)]
pub struct Renewals {
    by_connection: BTreeMap<u64, BTreeSet<SessionId>>,
    by_session: BTreeMap<SessionId, u64>,
}

impl Renewals {
    pub fn renewed(&mut self, session: SessionId, connection: u64) {
        match self.by_session.insert(session, connection) {
            Some(old) if old == connection => return,
            Some(old) => self.forget(old, session),
            None => {}
        }
        self.by_connection.entry(connection).or_default().insert(session);
    }

    /// The sessions that have no connection any more.
    pub fn closed(&mut self, connection: u64) -> BTreeSet<SessionId> {
        let silent = self.by_connection.remove(&connection).unwrap_or_default();
        self.by_session.retain(|session, _| !silent.contains(session));
        silent
    }

    fn forget(&mut self, connection: u64, session: SessionId) {
        if let Some(sessions) = self.by_connection.get_mut(&connection) {
            sessions.remove(&session);
            if sessions.is_empty() {
                self.by_connection.remove(&connection);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_silent_only_if_its_last_connection_closes() {
        let mut renewals = Renewals::default();
        renewals.renewed(SessionId(1), 10);
        renewals.renewed(SessionId(2), 10);
        renewals.renewed(SessionId(1), 11);
        assert_eq!(renewals.closed(10), BTreeSet::from([SessionId(2)]));
        assert_eq!(renewals.closed(11), BTreeSet::from([SessionId(1)]));
        assert!(renewals.closed(11).is_empty() && renewals.by_session.is_empty());
    }
}
