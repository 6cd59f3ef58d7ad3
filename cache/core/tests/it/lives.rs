//! A partition that is rebuilt from backups again and again, each older than the last that was written, some of them of an
//! earlier life: whatever its lives made, no name of a segment is given out twice (I9), and no offset with another record.

use std::collections::BTreeMap;
use std::sync::Arc;

use esker_cache_core::object::SegmentFacts;
use esker_cache_core::recover::{Found, Held, rebuild};
use esker_metadata_core::*;
use esker_types::*;

use crate::samples::{closed_row, object_key};

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

const LIVES: u8 = 4;
const QUORUM: Quorum = Quorum { write: 1, ack: 1 };

struct Backup {
    life: u8,
    record: PartitionRecord,
    rows: Vec<Arc<ClosedSegment>>,
}

struct World {
    dice: Dice,
    incarnation: u8,
    record: PartitionRecord,
    rows: Vec<Arc<ClosedSegment>>,
    /// What is in the bucket, which outlives everything.
    objects: Vec<Held>,
    /// One of each life.
    backups: Vec<Backup>,
    /// Every ordinal that was given out, with the life that did.
    ordinals: BTreeMap<u64, u8>,
    /// Behind every offset that a former life gave out.
    used_to: Offset,
    broken: Option<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let record = PartitionRecord::born(PartitionId(7), TopicId([1; 16]), 0, 0);
        let (rows, objects, backups, ordinals) = Default::default();
        let dice = Dice(seed);
        Self { dice, incarnation: 0, record, rows, objects, backups, ordinals, used_to: 0, broken: None }
    }

    /// A segment is opened and closed; its object may come at once, later, or never.
    fn write(&mut self) {
        let (n, base_offset) = (self.record.next_n, self.record.next_offset);
        if let Some(life) = self.ordinals.insert(n, self.incarnation)
            && self.broken.is_none()
        {
            self.broken = Some(format!("I9: segment {n} of life {life} is made again in life {}", self.incarnation));
        }
        if base_offset < self.used_to {
            self.broken.get_or_insert(format!("offset {base_offset} is given out again"));
        }
        let end_offset = base_offset + 1 + self.dice.below(20) as i64;
        let facts = SegmentFacts {
            segment: SegmentId { partition: self.record.id, n },
            seg_epoch: self.record.epoch,
            quorum: QUORUM,
            base_offset,
            end_offset,
            last: 3,
            digest: self.dice.below(u64::MAX),
            bytes: 900,
            first_ts: 1,
            max_ts: 2,
            opened: WallMs(1),
            closed: WallMs(2),
        };
        let key = ObjectKey { incarnation: self.incarnation, epoch: self.record.epoch, ..object_key(n) };
        let place =
            ObjectPlace { key, position: 60, len: 90, footer_position: 150, footer_len: 30, footer_crc: 1, size: 400 };
        let object = (self.dice.below(3) > 0).then_some(place);
        self.objects.extend(object.clone().map(|place| Held { facts, place }));
        self.rows.push(Arc::new(closed_row(&facts, object)));
        let SegmentFacts { last, digest, .. } = facts;
        self.record.last = Some(LastClosed { n, last, end_offset, digest });
        (self.record.next_n, self.record.next_offset) = (n + 1, end_offset);
    }

    /// Everything but the bucket is lost, and the backup is some segments old.
    fn live<R: Rules>(&mut self) {
        for _ in 0..self.dice.below(8) {
            self.write();
        }
        let (life, record, rows) = (self.incarnation, self.record.clone(), self.rows.clone());
        self.backups.push(Backup { life, record, rows });
        for _ in 0..self.dice.below(4) {
            self.write();
        }
        self.used_to = self.used_to.max(self.record.next_offset);
        self.incarnation += 1;
        // The newest one, as a rule; now and then it can't be read, and an earlier life's must do.
        let newest = self.backups.len() - 1;
        let at = if self.dice.below(3) == 0 { self.dice.below(newest as u64 + 1) as usize } else { newest };
        let Backup { life, record, rows } = &self.backups[at];
        let bump = Bump { from: *life, incarnation: self.incarnation };
        let found = Found { held: self.objects.clone(), ..Found::default() };
        let rebuilt = rebuild::<R>(&bump, record, rows, found);
        self.record = rebuilt.record;
        self.rows = rebuilt.rows.into_iter().map(Arc::new).collect();
    }
}

fn lives<R: Rules>(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..LIVES {
        world.live::<R>();
    }
    world.write();
    world
}

#[test]
fn no_name_of_a_former_life_is_given_out_again() {
    let mut segments = 0;
    for seed in 0..500 {
        let world = lives::<AllRules>(seed);
        assert_eq!(world.broken, None, "seed {seed}");
        segments += world.ordinals.len();
    }
    assert!(segments > 5_000, "nothing was tried: {segments} segments");
}

#[derive(Clone, Copy, Debug, Default)]
struct OrdinalsGoOn;

impl Rules for OrdinalsGoOn {
    const NAME: &'static str = "segment id used again after a restore";
    const ORDINALS_JUMP_AT_RESTORE: bool = false;
}

#[test]
fn ordinals_that_go_on_from_the_backup_are_found() {
    let seed = (0..2_000).find(|seed| lives::<OrdinalsGoOn>(*seed).broken.is_some());
    println!("{} found after {} seeds", OrdinalsGoOn::NAME, seed.expect("it survives") + 1);
}
