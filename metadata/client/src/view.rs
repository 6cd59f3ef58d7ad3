//! A local read-only copy of the state machine. It lags behind; whoever acts on it is corrected by a refusal.

use std::sync::Arc;

use esker_metadata_core::{Delta, State};
use parking_lot::RwLock;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::store::{MetadataStore, Watch, WatchEvent};

/// Events that a slow reader of the news may fall behind before it must look at everything again.
const NEWS_MAX: usize = 1_024;

/// Cheap to clone; all clones are one copy.
#[derive(Clone)]
pub struct View {
    shared: Arc<Shared>,
}

struct Shared {
    state: RwLock<State>,
    /// Revision of `state`, moved after it. 0 until the first snapshot.
    revision: watch::Sender<u64>,
    news: broadcast::Sender<NewsEvent>,
}

/// What changed in the view.
#[derive(Clone, Debug)]
pub enum NewsEvent {
    /// Look at everything again: a snapshot came, or this reader was too slow.
    Reset,
    /// Already applied to the view.
    Delta(Arc<Delta>),
}

/// Changes of a view, in order. The view may be ahead of them, never behind.
pub struct News {
    events: broadcast::Receiver<NewsEvent>,
}

impl View {
    /// A view that follows `store` until `cancel`. Empty (revision 0) until the first snapshot has come.
    pub fn follow(store: &dyn MetadataStore, cancel: CancellationToken) -> Self {
        let view = Self::detached(State::default());
        tokio::spawn(feed(view.clone(), store.watch(), cancel));
        view
    }

    /// A view of a fixed state, for tests and tools; moved by [`View::apply`] alone.
    pub fn detached(state: State) -> Self {
        let revision = watch::Sender::new(state.revision());
        let news = broadcast::Sender::new(NEWS_MAX);
        Self { shared: Arc::new(Shared { state: RwLock::new(state), revision, news }) }
    }

    /// Looks at the copy. Keep `look` short: updates wait for it.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.shared.state.read())
    }

    pub fn revision(&self) -> u64 {
        *self.shared.revision.borrow()
    }

    /// Waits until the copy is past `revision`; returns the new one. Cancel-safe.
    pub async fn changed(&self, revision: u64) -> u64 {
        self.reached(revision.saturating_add(1)).await
    }

    /// Waits until the copy shows `revision` (as a proposal returned it). Cancel-safe.
    pub async fn reached(&self, revision: u64) -> u64 {
        let mut now = self.shared.revision.subscribe();
        match now.wait_for(|now| *now >= revision).await {
            Ok(now) => *now,
            Err(_) => unreachable!("the sender lives in self"),
        }
    }

    /// Waits for the first snapshot. Cancel-safe.
    pub async fn ready(&self) {
        self.reached(1).await;
    }

    /// Begins with whatever changes after this call.
    pub fn news(&self) -> News {
        News { events: self.shared.news.subscribe() }
    }

    /// Moves the copy. False: the delta does not follow, nothing was changed.
    pub fn apply(&self, event: WatchEvent) -> bool {
        let (revision, news) = {
            let mut state = self.shared.state.write();
            let news = match event {
                WatchEvent::Snapshot(new) => {
                    *state = State::clone(&new);
                    NewsEvent::Reset
                }
                WatchEvent::Delta(delta) => {
                    if state.replay(&delta).is_err() {
                        return false;
                    }
                    NewsEvent::Delta(delta)
                }
            };
            (state.revision(), news)
        };
        self.shared.revision.send_replace(revision);
        // Nobody listening is fine.
        let _ = self.shared.news.send(news);
        true
    }
}

impl News {
    /// Cancel-safe. None: the view is gone.
    pub async fn next(&mut self) -> Option<NewsEvent> {
        match self.events.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(NewsEvent::Reset),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Cancel-safe: `Watch::next` is, and nothing is held across it.
async fn feed(view: View, mut watch: Watch, cancel: CancellationToken) {
    loop {
        let event = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            event = watch.next() => event,
        };
        match event {
            Some(event) if view.apply(event.clone()) => {}
            Some(_) => tracing::error!(
                revision = view.revision(),
                "watch sent a delta that does not follow; waiting for a snapshot"
            ),
            None => return,
        }
    }
}
