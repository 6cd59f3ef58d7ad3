//! Each step of a partition's life, with the exact effects.

use esker_bookie_core::owner::{AddAnswer, AddAnswerKind};
use esker_metadata_core::{Assign, Change, ClosedSegment, Command, LastClosed, ObjectPlace, PartitionRecord, State};
use esker_types::{Epoch, ErrorCode, ObjectKey, Offset, Quorum, SegmentId, Time, WallMs};

use super::desk::Desk;
use super::world::{batch, instance};
use crate::partition::*;

#[test]
fn the_first_append_opens_a_segment_and_is_answered_at_the_ack_quorum() {
    let mut desk = Desk::new();
    assert_eq!(desk.partition.phase(), Phase::Ready { epoch: Epoch(1) });
    assert_eq!(desk.append(), ["pick 3 without []"]);
    assert_eq!(desk.append(), [""; 0]);
    assert_eq!(desk.members(&[1, 2, 3]), ["open"]);
    assert_eq!(desk.applied(), ["read record"]);
    let started = ["add 1 1/0", "add 2 1/0", "add 3 1/0", "add 1 1/1", "add 2 1/1", "add 3 1/1"];
    assert_eq!(desk.read_record(), started, "entry 0 is the snapshot, entry 1 holds both batches");
    assert_eq!(desk.ok(2, 1, 2), [""; 0]);
    assert_eq!(desk.ok(3, 1, 2), ["committed 0", "1 at 0", "2 at 1", "high 2"]);
    assert_eq!(desk.partition.bounds().map(|b| (b.log_start, b.high_watermark)), Ok((0, 2)));
    assert_eq!(desk.partition.started_upto(), 1);
}

#[test]
fn repeated_batches_wait_for_the_first_or_get_its_offset() {
    let mut desk = Desk::new().opened(1);
    desk.append();
    let again = Event::Append { ticket: 90, batch: batch(0, 1, 1) };
    assert_eq!(desk.event(again), [""; 0]);
    desk.ok(1, 1, 3);
    assert_eq!(desk.ok(2, 1, 3), ["committed 1", "2 at 1", "90 at 1 again", "high 2"]);
    let again = Event::Append { ticket: 91, batch: batch(0, 0, 1) };
    assert_eq!(desk.event(again), ["91 at 0 again"]);
    let gap = Event::Append { ticket: 92, batch: batch(0, 7, 1) };
    assert_eq!(desk.event(gap), ["92 OutOfOrderSequence"]);
}

#[test]
fn an_open_with_an_unknown_outcome_is_asked_for_again_until_the_record_shows_one() {
    let mut desk = Desk::new();
    desk.append();
    desk.members(&[1, 2, 3]);
    let (tag, late) = (desk.tag(), desk.command());
    assert_eq!(desk.event(Event::Proposed { tag, outcome: ProposeOutcome::Unknown }), ["read record"]);
    assert_eq!(desk.read_record(), [""; 0]);
    assert_eq!(desk.tick(200), ["open"]);
    desk.world.apply(late).expect("the first try comes through after all");
    let (tag, command) = (desk.tag(), desk.command());
    let reject = desk.world.apply(command).expect_err("so the second can't");
    let outcome = ProposeOutcome::Rejected { code: reject.code, reason: reject.reason };
    assert_eq!(desk.event(Event::Proposed { tag, outcome }), ["read record"]);
    assert_eq!(desk.read_record().len(), 6, "the record decides: it is written");
}

#[test]
fn a_full_segment_is_rolled_and_nothing_waits_longer_than_needed() {
    let mut desk = Desk::with(|_| {}, |s| s.segment_bytes = 400).opened(1);
    desk.ok(3, 1, 2);
    desk.now = Time::from_millis(1_000);
    assert_eq!(desk.append(), ["add 1 1/2", "add 2 1/2", "add 3 1/2"]);
    desk.ok(1, 1, 3);
    assert_eq!(desk.ok(2, 1, 3), ["committed 1", "2 at 1", "high 2", "pick 3 without []"]);
    desk.append();
    assert_eq!(desk.members(&[2, 3, 4]), ["read record"]);
    assert_eq!(desk.read_record(), [""; 0], "waits for what is in flight");
    assert_eq!(desk.append(), [""; 0], "held for the next segment");
    assert_eq!(desk.partition.deadline(), Some(Time::from_millis(1_050)));
    desk.ok(1, 1, 4);
    assert_eq!(desk.ok(2, 1, 4), ["committed 2", "3 at 2", "high 3", "roll"]);
    let Command::Roll(roll) = desk.command() else { panic!("roll") };
    assert_eq!((roll.close.last, roll.close.end_offset, roll.close.holders.len()), (Some(3), 3, 2));
    assert_eq!((roll.close.first_ts, roll.close.max_ts), (1_000, 1_002));
    assert_eq!(desk.applied(), ["read record"]);
    let next = desk.read_record();
    assert_eq!(next[..6], ["add 2 2/0", "add 3 2/0", "add 4 2/0", "add 2 2/1", "add 3 2/1", "add 4 2/1"]);
    let closed = desk.world.state.segment(SegmentId { partition: desk.id(), n: 1 }).expect("closed").clone();
    assert_eq!((closed.last, closed.base_offset, closed.end_offset), (3, 0, 3));
}

