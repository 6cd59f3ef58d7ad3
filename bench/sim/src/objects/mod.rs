//! The object tier: a bucket, the owners' steps, readers of history, and the leak sweep. Steps, manifest, object format
//! and sweep verdicts are the code that production runs; requests and their fates are simulated.

mod bucket;
mod check;
mod format;
mod pages;
mod read;
mod share;
mod sweep;
mod tier;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use esker_cache_core::manifest::Page;
use esker_cache_core::steps::{Policy, Sharing};
use esker_types::{ObjectKey, PageKey, PartitionId, Rules, SegmentId};

use crate::metadata::WALL_START_MS;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::world::World;

pub use bucket::{Bucket, Late};
pub use read::{BucketRead, Cache, Of};
use share::Shared;
pub use sweep::Sweep;
pub use tier::Slot;

/// How a seed uses the bucket. Times are multiples of `unit_ms`, which is long against its latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectsPlan {
    pub unit_ms: i64,
    pub fold_segments: usize,
    pub local_retention_ms: Option<i64>,
    pub keep_bytes: Option<u64>,
    /// How long segments wait for others to share an object with. None: each has its own.
    pub share_wait_ms: Option<i64>,
    /// Mean time of a request, microseconds.
    pub request_us: u64,
}

impl ObjectsPlan {
    pub fn draw(plan: &Plan, rng: &mut Rng) -> Self {
        let unit_ms = 1 + (plan.metadata_us * 8 + plan.network_us * 8 + plan.disk_us * 4) as i64 / 1_000;
        Self {
            unit_ms,
            fold_segments: rng.range(1, 3) as usize,
            local_retention_ms: rng.chance(900).then(|| rng.range(0, 3) as i64 * unit_ms),
            keep_bytes: rng.chance(250).then(|| plan.segment_bytes * rng.range(1, 4)),
            share_wait_ms: None,
            request_us: plan.metadata_us * rng.range(1, 4),
        }
    }

    pub fn policy(&self) -> Policy {
        let unit = self.unit_ms;
        Policy {
            offload: true,
            fold_segments: self.fold_segments,
            fold_age_ms: 4 * unit,
            local_retention_ms: self.local_retention_ms,
            retention_ms: None,
            retention_bytes: self.keep_bytes,
            retain_every_ms: 3 * unit,
            grave_ms: self.grace_ms(),
            give_up_ms: 20 * unit,
            empty_every_ms: 2 * unit,
        }
    }

    /// Small bounds, so that both are met.
    pub fn sharing(&self, segment_bytes: u64) -> Option<Sharing> {
        let wait_ms = self.share_wait_ms?;
        Some(Sharing { below: u64::MAX, wait_ms, bytes_max: 4 * segment_bytes, segments_max: 3 })
    }

    /// How long a reader may go on with what it knows.
    pub fn grace_ms(&self) -> i64 {
        6 * self.unit_ms
    }

    /// Longest delay of a command or an effect whose client gave up. Production takes it for granted that none is late
    /// by the hours between giving up and the sweep.
    pub fn late_ms(&self) -> i64 {
        10 * self.unit_ms
    }

    pub fn sweep_age_ms(&self) -> i64 {
        2 * (20 * self.unit_ms + self.late_ms())
    }
}

/// All that stands outside of gateways and bookies.
pub struct Objects {
    /// Chance of its own, so that seeds without a bucket are what they were.
    pub rng: Rng,
    pub bucket: Bucket,
    /// Every page that was ever made: what the bucket should hold.
    pages: BTreeMap<PageKey, Arc<Page>>,
    /// When a version of a manifest stopped being the current one, ms of the wall clock.
    replaced: BTreeMap<(PartitionId, u64), i64>,
    /// When the last records of a partition's newest closed segment were deleted, ms of the wall clock.
    deleted_tails: BTreeMap<SegmentId, i64>,
    /// What was written of each object with segments of several partitions.
    shared: BTreeMap<ObjectKey, Shared>,
    /// Segments whose object was seen committed.
    committed: BTreeSet<SegmentId>,
    sweep: Sweep,
    /// Time that passed without anything happening in it, ms.
    pub skipped_ms: i64,
    next_pin: u64,
    /// Until then bookies are answered by metadata that knows nothing.
    pub amnesia_until: esker_types::Time,
}

