use std::collections::{BTreeSet, VecDeque};

use esker_types::EntryId;

use super::index::Index;
use crate::journal::files::Run;

/// One segment's copy on this bookie.
#[derive(Clone, Debug, Default)]
pub(super) struct SegmentState {
    /// Count of entries in the journal's queue or on disk, without a hole from 0. Never moves back while running.
    pub accepted: u64,
    /// Count of entries that are fsynced, without a hole from 0. `durable <= accepted`.
    pub durable: u64,
    /// Count of entries that the owner told to be acknowledged. A hint; 0 after a restart.
    pub lac: u64,
    /// The bookie may have held more than `durable`, or can't read all of what it held: the copy counts for nothing.
    pub limbo: bool,
    /// Entries that were held and do not verify. Only in limbo.
    pub damaged: BTreeSet<EntryId>,
    pub index: Index,
    /// CRCs of the last entries in order, the last one being of entry `accepted - 1`.
    pub crcs: VecDeque<u32>,
    /// Record of the last entry that was queued.
    pub last_seq: u64,
}

impl SegmentState {
    /// CRC of an accepted entry if it is still remembered.
    pub fn crc_of(&self, entry: EntryId) -> Option<u32> {
        let back = usize::try_from(self.accepted.checked_sub(entry)?).ok()?;
        self.crcs.len().checked_sub(back).and_then(|at| self.crcs.get(at)).copied()
    }

    pub fn accept(&mut self, crc: u32, seq: u64, keep: usize) {
        self.accepted += 1;
        self.last_seq = seq;
        self.crcs.push_back(crc);
        // What is not durable can't be read back: its CRCs stay whatever the bound says.
        let unsynced = usize::try_from(self.accepted - self.durable).unwrap_or(usize::MAX);
        while self.crcs.len() > keep.max(unsynced) {
            self.crcs.pop_front();
        }
    }

    /// Entries of `run` are fsynced.
    pub fn placed(&mut self, run: Run) {
        self.index.add(run, true);
        for entry in run.first..run.end() {
            self.damaged.remove(&entry);
        }
        if run.first <= self.durable && run.end() > self.durable {
            self.durable = self.index.contiguous_from(run.end());
            if self.durable > self.accepted {
                // A repair closed a hole: the CRCs kept are of other entries.
                self.accepted = self.durable;
                self.crcs.clear();
            }
        }
    }
}
