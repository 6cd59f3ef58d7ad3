//! History is folded, found, and let go; whatever its size, a lookup takes the same few pages.

use std::collections::BTreeSet;

use esker_cache_core::manifest::*;
use esker_types::*;

use crate::samples::*;

fn fold(bucket: &mut Bucket, from: u64, to: u64) -> Edited {
    let append = (from..=to).map(leaf_entry).collect();
    bucket.edit(&Edit { append, folded_to: to, ..Edit::default() })
}

fn root_of(bucket: &Bucket) -> RootPage {
    match &*bucket.root() {
        Page::Root(root) => root.clone(),
        other => panic!("{other:?} is no root"),
    }
}

/// Everything that the manifest lists, in order.
fn all(bucket: &Bucket) -> Vec<u64> {
    let get = |of: &PageRef| bucket.get(of);
    overlapping(&root_of(bucket), 0, i64::MAX, usize::MAX, &get).unwrap().iter().map(|entry| entry.n).collect()
}

#[test]
fn segments_are_found_by_offset_and_by_time() {
    let mut bucket = Bucket::new();
    for batch in 0..40u64 {
        fold(&mut bucket, batch * 64 + 1, batch * 64 + 64);
    }
    assert_eq!(all(&bucket), (1..=2_560).collect::<Vec<_>>());
    let root = root_of(&bucket);
    assert_eq!((root.children.len(), root.folded_to, root.ver), (3, 2_560, 40));
    let get = |of: &PageRef| bucket.get(of);
    for n in [1u64, 63, 64, 65, 1_024, 1_025, 2_048, 2_049, 2_560] {
        for offset in [n as i64 * 10, n as i64 * 10 + 9] {
            assert_eq!(segment_at(&root, offset, &get).unwrap().map(|entry| entry.n), Some(n));
        }
        let by_time = |time| segment_at_time(&root, time, 0, &get).unwrap().map(|entry| entry.n);
        assert_eq!((by_time(n as i64 * 100), by_time(n as i64 * 100 - 99)), (Some(n), Some(n)));
        assert!(reaches(&root, n, &object_key(n), &get).unwrap());
        assert!(!reaches(&root, n, &ObjectKey { attempt: 2, ..object_key(n) }, &get).unwrap());
    }
    assert_eq!(segment_at(&root, 9, &get), Ok(None), "before the first");
    assert_eq!(segment_at(&root, 25_610, &get), Ok(None), "behind the last");
    assert_eq!(segment_at_time(&root, 256_001, 0, &get), Ok(None));
    assert_eq!(segment_at_time(&root, 0, 5_000, &get).unwrap().map(|entry| entry.n), Some(500), "not below the start");
    let place = bucket.root.as_ref().unwrap();
    assert_eq!(
        (place.segments, place.bytes, place.base_offset, place.end_offset),
        (2_560, 2_560 * (64 << 20), 10, 25_610)
    );
}

#[test]
fn a_missing_page_is_asked_for_by_name() {
    let mut bucket = Bucket::new();
    fold(&mut bucket, 1, 10);
    let root = root_of(&bucket);
    let Err(Need(of)) = segment_at(&root, 50, &|_: &PageRef| None) else { panic!("nothing is at hand") };
    assert_eq!(of, root.children[0]);
}

#[test]
fn what_is_replaced_is_buried_with_the_change_and_leaves_with_the_next() {
    let mut bucket = Bucket::new();
    let first = fold(&mut bucket, 1, 10);
    let second = fold(&mut bucket, 11, 20);
    let reached: BTreeSet<PageKey> =
        tree_pages(&root_of(&bucket), &|of: &PageRef| bucket.get(of)).unwrap().into_iter().collect();
    let graves = root_of(&bucket).graveyard;
    let buried: BTreeSet<PageKey> = graves
        .iter()
        .map(|grave| match &grave.what {
            Buried::Page(page) => page.key,
            other => panic!("{other:?} was retired by a fold"),
        })
        .collect();
    let stored: BTreeSet<PageKey> = bucket.stored.keys().copied().collect();
    let mut expected: BTreeSet<PageKey> = reached.union(&buried).copied().collect();
    expected.insert(second.root.key);
    assert_eq!(stored, expected, "every page is reached or buried");
    assert!(buried.contains(&first.root.key));
    bucket.edit(&Edit { emptied: graves.clone(), ..Edit::default() });
    let left = root_of(&bucket).graveyard;
    assert_eq!(left.len(), 1, "the former root alone: {left:?}");
}

