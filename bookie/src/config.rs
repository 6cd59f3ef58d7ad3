//! Settings of a bookie. Each default carries its reason; `validate` names the key that is wrong.

use std::path::PathBuf;
use std::time::Duration;

use esker_types::units::{ByteCount, Interval};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A storage node: its identity, where it listens, and what it may use of its disk and memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Name of this node in the cluster. Metadata maps it to a number; a second process under one name is refused.
    pub node_name: String,
    /// Failure domain, such as an availability zone or a rack. Placement spreads copies over zones. Empty: none.
    pub zone: String,
    /// Address of the internal port: gateways send entries here. Port 0 takes a free one.
    pub listen: String,
    /// Address under which other nodes reach `listen`. Empty: the address bound.
    pub advertised: String,
    /// Directory of the journal. It belongs to one bookie of one cluster: a cookie in it says which.
    pub data_dir: PathBuf,
    /// Register the data directory as a fresh instance although the cluster knows another one under this name.
    /// What the old instance held is given up and repaired from other copies. For a replaced disk; off by default
    /// because a directory that was mounted wrongly looks just the same.
    pub new_instance: bool,
    /// How entries are written.
    pub journal: JournalConfig,
    /// How much of the disk may be used.
    pub disk: DiskConfig,
    /// How entries are read back.
    pub read: ReadConfig,
    /// Work in the background: freeing files, re-reading data, reporting.
    pub upkeep: UpkeepConfig,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct JournalConfig {
    /// Size of one journal file. Only the file in use is scanned after a crash, so this bounds the restart; a file
    /// is freed as a whole, so larger ones need more copying forward. 256 MiB scans in well under a second.
    pub file_bytes: ByteCount,
    /// Most bytes that one fsync makes durable together. Larger groups raise throughput (an fsync costs about the
    /// same for 4 KiB and 256 KiB) and add latency only when the disk is already saturated.
    pub group_bytes: ByteCount,
    /// Entries that wait for the journal, in bytes, over all connections. When full, connections are not read, so
    /// that TCP pushes back to the gateways. Must hold several groups, or the disk idles between them.
    pub queue_bytes: ByteCount,
    /// How far ahead of the writer a new file is filled with zeros. A write into such space needs no change of the
    /// file system's own journal and is nearly twice as fast.
    pub prepare_bytes: ByteCount,
    /// Bypass the page cache where the file system can (O_DIRECT): a third of the CPU and steadier latency.
    pub direct_io: bool,
    /// After this long without work one closing block is written, so that a restart knows the tail was durable.
    pub idle_epilogue: Interval,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DiskConfig {
    /// Most bytes of journal files, 0 = as much as the disk has. A bookie that shares its disk wants a budget.
    pub budget: ByteCount,
    /// Free space at which new entries are refused; segments move to other bookies. Recoveries go on down to three
    /// quarters of it, garbage collection to half, and fences to the end, because a bookie that can't fence blocks
    /// failover. Never less than four journal files.
    pub reserve: ByteCount,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ReadConfig {
    /// Reads under way at once. Each may hold `max_bytes`; more wait their turn.
    pub concurrency: u32,
    /// Most bytes of entries in one answer, whatever was asked for (one entry is always sent).
    pub max_bytes: ByteCount,
    /// Memory for the positions of entries in closed files. Less only means that an index is read from disk again.
    pub index_cache: ByteCount,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct UpkeepConfig {
    /// How often metadata is asked which segments may be dropped.
    pub gc_interval: Interval,
    /// Most bytes per second that garbage collection copies forward.
    pub gc_bytes_per_second: ByteCount,
    /// A full file is copied forward and freed when at most this share of its bytes is still needed, in percent.
    pub gc_live_percent: u8,
    /// Time in which all stored data is read once and verified, to find damage while other copies exist.
    pub scrub_interval: Interval,
    /// How often the durable position is reported to metadata while it moves. A disk image that was rolled back
    /// shows itself by this number.
    pub report_interval: Interval,
    /// How often limbo and damaged entries are looked at for repair from other bookies.
    pub repair_interval: Interval,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: "bookie-1".to_owned(),
            zone: String::new(),
            listen: "127.0.0.1:4451".to_owned(),
            advertised: String::new(),
            data_dir: PathBuf::from("esker-data/bookie"),
            new_instance: false,
            journal: JournalConfig::default(),
            disk: DiskConfig::default(),
            read: ReadConfig::default(),
            upkeep: UpkeepConfig::default(),
        }
    }
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            file_bytes: ByteCount::mib(256),
            group_bytes: ByteCount::mib(4),
            queue_bytes: ByteCount::mib(32),
            prepare_bytes: ByteCount::mib(32),
            direct_io: true,
            idle_epilogue: Interval(Duration::from_millis(20)),
        }
    }
}

