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
}

impl Life {
    fn new(seed: u64) -> Self {
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
        let (fence_asked, uuid, wants, torn, gone) = (0, 0, false, 0, 0);
        let mut life =
            Self { random, disk, state, limits, in_flight, acked, fenced, fence_asked, uuid, wants, torn, gone };
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
                    assert!(
                        matches!(status.kind, AddStatusKind::Ok | AddStatusKind::Gap | AddStatusKind::Fenced),
                        "{status:?}"
                    );
                    if status.kind == AddStatusKind::Ok {
                        let acked = self.acked.entry(status.segment).or_default();
                        *acked = status.next.max(*acked);
                    }
                }
                Action::Fenced { response, .. } => {
                    for result in response.results {
                        if let FenceVerdict::Ok { durable, limbo, .. } = result.verdict {
                            let acked = self.acked.get(&result.segment).copied().unwrap_or(0);
                            assert!(durable >= acked && !limbo, "{result:?}, acked {acked}");
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

    fn read(&mut self, segment: SegmentId) {
        let acked = self.acked.get(&segment).copied().unwrap_or(0);
        let from = self.random.below(acked + 2);
        let read = Read { instance: IDS.instance, segment, from, to: u64::MAX, max_bytes: 500 };
        let response = match self.state.plan_read(&read) {
            ReadPlan::Answer(response) => response,
            ReadPlan::Fetch(fetch) => fetch.run(&self.disk).response,
        };
        match response.status {
            ReadStatus::Data => {
                for (bytes, entry) in response.entries.iter().zip(from..) {
                    assert_eq!(*bytes, entry_bytes(segment, entry), "{segment} entry {entry}");
                }
            }
            ReadStatus::NoSuchEntry => assert!(from >= acked, "{segment} entry {from} of {acked}"),
            status => panic!("{segment} entry {from}: {status:?} on an honest disk"),
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
        let evidence = match self.random.below(2) {
            0 => Evidence::default(),
            _ => Evidence { metadata_lsn: self.state.durable_lsn(), superblock: None },
        };
        let restored = restart::<AllRules, _>(IDS, &self.disk, &evidence);
        assert!(!matches!(restored.verdict, Verdict::Loss { .. }), "{:?}", restored.verdict);
        self.torn += u64::from(restored.verdict == Verdict::Torn);
        self.state = BookieState::boot(IDS, self.limits, restored, BootFacts::default());
        let limbo: Vec<_> = self.state.segments.iter().filter(|(_, state)| state.limbo).collect();
        assert!(limbo.is_empty(), "limbo without damage: {limbo:?}");
        for (segment, acked) in &self.acked {
            let held = self.state.segment(*segment).map_or(0, |s| s.1);
            assert!(held >= *acked, "{segment}: {held} of {acked} acked");
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
    }
}

#[test]
fn random_lives_keep_every_promise() {
    let (mut torn, mut gone) = (0, 0);
    for seed in 0..1500 {
        let run = std::panic::catch_unwind(|| {
            let mut life = Life::new(seed);
            (0..400).for_each(|_| life.step());
            life.crash();
            (life.torn, life.gone)
        });
        let (t, g) = run.unwrap_or_else(|_| panic!("seed {seed} failed, see above"));
        (torn, gone) = (torn + t, gone + g);
    }
    println!("1500 lives: {torn} torn tails cut, {gone} files freed");
    assert!(torn > 200 && gone > 3000, "the lives were too quiet: {torn} torn, {gone} freed");
}