#[test]
fn unknown_outcomes_never_thaw_and_the_end_stays_the_same() {
    let mut desk = Desk::with(|c| c.metadata_retry = std::time::Duration::from_millis(100), |s| s.segment_bytes = 400);
    desk = desk.opened(1);
    desk.ok(3, 1, 2);
    desk.now = Time::from_millis(1_000);
    desk.append();
    for bookie in [1, 2, 3] {
        desk.ok(bookie, 1, 3);
    }
    desk.append();
    desk.members(&[2, 3, 4]);
    desk.read_record();
    assert_eq!(desk.tick(1_050), ["roll"], "the wait is over: closed without the entry in flight");
    let Command::Roll(first) = desk.command() else { panic!("roll") };
    assert_eq!((first.close.last, first.close.end_offset), (Some(2), 2));
    let tag = desk.tag();
    assert_eq!(desk.event(Event::Proposed { tag, outcome: ProposeOutcome::Unknown }), ["read record"]);
    assert_eq!(desk.read_record(), [""; 0], "still open in the record: that proves nothing");
    for bookie in [1, 2, 3] {
        assert_eq!(desk.ok(bookie, 1, 4), [""; 0], "a late ack moves nothing");
    }
    assert_eq!(desk.tick(1_150), ["roll"]);
    let Command::Roll(second) = desk.command() else { panic!("roll") };
    assert_eq!(second.close, first.close);
    assert_eq!(desk.applied(), ["read record"]);
    let started = desk.read_record();
    assert_eq!(started[..6], ["add 2 2/0", "add 3 2/0", "add 4 2/0", "add 2 2/1", "add 3 2/1", "add 4 2/1"]);
    let resent = desk.effects.iter().find_map(|e| match e {
        Effect::SendAdd(add) if add.entry.header.entry == 1 => Some(add.entry.header.base_offset),
        _ => None,
    });
    assert_eq!(resent, Some(2), "the same offset as before");
    desk.ok(2, 2, 2);
    assert_eq!(desk.ok(3, 2, 2), ["committed 2", "3 at 2", "high 3"]);
}

#[test]
fn a_rejected_roll_gets_other_members_and_the_same_end() {
    let mut desk = Desk::with(|_| {}, |s| s.segment_bytes = 100);
    desk.append();
    desk.members(&[1, 2, 3]);
    desk.applied();
    desk.news();
    desk.ok(1, 1, 2);
    desk.now = Time::from_millis(1_000);
    desk.ok(2, 1, 2);
    assert_eq!(desk.proposed(&[1, 2, 3]), ["roll"]);
    let Command::Roll(first) = desk.command() else { panic!("roll") };
    let tag = desk.tag();
    let outcome = ProposeOutcome::Rejected { code: ErrorCode::Precondition, reason: "bookie lost".to_owned() };
    assert_eq!(desk.event(Event::Proposed { tag, outcome }), ["read record"]);
    assert_eq!(desk.read_record(), ["pick 3 without []"]);
    assert_eq!(desk.members(&[2, 3, 4]), ["roll"]);
    let Command::Roll(second) = desk.command() else { panic!("roll") };
    assert_eq!(second.close, first.close);
    assert_ne!(second.next, first.next);
}

