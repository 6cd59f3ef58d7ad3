//! A metadata store in this process's memory: the same apply, nothing durable. For tests of other crates.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use esker_metadata_core::{Answer, COMMANDS_MAX, Command, Delta, Query, State};
use esker_types::{AllRules, BootId, SessionId};
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc};

use crate::store::{MetadataStore, ProposeError, Proposed, ReadError, RenewError, Renewed, Watch, WatchEvent};

const DELTAS_KEPT: usize = 1_024;
const EVENTS_AHEAD: usize = 64;

/// What goes wrong with a proposal. Queued by [`MemoryStore::inject`]; one proposal uses up one fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Applied as if nothing were wrong.
    None,
    /// Refused, surely not applied.
    NotApplied,
    /// Unknown outcome; applied at once.
    UnknownApplied,
    /// Unknown outcome; applied when [`MemoryStore::apply_late`] is called.
    UnknownLate,
    /// Unknown outcome; never applied.
    UnknownNever,
}

/// Clones are the same store.
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
    deltas: broadcast::Sender<Arc<Delta>>,
    ttl: Duration,
}

#[derive(Default)]
struct Inner {
    state: State,
    /// Moved by hand, so that tests are deterministic.
    wall_ms: i64,
    faults: VecDeque<Fault>,
    late: VecDeque<Vec<Command>>,
    unavailable: bool,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        Self { inner: Arc::default(), deltas: broadcast::Sender::new(DELTAS_KEPT), ttl: Duration::from_secs(2) }
    }

    /// Looks at the state as it is now.
    pub fn inspect<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.inner.lock().state)
    }

    /// Applies commands at once, whatever faults are queued: what a test's set-up and its controller do.
    pub fn apply(&self, commands: Vec<Command>) -> Proposed {
        self.apply_locked(&mut self.inner.lock(), &commands)
    }

    /// Moves the wall clock that commands are stamped with.
    pub fn advance_wall(&self, by_ms: i64) {
        self.inner.lock().wall_ms += by_ms;
    }

    /// The next proposals meet these faults, one each.
    pub fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.inner.lock().faults.extend(faults);
    }

    /// Applies the oldest proposal that was injured by [`Fault::UnknownLate`]. False: there is none.
    pub fn apply_late(&self) -> bool {
        let mut inner = self.inner.lock();
        let Some(commands) = inner.late.pop_front() else { return false };
        self.apply_locked(&mut inner, &commands);
        true
    }

    /// While true nothing is answered: proposals are not applied, reads and renewals fail.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.inner.lock().unavailable = unavailable;
    }

    fn apply_locked(&self, inner: &mut Inner, commands: &[Command]) -> Proposed {
        let applied = inner.state.apply::<AllRules>(inner.wall_ms, commands);
        // Nobody watching is fine.
        let _ = self.deltas.send(Arc::new(applied.delta));
        Proposed { revision: applied.revision, results: applied.results }
    }

    fn propose_now(&self, commands: Vec<Command>) -> Result<Proposed, ProposeError> {
        let mut inner = self.inner.lock();
        if inner.unavailable {
            return Err(ProposeError::NotApplied("store set unavailable".to_owned()));
        }
        if commands.is_empty() || commands.len() > COMMANDS_MAX {
            return Err(ProposeError::NotApplied(format!("{} commands; 1..={COMMANDS_MAX} fit", commands.len())));
        }
        let unknown = || Err(ProposeError::Unknown("injected".to_owned()));
        match inner.faults.pop_front().unwrap_or(Fault::None) {
            Fault::None => Ok(self.apply_locked(&mut inner, &commands)),
            Fault::NotApplied => Err(ProposeError::NotApplied("injected".to_owned())),
            Fault::UnknownApplied => {
                self.apply_locked(&mut inner, &commands);
                unknown()
            }
            Fault::UnknownLate => {
                inner.late.push_back(commands);
                unknown()
            }
            Fault::UnknownNever => unknown(),
        }
    }
}

impl MetadataStore for MemoryStore {
    fn propose(&self, commands: Vec<Command>) -> BoxFuture<'_, Result<Proposed, ProposeError>> {
        Box::pin(ready(self.propose_now(commands)))
    }

    fn read(&self, query: Query) -> BoxFuture<'_, Result<Answer, ReadError>> {
        let inner = self.inner.lock();
        let answer = match inner.unavailable {
            true => Err(ReadError::Unavailable("store set unavailable".to_owned())),
            false => Ok(inner.state.answer(&query)),
        };
        Box::pin(ready(answer))
    }

    fn watch(&self) -> Watch {
        let (to, events) = mpsc::channel(EVENTS_AHEAD);
        // Under the lock, so that no delta falls between the snapshot and the subscription.
        let inner = self.inner.lock();
        let (state, deltas) = (Arc::new(inner.state.clone()), self.deltas.subscribe());
        drop(inner);
        tokio::spawn(feed(Arc::downgrade(&self.inner), state, deltas, to));
        Watch::new(events)
    }

    fn renew(&self, session: SessionId, boot: BootId) -> BoxFuture<'_, Result<Renewed, RenewError>> {
        let inner = self.inner.lock();
        let known = inner.state.session(session).is_some_and(|record| record.boot == boot);
        let outcome = match (inner.unavailable, known) {
            (true, _) => Err(RenewError::Unavailable("store set unavailable".to_owned())),
            (false, true) => Ok(Renewed { ttl: self.ttl }),
            (false, false) => Err(RenewError::Lost),
        };
        Box::pin(ready(outcome))
    }
}

/// Ends when the watch or the store is dropped. A watcher that fell behind gets a snapshot.
async fn feed(
    store: std::sync::Weak<Mutex<Inner>>,
    first: Arc<State>,
    mut deltas: broadcast::Receiver<Arc<Delta>>,
    to: mpsc::Sender<WatchEvent>,
) {
    let mut revision = first.revision();
    if to.send(WatchEvent::Snapshot(first)).await.is_err() {
        return;
    }
    loop {
        let next = tokio::select! {
            biased;
            () = to.closed() => return,
            next = deltas.recv() => next,
        };
        let event = match next {
            Ok(delta) if delta.revision <= revision => continue,
            Ok(delta) => {
                revision = delta.revision;
                WatchEvent::Delta(delta)
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let Some(inner) = store.upgrade() else { return };
                let state = Arc::new(inner.lock().state.clone());
                revision = state.revision();
                WatchEvent::Snapshot(state)
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if to.send(event).await.is_err() {
            return;
        }
    }
}
