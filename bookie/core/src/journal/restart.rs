//! What a bookie holds after a restart (R9), decided from the journal's bytes and the evidence around them.
//!
//! V = end of the contiguous prefix of blocks that verify. E = the highest position that anything proves to have been
//! durable once. `V >= E`: what lies behind V was never acknowledged: cut, no limbo, else one power cut would put the
//! whole cluster into limbo. `V < E`: something that was acknowledged is gone: entries that a head names are damaged;
//! a range that no head describes puts every segment into limbo. Behind E the first fault ends the journal.

use std::collections::{BTreeMap, BTreeSet};

use esker_types::{EntryId, Epoch, PartitionId, Rules, SegmentId};

use super::block::{BlockKind, Item, ItemKind};
use super::files::{FileHeader, Hole, RetainedFile, Run};
use super::scan::{BlockFound, FileScan, Piece, ScanLimits, footer_block, read_header, scan_file};
use super::storage::ReadAt;
use super::superblock::Superblock;
use super::{FileId, JournalIds, Lsn, align_up};

/// What is known about the journal from outside its files.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// `durable_lsn` of this instance in metadata; 0 if none was reported.
    pub metadata_lsn: Lsn,
    pub superblock: Option<Superblock>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No journal, and nothing says that there was one.
    Fresh,
    /// Every byte written verifies.
    Clean,
    /// Writes that were never acknowledged were cut off.
    Torn,
    /// Acknowledged data is gone. `unknown`: not even which, so every segment is in limbo.
    Loss { damaged: Vec<(SegmentId, EntryId)>, unknown: bool },
}

/// Everything that a bookie starts from. Pass it to `BookieState::boot`.
#[derive(Clone, Debug)]
pub struct Restored {
    pub verdict: Verdict,
    /// Files that count, oldest first.
    pub files: Vec<RetainedFile>,
    /// Files in the directory that do not count: free to recycle or unlink once a new file has started.
    pub stray: Vec<FileId>,
    pub max_epoch: BTreeMap<PartitionId, Epoch>,
    pub limbo: BTreeSet<SegmentId>,
    pub tombstones: BTreeMap<SegmentId, Lsn>,
    /// Entries that verify, or that a footer lists, in journal order.
    pub runs: BTreeMap<SegmentId, Vec<Run>>,
    /// Entries known to be lost, not held anywhere else in the journal.
    pub damaged: BTreeSet<(SegmentId, EntryId)>,
    /// Seqs of the files whose runs come from a footer.
    pub footered: BTreeSet<u64>,
    pub next_file_seq: u64,
    /// Base of the next file: not below anything ever reported as durable.
    pub next_lsn: Lsn,
}

impl Restored {
    /// True if `BootFacts::named` must list *all* segments that metadata places on this instance, open and closed:
    /// the journal can't tell what it lost.
    pub fn needs_names(&self) -> bool {
        matches!(self.verdict, Verdict::Loss { unknown: true, .. })
    }
}

/// Call [`super::scan::newer_format`] first. Reads the journal of `ids` as it lies on the disk. Never writes: the next file starts with what this found.
pub fn restart<R: Rules, S: ReadAt>(ids: JournalIds, storage: &S, evidence: &Evidence) -> Restored {
    let mut present: Vec<(FileId, u64)> = storage.files();
    present.sort();
    let mut outside = evidence.metadata_lsn;
    let mut poisoned = false;
    if let Some(superblock) = &evidence.superblock {
        outside = outside.max(superblock.durable);
        poisoned = superblock.poisoned;
    }
    let newest = present.iter().rev().find_map(|(id, len)| Some((*id, read_header(storage, ids, *id, *len)?)));
    let mut load = Load::new(present.last().map_or(1, |(id, _)| id.seq.saturating_add(1)));
    let Some((live_set, (base, header))) = newest else {
        let scans: Vec<FileScan> =
            present.iter().map(|(id, len)| scan_file(storage, ids, *id, *len, &ScanLimits::default())).collect();
        let any_block = scans.iter().any(|scan| scan.base.is_some());
        load.unknown = any_block || outside > Lsn(0) || poisoned;
        load.tail::<R>(&scans, Lsn(0), outside);
        let verdict = if load.unknown { None } else { Some(Verdict::Fresh) };
        return load.finish::<R>(&present, outside, verdict);
    };
    load.unknown = poisoned;
    load.closed_files(storage, ids, &header, &present);
    load.state(header);
    let tail: Vec<FileScan> = present
        .iter()
        .filter(|(id, _)| *id >= live_set)
        .map(|(id, len)| scan_file(storage, ids, *id, *len, &ScanLimits::default()))
        .collect();
    load.tail::<R>(&tail, base, outside);
    load.finish::<R>(&present, outside, None)
}