#[test]
fn without_metadata_nothing_is_frozen() {
    let mut desk = Desk::with(|_| {}, |s| s.segment_bytes = 400).opened(1);
    desk.ok(3, 1, 2);
    desk.now = Time::from_millis(1_000);
    desk.append();
    desk.ok(1, 1, 3);
    desk.ok(2, 1, 3);
    desk.members(&[2, 3, 4]);
    let tag = desk.tag();
    assert_eq!(desk.event(Event::RecordRead { tag, result: RecordRead::Failed }), [""; 0]);
    assert_eq!(desk.append(), ["add 1 1/3", "add 2 1/3", "add 3 1/3"], "the open segment goes on");
    let again = desk.tick(2_000);
    assert!(again.last().is_some_and(|last| last.starts_with("pick 3")), "{again:?}");
}

#[test]
fn a_lagging_member_is_left_behind_only_for_a_full_set() {
    let mut desk = Desk::new().opened(1);
    desk.tick(600);
    let lagging = desk.tick(1_000);
    assert_eq!(lagging, ["suspect 3", "pick 3 without [BookieId(3)]"]);
    assert_eq!(desk.members(&[1, 2]), [""; 0], "two members are no better than the two that ack now");
    assert_eq!(desk.tick(2_000), ["pick 3 without [BookieId(3)]"]);
    assert_eq!(desk.proposed(&[1, 2, 4]), ["roll"]);
}

#[test]
fn a_lost_quorum_rolls_at_once_with_fewer_members_if_need_be() {
    let mut desk = Desk::new().opened(1);
    desk.append();
    desk.tick(600);
    let lost = desk.tick(1_000);
    assert_eq!(lost.last().map(String::as_str), Some("pick 3 without [BookieId(1), BookieId(2), BookieId(3)]"));
    assert_eq!(desk.members(&[]), ["pick 3 without []"], "with nobody else, suspects may be named again");
    assert_eq!(desk.members(&[]), [""; 0], "nowhere to go: look again later");
    assert_eq!(
        desk.tick(2_000).last().map(String::as_str),
        Some("pick 3 without [BookieId(1), BookieId(2), BookieId(3)]")
    );
    assert_eq!(desk.proposed(&[1, 4]), ["roll"]);
    desk.applied();
    assert_eq!(desk.read_record(), ["add 1 2/0", "add 4 2/0", "add 1 2/1", "add 4 2/1"]);
    desk.ok(1, 2, 2);
    assert_eq!(desk.ok(4, 2, 2), ["committed 1", "2 at 1", "high 2"]);
    assert_eq!(desk.tick(8_000), ["pick 3 without []"], "degraded: full width is looked for");
}

#[test]
fn a_handover_closes_opens_and_moves_in_one_command_and_copies_nothing() {
    let mut desk = Desk::new().opened(2);
    let target = desk.world.processes[1].session;
    assert_eq!(desk.event(Event::MoveTo { to: target }), ["pick 3 without []"]);
    desk.append(); // in flight when it freezes
    desk.members(&[2, 3, 4]);
    desk.read_record();
    assert_eq!(desk.append(), [""; 0]);
    assert_eq!(desk.tick(50), ["handover"]);
    desk.applied();
    let moved = desk.read_record();
    assert_eq!(moved, [format!("transfer to {target} at 2").as_str(), "3 Moved", "4 NotOwner", "Idle"]);
    let transfer = desk.effects.iter().find_map(|e| match e {
        Effect::SendTransfer { transfer, .. } => Some(transfer.clone()),
        _ => None,
    });

    desk.partition = Desk::process(&desk.world, target, |_| {}, |_| {}, 0);
    assert_eq!(desk.event(Event::Transfer(transfer.expect("sent"))), [""; 0]);
    let taken = desk.news();
    assert_eq!(taken, ["start 0", "high 2", "add 2 2/0", "add 3 2/0", "add 4 2/0", "Ready { epoch: Epoch(2) }"]);
    let again = Event::Append { ticket: 90, batch: batch(0, 1, 1) };
    assert_eq!(desk.event(again), ["90 at 1 again"], "what the old owner knew is known");
    let retry = Event::Append { ticket: 91, batch: batch(0, 2, 1) };
    assert_eq!(desk.event(retry), ["add 2 2/1", "add 3 2/1", "add 4 2/1"], "what it failed is not");
}

#[test]
fn an_idle_partition_moves_without_a_segment() {
    let mut desk = Desk::new();
    let target = desk.world.processes[1].session;
    assert_eq!(desk.event(Event::MoveTo { to: target }), ["pick 3 without []"]);
    assert_eq!(desk.proposed(&[1, 2, 3]), ["handover"]);
    desk.applied();
    assert_eq!(desk.read_record(), ["Idle"]);
    assert!(desk.info().record.open.is_none());
}

