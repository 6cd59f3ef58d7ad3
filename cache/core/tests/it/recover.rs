//! What a partition becomes after all but the bucket is lost.

use std::sync::Arc;

use esker_cache_core::object::SegmentFacts;
use esker_cache_core::recover::{Found, Held, Rebuilt, rebuild};
use esker_metadata_core::*;
use esker_types::*;

use crate::samples::{closed_row, object_key};

const BUMP: Bump = Bump { from: 0, incarnation: 1 };
const JUMP: Offset = 1 << 40;

/// Segment `n` holds offsets [10 n - 10, 10 n).
fn facts(n: u64) -> SegmentFacts {
    SegmentFacts {
        segment: SegmentId::new(7, n),
        seg_epoch: Epoch(2),
        quorum: Quorum { write: 1, ack: 1 },
        base_offset: n as i64 * 10 - 10,
        end_offset: n as i64 * 10,
        last: 4,
        digest: n * 1_000,
        bytes: 900,
        first_ts: 1,
        max_ts: 2,
        opened: WallMs(1),
        closed: WallMs(2),
    }
}

fn place(n: u64, attempt: u64) -> ObjectPlace {
    let key = ObjectKey { attempt, ..object_key(n) };
    ObjectPlace { key, position: 60, len: 90, footer_position: 150, footer_len: 30, footer_crc: 1, size: 400 }
}

fn held(n: u64) -> Held {
    Held { facts: facts(n), place: place(n, 1) }
}

fn row(n: u64, object: Option<ObjectPlace>) -> Arc<ClosedSegment> {
    Arc::new(closed_row(&facts(n), object))
}

/// A partition whose newest closed segment is `n`, with another one open behind it.
fn record(n: u64) -> PartitionRecord {
    let mut record = PartitionRecord::born(PartitionId(7), TopicId([1; 16]), 0, 0);
    let SegmentFacts { last, end_offset, digest, quorum, .. } = facts(n);
    record.last = Some(LastClosed { n, last, end_offset, digest });
    (record.epoch, record.next_n, record.next_offset) = (Epoch(4), n + 2, end_offset);
    record.open = Some(OpenSegment {
        n: n + 1,
        seg_epoch: Epoch(4),
        session: SessionId(1),
        quorum,
        members: Vec::new(),
        base_offset: end_offset,
        opened: WallMs(3),
    });
    record
}

fn root(folded_to: u64) -> RootPlace {
    let key = PageKey { incarnation: 0, partition: PartitionId(7), epoch: Epoch(3), seq: 1 };
    let (segments, end_offset) = (folded_to, folded_to as i64 * 10);
    RootPlace { key, ver: 3, len: 9, crc: 1, folded_to, segments, bytes: 9, base_offset: 0, end_offset }
}

fn ranges(of: &[LostRange]) -> Vec<(Offset, Offset)> {
    of.iter().map(|range| (range.from, range.to)).collect()
}

/// What must hold of every rebuilt partition.
fn check(old: &PartitionRecord, rebuilt: &Rebuilt) {
    let Rebuilt { record, rows, report } = rebuilt;
    assert!(record.epoch > old.epoch && record.next_n > old.next_n && record.next_n > (1 << 48));
    assert!(record.open.is_none() && record.next_offset >= JUMP && record.next_offset > BUMP.known_end(old));
    assert!(record.lost.last().is_some_and(|lost| lost.to == record.next_offset && lost.from == report.in_bucket_to));
    assert_eq!(record.last.as_ref().map(|last| last.n), rows.last().map(|row| row.segment.n), "the tail has its row");
    assert!(rows.windows(2).all(|w| w[0].segment.n < w[1].segment.n && w[0].end_offset <= w[1].base_offset));
    assert!(rows.iter().all(|row| row.object.is_some() && row.holders.is_empty()));
}

