//! What one seed means: topology, quorum, sizes, latencies, workload and the set of faults.

use std::fmt;
use std::time::Duration;

use esker_bookie_core::bookie::Limits;
use esker_bookie_core::owner::OwnerLimits;
use esker_bookie_core::recovery::RecoveryLimits;
use esker_gateway_core::partition::{Config, Settings};
use esker_types::Quorum;

use crate::objects::ObjectsPlan;
use crate::rng::Rng;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// A kind of trouble that a seed may switch on. Shrinking switches them off one by one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Fault { $($(#[$doc])* $name,)* }

        impl Fault {
            pub const ALL: &'static [Fault] = &[$(Fault::$name,)*];
        }
    };
}

faults! {
    MessageLoss,
    MessageDuplicate,
    MessageReorder,
    /// Links cut, both ways or one way.
    Partition,
    BookieCrash,
    GatewayCrash,
    PowerCutAll,
    /// A process stops and goes on later, believing what it believed.
    Pause,
    /// Partitions change owner all the time.
    OwnerStorm,
    Handover,
    /// Gateways that crash come back under their node name, at once.
    QuickRestart,
    CommandUnknown,
    CommandLate,
    CommandTwice,
    CommandNever,
    FsyncError,
    SlowDisk,
    DiskFull,
    BitFlip,
    MisdirectedWrite,
    LostWrite,
    Wipe,
    RolledBack,
    Clone,
    /// A bookie that never comes back.
    GoneForGood,
    Retention,
    TopicDelete,
    /// The store answers 503 for a while.
    StoreDown,
    /// Requests to the store work unheard, late, or not at all.
    StoreUnknown,
    /// Bodies are stored or read damaged.
    StoreDamage,
    /// What a gateway cached of objects rots.
    CacheRot,
    /// Bookies ask metadata that knows of nothing what they may drop.
    MetadataAmnesia,
}

/// Drawn for seeds with a bucket, from a chance of their own.
const OF_THE_TIER: &[Fault] =
    &[Fault::StoreDown, Fault::StoreUnknown, Fault::StoreDamage, Fault::CacheRot, Fault::MetadataAmnesia];

/// A set of [`Fault`]s.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults(pub u32);

impl Faults {
    pub fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u32) != 0
    }

    pub fn with(self, fault: Fault) -> Self {
        Self(self.0 | 1 << fault as u32)
    }

    pub fn without(self, fault: Fault) -> Self {
        Self(self.0 & !(1 << fault as u32))
    }

    pub fn of(faults: &[Fault]) -> Self {
        faults.iter().fold(Self::default(), |set, fault| set.with(*fault))
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Fault::ALL.iter().filter(|fault| self.has(**fault))).finish()
    }
}

/// What the run must show besides safety.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Faults may exceed what the cluster promises to survive: it may stop, it may not lie.
    Safety,
    /// Faults stay within the model, then all heals: nothing acked is lost and everything goes on.
    Liveness,
}

/// A scenario that a seed leans towards: rare cases need faults that go together and sizes that make them matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Anything goes with anything.
    Mixed,
    /// Owners change all the time under a bad network.
    Ownership,
    /// Metadata answers "unknown" and decides late.
    Unknown,
    /// Handovers, and processes that restart right after.
    Handover,
    /// Bookies crash and their disks rot, age and vanish.
    Disks,
    /// Damage is found in open segments right before a recovery.
    Limbo,
    /// Producers repeat themselves while segments roll.
    Producers,
    /// Journal files fill up and are collected.
    Files,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub profile: Profile,
    pub mode: Mode,
    pub quorum: Quorum,
    pub bookies: usize,
    pub gateways: usize,
    pub partitions: usize,
    pub producers: usize,
    /// Batches that each producer wants to have acked.
    pub batches: u64,
    /// Batches of one producer that may be on the way together.
    pub in_flight: usize,
    /// Bytes of one batch, and the most that one entry takes.
    pub batch_bytes: usize,
    pub entry_bytes_max: usize,
    /// Bytes after which a segment rolls.
    pub segment_bytes: u64,
    pub snapshot_bytes: u64,
    pub journal_file_bytes: usize,
    pub network_us: u64,
    pub disk_us: u64,
    pub metadata_us: u64,
    /// Pause of a producer between an ack and its next batch.
    pub think_us: u64,
    pub member_timeout_ms: u64,
    pub produce_timeout_ms: u64,
    /// Gap between two acts of the nemesis.
    pub nemesis_us: u64,
    /// Acts of the nemesis before everything heals.
    pub acts: u32,
    pub faults: Faults,
    /// None: segments stay on bookies.
    pub objects: Option<ObjectsPlan>,
}