#[test]
fn a_segment_is_started_once_by_the_process_it_names() {
    let mut desk = Desk::new();
    desk.append();
    desk.members(&[1, 2, 3]);
    desk.applied();
    desk.read_record();
    let started = desk.partition.started_upto();
    // The same process makes its partition anew: it may not go on.
    desk.partition = Desk::process(&desk.world, desk.session, |_| {}, |_| {}, started);
    assert_eq!(desk.news(), ["need assign", "Stopped { epoch: Epoch(1) }"]);
    // A new epoch lets it recover, like any other.
    let session = desk.session;
    desk.world.apply(Assign { partition: desk.id(), expect_epoch: Epoch(1), session }.into()).expect("assigned");
    assert_eq!(desk.news(), ["fence 1 2", "fence 2 2", "fence 3 2", "Recovering { epoch: Epoch(2) }"]);
}

#[test]
fn fenced_means_over_whatever_older_news_says() {
    let mut desk = Desk::new().opened(1);
    desk.append();
    let segment = SegmentId { partition: desk.id(), n: 1 };
    let kind = AddAnswerKind::Fenced { max_epoch: Epoch(2) };
    let answer = AddAnswer { segment, instance: instance(0), req_epoch: Epoch(1), kind };
    assert_eq!(desk.event(Event::AddAnswer(answer)), ["2 Moved", "Idle"]);
    assert_eq!(desk.news(), [""; 0], "the record still names us at epoch 1");
    assert_eq!(desk.append(), ["3 NotOwner"]);
}

#[test]
fn out_of_range_is_said_only_by_an_owner_that_knows() {
    let mut desk = Desk::new().opened(2);
    let code = |found: Result<Location, Refusal>| found.expect_err("refused").code;
    assert_eq!(code(desk.partition.locate(3)), ErrorCode::OffsetOutOfRange);
    assert_eq!(desk.partition.locate(2), Ok(Location::End));
    let Ok(Location::Segment(place)) = desk.partition.locate(1) else { panic!("there") };
    assert_eq!((place.segment.n, place.entries, place.from_entry, place.open), (1, 3, 0, true));
    let session = desk.session;
    desk.world.apply(Assign { partition: desk.id(), expect_epoch: Epoch(1), session }.into()).expect("assigned");
    desk.news();
    assert_eq!(code(desk.partition.locate(3)), ErrorCode::Recovering);
    assert_eq!(desk.append(), ["3 Recovering"]);
}

#[test]
fn back_pressure_asks_before_it_refuses() {
    let mut desk = Desk::with(|c| c.partition_bytes = 300, |_| {});
    desk.append();
    let mut seen = Vec::new();
    for _ in 0..12 {
        seen.extend(desk.append());
    }
    assert_eq!(seen.first().map(String::as_str), Some("flow false"));
    assert!(seen.iter().any(|s| s.ends_with("Overloaded")), "{seen:?}");
    assert!(!desk.partition.accepting());
    desk.members(&[1, 2, 3]);
    desk.applied();
    desk.news();
    desk.ok(1, 1, 2);
    let freed = desk.ok(2, 1, 2);
    assert!(freed.contains(&"flow true".to_owned()), "{freed:?}");
}

#[test]
fn draining_answers_everything_then_closes() {
    let mut desk = Desk::new().opened(1);
    desk.append();
    assert_eq!(desk.event(Event::Drain), [""; 0]);
    assert_eq!(desk.append(), ["3 ShuttingDown"]);
    desk.ok(1, 1, 3);
    assert_eq!(desk.ok(2, 1, 3), ["committed 1", "2 at 1", "high 2", "read record"]);
    assert_eq!(desk.read_record(), ["roll"]);
    desk.applied();
    assert_eq!(desk.read_record(), ["drained"]);
    assert!(desk.info().record.open.is_none());
}

#[test]
fn an_unused_segment_is_closed_for_its_age_without_a_successor() {
    let mut desk = Desk::new().opened(1);
    desk.ok(3, 1, 2);
    let due = desk.partition.deadline().expect("age").0 / 1_000_000;
    assert!((3_240_000..=3_600_000).contains(&due), "small segments live six times as long: {due}");
    assert_eq!(desk.tick(due + 1), ["read record"]);
    assert_eq!(desk.read_record(), ["roll"]);
    desk.applied();
    assert_eq!(desk.read_record(), [""; 0]);
    assert!(desk.info().record.open.is_none());
}