#[test]
fn what_is_in_objects_comes_back_known_to_the_backup_or_not() {
    let old = record(4);
    let chain = [row(3, Some(place(3, 1))), row(4, None)];
    // 4 was put into the bucket after the backup, and 5, which was open then, too.
    let found = Found { root: Some(root(2)), held: vec![held(5), held(3), held(4)], ..Found::default() };
    let rebuilt = rebuild::<AllRules>(&BUMP, &old, &chain, found);
    check(&old, &rebuilt);
    let report = &rebuilt.report;
    assert_eq!((report.in_bucket_to, report.known_to, report.newer, report.segments), (50, 40, 2, 5));
    assert!(report.missing.is_empty() && report.open_from == Some(40));
    assert_eq!(rebuilt.record.copies_from, 5);
    assert_eq!(ranges(&rebuilt.record.lost), [(50, JUMP)]);
}

#[test]
fn what_is_not_there_is_named_to_the_record() {
    let old = record(5);
    let chain = [row(3, Some(place(3, 1))), row(4, None), row(5, None)];
    let found = Found { root: Some(root(2)), held: vec![held(3)], ..Found::default() };
    let rebuilt = rebuild::<AllRules>(&BUMP, &old, &chain, found);
    check(&old, &rebuilt);
    assert_eq!((rebuilt.report.in_bucket_to, ranges(&rebuilt.report.missing)), (30, vec![(30, 50)]));
    // A hole in the middle is a hole, and what lies behind it comes back.
    let found = Found { root: Some(root(2)), held: vec![held(3), held(5)], ..Found::default() };
    let rebuilt = rebuild::<AllRules>(&BUMP, &old, &chain, found);
    check(&old, &rebuilt);
    assert_eq!(ranges(&rebuilt.record.lost), [(30, 40), (50, JUMP)]);
    assert_eq!(ranges(&rebuilt.report.missing), [(30, 40)]);
}

#[test]
fn the_last_folded_segment_keeps_its_row_when_nothing_follows() {
    let old = record(2);
    let found = Found { root: Some(root(2)), root_tail: Some(held(2)), ..Found::default() };
    let rebuilt = rebuild::<AllRules>(&BUMP, &old, &[], found);
    check(&old, &rebuilt);
    assert_eq!((rebuilt.rows.len(), rebuilt.report.segments, rebuilt.record.copies_from), (1, 2, 2));
}

#[test]
fn an_empty_bucket_leaves_a_partition_that_begins_behind_what_is_lost() {
    let old = record(3);
    let rebuilt = rebuild::<AllRules>(&BUMP, &old, &[row(1, None), row(2, None), row(3, None)], Found::default());
    check(&old, &rebuilt);
    assert_eq!((rebuilt.rows.len(), ranges(&rebuilt.report.missing)), (0, vec![(0, 30)]));
    assert_eq!((rebuilt.record.last.clone(), rebuilt.record.log_start), (None, 0));
}

#[test]
fn of_several_objects_the_one_that_holds_the_segment_counts() {
    let old = record(3);
    let chain = [row(1, Some(place(1, 2))), row(2, None), row(3, None)];
    let other = SegmentFacts { digest: 5, ..facts(2) };
    let all = vec![
        Held { facts: facts(1), place: place(1, 9) },
        Held { facts: facts(1), place: place(1, 2) },
        Held { facts: other, place: place(2, 7) },
        Held { facts: facts(2), place: place(2, 3) },
        Held { facts: facts(3), place: place(3, 1) },
        Held { facts: facts(3), place: place(3, 4) },
    ];
    let rebuilt = rebuild::<AllRules>(&BUMP, &old, &chain, Found { held: all, ..Found::default() });
    check(&old, &rebuilt);
    let attempts: Vec<u64> = rebuilt.rows.iter().filter_map(|row| row.object.as_ref()).map(|o| o.key.attempt).collect();
    assert_eq!(attempts, [2, 3, 4], "the committed one, the one with the right digest, the newest");
}

