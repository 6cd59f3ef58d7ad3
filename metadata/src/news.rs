//! The last changes, for those who watch. Each watcher keeps its own place; one that falls behind takes a snapshot.

use std::collections::VecDeque;
use std::sync::Arc;

use esker_metadata_core::Delta;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Changes kept. A watcher that is further behind would need longer for them than for a snapshot.
const KEPT: usize = 4096;

pub struct News {
    kept: Mutex<VecDeque<Arc<Delta>>>,
    revision: watch::Sender<u64>,
}

impl News {
    pub fn new(revision: u64) -> Self {
        Self { kept: Mutex::default(), revision: watch::Sender::new(revision) }
    }

    /// The state is one step further.
    pub fn push(&self, delta: Delta) {
        let revision = delta.revision;
        {
            let mut kept = self.kept.lock();
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(Arc::new(delta));
        }
        self.revision.send_replace(revision);
    }

    /// The state was replaced.
    pub fn reset(&self, revision: u64) {
        self.kept.lock().clear();
        self.revision.send_replace(revision);
    }

    /// All changes after `revision`, at most `max`, without a gap. None: they are not kept any more.
    pub fn after(&self, revision: u64, max: usize) -> Option<Vec<Arc<Delta>>> {
        let kept = self.kept.lock();
        let newest = *self.revision.borrow();
        if revision == newest {
            return Some(Vec::new());
        }
        let first = kept.front()?.revision;
        let skip = usize::try_from((revision + 1).checked_sub(first)?).ok()?;
        (skip < kept.len()).then(|| kept.iter().skip(skip).take(max).cloned().collect())
    }

    /// Moves with the state, after it.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_types::WallMs;

    fn delta(revision: u64) -> Delta {
        Delta { revision, wall: WallMs(0), changes: Vec::new() }
    }

    fn revisions(news: &News, after: u64) -> Option<Vec<u64>> {
        news.after(after, 3).map(|deltas| deltas.iter().map(|delta| delta.revision).collect())
    }

    #[test]
    fn a_watcher_gets_what_follows_or_is_told_to_start_over() {
        let news = News::new(10);
        assert_eq!(revisions(&news, 10), Some(vec![]));
        assert_eq!(revisions(&news, 9), None);
        (11..=15).for_each(|revision| news.push(delta(revision)));
        assert_eq!(revisions(&news, 10), Some(vec![11, 12, 13]));
        assert_eq!(revisions(&news, 14), Some(vec![15]));
        assert_eq!(revisions(&news, 9), None);
        // Ahead of us: a watcher of another voter that knows more. It waits until we are there.
        assert_eq!(revisions(&news, 16), None);
        (16..=15 + KEPT as u64).for_each(|revision| news.push(delta(revision)));
        assert_eq!(revisions(&news, 14), None);
        assert_eq!(revisions(&news, 15).map(|r| r[0]), Some(16));
        news.reset(100_000);
        assert_eq!(revisions(&news, 99_999), None);
        assert_eq!(revisions(&news, 100_000), Some(vec![]));
    }
}
