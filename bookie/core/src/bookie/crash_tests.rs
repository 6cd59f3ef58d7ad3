//! One bookie through random lives: entries, fences, file changes, drops, copies forward, and power cuts that keep any
//! part of what was not fsynced. Honest disks: so never a loss, never limbo, never a forgotten promise.

use std::collections::BTreeMap;

use esker_types::{AllRules, Epoch, PartitionId, SegmentId, checksum};

use super::*;
use crate::journal::block::BlockWrite;
use crate::journal::restart::{Evidence, Verdict, restart};
use crate::testing::{CONN, IDS, MemDisk, add, entry_bytes, seg};
use crate::wire::{AddStatusKind, FenceItem, FenceRequest, FenceVerdict, Read, ReadStatus};

/// xorshift64*: enough to vary a test.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

struct Life {
    random: Random,
    disk: MemDisk,
    state: BookieState<AllRules>,
    limits: Limits,
    in_flight: Vec<BlockWrite>,
    /// What the bookie said: it must hold over every crash.
    acked: BTreeMap<SegmentId, u64>,
    fenced: BTreeMap<PartitionId, Epoch>,
    fence_asked: u64,
    uuid: u8,
    wants: bool,
    torn: u64,
    gone: u64,
    /// Disks that also rot: what is lost must be known to be lost, and is repaired.
    rots: bool,
    repaired: u64,
    reported: Lsn,
}

impl Life {
    fn new(seed: u64, rots: bool) -> Self {
        let mut random = Random(seed * 2 + 1);
        let limits = Limits {
            group_bytes: [1, 300, 5000][random.below(3) as usize],
            file_bytes: 4096 * (3 + random.below(6)),
            recent_crcs: random.below(4) as usize,
        };
        let disk = MemDisk::default();
        let restored = restart::<AllRules, _>(IDS, &disk, &Evidence::default());
        let state = BookieState::boot(IDS, limits, restored, BootFacts::default());
        let (in_flight, acked, fenced) = Default::default();
        let (fence_asked, uuid, wants, torn, gone, repaired) = (0, 0, false, 0, 0, 0);
        let mut life = Self {
            random,
            disk,
            state,
            limits,
            in_flight,
            acked,
            fenced,
            fence_asked,
            uuid,
            wants,
            torn,
            gone,
            rots,
            repaired,
            reported: Lsn(0),
        };
        life.open();
        life
    }

    fn open(&mut self) {
        for _ in 0..1000 {
            if self.state.is_open() {
                return;
            }
            self.write();
            self.complete();
        }
        panic!("the bookie never opens");
    }

    fn step(&mut self) {
        let segment = seg(1 + self.random.below(2), 1 + self.random.below(3));
        match self.random.below(20) {
            0..6 => {
                let next = self.state.segment(segment).map_or(0, |s| s.0);
                let entry = match self.random.below(8) {
                    0 => next.saturating_sub(1 + self.random.below(5)),
                    1 => next + 1,
                    _ => next,
                };
                let epoch = self.state.max_epoch(segment.partition).0;
                self.state.on_add(CONN, add(segment, entry, epoch));
            }
            6 => {
                let epoch = self.state.max_epoch(segment.partition).0 + self.random.below(2) as u32;
                let item = FenceItem { instance: IDS.instance, segment, epoch: Epoch(epoch) };
                self.fence_asked += 1;
                self.state.on_fence(Ticket(self.fence_asked), FenceRequest { items: vec![item] });
            }
            7..11 => self.write(),
            11..16 => self.complete(),
            16 => self.state.idle(),
            17 => self.drop_or_copy(segment),
            18 if self.random.below(6) == 0 => self.crash(),
            19 if self.random.below(6) == 0 => self.state.roll(),
            _ => self.read(segment),
        }
        self.hear();
    }

    fn write(&mut self) {
        self.hear();
        if self.wants {
            self.wants = false;
            self.uuid += 1;
            let file = FileId { seq: self.state.next_file_seq(), uuid: [self.uuid; 16] };
            // Recycled: full of another file's valid blocks.
            let old = self.disk.files.values().next().cloned().unwrap_or_default();
            self.disk.files.insert(file, old);
            self.state.offer_file(file);
        }
        if self.in_flight.len() < 3 {
            self.in_flight.extend(self.state.next_write());
        }
    }

    fn complete(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let at = self.random.below(self.in_flight.len() as u64) as usize;
        let write = self.in_flight.remove(at);
        self.disk.write(&write);
        self.state.on_written(write.head.lsn);
        self.hear();
    }

