//! R12: segments become safe in the bucket, are folded into the manifest, and leave metadata. 2.7: versions are held.

use esker_metadata_core::gc::{Verdict, verdict};
use esker_metadata_core::*;
use esker_types::*;

use crate::world::*;

/// Segments 1 [0, 10), 2 [10, 20), 3 [20, 30) closed, 4 open.
fn chain() -> World {
    let mut w = World::new(4, 1, 1);
    w.assign(1);
    w.open();
    for n in [2, 3, 4] {
        let roll = w.roll_of(10, Some(next(n)));
        w.ok(roll);
    }
    w
}

pub fn place(w: &World, n: u64, attempt: u64) -> ObjectPlace {
    let p = w.partition(0);
    let key = ObjectKey { incarnation: 0, partition: p.id, n, epoch: p.epoch, attempt, shared: false };
    ObjectPlace { key, position: 60, len: 4000, footer_position: 4060, footer_len: 160, footer_crc: 1, size: 4356 }
}

fn commit(w: &World, n: u64, attempt: u64) -> OffloadCommit {
    let p = w.partition(0);
    OffloadCommit {
        partition: p.id,
        epoch: p.epoch,
        n,
        digest: 0xd1 + n,
        end_offset: n as i64 * 10,
        place: place(w, n, attempt),
    }
}

fn root(w: &World, ver: u64, folded_to: u64) -> SetRoot {
    let p = w.partition(0);
    let key = PageKey { incarnation: 0, partition: p.id, epoch: p.epoch, seq: ver };
    let root = RootPlace {
        key,
        ver,
        len: 500,
        crc: 1,
        folded_to,
        segments: folded_to,
        bytes: 4096 * folded_to,
        base_offset: 0,
        end_offset: folded_to as i64 * 10,
    };
    SetRoot { partition: p.id, epoch: p.epoch, expect_ver: ver - 1, root, log_start: None }
}

fn chain_of(w: &World) -> Vec<u64> {
    w.state.chain(w.partition(0).id).map(|s| s.segment.n).collect()
}

#[test]
fn the_first_commit_of_an_object_wins() {
    let mut w = chain();
    let first = commit(&w, 1, 1);
    w.ok(first.clone());
    w.ok(first.clone());
    assert_eq!(w.refused(commit(&w, 1, 2)), ErrorCode::Precondition, "another attempt came first");
    assert_eq!(w.state.segment(first.place.key_segment()).unwrap().object, Some(first.place.clone()));
    assert_eq!(w.refused(OffloadCommit { digest: 1, ..commit(&w, 2, 1) }), ErrorCode::Precondition);
    assert_eq!(w.refused(OffloadCommit { end_offset: 19, ..commit(&w, 2, 1) }), ErrorCode::Precondition);
    assert_eq!(w.refused(commit(&w, 4, 1)), ErrorCode::Precondition, "open");
    assert_eq!(w.refused(commit(&w, 9, 1)), ErrorCode::Precondition, "never was");
    let mut foreign = commit(&w, 2, 1);
    foreign.place.key.n = 3;
    assert_eq!(w.refused(foreign.clone()), ErrorCode::InvalidRequest, "the object of another segment");
    foreign.place.key.shared = true;
    w.ok(foreign);
    let late = commit(&w, 3, 1);
    w.assign(1);
    assert_eq!(w.refused(late), ErrorCode::FencedEpoch, "a former owner");
}

trait KeySegment {
    fn key_segment(&self) -> SegmentId;
}

impl KeySegment for ObjectPlace {
    fn key_segment(&self) -> SegmentId {
        SegmentId { partition: self.key.partition, n: self.key.n }
    }
}

#[test]
fn copies_go_when_the_bucket_has_the_records_and_rows_when_the_manifest_has_them() {
    let mut w = chain();
    let p = w.partition(0);
    let drop_to = |upto_n| DropBookieCopies { partition: p.id, epoch: p.epoch, upto_n };
    assert_eq!(w.refused(drop_to(2)), ErrorCode::Precondition, "I10: the only copies");
    let one = commit(&w, 1, 1);
    w.ok(one);
    w.ok(drop_to(2));
    assert_eq!(chain_of(&w), [1, 2, 3], "not folded: its place must not be lost");
    w.ok(DeleteDone { partition: p.id, epoch: p.epoch, upto_n: 2 });
    assert_eq!(chain_of(&w), [1, 2, 3]);
    assert_eq!(verdict(&w.state, instance(1), SegmentId { partition: p.id, n: 1 }), Verdict::Drop);
    let too_far = root(&w, 1, 2);
    assert_eq!(w.refused(too_far), ErrorCode::Precondition, "segment 2 is in no object");
    let fold = root(&w, 1, 1);
    w.ok(fold.clone());
    w.ok(fold);
    assert_eq!(chain_of(&w), [2, 3]);
    let (two, three) = (commit(&w, 2, 1), commit(&w, 3, 1));
    w.ok(two);
    w.ok(three);
    let fold = root(&w, 2, 3);
    w.ok(fold);
    assert_eq!(chain_of(&w), [2, 3], "copies are on bookies still, and read from there");
    assert_eq!(verdict(&w.state, instance(1), SegmentId { partition: p.id, n: 3 }), Verdict::Keep);
    w.ok(drop_to(3));
    assert_eq!(chain_of(&w), [3]);
    assert_eq!(verdict(&w.state, instance(1), SegmentId { partition: p.id, n: 2 }), Verdict::Drop);
    let record = w.partition(0);
    assert_eq!((record.root_ver(), record.folded_to(), record.tail_n()), (2, 3, Some(4)));
}

