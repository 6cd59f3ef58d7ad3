//! R2, I2: how segments end.

use esker_metadata_core::*;
use esker_types::*;

use crate::world::*;

fn owned() -> World {
    let mut w = World::new(4, 1, 1);
    w.assign(1);
    w.open();
    w
}

#[test]
fn a_roll_closes_at_what_it_says_and_goes_on_behind_it() {
    let mut w = owned();
    let roll = w.roll_of(10, Some(next(2)));
    w.ok(roll.clone());
    let p = w.partition(0);
    assert_eq!(p.last, Some(LastClosed { n: 1, last: 9, end_offset: 10, digest: roll.close.digest }));
    assert_eq!((p.open.as_ref().unwrap().n, p.open.as_ref().unwrap().base_offset, p.next_n), (2, 10, 3));
    let closed = w.state.segment(SegmentId { partition: p.id, n: 1 }).unwrap().clone();
    assert_eq!((closed.base_offset, closed.end_offset, closed.last), (0, 10, 9));
    assert_eq!(closed.holders, roll.close.holders);
    // The retry after an unknown outcome: refused, and the read shows tail.n == n + 1 at the same epoch.
    assert_eq!(w.refused(roll), ErrorCode::Precondition);
    assert_eq!(w.partition(0).tail_n(), Some(2));
}

#[test]
fn a_segment_without_records_leaves_the_chain_but_not_its_ordinal() {
    let mut w = owned();
    let p = w.partition(0);
    let mut roll = w.roll_of(0, Some(next(2)));
    roll.close.last = None;
    roll.close.holders.clear();
    w.ok(roll);
    let after = w.partition(0);
    assert_eq!(w.state.chain(p.id).count(), 0);
    assert_eq!((after.last.clone(), after.open.clone().unwrap().n, after.next_n), (None, 2, 3));
    assert_eq!(after.dropped, vec![1]);
    let garbage = gc::verdict(&w.state, instance(1), SegmentId { partition: p.id, n: 1 });
    assert_eq!(garbage, gc::Verdict::Drop);
}

#[test]
fn holders_are_enough_and_known() {
    let mut w = owned();
    let good = w.roll_of(10, None);
    let with = |w: &mut World, holders: Vec<Member>| {
        let close = Close { holders, ..good.close.clone() };
        w.refused(Roll { close, ..good.clone() })
    };
    assert_eq!(with(&mut w, vec![member(1)]), ErrorCode::Precondition);
    assert_eq!(with(&mut w, vec![member(1), member(1)]), ErrorCode::Precondition);
    assert_eq!(with(&mut w, vec![member(1), member(4)]), ErrorCode::Precondition, "4 has no intent");
    let no_entry = Close { last: None, ..good.close.clone() };
    assert_eq!(w.refused(Roll { close: no_entry, ..good.clone() }), ErrorCode::InvalidRequest);
    w.ok(good);
}

#[test]
fn a_substitute_under_an_intent_may_hold() {
    let mut w = owned();
    let p = w.partition(0);
    let segment = p.open_id().unwrap();
    let intent = PutIntent { segment, ver: 0, epoch: p.epoch, member: member(4), ttl_ms: 1_000 };
    assert_eq!(w.refused(PutIntent { epoch: Epoch(p.epoch.0 - 1), ..intent.clone() }), ErrorCode::FencedEpoch);
    w.ok(intent);
    let mut roll = w.roll_of(10, None);
    roll.close.holders = vec![member(1), member(4)];
    let late = roll.clone();
    w.wall += 1_000;
    assert_eq!(w.refused(late), ErrorCode::Precondition, "the intent has run out");
    w.wall -= 1_000;
    assert_eq!(w.refused(roll.clone()), ErrorCode::Precondition, "the clock does not go back");
    w.ok(PutIntent { segment, ver: 0, epoch: p.epoch, member: member(4), ttl_ms: 1_000 });
    w.ok(roll);
    assert_eq!(w.state.intents().len(), 0, "the record names the copy now");
    assert_eq!(gc::verdict(&w.state, instance(4), segment), gc::Verdict::Keep);
}

#[test]
fn a_close_never_ends_before_the_beginning_or_below_the_log_start() {
    let mut w = owned();
    let roll = w.roll_of(100, Some(next(2)));
    w.ok(roll);
    let back = w.roll_of(-1, None);
    assert_eq!(w.refused(back), ErrorCode::InvalidRequest);
    let p = w.partition(0);
    w.ok(DeleteBegin { partition: p.id, epoch: p.epoch, log_start: 150 });
    let lost_records = w.roll_of(20, None);
    assert_eq!(w.refused(lost_records), ErrorCode::Precondition);
    let good = w.roll_of(50, None);
    w.ok(good);
}

#[test]
fn a_force_close_declares_the_hole_and_jumps() {
    let mut w = owned();
    let Roll { partition, epoch, mut close, .. } = w.roll_of(10, None);
    close.holders = vec![member(1)];
    assert_eq!(w.refused(Roll { partition, epoch, close: close.clone(), next: None }), ErrorCode::Precondition);
    let jump = 1i64 << 40;
    let reply = w.ok(ForceClose { partition, epoch, close });
    assert_eq!(reply, Reply::Lost(LostReply { from: 10, to: jump }));
    let p = w.partition(0);
    assert_eq!((p.next_offset, p.lost.clone()), (jump, vec![LostRange { from: 10, to: jump }]));
    w.open();
    assert_eq!(w.partition(0).open.unwrap().base_offset, jump);
    // Nothing readable at all, right at a multiple: the jump is still a real one, and the holes melt into one.
    let Roll { partition, epoch, close, .. } = w.roll_of(0, None);
    let close = Close { last: None, holders: Vec::new(), ..close };
    w.ok(ForceClose { partition, epoch, close });
    let p = w.partition(0);
    assert_eq!((p.next_offset, p.lost), (2 * jump, vec![LostRange { from: 10, to: 2 * jump }]));
}

#[test]
fn data_loss_is_declared_within_the_closed_part() {
    let mut w = owned();
    let roll = w.roll_of(100, None);
    w.ok(roll);
    let p = w.partition(0);
    let loss = |from, to| DataLoss { partition: p.id, epoch: p.epoch, from, to };
    assert_eq!(w.refused(loss(50, 101)), ErrorCode::Precondition);
    assert_eq!(w.refused(loss(50, 50)), ErrorCode::Precondition);
    w.ok(loss(50, 60));
    w.ok(loss(10, 20));
    w.ok(loss(55, 70));
    let lost = w.partition(0).lost;
    assert_eq!(lost, vec![LostRange { from: 10, to: 20 }, LostRange { from: 50, to: 70 }]);
}
