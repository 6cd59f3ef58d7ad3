use std::collections::BTreeMap;

use esker_types::{Rules, SegmentId};

use super::{Action, BookieState};
use crate::journal::block::{BlockWrite, ItemKind};
use crate::journal::files::{FileHeader, Footer, FooterAt, RetainedFile};
use crate::journal::writer::Durable;
use crate::journal::{FileId, Lsn};

/// Where the journal is between two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No file of this run yet.
    Starting,
    /// The header of a file is on its way to the disk.
    Beginning {
        first: bool,
    },
    Open,
    /// The footer is on its way to the disk: its successor takes nothing before that is durable.
    Ending,
    /// The footer is durable, the next file has not begun.
    Between,
}

/// How much of a file still counts, for the decision which one to free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileUse {
    pub id: FileId,
    /// Bytes of the file that count as written.
    pub len: u64,
    /// Entry bytes of segments that are still here.
    pub live: u64,
}

impl<R: Rules> BookieState<R> {
    /// Seq for the next file that is offered.
    pub fn next_file_seq(&self) -> u64 {
        self.next_file_seq
    }

    /// `file` exists under its name, durably, and holds no block of this life. It is used when it is needed.
    pub fn offer_file(&mut self, file: FileId) {
        assert!(file.seq >= self.next_file_seq && self.spare.is_none(), "files are offered one at a time, in order");
        self.next_file_seq = file.seq + 1;
        self.spare = Some(file);
    }

    /// End the current file at the next chance, whatever its size: so that a LiveSet frees what it no longer names.
    pub fn roll(&mut self) {
        self.roll = true;
    }

    /// Nothing was queued for a while (20 ms): write a block that tells how far the journal is durable.
    pub fn idle(&mut self) {
        self.idle = true;
    }

    /// The next block for the disk, none if there is nothing to write now. Blocks may be written at the same time;
    /// each is completed by [`BookieState::on_written`] after its fsync.
    pub fn next_write(&mut self) -> Option<BlockWrite> {
        if self.poisoned {
            return None;
        }
        match self.phase {
            Phase::Starting | Phase::Between => self.begin_file(),
            Phase::Beginning { .. } | Phase::Ending => None,
            Phase::Open => {
                let full = self.roll || self.writer.offset() >= self.limits.file_bytes;
                if full && self.spare.is_some() {
                    return self.writer.is_quiet().then(|| self.end_file());
                }
                let group = self.writer.group(self.limits.group_bytes);
                group.or_else(|| if self.idle { self.writer.epilogue() } else { None })
            }
        }
    }

    fn begin_file(&mut self) -> Option<BlockWrite> {
        let file = self.spare.take()?;
        self.actions.push_back(Action::WantFile);
        self.phase = Phase::Beginning { first: self.phase == Phase::Starting };
        (self.roll, self.idle) = (false, false);
        let header = self.header();
        Some(self.writer.begin_file(file, &header.encode()))
    }

    fn end_file(&mut self) -> BlockWrite {
        self.phase = Phase::Ending;
        let file = self.writer.file().seq;
        let mut footer = Footer::default();
        // Segments whose drop is not durable yet are listed too: a power cut now brings them back whole.
        let held = self.segments.iter().map(|(segment, state)| (segment, &state.index));
        for (segment, index) in self.dropping.iter().chain(held) {
            let runs = index.runs_in(file);
            if !runs.is_empty() {
                footer.segments.entry(*segment).or_default().extend_from_slice(runs);
            }
        }
        footer.segments.values_mut().for_each(|runs| runs.sort_by_key(|run| run.offset));
        self.writer.end_file(&footer)
    }

