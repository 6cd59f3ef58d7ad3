use std::time::Duration;

/// Bounds and times of one coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Shortest and longest session that a classic member may ask for. A very short one turns a pause into a
    /// rebalance, a very long one keeps partitions of a dead member from being read.
    pub session_timeout_min: Duration,
    pub session_timeout_max: Duration,
    /// How long an empty classic group waits for more members before its first generation: a fleet that starts
    /// together then rebalances once.
    pub initial_rebalance_delay: Duration,
    /// A member that was never part of a generation may wait this long for its first one.
    pub new_member_timeout: Duration,
    /// Members of one group.
    pub members_max: usize,
    /// Member ids given out to clients that have not joined with them yet, per group.
    pub pending_max: usize,
    /// Bytes of the subscriptions that one member sends.
    pub member_bytes_max: usize,
    /// Encoded size of one group without its offsets. A classic group is one record, so this must stay well below the
    /// largest batch of the internal topic.
    pub group_bytes_max: usize,
    /// Groups of one coordinator.
    pub groups_max: usize,
    /// Encoded state of one coordinator; above it new groups and new offsets are refused.
    pub state_bytes_max: usize,
    /// Text that clients keep with a committed offset.
    pub offset_metadata_bytes_max: usize,
    /// Offsets are forgotten when their group has been empty for this long.
    pub offsets_retention: Duration,
    /// How often expired offsets and dead groups are looked for.
    pub expiry_interval: Duration,
    /// Session and heartbeat interval of members of the consumer protocol: there the coordinator decides.
    pub consumer_session_timeout: Duration,
    pub consumer_heartbeat_interval: Duration,
    /// A snapshot is begun when so many bytes, or twice the live state, were appended since the last.
    pub snapshot_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            session_timeout_min: Duration::from_secs(6),
            session_timeout_max: Duration::from_secs(1800),
            initial_rebalance_delay: Duration::from_secs(3),
            new_member_timeout: Duration::from_secs(300),
            members_max: 2000,
            pending_max: 2000,
            member_bytes_max: 256 << 10,
            group_bytes_max: 4 << 20,
            groups_max: 10_000,
            state_bytes_max: 64 << 20,
            offset_metadata_bytes_max: 4096,
            offsets_retention: Duration::from_secs(7 * 86_400),
            expiry_interval: Duration::from_secs(60),
            consumer_session_timeout: Duration::from_secs(45),
            consumer_heartbeat_interval: Duration::from_secs(5),
            snapshot_bytes: 1 << 20,
        }
    }
}
