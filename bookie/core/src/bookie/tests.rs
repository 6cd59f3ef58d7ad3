use bytes::Bytes;
use esker_types::{AllRules, Epoch, InstanceId, PartitionId, Rules, checksum};

use super::*;
use crate::journal::restart::{Evidence, Verdict};
use crate::testing::{CONN, IDS, Node, add, entry_bytes, seg};
use crate::wire::Add;
use crate::wire::{AddStatusKind::*, FenceItem, FenceRequest, FenceVerdict, Read, ReadStatus};

fn node() -> Node<AllRules> {
    Node::fresh(Limits::default())
}

fn verdicts<R: Rules>(node: &mut Node<R>) -> Vec<FenceVerdict> {
    node.poll();
    node.fenced.drain(..).flat_map(|(_, results)| results).map(|result| result.verdict).collect()
}

#[test]
fn an_entry_is_confirmed_after_its_fsync_once_per_group() {
    let mut node = node();
    for entry in 0..3 {
        node.add(seg(1, 1), entry, 1);
    }
    node.add(seg(2, 1), 0, 1);
    let write = node.state.next_write().expect("a group");
    assert_eq!(node.answers(), vec![], "nothing is said before the fsync");
    node.disk.write(&write);
    node.state.on_written(write.head.lsn);
    assert_eq!(node.answers(), vec![(Ok, 3), (Ok, 1)]);
    assert_eq!(node.state.segment(seg(1, 1)), Some((3, 3, false)));
}

#[test]
fn each_refusal_of_an_add() {
    let mut node = node();
    let s = seg(1, 1);
    let wrong = Add { instance: InstanceId([9; 16]), ..add(s, 0, 5) };
    node.state.on_add(CONN, wrong);
    assert_eq!(node.answers(), vec![(WrongInstance, 0)]);
    node.add(s, 1, 5);
    assert_eq!(node.answers(), vec![(Gap, 0)]);
    node.add(s, 0, 5);
    node.add(s, 2, 5);
    assert_eq!(node.answers(), vec![(Gap, 1)], "accepted counts, durable or not");
    let mut other = add(s, 0, 5);
    other.crc ^= 1;
    node.state.on_add(CONN, other.clone());
    assert_eq!(node.answers(), vec![(Conflict, 0)]);
    node.pump();
    assert_eq!(node.answers(), vec![(Ok, 1)]);
    node.fence(s, 7);
    node.add(s, 1, 6);
    assert_eq!(node.answers(), vec![(Fenced, 1)], "a fence counts before it is durable");
    assert_eq!(node.state.max_epoch(PartitionId(1)), Epoch(7));
    node.add(s, 1, 9);
    assert_eq!(node.state.max_epoch(PartitionId(1)), Epoch(7), "an ADD never moves the fence");
    node.pump();
    node.answers();
    node.state.set_space(SpaceLevel::NoAdds);
    node.add(s, 2, 9);
    assert_eq!(node.answers(), vec![(ReadOnly, 2)]);
    node.state.on_add(CONN, Add { recovery: true, ..add(s, 2, 9) });
    node.pump();
    assert_eq!(node.answers(), vec![(Ok, 3)]);
    node.state.set_space(SpaceLevel::NoRecovery);
    node.state.on_add(CONN, Add { recovery: true, ..add(s, 3, 9) });
    assert_eq!(node.answers(), vec![(ReadOnly, 3)]);
    node.fence(s, 10);
    node.pump();
    assert_eq!(verdicts(&mut node).len(), 2, "a full disk still fences");
    node.state.set_space(SpaceLevel::All);
    node.state.on_write_failed();
    node.add(s, 3, 10);
    assert_eq!(node.answers(), vec![(ReadOnly, 3)]);
}

#[test]
fn entries_that_come_twice_are_compared_from_memory_or_from_the_file() {
    let mut node = Node::<AllRules>::fresh(Limits { recent_crcs: 2, ..Limits::default() });
    let s = seg(1, 1);
    (0..4).for_each(|entry| node.add(s, entry, 1));
    node.add(s, 1, 2);
    assert_eq!(node.answers(), vec![], "not durable yet: the answer comes with the group");
    node.pump();
    assert_eq!(node.answers(), vec![(Ok, 4), (Ok, 4)], "one for each epoch that asked");
    for entry in 0..4 {
        node.add(s, entry, 2);
        assert_eq!(node.answers(), vec![(Ok, 4)], "entry {entry}");
        let mut other = add(s, entry, 2);
        other.crc ^= 1;
        node.state.on_add(CONN, other);
        assert_eq!(node.answers(), vec![(Conflict, entry)]);
    }
}

