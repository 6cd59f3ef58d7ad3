//! R1, R2, I1: who may write, and into what.

use esker_metadata_core::*;
use esker_types::*;

use crate::world::*;

#[test]
fn an_assign_raises_the_epoch_once() {
    let mut w = World::new(3, 2, 1);
    let p = w.partition(0);
    let session = w.session(1);
    let assign = Assign { partition: p.id, expect_epoch: p.epoch, session };
    let reply = w.ok(assign.clone());
    assert_eq!(reply, Reply::Epoch(EpochReply { epoch: Epoch(p.epoch.0 + 1) }));
    assert_eq!(w.partition(0).owner, Some(Owner { gateway: GatewayId(1), session }));
    // The same again, applied late: the epoch has moved on.
    assert_eq!(w.refused(assign), ErrorCode::FencedEpoch);
    let ahead = Assign { partition: p.id, expect_epoch: Epoch(p.epoch.0 + 7), session };
    assert_eq!(w.refused(ahead), ErrorCode::UnknownEpoch);
}

#[test]
fn only_a_live_session_of_a_gateway_that_stays_gets_a_partition() {
    let mut w = World::new(3, 2, 1);
    let p = w.partition(0);
    let to = |w: &mut World, session| w.refused(Assign { partition: p.id, expect_epoch: p.epoch, session });
    let bookie_session = w.state.bookie(BookieId(1)).unwrap().session.unwrap();
    assert_eq!(to(&mut w, bookie_session), ErrorCode::NoSuchSession);
    let dead = w.session(1);
    w.ok(ExpireSession { session: dead });
    assert_eq!(to(&mut w, dead), ErrorCode::NoSuchSession);
    let draining = w.session(2);
    w.ok(DrainGateway { gateway: GatewayId(2), draining: true });
    assert_eq!(to(&mut w, draining), ErrorCode::Precondition);
}

#[test]
fn one_open_segment_at_a_time() {
    let mut w = World::new(3, 1, 1);
    let p = w.partition(0);
    let first = Open { partition: p.id, epoch: p.epoch, prev: None, next: next(1) };
    assert_eq!(w.refused(first.clone()), ErrorCode::Precondition, "nobody owns it yet");
    let epoch = w.assign(1);
    let first = Open { epoch, ..first };
    w.ok(first.clone());
    assert_eq!(w.refused(first), ErrorCode::Precondition);
    let second = Open { partition: p.id, epoch, prev: Some(1), next: next(2) };
    assert_eq!(w.refused(second), ErrorCode::Precondition);
    let open = w.partition(0).open.unwrap();
    assert_eq!((open.n, open.seg_epoch, open.session, open.base_offset), (1, epoch, w.session(1), 0));
}

#[test]
fn an_open_names_the_right_tail_and_the_next_ordinal() {
    let mut w = World::new(3, 1, 1);
    let epoch = w.assign(1);
    w.open();
    let roll = w.roll_of(10, None);
    w.ok(roll);
    let p = w.partition(0);
    let open = |prev, n| Open { partition: p.id, epoch, prev, next: next(n) };
    assert_eq!(w.refused(open(None, 2)), ErrorCode::Precondition);
    assert_eq!(w.refused(open(Some(1), 1)), ErrorCode::Precondition);
    assert_eq!(w.refused(open(Some(1), 3)), ErrorCode::Precondition);
    w.ok(open(Some(1), 2));
    assert_eq!(w.partition(0).open.unwrap().base_offset, 10);
}

#[test]
fn members_are_registered_different_and_willing() {
    let mut w = World::new(4, 1, 1);
    let epoch = w.assign(1);
    let p = w.partition(0);
    let with = |w: &mut World, members: [Member; 3]| {
        let next = NextSegment { n: 1, quorum: QUORUM, members: members.to_vec() };
        w.run(Open { partition: p.id, epoch, prev: None, next }).map_err(|reject| reject.code)
    };
    let refused = Err(ErrorCode::Precondition);
    assert_eq!(with(&mut w, [member(1), member(2), member(2)]), refused);
    assert_eq!(with(&mut w, [member(1), member(2), member(9)]), refused);
    let other_data = Member { bookie: BookieId(3), instance: instance(77) };
    assert_eq!(with(&mut w, [member(1), member(2), other_data]), refused);
    w.ok(DrainBookie { bookie: BookieId(3), draining: true });
    assert_eq!(with(&mut w, [member(1), member(2), member(3)]), refused);
    w.ok(LoseBookie { bookie: BookieId(4), instance: instance(4) });
    assert_eq!(with(&mut w, [member(1), member(2), member(4)]), refused);
    w.ok(DrainBookie { bookie: BookieId(3), draining: false });
    assert_eq!(with(&mut w, [member(1), member(2), member(3)]), Ok(Reply::DONE));
}

