use std::marker::PhantomData;
use std::sync::Arc;

use esker_metadata_core::{
    ClosedSegment, Command, DropBookieCopies, ObjectPlace, OffloadCommit, PartitionInfo, RootPlace, SetRoot,
};
use esker_types::{Epoch, Offset, Rules, WallMs};

use crate::manifest::{Edit, Grave, LeafEntry, worth_trimming};
use crate::object::SegmentFacts;

/// Graves that one [`Step::Empty`] takes at most.
pub const EMPTY_MAX: usize = 256;

/// What the topic and the cluster ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Closed segments go to the bucket.
    pub offload: bool,
    /// Segments that make a fold worth its pages.
    pub fold_segments: usize,
    /// Age of the oldest segment at which fewer are folded too, ms.
    pub fold_age_ms: i64,
    /// How long bookies keep a segment that is safe in the bucket, ms after it was closed. None: for ever.
    pub local_retention_ms: Option<i64>,
    /// Age at which records go, ms. None: never.
    pub retention_ms: Option<i64>,
    /// Bytes of a partition that are kept. None: all.
    pub retention_bytes: Option<u64>,
    /// Least time between two looks of retention into the manifest, ms.
    pub retain_every_ms: i64,
    /// How long a replaced page or retired object is kept for those who read it, ms. Longer than the longest read.
    pub grave_ms: i64,
    /// How long a written object or page may wait to be committed, ms. Well below the age at which the sweep takes it.
    pub give_up_ms: i64,
    /// Least time between two looks into the graveyard, ms.
    pub empty_every_ms: i64,
}

/// What the driver is to do. It does one at a time for a partition.
#[derive(Clone, Debug)]
pub enum Step {
    /// Read the segment from bookies and put it under a name that was never used.
    Write(SegmentFacts),
    /// Read the object back, all of it, and compare it with the segment.
    Verify { facts: SegmentFacts, place: ObjectPlace },
    /// Propose it.
    Propose(Command),
    /// Make the manifest's next version of this and put its pages, the root last.
    Fold { old: Option<RootPlace>, edit: Edit },
    /// Read an object once more before its copies go.
    VerifyAgain { facts: SegmentFacts, place: ObjectPlace },
    /// Raise the log start over segments of this root whose records are all older than `before`, ms, or that exceed
    /// `keep_bytes`.
    Retain { root: RootPlace, before: Option<i64>, keep_bytes: Option<u64> },
    /// Delete what graves of this root hold that versions up to `upto_ver` let go, of the first [`EMPTY_MAX`] of them.
    Empty { root: RootPlace, upto_ver: u64 },
}

/// How a step went. What is not told failed, or nobody knows: it is tried again.
#[derive(Clone, Debug)]
pub enum Event {
    Written {
        n: u64,
        place: ObjectPlace,
    },
    Verified {
        n: u64,
    },
    /// The object is not there, or not what it should be: it is given up, and written anew under another name.
    Bad {
        n: u64,
    },
    /// A command was refused for good.
    Rejected,
    PagesWritten(SetRoot),
    VerifiedAgain {
        n: u64,
    },
    Emptied(Vec<Grave>),
}

/// Where one partition stands, as far as metadata does not say it.
#[derive(Clone, Debug)]
pub struct Tier<R> {
    epoch: Epoch,
    /// An object that is on its way to be committed.
    written: Option<Written>,
    /// A version of the manifest whose pages are written.
    root: Option<SetRoot>,
    /// When `written` or `root` was begun.
    begun: WallMs,
    /// Versions of the manifest and when each was first seen to be current, oldest first; some are left out.
    seen: Vec<(u64, WallMs)>,
    /// Segments below this were read a second time.
    checked_below: u64,
    /// The segment whose second read was asked for last, and when.
    checking: Option<(u64, WallMs)>,
    /// Log start of the last edit.
    retired_to: Offset,
    /// Log start of an edit whose pages are being written.
    retiring_to: Offset,
    /// Graves that are empty now; the next version leaves them out.
    emptied: Vec<Grave>,
    /// Graves of versions up to this are empty.
    emptied_upto: u64,
    /// What is being emptied.
    emptying_upto: u64,
    emptied_at: Option<WallMs>,
    retained_at: Option<WallMs>,
    rules: PhantomData<R>,
}

#[derive(Clone, Debug)]
struct Written {
    n: u64,
    place: ObjectPlace,
    verified: bool,
}