    fn hear(&mut self) {
        while let Some(action) = self.state.poll() {
            match action {
                Action::AddStatus { status, .. } => {
                    let expected = [AddStatusKind::Ok, AddStatusKind::Gap, AddStatusKind::Fenced];
                    assert!(self.rots || expected.contains(&status.kind), "{status:?}");
                    assert!(status.kind != AddStatusKind::Conflict, "{status:?}");
                    if status.kind == AddStatusKind::Ok {
                        let acked = self.acked.entry(status.segment).or_default();
                        *acked = status.next.max(*acked);
                    }
                }
                Action::Fenced { response, .. } => {
                    for result in response.results {
                        if let FenceVerdict::Ok { durable, limbo, .. } = result.verdict {
                            let acked = self.acked.get(&result.segment).copied().unwrap_or(0);
                            assert!(durable >= acked || (limbo && self.rots), "{result:?}, acked {acked}");
                            self.fenced.insert(result.segment.partition, result.req_epoch);
                        }
                    }
                }
                Action::Compare(compare) => self.state.on_compared(compare.run(&self.disk)),
                Action::WantFile => self.wants = true,
                Action::FileStarted(_) => {}
                Action::Unlink(file) => {
                    self.gone += 1;
                    self.disk.files.remove(&file);
                }
            }
        }
    }

    fn drop_or_copy(&mut self, segment: SegmentId) {
        if self.random.below(3) == 0 {
            if self.state.drop_segment(segment).is_ok() {
                self.acked.remove(&segment);
            }
            return;
        }
        let uses = self.state.file_uses();
        if uses.is_empty() {
            return;
        }
        let file = uses[self.random.below(uses.len() as u64) as usize].id.seq;
        for (segment, _) in self.state.segments_in(file) {
            for (from, to) in self.state.entries_in(segment, file) {
                for entry in from..to {
                    let bytes = entry_bytes(segment, entry);
                    self.state.copy_forward(segment, entry, checksum::crc32c(&bytes), bytes).expect("room");
                }
            }
            self.state.retire_when_durable(segment, file);
        }
    }

    /// The power goes: of each write under way any sectors are there, the rest is what stood there before.
    fn crash(&mut self) {
        for write in std::mem::take(&mut self.in_flight) {
            let bytes = write.to_bytes();
            let file = self.disk.files.entry(write.file()).or_default();
            let mode = self.random.below(3);
            for (i, sector) in bytes.chunks(512).enumerate() {
                let at = write.offset() as usize + 512 * i;
                if file.len() < at + 512 {
                    file.resize(at + 512, 0);
                }
                if mode == 0 || (mode == 1 && self.random.below(2) == 0) {
                    file[at..at + 512].copy_from_slice(sector);
                }
            }
        }
        let rotten = self.rots && self.random.below(2) == 0 && self.rot();
        // What was once reported to metadata stays known. Rot is told from a torn tail only below that.
        if rotten || self.random.below(2) == 0 {
            self.reported = self.state.durable_lsn().max(self.reported);
        }
        let evidence = Evidence { metadata_lsn: self.reported, superblock: None };
        let restored = restart::<AllRules, _>(IDS, &self.disk, &evidence);
        self.torn += u64::from(restored.verdict == Verdict::Torn);
        let lost = matches!(restored.verdict, Verdict::Loss { .. });
        assert!(self.rots || !lost, "{:?}", restored.verdict);
        let epochs = self.fenced.iter().map(|(partition, epoch)| (SegmentId { partition: *partition, n: 9 }, *epoch));
        let open = if lost { epochs.collect() } else { Vec::new() };
        let facts = BootFacts { open, named: self.acked.keys().copied().collect() };
        self.state = BookieState::boot(IDS, self.limits, restored, facts);
        let limbo: Vec<_> = self.state.segments.iter().filter(|(_, state)| state.limbo).collect();
        assert!(self.rots || limbo.is_empty(), "limbo without damage: {limbo:?}");
        for (segment, acked) in &self.acked {
            let (_, held, limbo) = self.state.segment(*segment).unwrap_or_default();
            assert!(limbo || held >= *acked, "{segment}: {held} of {acked} acked");
        }
        for (partition, epoch) in &self.fenced {
            assert!(self.state.max_epoch(*partition) >= *epoch, "fence of {partition} is gone");
        }
        self.wants = false;
        // A boot can be cut short too.
        if self.random.below(4) == 0 {
            self.write();
            return self.crash();
        }
        self.open();
        self.repair();
    }

