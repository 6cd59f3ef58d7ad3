//! The last changes, for those who watch. Each watcher keeps its own place; one that falls behind takes a snapshot.

use std::collections::VecDeque;
use std::sync::Arc;

use esker_metadata_core::Delta;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Changes kept. A watcher that is further behind would need longer for them than for a snapshot.
const KEPT: usize = 4096;
/// Rows in them, of a kilobyte or less each. One batch may carry a thousand, so that the number of changes alone bounds nothing.
const KEPT_ROWS: usize = 32_768;

#[derive(Default)]
struct Kept {
    deltas: VecDeque<Arc<Delta>>,
    rows: usize,
}

pub struct News {
    kept: Mutex<Kept>,
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
            kept.rows += delta.changes.len();
            kept.deltas.push_back(Arc::new(delta));
            while kept.deltas.len() > KEPT || (kept.rows > KEPT_ROWS && kept.deltas.len() > 1) {
                let oldest = kept.deltas.pop_front();
                kept.rows -= oldest.map_or(0, |oldest| oldest.changes.len());
            }
        }
        self.revision.send_replace(revision);
    }

    /// The state was replaced.
    pub fn reset(&self, revision: u64) {
        *self.kept.lock() = Kept::default();
        self.revision.send_replace(revision);
    }

    /// All changes after `revision`, at most `max`, without a gap. None: they are not kept any more.
    pub fn after(&self, revision: u64, max: usize) -> Option<Vec<Arc<Delta>>> {
        let kept = self.kept.lock();
        let newest = *self.revision.borrow();
        if revision == newest {
            return Some(Vec::new());
        }
        let first = kept.deltas.front()?.revision;
        let skip = usize::try_from((revision + 1).checked_sub(first)?).ok()?;
        (skip < kept.deltas.len()).then(|| kept.deltas.iter().skip(skip).take(max).cloned().collect())
    }

    /// Moves with the state, after it.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_metadata_core::{Change, GroupKey};
    use esker_types::WallMs;

    fn delta(revision: u64) -> Delta {
        with_rows(revision, 0)
    }

    fn with_rows(revision: u64, rows: usize) -> Delta {
        let row = Change::GroupGone(GroupKey { name: "readers".to_owned() });
        Delta { revision, wall: WallMs(0), changes: vec![row; rows] }
    }

    #[test]
    fn large_batches_are_kept_by_their_rows_and_the_newest_always() {
        let news = News::new(0);
        for revision in 1..=40 {
            news.push(with_rows(revision, 1_000));
        }
        assert_eq!(revisions(&news, 7), None);
        assert_eq!(revisions(&news, 8), Some(vec![9, 10, 11]), "32 of them are within the bound");
        news.push(with_rows(41, KEPT_ROWS + 1));
        assert_eq!(revisions(&news, 39), None);
        assert_eq!(revisions(&news, 40), Some(vec![41]));
        news.push(delta(42));
        assert_eq!(revisions(&news, 40), None);
        assert_eq!(revisions(&news, 41), Some(vec![42]));
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
