use esker_types::entry::NO_SNAPSHOT;
use esker_types::{AllRules, BookieId, InstanceId};

use super::*;

const MS: u64 = 1_000_000;

fn member(i: u8) -> Member {
    Member { bookie: BookieId(i.into()), instance: InstanceId([i; 16]) }
}

fn spec(write: u8, ack: u8) -> SegmentSpec {
    SegmentSpec {
        segment: SegmentId::new(1, 4),
        seg_epoch: Epoch(7),
        quorum: Quorum { write, ack },
        members: (1..=write).map(member).collect(),
        base_offset: 100,
    }
}

fn owner(write: u8, ack: u8) -> Owner<AllRules> {
    Owner::start(spec(write, ack), Epoch(7), OwnerLimits::default())
}

fn draft(offset: Offset) -> Draft {
    let mut draft = Draft::new(EntryKind::Data, offset, 10);
    draft.put(b"0123456789");
    (draft.count, draft.first_ts, draft.max_ts) = (1, offset, offset);
    draft
}

fn append<R: Rules>(owner: &mut Owner<R>, at: Time, n: u64) {
    for _ in 0..n {
        let offset = owner.next_offset();
        owner.append(at, draft(offset));
    }
}

fn answer(i: u8, kind: AddAnswerKind) -> AddAnswer {
    AddAnswer { segment: SegmentId::new(1, 4), instance: member(i).instance, req_epoch: Epoch(7), kind }
}

fn ok<R: Rules>(owner: &mut Owner<R>, at: Time, i: u8, durable: u64) {
    owner.on_answer(at, &answer(i, AddAnswerKind::Ok { durable }));
}

/// Effects in short: `s2:5` = entry 5 sent to member 2, `a5` = entry 5 acked, `x2` = member 2 abandoned.
fn effects<R: Rules>(owner: &mut Owner<R>) -> Vec<String> {
    let mut out = Vec::new();
    while let Some(effect) = owner.poll() {
        out.push(match effect {
            OwnerEffect::Send(add) => format!("s{}:{}", add.member.bookie, add.entry.header.entry),
            OwnerEffect::Acked(entry) => format!("a{}", entry.header.entry),
            OwnerEffect::Abandoned { member, .. } => format!("x{}", member.bookie),
            OwnerEffect::QuorumLost => "quorum lost".to_owned(),
            OwnerEffect::Fenced { max_epoch } => format!("fenced {max_epoch}"),
            OwnerEffect::Conflict { member, entry } => format!("conflict {}:{entry}", member.bookie),
        });
    }
    out
}

fn at(ms: u64) -> Time {
    Time(ms * MS)
}

#[test]
fn acks_in_order_once_a_quorum_has_all_below() {
    let mut owner = owner(3, 2);
    append(&mut owner, at(0), 3);
    assert_eq!(effects(&mut owner), ["s1:0", "s2:0", "s3:0", "s1:1", "s2:1", "s3:1", "s1:2", "s2:2", "s3:2"]);
    ok(&mut owner, at(1), 1, 3);
    assert_eq!(effects(&mut owner), [""; 0]);
    ok(&mut owner, at(1), 2, 2);
    assert_eq!(effects(&mut owner), ["a0", "a1"]);
    ok(&mut owner, at(1), 2, 1); // overtaken
    ok(&mut owner, at(1), 3, 3);
    assert_eq!(effects(&mut owner), ["a2"]);
    assert_eq!((owner.lac(), owner.acked_end(), owner.unacked()), (3, 103, (0, 0)));
}

#[test]
fn answers_of_other_epochs_segments_and_strangers_count_nothing() {
    let mut owner = owner(1, 1);
    append(&mut owner, at(0), 1);
    effects(&mut owner);
    let good = answer(1, AddAnswerKind::Ok { durable: 1 });
    owner.on_answer(at(1), &AddAnswer { req_epoch: Epoch(6), ..good });
    owner.on_answer(at(1), &AddAnswer { segment: SegmentId::new(1, 3), ..good });
    owner.on_answer(at(1), &AddAnswer { instance: InstanceId([9; 16]), ..good });
    assert_eq!(effects(&mut owner), [""; 0]);
    owner.on_answer(at(1), &good);
    assert_eq!(effects(&mut owner), ["a0"]);
}

