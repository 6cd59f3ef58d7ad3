//! R13, R14, R16: copies are made, replaced and let go.

use esker_metadata_core::gc::{Verdict, verdict};
use esker_metadata_core::*;
use esker_types::*;

use crate::world::*;

/// Segments 1 [0, 10) and 2 [10, 20) closed, 3 open.
fn chain() -> World {
    let mut w = World::new(4, 1, 1);
    w.assign(1);
    w.open();
    for n in [2, 3] {
        let roll = w.roll_of(10, Some(next(n)));
        w.ok(roll);
    }
    w
}

fn segment(w: &World, n: u64) -> SegmentId {
    SegmentId { partition: w.partition(0).id, n }
}

#[test]
fn a_member_is_replaced_under_an_intent() {
    let mut w = chain();
    let s = segment(&w, 1);
    let replace = ReplaceMember { segment: s, ver: 0, old: member(3), new: member(4) };
    assert_eq!(w.refused(replace.clone()), ErrorCode::Precondition, "no intent: the copy may be gone");
    assert_eq!(verdict(&w.state, instance(4), s), Verdict::Drop);
    w.ok(PutIntent { segment: s, ver: 0, epoch: Epoch(0), member: member(4), ttl_ms: 500 });
    assert_eq!(verdict(&w.state, instance(4), s), Verdict::Keep);
    let before = w.state.segment(s).unwrap().clone();
    w.ok(replace.clone());
    let after = w.state.segment(s).unwrap();
    assert_eq!(after.members, vec![member(1), member(2), member(4)]);
    assert_eq!(after.holders, vec![member(1), member(2), member(4)]);
    assert_eq!((after.last, after.end_offset, after.digest), (before.last, before.end_offset, before.digest));
    assert_eq!(verdict(&w.state, instance(3), s), Verdict::Drop);
    assert_eq!(w.refused(replace), ErrorCode::Precondition, "the version has moved");
}

#[test]
fn an_intent_runs_out() {
    let mut w = chain();
    let s = segment(&w, 1);
    w.ok(PutIntent { segment: s, ver: 0, epoch: Epoch(0), member: member(4), ttl_ms: 500 });
    w.wall += 500;
    assert_eq!(
        w.refused(ReplaceMember { segment: s, ver: 0, old: member(3), new: member(4) }),
        ErrorCode::Precondition
    );
    assert_eq!(verdict(&w.state, instance(4), s), Verdict::Drop);
    // The next intent sweeps it away.
    w.ok(PutIntent { segment: segment(&w, 2), ver: 0, epoch: Epoch(0), member: member(4), ttl_ms: 500 });
    assert_eq!(w.state.intents().len(), 1);
}

#[test]
fn copies_go_only_below_the_log_start_and_never_the_tail() {
    let mut w = chain();
    let p = w.partition(0);
    let drop_to = |upto_n| DropBookieCopies { partition: p.id, epoch: p.epoch, upto_n };
    assert_eq!(w.refused(drop_to(2)), ErrorCode::Precondition, "records above the log start");
    assert_eq!(w.refused(drop_to(4)), ErrorCode::Precondition, "the tail");
    w.ok(DeleteBegin { partition: p.id, epoch: p.epoch, log_start: 15 });
    assert_eq!(w.refused(drop_to(3)), ErrorCode::Precondition, "[15, 20) is still to be read");
    assert_eq!(
        w.refused(DeleteDone { partition: p.id, epoch: p.epoch, upto_n: 2 }),
        ErrorCode::Precondition,
        "copies first"
    );
    w.ok(drop_to(2));
    w.ok(DeleteDone { partition: p.id, epoch: p.epoch, upto_n: 2 });
    assert_eq!(w.state.chain(p.id).map(|s| s.segment.n).collect::<Vec<_>>(), vec![2]);
    assert_eq!(verdict(&w.state, instance(1), segment(&w, 1)), Verdict::Drop);
    assert_eq!(verdict(&w.state, instance(1), segment(&w, 2)), Verdict::Keep);
    // Applied twice: nothing moves back.
    w.ok(drop_to(1));
    w.ok(DeleteBegin { partition: p.id, epoch: p.epoch, log_start: 5 });
    let after = w.partition(0);
    assert_eq!((after.copies_from, after.log_start), (2, 15));
}

#[test]
fn the_last_closed_segment_is_remembered_when_its_row_is_gone() {
    let mut w = chain();
    let p = w.partition(0);
    w.ok(DeleteBegin { partition: p.id, epoch: p.epoch, log_start: 20 });
    w.ok(DropBookieCopies { partition: p.id, epoch: p.epoch, upto_n: 3 });
    w.ok(DeleteDone { partition: p.id, epoch: p.epoch, upto_n: 3 });
    let empty = w.roll_of(0, None);
    w.ok(empty);
    let after = w.partition(0);
    assert_eq!((w.state.chain(p.id).count(), after.tail_n(), after.next_offset), (0, Some(2), 20));
    w.ok(Open { partition: p.id, epoch: p.epoch, prev: Some(2), next: next(4) });
}

#[test]
fn what_metadata_does_not_know_is_set_aside() {
    let mut w = chain();
    assert_eq!(verdict(&w.state, instance(1), segment(&w, 3)), Verdict::Keep, "open");
    assert_eq!(verdict(&w.state, instance(4), segment(&w, 3)), Verdict::Drop, "open elsewhere");
    assert_eq!(verdict(&w.state, instance(1), segment(&w, 9)), Verdict::Quarantine, "from the future");
    assert_eq!(verdict(&w.state, instance(1), SegmentId::new(4711, 1)), Verdict::Quarantine, "unknown partition");
    let p = w.partition(0);
    let s = segment(&w, 1);
    w.ok(PutIntent { segment: s, ver: 0, epoch: Epoch(0), member: member(4), ttl_ms: 500 });
    w.ok(DeleteTopic { topic: topic_id(1) });
    assert_eq!(verdict(&w.state, instance(1), s), Verdict::Drop);
    assert_eq!((w.state.segments().len(), w.state.intents().len(), w.state.partitions().len()), (0, 0, 0));
    assert_eq!(w.refused(DeleteBegin { partition: p.id, epoch: p.epoch, log_start: 1 }), ErrorCode::TopicDeleted);
}