    /// One byte or one block of what was written changes, anywhere.
    fn rot(&mut self) -> bool {
        let files: Vec<FileId> = self.disk.files.keys().copied().collect();
        let Some(file) = files.get(self.random.below(files.len().max(1) as u64) as usize) else { return false };
        let Some(bytes) = self.disk.files.get_mut(file).filter(|bytes| !bytes.is_empty()) else { return false };
        let block = self.random.below(bytes.len() as u64 / 4096) as usize * 4096;
        match self.random.below(3) {
            0 => bytes[block..block + 4096].fill(0),
            1 => bytes[block + self.random.below(112) as usize] ^= 1,
            _ => bytes[block + self.random.below(1000) as usize] ^= 0x80,
        }
        true
    }

    /// Brings every segment out of limbo, as if each were closed at what was acknowledged, from other holders.
    fn repair(&mut self) {
        let limbo: Vec<SegmentId> = self.state.limbo_segments().collect();
        for segment in limbo {
            self.repaired += 1;
            let acked = self.acked.get(&segment).copied().unwrap_or(0);
            for entry in 0..acked {
                if self.fetch(segment, entry, 1).status != ReadStatus::Data {
                    let bytes = entry_bytes(segment, entry);
                    self.state.repair(segment, entry, checksum::crc32c(&bytes), bytes).expect("in limbo");
                }
            }
            self.settle();
            self.state.clear_limbo(segment, acked).expect("all are held");
            self.settle();
            let (_, durable, limbo) = self.state.segment(segment).expect("held");
            assert!(!limbo && durable >= acked, "{segment}: {durable} of {acked}");
        }
    }

    /// Everything that is queued becomes durable.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.write();
            self.complete();
        }
        assert_eq!(self.state.seqs().0, self.state.seqs().1, "the journal is stuck");
    }

    fn fetch(&mut self, segment: SegmentId, from: u64, max_bytes: u32) -> crate::wire::ReadResponse {
        let read = Read { instance: IDS.instance, segment, from, to: u64::MAX, max_bytes };
        let fetched = match self.state.plan_read(&read) {
            ReadPlan::Answer(response) => return response,
            ReadPlan::Fetch(fetch) => fetch.run(&self.disk),
        };
        if let Some(damage) = fetched.damage {
            assert!(self.rots, "{damage:?} on an honest disk");
            assert!(self.state.on_damage(damage));
        }
        fetched.response
    }

    fn read(&mut self, segment: SegmentId) {
        let acked = self.acked.get(&segment).copied().unwrap_or(0);
        let from = self.random.below(acked + 2);
        let response = self.fetch(segment, from, 500);
        match response.status {
            ReadStatus::Data => {
                for (bytes, entry) in response.entries.iter().zip(from..) {
                    assert_eq!(*bytes, entry_bytes(segment, entry), "{segment} entry {entry}");
                }
            }
            ReadStatus::NoSuchEntry => assert!(from >= acked, "{segment} entry {from} of {acked}"),
            status => assert!(self.rots, "{segment} entry {from}: {status:?} on an honest disk"),
        }
        self.repair();
    }
}

/// Runs `lives` seeds; returns (torn tails, files freed, segments repaired).
fn live(lives: u64, rots: bool) -> (u64, u64, u64) {
    let mut sum = (0, 0, 0);
    for seed in 0..lives {
        let run = std::panic::catch_unwind(|| {
            let mut life = Life::new(seed, rots);
            (0..400).for_each(|_| life.step());
            life.crash();
            (life.torn, life.gone, life.repaired)
        });
        let (torn, gone, repaired) = run.unwrap_or_else(|_| panic!("seed {seed} (rots: {rots}) failed, see above"));
        sum = (sum.0 + torn, sum.1 + gone, sum.2 + repaired);
    }
    println!(
        "{lives} lives, rots: {rots}: {} torn tails cut, {} files freed, {} segments repaired",
        sum.0, sum.1, sum.2
    );
    sum
}

#[test]
fn random_lives_keep_every_promise() {
    let (torn, gone, repaired) = live(800, false);
    assert!(torn > 100 && gone > 3000 && repaired == 0, "the lives were too quiet");
}

#[test]
fn random_lives_on_rotting_disks_know_what_they_lost() {
    let (_, gone, repaired) = live(800, true);
    assert!(gone > 3000 && repaired > 300, "the lives were too quiet");
}
