use bytes::Bytes;
use esker_types::{EntryId, PartitionId, Rules, SegmentId, checksum};

use super::BookieState;
use super::index::Place;
use crate::journal::space::SpaceLevel;
use crate::journal::{FileId, Record};

/// An entry that should be readable and is not, as a reader or the scrub found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    pub segment: SegmentId,
    pub entry: EntryId,
    /// The file that was read.
    pub file: FileId,
}

/// Upkeep that can't be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the segment is not held here")]
    Unknown,
    #[error("entries of the segment are on their way to the disk: try again")]
    Busy,
    #[error("the journal failed or the disk is full")]
    ReadOnly,
    #[error("entries below {end} are missing, from {missing} on")]
    Incomplete { end: u64, missing: u64 },
    #[error("segments of the partition are still held here")]
    InUse,
    #[error("the segment is not in limbo: only limbo is repaired entry by entry")]
    NotInLimbo,
    #[error("crc of the entry is {found:#010x}, expected {expected:#010x}")]
    Crc { expected: u32, found: u32 },
}

impl<R: Rules> BookieState<R> {
    /// An entry does not verify: the copy counts for nothing until it is repaired. Returns false if the entry has moved
    /// or was dropped in the meantime, so that nothing is wrong with it.
    pub fn on_damage(&mut self, damage: Damage) -> bool {
        let Some(state) = self.segments.get_mut(&damage.segment) else { return false };
        let still_there = match state.index.find(damage.entry) {
            Some((Place::Run(run), _)) => run.file == damage.file.seq,
            Some((Place::Footer(file), _)) => file == damage.file.seq,
            None => false,
        };
        if !still_there {
            return false;
        }
        state.damaged.insert(damage.entry);
        if !state.limbo {
            state.limbo = true;
            self.enqueue(Record::LimboSet { segment: damage.segment });
        }
        true
    }

    /// Stores an entry of a segment in limbo again, fetched from another holder. Answered by nothing: see
    /// [`BookieState::seqs`] for when it is durable.
    pub fn repair(&mut self, segment: SegmentId, entry: EntryId, crc: u32, bytes: Bytes) -> Result<u64, Refused> {
        let state = self.segments.get(&segment).ok_or(Refused::Unknown)?;
        if !state.limbo {
            return Err(Refused::NotInLimbo);
        }
        self.copy(segment, entry, crc, bytes, SpaceLevel::NoAdds)
    }

    /// Writes an entry forward, so that the file that holds it can be freed. Lowest priority, rate-limited by the caller.
    pub fn copy_forward(&mut self, segment: SegmentId, entry: EntryId, crc: u32, bytes: Bytes) -> Result<u64, Refused> {
        self.segments.get(&segment).ok_or(Refused::Unknown)?;
        self.copy(segment, entry, crc, bytes, SpaceLevel::NoRecovery)
    }

    fn copy(
        &mut self,
        segment: SegmentId,
        entry: EntryId,
        crc: u32,
        bytes: Bytes,
        level_max: SpaceLevel,
    ) -> Result<u64, Refused> {
        if self.poisoned || self.space > level_max {
            return Err(Refused::ReadOnly);
        }
        // Copies are rare: the entry is summed again, so that damage in memory is not given a good checksum.
        let found = checksum::crc32c(&bytes);
        if found != crc {
            return Err(Refused::Crc { expected: crc, found });
        }
        let seq = self.enqueue(Record::Entry { segment, entry, crc, bytes });
        if let Some(state) = self.segments.get_mut(&segment) {
            state.last_seq = seq;
        }
        Ok(seq)
    }

    /// All entries of `segment` in the file `seq` were copied forward: the file need not hold them once the copies are
    /// durable.
    pub fn retire_when_durable(&mut self, segment: SegmentId, seq: u64) {
        self.retiring.push_back((self.next_seq - 1, segment, seq));
        self.retire();
    }

    pub(super) fn retire(&mut self) {
        while let Some((_, segment, file)) = self.retiring.pop_front_if(|(seq, ..)| *seq <= self.durable_seq) {
            let Some(state) = self.segments.get_mut(&segment) else { continue };
            // Only if each entry is really held elsewhere.
            let mut without = state.index.clone();
            without.forget(file);
            let held = |(from, to): &(EntryId, EntryId)| without.contiguous_from(*from) >= *to;
            if state.index.ranges_in(file).iter().all(held) {
                state.index = without;
            }
        }
    }

    /// Ranges [first, end) of a segment's entries in a file, for copying them forward.
    pub fn entries_in(&self, segment: SegmentId, file: u64) -> Vec<(EntryId, EntryId)> {
        self.segments.get(&segment).map(|state| state.index.ranges_in(file).to_vec()).unwrap_or_default()
    }

    /// Segments with entries in a file, with their bytes there.
    pub fn segments_in(&self, file: u64) -> Vec<(SegmentId, u64)> {
        self.segments.iter().filter_map(|(id, state)| Some((*id, state.index.holds_in(file)?))).collect()
    }

    /// The segment is CLOSED with `end` entries, and the caller has read and verified each of them here. Takes effect
    /// when its record is durable.
    pub fn clear_limbo(&mut self, segment: SegmentId, end: u64) -> Result<u64, Refused> {
        let state = self.segments.get(&segment).ok_or(Refused::Unknown)?;
        let missing = state.index.contiguous_from(0);
        let damaged = state.damaged.range(..end).next().copied();
        let missing = damaged.map_or(missing, |entry| entry.min(missing));
        if missing < end {
            return Err(Refused::Incomplete { end, missing });
        }
        if self.poisoned {
            return Err(Refused::ReadOnly);
        }
        Ok(self.enqueue(Record::LimboCleared { segment, end }))
    }

    pub(super) fn limbo_cleared(&mut self, segment: SegmentId, end: u64) {
        let Some(state) = self.segments.get_mut(&segment) else { return };
        let held = state.index.contiguous_from(0);
        // Damage that was found while the record was on its way keeps the segment in limbo.
        if held >= end && state.damaged.range(..end).next().is_none() {
            state.limbo = false;
            state.damaged.clear();
            state.durable = held;
            state.accepted = held;
            state.crcs.clear();
        }
    }

    /// R14 decided that the copy is not needed: it is gone from memory now, its files are freed with the next LiveSets.
    pub fn drop_segment(&mut self, segment: SegmentId) -> Result<u64, Refused> {
        let state = self.segments.get(&segment).ok_or(Refused::Unknown)?;
        // Else a restart would find entries on both sides of the drop record.
        if state.last_seq > self.durable_seq {
            return Err(Refused::Busy);
        }
        if self.poisoned {
            return Err(Refused::ReadOnly);
        }
        if let Some(state) = self.segments.remove(&segment) {
            self.dropping.insert(segment, state.index);
        }
        Ok(self.enqueue(Record::Dropped { segment }))
    }

    /// Metadata lists the partition as deleted for good: its fence is forgotten (I8 allows it only then).
    pub fn forget_partition(&mut self, partition: PartitionId) -> Result<u64, Refused> {
        let all = SegmentId { partition, n: 0 }..=SegmentId { partition, n: u64::MAX };
        if self.segments.range(all).next().is_some() {
            return Err(Refused::InUse);
        }
        self.max_epoch.remove(&partition);
        Ok(self.enqueue(Record::PartitionDeleted { partition }))
    }

    /// Partitions that have a fence here: candidates for [`BookieState::forget_partition`].
    pub fn fenced_partitions(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.max_epoch.keys().copied()
    }
}
