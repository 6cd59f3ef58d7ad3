use std::time::Duration;

use esker_cache_core::steps::{SHARE_SEGMENTS_MAX, Sharing};
use esker_types::units::{ByteCount, Interval};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::throttle::Marks;

/// Old segments in a bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ObjectsConfig {
    /// Where closed segments go: `file:///dir`, `s3://bucket/prefix`, `gs://`, `az://`. Empty: they stay on bookies.
    /// Every gateway of a cluster must name the same place.
    pub url: String,
    /// Segments under way to the bucket at once. Each reads from bookies, compresses on one core, and holds some
    /// 40 MiB of memory.
    pub concurrency: u32,
    /// Closed segments of fewer bytes go to the bucket several to an object, those of all partitions of a gateway
    /// together: a request costs the same whatever it carries. 0: each has an object of its own.
    pub share_below: ByteCount,
    /// How long after it was closed a small segment waits for others. It is on bookies alone meanwhile, so this adds to
    /// what is lost with all of them.
    pub share_wait: Interval,
    /// Bytes of segments in one shared object, from which they wait no longer. A larger object saves nothing more and is
    /// kept until the last segment in it is deleted.
    pub share_bytes: ByteCount,
    /// Segments of a partition that make it worth writing a manifest page.
    pub fold_segments: u32,
    /// Age at which fewer are folded too. Until then metadata holds their rows.
    pub fold_age: Interval,
    /// How long replaced pages and retired objects are kept for those who read them. Longer than the longest read.
    pub grave_grace: Interval,
    /// How often retention looks at what is in the bucket.
    pub retention_interval: Interval,
    /// Age from which an object that nothing reaches is deleted by a sweep. A write that is not committed after half of
    /// it is given up, so that the sweep never takes what is on its way.
    pub sweep_age: Interval,
    /// How often one gateway looks through the whole bucket for what nothing reaches. 0: never by itself.
    pub sweep_interval: Interval,
    /// Longest wait after failures of one partition; the first one is 100 ms and each doubles.
    pub retry_max: Interval,
    /// Share of a bookie's disk in use, in percent, from which producers wait for a backlog of the offload: what can't
    /// go to the bucket would fill the disk.
    pub throttle_from: u32,
    /// Share at which they get the least, 256 KiB/s for each gateway.
    pub throttle_to: u32,
    /// Requests, memory and SSD.
    pub cache: esker_cache::Config,
}

/// Well above the time that an upload and its commit may take together.
const SWEEP_AGE_MIN: Duration = Duration::from_secs(3_600);

/// Of a quiet partition this is how much may be on bookies alone.
const SHARE_WAIT_MAX: Duration = Duration::from_secs(3_600);
/// As much as a large segment.
const SHARE_BYTES_MAX: ByteCount = ByteCount::gib(1);

impl Default for ObjectsConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            concurrency: 2,
            share_below: ByteCount::mib(8),
            share_wait: Interval::secs(30),
            share_bytes: ByteCount::mib(64),
            fold_segments: 64,
            fold_age: Interval::secs(3_600),
            grave_grace: Interval::secs(3_600),
            retention_interval: Interval::secs(60),
            sweep_age: Interval::secs(86_400),
            sweep_interval: Interval::secs(6 * 3_600),
            retry_max: Interval::secs(60),
            throttle_from: 80,
            throttle_to: 95,
            cache: esker_cache::Config::default(),
        }
    }
}

impl ObjectsConfig {
    pub(crate) fn marks(&self) -> Marks {
        Marks { from: self.throttle_from.into(), to: self.throttle_to.into() }
    }

    pub(super) fn sharing(&self) -> Sharing {
        Sharing {
            below: self.share_below.0,
            wait_ms: i64::try_from(self.share_wait.0.as_millis()).unwrap_or(i64::MAX),
            bytes_max: self.share_bytes.0,
            segments_max: SHARE_SEGMENTS_MAX,
        }
    }

    pub fn validate(&self) -> Result<(), String> {
        if !(1..=64).contains(&self.concurrency) {
            return Err(format!("objects.concurrency must be between 1 and 64, it is {}", self.concurrency));
        }
        if self.share_below > self.share_bytes || self.share_bytes > SHARE_BYTES_MAX {
            return Err(format!(
                "objects.share-bytes is {}: must not be less than objects.share-below, {}, nor more than {SHARE_BYTES_MAX}",
                self.share_bytes, self.share_below
            ));
        }
        if self.share_wait.0 > SHARE_WAIT_MAX {
            return Err(format!("objects.share-wait is {}: must be at most 1h", self.share_wait));
        }
        if !(1..=10_000).contains(&self.fold_segments) {
            return Err(format!("objects.fold-segments must be between 1 and 10000, it is {}", self.fold_segments));
        }
        if self.sweep_age.0 < SWEEP_AGE_MIN {
            return Err(format!("objects.sweep-age is {}: must be at least 1h", self.sweep_age));
        }
        if !(1..=100).contains(&self.throttle_from) || !(self.throttle_from..=100).contains(&self.throttle_to) {
            let (from, to) = (self.throttle_from, self.throttle_to);
            return Err(format!(
                "objects.throttle-from and -to are {from} and {to}: must be percents, the second not less"
            ));
        }
        self.cache.validate().map_err(|reason| format!("objects.cache.{reason}"))
    }
}