#[test]
fn retention_drops_whole_leaves_and_trims_the_first_one_when_it_pays() {
    let mut bucket = Bucket::new();
    fold(&mut bucket, 1, 3_000);
    let retire = |bucket: &mut Bucket, log_start| bucket.edit(&Edit { log_start, now: WallMs(7), ..Edit::default() });
    retire(&mut bucket, 20 * 10);
    assert_eq!(all(&bucket).len(), 3_000, "a few dead ones are hidden by the log start alone");
    retire(&mut bucket, 200 * 10);
    assert_eq!(all(&bucket).first(), Some(&200));
    let objects = |root: &RootPage| root.graveyard.iter().filter(|g| matches!(g.what, Buried::Object(_))).count();
    assert_eq!(objects(&root_of(&bucket)), 199);
    retire(&mut bucket, 2_500 * 10);
    assert_eq!(all(&bucket), (2_500..=3_000).collect::<Vec<_>>());
    let root = root_of(&bucket);
    let trees = root.graveyard.iter().filter(|grave| matches!(grave.what, Buried::Tree(_))).count();
    assert_eq!((trees, root.children.len()), (2, 1), "a leaf is one grave with all its objects");
    assert!(root.graveyard.iter().all(|grave| grave.since <= WallMs(7)));
    retire(&mut bucket, i64::MAX);
    assert!(all(&bucket).is_empty());
    let place = bucket.root.as_ref().unwrap();
    assert_eq!((place.segments, place.bytes, place.folded_to), (0, 0, 3_000));
    fold(&mut bucket, 3_001, 3_002);
    assert_eq!(all(&bucket), [3_001, 3_002]);
}

#[test]
fn shared_objects_have_a_grave_and_only_the_sweep_deletes_them() {
    let mut bucket = Bucket::new();
    let append = (1..=100)
        .map(|n| {
            let mut entry = leaf_entry(n);
            entry.place.key.shared = true;
            entry
        })
        .collect();
    let retired = vec![ObjectKey { shared: true, ..object_key(101) }, object_key(102)];
    bucket.edit(&Edit { append, retired, folded_to: 102, ..Edit::default() });
    bucket.edit(&Edit { log_start: 900, ..Edit::default() });
    let buried: Vec<ObjectKey> = root_of(&bucket)
        .graveyard
        .iter()
        .filter_map(|grave| match &grave.what {
            Buried::Object(object) => Some(object.key),
            _ => None,
        })
        .collect();
    // What lies below the log start, and what was never folded: readers of older versions have their grace.
    let shared = |n| ObjectKey { shared: true, ..object_key(n) };
    let wanted: Vec<ObjectKey> = [shared(101), object_key(102)].into_iter().chain((1..90).map(shared)).collect();
    assert_eq!(buried, wanted);
    let deleted: Vec<ObjectKey> = buried.into_iter().filter(BuriedObject::deletes::<AllRules>).collect();
    assert_eq!(deleted, [object_key(102)]);
    assert_eq!(all(&bucket).first(), Some(&90));
}

#[test]
fn a_million_segments_cost_a_lookup_no_more_than_a_thousand() {
    let mut bucket = Bucket::new();
    let mut at = 0;
    for target in [1_000u64, 10_000, 100_000, 1_000_000] {
        while at < target {
            let to = target.min(at + 1_000);
            fold(&mut bucket, at + 1, to);
            at = to;
        }
        let place = bucket.root.clone().unwrap();
        assert!(place.len < 256 << 10, "the root of {target} segments has {} bytes", place.len);
        for n in [1, target / 3 + 1, target] {
            bucket.fetched.borrow_mut().clear();
            let root = root_of(&bucket);
            let found = segment_at(&root, n as i64 * 10 + 5, &|of: &PageRef| bucket.get(of)).unwrap().unwrap();
            assert_eq!(found.n, n);
            let by_time = segment_at_time(&root, n as i64 * 100, 0, &|of: &PageRef| bucket.get(of)).unwrap().unwrap();
            assert_eq!(by_time.n, n);
            // Root and leaf, once for each question; footer and block make four requests.
            assert!(bucket.fetched.borrow().len() <= 3, "{target} segments: {:?}", bucket.fetched.borrow());
        }
        // Replaced pages are gone, as the grace would have them.
        let keep: BTreeSet<PageKey> =
            tree_pages(&root_of(&bucket), &|of: &PageRef| bucket.get(of)).unwrap().into_iter().collect();
        bucket.stored.retain(|key, _| keep.contains(key) || *key == place.key);
        let emptied = root_of(&bucket).graveyard;
        bucket.edit(&Edit { emptied, ..Edit::default() });
    }
    let largest = bucket.stored.values().map(|bytes| bytes.len()).max().unwrap();
    assert!(largest < 256 << 10, "the largest page has {largest} bytes");
}

#[test]
fn trees_grow_levels_and_lose_them_at_the_left_edge() {
    let mut bucket = Bucket::new();
    // More leaves than a root holds, without making their entries: one segment a leaf is what tiny edits at the edge
    // of full ones come to, so leaves are filled in one go here.
    let step = (LEAF_MAX * 256) as u64;
    let leaves = (ROOT_MAX + 300) as u64;
    let mut at = 0;
    while at < leaves * LEAF_MAX as u64 {
        fold(&mut bucket, at + 1, at + step);
        at += step;
        let emptied = root_of(&bucket).graveyard;
        bucket.edit(&Edit { emptied, ..Edit::default() });
    }
    let root = root_of(&bucket);
    assert_eq!(root.height, 1);
    for n in [1, at / 2, at] {
        let found = segment_at(&root, n as i64 * 10, &|of: &PageRef| bucket.get(of)).unwrap().unwrap();
        assert_eq!(found.n, n);
    }
    fold(&mut bucket, at + 1, at + 5);
    bucket.edit(&Edit { log_start: at as i64 * 10, ..Edit::default() });
    assert_eq!(all(&bucket), (at..=at + 5).collect::<Vec<_>>());
}