/// Seeds from here on have a bucket beside bookies; those below are of the log alone.
pub const WITH_BUCKET: u64 = 1 << 32;

const QUORUMS: [(u8, u8); 6] = [(1, 1), (2, 2), (3, 2), (3, 3), (4, 3), (5, 3)];

impl Plan {
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed_0fe5_4e12);
        // Most seeds run the default quorum of production; the others share the rest.
        let (write, ack) = if rng.chance(450) { (3, 2) } else { *rng.pick(&QUORUMS) };
        let spare = rng.range(0, 2) as usize;
        let mut plan = Self {
            seed,
            profile: Profile::Mixed,
            mode: if rng.chance(700) { Mode::Liveness } else { Mode::Safety },
            quorum: Quorum { write, ack },
            bookies: (usize::from(write) + spare).clamp(3, 7),
            gateways: rng.range(2, 4) as usize,
            partitions: if rng.chance(700) { 1 } else { rng.range(2, 3) as usize },
            producers: rng.range(1, 2) as usize,
            batches: rng.range(3, 10),
            in_flight: rng.range(1, 5) as usize,
            batch_bytes: *rng.pick(&[60, 100, 300, 1500]),
            entry_bytes_max: *rng.pick(&[1, 300, 2_000, 8_000]),
            segment_bytes: *rng.pick(&[900, 2_000, 6_000, 1 << 20]),
            snapshot_bytes: *rng.pick(&[400, 2_000, 10_000, 1 << 20]),
            journal_file_bytes: *rng.pick(&[24, 32, 64]) << 10,
            network_us: *rng.pick(&[50, 200, 1_000, 8_000]),
            disk_us: *rng.pick(&[30, 300, 2_000, 10_000]),
            metadata_us: *rng.pick(&[200, 1_000, 5_000, 30_000]),
            think_us: *rng.pick(&[1, 500, 5_000, 30_000]),
            member_timeout_ms: *rng.pick(&[5, 30, 200, 1_000]),
            produce_timeout_ms: *rng.pick(&[20, 100, 500, 2_000]),
            nemesis_us: *rng.pick(&[500, 2_000, 10_000, 40_000]),
            acts: rng.range(3, 18) as u32,
            faults: Faults::default(),
            objects: None,
        };
        // A seed with every fault on at once seldom gets deep into any: each takes a random subset.
        let density = *rng.pick(&[60, 150, 300, 500]);
        for fault in Fault::ALL.iter().filter(|fault| !OF_THE_TIER.contains(fault)) {
            if rng.chance(density) {
                plan.faults = plan.faults.with(*fault);
            }
        }
        plan.lean(&mut rng);
        plan.add_objects(&mut Rng::new(seed ^ 0x0b1e_c700_a11d));
        plan
    }

    /// History in a bucket: short segments, and what may happen to them there.
    fn add_objects(&mut self, rng: &mut Rng) {
        if self.seed < WITH_BUCKET {
            return;
        }
        self.segment_bytes = *rng.pick(&[900, 2_000, 4_000]);
        self.batches += rng.range(2, 8);
        self.objects = Some(ObjectsPlan::draw(self, rng));
        self.share_objects(&mut Rng::new(self.seed ^ 0x05aa_12ed));
        let often =
            [Fault::Retention, Fault::OwnerStorm, Fault::GatewayCrash, Fault::CommandUnknown, Fault::CommandLate];
        for fault in OF_THE_TIER.iter().chain(&often) {
            if rng.chance(350) {
                self.faults = self.faults.with(*fault);
            }
        }
    }

    /// A gateway's partitions write segments together: there must be several with records, on few gateways.
    fn share_objects(&mut self, rng: &mut Rng) {
        let unit = self.objects.map_or(1, |objects| objects.unit_ms);
        if let Some(objects) = self.objects.as_mut().filter(|_| rng.chance(400)) {
            objects.share_wait_ms = Some(unit * rng.range(0, 4) as i64);
            self.gateways = 2;
            self.partitions = rng.range(3, 4) as usize;
            self.producers = self.partitions;
            self.batches = self.batches.div_ceil(2).max(3);
        }
    }

    /// Bends the random plan towards a scenario.
    fn lean(&mut self, rng: &mut Rng) {
        let profiles = [
            Profile::Ownership,
            Profile::Unknown,
            Profile::Handover,
            Profile::Disks,
            Profile::Limbo,
            Profile::Producers,
            Profile::Files,
        ];
        if rng.chance(400) {
            return;
        }
        self.profile = *rng.pick(&profiles);
        let (always, often): (&[Fault], &[Fault]) = match self.profile {
            Profile::Mixed => (&[], &[]),
            Profile::Ownership => (
                &[Fault::OwnerStorm],
                &[
                    Fault::MessageLoss,
                    Fault::MessageReorder,
                    Fault::Partition,
                    Fault::Pause,
                    Fault::SlowDisk,
                    Fault::BookieCrash,
                ],
            ),
            Profile::Unknown => (
                &[Fault::CommandUnknown, Fault::CommandLate],
                &[Fault::CommandTwice, Fault::CommandNever, Fault::OwnerStorm, Fault::Handover, Fault::Pause],
            ),
            Profile::Handover => (
                &[Fault::Handover],
                &[Fault::GatewayCrash, Fault::QuickRestart, Fault::CommandUnknown, Fault::CommandLate, Fault::Pause],
            ),
            Profile::Disks => (
                &[Fault::BookieCrash, Fault::OwnerStorm],
                &[
                    Fault::BitFlip,
                    Fault::RolledBack,
                    Fault::Wipe,
                    Fault::LostWrite,
                    Fault::PowerCutAll,
                    Fault::FsyncError,
                ],
            ),
            Profile::Limbo => (
                &[Fault::BitFlip, Fault::OwnerStorm],
                &[Fault::MessageReorder, Fault::SlowDisk, Fault::Pause, Fault::LostWrite],
            ),
            Profile::Producers => (
                &[Fault::MessageDuplicate],
                &[Fault::MessageLoss, Fault::OwnerStorm, Fault::Handover, Fault::CommandUnknown, Fault::GatewayCrash],
            ),
            Profile::Files => (
                &[Fault::Retention, Fault::BookieCrash],
                &[Fault::OwnerStorm, Fault::RolledBack, Fault::PowerCutAll, Fault::DiskFull, Fault::BitFlip],
            ),
        };
        self.faults = always.iter().fold(self.faults, |set, fault| set.with(*fault));
        for fault in often {
            if rng.chance(500) {
                self.faults = self.faults.with(*fault);
            }
        }
        match self.profile {
            Profile::Files => {
                self.journal_file_bytes = 24 << 10;
                self.segment_bytes = *rng.pick(&[1_200, 4_000]);
                self.batches += 12;
            }
            Profile::Producers => {
                self.in_flight = self.in_flight.max(3);
                self.produce_timeout_ms = *rng.pick(&[20, 100]);
                self.segment_bytes = *rng.pick(&[1_200, 4_000, 16_000]);
            }
            Profile::Limbo => {
                let (write, ack) = *rng.pick(&[(2, 2), (3, 3), (3, 2)]);
                self.quorum = Quorum { write, ack };
                self.bookies = self.bookies.max(usize::from(write) + 2);
                self.segment_bytes = 1 << 20;
                self.nemesis_us = *rng.pick(&[10_000, 40_000]);
                self.faults = self.faults.without(Fault::GoneForGood).without(Fault::TopicDelete);
            }
            Profile::Unknown => self.segment_bytes = *rng.pick(&[700, 1_200, 4_000]),
            _ => {}
        }
    }

    /// A time-out below what a busy disk needs would make the cluster roll for ever: bad advice, not a fault.
    pub fn member_timeout(&self) -> Duration {
        let round_trip = Duration::from_micros(8 * self.network_us + 40 * self.disk_us);
        Duration::from_millis(self.member_timeout_ms).max(round_trip)
    }

    /// Bounds and times of a partition, small enough that a short run meets them.
    pub fn partition_config(&self) -> Config {
        let timeout = self.member_timeout();
        Config {
            entry_bytes: self.entry_bytes_max,
            pipeline_entries: if self.entry_bytes_max < 1_000 { 16 } else { 2 },
            in_flight_bytes: 64 << 10,
            partition_bytes: 128 << 10,
            snapshot_bytes: self.snapshot_bytes,
            drain: Duration::from_micros(2 * self.network_us + self.disk_us),
            metadata_retry: Duration::from_micros(self.metadata_us * 8),
            roll_retry: Duration::from_micros(self.metadata_us * 20),
            degraded_segment_bytes: self.segment_bytes,
            delete_grace_ms: 5,
            intent_ms: 600_000,
            read_bytes: 4_000,
            owner: OwnerLimits {
                in_flight_bytes: 32 << 10,
                kept_bytes: 64 << 10,
                member_timeout: timeout,
                link_grace: timeout / 4,
            },
            recovery: RecoveryLimits {
                retry: timeout,
                substitute_after: timeout * 4,
                alarm_after: Duration::from_secs(10),
            },
            ..Config::default()
        }
    }

    pub fn partition_settings(&self) -> Settings {
        Settings {
            quorum: self.quorum,
            segment_bytes: self.segment_bytes,
            segment_ms: 3_600_000,
            retention_ms: None,
            retention_bytes: None,
        }
    }

    pub fn bookie_limits(&self) -> Limits {
        Limits { group_bytes: 64 << 10, file_bytes: self.journal_file_bytes as u64, recent_crcs: 4 }
    }

    pub fn read_pause_us(&self) -> u64 {
        self.network_us * 16 + self.metadata_us * 4 + self.disk_us * 2
    }

    /// Between two rounds of a bookie's upkeep.
    pub fn upkeep_us(&self) -> u64 {
        self.nemesis_us * 3 + self.disk_us * 8
    }

    /// How often the controller looks, and how long a silent session lives.
    pub fn controller_us(&self) -> u64 {
        self.metadata_us * 4 + self.nemesis_us / 2
    }

    pub fn session_us(&self) -> u64 {
        self.controller_us() * 3
    }

    /// What a failing run tells: one line that a person can paste.
    pub fn rerun_line(&self) -> String {
        let Self { seed, acts, batches, partitions, producers, .. } = self;
        format!(
            "ESKER_SIM_SEED={seed} ESKER_SIM_FAULTS={} ESKER_SIM_ACTS={acts} ESKER_SIM_BATCHES={batches} \
             ESKER_SIM_PARTITIONS={partitions} ESKER_SIM_PRODUCERS={producers} \
             cargo test --release -p esker-sim one_seed -- --nocapture",
            self.faults.0
        )
    }
}
