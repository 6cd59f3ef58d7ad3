//! Settings of the object tier. Each default carries its reason; `validate` names the key that is wrong.

use std::path::PathBuf;

use esker_types::units::{ByteCount, Interval};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the object store is used, and what may be kept of it in memory and on a local disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Requests to the store.
    pub store: StoreConfig,
    /// What live consumers read from closed segments.
    pub tail: PoolConfig,
    /// What replays and other scans read. Separate, so that a replay from offset 0 never evicts what live consumers
    /// read.
    pub scan: PoolConfig,
    /// Folder for both pools' SSD tiers. Empty: memory only. What is in it may be deleted at any time.
    pub ssd_dir: PathBuf,
    /// Memory for decoded manifest pages and footers. A page takes about 200 KiB and finds 1,000 segments, a footer
    /// 60 bytes per MiB of log.
    pub index_memory: ByteCount,
    /// How the SSD tier reads and writes files.
    pub io_engine: IoEngine,
}

/// Ways to reach the SSD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IoEngine {
    /// Ordinary reads and writes on blocking threads. The default: it costs nothing while idle.
    #[default]
    Psync,
    /// io_uring where the system allows it, else as `psync`. Its threads poll without ever sleeping, so each pool
    /// takes a core of its own: for machines with cores to spare only.
    IoUring,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct StoreConfig {
    /// Time for one request to answer, before the time that its bytes may take. Longer than a healthy store's worst
    /// answer, short enough to try again within the deadline.
    pub attempt_timeout: Interval,
    /// Slowest acceptable transfer. One request may take `attempt-timeout` plus its bytes at this rate.
    pub bytes_per_second_min: ByteCount,
    /// Time for an operation with all its retries, before the time that its bytes may take. A reader waits this long
    /// before it is told; the offload tries again on its own.
    pub deadline: Interval,
    /// Time to open a connection.
    pub connect_timeout: Interval,
    /// Retries that may be outstanding in a burst. Every retry takes one, ten successes or one second give one back:
    /// a store in trouble is not hit harder than a healthy one.
    pub retry_budget: u32,
    /// Size of a part of a large object, at least 5 MiB. Larger objects than one part are sent in parts; each upload
    /// holds `parts-in-flight` + 1 of them in memory. A store takes at most 10,000 parts.
    pub part_bytes: ByteCount,
    /// Parts of one upload on their way at once. Two keep the line busy while the next one fills.
    pub parts_in_flight: u32,
    /// Requests on behalf of a waiting client, at once.
    pub foreground_requests: u32,
    /// Requests of replays, at once. Fewer, so that they leave room on the line for those that wait.
    pub replay_requests: u32,
    /// Requests of the offload, at once.
    pub offload_requests: u32,
    /// Requests of sweeps, merges and the like, at once.
    pub background_requests: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PoolConfig {
    /// Memory for blocks.
    pub memory: ByteCount,
    /// SSD for blocks, 0 for none. At least 64 MiB, because space is freed in pieces of 16 MiB. Needs `ssd-dir`.
    pub ssd: ByteCount,
    /// Blocks that may wait to be written to the SSD, in bytes. When it is full, a block is not written: the cache
    /// only gets colder.
    pub write_queue: ByteCount,
    /// Bytes that may be on their way from the store at once, over all readers of the pool.
    pub fetch_bytes: ByteCount,
    /// Largest read-ahead of one sequential reader.
    pub read_ahead: ByteCount,
    /// Most bytes per second that this pool reads from SSD and store together, 0 for no bound. Keeps a replay from
    /// taking the line from live traffic.
    pub bytes_per_second: ByteCount,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            store: StoreConfig::default(),
            tail: PoolConfig::default(),
            scan: PoolConfig::scan(),
            ssd_dir: PathBuf::new(),
            index_memory: ByteCount::mib(32),
            io_engine: IoEngine::default(),
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            attempt_timeout: Interval::secs(10),
            bytes_per_second_min: ByteCount::mib(1),
            deadline: Interval::secs(60),
            connect_timeout: Interval::secs(3),
            retry_budget: 64,
            part_bytes: ByteCount::mib(8),
            parts_in_flight: 2,
            foreground_requests: 32,
            replay_requests: 16,
            offload_requests: 8,
            background_requests: 4,
        }
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            memory: ByteCount::mib(128),
            ssd: ByteCount(0),
            write_queue: ByteCount::mib(32),
            fetch_bytes: ByteCount::mib(64),
            read_ahead: ByteCount::mib(8),
            bytes_per_second: ByteCount(0),
        }
    }
}