/// Rolls the open segment `n` (3 members) after one more acked record and acks what the next one begins with.
fn roll_once(desk: &mut Desk, n: u64, entries: u64) {
    desk.now = desk.now + std::time::Duration::from_secs(2);
    desk.append();
    desk.ok(1, n, entries + 1);
    let asked = desk.ok(2, n, entries + 1);
    assert!(asked.iter().any(|s| s.starts_with("pick")), "{asked:?}");
    assert_eq!(desk.proposed(&[1, 2, 3]), ["roll"]);
    desk.applied();
    desk.read_record();
    for bookie in [1, 2, 3] {
        desk.ok(bookie, n + 1, 1);
    }
}

#[test]
fn retention_raises_the_start_then_drops_copies_then_forgets() {
    let mut desk = Desk::with(|c| c.delete_grace_ms = 5_000, |s| (s.segment_bytes, s.retention_bytes) = (360, Some(1)));
    desk = desk.opened(1);
    roll_once(&mut desk, 1, 2);
    roll_once(&mut desk, 2, 1);
    assert_eq!(desk.info().chain.len(), 2);

    assert_eq!(desk.event(Event::Retention { wall: WallMs(1_000_000) }), ["delete-begin"]);
    desk.applied();
    assert_eq!(desk.news(), ["start 3"], "both closed segments are too much for one byte");
    assert_eq!(desk.event(Event::Retention { wall: WallMs(1_010_000) }), [""; 0], "readers get their grace");
    assert_eq!(desk.event(Event::Retention { wall: WallMs(1_015_000) }), ["drop-bookie-copies"]);
    let Command::DropBookieCopies(drop) = desk.command() else { panic!("drop") };
    assert_eq!(drop.upto_n, 2, "the open segment has no acked record: the one before it is the only way back");
    desk.applied();
    desk.news();
    assert_eq!(desk.event(Event::Retention { wall: WallMs(1_016_000) }), ["delete-done"]);
    desk.applied();
    desk.news();
    assert_eq!(desk.info().chain.len(), 1);
    assert_eq!(desk.event(Event::Retention { wall: WallMs(1_030_000) }), [""; 0]);
}

#[test]
fn delete_records_moves_the_start_and_no_further_than_the_end() {
    let mut desk = Desk::new().opened(3);
    assert_eq!(desk.event(Event::DeleteRecords { ticket: 50, before: 4 }), ["50 OffsetOutOfRange"]);
    assert_eq!(desk.event(Event::DeleteRecords { ticket: 51, before: 2 }), ["delete-begin"]);
    assert_eq!(desk.applied(), ["start 2", "51 at 2"]);
    assert_eq!(desk.partition.bounds().map(|b| b.log_start), Ok(2));
    assert_eq!(desk.event(Event::DeleteRecords { ticket: 52, before: 1 }), ["52 at 2 again"]);
}

#[test]
fn a_recovered_owner_knows_sums_and_producers_from_the_last_snapshot_on() {
    let mut desk = Desk::with(|c| c.snapshot_bytes = 400, |_| {});
    desk.append();
    desk.members(&[1, 2, 3]);
    desk.applied();
    desk.news();
    let mut sent = Vec::new();
    for _ in 0..20 {
        desk.append();
        sent.extend(desk.effects.clone());
        let top = sent.iter().filter(|e| matches!(e, Effect::SendAdd(add) if add.member.bookie.0 == 1)).count() as u64;
        desk.ok(1, 1, top + 2);
        desk.ok(2, 1, top + 2);
    }
    let (bounds, info) = (desk.partition.bounds().expect("ready"), desk.info());
    assert_eq!((bounds.high_watermark, info.record.next_offset), (21, 0));
    let snapshots = sent
        .iter()
        .filter(|e| matches!(e, Effect::SendAdd(add) if add.entry.header.kind == esker_types::EntryKind::Snapshot))
        .count();
    assert!(snapshots >= 6, "several snapshots to three members each: {snapshots}");
    let offsets: Vec<Offset> = sent
        .iter()
        .filter_map(|e| match e {
            Effect::SendAdd(add) if add.entry.header.snap > 0 => Some(add.entry.header.base_offset),
            _ => None,
        })
        .collect();
    assert!(!offsets.is_empty(), "later entries name a later snapshot");
}

