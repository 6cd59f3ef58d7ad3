use bytes::Bytes;
use esker_types::{AllRules, BookieId, EntryKind, InstanceId, Quorum};

use super::*;
use crate::owner::{Draft, Owner, OwnerEffect, OwnerLimits};

fn member(i: u8) -> Member {
    Member { bookie: BookieId(i.into()), instance: InstanceId([i; 16]) }
}

fn at(ms: u64) -> Time {
    Time::from_millis(ms)
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

/// What a writer wrote: entry 0 a snapshot, then one record each.
fn written(n: u64) -> Vec<Entry> {
    let mut owner = Owner::<AllRules>::start(spec(1, 1), Epoch(7), OwnerLimits::default());
    for e in 0..n {
        let kind = if e == 0 { EntryKind::Snapshot } else { EntryKind::Data };
        let mut draft = Draft::new(kind, owner.next_offset(), 4);
        draft.put(&e.to_le_bytes());
        (draft.count, draft.max_ts, draft.snap) = (u32::from(e > 0), e as i64, 0);
        owner.append(at(0), draft);
    }
    let mut entries = Vec::new();
    while let Some(effect) = owner.poll() {
        if let OwnerEffect::Send(add) = effect {
            entries.push(add.entry);
        }
    }
    entries
}

struct Bench {
    recovery: Recovery<AllRules>,
    log: Vec<Entry>,
    /// Entries that each bookie holds, by number of the bookie.
    held: BTreeMap<u8, u64>,
    done: Option<Closing>,
    rebuilt: Vec<u64>,
    seen: Vec<String>,
}

impl Bench {
    fn new(write: u8, ack: u8, n: u64, held: &[u64]) -> Self {
        let recovery = Recovery::start(at(0), spec(write, ack), Epoch(9), RecoveryLimits::default());
        let held = held.iter().zip(1..).map(|(k, i)| (i, *k)).collect();
        Self { recovery, log: written(n), held, done: None, rebuilt: Vec::new(), seen: Vec::new() }
    }

    fn fence(&mut self, ms: u64, i: u8) {
        self.fence_with(ms, i, 0, false);
    }

    fn fence_with(&mut self, ms: u64, i: u8, lac: u64, limbo: bool) {
        let kind = FenceAnswerKind::Ok { durable: self.held[&i], lac, limbo };
        let (segment, instance) = (SegmentId::new(1, 4), member(i).instance);
        self.recovery.on_fence(at(ms), &FenceAnswer { segment, instance, req_epoch: Epoch(9), kind });
        self.run(ms);
    }

    /// Bookies answer reads and writes at once.
    fn run(&mut self, ms: u64) {
        while let Some(effect) = self.recovery.poll() {
            match effect {
                RecoveryEffect::Read { id, request } => {
                    let i = request.member.bookie.0 as u8;
                    self.seen.push(format!("r{i}:{}", request.from));
                    let end = request.to.min(self.held[&i]);
                    let run = if request.from < end { request.from as usize..end as usize } else { 0..0 };
                    let blobs: Vec<Bytes> = self.log[run].iter().map(|e| e.bytes.clone()).collect();
                    let outcome = if blobs.is_empty() { ReadOutcome::Failed } else { ReadOutcome::Data(blobs) };
                    self.recovery.on_read(at(ms), id, outcome);
                }
                RecoveryEffect::Send(add) => {
                    assert!(add.recovery && add.req_epoch == Epoch(9));
                    let i = add.member.bookie.0 as u8;
                    self.seen.push(format!("w{i}:{}", add.entry.header.entry));
                    let held = self.held.get_mut(&i).expect("known");
                    assert!(add.entry.header.entry <= *held, "write-back keeps the order");
                    *held = (*held).max(add.entry.header.entry + 1);
                    let kind = AddAnswerKind::Ok { durable: *held };
                    let (segment, instance) = (add.segment, add.member.instance);
                    self.recovery.on_answer(at(ms), &AddAnswer { segment, instance, req_epoch: Epoch(9), kind });
                }
                RecoveryEffect::Entry(entry) => self.rebuilt.push(entry.header.entry),
                RecoveryEffect::Restart => self.rebuilt.clear(),
                RecoveryEffect::Done(closing) => self.done = Some(closing),
                RecoveryEffect::Fence { member, .. } => self.seen.push(format!("f{}", member.bookie)),
                other => self.seen.push(format!("{other:?}")),
            }
        }
    }

    fn seen(&mut self) -> Vec<String> {
        std::mem::take(&mut self.seen)
    }
}

#[test]
fn waits_for_coverage_then_writes_the_missing_suffix_back() {
    let mut bench = Bench::new(3, 2, 5, &[5, 3, 0]);
    bench.run(0);
    assert_eq!(bench.seen(), ["f1", "f2", "f3"]);
    bench.fence(1, 1);
    assert_eq!((bench.seen(), bench.done.clone()), (vec![], None), "one answer of three proves nothing");
    bench.fence(2, 2);
    assert_eq!(bench.seen(), ["r1:4", "r1:0", "r1:3", "w2:3", "w2:4"]);
    let done = bench.done.expect("an ack quorum is whole");
    assert_eq!((done.entries, done.end_offset, done.digest), (5, 104, bench.log[4].header.chain));
    assert_eq!(done.holders, [member(1), member(2)]);
    assert_eq!(bench.rebuilt, [0, 1, 2, 3, 4]);
}

#[test]
fn the_end_falls_when_more_answers_prove_it() {
    let mut bench = Bench::new(3, 2, 5, &[5, 3, 3]);
    bench.recovery.on_read(at(0), 77, ReadOutcome::Failed); // unknown id: ignored
    bench.held.insert(1, 0); // the fullest copy answers its fence and then nothing more
    let kind = FenceAnswerKind::Ok { durable: 5, lac: 0, limbo: false };
    let (segment, instance) = (SegmentId::new(1, 4), member(1).instance);
    bench.recovery.on_fence(at(1), &FenceAnswer { segment, instance, req_epoch: Epoch(9), kind });
    bench.fence(2, 2);
    assert_eq!(bench.done, None, "entry 4 can't be read");
    bench.fence(3, 3);
    let done = bench.done.clone().expect("two of three never took entry 3");
    assert_eq!((done.entries, done.holders), (3, vec![member(1), member(2), member(3)]));
    assert_eq!(bench.rebuilt, [0, 1, 2]);
}

#[test]
fn limbo_counts_for_nothing_but_may_give_data() {
    let mut bench = Bench::new(3, 2, 5, &[5, 3, 5]);
    bench.fence_with(1, 3, 0, true);
    bench.fence(2, 2);
    assert_eq!(bench.done, None, "one good answer is no coverage");
    bench.fence(3, 1);
    let done = bench.done.expect("covered");
    assert_eq!((done.entries, done.holders), (5, vec![member(1), member(2)]));
}

#[test]
fn an_acked_entry_that_no_answer_proves_stops_recovery() {
    let mut bench = Bench::new(3, 2, 5, &[5, 2, 2]);
    bench.fence_with(1, 2, 4, false);
    bench.fence(2, 3);
    assert_eq!(bench.done, None, "entries 0..4 were acked, but two members hold only two");
    bench.recovery.tick(at(20_000));
    bench.run(20_000);
    assert!(bench.seen().iter().any(|s| s.contains("Loss { acked: 4, end: 2 }")));
}

#[test]
fn without_coverage_a_person_is_told_and_fences_go_on() {
    let mut bench = Bench::new(3, 2, 5, &[5, 3, 3]);
    bench.fence(1, 1);
    bench.seen();
    bench.recovery.tick(at(500));
    bench.run(500);
    assert_eq!(bench.seen(), ["f2", "f3"]);
    bench.recovery.tick(at(10_000));
    bench.run(10_000);
    assert!(bench.seen().iter().any(|s| s.contains("NoCoverage { answered: 1, needed: 2 }")));
}

#[test]
fn a_lost_member_at_full_ack_quorum_is_substituted() {
    let mut bench = Bench::new(2, 2, 5, &[5, 5]);
    bench.fence(1, 1);
    assert_eq!(bench.done, None, "the end is known, but there are not two copies");
    for ms in [500, 1_000, 1_500, 2_100] {
        bench.recovery.tick(at(ms));
        bench.run(ms);
    }
    assert!(bench.seen().iter().any(|s| s.starts_with("NeedSubstitute { needed: 1")));
    bench.held.insert(9, 0);
    bench.recovery.add_substitute(at(2_200), member(9));
    bench.run(2_200);
    let done = bench.done.clone().expect("a whole copy was made");
    assert_eq!(done.holders, [member(1), member(9)]);
    assert_eq!(bench.held[&9], 5);
}

#[test]
fn a_member_that_dies_after_its_fence_is_substituted() {
    // Members 1 and 2 are enough to know the end; then 2 dies, and 3 never comes back.
    let mut recovery = Recovery::<AllRules>::start(at(0), spec(3, 2), Epoch(9), RecoveryLimits::default());
    let log = written(3);
    for (i, durable) in [(1, 3), (2, 1)] {
        let kind = FenceAnswerKind::Ok { durable, lac: 0, limbo: false };
        let (segment, instance) = (SegmentId::new(1, 4), member(i).instance);
        recovery.on_fence(at(1), &FenceAnswer { segment, instance, req_epoch: Epoch(9), kind });
    }
    for ms in (1..10_000).step_by(500) {
        recovery.tick(at(ms));
        while let Some(effect) = recovery.poll() {
            match effect {
                RecoveryEffect::Read { id, request } => {
                    let blobs = log[request.from as usize..request.to as usize].iter().map(|e| e.bytes.clone());
                    recovery.on_read(at(ms), id, ReadOutcome::Data(blobs.collect()));
                }
                RecoveryEffect::Send(add) if add.member == member(9) => {
                    let (segment, instance) = (add.segment, add.member.instance);
                    let kind = AddAnswerKind::Ok { durable: add.entry.header.entry + 1 };
                    recovery.on_answer(at(ms), &AddAnswer { segment, instance, req_epoch: Epoch(9), kind });
                }
                RecoveryEffect::NeedSubstitute { needed: 1, .. } => recovery.add_substitute(at(ms), member(9)),
                RecoveryEffect::Done(closing) => {
                    assert_eq!(closing.holders, [member(1), member(9)]);
                    return;
                }
                _ => {}
            }
        }
    }
    panic!("never done");
}

#[test]
fn empty_segments_need_no_copies() {
    let mut bench = Bench::new(3, 2, 1, &[0, 0, 0]);
    bench.fence(1, 1);
    bench.fence(1, 2);
    let done = bench.done.take().expect("nothing was ever acked");
    assert_eq!((done.entries, done.end_offset, done.digest), (0, 100, CHAIN_START));

    let mut bench = Bench::new(3, 2, 1, &[1, 0, 0]);
    bench.fence(1, 1);
    bench.fence(1, 2);
    let done = bench.done.take().expect("only a snapshot");
    assert_eq!((done.entries, done.end_offset), (1, 100));
    assert_eq!(bench.seen(), ["f1", "f2", "f3", "r1:0"], "nothing is written back");
}

#[test]
fn a_higher_epoch_ends_it() {
    let mut bench = Bench::new(3, 2, 1, &[1, 1, 1]);
    bench.run(0);
    bench.seen();
    let kind = FenceAnswerKind::Fenced { max_epoch: Epoch(10) };
    let (segment, instance) = (SegmentId::new(1, 4), member(1).instance);
    bench.recovery.on_fence(at(1), &FenceAnswer { segment, instance, req_epoch: Epoch(9), kind });
    bench.fence(2, 2);
    bench.fence(2, 3);
    assert_eq!(bench.seen(), ["Fenced { max_epoch: Epoch(10) }"]);
    assert_eq!((bench.done, bench.recovery.deadline()), (None, None));
}

#[test]
fn lost_write_backs_are_sent_again_and_a_dead_target_is_replaced() {
    let mut recovery = Recovery::<AllRules>::start(at(0), spec(3, 2), Epoch(9), RecoveryLimits::default());
    let log = written(3);
    let fence = |i: u8, durable| FenceAnswer {
        segment: SegmentId::new(1, 4),
        instance: member(i).instance,
        req_epoch: Epoch(9),
        kind: FenceAnswerKind::Ok { durable, lac: 0, limbo: false },
    };
    recovery.on_fence(at(1), &fence(1, 3));
    recovery.on_fence(at(1), &fence(2, 2));
    let mut sent = Vec::new();
    for ms in [1u64, 600, 1_200, 1_300, 1_800, 2_400] {
        if ms == 1_300 {
            recovery.on_fence(at(ms), &fence(3, 3));
        }
        recovery.tick(at(ms));
        while let Some(effect) = recovery.poll() {
            match effect {
                RecoveryEffect::Read { id, request } => {
                    let blobs = log[request.from as usize..request.to as usize].iter().map(|e| e.bytes.clone());
                    recovery.on_read(at(ms), id, ReadOutcome::Data(blobs.collect()));
                }
                RecoveryEffect::Send(add) => sent.push((ms, add.member.bookie.0, add.entry.header.entry)),
                RecoveryEffect::Done(closing) => {
                    assert_eq!((ms, closing.holders), (1_300, vec![member(1), member(3)]));
                    assert_eq!(sent, [(1, 2, 2), (600, 2, 2), (1_200, 2, 2)]);
                    return;
                }
                _ => {}
            }
        }
    }
    panic!("never done");
}

#[test]
fn the_reader_trusts_nothing() {
    let log = written(4);
    let blobs: Vec<Bytes> = log.iter().map(|e| e.bytes.clone()).collect();
    let tail = log[3].header.chain;
    let fresh = || {
        let mut reader = ChainReader::range(SegmentId::new(1, 4), Epoch(7), 1, 4, tail);
        reader.set_sources(vec![member(1), member(2)]);
        reader.request();
        reader
    };
    let mut reader = fresh();
    assert_eq!(reader.on_read(ReadOutcome::Data(blobs[1..].to_vec())).len(), 3);
    assert!(reader.is_done());

    let mut flipped = blobs[2].to_vec();
    flipped[90] ^= 1;
    let damaged = vec![blobs[1].clone(), Bytes::from(flipped)];
    for bad in [damaged, vec![blobs[1].clone(), blobs[3].clone()], vec![blobs[2].clone()], vec![]] {
        let mut reader = fresh();
        reader.on_read(ReadOutcome::Data(bad.clone()));
        assert!(!reader.is_done(), "{bad:?}");
        let next = reader.request().expect("another copy is asked");
        assert_eq!(next.member, member(2));
        assert_eq!(reader.on_read(ReadOutcome::Failed).len() + usize::from(reader.is_done()), 0);
        assert_eq!(reader.stuck(), Some(next.from));
        reader.retry();
        assert!(reader.request().is_some());
    }
    // Another segment's end under the same number.
    let mut reader = ChainReader::range(SegmentId::new(1, 4), Epoch(7), 1, 4, tail ^ 1);
    reader.set_sources(vec![member(1)]);
    reader.request();
    assert_eq!(reader.on_read(ReadOutcome::Data(blobs[1..].to_vec())).len(), 2);
    assert!(!reader.is_done());
}
