//! Footers of full files that were read lately, bounded in bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use esker_bookie_core::journal::FileId;
use esker_bookie_core::journal::files::{Footer, Run};

/// Keeps the footers used last. With a bound of 0 it keeps none.
pub(super) struct Footers {
    bytes_max: usize,
    bytes: usize,
    kept: BTreeMap<FileId, Kept>,
    /// Counts uses; the smallest one is the oldest.
    clock: u64,
}

struct Kept {
    footer: Arc<Footer>,
    bytes: usize,
    used: u64,
}

impl Footers {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, kept: BTreeMap::new(), clock: 0 }
    }

    pub fn find(&mut self, file: FileId) -> Option<Arc<Footer>> {
        self.clock += 1;
        let kept = self.kept.get_mut(&file)?;
        kept.used = self.clock;
        Some(kept.footer.clone())
    }

    pub fn keep(&mut self, file: FileId, footer: Arc<Footer>) {
        let runs: usize = footer.segments.values().map(|runs| runs.len() * size_of::<Run>() + 64).sum();
        if runs > self.bytes_max {
            return;
        }
        self.forget(file);
        // A few dozen footers at most: looking through them is cheaper than an order kept up to date.
        while self.bytes + runs > self.bytes_max {
            let Some(oldest) = self.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(file, _)| *file) else { break };
            self.forget(oldest);
        }
        self.clock += 1;
        self.bytes += runs;
        self.kept.insert(file, Kept { footer, bytes: runs, used: self.clock });
    }

    pub fn forget(&mut self, file: FileId) {
        if let Some(kept) = self.kept.remove(&file) {
            self.bytes -= kept.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use esker_types::SegmentId;

    use super::*;

    #[test]
    fn the_one_used_least_lately_goes() {
        let footer = |count: usize| {
            let run = Run { first: 0, count: 1, file: 1, offset: 0, block_len: 4096, bytes: 1 };
            let segments = BTreeMap::from([(SegmentId::new(1, 1), vec![run; count])]);
            Arc::new(Footer { segments })
        };
        let id = |seq| FileId { seq, uuid: [0; 16] };
        let one = size_of::<Run>() * 10 + 64;
        let mut footers = Footers::new(2 * one);
        footers.keep(id(1), footer(10));
        footers.keep(id(2), footer(10));
        assert!(footers.find(id(1)).is_some());
        footers.keep(id(3), footer(10));
        assert!(footers.find(id(2)).is_none() && footers.find(id(1)).is_some() && footers.find(id(3)).is_some());
        footers.keep(id(4), footer(1000));
        assert!(footers.find(id(4)).is_none(), "a footer over the bound is read each time");
    }
}