#[test]
fn rolls_that_bring_nothing_become_rarer() {
    let mut desk = Desk::with(|_| {}, |_| {});
    desk.append();
    desk.members(&[1, 2, 3]);
    desk.applied();
    desk.news();
    let (mut rolls, mut ms) = (Vec::new(), 0);
    while ms < 60_000 {
        ms += 100;
        if desk.tick(ms).iter().any(|s| s.starts_with("pick")) {
            assert_eq!(desk.proposed(&[1, 2, 3]), ["roll"]);
            desk.applied();
            desk.read_record();
            rolls.push(ms);
        }
    }
    assert_eq!(rolls[0], 1_000);
    let gaps: Vec<u64> = rolls.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.is_sorted() && gaps[0] <= 2_000 && gaps.last() >= Some(&8_000), "{gaps:?}");
    let n = desk.info().record.open.as_ref().expect("open").n;
    desk.ok(1, n, 2);
    assert_eq!(desk.ok(2, n, 2), ["committed 0", "1 at 0", "high 1"]);
}

#[test]
fn what_is_carried_over_does_not_fill_the_next_segment_before_it_is_acked() {
    let mut desk = Desk::with(|_| {}, |s| s.segment_bytes = 360).opened(1);
    desk.ok(3, 1, 2);
    desk.now = Time::from_millis(1_000);
    desk.append();
    for bookie in [1, 2, 3] {
        desk.ok(bookie, 1, 3);
    }
    for _ in 0..4 {
        desk.append(); // in flight when the segment is closed
    }
    desk.members(&[1, 2, 3]);
    desk.read_record();
    assert_eq!(desk.tick(1_050), ["roll"]);
    desk.applied();
    desk.read_record();
    assert!(desk.tick(2_060).iter().all(|s| !s.starts_with("pick 3 without []")), "full, and nothing of it acked");
}

/// A partition whose only segment is in the bucket alone, as after a restore, and its records from `log_start` on.
fn in_the_bucket_alone(log_start: i64) -> Desk {
    let mut desk = Desk::new();
    let segment = SegmentId { partition: desk.id(), n: 1 };
    let key = ObjectKey { incarnation: 0, partition: desk.id(), n: 1, epoch: Epoch(1), attempt: 1, shared: false };
    let place = ObjectPlace { key, position: 60, len: 9, footer_position: 69, footer_len: 9, footer_crc: 0, size: 400 };
    let row = ClosedSegment {
        segment,
        seg_epoch: Epoch(1),
        quorum: Quorum { write: 3, ack: 2 },
        members: Vec::new(),
        holders: Vec::new(),
        base_offset: 0,
        end_offset: 9,
        last: 4,
        digest: 7,
        bytes: 900,
        first_ts: 1,
        max_ts: 2,
        opened: WallMs(1),
        closed: WallMs(2),
        ver: 0,
        object: Some(place),
    };
    let mut record = PartitionRecord::clone(&desk.info().record);
    record.last = Some(LastClosed { n: 1, last: 4, end_offset: 9, digest: 7 });
    (record.next_n, record.next_offset, record.log_start) = (2, 9, log_start);
    let state = &desk.world.state;
    let rows = state.rows().chain([Change::Segment(row.into()), Change::Partition(record.into())]);
    desk.world.state = State::from_rows(state.revision() + 1, state.wall(), rows);
    desk.partition = Desk::process(&desk.world, desk.session, |_| {}, |_| {}, 0);
    desk
}

#[test]
fn a_tail_that_no_bookie_has_is_not_asked_for_when_its_records_are_deleted() {
    let mut desk = in_the_bucket_alone(9);
    let news = desk.news();
    assert!(!news.iter().any(|s| s.starts_with("read")), "{news:?}");
    assert!(news.contains(&"Ready { epoch: Epoch(1) }".to_owned()), "{news:?}");
}

#[test]
fn a_tail_that_no_bookie_has_is_read_from_the_bucket() {
    let mut desk = in_the_bucket_alone(0);
    assert_eq!(desk.news(), ["read 0 4..5", "Recovering { epoch: Epoch(1) }"]);
    let (tag, result) = (desk.tag(), EntriesRead::Failed);
    assert_eq!(desk.event(Event::Entries { tag, result }), [""; 0], "it waits");
    assert!(desk.tick(60_000).contains(&"read 0 4..5".to_owned()), "and asks again, beside the alarm");
}
