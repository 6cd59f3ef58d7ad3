//! What becomes of one partition when its cluster is rebuilt from a backup of the metadata and the objects (2.9).
//!
//! ```text
//!  backup:  [manifest ...........][rows in objects][rows on bookies only][open ...
//!  bucket:  [manifest ...........][objects ......................]
//!  rebuilt: [manifest ...........][rows ..........................](lost ....)| goes on at a multiple of 2^40
//! ```
//! Closed segments never change, and only closed ones are in objects: a whole object of this partition is a piece of its
//! history, whether the backup knew it or not. What is in no object is declared lost, and never silently left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use esker_metadata_core::{Bump, ClosedSegment, LastClosed, LostRange, ObjectPlace, PartitionRecord, RootPlace};
use esker_types::{ObjectKey, Offset, Rules, first_id};

use crate::object::SegmentFacts;

/// A segment that an object of the bucket holds, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub facts: SegmentFacts,
    pub place: ObjectPlace,
}

/// What was found of one partition.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Of the manifest that can be read.
    pub root: Option<RootPlace>,
    /// The last segment of that manifest whose object is there.
    pub root_tail: Option<Held>,
    /// Offsets of segments that the manifest lists and whose objects are not there, in order.
    pub absent: Vec<LostRange>,
    /// Segments in objects, in any order; an ordinal may come several times.
    pub held: Vec<Held>,
    /// The topic deletes its oldest records by itself: they are too old at some time, or too many.
    pub limited: bool,
}

/// A partition as it goes on.
#[derive(Clone, Debug)]
pub struct Rebuilt {
    pub record: PartitionRecord,
    pub rows: Vec<ClosedSegment>,
    pub report: Report,
}

/// What a rebuilt partition has, and what it has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// First offset that can be read. Inclusive.
    pub log_start: Offset,
    /// Behind the last record in the bucket. Exclusive.
    pub in_bucket_to: Offset,
    /// Behind the last record that the backup knows of; more may have been written after it. Exclusive.
    pub known_to: Offset,
    /// Where a segment was being written when the backup was taken: its records were on bookies only.
    pub open_from: Option<Offset>,
    /// Records that the backup knew to be readable, before `log_start`: their objects are gone, and the topic deletes
    /// old records by itself.
    pub retired: Option<LostRange>,
    /// Records below `in_bucket_to`, or known to have been written, that no object holds.
    pub missing: Vec<LostRange>,
    /// Segments in objects that the backup did not know to be there.
    pub newer: u64,
    /// Of entries, manifest included.
    pub segments: u64,
    /// Offset of the next record.
    pub goes_on_at: Offset,
}

impl Report {
    /// Whether the backup or the bucket knows of a record, or of a segment that waited for records.
    pub fn was_written(&self) -> bool {
        self.open_from.is_some() || self.known_to > 0 || self.in_bucket_to > 0
    }
}

/// Puts a partition together. `chain` are the backup's rows, oldest first.
pub fn rebuild<R: Rules>(bump: &Bump, old: &PartitionRecord, chain: &[Arc<ClosedSegment>], found: Found) -> Rebuilt {
    let Found { root, root_tail, absent, held, limited } = found;
    let folded_to = root.as_ref().map_or(0, |root| root.folded_to);
    let (log_start, absent) = match limited {
        true => retired(old, root.as_ref(), absent),
        false => (old.log_start, absent),
    };
    let known_to = bump.known_end(old);
    let best = best_of(held, chain, folded_to);
    let mut end = root.as_ref().filter(|root| root.segments > 0).map(|root| root.end_offset);
    let (mut rows, mut missing, mut newer) = (Vec::new(), absent, 0);
    // Offsets that no life gave out, or that only a life gave out that left no backup.
    let mut skipped: Vec<LostRange> = Vec::new();
    for (n, Held { facts, place }) in best {
        let overlaps = end.is_some_and(|end| facts.base_offset < end);
        if overlaps || facts.end_offset <= log_start {
            continue;
        }
        let from = end.unwrap_or(log_start).max(log_start);
        missing.push(LostRange { from, to: facts.base_offset });
        if facts.segment.n >= first_id(bump.from.saturating_add(1)) {
            skipped.push(LostRange { from: from.max(known_to), to: Bump::life_began(facts.base_offset) });
        }
        end = Some(facts.end_offset);
        let known = chain.iter().find(|row| row.segment.n == n);
        newer += u64::from(known.is_none_or(|row| row.object.is_none()));
        rows.push(row(&facts, place, known.map_or(0, |row| row.ver)));
    }
    if rows.is_empty()
        && let Some(Held { facts, place }) = root_tail
    {
        rows.push(row(&facts, place, 0));
    }
    let last = rows.last().map(|row| LastClosed {
        n: row.segment.n,
        last: row.last,
        end_offset: row.end_offset,
        digest: row.digest,
    });
    // A hole that an earlier loss declared is none of ours.
    let holes: Vec<LostRange> = missing.into_iter().filter(|hole| hole.from < hole.to).collect();
    let mut in_bucket_to = end.unwrap_or(log_start).max(log_start);
    // The last ones of the manifest may be among those that are gone.
    for hole in holes.iter().rev() {
        if hole.to == in_bucket_to {
            in_bucket_to = hole.from.max(log_start);
        }
    }
    let base = PartitionRecord { root: root.clone(), log_start, ..old.clone() };
    let record = bump.partition::<R>(&base, in_bucket_to, last, &holes);
    skipped.retain(|range| range.from < range.to);
    let declared: Vec<LostRange> = old.lost.iter().cloned().chain(skipped).collect();
    let below = root.as_ref().map_or(0, |root| root.segments);
    let report = Report {
        log_start,
        in_bucket_to,
        known_to,
        open_from: old.open.as_ref().map(|open| open.base_offset),
        retired: (old.log_start < log_start).then_some(LostRange { from: old.log_start, to: log_start }),
        missing: undeclared(holes.into_iter().chain([LostRange { from: in_bucket_to, to: known_to }]), &declared),
        newer,
        segments: below + rows.iter().filter(|row| row.segment.n > folded_to).count() as u64,
        goes_on_at: record.next_offset,
    };
    Rebuilt { record, rows, report }
}