#[test]
fn a_fence_waits_for_the_adds_before_it_and_for_its_own_fsync() {
    let mut node = node();
    let s = seg(1, 1);
    node.add(s, 0, 1);
    node.fence(s, 2);
    node.add(s, 1, 1);
    assert_eq!(verdicts(&mut node), vec![]);
    node.pump();
    assert_eq!(verdicts(&mut node), vec![FenceVerdict::Ok { durable: 1, lac: 0, limbo: false }]);
    node.fence(s, 1);
    assert_eq!(verdicts(&mut node), vec![FenceVerdict::Fenced { max_epoch: Epoch(2) }]);
    node.fence(seg(7, 3), 4);
    node.pump();
    assert_eq!(verdicts(&mut node), vec![FenceVerdict::Ok { durable: 0, lac: 0, limbo: false }], "unknown: fenced too");
    node.add(seg(7, 1), 0, 3);
    let wrong = FenceItem { instance: InstanceId([9; 16]), segment: s, epoch: Epoch(9) };
    node.state.on_fence(Ticket(1), FenceRequest { items: vec![wrong] });
    assert_eq!(verdicts(&mut node), vec![FenceVerdict::WrongInstance]);
    assert_eq!(node.state.max_epoch(PartitionId(1)), Epoch(2), "another instance's fence does nothing");
    node.fence(s, 3);
    node.state.on_write_failed();
    node.pump();
    assert_eq!(verdicts(&mut node), vec![], "a failed journal answers no fence");
}

#[test]
fn fences_and_entries_survive_restarts_and_file_changes() {
    let limits = Limits { file_bytes: 3 * 4096, ..Limits::default() };
    let mut node = Node::<AllRules>::fresh(limits);
    let s = seg(1, 1);
    for entry in 0..40 {
        node.add(s, entry, 3);
        node.fence(seg(entry, 1), 3);
        node.pump();
    }
    assert!(node.started.len() > 10, "{} files", node.started.len());
    for _ in 0..3 {
        let (again, restored) = Node::<AllRules>::boot(node.disk, limits, BootFacts::default(), &Evidence::default());
        node = again;
        assert_eq!(restored.verdict, Verdict::Clean);
        assert_eq!(node.state.segment(s), Some((40, 40, false)));
        assert!((0..40).all(|p| node.state.max_epoch(PartitionId(p)) == Epoch(3)));
        let all = node.read(s, 0, u64::MAX);
        assert_eq!((all.status, all.next), (ReadStatus::Data, 40));
        for (entry, bytes) in all.entries.iter().enumerate() {
            assert_eq!(*bytes, entry_bytes(s, entry as u64));
        }
        assert_eq!(node.read(s, 40, u64::MAX).status, ReadStatus::NoSuchEntry);
    }
    node.add(s, 40, 3);
    node.pump();
    assert_eq!(node.answers(), vec![(Ok, 41)]);
}

#[test]
fn reads_are_bounded_and_refuse_another_instance() {
    let mut node = node();
    let s = seg(1, 1);
    node.add(s, 0, 1);
    assert_eq!(node.read(s, 0, 1).status, ReadStatus::NoSuchEntry, "accepted is not durable");
    node.pump();
    (1..9).for_each(|entry| node.add(s, entry, 1));
    node.pump();
    assert_eq!(node.read(s, 2, 4).entries, vec![entry_bytes(s, 2), entry_bytes(s, 3)]);
    assert_eq!(node.read(seg(5, 5), 0, 1).status, ReadStatus::NoSuchEntry);
    let read = Read { instance: InstanceId([9; 16]), segment: s, from: 0, to: 1, max_bytes: 1 };
    let ReadPlan::Answer(answer) = node.state.plan_read(&read) else { panic!("no file is asked") };
    assert_eq!(answer.status, ReadStatus::WrongInstance);
    let one = Read { instance: IDS.instance, max_bytes: 0, to: u64::MAX, ..read };
    let ReadPlan::Fetch(fetch) = node.state.plan_read(&one) else { panic!("durable") };
    assert_eq!(fetch.run(&node.disk).response.entries.len(), 1, "at least one, whatever the bound");
}