#[test]
fn a_gap_is_filled_once_and_its_echoes_are_ignored() {
    let mut owner = owner(1, 1);
    append(&mut owner, at(0), 4);
    effects(&mut owner);
    owner.on_answer(at(1), &answer(1, AddAnswerKind::Gap { accepted: 1 }));
    assert_eq!(effects(&mut owner), ["s1:1", "s1:2", "s1:3"]);
    owner.on_answer(at(1), &answer(1, AddAnswerKind::Gap { accepted: 1 }));
    owner.on_answer(at(1), &answer(1, AddAnswerKind::Gap { accepted: 1 }));
    assert_eq!(effects(&mut owner), [""; 0]);
    ok(&mut owner, at(2), 1, 4);
    assert_eq!(effects(&mut owner), ["a0", "a1", "a2", "a3"]);
}

#[test]
fn a_new_connection_gets_what_is_not_durable() {
    let mut owner = owner(1, 1);
    append(&mut owner, at(0), 3);
    ok(&mut owner, at(1), 1, 1);
    effects(&mut owner);
    owner.on_link(at(1), member(1).instance, false);
    append(&mut owner, at(1), 1);
    assert_eq!(effects(&mut owner), [""; 0]);
    owner.on_link(at(2), member(1).instance, true);
    assert_eq!(effects(&mut owner), ["s1:1", "s1:2", "s1:3"]);
}

#[test]
fn bytes_in_flight_to_a_member_are_bounded() {
    let limits = OwnerLimits { in_flight_bytes: 2 * 94, ..OwnerLimits::default() };
    let mut owner = Owner::<AllRules>::start(spec(1, 1), Epoch(7), limits);
    append(&mut owner, at(0), 4);
    assert_eq!(effects(&mut owner), ["s1:0", "s1:1"]);
    ok(&mut owner, at(1), 1, 1);
    assert_eq!(effects(&mut owner), ["a0", "s1:2"]);
}

#[test]
fn a_silent_member_is_abandoned_only_while_the_others_can_ack() {
    let mut owner = owner(3, 2);
    append(&mut owner, at(0), 1);
    ok(&mut owner, at(1), 1, 1);
    ok(&mut owner, at(1), 2, 1);
    effects(&mut owner);
    owner.tick(at(600));
    assert_eq!(effects(&mut owner), ["s3:0"], "sent again, should it have been lost");
    owner.tick(at(1_000));
    assert_eq!(effects(&mut owner), ["x3"]);
    append(&mut owner, at(1_000), 1);
    assert_eq!(effects(&mut owner), ["s1:1", "s2:1"]);
    ok(&mut owner, at(1_001), 1, 2);
    effects(&mut owner);
    owner.tick(at(2_001));
    assert_eq!(effects(&mut owner), ["quorum lost", "s2:1"], "member 2 is needed");
    assert_eq!(owner.suspects(at(2_001)).map(|m| m.bookie.0).collect::<Vec<_>>(), [2, 3]);
    ok(&mut owner, at(2_002), 2, 2);
    assert_eq!(effects(&mut owner), ["a1"]);
}

#[test]
fn a_member_that_refuses_is_abandoned_and_a_lost_quorum_is_said_at_once() {
    let mut owner = owner(2, 2);
    append(&mut owner, at(0), 1);
    effects(&mut owner);
    owner.on_answer(at(1), &answer(2, AddAnswerKind::ReadOnly));
    assert_eq!(effects(&mut owner), ["x2", "quorum lost"]);
}

#[test]
fn a_member_too_far_behind_is_abandoned_and_what_it_needed_is_forgotten() {
    let limits = OwnerLimits { kept_bytes: 3 * 94, ..OwnerLimits::default() };
    let mut owner = Owner::<AllRules>::start(spec(3, 2), Epoch(7), limits);
    append(&mut owner, at(0), 5);
    effects(&mut owner);
    ok(&mut owner, at(1), 1, 4);
    ok(&mut owner, at(1), 2, 4);
    assert_eq!(effects(&mut owner), ["a0", "a1", "a2", "a3", "x3"]);
    // Late answers of an abandoned member still count.
    ok(&mut owner, at(2), 3, 5);
    ok(&mut owner, at(2), 1, 5);
    assert_eq!(effects(&mut owner), ["a4"]);
}

