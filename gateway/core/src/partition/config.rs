//! Bounds and times of one partition at its gateway.

use std::time::Duration;

use esker_bookie_core::owner::OwnerLimits;
use esker_bookie_core::recovery::RecoveryLimits;

use crate::producers::TableLimits;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Largest payload of an entry. One batch that is larger still gets an entry of its own.
    pub entry_bytes: usize,
    /// While so many entries are unacknowledged, the next one waits to collect more batches (or a full entry).
    pub pipeline_entries: u64,
    /// Bytes sent and not acknowledged; beyond this nothing is sent.
    pub in_flight_bytes: u64,
    /// Bytes waiting and in flight at which the shell is asked to stop; it is asked to go on below half of it.
    /// At twice as much appends are refused.
    pub partition_bytes: u64,
    /// A snapshot of producer state at the latest after so many bytes: what a new owner has to read at most.
    pub snapshot_bytes: u64,
    /// How long a planned roll or handover waits for what is in flight.
    pub drain: Duration,
    /// Between tries of a metadata command or read whose outcome is open.
    pub metadata_retry: Duration,
    /// Between rolls away from trouble, and between looks for a better member set.
    pub roll_retry: Duration,
    /// A degraded segment is kept this small.
    pub degraded_segment_bytes: u64,
    /// Records below a new log start stay readable for so long before bookies may drop them. Wall clock, milliseconds.
    pub delete_grace_ms: i64,
    /// Time that an intent for a substitute copy blocks garbage collection.
    pub intent_ms: u32,
    /// Bytes asked for with one READ in recovery.
    pub read_bytes: u32,
    pub owner: OwnerLimits,
    pub recovery: RecoveryLimits,
    pub table: TableLimits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            entry_bytes: 1 << 20,
            pipeline_entries: 4,
            in_flight_bytes: 16 << 20,
            partition_bytes: 32 << 20,
            snapshot_bytes: 32 << 20,
            drain: Duration::from_millis(50),
            metadata_retry: Duration::from_millis(200),
            roll_retry: Duration::from_secs(1),
            degraded_segment_bytes: 32 << 20,
            delete_grace_ms: 60_000,
            intent_ms: 3_600_000,
            read_bytes: 4 << 20,
            owner: OwnerLimits::default(),
            recovery: RecoveryLimits::default(),
            table: TableLimits::default(),
        }
    }
}