#[test]
fn damage_puts_a_copy_in_limbo_until_it_is_repaired() {
    let mut node = node();
    let s = seg(1, 1);
    (0..5).for_each(|entry| node.add(s, entry, 1));
    node.pump();
    let file = *node.started.last().expect("one file");
    let bytes = entry_bytes(s, 2);
    let content = node.disk.files.get_mut(&file).expect("there");
    let at = content.windows(bytes.len()).position(|window| *window == bytes[..]).expect("stored");
    content[at + 90] ^= 1;
    let read = Read { instance: IDS.instance, segment: s, from: 2, to: 3, max_bytes: 1 };
    let ReadPlan::Fetch(fetch) = node.state.plan_read(&read) else { panic!("durable") };
    let fetched = fetch.run(&node.disk);
    assert_eq!(fetched.response.status, ReadStatus::Damaged);
    assert!(node.state.on_damage(fetched.damage.expect("told")));
    assert_eq!(node.state.damaged(s), vec![2]);
    assert_eq!(node.read(s, 3, 4).status, ReadStatus::Data, "what verifies is served");
    assert_eq!(node.read(s, 9, 10).status, ReadStatus::Limbo);
    node.add(s, 5, 1);
    node.fence(s, 2);
    node.pump();
    assert_eq!(node.answers().last(), Some(&(Limbo, 5)));
    assert!(matches!(verdicts(&mut node)[..], [FenceVerdict::Ok { limbo: true, .. }]));
    assert!(matches!(node.state.clear_limbo(s, 5), Err(Refused::Incomplete { missing: 2, .. })));

    // Still so after a restart, with the file footered or not.
    let (mut node, restored) =
        Node::<AllRules>::boot(node.disk, Limits::default(), BootFacts::default(), &Evidence::default());
    assert!(matches!(restored.verdict, Verdict::Loss { unknown: false, .. }), "{:?}", restored.verdict);
    assert_eq!(node.read(s, 2, 3).status, ReadStatus::Damaged);
    assert!(matches!(node.state.repair(s, 2, 0, bytes.clone()), Err(Refused::Crc { .. })));
    node.state.repair(s, 2, checksum::crc32c(&bytes), bytes.clone()).expect("limbo takes repairs");
    node.pump();
    node.state.clear_limbo(s, 5).expect("whole again");
    assert_eq!(node.state.segment(s).map(|s| s.2), Some(true), "not before its record is durable");
    node.pump();
    assert_eq!(node.state.segment(s), Some((5, 5, false)));
    assert_eq!(node.read(s, 0, 5).entries.len(), 5);
    let (node, restored) =
        Node::<AllRules>::boot(node.disk, Limits::default(), BootFacts::default(), &Evidence::default());
    assert_eq!(restored.verdict, Verdict::Clean, "repaired for good");
    assert_eq!(node.state.segment(s), Some((5, 5, false)));
}

#[test]
fn dropped_segments_free_their_files_and_stay_dropped() {
    let limits = Limits { file_bytes: 4 * 4096, ..Limits::default() };
    let mut node = Node::<AllRules>::fresh(limits);
    let (gone, kept) = (seg(1, 1), seg(2, 1));
    node.add(kept, 0, 1);
    for entry in 0..20 {
        node.add(gone, entry, 1);
        node.pump();
    }
    node.fence(gone, 4);
    node.add(gone, 20, 4);
    assert_eq!(node.state.drop_segment(gone), Err(Refused::Busy));
    node.pump();
    node.state.drop_segment(gone).expect("known and quiet");
    node.pump();
    assert_eq!(node.read(gone, 0, 1).status, ReadStatus::NoSuchEntry);
    node.state.roll();
    node.pump();
    let files = node.disk.files.len();
    assert!(node.unlinked.len() >= 4, "{:?}", node.unlinked);
    let (mut node, restored) = Node::<AllRules>::boot(node.disk, limits, BootFacts::default(), &Evidence::default());
    assert_eq!(restored.verdict, Verdict::Clean);
    assert_eq!(node.state.segment(gone), None, "{files} files");
    assert_eq!(node.state.max_epoch(PartitionId(1)), Epoch(4), "the fence outlives the segment");
    assert_eq!(node.read(kept, 0, 1).entries.len(), 1);
    node.add(gone, 0, 4);
    node.pump();
    assert_eq!(node.answers(), vec![(Ok, 1)], "a repair may bring the copy back");
    let (node, _) = Node::<AllRules>::boot(node.disk, limits, BootFacts::default(), &Evidence::default());
    assert_eq!(node.state.segment(gone), Some((1, 1, false)));
}