#[test]
fn objects_gone_from_the_front_went_with_retention_and_others_are_holes() {
    let old = record(4);
    let lost = |from, to| LostRange { from, to };
    let found = Found {
        root: Some(root(4)),
        root_tail: Some(held(3)),
        absent: vec![lost(0, 10), lost(10, 20), lost(30, 40)],
        limited: true,
        ..Found::default()
    };
    let rebuilt = rebuild::<AllRules>(&BUMP, &old, &[], found.clone());
    check(&old, &rebuilt);
    assert_eq!((rebuilt.record.log_start, rebuilt.report.log_start), (20, 20));
    assert_eq!(rebuilt.report.retired, Some(lost(0, 20)), "it is said that they were there");
    assert_eq!((rebuilt.report.in_bucket_to, ranges(&rebuilt.report.missing)), (30, vec![(30, 40)]));
    // A topic that keeps everything has lost them.
    let rebuilt = rebuild::<AllRules>(&BUMP, &old, &[], Found { limited: false, ..found });
    check(&old, &rebuilt);
    assert_eq!((rebuilt.record.log_start, rebuilt.report.retired), (0, None));
    assert_eq!(ranges(&rebuilt.report.missing), [(0, 10), (10, 20), (30, 40)]);
    assert_eq!(ranges(&rebuilt.record.lost), [(0, 20), (30, JUMP)]);
}

#[test]
fn a_life_without_a_backup_keeps_its_records_and_its_offsets() {
    // Life 1 wrote two segments, and the first of them is in no object; only life 0 left a backup.
    let (old, second) = (record(3), Bump { from: 0, incarnation: 2 });
    let (n, base_offset) = (first_id(1) + 1, JUMP + 10);
    let segment = SegmentId::new(7, n);
    let one =
        Held { facts: SegmentFacts { segment, base_offset, end_offset: JUMP + 20, ..facts(1) }, place: place(n, 1) };
    let chain = [row(1, None), row(2, None), row(3, None)];
    let mut all: Vec<Held> = (1..=3).map(held).collect();
    let nothing = rebuild::<AllRules>(&second, &old, &chain, Found { held: all.clone(), ..Found::default() });
    assert_eq!(nothing.record.next_offset, 2 * JUMP, "life 1 may have given out everything from 2^40 on");
    all.push(one);
    let rebuilt = rebuild::<AllRules>(&second, &old, &chain, Found { held: all, ..Found::default() });
    assert_eq!(rebuilt.rows.last().map(|row| row.segment), Some(segment));
    assert_eq!((rebuilt.report.in_bucket_to, rebuilt.report.newer), (JUMP + 20, 4));
    assert_eq!(ranges(&rebuilt.report.missing), [(JUMP, JUMP + 10)], "what was jumped over was never written");
    assert_eq!(ranges(&rebuilt.record.lost), [(30, JUMP + 10), (JUMP + 20, rebuilt.record.next_offset)]);
    assert_eq!((rebuilt.record.next_offset, rebuilt.record.next_n), (2 * JUMP, first_id(2)));
    // Life 3 must not begin there too, should it find nothing of life 1 and no backup of life 2.
    let third = rebuild::<AllRules>(&Bump { from: 0, incarnation: 3 }, &old, &chain, Found::default());
    assert_eq!(third.record.next_offset, 3 * JUMP);
}

#[test]
fn a_second_loss_does_not_count_the_first_one_again() {
    let old = record(3);
    let found = Found { held: (1..=3).map(held).collect(), ..Found::default() };
    let first = rebuild::<AllRules>(&BUMP, &old, &[row(1, None), row(2, None), row(3, None)], found.clone());
    // Nothing was written in the second life.
    let chain: Vec<Arc<ClosedSegment>> = first.rows.iter().cloned().map(Arc::new).collect();
    let second = rebuild::<AllRules>(&Bump { from: 1, incarnation: 2 }, &first.record, &chain, found);
    assert_eq!((second.report.missing.len(), second.report.in_bucket_to), (0, 30));
    assert_eq!(ranges(&second.record.lost), [(30, 2 * JUMP)]);
    assert!(second.record.epoch > first.record.epoch && second.record.next_n > first.record.next_n);
}