impl<R: Rules> Tier<R> {
    /// For an owner at `epoch`; another epoch needs another one.
    pub fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            written: None,
            root: None,
            begun: WallMs(0),
            seen: Vec::new(),
            checked_below: 0,
            checking: None,
            retired_to: 0,
            retiring_to: 0,
            emptied: Vec::new(),
            emptied_upto: 0,
            emptying_upto: 0,
            emptied_at: None,
            retained_at: None,
            rules: PhantomData,
        }
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn on(&mut self, event: Event) {
        match event {
            Event::Written { n, place } => self.written = Some(Written { n, place, verified: false }),
            Event::Verified { n } => {
                if let Some(written) = self.written.as_mut().filter(|written| written.n == n) {
                    written.verified = true;
                }
            }
            Event::Bad { .. } => self.written = None,
            Event::Rejected => (self.written, self.root) = (None, None),
            Event::PagesWritten(root) => {
                self.root = Some(root);
                self.retired_to = self.retiring_to;
            }
            Event::VerifiedAgain { n } => self.checked_below = self.checked_below.max(n + 1),
            Event::Emptied(graves) => {
                if graves.len() < EMPTY_MAX {
                    self.emptied_upto = self.emptied_upto.max(self.emptying_upto);
                }
                // All that are due are listed again until a version leaves them out.
                self.emptied = graves;
            }
        }
    }

    /// The next step, or none for now. `info` may be old: then a command is refused, and the record decides.
    pub fn next(&mut self, wall: WallMs, info: &PartitionInfo, policy: &Policy) -> Option<Step> {
        if info.record.epoch != self.epoch {
            return None;
        }
        self.look(wall, info, policy);
        self.unfinished(wall, info, policy)
            .or_else(|| self.fold(wall, info, policy))
            .or_else(|| self.drop_copies(wall, info, policy))
            .or_else(|| self.retain(wall, info, policy))
            .or_else(|| self.empty(wall, info, policy))
            // The last: a small segment waits for others to share an object with, and nothing may wait with it.
            .or_else(|| self.write(wall, info, policy))
    }

    /// Remembers since when versions are current; a handful of them, a part of the grace apart.
    fn look(&mut self, wall: WallMs, info: &PartitionInfo, policy: &Policy) {
        let ver = info.record.root_ver();
        let apart = policy.grave_ms / 8;
        match self.seen.last() {
            Some((newest, _)) if *newest >= ver => {}
            Some((_, at)) if wall.0.saturating_sub(at.0) < apart => {}
            _ => self.seen.push((ver, wall)),
        }
        let old = self.seen.iter().filter(|(_, at)| wall.0.saturating_sub(at.0) >= policy.grave_ms).count();
        self.seen.drain(..old.saturating_sub(1));
    }

    /// Commands that may or may not have been applied: the record says it, else they are proposed again.
    fn unfinished(&mut self, wall: WallMs, info: &PartitionInfo, policy: &Policy) -> Option<Step> {
        if wall.0.saturating_sub(self.begun.0) > policy.give_up_ms {
            // The sweep may come for it before the command is applied.
            (self.written, self.root) = (None, None);
        }
        if let Some(root) = &self.root {
            if info.record.root_ver() < root.root.ver {
                if !R::DELETE_AFTER_METADATA && self.emptied_at != Some(wall) {
                    // The mutant empties the graves of a version that is none yet.
                    self.emptied_at = Some(wall);
                    return Some(Step::Empty { root: root.root.clone(), upto_ver: root.root.ver });
                }
                return Some(Step::Propose(root.clone().into()));
            }
            self.root = None;
            self.emptied.clear();
        }
        let written = self.written.as_ref()?;
        let row = info.chain.iter().find(|row| row.segment.n == written.n);
        let Some(row) = row.filter(|row| row.object.is_none()) else {
            // Ours, or another attempt's: committed either way, and ours is swept if it lost.
            self.written = None;
            return None;
        };
        let facts = SegmentFacts::from(&**row);
        if !written.verified && R::OFFLOAD_VERIFIED {
            return Some(Step::Verify { facts, place: written.place.clone() });
        }
        let commit = OffloadCommit {
            partition: info.record.id,
            epoch: self.epoch,
            n: written.n,
            digest: row.digest,
            end_offset: row.end_offset,
            place: written.place.clone(),
        };
        Some(Step::Propose(commit.into()))
    }

    fn fold(&mut self, wall: WallMs, info: &PartitionInfo, policy: &Policy) -> Option<Step> {
        let record = &info.record;
        let settled = |row: &&Arc<ClosedSegment>| row.object.is_some() || row.end_offset <= record.log_start;
        let rows: Vec<&Arc<ClosedSegment>> =
            info.chain.iter().filter(|row| row.segment.n > record.folded_to()).take_while(settled).collect();
        let old_enough = rows.first().is_some_and(|row| wall.0.saturating_sub(row.closed.0) >= policy.fold_age_ms);
        // Those without an object are forgotten by the deletion of records.
        let any = rows.iter().any(|row| row.object.is_some());
        let fold_due = any && (rows.len() >= policy.fold_segments || old_enough);
        if !fold_due && !self.retire_due(info) && !self.tidy_due(wall, policy) {
            return None;
        }
        let mut edit = Edit {
            append: Vec::new(),
            folded_to: record.folded_to(),
            retired: Vec::new(),
            log_start: record.log_start,
            emptied: self.emptied.clone(),
            now: wall,
        };
        for row in rows.iter().take(if fold_due { usize::MAX } else { 0 }) {
            edit.folded_to = row.segment.n;
            match &row.object {
                Some(place) if row.end_offset > record.log_start => {
                    edit.append.push(LeafEntry::new(&SegmentFacts::from(&***row), place.clone()))
                }
                Some(place) => edit.retired.push(place.key),
                None => {}
            }
        }
        self.retiring_to = record.log_start;
        self.begun = wall;
        Some(Step::Fold { old: record.root.clone(), edit })
    }

    /// Enough of the manifest lies below the log start to write its first pages anew.
    fn retire_due(&self, info: &PartitionInfo) -> bool {
        let (record, Some(root)) = (&info.record, &info.record.root) else { return false };
        if record.log_start <= self.retired_to.max(root.base_offset) || root.segments == 0 {
            return false;
        }
        let dead = i128::from(record.log_start - root.base_offset);
        let all = i128::from((root.end_offset - root.base_offset).max(1));
        let segments = usize::try_from(root.segments).unwrap_or(usize::MAX);
        let dead = usize::try_from(dead * segments as i128 / all).unwrap_or(usize::MAX);
        record.log_start >= root.end_offset || worth_trimming(dead, segments)
    }

    /// Empty graves take the room of others, and no fold came to leave them out. Not for one alone: the version without
    /// it would bury the one before.
    fn tidy_due(&self, wall: WallMs, policy: &Policy) -> bool {
        let since = self.emptied_at.map_or(0, |at| wall.0.saturating_sub(at.0));
        self.emptied.len() > 1 && since >= policy.fold_age_ms
    }

    /// The newest closed segment stays: recovery falls back to it while the open one is empty.
    fn drop_copies(&mut self, wall: WallMs, info: &PartitionInfo, policy: &Policy) -> Option<Step> {
        let (record, keep_ms) = (&info.record, policy.local_retention_ms?);
        let last = record.last.as_ref()?.n;
        let mut upto_n = record.copies_from;
        for row in info.chain.iter().filter(|row| row.segment.n >= record.copies_from && row.segment.n < last) {
            let dead = row.end_offset <= record.log_start;
            let Some(place) = row.object.as_ref().filter(|_| !dead) else {
                if dead {
                    continue;
                }
                break;
            };
            if wall.0.saturating_sub(row.closed.0) < keep_ms {
                break;
            }
            if row.segment.n >= self.checked_below && R::DROP_AFTER_SECOND_READ {
                // A damaged object keeps its copies on bookies. It must not keep later segments from the bucket.
                let asked = self.checking.filter(|(n, _)| *n == row.segment.n);
                if asked.is_some_and(|(_, at)| wall.0.saturating_sub(at.0) < policy.retain_every_ms) {
                    break;
                }
                self.checking = Some((row.segment.n, wall));
                return Some(Step::VerifyAgain { facts: SegmentFacts::from(&**row), place: place.clone() });
            }
            upto_n = row.segment.n + 1;
        }
        let command = DropBookieCopies { partition: record.id, epoch: self.epoch, upto_n };
        (upto_n > record.copies_from).then(|| Step::Propose(command.into()))
    }

    /// What is in the manifest; the owner looks after the segments that metadata still lists.
    fn retain(&mut self, wall: WallMs, info: &PartitionInfo, policy: &Policy) -> Option<Step> {
        let root = info.record.root.as_ref().filter(|root| root.segments > 0)?;
        let bounded = policy.retention_ms.is_some() || policy.retention_bytes.is_some();
        let waits = self.retained_at.is_some_and(|at| wall.0.saturating_sub(at.0) < policy.retain_every_ms);
        if !bounded || waits {
            return None;
        }
        self.retained_at = Some(wall);
        let before = policy.retention_ms.map(|ms| wall.0.saturating_sub(ms));
        Some(Step::Retain { root: root.clone(), before, keep_bytes: policy.retention_bytes })
    }

    fn write(&mut self, wall: WallMs, info: &PartitionInfo, policy: &Policy) -> Option<Step> {
        let log_start = info.record.log_start;
        let wanted = |row: &&Arc<ClosedSegment>| row.object.is_none() && row.end_offset > log_start;
        let row = info.chain.iter().find(wanted).filter(|_| policy.offload)?;
        self.begun = wall;
        Some(Step::Write(SegmentFacts::from(&**row)))
    }

    fn empty(&mut self, wall: WallMs, info: &PartitionInfo, policy: &Policy) -> Option<Step> {
        let root = info.record.root.as_ref()?;
        let held = info.record.pins.iter().any(|pin| pin.expires > wall);
        let waits = self.emptied_at.is_some_and(|at| wall.0.saturating_sub(at.0) < policy.empty_every_ms);
        if held || waits || self.emptied.len() > 1 {
            return None;
        }
        let grace = if R::DELETE_AFTER_GRACE { policy.grave_ms } else { 0 };
        let quiet = |at: &WallMs| wall.0.saturating_sub(at.0) >= grace;
        let upto_ver = self.seen.iter().filter(|(_, at)| quiet(at)).map(|(ver, _)| *ver).max()?;
        if upto_ver <= self.emptied_upto {
            return None;
        }
        (self.emptied_at, self.emptying_upto) = (Some(wall), upto_ver);
        Some(Step::Empty { root: root.clone(), upto_ver })
    }
}
