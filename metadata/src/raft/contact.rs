//! When this node last heard from somebody who leads, or may soon.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What was heard last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A leader, or the start of this process, which may just have missed one.
    Leader,
    /// A candidate: this node, or one that it gave its vote to. No leader is known to live.
    Candidate,
}

pub struct Contact {
    last: Mutex<(Instant, Heard)>,
    changed: Notify,
}

impl Default for Contact {
    fn default() -> Self {
        Self { last: Mutex::new((Instant::now(), Heard::Leader)), changed: Notify::new() }
    }
}

impl Contact {
    pub fn heard(&self, from: Heard) {
        *self.last.lock() = (Instant::now(), from);
        if from == Heard::Candidate {
            // The new wait may be shorter than the old one; after a leader's sign it never is.
            self.changed.notify_one();
        }
    }

    pub fn last(&self) -> (Instant, Heard) {
        *self.last.lock()
    }

    /// True if a leader was heard within `lease`.
    pub fn leader_lives(&self, lease: Duration) -> bool {
        let (at, heard) = self.last();
        heard == Heard::Leader && at.elapsed() < lease
    }

    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}