#[test]
fn a_handover_closes_moves_and_opens_in_one_step() {
    let mut w = World::new(3, 2, 1);
    let epoch = w.assign(1);
    w.open();
    let Roll { partition, close, .. } = w.roll_of(10, None);
    let to_session = w.session(2);
    let handover = Handover { partition, epoch, close: Some(close), to_session, next: Some(next(2)) };
    let applied = w.ok(handover.clone());
    let p = w.partition(0);
    assert_eq!(applied, Reply::Epoch(EpochReply { epoch: p.epoch }));
    assert_eq!(p.epoch, epoch.next().unwrap());
    assert_eq!(p.owner.as_ref().map(|owner| owner.session), Some(to_session));
    let open = p.open.unwrap();
    assert_eq!((open.n, open.seg_epoch, open.session, open.base_offset), (2, p.epoch, to_session, 10));
    assert_eq!(w.refused(handover), ErrorCode::FencedEpoch, "a second copy finds the epoch moved");
}

#[test]
fn an_idle_partition_is_handed_over_without_a_segment() {
    let mut w = World::new(3, 2, 1);
    let epoch = w.assign(1);
    let to_session = w.session(2);
    let idle = Handover { partition: w.partition(0).id, epoch, close: None, to_session, next: None };
    w.open();
    assert_eq!(w.refused(idle.clone()), ErrorCode::Precondition, "an open segment must be closed by it");
    let roll = w.roll_of(0, None);
    w.ok(roll);
    w.ok(idle);
    assert_eq!(w.partition(0).owner.unwrap().session, to_session);
}

#[test]
fn a_failed_owner_leaves_its_segment_to_be_recovered() {
    let mut w = World::new(3, 2, 1);
    let old = w.assign(1);
    w.open();
    let late = w.roll_of(10, Some(next(2)));
    let dead = w.session(1);
    let new = w.session(2);
    let partition = w.partition(0).id;
    let applied = w
        .apply(&[ExpireSession { session: dead }.into(), Assign { partition, expect_epoch: old, session: new }.into()]);
    assert!(applied.results.iter().all(Result::is_ok));
    assert_eq!(w.partition(0).open.unwrap().session, dead, "the new owner did not start it, so it recovers it");
    assert_eq!(w.refused(late), ErrorCode::FencedEpoch);
    let recovered = w.roll_of(12, None);
    w.ok(recovered);
    assert_eq!(w.partition(0).next_offset, 12);
}

#[test]
fn an_owner_that_gives_up_is_assigned_anew() {
    let mut w = World::new(3, 1, 1);
    let p = w.partition(0);
    let session = w.session(1);
    let never = Release { partition: p.id, epoch: p.epoch, session };
    assert_eq!(w.refused(never), ErrorCode::Precondition);
    let epoch = w.assign(1);
    w.open();
    let release = Release { partition: p.id, epoch, session };
    assert_eq!(w.refused(Release { session: SessionId(99), ..release.clone() }), ErrorCode::Precondition);
    w.ok(release.clone());
    w.ok(release.clone());
    assert_eq!(w.partition(0).epoch, epoch);
    let roll = w.roll_of(5, Some(next(2)));
    assert_eq!(w.refused(roll), ErrorCode::Precondition, "nobody is there to start the next segment");
    let plan = plan::expire_and_assign(&w.state, &[]);
    assert!(w.apply(&plan).results[0].is_ok());
    assert_eq!(w.partition(0).epoch, epoch.next().unwrap());
    assert_eq!(w.refused(release), ErrorCode::FencedEpoch);
}

#[test]
fn the_mutant_opens_a_second_segment() {
    #[derive(Clone, Copy, Debug, Default)]
    struct TwoOpen;
    impl Rules for TwoOpen {
        const NAME: &'static str = "two open segments";
        const ONE_OPEN_SEGMENT: bool = false;
    }
    let mut w = World::new(3, 1, 1);
    w.assign(1);
    w.open();
    let late = w.roll_of(10, Some(next(2)));
    w.ok(late.clone());
    let roll = w.roll_of(5, Some(next(3)));
    w.ok(roll);
    let applied = w.state.apply::<TwoOpen>(w.wall, &[late.into()]);
    assert!(applied.results[0].is_ok());
    assert_eq!(w.partition(0).open.unwrap().n, 2, "the segment that was open is forgotten");
}
