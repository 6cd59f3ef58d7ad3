use esker_gateway_core::groups;
use esker_types::units::{ByteCount, Interval};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Consumer groups: times that Kafka's tools know, and bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct GroupsConfig {
    /// Shortest session that a member may ask for. Shorter ones turn a pause into a rebalance.
    pub session_timeout_min: Interval,
    /// Longest session that a member may ask for: so long the partitions of a dead member may stay unread.
    pub session_timeout_max: Interval,
    /// How long an empty group waits for more members before its first generation, so that a fleet that starts together
    /// rebalances once.
    pub initial_rebalance_delay: Interval,
    /// Members of one group. Each costs a few hundred bytes, and every rebalance takes time with their number.
    pub members_max: u32,
    /// Bytes of subscription that one member may send; ordinary ones have a few hundred.
    pub member_bytes_max: ByteCount,
    /// Encoded size of one group without its offsets. It must fit one record batch of the internal topic.
    pub group_bytes_max: ByteCount,
    /// Groups of one coordinator, of which there are 50 in the cluster.
    pub groups_max: u32,
    /// Encoded state of one coordinator. Above it new groups and offsets are refused, retriable; the rest goes on.
    pub state_bytes_max: ByteCount,
    /// Text kept with a committed offset (Kafka's `offset.metadata.max.bytes`).
    pub offset_metadata_max: ByteCount,
    /// Offsets are forgotten when their group has been empty for so long (Kafka's `offsets.retention.minutes`).
    pub offsets_retention: Interval,
    /// Session of members of the consumer protocol, where the broker decides.
    pub consumer_session_timeout: Interval,
    /// How often such members send heartbeats.
    pub consumer_heartbeat_interval: Interval,
    /// A coordinator writes its state anew when it has appended so many bytes (or twice its state): bounds what the next
    /// owner reads.
    pub snapshot_bytes: ByteCount,
    /// Requests that wait for coordinators, all together. When reached, connections that send more are not read.
    pub queue_bytes: ByteCount,
}

impl Default for GroupsConfig {
    fn default() -> Self {
        let core = groups::Config::default();
        Self {
            session_timeout_min: Interval(core.session_timeout_min),
            session_timeout_max: Interval(core.session_timeout_max),
            initial_rebalance_delay: Interval(core.initial_rebalance_delay),
            members_max: 2000,
            member_bytes_max: ByteCount(core.member_bytes_max as u64),
            group_bytes_max: ByteCount(core.group_bytes_max as u64),
            groups_max: 10_000,
            state_bytes_max: ByteCount(core.state_bytes_max as u64),
            offset_metadata_max: ByteCount(core.offset_metadata_bytes_max as u64),
            offsets_retention: Interval(core.offsets_retention),
            consumer_session_timeout: Interval(core.consumer_session_timeout),
            consumer_heartbeat_interval: Interval(core.consumer_heartbeat_interval),
            snapshot_bytes: ByteCount(core.snapshot_bytes as u64),
            queue_bytes: ByteCount::mib(64),
        }
    }
}

impl GroupsConfig {
    /// The first thing that is wrong, with the key it is under.
    pub fn validate(&self) -> Result<(), String> {
        if self.session_timeout_min.0 > self.session_timeout_max.0 {
            return Err("groups.session-timeout-min must be at most groups.session-timeout-max".to_owned());
        }
        if self.members_max == 0 || self.groups_max == 0 {
            return Err("groups.members-max and groups.groups-max must be at least 1".to_owned());
        }
        if !(64 << 10..=6 << 20).contains(&self.group_bytes_max.0) {
            return Err("groups.group-bytes-max must be between 64KiB and 6MiB: it is one record batch".to_owned());
        }
        if self.consumer_heartbeat_interval.0 >= self.consumer_session_timeout.0 {
            return Err("groups.consumer-heartbeat-interval must be below groups.consumer-session-timeout".to_owned());
        }
        if self.queue_bytes.0 < 1 << 20 {
            return Err("groups.queue-bytes must be at least 1MiB".to_owned());
        }
        Ok(())
    }

    pub fn core(&self) -> groups::Config {
        groups::Config {
            session_timeout_min: self.session_timeout_min.0,
            session_timeout_max: self.session_timeout_max.0,
            initial_rebalance_delay: self.initial_rebalance_delay.0,
            members_max: self.members_max as usize,
            pending_max: self.members_max as usize,
            member_bytes_max: self.member_bytes_max.as_usize(),
            group_bytes_max: self.group_bytes_max.as_usize(),
            groups_max: self.groups_max as usize,
            state_bytes_max: self.state_bytes_max.as_usize(),
            offset_metadata_bytes_max: self.offset_metadata_max.as_usize(),
            offsets_retention: self.offsets_retention.0,
            consumer_session_timeout: self.consumer_session_timeout.0,
            consumer_heartbeat_interval: self.consumer_heartbeat_interval.0,
            snapshot_bytes: self.snapshot_bytes.as_usize(),
            ..groups::Config::default()
        }
    }
}