#[test]
fn copying_forward_frees_a_file_that_still_counts() {
    let limits = Limits { file_bytes: 4 * 4096, ..Limits::default() };
    let mut node = Node::<AllRules>::fresh(limits);
    let (old, busy) = (seg(1, 1), seg(2, 1));
    (0..3).for_each(|entry| node.add(old, entry, 1));
    for entry in 0..12 {
        node.add(busy, entry, 1);
        node.pump();
    }
    let first = node.state.file_uses()[0];
    for (segment, _) in node.state.segments_in(first.id.seq) {
        for (from, to) in node.state.entries_in(segment, first.id.seq) {
            for entry in from..to {
                let bytes: Bytes = node.read(segment, entry, entry + 1).entries.remove(0);
                node.state.copy_forward(segment, entry, checksum::crc32c(&bytes), bytes).expect("room");
            }
        }
        node.state.retire_when_durable(segment, first.id.seq);
        assert!(!node.state.entries_in(segment, first.id.seq).is_empty(), "the copies are not durable yet");
    }
    node.pump();
    assert_eq!(node.state.file_uses()[0].live, 0);
    node.state.roll();
    node.pump();
    assert!(node.unlinked.contains(&first.id));
    for _ in 0..2 {
        assert_eq!(node.read(old, 0, 9).entries, (0..3).map(|e| entry_bytes(old, e)).collect::<Vec<_>>());
        assert_eq!(node.read(busy, 0, 99).entries.len(), 12);
        node = Node::boot(node.disk, limits, BootFacts::default(), &Evidence::default()).0;
    }
}

#[test]
fn a_partition_is_forgotten_only_without_segments() {
    let mut node = node();
    node.add(seg(1, 1), 0, 1);
    node.fence(seg(1, 1), 2);
    node.pump();
    assert_eq!(node.state.forget_partition(PartitionId(1)), Err(Refused::InUse));
    node.state.drop_segment(seg(1, 1)).expect("held");
    node.state.forget_partition(PartitionId(1)).expect("free");
    node.pump();
    let (node, _) = Node::<AllRules>::boot(node.disk, Limits::default(), BootFacts::default(), &Evidence::default());
    assert_eq!(node.state.max_epoch(PartitionId(1)), Epoch(0));
}

#[test]
fn boot_raises_epochs_and_makes_them_durable_before_it_opens() {
    let facts = BootFacts { open: vec![(seg(1, 4), Epoch(8))], named: vec![] };
    let (mut node, _) = Node::<AllRules>::boot(Default::default(), Limits::default(), facts, &Evidence::default());
    node.add(seg(1, 4), 0, 7);
    assert_eq!(node.answers(), vec![(Fenced, 0)]);
    let (node, _) = Node::<AllRules>::boot(node.disk, Limits::default(), BootFacts::default(), &Evidence::default());
    assert_eq!(node.state.max_epoch(PartitionId(1)), Epoch(8));
}

