//! The roles of one process find each other here, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::handshake::RawLink;

/// Links waiting for `accept`, per name.
const BACKLOG: usize = 64;

/// A directory of the `inproc:` listeners of a process. Passed by argument, so that tests can run many clusters
/// side by side. Clones share the directory.
#[derive(Clone, Default)]
pub struct Hub {
    listeners: Arc<Mutex<BTreeMap<String, mpsc::Sender<RawLink>>>>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.listeners.lock().keys()).finish()
    }
}

/// Frees the name when the listener goes.
pub(crate) struct Registration {
    hub: Hub,
    name: String,
    sender: mpsc::Sender<RawLink>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut listeners = self.hub.listeners.lock();
        if listeners.get(&self.name).is_some_and(|held| held.same_channel(&self.sender)) {
            listeners.remove(&self.name);
        }
    }
}

impl Hub {
    pub fn new() -> Self {
        Self::default()
    }

    /// None: the name is taken by a listener that lives.
    pub(crate) fn register(&self, name: &str) -> Option<(Registration, mpsc::Receiver<RawLink>)> {
        let (tx, rx) = mpsc::channel(BACKLOG);
        let mut listeners = self.listeners.lock();
        if listeners.get(name).is_some_and(|held| !held.is_closed()) {
            return None;
        }
        listeners.insert(name.to_owned(), tx.clone());
        Some((Registration { hub: self.clone(), name: name.to_owned(), sender: tx }, rx))
    }

    /// None: nobody listens under the name.
    pub(crate) fn find(&self, name: &str) -> Option<mpsc::Sender<RawLink>> {
        self.listeners.lock().get(name).filter(|held| !held.is_closed()).cloned()
    }
}