#[test]
fn frozen_is_for_ever() {
    let mut owner = owner(3, 2);
    append(&mut owner, at(0), 3);
    ok(&mut owner, at(1), 1, 3);
    ok(&mut owner, at(1), 2, 1);
    effects(&mut owner);
    let closing = owner.freeze(true);
    assert_eq!((closing.entries, closing.end_offset), (1, 101));
    assert_eq!(closing.holders, [member(1), member(2)]);
    assert_eq!(closing.totals, Totals { bytes: 94, first_ts: 100, max_ts: 100, has_data: true });
    ok(&mut owner, at(2), 2, 3);
    ok(&mut owner, at(2), 3, 3);
    owner.on_link(at(3), member(3).instance, true);
    owner.tick(at(5_000));
    assert_eq!(effects(&mut owner), [""; 0]);
    assert_eq!((owner.lac(), owner.freeze(true).entries), (1, 1));

    let again = owner.suffix(closing.entries);
    assert_eq!(again.iter().map(|d| d.base_offset).collect::<Vec<_>>(), [101, 102]);
    let next = SegmentSpec { segment: SegmentId::new(1, 5), base_offset: 101, ..spec(3, 2) };
    let mut next = Owner::<AllRules>::start(next, Epoch(7), OwnerLimits::default());
    for draft in again {
        next.append(at(3), draft);
    }
    assert_eq!((next.assigned(), next.next_offset()), (2, 103));
}

#[test]
fn suffix_leaves_snapshots_out() {
    let mut owner = owner(1, 1);
    let mut snapshot = Draft::new(EntryKind::Snapshot, 100, 4);
    snapshot.put(b"snap");
    assert_eq!(snapshot.snap, NO_SNAPSHOT);
    owner.append(at(0), snapshot);
    append(&mut owner, at(0), 1);
    assert_eq!(owner.suffix(0).len(), 1);
    assert_eq!(owner.assigned_totals().max_ts, 100);
}

#[test]
fn a_second_writer_is_noticed() {
    let mut one = owner(2, 1);
    append(&mut one, at(0), 1);
    effects(&mut one);
    ok(&mut one, at(1), 1, 3);
    assert_eq!(effects(&mut one), ["conflict 1:1"]);
    let mut other = owner(2, 1);
    append(&mut other, at(0), 1);
    effects(&mut other);
    other.on_answer(at(1), &answer(2, AddAnswerKind::Conflict { entry: 0 }));
    ok(&mut other, at(1), 1, 1);
    assert_eq!(effects(&mut other), ["conflict 2:0"], "nothing is acked after that");
}

#[test]
fn fenced_is_passed_on() {
    let mut owner = owner(2, 1);
    append(&mut owner, at(0), 1);
    effects(&mut owner);
    owner.on_answer(at(1), &answer(2, AddAnswerKind::Fenced { max_epoch: Epoch(8) }));
    assert_eq!(effects(&mut owner), ["fenced 8"]);
}

#[test]
fn deadlines_lie_ahead_also_while_a_link_is_down() {
    let mut owner = owner(1, 1);
    assert_eq!(owner.deadline(), None);
    owner.on_link(at(0), member(1).instance, false);
    append(&mut owner, at(0), 1);
    for _ in 0..5 {
        let due = owner.deadline().expect("something is in flight");
        owner.tick(due);
        assert!(owner.deadline().expect("still") > due);
    }
}

#[test]
fn broken_connections_cost_the_quorum_after_a_short_grace() {
    let mut owner = owner(3, 2);
    for i in [2, 3] {
        owner.on_link(at(0), member(i).instance, false);
    }
    append(&mut owner, at(10), 1);
    assert_eq!(effects(&mut owner), ["s1:0"]);
    assert_eq!(owner.deadline(), Some(at(100)));
    owner.tick(at(100));
    assert_eq!(effects(&mut owner), ["quorum lost"]);
    assert!(owner.deadline() > Some(at(100)));
    assert_eq!(owner.suspects(at(100)).map(|m| m.bookie.0).collect::<Vec<_>>(), [2, 3]);
    owner.on_link(at(150), member(2).instance, true);
    assert_eq!(effects(&mut owner), ["s2:0"]);
    ok(&mut owner, at(151), 1, 1);
    ok(&mut owner, at(151), 2, 1);
    assert_eq!(effects(&mut owner), ["a0"]);
}

#[test]
fn one_broken_connection_costs_nothing_while_the_others_ack() {
    let mut owner = owner(3, 2);
    owner.on_link(at(0), member(3).instance, false);
    append(&mut owner, at(10), 1);
    ok(&mut owner, at(11), 1, 1);
    ok(&mut owner, at(11), 2, 1);
    effects(&mut owner);
    owner.tick(at(200));
    assert_eq!(effects(&mut owner), [""; 0], "it may come back: not abandoned before the time-out");
    owner.tick(at(1_010));
    assert_eq!(effects(&mut owner), ["x3"]);
    assert_eq!(owner.suspects(at(1_020)).count(), 1);
    owner.on_link(at(1_030), member(3).instance, true);
    assert_eq!(owner.suspects(at(1_040)).count(), 0, "good enough for the next segment");
}
