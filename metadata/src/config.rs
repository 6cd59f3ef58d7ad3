//! Settings of a metadata node. Each default carries its reason; `validate` names the key that is wrong.

use std::path::PathBuf;

use esker_cache::StoreConfig;
use esker_net::Address;
use esker_types::units::Interval;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A member of the metadata quorum: where it keeps its log, where it listens, and how patient it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Name of this node, for people. Its place in the quorum hangs on the data directory, not on the name.
    pub node_name: String,
    /// Address of the internal port: other voters, gateways and bookies connect here. Port 0 takes a free one.
    pub listen: String,
    /// Address under which others reach `listen`. Empty: the address bound. It is written into the quorum's
    /// membership, so it must stay true over restarts.
    pub advertised: String,
    /// Directory of the log and the snapshots. A node whose directory is lost is a new node.
    pub data_dir: PathBuf,
    /// Ping of the leader to the others. Four of them fit into `leader-lease`, so one lost frame starts nothing.
    pub heartbeat: Interval,
    /// Silence of the leader after which others may be elected. Longer than any usual pause of a process; most of the
    /// time that a failover takes.
    pub leader_lease: Interval,
    /// Distance between the moments at which the voters try, one after the other, to become leader. Longer than a
    /// vote takes, so that two never split the votes for long.
    pub election_slot: Interval,
    /// A gateway or bookie that was not heard of for so long counts as dead. Dead processes are mostly found at
    /// once, by their closed connection; this is for machines that vanish.
    pub session_ttl: Interval,
    /// Log entries after which a snapshot is written. Bounds the restart: some 100,000 are applied per second.
    pub snapshot_entries: u64,
    /// Log entries kept behind a snapshot, so that a node that was away shortly needs no snapshot.
    pub entries_kept: u64,
    /// Partitions that are moved from one gateway to another at the same time when the load is levelled out.
    pub moves_at_once: usize,
    /// The bucket, for a copy of the metadata from which a lost cluster is rebuilt.
    pub objects: ObjectsConfig,
}

/// Where copies of the metadata go, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ObjectsConfig {
    /// The same place as the gateways' `objects.url`. Empty: no copies; a cluster that loses all its metadata nodes is
    /// then lost with them, whatever is in the bucket.
    pub url: String,
    /// Time between two copies. What changes in between is found from the objects themselves, as far as it can be.
    pub snapshot_interval: Interval,
    /// A change of topics is copied after so long: several that come together make one copy.
    pub snapshot_settle: Interval,
    /// Copies kept of the cluster's present life: the newer half the newest, the others up to 1, 2, 4 ... hours old, so
    /// that a burst of changes leaves some of before it. Others are deleted after a newer one was written and read back;
    /// those of former lives stay.
    pub snapshots_kept: u32,
    /// Requests to the store.
    pub store: StoreConfig,
}

impl Default for ObjectsConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            snapshot_interval: Interval::secs(300),
            snapshot_settle: Interval::secs(1),
            snapshots_kept: 12,
            store: StoreConfig::default(),
        }
    }
}

impl ObjectsConfig {
    fn validate(&self) -> Result<(), String> {
        if self.snapshot_settle.0.is_zero() || self.snapshot_settle > self.snapshot_interval {
            let (settle, interval) = (self.snapshot_settle, self.snapshot_interval);
            return Err(format!("objects.snapshot-settle is {settle}: must be above 0 and at most {interval}"));
        }
        if !(1..=1_000).contains(&self.snapshots_kept) {
            return Err(format!("objects.snapshots-kept is {}: must be 1 to 1000", self.snapshots_kept));
        }
        self.store.validate().map_err(|reason| format!("objects.{reason}"))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: "metadata-1".to_owned(),
            listen: "127.0.0.1:4441".to_owned(),
            advertised: String::new(),
            data_dir: PathBuf::from("esker-data/metadata"),
            heartbeat: Interval::millis(250),
            leader_lease: Interval::millis(1_000),
            election_slot: Interval::millis(300),
            session_ttl: Interval::secs(2),
            snapshot_entries: 10_000,
            entries_kept: 1_000,
            moves_at_once: 8,
            objects: ObjectsConfig::default(),
        }
    }
}

impl Config {
    /// One line that names the key, or nothing to complain of.
    pub fn validate(&self) -> Result<(), String> {
        if self.node_name.is_empty() || self.node_name.len() > 128 {
            return Err("node-name must have 1 to 128 characters".to_owned());
        }
        self.listen.parse::<Address>().map_err(|error| format!("listen: {error}"))?;
        if !self.advertised.is_empty() {
            self.advertised.parse::<Address>().map_err(|error| format!("advertised: {error}"))?;
        }
        if self.data_dir.as_os_str().is_empty() {
            return Err("data-dir must not be empty".to_owned());
        }
        let (heartbeat, lease) = (self.heartbeat.0, self.leader_lease.0);
        if heartbeat.as_millis() < 10 {
            return Err("heartbeat must be at least 10ms".to_owned());
        }
        if lease < heartbeat * 3 {
            return Err(format!("leader-lease must be at least three times heartbeat ({})", self.heartbeat));
        }
        if self.election_slot.0 < heartbeat {
            return Err(format!("election-slot must be at least heartbeat ({})", self.heartbeat));
        }
        if self.session_ttl.0 < heartbeat * 4 {
            return Err(format!("session-ttl must be at least four times heartbeat ({})", self.heartbeat));
        }
        if self.snapshot_entries == 0 {
            return Err("snapshot-entries must be above 0".to_owned());
        }
        if self.moves_at_once == 0 {
            return Err("moves-at-once must be above 0".to_owned());
        }
        self.objects.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_faults_name_their_key() {
        assert_eq!(Config::default().validate(), Ok(()));
        type Fault = (&'static str, fn(&mut Config));
        let faults: [Fault; 8] = [
            ("node-name", |c| c.node_name.clear()),
            ("listen", |c| c.listen = "nowhere".to_owned()),
            ("leader-lease", |c| c.leader_lease = Interval::millis(300)),
            ("election-slot", |c| c.election_slot = Interval::millis(1)),
            ("session-ttl", |c| c.session_ttl = Interval::millis(500)),
            ("snapshot-entries", |c| c.snapshot_entries = 0),
            ("objects.snapshot-settle", |c| c.objects.snapshot_settle = Interval::secs(301)),
            ("objects.snapshots-kept", |c| c.objects.snapshots_kept = 0),
        ];
        for (key, break_it) in faults {
            let mut config = Config::default();
            break_it(&mut config);
            let fault = config.validate().expect_err(key);
            assert!(fault.starts_with(key), "{fault}");
        }
    }
}