#[test]
fn roots_follow_each_other_and_nothing_moves_back() {
    let mut w = chain();
    for n in [1, 2] {
        let commit = commit(&w, n, 1);
        w.ok(commit);
    }
    let second = root(&w, 2, 2);
    assert_eq!(w.refused(second), ErrorCode::Precondition, "there is no version 1");
    let first = root(&w, 1, 2);
    w.ok(first);
    let again = SetRoot { root: RootPlace { crc: 9, ..root(&w, 1, 2).root }, ..root(&w, 1, 2) };
    assert_eq!(w.refused(again), ErrorCode::Precondition, "another version 1");
    let back = root(&w, 2, 1);
    assert_eq!(w.refused(back), ErrorCode::Precondition, "less than is folded");
    let future = root(&w, 2, 4);
    assert_eq!(w.refused(future), ErrorCode::Precondition, "an open segment");
    let past_end = SetRoot { log_start: Some(31), ..root(&w, 2, 2) };
    assert_eq!(w.refused(past_end), ErrorCode::Precondition);
    // What lies below the log start needs no object.
    let all = SetRoot { log_start: Some(30), ..root(&w, 2, 3) };
    w.ok(all);
    assert_eq!(w.partition(0).log_start, 30);
    let lower = SetRoot { log_start: Some(20), ..root(&w, 3, 3) };
    assert_eq!(w.refused(lower), ErrorCode::Precondition, "the log start never falls");
}

#[test]
fn a_version_is_held_until_it_is_let_go_or_runs_out() {
    let mut w = chain();
    let p = w.partition(0);
    let pin = |id, root_ver, ttl_ms| Pin { partition: p.id, id, root_ver, ttl_ms };
    assert_eq!(w.refused(pin(1, 0, 100)), ErrorCode::Precondition, "nothing is there to hold");
    let one = commit(&w, 1, 1);
    w.ok(one);
    let first = root(&w, 1, 1);
    w.ok(first.clone());
    w.ok(pin(1, 1, 100));
    let second = root(&w, 2, 1);
    w.ok(second);
    assert_eq!(w.partition(0).pins[0].root, first.root);
    assert_eq!(w.refused(pin(2, 1, 100)), ErrorCode::Precondition, "an old version, held by another");
    w.ok(pin(1, 1, 500));
    w.ok(pin(2, 2, 100));
    w.wall += 100;
    w.ok(pin(3, 2, 100));
    assert_eq!(w.partition(0).pins.iter().map(|pin| pin.id).collect::<Vec<_>>(), [1, 3], "2 ran out");
    w.ok(Unpin { partition: p.id, id: 1 });
    w.ok(Unpin { partition: p.id, id: 1 });
    assert_eq!(w.partition(0).pins.len(), 1);
    for id in 10..10 + PINS_MAX as u64 - 1 {
        w.ok(pin(id, 2, 100));
    }
    assert_eq!(w.refused(pin(99, 2, 100)), ErrorCode::Overloaded);
    assert_eq!(w.refused(pin(3, 2, 0)), ErrorCode::InvalidRequest);
}

/// Rolls, offloads, folds and drops one more segment.
fn live_on(w: &mut World, ver: u64) {
    let p = w.partition(0);
    let n = p.open.as_ref().unwrap().n;
    let end_offset = p.open.as_ref().unwrap().base_offset + 10;
    let roll = w.roll_of(10, Some(next(n + 1)));
    w.ok(roll);
    let commit = OffloadCommit { end_offset, ..commit(w, n, 1) };
    w.ok(commit);
    let mut fold = root(w, ver, n);
    fold.root.end_offset = end_offset;
    w.ok(fold);
    w.ok(DropBookieCopies { partition: p.id, epoch: p.epoch, upto_n: n });
}

#[test]
fn metadata_does_not_grow_with_history() {
    let mut w = World::new(4, 1, 1);
    w.assign(1);
    w.open();
    let mut sizes = Vec::new();
    for ver in 1..=2_000 {
        live_on(&mut w, ver);
        if [10, 100, 2_000].contains(&ver) {
            sizes.push((w.state.accounted_bytes(), encode_snapshot(&w.state).len()));
        }
    }
    assert_eq!(w.state.segments().len(), 1);
    assert_eq!(sizes[0].0, sizes[2].0, "accounted bytes after 10, 100 and 2,000 segments: {sizes:?}");
    let (small, large) = (sizes[0].1 as f64, sizes[2].1 as f64);
    assert!(large < small * 1.1, "snapshots of {sizes:?} bytes");
    let copy = decode_snapshot(&encode_snapshot(&w.state)).unwrap();
    assert_eq!((copy.accounted_bytes(), copy.state_hash()), (w.state.accounted_bytes(), w.state.state_hash()));
}