struct Load {
    files: Vec<RetainedFile>,
    footered: BTreeSet<u64>,
    max_epoch: BTreeMap<PartitionId, Epoch>,
    limbo: BTreeSet<SegmentId>,
    tombstones: BTreeMap<SegmentId, Lsn>,
    /// With the lsn of the block, to hold against tombstones.
    runs: BTreeMap<SegmentId, Vec<(Lsn, Run)>>,
    damaged: Vec<(SegmentId, EntryId, Lsn)>,
    unknown: bool,
    torn: bool,
    next_seq: u64,
    end: Lsn,
}

impl Load {
    fn new(next_seq: u64) -> Self {
        Self {
            files: Vec::new(),
            footered: BTreeSet::new(),
            max_epoch: BTreeMap::new(),
            limbo: BTreeSet::new(),
            tombstones: BTreeMap::new(),
            runs: BTreeMap::new(),
            damaged: Vec::new(),
            unknown: false,
            torn: false,
            next_seq,
            end: Lsn(0),
        }
    }

    fn state(&mut self, header: FileHeader) {
        self.max_epoch = header.max_epoch;
        self.limbo = header.limbo.into_iter().collect();
        self.tombstones = header.tombstones;
    }

    /// Files before the newest header: all of `valid_len` was durable, so any fault in it is a loss.
    fn closed_files<S: ReadAt>(
        &mut self,
        storage: &S,
        ids: JournalIds,
        header: &FileHeader,
        present: &[(FileId, u64)],
    ) {
        for file in &header.retained {
            let Some((_, file_len)) = present.iter().find(|(id, _)| *id == file.id) else {
                self.unknown = true; // listed, and not in the directory
                continue;
            };
            let footer = file.footer.and_then(|at| footer_block(storage, ids, file.id, at));
            let mut retained = file.clone();
            if let Some(footer) = footer {
                for (segment, runs) in footer.segments {
                    let placed = runs.into_iter().map(|run| (Lsn(file.base.0 + run.offset), run));
                    self.runs.entry(segment).or_default().extend(placed);
                }
                self.footered.insert(file.id.seq);
            } else {
                retained.footer = None;
                retained.valid_len = file.footer.map_or(file.valid_len, |at| at.offset);
                let limits = ScanLimits { valid_len: Some(retained.valid_len), holes: file.holes.clone() };
                let scan = scan_file(storage, ids, file.id, *file_len, &limits);
                for piece in &scan.pieces {
                    self.piece(piece, &mut retained.holes, false);
                }
            }
            self.files.push(retained);
        }
    }

    /// The newest file with a header and whatever follows it: here the journal may be torn.
    fn tail<R: Rules>(&mut self, scans: &[FileScan], base: Lsn, outside: Lsn) {
        let evidence = scans
            .iter()
            .flat_map(|scan| &scan.pieces)
            .filter_map(|piece| match piece {
                Piece::Block(block) => Some(block.durable_upto),
                Piece::Hole(_) | Piece::KnownHole(_) => None,
            })
            .fold(outside, Lsn::max);
        let evidence = if R::CORRUPT_IS_LIMBO { evidence } else { Lsn(0) };
        self.end = base;
        for scan in scans {
            // Without one block that verifies there is nothing to take; whether there should be is asked at the end.
            let Some(base) = scan.base else { continue };
            let file = self.tail_file(scan, base, evidence);
            if file.valid_len > 0 {
                self.end = Lsn(base.0 + file.valid_len);
                self.files.push(file);
            }
        }
        // Something was durable that no file holds any more.
        self.unknown |= self.end < evidence;
        self.end = self.end.max(evidence);
    }

    /// Takes pieces up to the first fault that nothing proves to have been durable.
    fn tail_file(&mut self, scan: &FileScan, base: Lsn, evidence: Lsn) -> RetainedFile {
        let mut file = RetainedFile { id: scan.id, base, valid_len: 0, footer: None, holes: Vec::new() };
        for piece in &scan.pieces {
            let range = piece.range();
            let sound = matches!(piece, Piece::Block(block) if block.whole && block.linked);
            if !sound && Lsn(base.0 + range.from) >= evidence {
                break;
            }
            self.piece(piece, &mut file.holes, true);
            file.valid_len = range.to;
        }
        // Of a hole at the very end only the part below the evidence is a loss: no more is known to have been there.
        if let Some(hole) = file.holes.last_mut().filter(|hole| hole.to == file.valid_len) {
            hole.to = hole.to.min(align_up(evidence.0 - base.0));
            file.valid_len = hole.to;
        }
        let cut = |piece: &Piece| matches!(piece, Piece::Block(block) if block.offset >= file.valid_len);
        self.torn |= scan.pieces.iter().any(cut);
        file.footer = scan.footer.filter(|footer| footer.offset + u64::from(footer.len) == file.valid_len);
        file
    }