/// Segments that are gone from the front of a topic with limits went with retention after the backup was taken.
fn retired(old: &PartitionRecord, root: Option<&RootPlace>, absent: Vec<LostRange>) -> (Offset, Vec<LostRange>) {
    let mut log_start = old.log_start;
    let mut front = root.filter(|root| root.segments > 0).map_or(log_start, |root| root.base_offset);
    let mut rest = Vec::new();
    for range in absent {
        if range.from <= front.max(log_start) {
            front = range.to;
            log_start = log_start.max(range.to);
        } else {
            rest.push(range);
        }
    }
    (log_start, rest)
}

/// One object for each ordinal behind the manifest: the committed one, else the one that was written last. One that does
/// not hold what the backup says of the segment is of no use.
fn best_of(held: Vec<Held>, chain: &[Arc<ClosedSegment>], folded_to: u64) -> BTreeMap<u64, Held> {
    let mut best: BTreeMap<u64, Held> = BTreeMap::new();
    for one in held.into_iter().filter(|one| one.facts.segment.n > folded_to) {
        let n = one.facts.segment.n;
        let known = chain.iter().find(|row| row.segment.n == n);
        let facts = &one.facts;
        let says = |row: &Arc<ClosedSegment>| (row.base_offset, row.end_offset, row.last, row.digest);
        if known.is_some_and(|row| says(row) != (facts.base_offset, facts.end_offset, facts.last, facts.digest)) {
            continue;
        }
        let committed = known.and_then(|row| row.object.as_ref()).map(|place| place.key);
        // A shared object's epoch is that of the partition it is named after.
        let rank = |key: ObjectKey| (committed == Some(key), key.incarnation, !key.shared, key.epoch, key.attempt);
        let better = best.get(&n).is_none_or(|held| rank(held.place.key) < rank(one.place.key));
        if better {
            best.insert(n, one);
        }
    }
    best
}

fn row(facts: &SegmentFacts, place: ObjectPlace, ver: u32) -> ClosedSegment {
    ClosedSegment {
        segment: facts.segment,
        seg_epoch: facts.seg_epoch,
        quorum: facts.quorum,
        members: Vec::new(),
        holders: Vec::new(),
        base_offset: facts.base_offset,
        end_offset: facts.end_offset,
        last: facts.last,
        digest: facts.digest,
        bytes: facts.bytes,
        first_ts: facts.first_ts,
        max_ts: facts.max_ts,
        opened: facts.opened,
        closed: facts.closed,
        ver: ver.saturating_add(1),
        object: Some(place),
    }
}

/// The ranges, in order and each offset once, without what was declared lost before.
fn undeclared(ranges: impl Iterator<Item = LostRange>, declared: &[LostRange]) -> Vec<LostRange> {
    let (mut out, mut done) = (Vec::new(), Offset::MIN);
    for range in ranges {
        let mut from = range.from.max(done);
        done = done.max(range.to);
        for lost in declared.iter().filter(|lost| lost.to > range.from && lost.from < range.to) {
            if lost.from > from {
                out.push(LostRange { from, to: lost.from });
            }
            from = from.max(lost.to);
        }
        if from < range.to {
            out.push(LostRange { from, to: range.to });
        }
    }
    out
}
