//! What a partition knows of its idempotent producers: enough to recognise a repeated batch, and nothing that is
//! not in the log (R18).
//!
//! ```text
//!            committed                 pending (assigned, not yet on an ack quorum)
//! log  |-------------------------|--------------------------------|
//!                              commit_up_to()                      pend()
//!         snapshot_at(upto) folds everything below `upto`, on either side, and nothing else
//! ```
//! The committed view is a pure function of the log below the high watermark: a new owner that replays a snapshot
//! and the entries behind it has the very same table.

mod producer;
mod snapshot;
mod table;

pub use producer::{BatchSpan, REMEMBERED};
pub use snapshot::{SNAPSHOT_CHUNK_MAX, SnapshotError, SnapshotReader};
pub use table::{Admission, ProducerTable, Refusal, TableLimits};

#[cfg(test)]
mod tests;