impl PoolConfig {
    /// Scans read much and come back to little: less memory, deeper read-ahead.
    pub fn scan() -> Self {
        Self { memory: ByteCount::mib(64), read_ahead: ByteCount::mib(32), ..Self::default() }
    }

    fn validate(&self, name: &str, with_dir: bool) -> Result<(), String> {
        if self.memory < ByteCount::mib(1) {
            return Err(format!("{name}.memory is {}: must be at least 1MiB", self.memory));
        }
        if self.ssd.0 != 0 && self.ssd < SSD_MIN {
            return Err(format!("{name}.ssd is {}: must be 0 or at least {SSD_MIN}", self.ssd));
        }
        if self.ssd.0 != 0 && !with_dir {
            return Err(format!("{name}.ssd is {}, but ssd-dir is empty: name a folder for it", self.ssd));
        }
        if self.write_queue < ByteCount::mib(4) || self.write_queue > ByteCount::gib(4) {
            return Err(format!("{name}.write-queue is {}: must be 4MiB to 4GiB", self.write_queue));
        }
        let fetch = ByteCount::mib(2)..=ByteCount::gib(4);
        if !fetch.contains(&self.fetch_bytes) {
            return Err(format!("{name}.fetch-bytes is {}: must be 2MiB to 4GiB", self.fetch_bytes));
        }
        if self.read_ahead > self.fetch_bytes {
            return Err(format!("{name}.read-ahead is {}: must be at most {name}.fetch-bytes", self.read_ahead));
        }
        Ok(())
    }
}

/// Space is freed in blocks of 16 MiB; with fewer than four of them, nothing would stay.
const SSD_MIN: ByteCount = ByteCount::mib(64);
/// The smallest part that S3 takes, but for the last one.
const PART_MIN: ByteCount = ByteCount::mib(5);

impl Config {
    /// Checks every value against the others.
    ///
    /// # Errors
    /// One line that names the key and what it should be.
    pub fn validate(&self) -> Result<(), String> {
        self.store.validate()?;
        if self.index_memory < ByteCount::mib(1) {
            return Err(format!("index-memory is {}: must be at least 1MiB", self.index_memory));
        }
        let with_dir = !self.ssd_dir.as_os_str().is_empty();
        self.tail.validate("tail", with_dir)?;
        self.scan.validate("scan", with_dir)
    }
}

impl StoreConfig {
    /// # Errors
    /// One line that names the key and what it should be.
    pub fn validate(&self) -> Result<(), String> {
        if self.part_bytes < PART_MIN || self.part_bytes > ByteCount::mib(512) {
            return Err(format!("store.part-bytes is {}: must be {PART_MIN} to 512MiB", self.part_bytes));
        }
        if self.bytes_per_second_min.0 == 0 {
            return Err("store.bytes-per-second-min is 0: a stalled transfer would never end".to_owned());
        }
        if self.attempt_timeout.0.is_zero() || self.attempt_timeout > self.deadline {
            return Err(format!(
                "store.attempt-timeout is {}: must be above 0 and at most store.deadline ({})",
                self.attempt_timeout, self.deadline
            ));
        }
        let counts = [
            ("parts-in-flight", self.parts_in_flight),
            ("foreground-requests", self.foreground_requests),
            ("replay-requests", self.replay_requests),
            ("offload-requests", self.offload_requests),
            ("background-requests", self.background_requests),
        ];
        for (key, value) in counts {
            if value == 0 || value > 1024 {
                return Err(format!("store.{key} is {value}: must be 1 to 1024"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_mistakes_are_named() {
        let good = Config::default();
        assert_eq!(good.validate(), Ok(()));
        let mut bad = good.clone();
        bad.store.part_bytes = ByteCount::mib(4);
        assert!(bad.validate().is_err_and(|e| e.contains("store.part-bytes")));
        bad = good.clone();
        bad.tail.ssd = ByteCount::gib(1);
        assert!(bad.validate().is_err_and(|e| e.contains("ssd-dir")));
        bad = good;
        bad.scan.read_ahead = ByteCount::gib(1);
        assert!(bad.validate().is_err_and(|e| e.contains("scan.read-ahead")));
    }
}