impl Objects {
    pub fn new(plan: &Plan) -> Self {
        let mut rng = Rng::new(plan.seed ^ 0x0b1e_c75e_ed00);
        let late_ms = plan.objects.map_or(1, |objects| objects.late_ms());
        Self {
            bucket: Bucket::new(plan.faults, late_ms, &mut rng),
            rng,
            pages: BTreeMap::new(),
            replaced: BTreeMap::new(),
            deleted_tails: BTreeMap::new(),
            shared: BTreeMap::new(),
            committed: BTreeSet::new(),
            sweep: Sweep::default(),
            skipped_ms: 0,
            next_pin: 0,
            amnesia_until: esker_types::Time::ZERO,
        }
    }
}

impl<R: Rules> World<R> {
    /// The clock that metadata and gateways share, ms.
    pub fn wall_ms(&self) -> i64 {
        WALL_START_MS + (self.queue.now().0 / 1_000_000) as i64 + self.objects.skipped_ms
    }

    pub fn on_late(&mut self, late: Late) {
        let since = self.wall_ms();
        match late {
            Late::Put { name, bytes } => self.objects.bucket.store(name, bytes, true, since),
            Late::Delete { name } => self.delete_held(&name),
        }
    }

    /// An object is gone: nobody may have counted on it.
    pub(self) fn delete_held(&mut self, name: &str) {
        if self.objects.bucket.delete(name) {
            let partition = name.split('/').nth(1).and_then(|part| part.parse().ok()).map(PartitionId);
            let company = name.parse().ok().and_then(|key| self.objects.shared.get(&key)).map(Shared::partitions);
            let all = company.unwrap_or_else(|| partition.into_iter().collect());
            all.into_iter().for_each(|partition| self.check_places(partition));
        }
    }

    fn claim_name(&mut self, name: &str) {
        if !self.objects.bucket.claim_name(name) {
            self.oracle.fail("I9", format!("the name {name} was given out twice"));
        }
    }

    /// Writes under a name that was claimed. False: the client heard of no success.
    fn put(&mut self, name: String, bytes: Bytes) -> bucket::Fate {
        let (now, since) = (self.queue.now(), self.wall_ms());
        let objects = &mut self.objects;
        let fate = objects.bucket.fate(now, &mut objects.rng);
        match fate {
            bucket::Fate::Refused => {}
            bucket::Fate::Late(ms) => {
                let late = crate::world::What::Late(Late::Put { name, bytes });
                self.queue.after_ns(ms as u64 * 1_000_000, late);
            }
            bucket::Fate::Done | bucket::Fate::Unheard => {
                if objects.bucket.damages(&mut objects.rng) {
                    let other = bucket::damaged(&bytes, &mut objects.rng);
                    objects.bucket.store(name, other, false, since);
                    self.cases.hit(crate::sometimes::Case::ObjectDamagedInPut);
                } else {
                    objects.bucket.store(name, bytes, true, since);
                }
            }
        }
        if fate != bucket::Fate::Done {
            self.cases.hit(crate::sometimes::Case::StoreFailed);
        }
        fate
    }

    /// True: it is known to be gone.
    fn delete(&mut self, name: &str) -> bool {
        let now = self.queue.now();
        let fate = self.objects.bucket.fate(now, &mut self.objects.rng);
        match fate {
            bucket::Fate::Refused => {}
            bucket::Fate::Late(ms) => {
                let late = crate::world::What::Late(Late::Delete { name: name.to_owned() });
                self.queue.after_ns(ms as u64 * 1_000_000, late);
            }
            bucket::Fate::Done | bucket::Fate::Unheard => self.delete_held(name),
        }
        fate == bucket::Fate::Done
    }
}