#[test]
fn a_rolled_back_disk_puts_everything_that_is_named_into_limbo() {
    let mut node = node();
    node.add(seg(1, 1), 0, 1);
    node.pump();
    let old = node.disk.clone();
    node.add(seg(1, 1), 1, 1);
    node.add(seg(2, 1), 0, 1);
    node.pump();
    let evidence = Evidence { metadata_lsn: node.state.durable_lsn(), superblock: None };
    let facts = BootFacts { open: vec![(seg(2, 1), Epoch(1))], named: vec![seg(3, 9)] };
    let (mut node, restored) = Node::<AllRules>::boot(old, Limits::default(), facts, &evidence);
    assert!(restored.needs_names());
    for segment in [seg(1, 1), seg(2, 1), seg(3, 9)] {
        assert_eq!(node.read(segment, 5, 6).status, ReadStatus::Limbo, "{segment}");
    }
    assert_eq!(node.read(seg(1, 1), 0, 1).status, ReadStatus::Data);
    assert!(node.state.durable_lsn() > evidence.metadata_lsn, "what was reported is never below");
    node.add(seg(9, 9), 0, 1);
    node.pump();
    assert_eq!(node.answers(), vec![(Ok, 1)], "a segment opened after the boot is whole");
    let (node, restored) =
        Node::<AllRules>::boot(node.disk, Limits::default(), BootFacts::default(), &Evidence::default());
    assert_eq!(restored.verdict, Verdict::Clean);
    assert_eq!(node.state.limbo_segments().count(), 3, "limbo outlives restarts");
}

macro_rules! mutant {
    ($name:ident, $rule:ident) => {
        #[derive(Clone, Copy, Debug, Default)]
        struct $name;
        impl Rules for $name {
            const NAME: &'static str = stringify!($rule);
            const $rule: bool = false;
        }
    };
}

mutant!(NoFsync, ACK_AFTER_FSYNC);
mutant!(FenceNotDurable, FENCE_DURABLE);
mutant!(FenceAhead, FENCE_BEHIND_ADDS);
mutant!(NoIdentity, INSTANCE_IDENTITY);
mutant!(LimboKnows, LIMBO_IS_UNKNOWN);
mutant!(FencesDie, FENCES_SURVIVE_GC);
mutant!(NoBootEpochs, EPOCHS_READ_AT_BOOT);

#[test]
fn each_mutant_breaks_its_rule_and_only_that() {
    let limits = Limits::default();
    let s = seg(1, 1);
    let mut node = Node::<NoFsync>::fresh(limits);
    node.add(s, 0, 1);
    assert_eq!(node.answers(), vec![(Ok, 1)]);

    let mut node = Node::<FenceNotDurable>::fresh(limits);
    node.add(s, 0, 1);
    node.fence(s, 2);
    node.pump();
    assert_eq!(verdicts(&mut node), vec![FenceVerdict::Ok { durable: 1, lac: 0, limbo: false }]);
    let (node, _) = Node::<FenceNotDurable>::boot(node.disk, limits, BootFacts::default(), &Evidence::default());
    assert_eq!(node.state.max_epoch(PartitionId(1)), Epoch(0));

    let mut node = Node::<FenceAhead>::fresh(limits);
    node.add(s, 0, 1);
    node.fence(s, 2);
    node.pump();
    assert_eq!(verdicts(&mut node), vec![FenceVerdict::Ok { durable: 0, lac: 0, limbo: false }]);

    let mut node = Node::<NoIdentity>::fresh(limits);
    node.state.on_add(CONN, Add { instance: InstanceId([9; 16]), ..add(s, 0, 5) });
    node.pump();
    assert_eq!(node.answers(), vec![(Ok, 1)]);

    let evidence = Evidence { metadata_lsn: Lsn(1 << 20), superblock: None };
    let facts = BootFacts { open: vec![(s, Epoch(1))], named: vec![] };
    let (mut node, _) = Node::<LimboKnows>::boot(Default::default(), limits, facts.clone(), &evidence);
    assert_eq!(node.read(s, 0, 1).status, ReadStatus::NoSuchEntry);

    let mut node = Node::<FencesDie>::fresh(limits);
    node.fence(s, 2);
    node.pump();
    node.state.roll();
    node.pump();
    let (node, _) = Node::<FencesDie>::boot(node.disk, limits, BootFacts::default(), &Evidence::default());
    assert_eq!(node.state.max_epoch(PartitionId(1)), Epoch(0));

    let (node, _) = Node::<NoBootEpochs>::boot(Default::default(), limits, facts, &Evidence::default());
    assert_eq!(node.state.max_epoch(PartitionId(1)), Epoch(0));
}