    /// The LiveSet: files that no segment needs any more are left out, and freed once it is durable.
    fn header(&mut self) -> FileHeader {
        let mut needed: BTreeMap<u64, u64> = BTreeMap::new();
        for state in self.segments.values() {
            state.index.files().for_each(|(file, bytes)| *needed.entry(file).or_default() += bytes.max(1));
        }
        let unlink = &mut self.unlink;
        self.files.retain(|seq, file| {
            let keep = needed.contains_key(seq);
            if !keep {
                unlink.push(file.id);
            }
            keep
        });
        // Dropped, and the record that says so comes behind this header: files are left out on account of it already.
        let base = self.writer.next_base();
        self.tombstones.extend(self.dropping.keys().map(|segment| (*segment, base)));
        // A tombstone is needed while a file that is older than it may hold the segment's entries.
        let oldest = self.files.values().map(|file| file.base).min().unwrap_or(Lsn(u64::MAX));
        self.tombstones.retain(|_, lsn| oldest < *lsn);
        FileHeader {
            retained: self.files.values().cloned().collect(),
            max_epoch: if R::FENCES_SURVIVE_GC { self.max_epoch.clone() } else { BTreeMap::new() },
            limbo: self.limbo_segments().collect(),
            tombstones: self.tombstones.clone(),
        }
    }

    /// The block at `lsn` is written and fsynced. Answers that waited for it become actions.
    pub fn on_written(&mut self, lsn: Lsn) {
        if self.poisoned {
            return;
        }
        let Some(durable) = self.writer.completed(lsn) else { return };
        let Durable { seq, runs, controls, started, closed, .. } = durable;
        for (segment, run) in runs {
            // Not there: dropped while the write was on its way.
            if let Some(state) = self.segments.get_mut(&segment) {
                state.placed(run);
            }
        }
        for (item, lsn) in controls {
            self.control_durable(item.kind, item.segment, item.value, lsn);
        }
        self.durable_seq = self.durable_seq.max(seq);
        if let Some((file, offset, len)) = closed {
            self.file_closed(file, FooterAt { offset, len });
        }
        for file in started {
            self.phase = Phase::Open;
            self.actions.push_back(Action::FileStarted(file));
            self.actions.extend(self.unlink.drain(..).map(Action::Unlink));
        }
        self.acknowledge(self.durable_seq);
        self.answer_fences();
        self.retire();
    }

    fn file_closed(&mut self, id: FileId, footer: FooterAt) {
        let valid_len = footer.offset + u64::from(footer.len);
        let file = RetainedFile { id, base: self.writer.base(), valid_len, footer: Some(footer), holes: Vec::new() };
        self.files.insert(id.seq, file);
        self.phase = Phase::Between;
        for state in self.segments.values_mut() {
            state.index.footered(id.seq);
            // All of them are durable now: what comes again is compared with the file.
            if state.durable == state.accepted {
                state.crcs.clear();
            }
        }
    }

    fn control_durable(&mut self, kind: ItemKind, segment: SegmentId, value: u64, lsn: Lsn) {
        match kind {
            ItemKind::Dropped => {
                self.tombstones.insert(segment, lsn);
                self.dropping.remove(&segment);
            }
            ItemKind::LimboCleared => self.limbo_cleared(segment, value),
            // These took effect in memory when they were queued.
            ItemKind::Entry | ItemKind::Fence | ItemKind::LimboSet | ItemKind::PartitionDeleted => {}
        }
    }

    /// Memory of the index, roughly. Bounded: a run of entries for each block of files without a footer (the current
    /// one, and one for each unclean stop until it is freed), a range for each other file and segment.
    pub fn index_bytes(&self) -> usize {
        self.segments.values().map(|state| 200 + state.index.bytes()).sum()
    }

    /// Files before the current one with what still counts in them, oldest first.
    pub fn file_uses(&self) -> Vec<FileUse> {
        let mut live: BTreeMap<u64, u64> = BTreeMap::new();
        for state in self.segments.values() {
            state.index.files().for_each(|(file, bytes)| *live.entry(file).or_default() += bytes);
        }
        let used = |file: &RetainedFile| FileUse {
            id: file.id,
            len: file.valid_len,
            live: live.get(&file.id.seq).copied().unwrap_or(0),
        };
        self.files.values().map(used).collect()
    }
}