impl Default for DiskConfig {
    fn default() -> Self {
        Self { budget: ByteCount(0), reserve: ByteCount::gib(1) }
    }
}

impl Default for ReadConfig {
    fn default() -> Self {
        Self { concurrency: 16, max_bytes: ByteCount::mib(4), index_cache: ByteCount::mib(64) }
    }
}

impl Default for UpkeepConfig {
    fn default() -> Self {
        Self {
            gc_interval: Interval(Duration::from_secs(10)),
            gc_bytes_per_second: ByteCount::mib(32),
            gc_live_percent: 50,
            scrub_interval: Interval(Duration::from_secs(7 * 24 * 3600)),
            report_interval: Interval(Duration::from_secs(5)),
            repair_interval: Interval(Duration::from_secs(5)),
        }
    }
}

/// Smallest journal file: room for its head, one full group and its footer.
const FILE_BYTES_MIN: u64 = 1 << 20;
/// Positions in a file are 32-bit counts of 4 KiB pages, and a file is freed as a whole: larger ones are a mistake.
const FILE_BYTES_MAX: u64 = 16 << 30;
/// Room for one entry of the largest size and its block header.
const GROUP_BYTES_MIN: u64 = 64 << 10;

impl Config {
    /// Checks every value against the others.
    ///
    /// # Errors
    /// One line that names the key and what it should be.
    pub fn validate(&self) -> Result<(), String> {
        if self.node_name.is_empty() || self.node_name.len() > 255 {
            return Err("node-name must have 1 to 255 bytes".to_owned());
        }
        if self.data_dir.as_os_str().is_empty() {
            return Err("data-dir is empty: name the directory of this bookie's journal".to_owned());
        }
        self.journal.validate()?;
        self.disk.validate(&self.journal)?;
        if self.read.concurrency == 0 || self.read.concurrency > 1024 {
            return Err(format!("read.concurrency is {}: must be 1 to 1024", self.read.concurrency));
        }
        if self.read.max_bytes > ByteCount::mib(16) {
            return Err(format!("read.max-bytes is {}: a frame holds at most 16MiB", self.read.max_bytes));
        }
        if self.upkeep.gc_live_percent > 90 {
            return Err(
                "upkeep.gc-live-percent must be 0 to 90: above it, files are copied for almost no gain".to_owned()
            );
        }
        let intervals = [
            ("gc-interval", self.upkeep.gc_interval),
            ("scrub-interval", self.upkeep.scrub_interval),
            ("report-interval", self.upkeep.report_interval),
            ("repair-interval", self.upkeep.repair_interval),
        ];
        for (key, value) in intervals {
            if value.0 < Duration::from_millis(1) {
                return Err(format!("upkeep.{key} must be at least 1ms"));
            }
        }
        Ok(())
    }
}

impl JournalConfig {
    fn validate(&self) -> Result<(), String> {
        let Self { file_bytes, group_bytes, queue_bytes, .. } = *self;
        if !(FILE_BYTES_MIN..=FILE_BYTES_MAX).contains(&file_bytes.0) {
            return Err(format!("journal.file-bytes is {file_bytes}: must be 1MiB to 16GiB"));
        }
        if group_bytes.0 < GROUP_BYTES_MIN || group_bytes.0 > file_bytes.0 / 4 {
            return Err(format!(
                "journal.group-bytes is {group_bytes}: must be 64KiB to a quarter of journal.file-bytes ({file_bytes})"
            ));
        }
        if queue_bytes < group_bytes || queue_bytes > ByteCount::gib(4) {
            return Err(format!(
                "journal.queue-bytes is {queue_bytes}: must be at least journal.group-bytes ({group_bytes}), at most 4GiB"
            ));
        }
        Ok(())
    }
}

impl DiskConfig {
    fn validate(&self, journal: &JournalConfig) -> Result<(), String> {
        let least = journal.file_bytes.0.saturating_mul(6);
        if self.budget.0 != 0 && self.budget.0 < least {
            return Err(format!(
                "disk.budget is {}: must hold at least six journal files ({})",
                self.budget,
                ByteCount(least)
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_mistakes_are_named() {
        assert_eq!(Config::default().validate(), Ok(()));
        let mut config = Config::default();
        config.journal.group_bytes = ByteCount::mib(128);
        assert!(config.validate().is_err_and(|e| e.contains("journal.group-bytes")));
        config = Config::default();
        config.disk.budget = ByteCount::mib(1);
        assert!(config.validate().is_err_and(|e| e.contains("disk.budget")));
    }
}
