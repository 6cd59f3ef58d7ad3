//! An object with segments of two partitions stays as long as anybody reaches one of them.

use std::sync::Arc;

use esker_cache_core::manifest::*;
use esker_cache_core::object::{Directory, Part, SegmentFacts};
use esker_cache_core::steps::{Candidate, Verdict, doomed, verdict};
use esker_metadata_core::*;
use esker_types::*;

use crate::samples::*;

/// The partition that the object is named after, and the other one in it.
const FIRST: PartitionId = PartitionId(3);
const OTHER: PartitionId = PartitionId(7);
/// Of the first partition there is segment 40 in it, of the other one segment 5.
const KEY: ObjectKey = ObjectKey { incarnation: 0, partition: FIRST, n: 40, epoch: Epoch(3), attempt: 1, shared: true };

fn directory() -> Directory {
    let part = |segment| Part { segment, position: 60, len: 9, footer_position: 90, footer_len: 9, footer_crc: 1 };
    let segments = [SegmentId { partition: FIRST, n: 40 }, SegmentId { partition: OTHER, n: 5 }];
    Directory { parts: segments.map(part).to_vec() }
}

fn row(partition: PartitionId, n: u64, key: Option<ObjectKey>) -> Change {
    let (facts, _) = segment(n, 0, &[noise(10, 1)]);
    let facts = SegmentFacts { segment: SegmentId { partition, n }, ..facts };
    let place = key.map(|key| ObjectPlace { key, ..leaf_entry(n).place });
    Change::Segment(Arc::new(closed_row(&facts, place)))
}

fn state(other_root: Option<RootPlace>, rows: Vec<Change>) -> State {
    let partition = |id, root| {
        let record = PartitionRecord { root, ..PartitionRecord::born(id, TopicId([1; 16]), 0, 0) };
        Change::Partition(Arc::new(record))
    };
    State::from_rows(1, WallMs(1_000), [partition(FIRST, None), partition(OTHER, other_root)].into_iter().chain(rows))
}

/// Without the directory, and with it.
fn judge<R: Rules>(state: &State, bucket: &Bucket) -> [Verdict; 2] {
    let pages = |of: &PageRef| bucket.get(of);
    let found = Candidate::Object(KEY);
    [None, Some(&directory())].map(|directory| verdict::<R>(&found, state, directory, &pages).expect("all at hand"))
}

const KEPT: [Verdict; 2] = [Verdict::Keep; 2];
/// It takes the directory to see that the other segment is reached.
const KEPT_FOR_THE_OTHER: [Verdict; 2] = [Verdict::NeedsDirectory, Verdict::Keep];
const DELETED: [Verdict; 2] = [Verdict::NeedsDirectory, Verdict::Delete];

#[test]
fn any_segment_that_is_reached_keeps_the_object() {
    let bucket = Bucket::new();
    let both = vec![row(FIRST, 40, Some(KEY)), row(OTHER, 5, Some(KEY))];
    assert_eq!(judge::<AllRules>(&state(None, both.clone()), &bucket), KEPT, "the name is enough");
    assert_eq!(judge::<AllRules>(&state(None, both[1..].to_vec()), &bucket), KEPT_FOR_THE_OTHER);
    assert_eq!(judge::<AllRules>(&state(None, vec![]), &bucket), DELETED);
    // Each lies in another object by now, or in none.
    let again = ObjectKey { attempt: 2, ..KEY };
    let elsewhere = vec![row(FIRST, 40, Some(again)), row(OTHER, 5, None)];
    assert_eq!(judge::<AllRules>(&state(None, elsewhere), &bucket), DELETED);
}

#[test]
fn a_manifest_keeps_it_and_so_does_a_grave_until_it_is_empty() {
    let mut bucket = Bucket::new();
    let entry = |n| LeafEntry { place: ObjectPlace { key: KEY, ..leaf_entry(n).place }, ..leaf_entry(n) };
    let append = vec![leaf_entry(4), entry(5), leaf_entry(6), leaf_entry(7)];
    bucket.edit(&Edit { append, folded_to: 7, ..Edit::default() });
    assert_eq!(judge::<AllRules>(&state(bucket.root.clone(), vec![]), &bucket), KEPT_FOR_THE_OTHER, "folded");
    bucket.edit(&Edit { log_start: 60, folded_to: 7, ..Edit::default() });
    assert_eq!(judge::<AllRules>(&state(bucket.root.clone(), vec![]), &bucket), KEPT_FOR_THE_OTHER, "let go");
    let Page::Root(root) = &*bucket.root() else { panic!("no root") };
    let marks = root.graveyard.iter().filter(|grave| matches!(&grave.what, Buried::Object(of) if of.key == KEY));
    assert_eq!(marks.count(), 1);
    bucket.edit(&Edit { emptied: root.graveyard.clone(), folded_to: 7, log_start: 60, ..Edit::default() });
    assert_eq!(judge::<AllRules>(&state(bucket.root.clone(), vec![]), &bucket), DELETED, "its readers are gone");
}

#[test]
fn a_buried_tree_keeps_what_its_own_partition_has_in_it() {
    let mut bucket = Bucket::new();
    let entry = |n| LeafEntry { place: ObjectPlace { key: KEY, ..leaf_entry(n).place }, ..leaf_entry(n) };
    bucket.edit(&Edit { append: (1..=6).map(entry).collect(), folded_to: 6, ..Edit::default() });
    bucket.edit(&Edit { log_start: 70, folded_to: 6, ..Edit::default() });
    let Page::Root(root) = &*bucket.root() else { panic!("no root") };
    assert!(root.graveyard.iter().any(|grave| matches!(&grave.what, Buried::Tree(tree) if tree.page.last_n == 6)));
    // Segment 5 of this partition is within it; 40, which the name says, is another partition's number.
    assert_eq!(judge::<AllRules>(&state(bucket.root.clone(), vec![]), &bucket), KEPT_FOR_THE_OTHER);
}

#[test]
fn deleted_topics_let_go_and_unknown_partitions_do_not() {
    let bucket = Bucket::new();
    let gone = |id| Change::Deleted(Arc::new(DeletedPartition { id, topic: TopicId([1; 16]), deleted: WallMs(1) }));
    let of = |rows: Vec<Change>| State::from_rows(1, WallMs(1_000_000), rows);
    let both = of(vec![gone(FIRST), gone(OTHER)]);
    assert_eq!(judge::<AllRules>(&both, &bucket), DELETED);
    assert!(!doomed(&Candidate::Object(KEY), &both, 10), "not for the first one's end alone");
    assert_eq!(judge::<AllRules>(&of(vec![gone(FIRST)]), &bucket), KEPT_FOR_THE_OTHER, "of another life");
}

#[derive(Clone, Copy, Debug, Default)]
struct FirstOnly;

impl Rules for FirstOnly {
    const NAME: &'static str = "first segment only";
    const SWEEP_ASKS_ALL_SEGMENTS: bool = false;
}

#[test]
fn the_first_segment_alone_would_be_a_wrong_verdict() {
    let state = state(None, vec![row(OTHER, 5, Some(KEY))]);
    assert_eq!(judge::<FirstOnly>(&state, &Bucket::new()), [Verdict::Delete; 2]);
}
