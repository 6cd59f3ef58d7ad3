//! What a bookie decides: which entries it takes, what it answers, what it may forget. Pure: the server (real files,
//! threads) and the simulator (fake disk) drive the same [`BookieState`], one per journal.
//!
//! ```text
//! 0 <= lac <= durable <= accepted        per segment, all counts ("next expected entry")
//!      lac: a hint from the owner; durable: fsynced, may be acknowledged; accepted: in the journal's queue
//! ```

mod add;
mod boot;
mod fence;
mod files;
mod index;
mod read;
mod segment;
mod upkeep;

use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;

use esker_types::{EntryId, Epoch, InstanceId, PartitionId, Rules, SegmentId};

pub use add::{Compare, Compared};
pub use boot::BootFacts;
pub use files::FileUse;
pub use read::{Fetch, Fetched, ReadPlan};
pub use upkeep::{Damage, Refused};

use crate::journal::files::RetainedFile;
use crate::journal::space::SpaceLevel;
use crate::journal::writer::Writer;
use crate::journal::{FileId, JournalIds, Lsn, Queued, Record};
use crate::wire::{AddStatus, FenceResponse};
use fence::PendingFence;
use files::Phase;
use index::Index;
use segment::SegmentState;

/// A connection on which ADDs come, as the driver numbers them. Never reused while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A FENCE request that waits for its answer, as the driver numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What the driver must do or send, in this order.
#[derive(Clone, Debug)]
pub enum Action {
    /// Push the status on the connection, if it still stands.
    AddStatus { conn: ConnId, status: AddStatus },
    /// Answer the FENCE request.
    Fenced { ticket: Ticket, response: FenceResponse },
    /// An entry came again that is too old to be compared from memory: call [`Compare::run`] on the files, then
    /// [`BookieState::on_compared`].
    Compare(Compare),
    /// Make a journal file ready (pre-written or recycled, name and directory fsynced), then call
    /// [`BookieState::offer_file`].
    WantFile,
    /// The file's header is durable. After the first one the bookie may serve. Write the superblock now.
    FileStarted(FileId),
    /// A durable LiveSet does not name the file any more: unlink or recycle it.
    Unlink(FileId),
}

/// Bounds, from the bookie's configuration.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Payload of one group, unless its first entry alone is larger. 64 KiB - 16 MiB: larger groups cost latency,
    /// smaller ones throughput.
    pub group_bytes: usize,
    /// A file that reached this gets its footer. 1 MiB - 4 GiB.
    pub file_bytes: u64,
    /// CRCs per segment that are kept in memory for entries that come twice.
    pub recent_crcs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { group_bytes: 1 << 20, file_bytes: 256 << 20, recent_crcs: 64 }
    }
}

/// The bookie over one journal. All partitions that it stores use this one journal: that order makes a fence sound.
#[derive(Debug)]
pub struct BookieState<R: Rules> {
    ids: JournalIds,
    limits: Limits,
    space: SpaceLevel,
    draining: bool,
    poisoned: bool,
    segments: BTreeMap<SegmentId, SegmentState>,
    /// Highest fence of each partition, queued ones included. Never moves back but when the partition is deleted (I8).
    max_epoch: BTreeMap<PartitionId, Epoch>,
    tombstones: BTreeMap<SegmentId, Lsn>,
    /// Dropped in memory; the record is not durable yet. With what is still to be listed in footers.
    dropping: BTreeMap<SegmentId, Index>,
    /// Files before the current one that count, by seq.
    files: BTreeMap<u64, RetainedFile>,
    /// Files that the next LiveSet does not name.
    unlink: Vec<FileId>,
    spare: Option<FileId>,
    phase: Phase,
    writer: Writer,
    next_seq: u64,
    durable_seq: u64,
    next_file_seq: u64,
    /// ADDs that wait for their fsync, in order of their records.
    waiters: VecDeque<Waiter>,
    fences: VecDeque<PendingFence>,
    /// Copies that are complete once a record is durable: (record, segment, file that need not hold it any more).
    retiring: VecDeque<(u64, SegmentId, u64)>,
    actions: VecDeque<Action>,
    idle: bool,
    roll: bool,
    rules: PhantomData<R>,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    seq: u64,
    conn: ConnId,
    segment: SegmentId,
    req_epoch: Epoch,
}

impl<R: Rules> BookieState<R> {
    pub fn ids(&self) -> JournalIds {
        self.ids
    }

    pub fn instance(&self) -> InstanceId {
        self.ids.instance
    }

    /// True once the first file header of this run is durable. Nothing may be served before.
    pub fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Starting | Phase::Beginning { first: true })
    }

    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Entry bytes that are queued or on their way to the disk. The driver stops reading from connections while this
    /// is above its bound; nothing in the middle is ever dropped.
    pub fn pending_bytes(&self) -> usize {
        self.writer.pending_bytes()
    }

    /// Exclusive. To be reported to metadata every 5 s while it moves.
    pub fn durable_lsn(&self) -> Lsn {
        self.writer.durable()
    }

    /// Last record that was queued, and the last that is durable.
    pub fn seqs(&self) -> (u64, u64) {
        (self.next_seq - 1, self.durable_seq)
    }

    pub fn max_epoch(&self, partition: PartitionId) -> Epoch {
        self.max_epoch.get(&partition).copied().unwrap_or_default()
    }

    /// (accepted, durable, limbo) of a segment; none if nothing of it is known.
    pub fn segment(&self, segment: SegmentId) -> Option<(u64, u64, bool)> {
        self.segments.get(&segment).map(|state| (state.accepted, state.durable, state.limbo))
    }

    /// Every segment of which anything is held or in limbo.
    pub fn segment_ids(&self) -> impl Iterator<Item = SegmentId> + '_ {
        self.segments.keys().copied()
    }

    pub fn limbo_segments(&self) -> impl Iterator<Item = SegmentId> + '_ {
        self.segments.iter().filter(|(_, state)| state.limbo).map(|(id, _)| *id)
    }

    /// Entries of a segment that were held and do not verify.
    pub fn damaged(&self, segment: SegmentId) -> Vec<EntryId> {
        self.segments.get(&segment).map(|state| state.damaged.iter().copied().collect()).unwrap_or_default()
    }

    pub fn set_space(&mut self, level: SpaceLevel) {
        self.space = level;
    }

    /// A draining bookie takes no new entries but those of recoveries.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// A write or fsync failed: no retry, no further acknowledgement (R9b). Write a poisoned superblock if that still
    /// works, and end the process.
    pub fn on_write_failed(&mut self) {
        self.poisoned = true;
        self.actions.retain(|action| !matches!(action, Action::WantFile));
    }

    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    fn enqueue(&mut self, record: Record) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.idle = false;
        self.writer.push(Queued { seq, record });
        seq
    }
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;