    fn piece(&mut self, piece: &Piece, holes: &mut Vec<Hole>, with_controls: bool) {
        match piece {
            Piece::Block(block) => {
                if block.kind == BlockKind::Header && !block.whole && with_controls {
                    self.unknown = true; // a LiveSet is lost
                }
                if !block.linked {
                    self.unknown = true; // something else once stood before this block
                }
                self.block(block, with_controls);
            }
            Piece::Hole(hole) => {
                self.unknown = true;
                holes.push(*hole);
            }
            Piece::KnownHole(_) => {}
        }
    }

    fn block(&mut self, block: &BlockFound, with_controls: bool) {
        for (segment, run) in &block.runs {
            self.runs.entry(*segment).or_default().push((block.lsn, *run));
        }
        self.damaged.extend(block.damaged.iter().map(|(segment, entry)| (*segment, *entry, block.lsn)));
        // Older files' control records are folded into the newest header already.
        if with_controls {
            block.controls.iter().for_each(|item| self.control(item, block.lsn));
        }
    }

    fn control(&mut self, item: &Item, lsn: Lsn) {
        let partition = item.segment.partition;
        match item.kind {
            ItemKind::Entry => {}
            ItemKind::Fence => {
                let epoch = Epoch(u32::try_from(item.value).unwrap_or(u32::MAX));
                let held = self.max_epoch.entry(partition).or_default();
                *held = epoch.max(*held);
            }
            ItemKind::LimboSet => drop(self.limbo.insert(item.segment)),
            ItemKind::LimboCleared => drop(self.limbo.remove(&item.segment)),
            ItemKind::Dropped => {
                self.tombstones.insert(item.segment, lsn);
                self.limbo.remove(&item.segment);
            }
            ItemKind::PartitionDeleted => drop(self.max_epoch.remove(&partition)),
        }
    }

    fn finish<R: Rules>(mut self, present: &[(FileId, u64)], outside: Lsn, verdict: Option<Verdict>) -> Restored {
        let tombstones = &self.tombstones;
        let counts = |segment: &SegmentId, lsn: Lsn| tombstones.get(segment).is_none_or(|dropped| lsn >= *dropped);
        let mut runs: BTreeMap<SegmentId, Vec<Run>> = BTreeMap::new();
        for (segment, placed) in &self.runs {
            let kept: Vec<Run> = placed.iter().filter(|(lsn, _)| counts(segment, *lsn)).map(|(_, run)| *run).collect();
            if !kept.is_empty() {
                runs.insert(*segment, kept);
            }
        }
        let held = |segment: &SegmentId, entry: EntryId| {
            runs.get(segment).is_some_and(|runs| runs.iter().any(|run| run.contains(entry)))
        };
        let damaged: BTreeSet<(SegmentId, EntryId)> = self
            .damaged
            .iter()
            .filter(|(segment, entry, lsn)| counts(segment, *lsn) && !held(segment, *entry))
            .map(|(segment, entry, _)| (*segment, *entry))
            .collect();
        // A copy with a damaged entry must not count for anything: its fence answers say limbo.
        self.limbo.extend(damaged.iter().map(|(segment, _)| *segment));
        let unknown = self.unknown && R::CORRUPT_IS_LIMBO || self.torn && !R::TORN_IS_CUT;
        let verdict = verdict.unwrap_or_else(|| match (unknown || !damaged.is_empty(), self.torn) {
            (true, _) => Verdict::Loss { damaged: damaged.iter().copied().collect(), unknown },
            (false, true) => Verdict::Torn,
            (false, false) => Verdict::Clean,
        });
        let live: BTreeSet<FileId> = self.files.iter().map(|file| file.id).collect();
        Restored {
            verdict,
            stray: present.iter().map(|(id, _)| *id).filter(|id| !live.contains(id)).collect(),
            files: self.files,
            max_epoch: self.max_epoch,
            limbo: self.limbo,
            tombstones: self.tombstones,
            runs,
            damaged,
            footered: self.footered,
            next_file_seq: self.next_seq,
            next_lsn: Lsn(align_up(self.end.max(outside).0)),
        }
    }
}

#[cfg(test)]
#[path = "restart_tests.rs"]
mod tests;
